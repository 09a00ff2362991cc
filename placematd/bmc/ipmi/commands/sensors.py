"""The sensors' commands (IPMI 2.0 chapter 35) and what each sensor shows at this moment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ...machine import Health, Machine, PowerState, Watchdog
from ...sensors import (
    ACPI_POWER_STATE,
    ACPI_SOFT_OFF,
    ACPI_WORKING,
    CPU_LOAD,
    INLET_TEMPERATURE,
    MEMORY_USED,
    POWER_CONSUMPTION,
    POWER_UNIT,
    POWER_UNIT_CYCLE,
    POWER_UNIT_OFF,
    SEL,
    SEL_CLEARED,
    SEL_FULL,
    WATCHDOG2,
    WATCHDOG_EXPIRED,
    WATCHDOG_INTERRUPT,
    Sensor,
)
from ..request import Code, CommandError, Reply, Request
from .sel import CAPACITY
from .table import OPERATOR, SENSOR, USER, Row, between, require

EVENTS_ENABLED, SCANNING, UNAVAILABLE = 0x80, 0x40, 0x20
ALWAYS_ONE = 0x80
"""Bit 7 of the second byte of a discrete reading."""
THRESHOLD_STATES = 0xC0
"""Bits 7:6 of the comparison byte, reserved and 1."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How a raw byte stands for a value: raw * m * 10**exponent (IPMI 2.0 section 36.3; B is 0 everywhere)."""

    m: int
    exponent: int = 0
    signed: bool = False

    def raw(self, value: float) -> int:
        """The nearest raw value that there is, as an unsigned byte."""
        least, most = (-128, 127) if self.signed else (0, 255)
        return min(max(round(value / (self.m * 10.0**self.exponent)), least), most) & 0xFF

    def value(self, raw: int) -> float:
        """What a raw byte stands for."""
        number = raw - 256 if self.signed and raw > 127 else raw
        return number * self.m * 10.0**self.exponent


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """What makes a reading a warning or worse, in the sensor's unit."""

    upper_critical: float
    upper_noncritical: float
    lower_critical: float
    lower_noncritical: float


@dataclass(frozen=True, kw_only=True)
class Analogue:
    """A sensor that measures. `unit` is that of table 43-15, 0 with `percent`; `usual` the normal range."""

    sensor: Sensor
    entity: int
    scale: Scale
    usual: tuple[float, float]
    unit: int = 0
    percent: bool = False
    thresholds: Thresholds | None = None
    needs_power: bool = True


AIR_INLET, PROCESSOR, MEMORY_DEVICE, SYSTEM_BOARD, MANAGEMENT = 0x37, 0x03, 0x20, 0x07, 0x06
"""Entity ids (IPMI 2.0 table 43-13)."""
CELSIUS, WATTS = 0x01, 0x06

ANALOGUE: Final[Mapping[int, Analogue]] = {
    analogue.sensor.number: analogue
    for analogue in (
        Analogue(
            sensor=INLET_TEMPERATURE,
            entity=AIR_INLET,
            scale=Scale(m=5, exponent=-1, signed=True),
            usual=(18, 27),
            unit=CELSIUS,
            thresholds=Thresholds(upper_critical=47, upper_noncritical=42, lower_critical=-7, lower_noncritical=3),
            needs_power=False,
        ),
        Analogue(sensor=CPU_LOAD, entity=PROCESSOR, scale=Scale(m=5, exponent=-1), usual=(0, 100), percent=True),
        Analogue(sensor=MEMORY_USED, entity=MEMORY_DEVICE, scale=Scale(m=5, exponent=-1), usual=(0, 100), percent=True),
        Analogue(
            sensor=POWER_CONSUMPTION,
            entity=SYSTEM_BOARD,
            scale=Scale(m=4),
            usual=(0, 800),
            unit=WATTS,
            needs_power=False,
        ),
    )
}


@dataclass(frozen=True, kw_only=True)
class Discrete:
    """A sensor with states; `states` that it can show and `events` that are logged, as bit masks of its offsets."""

    sensor: Sensor
    entity: int
    states: int
    events: int


def _mask(*offsets: int) -> int:
    return sum(1 << offset for offset in offsets)


