"""UEFI Secure Boot: on or off from the next start on, which is what SecureBootEnable means (SecureBoot schema 1.1).

There is no action ResetKeys: the keys lie in a variable store that belongs to the guest once it is made.
"""

from collections.abc import Sequence
from dataclasses import replace

from ...machine import Firmware, Inventory, PowerState
from ..messages import RedfishError
from ..resource import Call, Json, Resource, boolean, missing
from . import bios
from .paths import SECURE_BOOT

TYPE = "SecureBoot.v1_1_2.SecureBoot"
ENABLE = "SecureBootEnable"


def secure_boot(following: Firmware, inventory: Inventory, power: PowerState) -> Json:
    """The SecureBoot resource; no boot is under way where there is no power, and a BIOS has no mode of Secure Boot."""
    keys = "UserMode" if inventory.secure_boot else "SetupMode"
    return {
        "Id": "SecureBoot",
        "Name": "UEFI Secure Boot",
        ENABLE: following.secure_boot,
        "SecureBootCurrentBoot": None if power == "Off" else "Enabled" if inventory.secure_boot else "Disabled",
        "SecureBootMode": keys if inventory.boot_mode == "UEFI" else None,
        "Actions": {},  # sushy 5 does not look whether there are any before it looks for ResetKeys
    }


async def _following(call: Call) -> Firmware:
    """The settings from the next start on. Raises RedfishError where this host cannot do it."""
    _, following, offer = await call.machine.firmware()
    if not offer.secure_boot:
        raise missing(call)
    return following


async def _get(call: Call) -> Json:
    machine = call.machine
    return secure_boot(await _following(call), await machine.inventory(), await machine.power_state())


async def _patch(call: Call) -> None:
    following, enable = await _following(call), call.body.get(ENABLE)
    if enable is None:
        return
    if enable and following.boot_mode != "UEFI":
        raise RedfishError("PropertyValueConflict", ENABLE, "BootMode", at=ENABLE)
    await bios.choose(call.machine, replace(following, secure_boot=enable))


def routes() -> Sequence[Resource]:
    """The SecureBoot resource."""
    return [Resource(uri=SECURE_BOOT, type=TYPE, get=_get, patch=_patch, writable={ENABLE: boolean()})]
