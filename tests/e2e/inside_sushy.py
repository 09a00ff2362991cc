"""What Ironic does with a machine, through sushy (OpenStack's Redfish client), step by step. Runs in a sandbox.

    echo '{"url": ..., "user": ..., "password": ..., "node": ..., "truth": {...}}' | inside_sushy.py

The machine is on, its guest answers the power button, and what its console prints is in the journal. Prints a line for
each step and "N steps" at the end; a step that fails ends with its traceback.
"""

import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sushy
from journal import follow_on
from sushy import auth

SECONDS = 60
BOOT_SECONDS = 240
FIRMWARE, READY, NETWORK = r"SeaBIOS \(version", "placemat-guest: ready", "iPXE"
BUTTON = "placemat-guest: power button"


def wait(what: str, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"not in {SECONDS} s: {what}"
        time.sleep(0.1)


def run(argv: list[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(argv, capture_output=True, text=True, check=True)


class Acceptance:
    """Each method without an underscore is a step; they run in the order in which they are written."""

    def __init__(self, url: str, user: str, password: str, node: str, truth: dict[str, Any]) -> None:
        login = auth.SessionAuth(username=user, password=password)
        self._node, self._truth = node, truth
        self._root = sushy.Sushy(url, verify=False, auth=login)
        self._system = self._root.get_system(self._root.get_system_collection().members_identities[0])
        self._manager = self._root.get_manager(self._root.get_manager_collection().members_identities[0])

    def _power(self, state: object) -> None:
        def holds() -> bool:
            self._system.refresh(force=True)
            return bool(self._system.power_state == state)

        wait(f"power {state}", holds)

    @contextmanager
    def _seen(self, *patterns: str) -> Iterator[None]:
        """The console says these after what is done meanwhile."""
        with follow_on(run, subprocess.Popen, f"PLACEMAT_NODE={self._node}") as journal:
            yield
            for pattern in patterns:
                journal.wait(pattern, BOOT_SECONDS)

    def _reset(self, action: object, *patterns: str, state: object = sushy.POWER_STATE_ON) -> None:
        """A reset, what the console says of it, and the power afterwards."""
        with self._seen(*patterns):
            self._system.reset_system(action)
        self._power(state)

    def session(self) -> None:
        service = self._root.get_session_service()
        assert service.service_enabled
        assert service.sessions.get_members()

    def identity(self) -> None:
        assert self._system.uuid == self._truth["uuid"]
        assert self._system.identity == "System.Embedded.1"
        named = (self._system.manufacturer, self._system.model, self._system.serial_number)
        assert named == (self._truth["manufacturer"], self._truth["product"], self._truth["serial"])
        assert self._system.bios_version

    def links(self) -> None:
        assert [one.identity for one in self._system.managers] == ["BMC"]
        assert [one.identity for one in self._system.chassis] == ["System.Embedded.1"]
        assert self._manager.systems[0].uuid == self._system.uuid

    def processors_and_memory(self) -> None:
        assert self._system.memory_summary.size_gib == self._truth["memory_gib"]
        assert self._system.processors.summary.count == self._truth["cpus"]
        assert str(self._system.processors.summary.architecture.value) == "x86"

    def macs(self) -> None:
        macs = self._system.ethernet_interfaces.summary
        assert set(macs) == set(self._truth["macs"]), macs
        assert all(state == sushy.STATE_ENABLED for state in macs.values())

    def simple_storage(self) -> None:
        assert self._system.simple_storage.disks_sizes_bytes == sorted(self._truth["disks"])

    def storage(self) -> None:
        (unit,) = self._system.storage.get_members()
        assert unit.drives_sizes_bytes == sorted(self._truth["disks"])
        assert {volume.raid_type.value for volume in unit.volumes.get_members()} == {"None"}
        assert unit.controllers.get_members()[0].identity

    def power_actions(self) -> None:
        assert len(self._system.get_allowed_reset_system_values()) == 9
        off = sushy.POWER_STATE_OFF
        self._reset(sushy.RESET_TYPE_ON)
        self._reset(sushy.RESET_TYPE_FORCE_RESTART, FIRMWARE, READY)
        self._reset(sushy.RESET_TYPE_NMI)
        self._reset(sushy.RESET_TYPE_GRACEFUL_SHUTDOWN, BUTTON, state=off)
        self._reset(sushy.RESET_TYPE_FORCE_ON, FIRMWARE, READY)
        self._reset(sushy.RESET_TYPE_GRACEFUL_RESTART, BUTTON, FIRMWARE, READY)
        self._reset(sushy.RESET_TYPE_FORCE_OFF, state=off)
        self._reset(sushy.RESET_TYPE_PUSH_POWER_BUTTON, FIRMWARE)
        self._reset(sushy.RESET_TYPE_POWER_CYCLE, FIRMWARE)
        self._reset(sushy.RESET_TYPE_FORCE_OFF, state=off)

    def nmi_without_power_is_a_conflict(self) -> None:
        try:
            self._system.reset_system(sushy.RESET_TYPE_NMI)
        except sushy.exceptions.HTTPError as error:
            assert error.status_code == 409, error
        else:
            raise AssertionError("an NMI went to a machine that is off")

    def boot_once_from_the_network(self) -> None:
        sources = self._system.get_allowed_system_boot_source_values()
        expected = {sushy.BOOT_SOURCE_TARGET_NONE, sushy.BOOT_SOURCE_TARGET_PXE}
        expected |= {sushy.BOOT_SOURCE_TARGET_HDD, sushy.BOOT_SOURCE_TARGET_CD}
        assert sources == expected, sources
        self._system.set_system_boot_options(
            sushy.BOOT_SOURCE_TARGET_PXE, enabled=sushy.BOOT_SOURCE_ENABLED_ONCE, mode=sushy.BOOT_SOURCE_MODE_BIOS
        )
        self._system.refresh()
        boot = self._system.boot
        assert (boot.target, boot.enabled) == (sushy.BOOT_SOURCE_TARGET_PXE, sushy.BOOT_SOURCE_ENABLED_ONCE)
        assert boot.mode == sushy.BOOT_SOURCE_MODE_BIOS
        self._reset(sushy.RESET_TYPE_ON, FIRMWARE, f"Booting from ROM|{NETWORK}.*initiali")
        assert self._system.boot.enabled == sushy.BOOT_SOURCE_ENABLED_DISABLED
        self._reset(sushy.RESET_TYPE_FORCE_RESTART, FIRMWARE, READY)

    def boot_from_the_disk_for_ever(self) -> None:
        self._system.set_system_boot_options(sushy.BOOT_SOURCE_TARGET_HDD, enabled=sushy.BOOT_SOURCE_ENABLED_CONTINUOUS)
        self._reset(sushy.RESET_TYPE_FORCE_RESTART, FIRMWARE)
        assert self._system.boot.enabled == sushy.BOOT_SOURCE_ENABLED_CONTINUOUS
        self._system.set_system_boot_options(enabled=sushy.BOOT_SOURCE_ENABLED_DISABLED)
        self._system.refresh()
        assert self._system.boot.enabled == sushy.BOOT_SOURCE_ENABLED_DISABLED

    def virtual_media_of_system_and_manager(self) -> None:
        (of_manager,) = self._manager.virtual_media.get_members()
        (media,) = self._system.virtual_media.get_members()
        assert media.path == of_manager.path
        assert sushy.VIRTUAL_MEDIA_CD in media.media_types and not media.inserted
        image = self._truth["image"]
        media.insert_media(image, username="me", password="secret")

        def inserted() -> bool:
            media.refresh(force=True)
            return bool(media.inserted)

        wait("medium inserted", inserted)
        assert (media.image, media.image_name) == (image, image.rpartition("/")[2])
        assert media.write_protected
        media.eject_media()
        media.refresh(force=True)
        assert not media.inserted and not media.image

    def bios(self) -> None:
        bios = self._system.bios
        assert (bios.attributes["BootMode"], bios.attributes["Tpm"]) == ("Legacy", "Disabled")
        assert [time.value for time in bios.supported_apply_times] == ["OnReset"]
        bios.set_attribute("BootMode", "Uefi")
        assert bios.pending_attributes["BootMode"] == "Uefi"
        registry = bios.get_attribute_registry()
        assert {entry.name for entry in registry.registry_entries.attributes} >= {"BootMode", "Tpm"}
        self._bios_after_power_cycle("Uefi")
        bios.reset_bios()
        self._bios_after_power_cycle("Legacy")

    def _bios_after_power_cycle(self, mode: str) -> None:
        bios = self._system.bios
        self._system.reset_system(sushy.RESET_TYPE_POWER_CYCLE)

        def changed() -> bool:
            bios.refresh(force=True)
            return bool(bios.attributes["BootMode"] == mode)

        wait(f"boot mode {mode}", changed)

    def chassis(self) -> None:
        (chassis,) = self._root.get_chassis_collection().get_members()
        chassis.reset_chassis(sushy.RESET_TYPE_FORCE_OFF)
        self._power(sushy.POWER_STATE_OFF)

    def update_service(self) -> None:
        inventory = self._root.get_update_service().firmware_inventory.get_members()
        assert {one.identity for one in inventory} == {"BMC", "BIOS"}
        assert all(one.version for one in inventory)

    def event_subscription(self) -> None:
        where = {"Destination": "http://127.0.0.1:9/", "Protocol": "Redfish", "Context": "sushy"}
        self._root.get_event_service().subscriptions.create(where).delete()

    def tasks(self) -> None:
        assert self._root.get_task_service().service_enabled
        assert self._root.get_task_service().tasks.members_identities

    def registries(self) -> None:
        assert "BiosAttributeRegistry.v1_0_0" in self._root.registries


def main() -> None:
    """Run all steps."""
    told = json.load(sys.stdin)
    warnings.simplefilter("ignore")  # sushy has warnings of its own about a certificate that it is not to verify
    acceptance = Acceptance(**told)
    steps = [name for name in vars(Acceptance) if not name.startswith("_")]
    for step in steps:
        began = time.monotonic()
        getattr(acceptance, step)()
        print(f"ok {step} {time.monotonic() - began:.1f} s", flush=True)
    print(len(steps), "steps", flush=True)


if __name__ == "__main__":
    main()
