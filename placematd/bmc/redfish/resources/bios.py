"""BIOS attributes: the two firmware settings that a virtual machine really has, changed from its next start on.

The attribute registry says what they may be on this host; a client finds it through Bios.AttributeRegistry.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Final

from ...machine import BootMode, Firmware, Machine
from ..messages import RedfishError
from ..resource import ROOT, Action, Call, Json, Resource, Rule, link, object_of
from .paths import BIOS

SETTINGS: Final = f"{BIOS}/Settings"
TYPE: Final = "Bios.v1_2_3.Bios"
REGISTRY: Final = "BiosAttributeRegistry.v1_0_0"
REGISTRY_URI: Final = f"{ROOT}/Registries/{REGISTRY}"
REGISTRY_STORE: Final = f"{REGISTRY_URI}/en"
SECTION: Final = "bios"
"""What the settings were before anybody changed them, in the BMC's own store."""

BOOT_MODES: Final[dict[str, BootMode]] = {"Legacy": "Legacy", "Uefi": "UEFI"}
NAMES_OF_MODES: Final = {mode: name for name, mode in BOOT_MODES.items()}
TPM: Final = {"Disabled": False, "Enabled": True}

ATTRIBUTE_RULE: Final = Rule("string", maximum=32)


def attributes(firmware: Firmware) -> dict[str, str]:
    """Settings as attributes."""
    return {"BootMode": NAMES_OF_MODES[firmware.boot_mode], "Tpm": "Enabled" if firmware.tpm else "Disabled"}


def choices(modes: Sequence[BootMode]) -> dict[str, Sequence[str]]:
    """What each attribute may be, where the host has firmware for `modes`."""
    return {"BootMode": [NAMES_OF_MODES[mode] for mode in modes], "Tpm": list(TPM)}


def changed(firmware: Firmware, wishes: Mapping[str, Any], modes: Sequence[BootMode]) -> Firmware:
    """Settings after a PATCH of Attributes; RedfishError for the first that is unknown or has no such value.

    With the boot mode Legacy, Secure Boot is off, and stays off when the mode is UEFI again.
    """
    allowed = choices(modes)
    for name, value in wishes.items():
        if name not in allowed:
            raise RedfishError("PropertyUnknown", name, at=f"Attributes/{name}")
        if value not in allowed[name]:
            raise RedfishError("PropertyValueNotInList", str(value), name, at=f"Attributes/{name}")
    wished = {**attributes(firmware), **wishes}
    mode = BOOT_MODES[wished["BootMode"]]
    return replace(
        firmware, boot_mode=mode, tpm=TPM[wished["Tpm"]], secure_boot=firmware.secure_boot and mode == "UEFI"
    )


def bios(current: Firmware) -> Json:
    """The Bios resource: the settings in force."""
    return {
        "Id": "Bios",
        "Name": "BIOS",
        "AttributeRegistry": REGISTRY,
        "Attributes": attributes(current),
        "@Redfish.Settings": {
            "@odata.type": "#Settings.v1_3_5.Settings",
            "SettingsObject": link(SETTINGS),
            "SupportedApplyTimes": ["OnReset"],
        },
    }


def settings(following: Firmware) -> Json:
    """The Settings resource: what counts from the next start on."""
    return {
        "Id": "Settings",
        "Name": "BIOS Settings",
        "AttributeRegistry": REGISTRY,
        "Attributes": attributes(following),
        "@Redfish.SettingsApplyTime": {
            "@odata.type": "#Settings.v1_3_5.PreferredApplyTime",
            "ApplyTime": "OnReset",
            "ApplyTime@Redfish.AllowableValues": ["OnReset"],
        },
    }


def registry(modes: Sequence[BootMode], default: Firmware) -> Json:
    """The attribute registry itself (DSP0266, AttributeRegistry schema)."""
    texts = {
        "BootMode": ("Boot Mode", "The firmware that the machine starts with."),
        "Tpm": ("Trusted Platform Module", "Whether the machine has a TPM 2.0."),
    }
    defaults = attributes(default)
    entries = [
        {
            "AttributeName": name,
            "Type": "Enumeration",
            "DisplayName": texts[name][0],
            "HelpText": texts[name][1],
            "DisplayOrder": order,
            "MenuPath": "./",
            "ReadOnly": False,
            "ResetRequired": True,
            "DefaultValue": defaults[name],
            "Value": [{"ValueName": value, "ValueDisplayName": value} for value in values],
        }
        for order, (name, values) in enumerate(choices(modes).items(), start=1)
    ]
    return {
        "Id": REGISTRY,
        "Name": "BIOS Attribute Registry",
        "Language": "en",
        "OwningEntity": "placemat",
        "RegistryVersion": "1.0.0",
        "RegistryEntries": {"Attributes": entries},
    }


def registry_file() -> Json:
    """The MessageRegistryFile that tells where the registry is."""
    return {
        "Id": REGISTRY,
        "Name": "BIOS Attribute Registry",
        "Registry": REGISTRY,
        "Languages": ["en"],
        "Location": [{"Language": "en", "Uri": REGISTRY_STORE}],
    }


async def default(machine: Machine) -> Firmware:
    """The settings that ResetBios goes back to: those from before the first change."""
    kept = (await machine.load(SECTION)).get("default")
    if kept:
        return Firmware(**kept)
    return (await machine.firmware())[0]


async def _get_bios(call: Call) -> Json:
    return bios((await call.machine.firmware())[0])


async def _get_settings(call: Call) -> Json:
    return settings((await call.machine.firmware())[1])


async def _get_registry(call: Call) -> Json:
    _, _, offer = await call.machine.firmware()
    return registry(offer.boot_modes, await default(call.machine))


async def _get_registry_file(_: Call) -> Json:
    return registry_file()


async def change(machine: Machine, wishes: Mapping[str, Any]) -> None:
    """Change attributes from the next start on. Raises RedfishError, and PlacematError where the host refuses."""
    _, following, offer = await machine.firmware()
    await choose(machine, changed(following, wishes, offer.boot_modes))


async def choose(machine: Machine, wished: Firmware) -> None:
    """Have these settings from the next start on. Raises PlacematError where the host refuses."""
    _, following, _ = await machine.firmware()
    if wished == following:
        return
    await machine.save(SECTION, {"default": asdict(await default(machine))})
    await machine.set_firmware(wished)


async def reset(machine: Machine) -> None:
    """Back to the settings from before the first change, Secure Boot too."""
    await machine.set_firmware(await default(machine))
    await machine.save(SECTION, {})


async def _patch(call: Call) -> None:
    await change(call.machine, call.body.get("Attributes", {}))


async def _reset_bios(call: Call) -> None:
    await reset(call.machine)


def routes() -> Sequence[Resource]:
    """Bios, its Settings and its attribute registry."""
    return [
        Resource(uri=BIOS, type=TYPE, get=_get_bios, actions=(Action("Bios.ResetBios", _reset_bios),)),
        Resource(
            uri=SETTINGS,
            type=TYPE,
            get=_get_settings,
            patch=_patch,
            writable={"Attributes": object_of(ATTRIBUTE_RULE)},
        ),
        Resource(uri=REGISTRY_URI, type="MessageRegistryFile.v1_1_5.MessageRegistryFile", get=_get_registry_file),
        Resource(uri=REGISTRY_STORE, type="AttributeRegistry.v1_4_0.AttributeRegistry", get=_get_registry),
    ]
