"""The baseboard on a node of the test's own: what a boot uses up, what is logged, what is remembered."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from baseboard_node import IDENTITY, FakeNode, new_node, settled

from placematd.baseboard import override, power
from placematd.bmc import sensors
from placematd.bmc.machine import BootOverride, Firmware, FirmwareOffer, Machine, PowerAction, Watchdog
from placematd.bmc.sensors import Sensor
from placematd.errors import PlacematError, StepError, WrongState

PXE = ("nic0", "nic1", "disk0", "cd0")
OWN = ("disk0", "cd0", "nic0", "nic1")
LEGACY, UEFI = Firmware(boot_mode="Legacy", tpm=False), Firmware(boot_mode="UEFI", tpm=False)
SECURE = Firmware(boot_mode="UEFI", tpm=False, secure_boot=True)


@pytest.fixture(autouse=True)
def quick_guests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guests here reset as often as they like, and their firmware does not."""
    monkeypatch.setattr(override, "FIRMWARE_SECONDS", 0.0)


def run(directory: Path, scenario: Callable[[FakeNode], Awaitable[None]]) -> FakeNode:
    async def live() -> FakeNode:
        node = await new_node(directory)
        machine: Machine = node.baseboard
        assert machine is node.baseboard
        try:
            await scenario(node)
            await settled(node)
        finally:
            await node.baseboard.close()
        return node

    return asyncio.run(asyncio.wait_for(live(), 20))


async def logged(node: FakeNode) -> list[tuple[int, int]]:
    """(sensor number, offset) of each entry."""
    return [(entry.data[5], entry.data[7] & 15) for entry in await node.baseboard.sel()]


def at(sensor: Sensor, offset: int) -> tuple[int, int]:
    return sensor.number, offset


# -- boot override ----------------------------------------------------------------------------------------------------


def test_once_is_used_up_by_a_start_and_the_order_put_back(tmp_path: Path) -> None:
    async def scenario(node: FakeNode) -> None:
        board = node.baseboard
        await board.set_boot(BootOverride(enabled="Once", target="Pxe"))
        assert (await board.boot()).target == "Pxe"
        await board.power("on")
        assert await board.boot() == BootOverride()
        await board.power("reset")
        await settled(node)

    node = run(tmp_path, scenario)
    assert [told for told, _ in node.boots] == [PXE, ()]


@pytest.mark.parametrize("by_guest", [True, False])
def test_once_set_while_on_counts_for_the_next_reset_whoever_causes_it(tmp_path: Path, by_guest: bool) -> None:
    async def scenario(node: FakeNode) -> None:
        await node.baseboard.power("on")
        await node.baseboard.set_boot(BootOverride(enabled="Once", target="Cd"))
        for _ in range(2):
            node.reset(guest=by_guest)
            assert await node.baseboard.boot() == BootOverride()
            await settled(node)

    node = run(tmp_path, scenario)
    assert [told[:1] for told, _ in node.boots] == [(), ("cd0",), ()]


def test_continuous_stays_until_it_is_disabled(tmp_path: Path) -> None:
    async def scenario(node: FakeNode) -> None:
        await node.baseboard.set_boot(BootOverride(enabled="Continuous", target="Pxe"))
        await node.baseboard.power("on")
        node.reset(guest=True)
        await settled(node)
        await node.baseboard.power("cycle")
        await node.baseboard.set_boot(BootOverride())
        node.reset(guest=True)

    node = run(tmp_path, scenario)
    assert [told for told, _ in node.boots] == [PXE, PXE, PXE, ()]


def test_uefi_is_told_an_order_for_ever_after_an_override(tmp_path: Path) -> None:
    """OVMF keeps what it was told in its variables."""

    async def scenario(node: FakeNode) -> None:
        await node.baseboard.set_firmware(UEFI)
        await node.baseboard.power("on")
        await node.baseboard.set_boot(BootOverride(enabled="Once", target="Pxe"))
        node.reset(guest=True)
        await settled(node)
        node.reset(guest=True)
        await node.baseboard.power("cycle")

    node = run(tmp_path, scenario)
    assert node.boots == [((), UEFI), (PXE, UEFI), (OWN, UEFI), (OWN, UEFI)]


