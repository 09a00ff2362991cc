"""What Ironic does with a machine, through sushy (OpenStack's Redfish client), step by step.

    python3 tests/integration/inside_sushy.py https://127.0.0.1:8443 USER PASSWORD

Prints a line for each step and "N steps" at the end; a step that fails ends with its traceback.
"""

import sys
import time
import warnings
from collections.abc import Callable

import sushy
from sushy import auth

SECONDS = 30
IMAGE = "http://172.16.0.1/images/boot.iso"


def wait(what: str, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"not in {SECONDS} s: {what}"
        time.sleep(0.1)


class Acceptance:
    """Each method without an underscore is a step; they run in the order in which they are written."""

    def __init__(self, url: str, user: str, password: str) -> None:
        login = auth.SessionAuth(username=user, password=password)
        self._root = sushy.Sushy(url, verify=False, auth=login)
        self._system = self._root.get_system(self._root.get_system_collection().members_identities[0])
        self._manager = self._root.get_manager(self._root.get_manager_collection().members_identities[0])

    def _power(self, state: object) -> None:
        def holds() -> bool:
            self._system.refresh()
            return bool(self._system.power_state == state)

        wait(f"power {state}", holds)

    def session(self) -> None:
        service = self._root.get_session_service()
        assert service.service_enabled
        assert service.sessions.get_members()

    def identity(self) -> None:
        assert self._system.uuid == "d1f5a1f0-5b3c-4c1e-9d3a-0123456789ab"
        assert self._system.identity == "System.Embedded.1"
        assert (self._system.manufacturer, self._system.serial_number) == ("cybozu", "1234abcd")
        assert self._system.bios_version

    def links(self) -> None:
        assert [one.identity for one in self._system.managers] == ["BMC"]
        assert [one.identity for one in self._system.chassis] == ["System.Embedded.1"]
        assert self._manager.systems[0].uuid == self._system.uuid

    def processors_and_memory(self) -> None:
        assert self._system.memory_summary.size_gib == 2
        assert self._system.processors.summary.count == 2
        assert str(self._system.processors.summary.architecture.value) == "x86"

    def macs(self) -> None:
        macs = self._system.ethernet_interfaces.summary
        assert set(macs) == {"52:54:00:00:00:01", "52:54:00:00:00:02"}, macs
        assert all(state == sushy.STATE_ENABLED for state in macs.values())

    def simple_storage(self) -> None:
        assert self._system.simple_storage.disks_sizes_bytes == [1 << 20, 10 << 30]

    def storage(self) -> None:
        (unit,) = self._system.storage.get_members()
        assert unit.drives_sizes_bytes == [1 << 20, 10 << 30]
        assert {volume.raid_type.value for volume in unit.volumes.get_members()} == {"None"}
        assert unit.controllers.get_members()[0].identity

    def power_actions(self) -> None:
        allowed = self._system.get_allowed_reset_system_values()
        assert len(allowed) == 9, allowed
        for action, state in (
            (sushy.RESET_TYPE_ON, sushy.POWER_STATE_ON),
            (sushy.RESET_TYPE_FORCE_RESTART, sushy.POWER_STATE_ON),
            (sushy.RESET_TYPE_NMI, sushy.POWER_STATE_ON),
            (sushy.RESET_TYPE_GRACEFUL_SHUTDOWN, sushy.POWER_STATE_OFF),
            (sushy.RESET_TYPE_FORCE_ON, sushy.POWER_STATE_ON),
            (sushy.RESET_TYPE_GRACEFUL_RESTART, sushy.POWER_STATE_ON),
            (sushy.RESET_TYPE_FORCE_OFF, sushy.POWER_STATE_OFF),
            (sushy.RESET_TYPE_PUSH_POWER_BUTTON, sushy.POWER_STATE_ON),
            (sushy.RESET_TYPE_POWER_CYCLE, sushy.POWER_STATE_ON),
            (sushy.RESET_TYPE_FORCE_OFF, sushy.POWER_STATE_OFF),
        ):
            self._system.reset_system(action)
            self._power(state)

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
            sushy.BOOT_SOURCE_TARGET_PXE, enabled=sushy.BOOT_SOURCE_ENABLED_ONCE, mode=sushy.BOOT_SOURCE_MODE_UEFI
        )
        self._system.refresh()
        boot = self._system.boot
        assert (boot.target, boot.enabled) == (sushy.BOOT_SOURCE_TARGET_PXE, sushy.BOOT_SOURCE_ENABLED_ONCE)
        assert boot.mode == sushy.BOOT_SOURCE_MODE_UEFI
        self._system.reset_system(sushy.RESET_TYPE_ON)
        self._power(sushy.POWER_STATE_ON)
        assert self._system.boot.enabled == sushy.BOOT_SOURCE_ENABLED_DISABLED

    def boot_from_the_disk_for_ever(self) -> None:
        self._system.set_system_boot_options(sushy.BOOT_SOURCE_TARGET_HDD, enabled=sushy.BOOT_SOURCE_ENABLED_CONTINUOUS)
        self._system.reset_system(sushy.RESET_TYPE_FORCE_RESTART)
        self._power(sushy.POWER_STATE_ON)
        assert self._system.boot.enabled == sushy.BOOT_SOURCE_ENABLED_CONTINUOUS
        self._system.set_system_boot_options(enabled=sushy.BOOT_SOURCE_ENABLED_DISABLED)
        self._system.refresh()
        assert self._system.boot.enabled == sushy.BOOT_SOURCE_ENABLED_DISABLED

    def virtual_media_of_system_and_manager(self) -> None:
        (of_manager,) = self._manager.virtual_media.get_members()
        (media,) = self._system.virtual_media.get_members()
        assert media.path == of_manager.path
        assert sushy.VIRTUAL_MEDIA_CD in media.media_types and not media.inserted
        media.insert_media(IMAGE, username="me", password="secret")

        def inserted() -> bool:
            media.refresh(force=True)
            return bool(media.inserted)

        wait("medium inserted", inserted)
        assert (media.image, media.image_name) == (IMAGE, "boot.iso")
        assert media.write_protected
        media.eject_media()
        media.refresh(force=True)
        assert not media.inserted and not media.image

    def bios(self) -> None:
        bios = self._system.bios
        assert bios.attributes == {"BootMode": "Legacy", "Tpm": "Enabled"}
        assert [time.value for time in bios.supported_apply_times] == ["OnReset"]
        bios.set_attribute("BootMode", "Uefi")
        assert bios.pending_attributes["BootMode"] == "Uefi"
        registry = bios.get_attribute_registry()
        assert {entry.name for entry in registry.registry_entries.attributes} == {"BootMode", "Tpm"}
        self._system.reset_system(sushy.RESET_TYPE_POWER_CYCLE)
        bios.refresh(force=True)
        assert bios.attributes["BootMode"] == "Uefi"
        bios.reset_bios()
        self._system.reset_system(sushy.RESET_TYPE_POWER_CYCLE)
        bios.refresh(force=True)
        assert bios.attributes["BootMode"] == "Legacy"

    def chassis(self) -> None:
        (chassis,) = self._root.get_chassis_collection().get_members()
        chassis.reset_chassis(sushy.RESET_TYPE_FORCE_OFF)
        self._power(sushy.POWER_STATE_OFF)

    def update_service(self) -> None:
        inventory = self._root.get_update_service().firmware_inventory.get_members()
        assert {one.identity for one in inventory} == {"BMC", "BIOS"}
        assert all(one.version for one in inventory)

    def tasks(self) -> None:
        assert self._root.get_task_service().service_enabled
        assert self._root.get_task_service().tasks.members_identities

    def registries(self) -> None:
        assert "BiosAttributeRegistry.v1_0_0" in self._root.registries


def main() -> None:
    url, user, password = sys.argv[1:]
    warnings.simplefilter("ignore")  # the certificate is nobody's
    acceptance = Acceptance(url, user, password)
    steps = [name for name in vars(Acceptance) if not name.startswith("_")]
    for step in steps:
        getattr(acceptance, step)()
        print("ok", step, flush=True)
    print(len(steps), "steps", flush=True)


if __name__ == "__main__":
    main()
