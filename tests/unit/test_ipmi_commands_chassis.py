"""Chassis commands, boot options and the watchdog, byte by byte (IPMI 2.0 chapters 27 and 28)."""

import asyncio

import pytest
from fakes.machine import FakeMachine
from ipmi_bench import GUEST, Bench, caller, on_bench

from placematd.bmc.ipmi.request import Privilege
from placematd.bmc.machine import BootOverride, Watchdog

CONTROL = {0: "off", 1: "on", 2: "cycle", 3: "reset", 4: "nmi", 5: "soft-off"}
PXE_ONCE = BootOverride(enabled="Once", target="Pxe")


@pytest.mark.parametrize(("value", "action"), CONTROL.items())
def test_chassis_control_answers_first_and_acts_after(value: int, action: str) -> None:
    async def scenario() -> None:
        async with Bench() as bench:
            reply = await bench.reply(bytes((0x00, 0x02, value)))
            assert reply.code == 0 and reply.after and bench.machine.actions == []
            await reply.after()
            assert bench.machine.actions == [("power", action, "chassis-control")]

    asyncio.run(scenario())


def test_what_cannot_be_done_to_a_machine_that_is_off_is_refused() -> None:
    async def scenario() -> None:
        async with Bench(FakeMachine("Off")) as bench:
            for value, code in {0: "00", 2: "d5", 3: "d5", 4: "d5", 5: "d5"}.items():
                assert await bench.ask(bytes((0x00, 0x02, value))) == code
            assert bench.machine.actions == [("power", "off", "chassis-control")]
            await bench.ask_all("00 01 -> 00 40 00 40 00", "00 02 01 -> 00", "00 01 -> 00 41 10 40 00")
            assert await bench.machine.power_state() == "On"

    asyncio.run(scenario())


@on_bench
async def test_chassis_control_that_there_is_not(bench: Bench) -> None:
    await bench.ask_all("00 02 06 -> cc", "00 02 0f -> cc", "00 02 11 -> cc")
    assert await bench.ask("00 02 00", caller(Privilege.USER)) == "d4"
    assert bench.machine.actions == []


@on_bench
async def test_what_the_chassis_is(bench: Bench) -> None:
    await bench.ask_all("00 00 -> 00 04 20 20 20 20 20", "00 01 -> 00 41 00 40 00", "00 0f -> 00 3c 00 00 00 00")


@on_bench
async def test_restart_cause_tells_the_channel_of_chassis_control(bench: Bench) -> None:
    await bench.ask_all("00 07 -> 00 00 00", "00 02 03 -> 00", "00 07 -> 00 01 01")
    assert await bench.ask("00 02 03", GUEST) == "00"
    await bench.ask_all("00 07 -> 00 01 0f")
    await bench.machine.power("reset", "watchdog")
    await bench.ask_all("00 07 -> 00 04 00")


@on_bench
async def test_identify(bench: Bench) -> None:
    await bench.ask_all("00 04 -> 00", "00 01 -> 00 41 00 50 00", "00 04 00 -> 00", "00 01 -> 00 41 00 40 00")
    await bench.ask_all("00 04 05 01 -> 00", "00 01 -> 00 41 00 60 00", "00 04 00 00 -> 00", "00 01 -> 00 41 00 40 00")
    assert bench.machine.actions == [("identify", seconds) for seconds in (15, 0, None, 0)]


@on_bench
async def test_the_restore_policy_is_kept(bench: Bench) -> None:
    for policy, bits in {0: "01", 1: "21", 2: "41"}.items():
        assert await bench.ask(bytes((0x00, 0x06, policy))) == "00 07"
        bench.new_process()
        await bench.ask_all("00 06 03 -> 00 07", f"00 01 -> 00 {bits} 00 40 00", "00 06 04 -> cc")


# boot flags

BOOT = [
    ("80 04", BootOverride(enabled="Once", target="Pxe")),
    ("80 08", BootOverride(enabled="Once", target="Hdd")),
    ("80 14", BootOverride(enabled="Once", target="Cd")),
    ("c0 04", BootOverride(enabled="Continuous", target="Pxe")),
    ("a0 08", BootOverride(enabled="Once", target="Hdd", mode="UEFI")),
    ("e0 14", BootOverride(enabled="Continuous", target="Cd", mode="UEFI")),
    ("a0 00", BootOverride(enabled="Once", target="None", mode="UEFI")),
]