def test_an_override_with_another_firmware_makes_the_reset_off_and_on(tmp_path: Path) -> None:
    async def scenario(node: FakeNode) -> None:
        await node.baseboard.power("on")
        await node.baseboard.set_boot(BootOverride(enabled="Once", target="Cd", mode="UEFI"))
        node.reset(guest=True)
        await settled(node)
        assert await node.baseboard.boot() == BootOverride()
        assert (await node.baseboard.inventory()).boot_mode == "UEFI"
        assert (await node.baseboard.firmware())[0] == LEGACY
        await node.baseboard.power("reset")

    node = run(tmp_path, scenario)
    cd = ("cd0", "disk0", "nic0", "nic1")
    assert node.boots == [((), LEGACY), ((), LEGACY), (cd, UEFI), ((), LEGACY)]
    # The second is the guest's own reset, cut short.


def test_resets_of_the_firmware_itself_belong_to_the_boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SeaBIOS resets the machine several times before it boots."""
    monkeypatch.setattr(override, "FIRMWARE_SECONDS", 0.2)

    async def scenario(node: FakeNode) -> None:
        board = node.baseboard
        await board.set_boot(BootOverride(enabled="Once", target="Pxe"))
        await board.power("on")
        node.reset(guest=True)
        assert await board.restart_cause() == "chassis-control"
        await board.power("reset")  # somebody else's, however soon
        node.reset(guest=True)
        assert [told for told, _ in node.boots] == [PXE, PXE, (), ()]
        assert len([entry for entry in await board.sel() if "restart" in entry.message]) == 2

        await board.set_boot(BootOverride(enabled="Once", target="Pxe"))
        await asyncio.sleep(0.21)
        node.reset(guest=True)
        node.reset(guest=True)
        assert await board.boot() == BootOverride()
        await asyncio.sleep(0.25)
        node.reset(guest=True)
        assert [told for told, _ in node.boots[4:]] == [PXE, PXE, ()]

    run(tmp_path, scenario)


def test_an_override_that_came_after_the_reset_is_not_used_up(tmp_path: Path) -> None:
    async def scenario(node: FakeNode) -> None:
        await node.baseboard.power("on")
        await node.baseboard.set_boot(BootOverride(enabled="Once", target="Pxe"))
        node.event("RESET", timestamp=1.0, guest=True)
        assert (await node.baseboard.boot()).target == "Pxe"

    run(tmp_path, scenario)


def test_an_override_that_qemu_refuses_does_not_count(tmp_path: Path) -> None:
    async def scenario(node: FakeNode) -> None:
        await node.baseboard.power("on")
        node.monitor.refuses = "qom-set"
        with pytest.raises(StepError, match="refused"):
            await node.baseboard.set_boot(BootOverride(enabled="Once", target="Pxe"))
        assert await node.baseboard.boot() == BootOverride()
        node.monitor.refuses = ""

    run(tmp_path, scenario)


def test_what_the_node_cannot_boot_from_is_refused(tmp_path: Path) -> None:
    async def scenario(node: FakeNode) -> None:
        board = node.baseboard
        board.identity = replace(
            IDENTITY, offer=FirmwareOffer(boot_modes=("Legacy",)), devices=replace(IDENTITY.devices, nics=())
        )
        with pytest.raises(WrongState, match="no UEFI firmware"):
            await board.set_boot(BootOverride(enabled="Once", target="Hdd", mode="UEFI"))
        with pytest.raises(WrongState, match="no device for boot target Pxe"):
            await board.set_boot(BootOverride(enabled="Once", target="Pxe"))
        with pytest.raises(WrongState, match="no UEFI firmware"):
            await board.set_firmware(UEFI)
        with pytest.raises(WrongState, match="needs the boot mode UEFI"):
            await board.set_firmware(replace(LEGACY, secure_boot=True))
        board.identity = replace(IDENTITY, offer=FirmwareOffer(boot_modes=("Legacy", "UEFI")))
        with pytest.raises(WrongState, match="no UEFI variables with keys for Secure Boot"):
            await board.set_firmware(SECURE)
        assert (await board.firmware())[:2] == (LEGACY, LEGACY)

    run(tmp_path, scenario)


# -- firmware ---------------------------------------------------------------------------------------------------------


def test_firmware_settings_wait_for_the_next_start(tmp_path: Path) -> None:
    new = Firmware(boot_mode="UEFI", tpm=True)

    async def scenario(node: FakeNode) -> None:
        board = node.baseboard
        await board.power("on")
        await board.set_firmware(new)
        assert (await board.firmware())[:2] == (LEGACY, new)
        await board.power("reset")
        await settled(node)
        assert (await board.firmware())[:2] == (new, new)
        assert (await board.inventory()).tpm
        await board.power("off")
        await board.set_firmware(LEGACY)
        assert (await board.firmware())[:2] == (LEGACY, LEGACY)

    node = run(tmp_path, scenario)
    assert [firmware for _, firmware in node.boots] == [LEGACY, new]


# -- power ------------------------------------------------------------------------------------------------------------


def test_power_actions_and_what_they_leave_in_the_log(tmp_path: Path) -> None:
    async def scenario(node: FakeNode) -> None:
        board = node.baseboard
        await board.power("off")
        await board.power("on")
        await board.power("on")
        assert await board.restart_cause() == "chassis-control"
        await board.power("nmi")
        assert node.monitor.commands == ["inject-nmi"]
        await board.power("soft-off")
        assert node.monitor.commands == ["inject-nmi", "system_powerdown"]
        node.guest_powers_off()
        assert await board.power_state() == "Off"
        assert await logged(node) == [
            at(sensors.ACPI_POWER_STATE, sensors.ACPI_WORKING),
            at(sensors.BOOT, sensors.BOOT_RESTART),
            at(sensors.CRITICAL_INTERRUPT, sensors.NMI_DIAGNOSTIC),
            at(sensors.BUTTON, sensors.BUTTON_POWER),
            at(sensors.ACPI_POWER_STATE, sensors.ACPI_SOFT_OFF),
        ]
        entries = await board.sel()
        assert entries[1].data.hex(" ") == "02 20 00 04 1d 05 6f c7 01 ff"  # restart cause: chassis control
        assert entries[-1].message == "Power off (by its operating system)"

    assert len(run(tmp_path, scenario).boots) == 1


def test_the_log_says_who_switched_it_off(tmp_path: Path) -> None:
    async def scenario(node: FakeNode) -> None:
        board = node.baseboard
        for reason in ("switched off through placemat", ""):
            await board.power("on")
            if reason:
                board.expect_off(reason)
            node.turn("Off")
        await board.power("on")
        await board.cluster_stops()
        await board.cluster_stops()
        node.turn("Off")
        assert [entry.message for entry in await board.sel() if entry.message.startswith("Power off")] == [
            "Power off (switched off through placemat)",
            "Power off (unexpected, or while placematd was away)",
            "Power off (the cluster was stopped)",
        ]

    run(tmp_path, scenario)


@pytest.mark.parametrize("action", ["reset", "soft-reset", "nmi"])
def test_what_needs_power_is_refused_without(tmp_path: Path, action: PowerAction) -> None:
    async def scenario(node: FakeNode) -> None:
        with pytest.raises(WrongState, match="worker-1 is off"):
            await node.baseboard.power(action)

    run(tmp_path, scenario)


def test_a_start_that_fails_at_once_is_told(tmp_path: Path) -> None:
    async def scenario(node: FakeNode) -> None:
        node.fails = True
        with pytest.raises(StepError, match="QEMU ended at once"):
            await node.baseboard.power("on")
        node.fails = False
        await node.start()
        assert await node.baseboard.restart_cause() == "unknown"

    run(tmp_path, scenario)


def test_soft_reset_starts_the_node_again(tmp_path: Path) -> None:
    async def scenario(node: FakeNode) -> None:
        await node.baseboard.power("on")
        await node.baseboard.power("soft-reset", "soft-reset")
        node.guest_powers_off()
        await settled(node)
        while node.power != "On":
            await asyncio.sleep(0.001)
        assert await node.baseboard.restart_cause() == "soft-reset"

    assert len(run(tmp_path, scenario).boots) == 2


def test_a_guest_that_ignores_a_soft_reset_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(power, "SOFT_RESET_SECONDS", 0.01)

    async def scenario(node: FakeNode) -> None:
        await node.baseboard.power("on")
        await node.baseboard.power("soft-reset")
        await asyncio.sleep(0.05)
        assert node.power == "On"
        node.guest_powers_off()  # much later: nobody waits for it any more
        await asyncio.sleep(0.02)
        assert node.power == "Off"

    run(tmp_path, scenario)


def test_switching_off_takes_a_soft_reset_back(tmp_path: Path) -> None:
    async def scenario(node: FakeNode) -> None:
        await node.baseboard.power("on")
        await node.baseboard.power("soft-reset")
        await node.baseboard.power("off")
        await asyncio.sleep(0.02)
        assert node.power == "Off"

    run(tmp_path, scenario)


def test_actions_go_one_after_the_other_and_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(power, "BEGIN_SECONDS", 0.01)

    async def scenario(node: FakeNode) -> None:
        go_on = asyncio.Event()

        async def hold() -> None:
            await go_on.wait()

        node.hold = hold
        for _ in range(power.WAITING):
            await node.baseboard.power("cycle")
        with pytest.raises(WrongState, match="busy"):
            await node.baseboard.power("off")
        go_on.set()
        await settled(node)
        assert node.power == "On"

    assert len(run(tmp_path, scenario).boots) == power.WAITING


# -- watchdog ---------------------------------------------------------------------------------------------------------

SHORT = Watchdog(running=True, use=4, action="reset", initial=3, present=3)


def test_watchdog_resets_the_node_and_says_so(tmp_path: Path) -> None:
    async def scenario(node: FakeNode) -> None:
        board = node.baseboard
        await board.power("on")
        await board.set_watchdog(SHORT)
        assert 0 < (await board.watchdog()).present <= 3
        while (await board.watchdog()).running:
            await asyncio.sleep(0.01)
        await settled(node)
        assert await board.restart_cause() == "watchdog"
        watchdog = await board.watchdog()
        assert (watchdog.flags, watchdog.present) == (1 << 4, 0)
        assert [entry.data.hex(" ") for entry in await board.sel() if entry.data[4] == 0x23] == [
            "02 20 00 04 23 03 6f c1 04 ff"
        ]

    assert len(run(tmp_path, scenario).boots) == 2


def test_watchdog_warns_by_nmi_and_is_quiet_if_asked(tmp_path: Path) -> None:
    watchdog = replace(SHORT, initial=12, present=12, pre_timeout_seconds=1, pre_timeout_action="nmi", action="off")

    async def scenario(node: FakeNode) -> None:
        board = node.baseboard
        await board.power("on")
        await board.set_watchdog(replace(watchdog, dont_log=True))
        while node.power == "On":
            await asyncio.sleep(0.01)
        assert node.monitor.commands == ["inject-nmi"]
        assert sensors.WATCHDOG2.number not in {number for number, _ in await logged(node)}
        assert not (await board.watchdog()).dont_log

    run(tmp_path, scenario)


def test_watchdog_stops_when_the_node_goes_off(tmp_path: Path) -> None:
    async def scenario(node: FakeNode) -> None:
        await node.baseboard.power("on")
        await node.baseboard.set_watchdog(replace(SHORT, initial=600, present=600))
        await node.baseboard.power("off")
        assert not (await node.baseboard.watchdog()).running

    run(tmp_path, scenario)


def test_watchdog_goes_on_under_the_next_placematd(tmp_path: Path) -> None:
    async def scenario() -> None:
        before = await new_node(tmp_path)
        await before.baseboard.power("on")
        await before.baseboard.set_watchdog(replace(SHORT, initial=6000, present=5000))
        await before.baseboard.close()

        after = await new_node(tmp_path)
        after.power = "On"
        await after.baseboard.adopted(after.monitor)
        watchdog = await after.baseboard.watchdog()
        assert watchdog.running
        assert 4900 < watchdog.present <= 5000
        assert len(await after.baseboard.sel()) == 2  # nothing happened to the node
        await after.baseboard.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(("ends", "expected"), [(1.0, 100), (9e9, 600)])
def test_a_watchdog_whose_clock_was_set_is_sane(tmp_path: Path, ends: float, expected: int) -> None:
    """Long past: its guest gets time to say that it lives. Far away: no longer than it was set to."""

    async def scenario() -> None:
        before = await new_node(tmp_path)
        await before.baseboard.power("on")
        await before.baseboard.set_watchdog(replace(SHORT, initial=600, present=600))
        await before.baseboard.close()
        stored: dict[str, Any] = json.loads(before.path.read_text())
        before.path.write_text(json.dumps(stored | {"watchdog_ends": ends}))

        after = await new_node(tmp_path)
        after.power = "On"
        await after.baseboard.adopted(after.monitor)
        assert (await after.baseboard.watchdog()).present == pytest.approx(expected, abs=2)
        await after.baseboard.close()

    asyncio.run(scenario())


def test_a_boot_with_a_bios_is_one_without_secure_boot(tmp_path: Path) -> None:
    async def scenario(node: FakeNode) -> None:
        board = node.baseboard
        await board.set_firmware(SECURE)
        await board.power("on")
        await board.set_boot(BootOverride(enabled="Once", target="Hdd", mode="Legacy"))
        for seen in (LEGACY, SECURE):
            await board.power("reset")
            await settled(node)
            inventory = await board.inventory()
            assert (inventory.boot_mode, inventory.secure_boot) == (seen.boot_mode, seen.secure_boot)
            assert (await board.firmware())[:2] == (SECURE, SECURE)

        # An override to UEFI does not turn on what the settings do not have.
        await board.set_firmware(LEGACY)
        await board.set_boot(BootOverride(enabled="Once", target="Hdd", mode="UEFI"))
        await board.power("cycle")

    node = run(tmp_path, scenario)
    assert [firmware for _, firmware in node.boots] == [SECURE, LEGACY, SECURE, UEFI]


# -- what is remembered, and told -------------------------------------------------------------------------------------


def test_what_was_acknowledged_outlives_placematd(tmp_path: Path) -> None:
    async def scenario() -> None:
        before = await new_node(tmp_path)
        board = before.baseboard
        await board.set_boot(BootOverride(enabled="Continuous", target="Hdd", mode="UEFI"))
        await board.set_firmware(Firmware(boot_mode="UEFI", tpm=True))
        await board.save("accounts", {"users": [{"name": "é"}]})
        await board.add_sel(bytes(range(10)), "from outside", "Critical")

        board = (await new_node(tmp_path)).baseboard  # the one before was killed
        assert await board.boot() == BootOverride(enabled="Continuous", target="Hdd", mode="UEFI")
        assert (await board.firmware())[0] == Firmware(boot_mode="UEFI", tpm=True)
        assert await board.load("accounts") == {"users": [{"name": "é"}]}
        assert await board.load("never") == {}
        (entry,) = await board.sel()
        assert (entry.record_id, entry.data, entry.severity) == (1, bytes(range(10)), "Critical")

    asyncio.run(scenario())


def test_a_node_that_went_off_while_placematd_was_away(tmp_path: Path) -> None:
    async def scenario() -> None:
        before = await new_node(tmp_path)
        await before.baseboard.power("on")
        await before.baseboard.close()
        after = await new_node(tmp_path)
        after.baseboard.on_power("Off")
        after.baseboard.on_power("Off")
        await settled(after)
        assert (await logged(after))[2:] == [at(sensors.ACPI_POWER_STATE, sensors.ACPI_SOFT_OFF)]
        await after.baseboard.close()

    asyncio.run(scenario())


def test_events_reach_each_listener_and_a_slow_one_loses_the_oldest(tmp_path: Path) -> None:
    async def scenario(node: FakeNode) -> None:
        board = node.baseboard
        quick, slow = board.events(), board.events()
        await board.set_boot(BootOverride(enabled="Once", target="Pxe"))
        assert (await anext(quick)).value == "Pxe"
        for number in range(300):
            board._tell("sel", str(number))
        assert (await anext(slow)).value == str(300 - 256)

    run(tmp_path, scenario)


def test_identify_power_on_hours_and_health(tmp_path: Path) -> None:
    async def scenario(node: FakeNode) -> None:
        board = node.baseboard
        off = await board.health()
        assert (off.cpu_load_percent, off.memory_used_mib, off.power_watts) == (0, 0, 0)
        assert 20 < off.inlet_celsius < 30
        await board.power("on")
        on = await board.health()
        assert 0 <= on.cpu_load_percent <= 100
        assert 0 < on.memory_used_mib <= 512
        assert on.power_watts > 40
        assert 0 < await board.power_on_hours() < 0.01

        await board.identify(None)
        assert await board.identifying()
        await board.identify(0)
        assert not await board.identifying()

    run(tmp_path, scenario)


def test_a_panic_of_the_guest_is_logged(tmp_path: Path) -> None:
    async def scenario(node: FakeNode) -> None:
        await node.baseboard.power("on")
        node.event("GUEST_PANICKED", action="pause")
        assert (await node.baseboard.sel())[-1].severity == "Critical"

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("section", "value"), [("../x", {}), ("a" * 40, {}), ("ok", {"x": float("nan")}), ("ok", {"x": "y" * (300 << 10)})]
)
def test_sections_are_bounded(tmp_path: Path, section: str, value: dict[str, object]) -> None:
    async def scenario(node: FakeNode) -> None:
        with pytest.raises(PlacematError, match="section"):
            await node.baseboard.save(section, value)

    run(tmp_path, scenario)
