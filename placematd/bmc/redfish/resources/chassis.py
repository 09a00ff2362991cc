"""The chassis: the box of the node, one to one."""

from collections.abc import Sequence

from ...machine import Inventory, PowerState
from ..resource import Action, Call, Json, Resource, boolean, collection, link
from . import reset, sensors, storage, trusted
from .parts import powered, rolled_up
from .paths import (
    CHASSIS,
    CHASSIS_COLLECTION,
    CHASSIS_ID,
    DRIVES,
    ENVIRONMENT,
    MANAGER,
    POWER,
    SENSORS,
    SYSTEM,
    THERMAL,
    TRUSTED,
)


def chassis(inventory: Inventory, power: PowerState, identifying: bool) -> Json:
    """The Chassis resource, with the names that the SMBIOS tables give the system."""
    return {
        "Id": CHASSIS_ID,
        "Name": inventory.node,
        "ChassisType": "RackMount",
        "Manufacturer": inventory.manufacturer,
        "Model": inventory.product,
        "SerialNumber": inventory.serial,
        "UUID": str(inventory.uuid),
        "PowerState": power,
        "LocationIndicatorActive": identifying,
        "Status": rolled_up(powered(power)),
        "Drives": link(DRIVES),
        "Sensors": link(SENSORS),
        "ThermalSubsystem": link(THERMAL),
        "PowerSubsystem": link(POWER),
        "EnvironmentMetrics": link(ENVIRONMENT),
        "TrustedComponents": link(TRUSTED),
        "Links": {
            "ComputerSystems": [link(SYSTEM)],
            "ManagedBy": [link(MANAGER)],
            "ManagersInChassis": [link(MANAGER)],
            "Drives": [link(storage.drive_uri(name)) for name in storage.disks(inventory)],
            "Storage": [link(storage.UNIT)],
        },
    }


async def _get_all(_: Call) -> Json:
    return collection("Chassis", [CHASSIS])


async def _get(call: Call) -> Json:
    machine = call.machine
    payload = chassis(await machine.inventory(), await machine.power_state(), await machine.identifying())
    return payload | reset.offer(CHASSIS, "Chassis.Reset")


async def _patch(call: Call) -> None:
    if "LocationIndicatorActive" in call.body:
        await call.machine.identify(None if call.body["LocationIndicatorActive"] else 0)


def routes() -> Sequence[Resource]:
    """The chassis, its collection and what is in it."""
    return [
        Resource(uri=CHASSIS_COLLECTION, type="ChassisCollection.ChassisCollection", get=_get_all),
        Resource(
            uri=CHASSIS,
            type="Chassis.v1_25_2.Chassis",
            get=_get,
            patch=_patch,
            writable={"LocationIndicatorActive": boolean()},
            actions=(Action("Chassis.Reset", reset.run, {"ResetType": reset.RESET_RULE}, required=("ResetType",)),),
        ),
        reset.action_info(CHASSIS),
        *sensors.routes(),
        *trusted.routes(),
    ]
