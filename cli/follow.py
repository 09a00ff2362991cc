"""A cluster's events, whichever of its service's lives they come from, until a job or a person ends it."""

import queue
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from subprocess import Popen

from placematd.errors import PlacematError

from .answers import Event
from .client import Api, EventStream

_RETRY_SECONDS = 0.1
_QUIET_SECONDS = 0.3
_JOIN_SECONDS = 1.0


class Follower:
    """Reads events in a thread of its own, connecting as soon as there is a service and again after it restarts."""

    def __init__(self, api: Api, since: str = "") -> None:
        """`since` (ISO 8601, UTC) leaves out what happened until then."""
        self._api = api
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._stream: EventStream | None = None
        self._last_time = since
        self._thread = threading.Thread(target=self._read, name="events", daemon=True)

    def __enter__(self) -> "Follower":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._ended.set()
            if self._stream:
                self._stream.close()
        self._thread.join(_JOIN_SECONDS)  # not for ever: a service that hangs must not keep us

    @property
    def connected(self) -> bool:
        """Whether there is a service to listen to at the moment."""
        return self._stream is not None

    @property
    def alone(self) -> bool:
        """Whether there is no service to listen to, nor a socket of one: what it said can be had without waiting."""
        return not self.connected and not self._api.has_socket

    def next(self, timeout_seconds: float) -> Event | None:
        """The next event, or None if there is none for so long."""
        try:
            return self._events.get(timeout=timeout_seconds)
        except queue.Empty:
            return None

    def _read(self) -> None:
        while not self._ended.is_set():
            try:
                stream = self._api.events()
            except PlacematError:
                self._ended.wait(_RETRY_SECONDS)  # no service yet, or no more
                continue
            with self._lock:
                self._stream = stream
                if self._ended.is_set():
                    stream.close()
            self._take(stream)
            with self._lock:
                self._stream = None
            self._ended.wait(_RETRY_SECONDS)

    def _take(self, stream: EventStream) -> None:
        """Queue what is new: a stream begins with what happened before, which we may have seen."""
        seen = self._last_time
        for event in stream:
            if event["time"] > seen:
                self._last_time = event["time"]
                self._events.put(event)


def now() -> str:
    """The time as events carry it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def follow_job(
    job: "Popen[str]", follower: Follower, show: Callable[[Event], None], timeout_seconds: float | None = None
) -> int:
    """Show events until a systemctl command ends, and those that are still on their way; returns its exit status.

    Raises TimeoutError at the deadline; what systemd was asked for goes on then.
    """
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    while job.poll() is None:
        if deadline is not None and time.monotonic() > deadline:
            raise TimeoutError
        event = follower.next(_RETRY_SECONDS)
        if event:
            show(event)
    while event := follower.next(0 if follower.alone else _QUIET_SECONDS):
        show(event)
    return job.returncode
