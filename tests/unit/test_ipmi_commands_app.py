"""Commands about the BMC, its users, its channels and its address (IPMI 2.0 chapters 20, 22 and 23), byte by byte."""

import asyncio
from dataclasses import replace
from uuid import UUID

import pytest
from fakes.machine import INVENTORY, LIMITS, FakeMachine
from ipmi_bench import GUEST, NOBODY, Bench, caller, on_bench

from placematd.bmc.ipmi.request import Privilege
from placematd.bmc.machine import Limits


def hexadecimal(text: str, length: int) -> str:
    return text.encode().ljust(length, b"\0").hex(" ")


# the BMC


@on_bench
async def test_device_id_has_15_bytes(bench: Bench) -> None:
    await bench.ask_all("06 01 -> 00 20 81 03 00 02 8f 00 00 00 00 00 00 00 00 00", "06 04 -> 00 55 00")


@on_bench
async def test_both_guids_are_the_uuid_of_smbios_backwards(bench: Bench) -> None:
    backwards = UUID(bytes=bytes.fromhex((await bench.ask("06 37", NOBODY))[3:])[::-1])
    assert backwards == INVENTORY.uuid
    assert await bench.ask("06 08") == await bench.ask("06 37")


@on_bench
async def test_resets_are_done_after_the_answer(bench: Bench) -> None:
    reply = await bench.reply("06 02")
    assert reply.code == 0 and bench.resets == [] and reply.after
    await reply.after()
    await bench.ask_all("06 03 -> 00")
    assert bench.resets == [True, False]


@on_bench
async def test_acpi_power_state_is_what_is_and_not_what_is_told(bench: Bench) -> None:
    await bench.ask_all("06 07 -> 00 00 00", "06 06 80 80 -> 00", "06 06 00 00 -> 00", "06 06 83 00 -> cc")
    await bench.machine.power("off")
    await bench.ask_all("06 07 -> 00 05 00", "06 06 80 00 -> cc", "06 06 85 83 -> cc", "06 06 85 80 -> 00")


@on_bench
async def test_what_the_driver_of_the_guest_asks(bench: Bench) -> None:
    await bench.ask_all(
        "06 2f -> 00 08",
        "06 2e 09 -> 00",
        "06 2f -> 00 09",
        "06 2e 0d -> cc",
        "06 2e 01 -> cc",
        "06 2f -> 00 09",
        "06 31 -> 00 00",
        "06 30 0b -> 00",
        "06 33 -> 80",
        "06 35 -> 80",
        "06 57 01 -> 00 00 00 ff",
        "06 57 00 -> cc",
        by=GUEST,
    )


@on_bench
async def test_system_info_says_what_is_known_and_keeps_what_is_written(bench: Bench) -> None:
    name, version = hexadecimal("worker-1", 14), INVENTORY.bios_version
    await bench.ask_all(
        f"06 59 00 02 00 00 -> 00 11 00 00 08 {name}",
        f"06 59 00 01 00 00 -> 00 11 00 00 {len(version):02x} {hexadecimal(version[:14], 14)}",
        f"06 59 00 01 01 00 -> 00 11 01 {hexadecimal(version[14:], 16)}",
        "06 59 00 01 02 00 -> c9",
        "06 59 80 02 00 00 -> 00 11",
        "06 59 00 00 00 00 -> 00 11 00",
        f"06 59 00 04 00 00 -> 00 11 00 {hexadecimal('', 16)}",
        "06 59 00 08 00 00 -> 80",
        f"06 58 04 00 00 11 {hexadecimal('Debian GNU/Lin', 14)} -> 00",
        f"06 58 04 01 {hexadecimal('ux', 3)} -> 00",
    )
    bench.new_process()
    await bench.ask_all(
        f"06 59 00 04 00 00 -> 00 11 00 00 11 {hexadecimal('Debian GNU/Lin', 14)}",
        f"06 59 00 04 01 00 -> 00 11 01 {hexadecimal('ux', 16)}",
        "06 59 00 04 02 00 -> c9",
        "06 58 04 10 00 -> c9",
        "06 58 04 00 -> c7",
        "06 58 09 00 00 -> 80",
        "06 58 00 01 -> 00",
        "06 59 00 00 00 00 -> 00 11 01",
    )


# channels


@on_bench
async def test_channels(bench: Bench) -> None:
    lan, system = "00 01 04 01 80 f2 1b 00 00 00", "00 0f 0c 05 00 f2 1b 00 ff ff"
    await bench.ask_all(f"06 42 01 -> {lan}", f"06 42 0e -> {lan}", f"06 42 0f -> {system}")
    assert await bench.ask("06 42 0e", GUEST) == system
    for missing in (0, *range(2, 0xE)):
        assert await bench.ask(bytes((0x06, 0x42, missing))) == "cc"


