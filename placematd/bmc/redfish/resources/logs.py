"""The system event log, the same that IPMI reads; system and manager both have it, as clients look in either place."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from ...machine import SelEntry
from ...sensors import EVENT_BYTES, SYSTEM_EVENT
from ..resource import Action, Call, Json, Resource, collection, link, missing
from .parts import HEALTHY
from .paths import LOG_SERVICES, MANAGER_LOG_SERVICES

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


def service(services: str, now: datetime) -> Json:
    """The LogService below the collection `services`."""
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
        "Entries": link(entries_uri(services)),
    }


def entries(services: str, log: Sequence[SelEntry]) -> Json:
    """The log as a collection; members are in it whole, as LogEntryCollection's schema asks (OData.AutoExpand)."""
    payload = collection("Log Entries", [f"{entries_uri(services)}/{event.record_id}" for event in log])
    payload["Members"] = [
        {**member, "@odata.type": f"#{ENTRY_TYPE}", **entry(event)}
        for member, event in zip(payload["Members"], log, strict=True)
    ]
    return payload


def entries_uri(services: str) -> str:
    """Where the entries of the log are."""
    return f"{services}/SEL/Entries"


async def _get_entry(call: Call) -> Json:
    for event in await call.machine.sel():
        if str(event.record_id) == call.parameters["id"]:
            return entry(event)
    raise missing(call)


async def _clear(call: Call) -> None:
    await call.machine.clear_sel()


def _routes(services: str) -> Sequence[Resource]:
    async def get_services(_: Call) -> Json:
        return collection("Log Services", [f"{services}/SEL"])

    async def get_service(_: Call) -> Json:
        return service(services, datetime.now(UTC))

    async def get_entries(call: Call) -> Json:
        return entries(services, await call.machine.sel())

    return [
        Resource(uri=services, type="LogServiceCollection.LogServiceCollection", get=get_services),
        Resource(
            uri=f"{services}/SEL",
            type="LogService.v1_7_0.LogService",
            get=get_service,
            actions=(Action("LogService.ClearLog", _clear),),
            volatile=frozenset({"DateTime"}),
        ),
        Resource(uri=entries_uri(services), type="LogEntryCollection.LogEntryCollection", get=get_entries),
        Resource(uri=f"{entries_uri(services)}/{{id}}", type=ENTRY_TYPE, get=_get_entry),
    ]


def routes() -> Sequence[Resource]:
    """LogServices of the system and of the manager."""
    return [*_routes(LOG_SERVICES), *_routes(MANAGER_LOG_SERVICES)]