@pytest.mark.parametrize(("flags", "override"), BOOT)
def test_boot_flags_steer_the_boot_and_read_back(flags: str, override: BootOverride) -> None:
    async def scenario() -> None:
        async with Bench() as bench:
            await bench.ask_all(f"00 08 05 {flags} 00 00 00 -> 00", f"00 09 05 00 00 -> 00 01 05 {flags} 00 00 00")
            assert await bench.machine.boot() == override
            assert await bench.ask("00 02 03") == "00"
            assert bench.machine.starts == [(override.target, override.mode or "Legacy")]
            left = f"{flags} 00 00 00" if override.enabled == "Continuous" else "00 00 00 00 00"
            await bench.ask_all(f"00 09 05 00 00 -> 00 01 05 {left}")

    asyncio.run(scenario())


@pytest.mark.parametrize("flags", ["00 04", "80 00", "c0 00", "00 00"])
def test_boot_flags_that_say_nothing_clear_the_override(flags: str) -> None:
    async def scenario() -> None:
        async with Bench() as bench:
            await bench.machine.set_boot(PXE_ONCE)
            await bench.ask_all(f"00 08 05 {flags} 00 00 00 -> 00", "00 09 05 00 00 -> 00 01 05 00 00 00 00 00")
            assert await bench.machine.boot() == BootOverride()

    asyncio.run(scenario())


REFUSED = {
    "hard disk in safe mode": "80 0c 00 00 00",
    "diagnostic partition": "80 10 00 00 00",
    "BIOS setup": "80 18 00 00 00",
    "remote floppy": "80 1c 00 00 00",
    "floppy": "80 3c 00 00 00",
    "CMOS clear": "80 84 00 00 00",
    "keyboard lock": "80 44 00 00 00",
    "reset button lock": "80 05 00 00 00",
    "verbose BIOS": "80 04 40 00 00",
    "mux control": "80 04 00 01 00",
    "device instance": "80 04 00 00 01",
    "reserved bits": "81 04 00 00 00",
}


@pytest.mark.parametrize("flags", REFUSED.values(), ids=REFUSED.keys())
def test_boot_flags_that_would_not_come_true_are_refused(flags: str) -> None:
    async def scenario() -> None:
        async with Bench() as bench:
            await bench.machine.set_boot(PXE_ONCE)
            assert await bench.ask(f"00 08 05 {flags}") == "cc"
            assert await bench.machine.boot() == PXE_ONCE

    asyncio.run(scenario())


@on_bench
async def test_the_other_boot_parameters(bench: Bench) -> None:
    await bench.ask_all(
        "00 09 00 00 00 -> 00 01 00 00",
        "00 08 00 01 -> 00",
        "00 09 00 00 00 -> 00 01 00 01",
        "00 08 00 02 -> 00",
        "00 08 00 00 -> 00",
        "00 09 00 00 00 -> 00 01 00 00",
        "00 08 01 00 -> 00",
        "00 08 01 01 -> cc",
        "00 09 02 00 00 -> 00 01 02 00",
        "00 08 03 08 -> 00",
        "00 09 03 00 00 -> 00 01 03 08",
        "00 08 03 20 -> cc",
        "00 08 04 01 01 -> 00",
        "00 08 04 1e 10 -> 00",
        "00 09 04 00 00 -> 00 01 04 00 11",
        "00 08 06 01 02 00 00 00 03 00 00 00 -> 00",
        "00 09 06 00 00 -> 00 01 06 01 02 00 00 00 03 00 00 00",
        "00 08 07 01 aa bb -> 00",
        "00 09 07 01 00 -> 00 01 07 01 aa bb" + " 00" * 14,
        "00 09 07 04 00 -> 00 01 07 04" + " 00" * 16,
        "00 09 07 05 00 -> c9",
        "00 09 08 00 00 -> 80",
        "00 08 08 00 -> 80",
        "00 08 85 -> cc",
        "00 08 05 -> 00",
        "00 08 05 80 04 00 00 -> c7",
    )


@on_bench
async def test_two_consoles_do_not_set_boot_parameters_at_once(bench: Bench) -> None:
    other = caller(Privilege.ADMINISTRATOR, session_id=8)
    await bench.ask_all("00 08 00 01 -> 00")
    await bench.ask_all("00 08 00 01 -> 81", "00 09 00 00 00 -> 00 01 00 01", "00 08 00 00 -> 00", by=other)
    await bench.ask_all("00 08 00 01 -> 00", by=other)