@on_bench
async def test_the_lan_is_always_available_and_stays_so(bench: Bench) -> None:
    await bench.ask_all(
        "06 41 01 40 -> 00 22 04",
        "06 41 01 80 -> 00 22 04",
        "06 41 01 00 -> cc",
        "06 41 0f 40 -> 82",
        "06 40 01 62 44 -> 00",
        "06 40 01 a2 84 -> 00",
        "06 40 01 00 00 -> 00",
        "06 40 01 60 44 -> cc",
        "06 40 01 62 43 -> cc",
        "06 40 0f 62 44 -> 82",
    )


# users


@on_bench
async def test_a_user_is_named_then_given_a_password_then_enabled(bench: Bench) -> None:
    await bench.ask_all(
        "06 44 01 05 -> 00 0f 81 01 0f",
        f"06 46 05 -> 00 {hexadecimal('', 16)}",
        "06 47 05 01 -> cc",
        f"06 47 05 02 {hexadecimal('secret', 16)} -> cc",
        "06 43 91 05 03 -> cc",
        f"06 45 05 {hexadecimal('bob', 16)} -> 00",
        f"06 46 05 -> 00 {hexadecimal('bob', 16)}",
        "06 44 01 05 -> 00 0f 81 01 12",
        "06 47 05 01 -> cc",
        f"06 47 05 02 {hexadecimal('secret', 16)} -> 00",
        "06 43 91 05 03 -> 00",
        "06 47 05 01 -> 00",
        "06 44 01 05 -> 00 0f 42 01 13",
        f"06 47 05 03 {hexadecimal('secret', 16)} -> 00",
        f"06 47 05 03 {hexadecimal('Secret', 16)} -> 80",
        f"06 47 85 03 {hexadecimal('secret', 20)} -> 00",
        "06 47 05 00 -> 00",
        "06 44 01 05 -> 00 0f 81 01 13",
    )
    bob = bench.accounts.by_name("bob")
    assert bob and (bob.slot, bob.role, bob.password, bob.enabled) == (5, "Operator", "secret", False)


@on_bench
async def test_passwords_have_two_lengths(bench: Bench) -> None:
    long, short = "12345678901234567890", "1234567890123456"
    await bench.ask_all(
        f"06 47 82 02 {hexadecimal(long, 20)} -> 00",
        f"06 47 82 03 {hexadecimal(long, 20)} -> 00",
        f"06 47 02 03 {hexadecimal(short, 16)} -> 81",
        f"06 47 02 02 {hexadecimal(long, 20)} -> c7",
        f"06 47 82 02 {hexadecimal(short, 16)} -> c7",
        "06 47 02 02 -> c7",
        f"06 47 02 02 {hexadecimal('', 16)} -> cc",
        f"06 47 02 02 ff fe {hexadecimal('', 14)} -> cc",
        f"06 47 02 02 61 00 62 {hexadecimal('', 13)} -> cc",
    )
    assert bench.accounts.verify("admin", long, "ipmi")


@on_bench
async def test_access_of_a_user_is_the_role_of_the_account(bench: Bench) -> None:
    await bench.accounts.create(name="bob", password="secret", role="ReadOnly", slot=3)
    await bench.ask_all(
        "06 44 01 03 -> 00 0f 42 01 12",
        "06 43 01 03 04 -> 00",
        "06 44 01 03 -> 00 0f 42 01 14",
        "06 43 81 03 03 -> 00",
        "06 44 01 03 -> 00 0f 42 01 03",
        "06 43 91 03 03 00 -> 00",
        "06 44 01 03 -> 00 0f 42 01 13",
        "06 43 91 03 0f -> 00",
        "06 44 01 03 -> 00 0f 42 01 03",
        "06 43 91 03 01 -> cc",
        "06 43 91 03 05 -> cc",
        "06 43 91 03 03 02 -> cc",
        "06 43 92 03 03 -> cc",
        "06 44 01 00 -> cc",
        "06 44 01 10 -> cc",
        "06 43 01 06 0f -> 00",
        "06 47 06 00 -> 00",
    )


