"""What `Machine` promises, asked of the fake that the tests of BMCs use and of the baseboard itself."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from baseboard_node import new_node, settled
from fakes.machine import FakeMachine

from placematd.baseboard import override
from placematd.bmc.machine import BootOverride, Firmware, FirmwareOffer, Machine, PowerAction, Watchdog
from placematd.errors import NotFound, PlacematError, WrongState

Scenario = Callable[[Machine], Awaitable[None]]


async def on_the_fake(directory: Path, scenario: Scenario) -> None:
    await scenario(FakeMachine())


async def on_the_baseboard(directory: Path, scenario: Scenario) -> None:
    node = await new_node(directory)
    try:
        await scenario(node.baseboard)
        await settled(node)
    finally:
        await node.baseboard.close()


@pytest.fixture(params=[on_the_fake, on_the_baseboard])
def run(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Scenario], None]:
    monkeypatch.setattr(override, "FIRMWARE_SECONDS", 0.0)
    return lambda scenario: asyncio.run(asyncio.wait_for(request.param(tmp_path, scenario), 20))


def test_power(run: Callable[[Scenario], None]) -> None:
    async def scenario(machine: Machine) -> None:
        assert await machine.power_state() == "Off"
        actions: tuple[PowerAction, ...] = ("reset", "soft-reset", "nmi")
        for action in actions:
            with pytest.raises(WrongState):
                await machine.power(action)
        idle: tuple[PowerAction, ...] = ("off", "soft-off")
        for action in idle:
            await machine.power(action)
        assert await machine.power_state() == "Off"
        await machine.power("cycle")
        await machine.power("on")
        assert await machine.power_state() == "On"
        assert await machine.restart_cause() == "chassis-control"
        await machine.power("nmi")
        await machine.power("reset", "watchdog")
        assert await machine.restart_cause() == "watchdog"
        assert (await machine.health()).power_watts > 0
        await machine.power("off")
        assert await machine.power_state() == "Off"
        assert (await machine.health()).power_watts == 0

    run(scenario)


def test_boot_override(run: Callable[[Scenario], None]) -> None:
    async def scenario(machine: Machine) -> None:
        once = BootOverride(enabled="Once", target="Pxe", mode="UEFI")
        await machine.set_boot(once)
        assert await machine.boot() == once
        await machine.power("on")
        assert await machine.boot() == BootOverride()
        always = BootOverride(enabled="Continuous", target="Hdd")
        await machine.set_boot(always)
        await machine.power("reset")
        await machine.power("cycle")
        assert await machine.boot() == always
        await machine.set_boot(BootOverride())
        assert await machine.boot() == BootOverride()

    run(scenario)


def test_log(run: Callable[[Scenario], None]) -> None:
    async def scenario(machine: Machine) -> None:
        await machine.power("on")
        before = await machine.sel()
        assert before
        number = await machine.add_sel(bytes(range(10)), "hello", "Warning")
        assert number == before[-1].record_id + 1
        entry = (await machine.sel())[-1]
        assert (entry.record_id, entry.data, entry.message, entry.severity) == (
            number,
            bytes(range(10)),
            "hello",
            "Warning",
        )
        await machine.clear_sel()
        assert "hello" not in [entry.message for entry in await machine.sel()]
        assert await machine.add_sel(bytes(10), "new") <= 2

    run(scenario)


def test_watchdog(run: Callable[[Scenario], None]) -> None:
    async def scenario(machine: Machine) -> None:
        await machine.power("on")
        await machine.set_watchdog(Watchdog(running=True, use=3, action="cycle", initial=2, present=2))
        while (await machine.watchdog()).running:
            await asyncio.sleep(0.01)
        watchdog = await machine.watchdog()
        assert (watchdog.flags, watchdog.present, watchdog.initial) == (8, 0, 2)
        while await machine.power_state() != "On" or await machine.restart_cause() != "watchdog":
            await asyncio.sleep(0.01)

    run(scenario)


def test_firmware(run: Callable[[Scenario], None]) -> None:
    new = Firmware(boot_mode="UEFI", tpm=False, secure_boot=True)

    async def scenario(machine: Machine) -> None:
        await machine.power("on")
        old = (await machine.firmware())[0]
        await machine.set_firmware(new)
        assert await machine.firmware() == (
            old,
            new,
            FirmwareOffer(boot_modes=("Legacy", "UEFI"), secure_boot=True),
        )
        await machine.power("cycle")
        assert (await machine.firmware())[:2] == (new, new)
        inventory = await machine.inventory()
        assert (inventory.boot_mode, inventory.secure_boot) == ("UEFI", True)
        await machine.power("off")
        await machine.set_firmware(old)
        assert (await machine.firmware())[:2] == (old, old)

    run(scenario)


def test_media_sections_and_events(run: Callable[[Scenario], None]) -> None:
    async def scenario(machine: Machine) -> None:
        events = machine.events()
        for slot in ("Usb", ""):
            with pytest.raises(NotFound):
                await machine.eject_media(slot)
        with pytest.raises(PlacematError):
            await anext(machine.insert_media("Cd", "ftp://example.org/x.iso"))
        await machine.eject_media("Cd")
        (medium,) = await machine.media()
        assert (medium.slot, medium.inserted, medium.image) == ("Cd", False, "")

        assert await machine.load("lan") == {}
        await machine.save("lan", {"a": [1]})
        (await machine.load("lan"))["a"].append(2)
        assert await machine.load("lan") == {"a": [1]}

        await machine.set_boot(BootOverride(enabled="Once", target="Cd"))
        event = await anext(events)
        assert (event.kind, event.value) == ("boot", "Cd")

    run(scenario)
