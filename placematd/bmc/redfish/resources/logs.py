"""The system event log, the same that IPMI reads."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from ...machine import SelEntry
from ...sensors import EVENT_BYTES, SYSTEM_EVENT
from ..resource import Action, Call, Json, Resource, collection, link, missing
from .parts import HEALTHY
from .paths import LOG_SERVICES

SEL: Final = f"{LOG_SERVICES}/SEL"
ENTRIES: Final = f"{SEL}/Entries"
ENTRY_TYPE: Final = "LogEntry.v1_17_2.LogEntry"

SENSOR_TYPES: Final = {
    0x01: "Temperature",
    0x02: "Voltage",
    0x03: "Current",
    0x04: "Fan",
    0x05: "Physical Chassis Security",
    0x06: "Platform Security Violation Attempt",
    0x07: "Processor",
    0x08: "Power Supply / Converter",
    0x09: "PowerUnit",
    0x0A: "CoolingDevice",
    0x0B: "Other Units-based Sensor",
    0x0C: "Memory",
    0x0D: "Drive Slot/Bay",
    0x0E: "POST Memory Resize",
    0x0F: "System Firmware Progress",
    0x10: "Event Logging Disabled",
    0x12: "System Event",
    0x13: "Critical Interrupt",
    0x14: "Button/Switch",
    0x1D: "SystemBoot/Restart",
    0x1E: "Boot Error",
    0x1F: "BaseOSBoot/InstallationStatus",
    0x20: "OS Stop/Shutdown",
    0x22: "System ACPI PowerState",
    0x23: "Watchdog",
    0x28: "Management Subsystem Health",
    0x2A: "Session Audit",
    0x2B: "Version Change",
}
"""IPMI 2.0 table 42-3 in the words of Redfish's LogEntry.SensorType, as far as anybody writes them here."""

_DEASSERTION: Final = 0x80


def timestamp(moment: datetime) -> str:
    """A time as Redfish writes it, in UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def entry(event: SelEntry) -> Json:
    """The LogEntry of one event."""
    return {
        "Id": str(event.record_id),
        "Name": f"Log Entry {event.record_id}",
        "EntryType": "SEL",
        "Severity": event.severity,
        "Created": timestamp(event.time),
        "Message": event.message,
        **_record(event.data),
    }


def _record(data: bytes) -> Json:
    """What stands in a record of type 02h; those that software added in a form of its own have nothing of it."""
    if len(data) != EVENT_BYTES or data[0] != SYSTEM_EVENT:
        return {}
    _, generator, channel, _, sensor_type, number, direction, *_ = data
    return {
        "EntryCode": "Deassert" if direction & _DEASSERTION else "Assert",
        "SensorType": SENSOR_TYPES.get(sensor_type, "OEM"),
        "SensorNumber": number,
        "GeneratorId": f"0x{channel:02X}{generator:02X}",
        "MessageId": "0x" + data[6:10].hex().upper(),
    }


def service(now: datetime) -> Json:
    """The LogService."""
    return {
        "Id": "SEL",
        "Name": "System Event Log",
        "LogEntryType": "SEL",
        "ServiceEnabled": True,
        "Persistency": True,
        "OverWritePolicy": "WrapsWhenFull",
        "DateTime": timestamp(now),
        "DateTimeLocalOffset": "+00:00",
        "Status": HEALTHY,
        "Entries": link(ENTRIES),
    }


def entries(log: Sequence[SelEntry]) -> Json:
    """The collection; its members are in it whole, as LogEntryCollection's schema asks (OData.AutoExpand)."""
    payload = collection("Log Entries", [f"{ENTRIES}/{event.record_id}" for event in log])
    payload["Members"] = [
        {**member, "@odata.type": f"#{ENTRY_TYPE}", **entry(event)}
        for member, event in zip(payload["Members"], log, strict=True)
    ]
    return payload


async def _get_services(_: Call) -> Json:
    return collection("Log Services", [SEL])


async def _get_service(_: Call) -> Json:
    return service(datetime.now(UTC))


async def _get_entries(call: Call) -> Json:
    return entries(await call.machine.sel())


async def _get_entry(call: Call) -> Json:
    for event in await call.machine.sel():
        if str(event.record_id) == call.parameters["id"]:
            return entry(event)
    raise missing(call)


async def _clear(call: Call) -> None:
    await call.machine.clear_sel()


def routes() -> Sequence[Resource]:
    """LogServices of the system."""
    return [
        Resource(uri=LOG_SERVICES, type="LogServiceCollection.LogServiceCollection", get=_get_services),
        Resource(
            uri=SEL,
            type="LogService.v1_7_0.LogService",
            get=_get_service,
            actions=(Action("LogService.ClearLog", _clear),),
            volatile=frozenset({"DateTime"}),
        ),
        Resource(uri=ENTRIES, type="LogEntryCollection.LogEntryCollection", get=_get_entries),
        Resource(uri=f"{ENTRIES}/{{id}}", type=ENTRY_TYPE, get=_get_entry),
    ]