DISCRETE: Final[Mapping[int, Discrete]] = {
    discrete.sensor.number: discrete
    for discrete in (
        Discrete(
            sensor=POWER_UNIT,
            entity=SYSTEM_BOARD,
            states=_mask(POWER_UNIT_OFF),
            events=_mask(POWER_UNIT_OFF, POWER_UNIT_CYCLE),
        ),
        Discrete(
            sensor=ACPI_POWER_STATE,
            entity=SYSTEM_BOARD,
            states=_mask(ACPI_WORKING, ACPI_SOFT_OFF),
            events=_mask(ACPI_WORKING, ACPI_SOFT_OFF),
        ),
        Discrete(
            sensor=WATCHDOG2,
            entity=MANAGEMENT,
            states=_mask(*WATCHDOG_EXPIRED.values()),
            events=_mask(*WATCHDOG_EXPIRED.values(), WATCHDOG_INTERRUPT),
        ),
        Discrete(sensor=SEL, entity=MANAGEMENT, states=_mask(SEL_FULL), events=_mask(SEL_CLEARED, SEL_FULL)),
    )
}
"""Sensors with states, by number."""


def analogue_value(analogue: Analogue, health: Health, memory_mib: int) -> float:
    """The reading in the sensor's own unit."""
    number = analogue.sensor.number
    if number == CPU_LOAD.number:
        return health.cpu_load_percent
    if number == MEMORY_USED.number:
        return 100 * health.memory_used_mib / memory_mib if memory_mib else 0.0
    return health.inlet_celsius if number == INLET_TEMPERATURE.number else health.power_watts


def comparison(thresholds: Thresholds, value: float) -> int:
    """Which thresholds the value has reached (table 35-15, byte 4)."""
    states = (
        value <= thresholds.lower_noncritical,
        value <= thresholds.lower_critical,
        False,
        value >= thresholds.upper_noncritical,
        value >= thresholds.upper_critical,
    )
    return sum(state << bit for bit, state in enumerate(states))


def discrete_states(sensor: Sensor, power: PowerState, watchdog: Watchdog, entries: int) -> int:
    """The states of a discrete sensor as a bit mask of its offsets."""
    if sensor == POWER_UNIT:
        return (power == "Off") << POWER_UNIT_OFF
    if sensor == ACPI_POWER_STATE:
        return 1 << (ACPI_SOFT_OFF if power == "Off" else ACPI_WORKING)
    if sensor == WATCHDOG2:
        return 1 << WATCHDOG_EXPIRED[watchdog.action] if watchdog.flags else 0
    return (entries >= CAPACITY) << SEL_FULL


def threshold_bytes(analogue: Analogue) -> tuple[int, bytes]:
    """The mask of readable thresholds and their raw values: lower nc, c, nr, upper nc, c, nr (table 35-10)."""
    if analogue.thresholds is None:
        return 0, bytes(6)
    there = analogue.thresholds
    raw = analogue.scale.raw
    lower = (raw(there.lower_noncritical), raw(there.lower_critical), 0)
    upper = (raw(there.upper_noncritical), raw(there.upper_critical), 0)
    return 0b011011, bytes((*lower, *upper))


