"""systemd: transient units started and stopped, their states listed and watched.

Methods may be called from any thread and block their caller; from asyncio, use `asyncio.to_thread`. The source of all
names and values is org.freedesktop.systemd1(5).
"""

import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from threading import Event
from typing import Any, Literal, NamedTuple

from .bus import Connection, Refused, Worker, variant
from .errors import NotOurs, StepError, TimedOut, WrongState
from .names import OwnerMark
from .unit import Unit, Value
from .unit_log import last_lines

log = logging.getLogger("placematd")

SERVICE = "org.freedesktop.systemd1"
MANAGER = SERVICE + ".Manager"
MANAGER_PATH = "/org/freedesktop/systemd1"
UNIT = SERVICE + ".Unit"
UNIT_PATHS = MANAGER_PATH + "/unit/"
OUR_UNITS = ("placemat-", "placemat@")

UNIT_EXISTS = SERVICE + ".UnitExists"
NOT_LOADED = {SERVICE + ".NoSuchUnit", "org.freedesktop.DBus.Error.UnknownObject"}

CALL_SECONDS = 25.0
JOB_SECONDS = 120.0
RECONNECT_SECONDS = 1.0
CANCEL_SECONDS = 0.2

Callback = Callable[["UnitState"], None]


class UnitState(NamedTuple):
    """A unit as systemd lists it; `description` is without the mark, and `mark` is None on units that are not ours.

    `load` is loaded, not-found, masked, ...; `active` is active, reloading, inactive, failed, activating or
    deactivating; `sub` depends on the unit's type (running, listening, dead, ...).
    """

    name: str
    description: str
    load: str
    active: str
    sub: str
    mark: OwnerMark | None


@dataclass(frozen=True, kw_only=True)
class UnitProperties:
    """How a unit is, or how it ended; what only services have is 0 on others.

    `result` is "success" or the reason of a failure ("exit-code", "signal", "timeout", ...); `exit_status` an exit
    status or signal number; `errno` what the service reported with sd_notify; `job` the type of the job that is queued
    for the unit ("start", "restart", "stop", ...), or None.
    """

    result: str
    main_pid: int
    exit_status: int
    errno: int
    invocation_id: str
    active_since: datetime | None
    job: str | None


def transient(unit: Unit, mark: OwnerMark, journal_fields: Iterable[tuple[str, str]] = ()) -> tuple[Any, ...]:
    """The arguments of StartTransientUnit: name, job mode, properties, auxiliary units.

    The mark goes to the end of each description, the journal fields into LogExtraFields.
    """
    fields: Value = tuple(f"{name}={value}" for name, value in journal_fields)

    def properties(part: Unit) -> list[tuple[str, Any]]:
        description = f"{part.get('Description') or part.name} [{mark}]"
        rest = [(name, value) for name, value in part.properties if name != "Description"]
        extra = [("LogExtraFields", fields)] if fields else []
        return [(name, variant(name, value)) for name, value in [("Description", description), *rest, *extra]]

    return unit.name, "fail", properties(unit), [(part.name, properties(part)) for part in unit.auxiliaries]


def unit_of_path(path: str) -> str:
    """The unit that a bus path stands for; _XX in it is a byte in hexadecimal (sd_bus_path_encode(3))."""
    first, *rest = path.removeprefix(UNIT_PATHS).split("_")
    return first + "".join(chr(int(part[:2], 16)) + part[2:] for part in rest)


def unit_state(name: str, description: str, load: str, active: str, sub: str, *_: Any) -> UnitState:
    """A unit from the fields that ListUnitsByPatterns returns for it."""
    mark = OwnerMark.parse(description)
    return UnitState(name, description.removesuffix(f"[{mark}]").rstrip(), load, active, sub, mark)


def same_owner(found: OwnerMark | None, mark: OwnerMark) -> bool:
    """Whether two marks are of the same thing; their digests may differ."""
    return found is not None and replace(found, digest=mark.digest) == mark


