"""What happens in a cluster, told to all who listen: the journal, systemd's STATUS= and the API's event stream."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal

EventKind = Literal["step", "progress", "state", "node", "bmc", "warning", "error"]
Event = dict[str, Any]
"""A JSON object with time (ISO 8601), kind, message and the fields of its kind; see `Events.publish`."""

QUEUE_EVENTS = 1000
HISTORY_EVENTS = 200

log = logging.getLogger("placematd")

LEVELS = {"progress": logging.DEBUG, "warning": logging.WARNING, "error": logging.ERROR}


class Subscription:
    """One listener's queue. A listener that does not keep up loses its oldest events, never anybody else's."""

    def __init__(self, history: list[Event]) -> None:
        self._events: deque[Event] = deque(history, maxlen=QUEUE_EVENTS)
        self._wake = asyncio.Event()
        self._closed = False

    def put(self, event: Event) -> None:
        """Queue an event."""
        self._events.append(event)
        self._wake.set()

    def close(self) -> None:
        """Let `get` return None from now on, also to one who waits."""
        self._closed = True
        self._wake.set()

    async def get(self) -> Event | None:
        """The next event, as soon as there is one; None once closed."""
        while not self._events and not self._closed:
            self._wake.clear()
            await self._wake.wait()
        return None if self._closed else self._events.popleft()


class Events:
    """The event bus of one placematd. Call it from the event loop's thread, or through `publish_threadsafe`."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()
        self._history: deque[Event] = deque(maxlen=HISTORY_EVENTS)
        self._listeners: list[Callable[[Event], None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Name the loop that `publish_threadsafe` hands events to."""
        self._loop = loop

    def listen(self, callback: Callable[[Event], None]) -> None:
        """Call `callback` with every event from now on."""
        self._listeners.append(callback)

    def publish(self, kind: EventKind, message: str, **fields: Any) -> None:
        """Tell everyone.

        fields of progress: item, done, total (bytes or None); of node: node, power; of bmc: node, address. The fields
        node, netns, app and address become journal fields PLACEMAT_NODE and so on.
        """
        journal = {
            f"PLACEMAT_{name.upper()}": str(fields[name])
            for name in ("node", "netns", "app", "address")
            if name in fields
        }
        level = logging.WARNING if fields.get("state") == "degraded" else LEVELS.get(kind, logging.INFO)
        log.log(level, "%s", message, extra={"fields": journal})
        event: Event = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "kind": kind,
            "message": message,
        } | fields
        if kind != "progress":
            self._history.append(event)
        for subscription in self._subscriptions:
            subscription.put(event)
        for listener in self._listeners:
            listener(event)

    def publish_threadsafe(self, kind: EventKind, message: str, **fields: Any) -> None:
        """`publish` from a worker thread."""
        if self._loop is None:
            raise RuntimeError("Events.bind has not been called")
        self._loop.call_soon_threadsafe(lambda: self.publish(kind, message, **fields))

    def subscribe(self) -> Subscription:
        """A queue that begins with the recent events, so that a late listener knows how it came to this."""
        subscription = Subscription(list(self._history))
        self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Close a queue and forget it."""
        self._subscriptions.discard(subscription)
        subscription.close()
