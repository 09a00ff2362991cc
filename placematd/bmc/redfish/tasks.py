"""Long operations as Tasks (DSP0266 "Asynchronous operations"): in memory and bounded, the oldest ended goes first."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from ...errors import PlacematError
from .messages import Message, RedfishError
from .resource import ROOT, Json

log = logging.getLogger("placemat.bmc")

TASKS = f"{ROOT}/TaskService/Tasks"
MONITORS = f"{ROOT}/TaskService/TaskMonitors"
MOST = 32

State = Literal["Running", "Completed", "Exception", "Cancelled"]


@dataclass
class Task:
    """One operation. Its work tells how far it is with `percent`."""

    id: str
    name: str
    target: str
    """URI that the operation was asked of."""
    owner: int = 0
    """Slot of the account that began it."""
    state: State = "Running"
    percent: int = 0
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    ended: datetime | None = None
    error: RedfishError | None = None
    result: Json | None = None
    _running: asyncio.Task[None] | None = field(default=None, repr=False)

    @property
    def uri(self) -> str:
        """Of the Task resource."""
        return f"{TASKS}/{self.id}"

    @property
    def monitor(self) -> str:
        """Where a client waits for the end."""
        return f"{MONITORS}/{self.id}"

    @property
    def done(self) -> bool:
        """Whether it has ended, one way or the other."""
        return self.state != "Running"

    @property
    def messages(self) -> Sequence[Message]:
        """What there is to say about it."""
        if self.error:
            return self.error.messages
        return (Message("Success"),) if self.state == "Completed" else ()

    def progress(self, done: float, total: float | None) -> None:
        """Say how far the work is, in any unit; `total` None where nobody knows."""
        if total:
            self.percent = max(0, min(99, int(100 * done / total)))

    def cancel(self) -> None:
        """Stop the work; one that has ended stays as it is."""
        if self._running and not self.done:
            self._running.cancel()

    def end_unbegun(self, running: asyncio.Task[None]) -> None:
        """The work was cancelled before its first step, so that `_run` saw nothing of it."""
        if running.cancelled():
            self.state, self.ended = "Cancelled", datetime.now(UTC)


Work = Callable[[Task], Awaitable[Json | None]]


class Tasks:
    """The table of tasks."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task] = {}
        self._last = 0

    def start(self, name: str, work: Work, *, target: str, owner: int = 0) -> Task:
        """Begin. What `work` returns is the answer of the task monitor; what it raises makes the task an Exception.

        Raises RedfishError where too many run.
        """
        self._make_room()
        self._last += 1
        task = Task(str(self._last), name, target, owner)
        self._tasks[task.id] = task
        task._running = asyncio.get_running_loop().create_task(_run(task, work), name=f"redfish task {task.id}")
        task._running.add_done_callback(task.end_unbegun)
        return task

    def all(self) -> Sequence[Task]:
        """Running and ended ones, oldest first."""
        return tuple(self._tasks.values())

    def get(self, task_id: str) -> Task | None:
        """By the id in the URI."""
        return self._tasks.get(task_id)

    def remove(self, task: Task) -> None:
        """Cancel and forget."""
        task.cancel()
        self._tasks.pop(task.id, None)

    @property
    def running(self) -> int:
        """How many have not ended."""
        return sum(not task.done for task in self._tasks.values())

    async def close(self) -> None:
        """Cancel all and wait for their ends."""
        running = [task._running for task in self._tasks.values() if task._running]
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _make_room(self) -> None:
        if len(self._tasks) < MOST:
            return
        ended = next((task for task in self._tasks.values() if task.done), None)
        if ended is None:
            raise RedfishError("ServiceTemporarilyUnavailable", 30, headers={"Retry-After": "30"})
        del self._tasks[ended.id]


async def _run(task: Task, work: Work) -> None:
    try:
        task.result = await work(task)
        task.state, task.percent = "Completed", 100
    except asyncio.CancelledError:
        task.state = "Cancelled"
    except RedfishError as error:
        task.state, task.error = "Exception", error
    except PlacematError as error:
        task.state, task.error = "Exception", RedfishError("MachineError", error, registry="Placemat")
    except Exception:
        log.exception("redfish: task %s (%s)", task.id, task.name)
        task.state, task.error = "Exception", RedfishError("InternalError")
    finally:
        task.ended = datetime.now(UTC)