@on_bench
async def test_boot_flags_expire_without_chassis_control(bench: Bench) -> None:
    await bench.ask_all("00 08 05 80 04 00 00 00 -> 00")
    assert bench.commands.waiting
    bench.now += 61
    bench.new_process()
    assert bench.machine.durable["ipmi"], "the deadline outlives the process"
    await bench.commands.resume()
    await expired(bench)
    await bench.ask_all("00 09 05 00 00 -> 00 01 05 00 00 00 00 00")
    assert await bench.machine.boot() == BootOverride() and not bench.machine.durable["ipmi"]


@on_bench
async def test_boot_flags_wait_after_chassis_control_or_when_told_to(bench: Bench) -> None:
    await bench.ask_all("00 08 05 80 04 00 00 00 -> 00", "00 02 04 -> 00")
    assert not bench.commands.waiting
    bench.now += 61
    await bench.new_process().resume()
    assert not bench.commands.waiting and await bench.machine.boot() == PXE_ONCE
    await bench.ask_all("00 08 03 08 -> 00", "00 08 05 80 08 00 00 00 -> 00")
    assert not bench.commands.waiting


@on_bench
async def test_persistent_boot_flags_and_those_of_others_do_not_expire(bench: Bench) -> None:
    await bench.ask_all("00 08 05 c0 04 00 00 00 -> 00")
    assert not bench.commands.waiting
    await bench.ask_all("00 08 05 80 04 00 00 00 -> 00")
    set_over_redfish = BootOverride(enabled="Once", target="Cd")
    await bench.machine.set_boot(set_over_redfish)
    bench.now += 61
    bench.new_process()
    await bench.commands.resume()
    await expired(bench)
    assert await bench.machine.boot() == set_over_redfish


async def expired(bench: Bench) -> None:
    """Let a deadline that is over do its work."""
    async with asyncio.timeout(5):
        while bench.commands.waiting:
            await asyncio.sleep(0)


def test_boot_flags_for_firmware_that_the_host_has_not() -> None:
    async def scenario() -> None:
        async with Bench(FakeMachine("On", modes=("Legacy",))) as bench:
            assert await bench.ask("00 08 05 a0 04 00 00 00") == "d5"

    asyncio.run(scenario())


# watchdog


@on_bench
async def test_the_watchdog(bench: Bench) -> None:
    await bench.ask_all("06 25 -> 00 00 00 00 00 00 00 00 00", "06 22 -> 80")
    await bench.ask_all("06 24 04 23 05 3e 2c 01 -> 00", "06 25 -> 00 04 23 05 00 2c 01 2c 01")
    set_up = Watchdog(use=4, action="cycle", pre_timeout_seconds=5, pre_timeout_action="nmi", initial=300, present=300)
    assert bench.machine.actions == [("set_watchdog", set_up)]
    await bench.ask_all("06 22 -> 00")
    assert (await bench.machine.watchdog()).running
    assert (await bench.ask("06 25")).startswith("00 44 23 05 00 2c 01 ")
    await bench.ask_all("06 24 c1 00 00 00 64 00 -> 00")
    shown = await bench.ask("06 25")
    assert shown.startswith("00 c1 00 00 00 64 00 "), "don't stop: it runs on, without logging"
    await bench.ask_all("06 24 01 00 00 00 64 00 -> 00", "06 25 -> 00 01 00 00 00 64 00 64 00")


@on_bench
async def test_expiration_flags_are_cleared_by_writing_ones(bench: Bench) -> None:
    await bench.machine.set_watchdog(Watchdog(use=4, flags=0x14))
    await bench.ask_all("06 25 -> 00 04 00 00 14 00 00 00 00", "06 24 04 00 00 10 00 00 -> 00")
    await bench.ask_all("06 25 -> 00 04 00 00 04 00 00 00 00")


BAD_WATCHDOGS = {
    "no use": "00 00 00 00 64 00",
    "reserved use": "06 00 00 00 64 00",
    "reserved action": "04 04 00 00 64 00",
    "SMI": "04 10 01 00 64 00",
    "messaging interrupt": "04 30 01 00 64 00",
    "pre-timeout before the start": "04 20 0b 00 64 00",
}


@pytest.mark.parametrize("data", BAD_WATCHDOGS.values(), ids=BAD_WATCHDOGS.keys())
def test_watchdogs_that_are_refused(data: str) -> None:
    async def scenario() -> None:
        async with Bench() as bench:
            assert await bench.ask(f"06 24 {data}") == "cc"
            assert bench.machine.actions == []

    asyncio.run(scenario())