@on_bench
async def test_names(bench: Bench) -> None:
    await bench.accounts.create(name="bob", password="secret", role="ReadOnly", slot=3)
    full = hexadecimal("sixteen-letters!", 16)
    await bench.ask_all(
        f"06 45 04 {hexadecimal('bob', 16)} -> cc",
        f"06 45 03 {hexadecimal('bob', 16)} -> 00",
        f"06 45 03 {full} -> 00",
        f"06 46 03 -> 00 {full}",
        f"06 45 01 {hexadecimal('root', 16)} -> cc",
        f"06 45 01 {hexadecimal('', 16)} -> 00",
        f"06 45 04 ff fe {hexadecimal('', 14)} -> cc",
        f"06 45 03 {hexadecimal('', 16)} -> 00",
        f"06 46 03 -> 00 {hexadecimal('', 16)}",
    )
    assert [account.name for account in bench.accounts.all()] == ["admin"]


@on_bench
async def test_the_last_administrator_stays(bench: Bench) -> None:
    await bench.ask_all("06 47 02 00 -> d5", "06 43 91 02 02 -> d5", f"06 45 02 {hexadecimal('', 16)} -> d5")
    assert bench.accounts.verify("admin", "secret", "ipmi")


@on_bench
async def test_who_may_see_and_change_users(bench: Bench) -> None:
    await bench.ask_all("06 44 01 02 -> d4", "06 46 02 -> d4", by=caller(Privilege.USER))
    await bench.ask_all("06 44 01 02 -> 00 0f 41 01 14", "06 47 02 00 -> d4", by=caller(Privilege.OPERATOR))


# LAN


@on_bench
async def test_lan_parameters(bench: Bench) -> None:
    zeros = "00 00 00 00 00 00 00 00 00 00 00 00 00 00"
    expected = {
        0: "00",
        1: "00",
        2: "00 00 00 00 00",
        3: "7f 00 00 01",
        4: "01",
        5: "52 54 00 00 00 fe",
        6: "ff 00 00 00",
        8: "6f 02",
        10: "02",
        12: "00 00 00 00",
        20: "00 00",
        22: "02",
        23: f"00 03 11 {zeros}",
        24: "00 44 00 00 00 00 00 00 00",
        50: "01",
        51: "00",
        55: "01 00 00",
        56: f"00 00 {zeros} 00 00 00 01",
    }
    for parameter, value in expected.items():
        assert await bench.ask(bytes((0x0C, 0x02, 0x01, parameter, 0, 0))) == f"00 11 {value}"
    await bench.ask_all(
        "0c 02 0e 03 00 00 -> 00 11 7f 00 00 01",
        "0c 02 81 03 00 00 -> 00 11",
        "0c 02 81 63 00 00 -> 80",
        "0c 02 01 10 00 00 -> 80",
        "0c 02 0f 03 00 00 -> cc",
        "0c 02 02 03 00 00 -> cc",
        "0c 02 01 38 01 00 -> c9",
    )


@on_bench
async def test_the_address_cannot_be_set(bench: Bench) -> None:
    await bench.ask_all(
        "0c 01 01 03 0a 00 00 01 -> 82",
        "0c 01 01 04 02 -> 82",
        "0c 01 01 10 00 -> 80",
        "0c 01 0f 03 0a 00 00 01 -> cc",
        "0c 01 01 00 01 -> 00",
        "0c 02 01 00 00 00 -> 00 11 01",
        "0c 01 01 00 00 -> 00",
        "0c 01 01 00 02 -> cc",
    )


NETWORKS = [
    (Limits(address="10.0.0.2", network="10.0.0.2/22", mac="02:00:00:00:00:01"), "0a 00 00 02", "ff ff fc 00"),
    (Limits(), "00 00 00 00", "00 00 00 00"),
    (Limits(address="fd00::2", network="fd00::2/64"), "00 00 00 00", "00 00 00 00"),
]


@pytest.mark.parametrize(("limits", "address", "mask"), NETWORKS)
def test_the_address_is_what_the_limits_say(limits: Limits, address: str, mask: str) -> None:
    async def scenario() -> None:
        async with Bench(FakeMachine("On", limits=limits)) as bench:
            await bench.ask_all(f"0c 02 01 03 00 00 -> 00 11 {address}", f"0c 02 01 06 00 00 -> 00 11 {mask}")

    asyncio.run(scenario())


def test_an_address_of_ipv6() -> None:
    async def scenario() -> None:
        limits = replace(LIMITS, address="fd00::2", network="fd00::2/64")
        async with Bench(FakeMachine("On", limits=limits)) as bench:
            address = "fd 00 00 00 00 00 00 00 00 00 00 00 00 00 00 02"
            await bench.ask_all("0c 02 01 33 00 00 -> 00 11 01", f"0c 02 01 38 00 00 -> 00 11 00 80 {address} 40 00")

    asyncio.run(scenario())
