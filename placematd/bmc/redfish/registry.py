"""The message registries (DSP2065): Base, ResourceEvent and the service's own."""

from collections.abc import Mapping
from http import HTTPStatus

from .base_registry import BASE, BASE_VERSION, Template

EVENT_VERSION = "1.0.3"
OWN_VERSION = "1.0.0"

_OK = HTTPStatus.OK

EVENTS: Mapping[str, Template] = {
    "ResourceChanged": Template(_OK, "OK", "One or more resource properties have changed."),
    "ResourceCreated": Template(_OK, "OK", "The resource has been created successfully.", "None"),
    "ResourceRemoved": Template(_OK, "OK", "The resource has been removed successfully.", "None"),
}
"""Messages of ResourceEvent."""

OWN: Mapping[str, Template] = {
    "MachineError": Template(HTTPStatus.INTERNAL_SERVER_ERROR, "Critical", "%1"),
    "LogEntryAdded": Template(_OK, "OK", "The system event log has a new entry: %1"),
    "PowerStateChanged": Template(_OK, "OK", "The power state of the machine has changed to %1."),
    "MachineBooted": Template(_OK, "OK", "The machine has begun to boot."),
    "MediaChanged": Template(_OK, "OK", "The virtual media have changed: %1"),
    "FirmwareChanged": Template(_OK, "OK", "The settings of the firmware have changed."),
    "TestEvent": Template(_OK, "OK", "This is a test event."),
}
"""Messages of placemat's own."""

REGISTRIES: Mapping[str, tuple[str, Mapping[str, Template]]] = {
    "Base": (BASE_VERSION, BASE),
    "ResourceEvent": (EVENT_VERSION, EVENTS),
    "Placemat": (OWN_VERSION, OWN),
}
