"""Events (DSP0266 "Eventing"): what the machine tells, as Redfish events, to subscribers and to SSE streams."""

import asyncio
import json
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Literal

from ...errors import PlacematError
from ..machine import Machine, MachineEvent
from .messages import LONGEST_ARGUMENT, Message, RedfishError
from .resource import ROOT, Json
from .settings import Settings

log = logging.getLogger("placemat.bmc")

MOST_SUBSCRIPTIONS, MOST_STREAMS, MOST_WAITING = 16, 8, 64
KEEP_ALIVE_SECONDS = 30.0
SYSTEM = f"{ROOT}/Systems/System.Embedded.1"
TYPES = ("Alert", "ResourceUpdated", "StatusChange")
RetryPolicy = Literal["TerminateAfterRetries", "SuspendRetries", "RetryForever"]

_KINDS: Mapping[str, tuple[str, str]] = {
    "power": ("PowerStateChanged", "StatusChange"),
    "boot": ("MachineBooted", "StatusChange"),
    "sel": ("LogEntryAdded", "Alert"),
    "media": ("MediaChanged", "ResourceUpdated"),
    "firmware": ("FirmwareChanged", "ResourceUpdated"),
}
"""Kinds of machine events: message of registry Placemat, and EventType."""


@dataclass(frozen=True, kw_only=True)
class Subscription:
    """Somebody who wants events; SSE streams have no destination and are never stored."""

    id: str
    destination: str = ""
    context: str = ""
    registry_prefixes: Sequence[str] = ()
    message_ids: Sequence[str] = ()
    event_types: Sequence[str] = ()
    headers: Sequence[Sequence[str]] = ()
    """Names and values; secret."""
    retry: RetryPolicy = "TerminateAfterRetries"
    verify: bool = False

    @property
    def stored(self) -> Json:
        """As it is kept."""
        return asdict(self)

    @staticmethod
    def of(stored: Mapping[str, Any]) -> "Subscription":
        """From what was kept."""
        names = {item.name for item in fields(Subscription)}
        return Subscription(**{name: value for name, value in stored.items() if name in names})

    def wants(self, record: Mapping[str, Any]) -> bool:
        """Whether the filters let an event record through."""
        message = record["MessageId"]
        registry, name = message.partition(".")[0], message.rpartition(".")[2]
        return (
            (not self.registry_prefixes or registry in self.registry_prefixes)
            and (
                not self.message_ids
                or f"{registry}.{name}" in self.message_ids
                or record["MessageId"] in self.message_ids
            )
            and (not self.event_types or record["EventType"] in self.event_types)
        )


@dataclass
class Listener:
    """A subscription at work: what it has not got yet. The oldest goes where somebody does not keep up."""

    subscription: Subscription
    waiting: asyncio.Queue[tuple[int, bytes] | None] = field(default_factory=lambda: asyncio.Queue(MOST_WAITING))
    suspended: bool = False
    _task: asyncio.Task[None] | None = None

    def put(self, item: tuple[int, bytes] | None) -> None:
        """Add; None ends it."""
        if self.waiting.full():
            self.waiting.get_nowait()
        self.waiting.put_nowait(item)


Deliver = Callable[[Listener], "asyncio.Task[None]"]