class _IgnoreNotLoaded:
    """Context in which systemd may answer that it does not know the unit or job."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        return isinstance(error, Refused) and error.name in NOT_LOADED


IGNORE_NOT_LOADED = _IgnoreNotLoaded()


class Systemd:
    """The system's systemd, or the one behind the message bus at `address`. Connects at the first call.

    Every call raises StepError where there is no systemd, or no answer within `timeout_seconds`.
    """

    def __init__(self, address: str = "", timeout_seconds: float = CALL_SECONDS) -> None:
        self._worker = Worker()
        # All below belongs to the worker thread.
        self._connection = Connection(
            *(SERVICE, MANAGER_PATH, MANAGER),
            address=address,
            timeout_seconds=timeout_seconds,
            connected=self._on_connected,
            lost=self._on_lost,
        )
        self._jobs: dict[str, Future[str]] = {}
        self._removals: dict[str, Future[str]] = {}
        self._callbacks: list[Callback] = []
        self._states: dict[str, UnitState] = {}

    def close(self) -> None:
        """Disconnect and end the worker thread; nothing can be called after that."""
        self._worker.call(self._connection.close)
        self._worker.close()

    def start(
        self,
        unit: Unit,
        mark: OwnerMark,
        journal_fields: Iterable[tuple[str, str]] = (),
        timeout_seconds: float = JOB_SECONDS,
        cancelled: Event | None = None,
    ) -> None:
        """Make and start a transient unit with its auxiliaries, and wait until its start job is done.

        What ended or failed under the same mark's name is cleared away first. Raises NotOurs where a unit of that name
        exists without our mark, WrongState where it is ours and active, TimedOut, and StepError with what systemd knows
        of the failure, or soon after `cancelled` is set; the unit goes on starting then.
        """
        arguments = transient(unit, mark, journal_fields)
        job = (f"start {unit.name}", unit.name, timeout_seconds, "StartTransientUnit", *arguments)
        try:
            self._run_job(*job, cancelled=cancelled)
        except Refused as error:
            if error.name != UNIT_EXISTS:
                raise
            for part in (unit, *unit.auxiliaries):
                self._make_way(part.name, mark)
            self._run_job(*job, cancelled=cancelled)

    def stop(self, name: str, timeout_seconds: float = JOB_SECONDS) -> None:
        """Stop a unit (of a slice: all that is in it) and wait until it has stopped. Not loaded is stopped."""
        with IGNORE_NOT_LOADED:
            self._run_job(f"stop {name}", name, timeout_seconds, "StopUnit", name, "replace")

    def wake(self, name: str, timeout_seconds: float = JOB_SECONDS) -> None:
        """Start a unit that is loaded already, such as the service of a socket, and wait until it has started."""
        self._run_job(f"start {name}", name, timeout_seconds, "StartUnit", name, "replace")

    def wait_unloaded(self, name: str, timeout_seconds: float = CALL_SECONDS) -> None:
        """Wait until systemd has forgotten a unit, so that its name is free. Raises TimedOut."""

        def watch() -> Future[str]:
            future = self._removals.setdefault(name, Future())
            try:
                self._connection.call(f"look up {name}", "GetUnit", name)
            except Refused as error:
                if error.name not in NOT_LOADED:
                    raise
                self._removals.pop(name).set_result("")
            return future

        _wait(f"unload {name}", self._worker.call(watch), timeout_seconds)

    def reset_failed(self, name: str) -> None:
        """Forget that a unit has failed; a transient unit is unloaded by that. Not loaded is no error."""
        with IGNORE_NOT_LOADED:
            self._call(f"reset {name}", "ResetFailedUnit", name)

    def kill(self, name: str, signal: int, who: Literal["main", "control", "all"] = "all") -> None:
        """Send a signal to the processes of a unit."""
        self._call(f"kill {name}", "KillUnit", name, who, signal)

    def unit_states(self, *patterns: str) -> list[UnitState]:
        """The loaded units whose names match a glob pattern, in one call. Backslashes are literal in patterns."""
        return [unit_state(*entry) for entry in self._call("list units", "ListUnitsByPatterns", [], list(patterns))]

    def properties(self, name: str) -> UnitProperties | None:
        """How a unit is or how it ended; None if it is not loaded."""
        with IGNORE_NOT_LOADED:
            return self._worker.call(lambda: self._read_properties(name))
        return None

    def subscribe(self, callback: Callback) -> None:
        """Call `callback`, in a thread of ours, with each new state of a placemat unit. It must return at once.

        A unit that was unloaded comes as not-found and inactive. Subscribe first, then list, and nothing is missed.
        After the connection was lost and made again, all units are told anew.
        """

        def subscribe() -> None:
            self._callbacks.append(callback)
            self._connection.open()

        self._worker.call(subscribe)

    # -- in the caller's thread ----------------------------------------------------------------------------------------

    def _call(self, attempted: str, method: str, *args: Any) -> Any:
        return self._worker.call(lambda: self._connection.call(attempted, method, *args))

    def _run_job(
        self, attempted: str, name: str, timeout_seconds: float, method: str, *args: Any, cancelled: Event | None = None
    ) -> None:
        """Call a method that queues a job, and wait for the job.

        JobRemoved is delivered in the worker thread, so never between the call's return and the entry in `_jobs`.
        """

        def enqueue() -> Future[str]:
            job: str = self._connection.call(attempted, method, *args)
            return self._jobs.setdefault(job, Future())

        job = self._worker.call(enqueue)
        result = _wait(attempted, job, timeout_seconds, cancelled)
        if result != "done":
            raise StepError(attempted, self._why(name, result), f"journalctl -u '{name}'")

    def _make_way(self, name: str, mark: OwnerMark) -> None:
        """Have systemd forget a unit of an earlier run that has ended."""
        for state in self.unit_states(name):
            if not same_owner(state.mark, mark):
                raise NotOurs(
                    f"start {name}", "a unit of this name exists and is not ours", f"systemctl status '{name}'"
                )
            if state.active not in ("inactive", "failed"):
                raise WrongState(f"start {name}: it is {state.active} already")
            self.reset_failed(name)
            self.wait_unloaded(name)

    def _why(self, name: str, result: str) -> str:
        """What systemd and the journal know about a job that was not done."""
        answer = f"job {result}"
        properties = self.properties(name)
        if properties and properties.result not in ("", "success"):
            number = "signal" if properties.result in ("signal", "core-dump") else "exit status"
            answer += f": {properties.result}, {number} {properties.exit_status}"
            answer += f" ({os.strerror(properties.errno)})" if properties.errno else ""
        lines = last_lines(name)
        return answer + ("; the journal ends: " + " | ".join(lines) if lines else "")

    # -- in the worker thread ------------------------------------------------------------------------------------------

    def _read_properties(self, name: str) -> UnitProperties:
        attempted = f"read {name}"
        path: str = self._connection.call(attempted, "GetUnit", name)
        kind = name.rpartition(".")[2]

        def get(property_name: str, interface: str = UNIT) -> Any:
            return self._connection.get(attempted, path, interface, property_name)

        def get_own(property_name: str, kinds: Sequence[str], default: Any) -> Any:
            return get(property_name, f"{SERVICE}.{kind.capitalize()}") if kind in kinds else default

        since = get("ActiveEnterTimestamp")
        return UnitProperties(
            result=get_own("Result", ("service", "socket"), ""),
            main_pid=get_own("MainPID", ("service",), 0),
            exit_status=get_own("ExecMainStatus", ("service",), 0),
            errno=get_own("StatusErrno", ("service",), 0),
            invocation_id=bytes(get("InvocationID")).hex(),
            active_since=datetime.fromtimestamp(since / 1e6, UTC) if since else None,
            job=self._job_type(get("Job")[1]),
        )

    def _job_type(self, path: str) -> str | None:
        """The type of a job; None for no job ("/") and for one that has just ended."""
        if path == "/":
            return None
        with IGNORE_NOT_LOADED:
            return str(self._connection.get("read job", path, SERVICE + ".Job", "JobType"))
        return None

    def _on_connected(self, connection: Connection) -> None:
        connection.on(MANAGER, "JobRemoved", self._on_job_removed)
        connection.on(MANAGER, "UnitRemoved", self._on_unit_removed)
        connection.on_change(UNIT, ("ActiveState", "SubState"), self._on_properties_changed)
        connection.call("subscribe to systemd", "Subscribe")

    def _on_job_removed(self, _: str, number: int, job: str, name: str, result: str) -> None:
        if future := self._jobs.pop(job, None):
            future.set_result(result)

    def _on_unit_removed(self, _: str, name: str, path: str) -> None:
        """A unit was unloaded; or systemd reloads (daemon-reload), and says so of units that it loads again."""
        if name not in self._removals and name not in self._states:
            return
        try:
            found = [state for state in self._list(name) if state.load != "not-found"]
        except StepError:
            return  # the connection was lost: all units are told anew when it is back
        if found:
            return
        if future := self._removals.pop(name, None):
            future.set_result("")
        self._tell_unloaded(name)

    def _on_properties_changed(self, path: str, changed: dict[str, Any]) -> None:
        if not self._callbacks or not path.startswith(UNIT_PATHS) or not unit_of_path(path).startswith(OUR_UNITS):
            return
        with suppress(StepError):  # the connection was lost: all units are told anew when it is back
            name = unit_of_path(path)
            states = [self._states[name]] if name in self._states else self._list(name)
            for state in states:
                active, sub = changed.get("ActiveState", state.active), changed.get("SubState", state.sub)
                self._tell(state._replace(active=active, sub=sub))

    def _list(self, *patterns: str) -> list[UnitState]:
        entries = self._connection.call("list units", "ListUnitsByPatterns", [], list(patterns))
        return [unit_state(*entry) for entry in entries]

    def _tell(self, state: UnitState) -> None:
        if self._states.get(state.name) != state:
            self._states[state.name] = state
            for callback in self._callbacks:
                callback(state)

    def _tell_unloaded(self, name: str) -> None:
        """Units that were never told of are only looked at by somebody, as `systemctl status` does."""
        if state := self._states.pop(name, None):
            for callback in self._callbacks:
                callback(state._replace(load="not-found", active="inactive", sub="dead"))

    def _on_lost(self) -> None:
        log.warning("the connection to systemd was lost")
        for future in (*self._jobs.values(), *self._removals.values()):
            future.set_exception(StepError("wait for systemd", "the connection was lost", "systemctl status dbus"))
        self._jobs.clear()
        self._removals.clear()
        if self._callbacks:
            self._worker.call_later(RECONNECT_SECONDS, self._reconnect)

    def _reconnect(self) -> None:
        try:
            states = self._list(*(prefix + "*" for prefix in OUR_UNITS))
        except StepError:
            self._worker.call_later(RECONNECT_SECONDS, self._reconnect)
            return
        for name in self._states.keys() - {state.name for state in states}:
            self._tell_unloaded(name)
        for state in states:
            self._tell(state)


def _wait(attempted: str, future: Future[str], timeout_seconds: float, cancelled: Event | None = None) -> str:
    deadline = time.monotonic() + timeout_seconds
    while (rest := deadline - time.monotonic()) > 0:
        with suppress(TimeoutError):
            return future.result(min(rest, CANCEL_SECONDS) if cancelled else rest)
        if cancelled and cancelled.is_set():
            raise StepError(attempted, "cancelled")
    raise TimedOut(attempted, f"not finished after {timeout_seconds:g} s", "systemctl list-jobs")
