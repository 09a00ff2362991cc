"""The system event log's commands (IPMI 2.0 chapter 31) and events that consoles and the guest send (29.3)."""

import time
from collections.abc import Sequence
from typing import Final

from ....errors import PlacematError
from ...machine import Machine, SelEntry
from ...sensors import EVENT_BYTES, SEL, SEL_CLEARED, SENSORS
from ..request import SYSTEM_INTERFACE, Code, CommandError, Reply, Request
from .reservation import Reservations
from .settings import Clock, Settings
from .table import NOTHING, OPERATOR, SENSOR, STORAGE, USER, Row, between, number, require, seconds

VERSION = 0x51
RECORD_BYTES = 16
CAPACITY = 1024
"""Entries that the log holds; then the machine's side drops the oldest."""
OVERFLOW = 0x80
"""Events have been dropped."""
OPERATIONS = 0x03
"""Reserve and allocation information; no partial add, no delete."""
FIRST, LAST = 0x0000, 0xFFFF
ALL = 0xFF
CLEAR, CLEAR_STATUS, CLEARED = 0xAA, 0x00, 0x01
UNKNOWN_TIME = b"\xff\xff\xff\xff"

SYSTEM_EVENT = 0x02
TIMESTAMPED_OEM = range(0xC0, 0xE0)
CONSOLE_SOFTWARE = bytes((0x81, 0x00))
"""Generator id of events that a remote console sends: system software 41h as an address (table 32-1)."""
SNAPSHOT_SECONDS = 2.0
"""A list that is read entry by entry is asked of the machine once in so long."""

OFFSET: Final = "utc_offset"
UNSPECIFIED_OFFSET, MOST_MINUTES = 0x07FF, 1440


def record(entry: SelEntry, ahead: int) -> bytes:
    """The 16 bytes of an entry (table 32-1); `ahead` is how many seconds IPMI's clock is ahead of the host's."""
    stamp = seconds(entry.time.timestamp() + ahead)
    identifier = (entry.record_id & 0xFFFF).to_bytes(2, "little")
    return identifier + entry.data[:1] + stamp + entry.data[1:EVENT_BYTES].ljust(EVENT_BYTES - 1, b"\xff")


def is_erasure(entry: SelEntry) -> bool:
    """Whether the entry says that the log was cleared: the machine's side begins each new log with one."""
    kind, number, _, data1 = entry.data[4:8]
    return (kind, number, data1 & 0x0F) == (SEL.type, SEL.number, SEL_CLEARED)


def describe(data: bytes) -> str:
    """What Redfish shows for an event that came over IPMI; `data` as in SelEntry."""
    if data[0] != SYSTEM_EVENT:
        return f"OEM record {data[0]:02X}h added over IPMI: {data[1:].hex(' ').upper()}"
    name = next((sensor.name for sensor in SENSORS if (sensor.type, sensor.number) == (data[4], data[5])), "")
    direction = "deasserted" if data[6] & 0x80 else "asserted"
    subject = name or f"Sensor {data[5]:02X}h of type {data[4]:02X}h"
    return f"{subject}: event {data[7] & 0x0F:02X}h {direction} (added over IPMI)"