class Sensors:
    """Readings, thresholds and types. Nothing about a sensor can be changed."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def rows(self) -> Sequence[Row]:
        """Sensor commands 24h to 2Fh."""
        return (
            Row(SENSOR, 0x23, USER, (2,), self.get_factors),
            Row(SENSOR, 0x24, OPERATOR, (4,), self.refuse),
            Row(SENSOR, 0x25, USER, (2,), self.refuse),
            Row(SENSOR, 0x26, OPERATOR, (8,), self.refuse),
            Row(SENSOR, 0x27, USER, (1,), self.get_thresholds),
            Row(SENSOR, 0x28, OPERATOR, between(2, 6), self.refuse),
            Row(SENSOR, 0x29, USER, (1,), self.get_event_enable),
            Row(SENSOR, 0x2A, OPERATOR, between(2, 6), self.refuse),
            Row(SENSOR, 0x2B, USER, (1,), self.get_event_status),
            Row(SENSOR, 0x2D, USER, (1,), self.get_reading),
            Row(SENSOR, 0x2E, OPERATOR, (3,), self.refuse),
            Row(SENSOR, 0x2F, USER, (1,), self.get_type),
        )

    async def refuse(self, request: Request) -> Reply:
        """Hysteresis (there is none), and changes of thresholds, event enables and types."""
        _known(request.data[0])
        raise CommandError(Code.ILLEGAL_FOR_SENSOR)

    async def get_factors(self, request: Request) -> Reply:
        """Section 35.5: [number, raw reading]; the same for every reading, because all are linear."""
        analogue = _analogue(request.data[0])
        return Reply(data=b"\xff" + factors(analogue.scale))

    async def get_thresholds(self, request: Request) -> Reply:
        """Section 35.9."""
        mask, values = threshold_bytes(_analogue(request.data[0]))
        return Reply(data=bytes((mask,)) + values)

    async def get_event_enable(self, request: Request) -> Reply:
        """Section 35.11: sensors that measure send no events."""
        _known(request.data[0])
        if request.data[0] in ANALOGUE:
            return Reply(data=bytes((SCANNING,)))
        events = DISCRETE[request.data[0]].events
        return Reply(data=bytes((EVENTS_ENABLED | SCANNING,)) + events.to_bytes(2, "little") + bytes(2))

    async def get_event_status(self, request: Request) -> Reply:
        """Section 35.13: the states that hold now, since events re-arm by themselves."""
        _known(request.data[0])
        if request.data[0] in ANALOGUE:
            return Reply(data=bytes((SCANNING,)))
        states = await self._states(DISCRETE[request.data[0]].sensor)
        return Reply(data=bytes((EVENTS_ENABLED | SCANNING,)) + states.to_bytes(2, "little") + bytes(2))

    async def get_reading(self, request: Request) -> Reply:
        """Section 35.14; what only a running machine has is unavailable while it is off."""
        number = request.data[0]
        _known(number)
        if number in ANALOGUE:
            return Reply(data=await self._reading(ANALOGUE[number]))
        states = await self._states(DISCRETE[number].sensor)
        return Reply(data=bytes((0, EVENTS_ENABLED | SCANNING, states & 0xFF, ALWAYS_ONE | states >> 8)))

    async def _reading(self, analogue: Analogue) -> bytes:
        if analogue.needs_power and await self._machine.power_state() == "Off":
            return bytes((0, SCANNING | UNAVAILABLE, THRESHOLD_STATES))
        memory = (await self._machine.inventory()).memory_mib if analogue.sensor == MEMORY_USED else 0
        value = analogue_value(analogue, await self._machine.health(), memory)
        reached = comparison(analogue.thresholds, value) if analogue.thresholds else 0
        return bytes((analogue.scale.raw(value), SCANNING, THRESHOLD_STATES | reached))

    async def _states(self, sensor: Sensor) -> int:
        watchdog = await self._machine.watchdog() if sensor == WATCHDOG2 else Watchdog()
        entries = len(await self._machine.sel()) if sensor == SEL else 0
        return discrete_states(sensor, await self._machine.power_state(), watchdog, entries)

    async def get_type(self, request: Request) -> Reply:
        """Section 35.16."""
        number = request.data[0]
        _known(number)
        sensor = ANALOGUE[number].sensor if number in ANALOGUE else DISCRETE[number].sensor
        return Reply(data=bytes((sensor.type, sensor.event_type)))


def factors(scale: Scale) -> bytes:
    """M, tolerance, B, accuracy and exponents as full sensor records have them (table 43-1, bytes 25 to 30)."""
    m, exponent = scale.m & 0x3FF, scale.exponent & 0x0F
    return bytes((m & 0xFF, m >> 8 << 6, 0, 0, 0, exponent << 4))


def _known(number: int) -> None:
    require(number in ANALOGUE or number in DISCRETE, Code.NOT_PRESENT)


def _analogue(number: int) -> Analogue:
    _known(number)
    if number not in ANALOGUE:
        raise CommandError(Code.ILLEGAL_FOR_SENSOR)
    return ANALOGUE[number]
