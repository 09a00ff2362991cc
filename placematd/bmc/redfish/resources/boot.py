"""What the machine boots from: the override, the firmware's own order and the devices in it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, get_args

from ...machine import BootEnabled, BootMode, BootOverride, BootTarget, Inventory
from ..messages import RedfishError
from ..resource import Call, Json, Resource, collection, link, one_of
from .parts import pick
from .paths import BOOT_OPTIONS

ENABLED: Final[Sequence[BootEnabled]] = get_args(BootEnabled)
TARGETS: Final[Sequence[BootTarget]] = get_args(BootTarget)
MODES: Final[Sequence[BootMode]] = get_args(BootMode)

WRITABLE: Final = {
    "BootSourceOverrideEnabled": one_of(*ENABLED),
    "BootSourceOverrideTarget": one_of(*TARGETS),
    "BootSourceOverrideMode": one_of(*MODES),
}


def boot(override: BootOverride, inventory: Inventory, modes: Sequence[BootMode]) -> Json:
    """The Boot object of the system; `modes` are those that this host has firmware for."""
    return {
        "BootSourceOverrideEnabled": override.enabled,
        "BootSourceOverrideEnabled@Redfish.AllowableValues": list(ENABLED),
        "BootSourceOverrideTarget": override.target,
        "BootSourceOverrideTarget@Redfish.AllowableValues": list(TARGETS),
        "BootSourceOverrideMode": override.mode or inventory.boot_mode,
        "BootSourceOverrideMode@Redfish.AllowableValues": list(modes),
        "BootOptions": link(BOOT_OPTIONS),
        "BootOrder": list(options(inventory)),
    }


def changed(override: BootOverride, wishes: Mapping[str, Any], modes: Sequence[BootMode]) -> BootOverride:
    """The override after a PATCH of Boot; what the client left out stays, and Disabled alone forgets the target.

    Raises RedfishError for a mode that this host has no firmware for.
    """
    mode = wishes.get("BootSourceOverrideMode", override.mode)
    if "BootSourceOverrideMode" in wishes and mode not in modes:
        raise RedfishError("PropertyValueNotInList", mode, "BootSourceOverrideMode", at="Boot/BootSourceOverrideMode")
    enabled = wishes.get("BootSourceOverrideEnabled", override.enabled)
    target = wishes.get("BootSourceOverrideTarget", override.target)
    if wishes.get("BootSourceOverrideEnabled") == "Disabled" and "BootSourceOverrideTarget" not in wishes:
        target = "None"
        mode = wishes.get("BootSourceOverrideMode")
    return replace(override, enabled=enabled, target=target, mode=mode)


async def change(call: Call) -> None:
    """PATCH of the system's Boot."""
    _, _, offer = await call.machine.firmware()
    current = await call.machine.boot()
    wished = changed(current, call.body["Boot"], offer.boot_modes)
    if wished != current:
        await call.machine.set_boot(wished)


def options(inventory: Inventory) -> dict[str, Json]:
    """The BootOptions by id, in the order in which the firmware tries them when nothing overrides it.

    QEMU's order is disk, CD, network ("cad", hw/i386/pc.c), and SeaBIOS and OVMF keep to it.
    """
    disks = [(f"Hdd.{number}", "Hdd", f"Disk {disk.name}") for number, disk in enumerate(inventory.disks, start=1)]
    nics = [(f"Pxe.{number}", "Pxe", f"Network {nic.name}") for number, nic in enumerate(inventory.nics, start=1)]
    found = [*disks, ("Cd", "Cd", "Virtual CD"), *nics]
    return {
        option: {
            "Id": option,
            "Name": name,
            "DisplayName": name,
            "BootOptionReference": option,
            "BootOptionEnabled": True,
            "Alias": alias,
        }
        for option, alias, name in found
    }


async def _get_options(call: Call) -> Json:
    inventory = await call.machine.inventory()
    return collection("Boot Options", [f"{BOOT_OPTIONS}/{option}" for option in options(inventory)])


async def _get_option(call: Call) -> Json:
    return pick(options(await call.machine.inventory()), call)[1]


def routes() -> Sequence[Resource]:
    """The boot options."""
    return [
        Resource(uri=BOOT_OPTIONS, type="BootOptionCollection.BootOptionCollection", get=_get_options),
        Resource(uri=f"{BOOT_OPTIONS}/{{id}}", type="BootOption.v1_0_6.BootOption", get=_get_option),
    ]
