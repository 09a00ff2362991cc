"""TaskService, its tasks and their monitors (DSP0266 "Asynchronous operations")."""

from collections.abc import Sequence
from datetime import UTC, datetime

from ..resource import ROOT, Call, Json, Resource, collection, link, missing
from ..tasks import MONITORS, TASKS, Task

SERVICE = f"{ROOT}/TaskService"


def routes() -> Sequence[Resource]:
    """The resources of this module."""
    return [
        Resource(uri=SERVICE, type="TaskService.v1_2_1.TaskService", get=_service, volatile=frozenset({"DateTime"})),
        Resource(uri=TASKS, type="TaskCollection.TaskCollection", get=_tasks),
        Resource(
            uri=TASKS + "/{task}",
            type="Task.v1_7_4.Task",
            get=_task,
            delete=_delete,
            write="ConfigureManager",
            owner=_own,
        ),
        Resource(
            uri=MONITORS + "/{task}",
            type="Task.v1_7_4.Task",
            get=_task,
            monitor=_find,
            delete=_delete,
            write="ConfigureManager",
            owner=_own,
        ),
    ]


async def _service(call: Call) -> Json:
    return {
        "Id": "TaskService",
        "Name": "Task Service",
        "ServiceEnabled": True,
        "DateTime": datetime.now(UTC).isoformat(timespec="seconds"),
        "CompletedTaskOverWritePolicy": "Oldest",
        "LifeCycleEventOnTaskStateChange": False,
        "Tasks": link(TASKS),
        "Status": {"State": "Enabled", "Health": "OK"},
    }


async def _tasks(call: Call) -> Json:
    return collection("Task Collection", [task.uri for task in call.services.tasks.all()])


def _find(call: Call) -> Task:
    task = call.services.tasks.get(call.parameters.get("task") or call.uri.rpartition("/")[2])
    if task is None:
        raise missing(call)
    return task


async def _task(call: Call) -> Json:
    task = _find(call)
    end = {"EndTime": task.ended.isoformat(timespec="seconds")} if task.ended else {}
    return {
        "Id": task.id,
        "Name": task.name,
        "TaskState": task.state,
        "TaskStatus": "Warning" if task.error else "OK",
        "PercentComplete": task.percent,
        "StartTime": task.started.isoformat(timespec="seconds"),
        **end,
        "TaskMonitor": task.monitor,
        "HidePayload": True,
        "Messages": [message.json() for message in task.messages],
    }


async def _delete(call: Call) -> None:
    call.services.tasks.remove(_find(call))


def _own(call: Call) -> bool:
    task = call.services.tasks.get(call.parameters["task"])
    return task is not None and call.account is not None and task.owner == call.account.slot