class Sel:
    """Info, reserve, read, add, clear, and the clock."""

    def __init__(self, machine: Machine, settings: Settings, clock: Clock) -> None:
        self._machine, self._settings, self._clock = machine, settings, clock
        self._reservations = Reservations()
        self._snapshot: Sequence[SelEntry] = ()
        self._until = 0.0

    def rows(self) -> Sequence[Row]:
        """Storage commands 40h to 5Dh and Platform Event."""
        return (
            Row(SENSOR, 0x02, OPERATOR, between(7, 8), self.platform_event),
            Row(STORAGE, 0x40, USER, NOTHING, self.get_info),
            Row(STORAGE, 0x41, USER, NOTHING, self.get_allocation),
            Row(STORAGE, 0x42, USER, NOTHING, self.reserve),
            Row(STORAGE, 0x43, USER, (6,), self.get_entry),
            Row(STORAGE, 0x44, OPERATOR, (RECORD_BYTES,), self.add_entry),
            Row(STORAGE, 0x47, OPERATOR, (6,), self.clear),
            Row(STORAGE, 0x48, USER, NOTHING, self.get_time),
            Row(STORAGE, 0x49, OPERATOR, (4,), self.set_time),
            Row(STORAGE, 0x5C, USER, NOTHING, self.get_offset),
            Row(STORAGE, 0x5D, OPERATOR, (2,), self.set_offset),
            # The SDR repository's clock is the same one.
            Row(STORAGE, 0x28, USER, NOTHING, self.get_time),
            Row(STORAGE, 0x29, OPERATOR, (4,), self.set_time),
        )

    async def get_info(self, request: Request) -> Reply:
        """Section 31.2."""
        entries = await self._entries()
        added = await self._stamp(entries[-1:])
        erased = await self._stamp([entry for entry in entries if is_erasure(entry)][-1:])
        free = max(CAPACITY - len(entries), 0) * RECORD_BYTES
        sizes = min(len(entries), 0xFFFF).to_bytes(2, "little") + free.to_bytes(2, "little")
        overflow = OVERFLOW if len(entries) >= CAPACITY else 0
        return Reply(data=bytes((VERSION,)) + sizes + added + erased + bytes((OPERATIONS | overflow,)))

    async def _stamp(self, entries: Sequence[SelEntry]) -> bytes:
        """When the first of these was; unknown where there is none."""
        ahead = await self._clock.offset()
        return seconds(entries[0].time.timestamp() + ahead) if entries else UNKNOWN_TIME

    async def get_allocation(self, request: Request) -> Reply:
        """Section 31.3: units of one record."""
        free = max(CAPACITY - len(await self._entries()), 0)
        numbers = (CAPACITY, RECORD_BYTES, free, free)
        return Reply(data=b"".join(value.to_bytes(2, "little") for value in numbers) + b"\x01")

    async def reserve(self, request: Request) -> Reply:
        """Section 31.4."""
        await self._entries()
        return Reply(data=self._reservations.take())

    async def get_entry(self, request: Request) -> Reply:
        """Section 31.5: [reservation 2, record id 2, offset, bytes]; answers the next id and the bytes."""
        reservation, wanted = number(request.data[:2]), number(request.data[2:4])
        offset, count = request.data[4:6]
        if offset:
            self._reservations.check(reservation)
        entries, index = await self._find(wanted)
        require(offset < RECORD_BYTES, Code.OUT_OF_RANGE)
        require(count == ALL or offset + count <= RECORD_BYTES, Code.CANNOT_RETURN_BYTES)
        following = entries[index + 1].record_id & 0xFFFF if index + 1 < len(entries) else LAST
        data = record(entries[index], await self._clock.offset())
        part = data[offset:] if count == ALL else data[offset : offset + count]
        return Reply(data=following.to_bytes(2, "little") + part)

    async def _find(self, wanted: int) -> tuple[Sequence[SelEntry], int]:
        """The log, and where in it the record is; what is not known yet is looked for in the machine's own."""
        index = _index(self._snapshot, wanted) if time.monotonic() < self._until else None
        if index is None or wanted in (FIRST, LAST):
            index = _index(await self._entries(), wanted)
        if index is None:
            raise CommandError(Code.NOT_PRESENT)
        return self._snapshot, index

    async def _entries(self) -> Sequence[SelEntry]:
        """The log as it is; reservations end where somebody else has cleared it."""
        before, self._snapshot = self._snapshot, await self._machine.sel()
        if before and before[-1] not in reversed(self._snapshot):
            self._reservations.cancel()
        self._until = time.monotonic() + SNAPSHOT_SECONDS
        return self._snapshot

    async def add_entry(self, request: Request) -> Reply:
        """Section 31.6: record id and time stamp are the BMC's to give, so that records without one are refused."""
        kind = request.data[2]
        require(kind == SYSTEM_EVENT or kind in TIMESTAMPED_OEM)
        added = await self._add(bytes((kind,)) + request.data[7:])
        return Reply(data=(added & 0xFFFF).to_bytes(2, "little"))

    async def platform_event(self, request: Request) -> Reply:
        """Section 29.3: the guest says its generator id (one byte), a console's is that of console software."""
        inside = request.caller.channel == SYSTEM_INTERFACE
        require(len(request.data) == (8 if inside else 7), Code.REQUEST_LENGTH_INVALID)
        generator = bytes((request.data[0], 0x00)) if inside else CONSOLE_SOFTWARE
        await self._add(bytes((SYSTEM_EVENT,)) + generator + request.data[-7:])
        return Reply()

    async def _add(self, data: bytes) -> int:
        try:
            return await self._machine.add_sel(data, describe(data))
        except PlacematError as error:
            raise CommandError(Code.OUT_OF_SPACE) from error

    async def clear(self, request: Request) -> Reply:
        """Section 31.9: [reservation 2, "CLR", AAh to clear or 0 for how far it is]."""
        operation = request.data[5]
        require(request.data[2:5] == b"CLR" and operation in (CLEAR, CLEAR_STATUS))
        await self._entries()
        self._reservations.check(number(request.data[:2]))
        if operation == CLEAR:
            await self._machine.clear_sel()
            self._snapshot, self._until = (), 0.0
            # The reservation stays for those who ask next how far the erasure is; all others end.
            self._reservations.cancel_others(number(request.data[:2]))
        return Reply(data=bytes((CLEARED,)))

    async def get_time(self, request: Request) -> Reply:
        """Sections 31.10 and 33.15."""
        return Reply(data=seconds(await self._clock.time()))

    async def set_time(self, request: Request) -> Reply:
        """Sections 31.11 and 33.16."""
        await self._clock.set(number(request.data))
        return Reply()

    async def get_offset(self, request: Request) -> Reply:
        """Section 31.11a: minutes from UTC."""
        return Reply(data=(await self._settings.integer(OFFSET) & 0xFFFF).to_bytes(2, "little"))

    async def set_offset(self, request: Request) -> Reply:
        """Section 31.11b."""
        minutes = int.from_bytes(request.data, "little", signed=True)
        require(minutes == UNSPECIFIED_OFFSET or abs(minutes) <= MOST_MINUTES)
        await self._settings.put(OFFSET, minutes)
        return Reply()


def _index(entries: Sequence[SelEntry], wanted: int) -> int | None:
    """Where the record is, None where it is not."""
    if entries and wanted in (FIRST, LAST):
        return 0 if wanted == FIRST else len(entries) - 1
    return next((index for index, entry in enumerate(entries) if entry.record_id & 0xFFFF == wanted), None)
