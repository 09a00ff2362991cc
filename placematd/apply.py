"""Making the host what a plan says: changes in, adapters called, and everything undone where one of them fails.

Adapters block, so they run in threads. Changes that do not depend on each other (images, volumes, the QEMUs of all
nodes) run side by side as one wave; the rest goes in order.
"""

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import Any, ParamSpec, TypeVar

from .adapter import Adapter
from .errors import PlacematError
from .names import OwnerMark, unit_part
from .reconcile import Change, Changes
from .resources import Key, Kind, key_of

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger("placematd")

THREADS = 8
PARALLEL_KINDS = frozenset({"image", "volume"})
PARALLEL_UNITS = frozenset({"node", "tpm", "console", "bmc"})
REMOVED_SIDE_BY_SIDE = frozenset({"netns", "tap", "bridge"})
"""Taking a link or namespace away is mostly waiting, for the kernel's grace periods."""
KEPT_KINDS = frozenset({"image", "volume"})
"""What outlives a cluster, and so is not undone either."""

Confirm = Callable[[], Awaitable[None]]


def wave_of(change: Change) -> str:
    """Neighbouring changes with the same answer may run side by side; an answer of its own means alone."""
    kind, name = change.key
    if kind in PARALLEL_KINDS:
        return kind
    if kind == "unit":
        part = unit_part(name)
        return f"unit {part}" if part in PARALLEL_UNITS or change.resource is None else str(change.key)
    if change.resource is None and kind in REMOVED_SIDE_BY_SIDE:
        return kind
    return str(change.key)


def waves(changes: Sequence[Change]) -> Iterator[list[Change]]:
    """The changes in order, cut into waves."""
    for _, wave in groupby(changes, key=wave_of):
        yield list(wave)


class Applier:
    """Applies changes of one cluster through the adapters, one per kind."""

    def __init__(self, cluster: str, adapters: Mapping[Kind, Adapter[Any]], report: Callable[[str], None]) -> None:
        self._cluster = cluster
        self._adapters = adapters
        self._report = report
        self._observed: dict[Key, OwnerMark] = {}
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="apply")

    def close(self) -> None:
        """End the worker threads."""
        self._threads.shutdown()

    async def observe(self) -> list[OwnerMark]:
        """The marks of everything that exists on the host and belongs to the cluster."""
        calls = [self._in_thread(adapter.observe, self._cluster) for adapter in self._adapters.values()]
        observed = [mark for marks in await asyncio.gather(*calls) for mark in marks]
        self._observed = {key_of(mark): mark for mark in observed}
        return observed

    async def apply(self, changes: Changes, confirm: Confirm | None = None) -> None:
        """Remove, create, then `confirm` that it works; where anything fails, undo what was created here.

        Raises the first error (the others of its wave are logged). Cancelling waits for the running wave, then undoes.
        """
        for wave in waves(changes.remove):
            await self._finish([self._remove(change) for change in wave])
        created: list[Change] = []
        try:
            for wave in waves(changes.create):
                await self._finish([self._create(change, created) for change in wave])
            if confirm:
                await confirm()
        except BaseException:
            await self.undo(created)
            raise

    async def remove(self, changes: Sequence[Change]) -> None:
        """Remove as much as can be; raises the first error (the others are logged)."""
        errors: list[Exception] = []
        for wave in waves(changes):
            try:
                await self._finish([self._remove(change) for change in wave])
            except PlacematError as error:
                errors.append(error)
        for other in errors[1:]:
            log.error("%s", other)
        if errors:
            raise errors[0]

    async def undo(self, created: Sequence[Change]) -> None:
        """Take away what was created, last first; a step that fails does not keep the others from being undone."""
        marks = [
            Change(change.key, None, "undone") for change in reversed(created) if change.key.kind not in KEPT_KINDS
        ]
        for wave in waves(marks):
            results = await asyncio.gather(*map(self._remove, wave), return_exceptions=True)
            for result in results:
                if isinstance(result, BaseException):
                    log.error("while undoing: %s", result)

    async def _create(self, change: Change, created: list[Change]) -> None:
        if change.resource is None:
            raise ValueError(f"{change.key}: a change that creates has a resource")
        self._report(f"{change.action} {change.key}" + (f" ({change.reason})" if change.reason != "missing" else ""))
        await self._in_thread(self._adapters[change.key.kind].create, change.resource, self._cluster)
        created.append(change)
        self._observed[change.key] = change.resource.mark(self._cluster)

    async def _remove(self, change: Change) -> None:
        self._report(f"remove {change.key}" + (f" ({change.reason})" if change.reason else ""))
        mark = self._observed[change.key]
        await self._in_thread(self._adapters[change.key.kind].remove, mark)

    async def _finish(self, steps: Sequence[Awaitable[None]]) -> None:
        """Run the steps side by side to their end, even when cancelled: a thread cannot be stopped half-way."""
        tasks = [asyncio.ensure_future(step) for step in steps]
        if not tasks:
            return
        cancelled = False
        pending = set(tasks)
        while pending:
            try:
                _, pending = await asyncio.wait(pending)
            except asyncio.CancelledError:
                cancelled = True
                pending = {task for task in tasks if not task.done()}
        errors = [error for task in tasks if (error := task.exception())]
        for error in errors[1:]:
            log.error("%s", error)
        if cancelled:
            raise asyncio.CancelledError
        if errors:
            raise errors[0]

    async def _in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, functools.partial(function, *args, **kwargs))
