"""BIOS attributes: real settings, changed from the next start on."""

import asyncio
from dataclasses import replace

import pytest
from fakes.machine import INVENTORY, FakeMachine

from placematd.bmc.machine import Firmware
from placematd.bmc.redfish.messages import RedfishError
from placematd.bmc.redfish.resources import bios

LEGACY = Firmware(boot_mode="Legacy", tpm=False)
UEFI = Firmware(boot_mode="UEFI", tpm=True)
BOTH = ("Legacy", "UEFI")


def test_attributes_tell_the_firmware():
    assert bios.attributes(LEGACY) == {"BootMode": "Legacy", "Tpm": "Disabled"}
    assert bios.attributes(UEFI) == {"BootMode": "Uefi", "Tpm": "Enabled"}


@pytest.mark.parametrize(
    ("wishes", "after"),
    [
        ({}, LEGACY),
        ({"BootMode": "Uefi"}, Firmware(boot_mode="UEFI", tpm=False)),
        ({"Tpm": "Enabled"}, Firmware(boot_mode="Legacy", tpm=True)),
        ({"BootMode": "Uefi", "Tpm": "Enabled"}, UEFI),
    ],
)
def test_a_patch_changes_what_it_names(wishes, after):
    assert bios.changed(LEGACY, wishes, BOTH) == after


def test_secure_boot_goes_with_uefi():
    secure = Firmware(boot_mode="UEFI", tpm=False, secure_boot=True)
    assert bios.changed(secure, {"Tpm": "Enabled"}, BOTH) == replace(secure, tpm=True)
    assert bios.changed(secure, {"BootMode": "Legacy"}, BOTH) == LEGACY


@pytest.mark.parametrize(
    ("wishes", "modes", "message", "at"),
    [
        ({"SecureBoot": "Enabled"}, BOTH, "PropertyUnknown", "Attributes/SecureBoot"),
        ({"BootMode": "UEFI"}, BOTH, "PropertyValueNotInList", "Attributes/BootMode"),
        ({"BootMode": "Uefi"}, ("Legacy",), "PropertyValueNotInList", "Attributes/BootMode"),
        ({"Tpm": "On"}, BOTH, "PropertyValueNotInList", "Attributes/Tpm"),
    ],
)
def test_what_cannot_come_true_is_refused(wishes, modes, message, at):
    with pytest.raises(RedfishError) as refused:
        bios.changed(LEGACY, wishes, modes)
    assert refused.value.status == 400
    assert (refused.value.messages[0].name, refused.value.messages[0].at) == (message, at)


@pytest.mark.parametrize("modes", [BOTH, ("Legacy",)])
def test_the_registry_offers_what_a_patch_takes(modes):
    entries = bios.registry(modes, LEGACY)["RegistryEntries"]["Attributes"]
    assert {entry["AttributeName"] for entry in entries} == bios.attributes(LEGACY).keys()
    for entry in entries:
        offered = [value["ValueName"] for value in entry["Value"]]
        assert entry["DefaultValue"] in offered
        for value in offered:
            wished = bios.changed(UEFI, {entry["AttributeName"]: value}, modes)
            assert bios.attributes(wished)[entry["AttributeName"]] == value


def test_registry_is_found_from_the_bios():
    assert bios.bios(LEGACY)["AttributeRegistry"] == bios.registry_file()["Registry"] == bios.REGISTRY
    assert bios.registry_file()["Location"][0]["Uri"] == bios.REGISTRY_STORE
    assert bios.registry(BOTH, LEGACY)["Id"] == bios.REGISTRY


def test_defaults_are_the_settings_from_before_the_first_change():
    async def story() -> None:
        machine = FakeMachine(inventory=replace(INVENTORY, boot_mode="Legacy", tpm=True))
        first = Firmware(boot_mode="Legacy", tpm=True)
        assert await bios.default(machine) == first
        for wishes in ({"BootMode": "Uefi"}, {"Tpm": "Disabled"}):
            await bios.change(machine, wishes)
            assert await bios.default(machine) == first
        assert (await machine.firmware())[1] == Firmware(boot_mode="UEFI", tpm=False)
        await bios.reset(machine)
        assert (await machine.firmware())[1] == first

    asyncio.run(story())


def test_a_patch_that_changes_nothing_does_nothing():
    machine = FakeMachine()
    asyncio.run(bios.change(machine, {"BootMode": "Legacy"}))
    assert machine.actions == [] and machine.durable == {}
