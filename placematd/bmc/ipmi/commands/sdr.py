"""The sensor data records (IPMI 2.0 chapter 43) and the commands that read them (chapter 33, sections 35.2 to 35.4)."""

import zlib
from collections.abc import Sequence

from ...sensors import BOOT, BUTTON, CRITICAL_INTERRUPT, OS_STOP, Sensor
from ..request import Code, CommandError, Reply, Request
from .app import DEVICE_SUPPORT
from .reservation import Reservations
from .sensors import ANALOGUE, DISCRETE, MANAGEMENT, SYSTEM_BOARD, Analogue, Discrete, factors, threshold_bytes
from .table import NOTHING, SENSOR, STORAGE, USER, Row, between, number, require

VERSION = 0x51
FULL, COMPACT, EVENT_ONLY, FRU_LOCATOR, MC_LOCATOR = 0x01, 0x02, 0x03, 0x11, 0x12
OWNER = 0x20
INSTANCE = 1
ASCII = 0xC0
"""Type of an ID string: 8-bit ASCII."""

EVENT_SENSORS = (BOOT, BUTTON, CRITICAL_INTERRUPT, OS_STOP)
"""Sensors that only ever write events: they can be named, not read."""

SCANNED, EVENTS_TOO = 0x01, 0x03
NO_ANALOGUE = 0xC0
TWOS_COMPLEMENT, PERCENT = 0x80, 0x01
AUTO_REARM, THRESHOLDS_READABLE, NO_EVENTS = 0x40, 0x04, 0x03
USUAL_RANGE_GIVEN = 0x06
LOGICAL_FRU = 0x80
BEHIND_CONTROLLER = 0x10

OPERATIONS = 0x02 | 0x01
"""Reserve and allocation information; nothing can be added, changed or cleared."""
UNIT_BYTES = 64
FIRST, LAST, ALL = 0x0000, 0xFFFF, 0xFF
SOME_DAY = 1_577_836_800
"""2020-01-01: where the time stamps of the repository start, see `REVISION`."""


def _name(text: str) -> bytes:
    return bytes((ASCII | len(text),)) + text.encode()


def _units(analogue: Analogue) -> bytes:
    first = (TWOS_COMPLEMENT if analogue.scale.signed else 0) | (PERCENT if analogue.percent else 0)
    return bytes((first, analogue.unit, 0))


def full(analogue: Analogue) -> bytes:
    """The body of a full sensor record (table 43-1, from byte 6)."""
    sensor, scale = analogue.sensor, analogue.scale
    mask, (lower_nc, lower_c, lower_nr, upper_nc, upper_c, upper_nr) = threshold_bytes(analogue)
    capabilities = AUTO_REARM | (THRESHOLDS_READABLE if mask else 0) | NO_EVENTS
    least, most = (scale.raw(value) for value in analogue.usual)
    end = (0x80, 0x7F) if scale.signed else (0x00, 0xFF)
    lower_compared, upper_compared = (mask & 0x07) << 12, (mask >> 3) << 12
    return (
        bytes((OWNER, 0, sensor.number, analogue.entity, INSTANCE, SCANNED, capabilities))
        + bytes((sensor.type, sensor.event_type))
        + lower_compared.to_bytes(2, "little")
        + upper_compared.to_bytes(2, "little")
        + bytes((mask, 0))
        + _units(analogue)
        + bytes(1)
        + factors(scale)
        + bytes((USUAL_RANGE_GIVEN, 0, most, least, end[1], end[0]))
        + bytes((upper_nr, upper_c, upper_nc, lower_nr, lower_c, lower_nc))
        + bytes(5)
        + _name(sensor.name)
    )


def compact(discrete: Discrete) -> bytes:
    """The body of a compact sensor record (table 43-2, from byte 6)."""
    sensor = discrete.sensor
    return (
        bytes(
            (OWNER, 0, sensor.number, discrete.entity, INSTANCE, EVENTS_TOO, AUTO_REARM, sensor.type, sensor.event_type)
        )
        + discrete.events.to_bytes(2, "little")
        + bytes(2)
        + discrete.states.to_bytes(2, "little")
        + bytes((NO_ANALOGUE, 0, 0))
        + bytes((1, 0))
        + bytes(6)
        + _name(sensor.name)
    )