class Events:
    """Takes the machine's events and gives them to all listeners."""

    def __init__(self, machine: Machine, settings: Settings) -> None:
        self._machine, self._settings = machine, settings
        self._listeners: dict[str, Listener] = {}
        self._deliver: Deliver | None = None
        self._listening: asyncio.Task[None] | None = None
        self._number = 0
        self._changing = asyncio.Lock()

    def open(self, deliver: Deliver) -> None:
        """Begin; `deliver` starts the work of a stored subscription."""
        self._deliver = deliver
        for stored in self._settings.values.subscriptions[:MOST_SUBSCRIPTIONS]:
            with suppress(TypeError):  # stored by another version
                self._start(Subscription.of(stored))
        self._listening = asyncio.get_running_loop().create_task(self._listen(), name="redfish events")

    async def close(self) -> None:
        """End all streams and deliveries; subscriptions stay stored."""
        tasks = [listener._task for listener in self._listeners.values() if listener._task]
        tasks += [self._listening] if self._listening else []
        for listener in self._listeners.values():
            listener.put(None)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # subscriptions

    def all(self) -> Sequence[Listener]:
        """Subscriptions and streams."""
        return tuple(self._listeners.values())

    def get(self, subscription_id: str) -> Listener | None:
        """By the id in the URI."""
        return self._listeners.get(subscription_id)

    async def subscribe(self, subscription: Subscription) -> None:
        """Add a durable subscription. Raises RedfishError where there are too many."""
        async with self._changing:
            others = self._stored()
            if len(others) >= MOST_SUBSCRIPTIONS:
                raise RedfishError("EventSubscriptionLimitExceeded")
            await self._settings.change(subscriptions=tuple(item.stored for item in (*others, subscription)))
            self._start(subscription)

    async def change(self, subscription: Subscription) -> None:
        """Replace the subscription of the same id."""
        async with self._changing:
            if listener := self._listeners.get(subscription.id):
                listener.subscription, listener.suspended = subscription, False
                await self._save()

    async def unsubscribe(self, subscription_id: str) -> None:
        """Remove a subscription, or end a stream."""
        async with self._changing:
            listener = self._listeners.pop(subscription_id, None)
            await self._save()
        if listener:
            listener.put(None)
            if listener._task:
                listener._task.cancel()

    async def _save(self) -> None:
        await self._settings.change(subscriptions=tuple(item.stored for item in self._stored()))

    def _stored(self) -> Sequence[Subscription]:
        return [listener.subscription for listener in self._listeners.values() if listener.subscription.destination]

    def _start(self, subscription: Subscription) -> None:
        listener = Listener(subscription)
        self._listeners[subscription.id] = listener
        if self._deliver:
            listener._task = self._deliver(listener)

    # streams

    @property
    def streams(self) -> int:
        """How many SSE streams are open."""
        return sum(not listener.subscription.destination for listener in self._listeners.values())

    def stream(self) -> AsyncIterator[bytes]:
        """Server-sent events until the subscription is deleted. Raises RedfishError where there are too many."""
        if self.streams >= MOST_STREAMS:
            raise RedfishError("EventSubscriptionLimitExceeded")
        return self._stream(Listener(Subscription(id=new_id(), context=secrets.token_hex(8))))

    async def _stream(self, listener: Listener) -> AsyncIterator[bytes]:
        self._listeners[listener.subscription.id] = listener
        try:
            yield b": open\n\n"
            while True:
                try:
                    async with asyncio.timeout(KEEP_ALIVE_SECONDS):
                        item = await listener.waiting.get()
                except TimeoutError:
                    yield b": \n\n"  # a proxy, or a client that has gone, shows itself
                    continue
                if item is None:
                    return
                yield b"id: %d\ndata: %b\n\n" % item
        finally:
            self._listeners.pop(listener.subscription.id, None)

    # what happens

    async def _listen(self) -> None:
        while True:
            try:
                async for event in self._machine.events():
                    await self._tell(event)
            except PlacematError as error:
                log.warning("redfish: events: %s", error)
            await asyncio.sleep(1)  # the machine's side was restarted

    async def _tell(self, event: MachineEvent) -> None:
        name, event_type = _KINDS[event.kind]
        value = event.value
        origin = SYSTEM
        if event.kind == "sel":
            entry = next((entry for entry in await self._machine.sel() if str(entry.record_id) == event.value), None)
            value = entry.message if entry else event.value
            origin = f"{SYSTEM}/LogServices/Sel/Entries/{event.value}" if entry else SYSTEM
        arguments = (
            (value[:LONGEST_ARGUMENT],) if name in ("PowerStateChanged", "LogEntryAdded", "MediaChanged") else ()
        )
        self.publish(Message(name, arguments, registry="Placemat"), event_type, origin)

    def publish(self, message: Message, event_type: str, origin: str, **more: Any) -> None:
        """Tell everybody whose filters let it through. `more` replaces properties of the event record."""
        self._number += 1
        described = message.json()
        record = {
            "EventType": event_type,
            "EventId": str(self._number),
            "MemberId": "0",
            "EventTimestamp": datetime.now(UTC).isoformat(timespec="seconds"),
            "Message": described["Message"],
            "MessageId": described["MessageId"],
            "MessageArgs": described["MessageArgs"],
            "MessageSeverity": described["MessageSeverity"],
            "OriginOfCondition": {"@odata.id": origin},
            **more,
        }
        for listener in self.all():
            if listener.subscription.wants(record) and not listener.suspended:
                payload = event_payload(self._number, record, listener.subscription.context)
                listener.put((self._number, json.dumps(payload).encode()))


def event_payload(number: int, record: Json, context: str) -> Json:
    """An Event object (Event.v1) with one record."""
    return {
        "@odata.type": "#Event.v1_9_0.Event",
        "Id": str(number),
        "Name": "Event",
        "Context": context,
        "Events": [record],
    }


def new_id() -> str:
    """An id that nobody guesses and that is never used twice."""
    return secrets.token_hex(6)
