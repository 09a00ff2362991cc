"""The update service: it tells the versions of BMC and BIOS, and updates nothing, since the host's packages do."""

from collections.abc import Sequence
from typing import Final

from .... import __version__
from ...machine import Inventory
from ..resource import Call, Json, Resource, collection, link
from .parts import HEALTHY, pick
from .paths import BIOS, FIRMWARE, MANAGER, UPDATE_SERVICE

TYPE: Final = "SoftwareInventory.v1_10_2.SoftwareInventory"


def firmware(inventory: Inventory) -> dict[str, Json]:
    """The SoftwareInventory resources by id."""
    return {
        "BMC": _software("BMC", "BMC firmware", "placemat", __version__, MANAGER),
        "BIOS": _software("BIOS", "System firmware", "", inventory.bios_version, BIOS),
    }


def _software(name: str, title: str, maker: str, version: str, uri: str) -> Json:
    software: Json = {
        "Id": name,
        "Name": title,
        "Version": version,
        "Updateable": False,
        "RelatedItem": [link(uri)],
        "Status": HEALTHY,
    }
    return {**software, "Manufacturer": maker} if maker else software


async def _get_service(_: Call) -> Json:
    return {
        "Id": "UpdateService",
        "Name": "Update Service",
        "ServiceEnabled": False,
        "FirmwareInventory": link(FIRMWARE),
        "Actions": {},  # sushy takes nothing for an UpdateService that has none of them
        "Status": {"State": "Disabled", "Health": "OK"},
    }


async def _get_inventory(call: Call) -> Json:
    names = firmware(await call.machine.inventory())
    return collection("Firmware Inventory", [f"{FIRMWARE}/{name}" for name in names])


async def _get_software(call: Call) -> Json:
    return pick(firmware(await call.machine.inventory()), call)[1]


def routes() -> Sequence[Resource]:
    """The update service and the firmware that the node runs."""
    return [
        Resource(uri=UPDATE_SERVICE, type="UpdateService.v1_14_1.UpdateService", get=_get_service),
        Resource(uri=FIRMWARE, type="SoftwareInventoryCollection.SoftwareInventoryCollection", get=_get_inventory),
        Resource(uri=f"{FIRMWARE}/{{id}}", type=TYPE, get=_get_software),
    ]