def event_only(sensor: Sensor) -> bytes:
    """The body of an event-only record (table 43-3, from byte 6)."""
    head = (OWNER, 0, sensor.number, SYSTEM_BOARD, INSTANCE, sensor.type, sensor.event_type)
    return bytes((*head, 1, 0, 0, 0)) + _name(sensor.name)


def fru_locator() -> bytes:
    """The body of the FRU device locator (table 43-7, from byte 6): FRU 0, kept by this BMC."""
    device = (OWNER, 0, LOGICAL_FRU, 0, 0, BEHIND_CONTROLLER, 0)
    return bytes((*device, SYSTEM_BOARD, INSTANCE, 0)) + _name("System Board")


def controller_locator() -> bytes:
    """The body of the management controller device locator (table 43-8, from byte 6)."""
    return bytes((OWNER, 0, 0, DEVICE_SUPPORT, 0, 0, 0, MANAGEMENT, INSTANCE, 0)) + _name("placemat BMC")


def records() -> Sequence[bytes]:
    """All records with their headers (section 43.1); record ids count from 1."""
    bodies = (
        (MC_LOCATOR, controller_locator()),
        (FRU_LOCATOR, fru_locator()),
        *((FULL, full(analogue)) for analogue in ANALOGUE.values()),
        *((COMPACT, compact(discrete)) for discrete in DISCRETE.values()),
        *((EVENT_ONLY, event_only(sensor)) for sensor in EVENT_SENSORS),
    )
    return tuple(
        index.to_bytes(2, "little") + bytes((VERSION, kind, len(body))) + body
        for index, (kind, body) in enumerate(bodies, 1)
    )


RECORDS = records()
REVISION = (SOME_DAY + (zlib.crc32(b"".join(RECORDS)) & 0xFFFFFF)).to_bytes(4, "little")
"""Time stamp of the records: made of their content, because freeipmi keeps a cache until it changes."""


class Sdr:
    """The repository, which is the device SDRs of the BMC at the same time."""

    def __init__(self) -> None:
        self._reservations = Reservations()

    def rows(self) -> Sequence[Row]:
        """Both ways to the same records."""
        return (
            Row(STORAGE, 0x20, USER, NOTHING, self.get_info),
            Row(STORAGE, 0x21, USER, NOTHING, self.get_allocation),
            Row(STORAGE, 0x22, USER, NOTHING, self.reserve),
            Row(STORAGE, 0x23, USER, (6,), self.get),
            Row(SENSOR, 0x20, USER, between(0, 1), self.get_device_info),
            Row(SENSOR, 0x21, USER, (6,), self.get),
            Row(SENSOR, 0x22, USER, NOTHING, self.reserve),
        )

    async def get_info(self, request: Request) -> Reply:
        """Section 33.9."""
        head = bytes((VERSION,)) + len(RECORDS).to_bytes(2, "little") + bytes(2)
        return Reply(data=head + REVISION + REVISION + bytes((OPERATIONS,)))

    async def get_allocation(self, request: Request) -> Reply:
        """Section 33.10: one unit per record, all taken."""
        units = len(RECORDS).to_bytes(2, "little") + UNIT_BYTES.to_bytes(2, "little")
        return Reply(data=units + bytes(4) + b"\x01")

    async def reserve(self, request: Request) -> Reply:
        """Section 33.11."""
        return Reply(data=self._reservations.take())

    async def get(self, request: Request) -> Reply:
        """Section 33.12: [reservation 2, record id 2, offset, bytes]; answers the next id and the bytes."""
        reservation, wanted = number(request.data[:2]), number(request.data[2:4])
        offset, count = request.data[4:6]
        if offset:
            self._reservations.check(reservation)
        index = len(RECORDS) - 1 if wanted == LAST else max(wanted, 1) - 1
        if index >= len(RECORDS):
            raise CommandError(Code.NOT_PRESENT)
        require(offset < len(RECORDS[index]), Code.OUT_OF_RANGE)
        part = RECORDS[index][offset:] if count == ALL else RECORDS[index][offset : offset + count]
        following = index + 2 if index + 1 < len(RECORDS) else LAST
        return Reply(data=following.to_bytes(2, "little") + part)

    async def get_device_info(self, request: Request) -> Reply:
        """Section 35.2: the number of sensors, or (operation 1) of records; all at LUN 0 and always there."""
        sensors = len(ANALOGUE) + len(DISCRETE)
        count = len(RECORDS) if request.data and request.data[0] & 0x01 else sensors
        return Reply(data=bytes((count, 0x01)))
