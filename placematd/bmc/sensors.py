"""The sensors of a node: their numbers, their IPMI types, and the events that they write to the system event log.

Numbers are ours (they stand in the SDR and in the log); types, event types and offsets are those of IPMI 2.0, tables
42-1 to 42-3. Light on purpose: the BMC's process imports it at its start.
"""

from dataclasses import dataclass
from typing import Final

THRESHOLD: Final = 0x01
"""Event/reading type of a sensor that measures (IPMI 2.0 table 42-1)."""
SENSOR_SPECIFIC: Final = 0x6F
"""Event/reading type of a sensor whose offsets are those of its type in table 42-3."""

EVENT_BYTES: Final = 10
"""A SEL record without record id and time stamp, see `machine.SelEntry`."""
UNTIMED_BYTES: Final = 14
"""The same of an OEM record that has no time stamp (types E0h to FFh, IPMI 2.0 table 32-3)."""


@dataclass(frozen=True)
class Sensor:
    """A sensor: its number, its IPMI sensor type, its event/reading type and its name in the SDR."""

    number: int
    type: int
    event_type: int
    name: str


POWER_UNIT: Final = Sensor(0x01, 0x09, SENSOR_SPECIFIC, "Power Unit")
ACPI_POWER_STATE: Final = Sensor(0x02, 0x22, SENSOR_SPECIFIC, "ACPI State")
WATCHDOG2: Final = Sensor(0x03, 0x23, SENSOR_SPECIFIC, "Watchdog")
SEL: Final = Sensor(0x04, 0x10, SENSOR_SPECIFIC, "SEL")
BOOT: Final = Sensor(0x05, 0x1D, SENSOR_SPECIFIC, "Boot")
BUTTON: Final = Sensor(0x06, 0x14, SENSOR_SPECIFIC, "Button")
CRITICAL_INTERRUPT: Final = Sensor(0x07, 0x13, SENSOR_SPECIFIC, "NMI")
OS_STOP: Final = Sensor(0x08, 0x20, SENSOR_SPECIFIC, "OS Stop")
INLET_TEMPERATURE: Final = Sensor(0x10, 0x01, THRESHOLD, "Inlet Temp")
CPU_LOAD: Final = Sensor(0x11, 0x07, THRESHOLD, "CPU Load")
MEMORY_USED: Final = Sensor(0x12, 0x0C, THRESHOLD, "Memory Used")
POWER_CONSUMPTION: Final = Sensor(0x13, 0x0B, THRESHOLD, "Power")

SENSORS: Final = (
    *(POWER_UNIT, ACPI_POWER_STATE, WATCHDOG2, SEL, BOOT, BUTTON, CRITICAL_INTERRUPT, OS_STOP),
    *(INLET_TEMPERATURE, CPU_LOAD, MEMORY_USED, POWER_CONSUMPTION),
)

# Offsets of the sensor-specific types (IPMI 2.0 table 42-3).
POWER_UNIT_OFF: Final = 0x00
POWER_UNIT_CYCLE: Final = 0x01
ACPI_WORKING: Final = 0x00
ACPI_SOFT_OFF: Final = 0x06
"""S4/S5 soft-off, particular state not known."""
WATCHDOG_EXPIRED: Final = {"none": 0x00, "reset": 0x01, "off": 0x02, "cycle": 0x03}
WATCHDOG_INTERRUPT: Final = 0x08
SEL_CLEARED: Final = 0x02
SEL_FULL: Final = 0x04
BOOT_PXE: Final = 0x03
"""Initiated by a user's request for PXE."""
BOOT_RESTART: Final = 0x07
"""System restart; event data 2 holds the restart cause."""
BUTTON_POWER: Final = 0x00
NMI_DIAGNOSTIC: Final = 0x00
OS_CRITICAL_STOP: Final = 0x01

RESTART_CAUSE_CODES: Final = {
    "unknown": 0x0,
    "chassis-control": 0x1,
    "reset-button": 0x2,
    "power-button": 0x3,
    "watchdog": 0x4,
    "soft-reset": 0xA,
}
"""`machine.RestartCause` as Get System Restart Cause tells it (IPMI 2.0 table 28-11)."""

SYSTEM_EVENT: Final = 0x02
BMC_ADDRESS: Final = 0x20
EVENT_REVISION: Final = 0x04
UNSPECIFIED: Final = 0xFF
DATA_2_IS_SPECIFIC: Final = 0xC0
"""Bits 7:6 of event data 1: event data 2 is as table 42-3 says for this type."""
DATA_3_IS_SPECIFIC: Final = 0x30


def event(sensor: Sensor, offset: int, data2: int | None = None, data3: int | None = None) -> bytes:
    """The SEL record of an assertion at `sensor` (IPMI 2.0 table 32-1 and section 29.7), as in `SelEntry.data`."""
    data1 = offset & 0x0F
    data1 |= DATA_2_IS_SPECIFIC if data2 is not None else 0
    data1 |= DATA_3_IS_SPECIFIC if data3 is not None else 0
    kind = (SYSTEM_EVENT, BMC_ADDRESS, 0x00, EVENT_REVISION, sensor.type, sensor.number, sensor.event_type)
    data = (UNSPECIFIED if value is None else value for value in (data2, data3))
    return bytes((*kind, data1, *data))
