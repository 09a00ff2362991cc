"""SEL, SDR, sensors and FRU (IPMI 2.0 chapters 31 to 35 and 43), byte by byte."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest
from fakes.machine import INVENTORY, FakeMachine
from hypothesis import given
from hypothesis import strategies as st
from ipmi_bench import GUEST, NOON, Bench, on_bench

from placematd.bmc.ipmi.commands.fru import contents
from placematd.bmc.ipmi.commands.sensors import ANALOGUE, Scale
from placematd.bmc.machine import Health, Watchdog
from placematd.bmc.sensors import BOOT, BOOT_RESTART, CPU_LOAD, INLET_TEMPERATURE, SEL, SEL_CLEARED, SENSORS, event
from placematd.errors import WrongState

EVENT = "20 00 04 22 02 6f 00 ff ff"
"""A SEL record from generator id on."""


async def record_of(bench: Bench, request: str) -> bytes:
    answer = bytes.fromhex(await bench.ask(request))
    assert answer[0] == 0, request
    return answer[1:]


# SEL


@on_bench
async def test_an_empty_log(bench: Bench) -> None:
    await bench.ask_all(
        "0a 40 -> 00 51 00 00 00 40 ff ff ff ff ff ff ff ff 03",
        "0a 41 -> 00 00 04 10 00 00 04 00 04 01",
        "0a 43 00 00 00 00 00 ff -> cb",
        "0a 43 00 00 ff ff 00 ff -> cb",
    )


@on_bench
async def test_entries_are_read_whole_and_in_parts(bench: Bench) -> None:
    for _ in range(3):
        await bench.machine.add_sel(bytes.fromhex("02" + EVENT), "an event")
    first, second, third = await bench.machine.sel()
    stamp = int(first.time.timestamp()).to_bytes(4, "little").hex(" ")
    whole = f"01 00 02 {stamp} {EVENT}"
    await bench.ask_all(
        f"0a 43 00 00 00 00 00 ff -> 00 02 00 {whole}",
        f"0a 43 00 00 01 00 00 10 -> 00 02 00 {whole}",
        "0a 43 00 00 02 00 00 02 -> 00 03 00 02 00",
        "0a 43 00 00 ff ff 00 02 -> 00 ff ff 03 00",
        "0a 43 00 00 04 00 00 ff -> cb",
        "0a 43 00 00 01 00 02 02 -> c5",
    )
    reservation = (await bench.ask("0a 42"))[3:]
    await bench.ask_all(
        f"0a 43 {reservation} 01 00 0a 06 -> 00 02 00 {EVENT[9:]}",
        f"0a 43 {reservation} 01 00 0a ff -> 00 02 00 {EVENT[9:]}",
        f"0a 43 {reservation} 01 00 0a 07 -> ca",
        f"0a 43 {reservation} 01 00 10 01 -> c9",
    )
    info = bytes.fromhex(await bench.ask("0a 40"))
    assert info[2:4] == b"\x03\0" and int.from_bytes(info[4:6], "little") == (1024 - 3) * 16
    assert int.from_bytes(info[6:10], "little") == int(third.time.timestamp())
    assert second.record_id == 2


@on_bench
async def test_what_others_do_to_the_log_is_seen(bench: Bench) -> None:
    await bench.machine.add_sel(bytes.fromhex("02" + EVENT), "an event")
    reservation = (await bench.ask("0a 42"))[3:]
    await bench.machine.add_sel(bytes.fromhex("02" + EVENT), "an event")
    await bench.ask_all("0a 43 00 00 02 00 00 02 -> 00 ff ff 02 00", "0a 43 00 00 ff ff 00 02 -> 00 ff ff 02 00")
    await bench.machine.clear_sel()
    for _ in range(2):
        await bench.machine.add_sel(bytes.fromhex("02" + EVENT), "an event")
    await bench.ask_all(f"0a 47 {reservation} 43 4c 52 aa -> c5", "0a 43 00 00 00 00 00 02 -> 00 02 00 01 00")
    await bench.ask_all("0a 43 00 00 03 00 00 02 -> cb")


@on_bench
async def test_entries_are_added_by_consoles_and_the_guest(bench: Bench) -> None:
    await bench.ask_all(f"0a 44 99 99 02 01 02 03 04 {EVENT} -> 00 01 00")
    await bench.ask_all("04 02 04 01 30 01 59 11 22 -> 00", "04 02 41 04 01 30 01 59 11 22 -> c7")
    await bench.ask_all("04 02 41 04 01 30 01 59 11 22 -> 00", "04 02 04 01 30 01 59 11 22 -> c7", by=GUEST)
    await bench.ask_all("0a 44 00 00 c1 00 00 00 00 01 02 03 04 05 06 07 08 09 -> 00 04 00")
    await bench.ask_all(f"0a 44 00 00 e0 00 00 00 00 {EVENT} -> cc", f"0a 44 00 00 03 00 00 00 00 {EVENT} -> cc")
    assert [(entry.data.hex(" "), entry.message) for entry in await bench.machine.sel()] == [
        (f"02 {EVENT}", "ACPI State: event 00h asserted (added over IPMI)"),
        ("02 81 00 04 01 30 01 59 11 22", "Sensor 30h of type 01h: event 09h asserted (added over IPMI)"),
        ("02 41 00 04 01 30 01 59 11 22", "Sensor 30h of type 01h: event 09h asserted (added over IPMI)"),
        ("c1 01 02 03 04 05 06 07 08 09", "OEM record C1h added over IPMI: 01 02 03 04 05 06 07 08 09"),
    ]


@on_bench
async def test_a_log_that_takes_no_more(bench: Bench) -> None:
    async def full(data: bytes, message: str, severity: str = "OK") -> int:
        raise WrongState("the log is full")

    bench.machine.add_sel = full  # type: ignore[method-assign]
    await bench.ask_all(f"0a 44 00 00 02 00 00 00 00 {EVENT} -> c4")


@on_bench
async def test_the_log_is_cleared_with_a_reservation_only(bench: Bench) -> None:
    await bench.machine.add_sel(bytes.fromhex("02" + EVENT), "an event")
    other = (await bench.ask("0a 42"))[3:]
    reservation = (await bench.ask("0a 42"))[3:]
    await bench.ask_all("0a 47 00 00 43 4c 52 aa -> c5", f"0a 47 {reservation} 43 4c 53 aa -> cc")
    await bench.ask_all(f"0a 47 {reservation} 43 4c 52 01 -> cc", f"0a 47 {reservation} 43 4c 52 00 -> 00 01")
    assert len(await bench.machine.sel()) == 1
    await bench.ask_all(f"0a 47 {reservation} 43 4c 52 aa -> 00 01", f"0a 47 {reservation} 43 4c 52 00 -> 00 01")
    assert await bench.machine.sel() == ()
    await bench.ask_all(
        f"0a 47 {other} 43 4c 52 aa -> c5",
        "0a 43 00 00 01 00 00 ff -> cb",
        "0a 46 00 00 01 00 -> c1",
    )


@on_bench
async def test_the_log_says_when_it_was_cleared_and_that_it_overflowed(bench: Bench) -> None:
    await bench.machine.add_sel(event(SEL, SEL_CLEARED), "The system event log was cleared")
    await bench.machine.add_sel(event(BOOT, BOOT_RESTART), "System restart")
    cleared, last = (int(entry.time.timestamp()).to_bytes(4, "little").hex(" ") for entry in await bench.machine.sel())
    await bench.ask_all(f"0a 40 -> 00 51 02 00 e0 3f {last} {cleared} 03", "04 2d 04 -> 00 00 c0 00 80")
    for _ in range(1022):
        await bench.machine.add_sel(event(BOOT, BOOT_RESTART), "System restart")
    assert (await bench.ask("0a 40"))[:17] + (await bench.ask("0a 40"))[-2:] == "00 51 00 04 00 00" + "83"
    await bench.ask_all("04 2d 04 -> 00 00 c0 10 80")


@on_bench
async def test_the_clock_keeps_what_it_was_set_to(bench: Bench) -> None:
    bench.now += 0.9
    noon, later = NOON.to_bytes(4, "little").hex(" "), (NOON + 100).to_bytes(4, "little").hex(" ")
    await bench.ask_all(f"0a 48 -> 00 {noon}", f"0a 49 {later} -> 00", f"0a 48 -> 00 {later}", f"0a 28 -> 00 {later}")
    bench.new_process()
    bench.now -= 100
    await bench.ask_all(f"0a 48 -> 00 {noon}")
    await bench.machine.add_sel(bytes.fromhex("02" + EVENT), "an event")
    stamp = int((await bench.machine.sel())[0].time.timestamp()) + 100
    assert (await record_of(bench, "0a 43 00 00 00 00 00 ff"))[5:9] == stamp.to_bytes(4, "little")


@on_bench
async def test_offset_from_utc(bench: Bench) -> None:
    await bench.ask_all("0a 5c -> 00 00 00", "0a 5d c4 ff -> 00")
    bench.new_process()
    await bench.ask_all("0a 5c -> 00 c4 ff", "0a 5d ff 07 -> 00", "0a 5c -> 00 ff 07", "0a 5d a1 05 -> cc")


# SDR


async def records(bench: Bench, command: str = "0a 23") -> list[bytes]:
    """All records, read whole."""
    found, following = [], "00 00"
    while following != "ff ff":
        answer = await record_of(bench, f"{command} 00 00 {following} 00 ff")
        following = answer[:2].hex(" ")
        found.append(answer[2:])
    return found


@on_bench
async def test_every_record_says_its_id_and_length(bench: Bench) -> None:
    found = await records(bench)
    assert [int.from_bytes(record[:2], "little") for record in found] == list(range(1, len(found) + 1))
    assert all(record[2] == 0x51 and record[4] == len(record) - 5 for record in found)
    assert await records(bench, "04 21") == found
    names = {record[7]: record for record in found if record[3] in (1, 2, 3)}
    assert names.keys() == {sensor.number for sensor in SENSORS}
    assert all(names[sensor.number].endswith(sensor.name.encode()) for sensor in SENSORS)
    info = bytes.fromhex(await bench.ask("0a 20"))
    assert info[1:6] == bytes((0x51, len(found), 0, 0, 0)) and info[6:10] == info[10:14] and info[14] == 0x03
    await bench.ask_all("04 20 -> 00 08 01", f"04 20 01 -> 00 {len(found):02x} 01")
    assert max(map(len, found)) <= 64
    await bench.ask_all(f"0a 21 -> 00 {len(found):02x} 00 40 00 00 00 00 00 01")


@on_bench
async def test_records_byte_by_byte(bench: Bench) -> None:
    controller, fru, inlet, *_ = await records(bench)
    assert controller.hex(" ") == f"01 00 51 12 17 20 00 00 8f 00 00 00 06 01 00 cc {b'placemat BMC'.hex(' ')}"
    assert fru.hex(" ") == f"02 00 51 11 17 20 00 80 00 00 10 00 07 01 00 cc {b'System Board'.hex(' ')}"
    assert inlet.hex(" ") == (
        "03 00 51 01 35 20 00 10 37 01 01 47 01 01 00 30 00 30 1b 00 80 01 00 00 05 00 00 00 00 f0 "
        "06 00 36 24 7f 80 00 5e 54 00 f2 06 00 00 00 00 00 ca " + b"Inlet Temp".hex(" ")
    )


@on_bench
async def test_records_are_read_in_parts_under_a_reservation(bench: Bench) -> None:
    whole = (await records(bench))[2]
    await bench.ask_all(f"0a 23 00 00 03 00 00 05 -> 00 04 00 {whole[:5].hex(' ')}", "0a 23 00 00 03 00 05 10 -> c5")
    reservation = (await bench.ask("0a 22"))[3:]
    await bench.ask("0a 22")  # somebody else's does not end it
    parts = b""
    for offset in range(0, len(whole), 7):
        parts += (await record_of(bench, f"0a 23 {reservation} 03 00 {offset:02x} 07"))[2:]
    assert parts == whole
    await bench.ask_all(
        f"0a 23 {reservation} 03 00 {len(whole):02x} 01 -> c9",
        "0a 23 00 00 63 00 00 ff -> cb",
        f"0a 23 00 00 ff ff 00 02 -> 00 ff ff {len(await records(bench)):02x} 00",
    )


# sensors


@on_bench
async def test_readings_while_on(bench: Bench) -> None:
    await bench.ask_all(
        "04 2d 10 -> 00 2e 40 c0",  # 23.0 degrees
        "04 2d 11 -> 00 19 40 c0",  # 12.5 %
        "04 2d 12 -> 00 32 40 c0",  # 25 %
        "04 2d 13 -> 00 0f 40 c0",  # 60 W
        "04 2d 01 -> 00 00 c0 00 80",
        "04 2d 02 -> 00 00 c0 01 80",
        "04 2d 03 -> 00 00 c0 00 80",
        "04 2d 04 -> 00 00 c0 00 80",
        "04 2d 05 -> cb",
        "04 2d 63 -> cb",
    )


def test_readings_while_off() -> None:
    async def scenario() -> None:
        async with Bench(FakeMachine("Off")) as bench:
            await bench.ask_all(
                "04 2d 10 -> 00 2e 40 c0",
                "04 2d 11 -> 00 00 60 c0",
                "04 2d 12 -> 00 00 60 c0",
                "04 2d 13 -> 00 00 40 c0",
                "04 2d 01 -> 00 00 c0 01 80",
                "04 2d 02 -> 00 00 c0 40 80",
            )

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("celsius", "raw", "reached"),
    [(-7, "f2", "c3"), (3, "06", "c1"), (42, "54", "c8"), (47, "5e", "d8"), (99, "7f", "d8")],
)
def test_thresholds_that_are_reached(celsius: float, raw: str, reached: str) -> None:
    class Room(FakeMachine):
        async def health(self) -> Health:
            return replace(await super().health(), inlet_celsius=celsius)

    async def scenario() -> None:
        async with Bench(Room("On")) as bench:
            await bench.ask_all(f"04 2d 10 -> 00 {raw} 40 {reached}")

    asyncio.run(scenario())


@on_bench
async def test_the_watchdog_sensor_shows_what_expired(bench: Bench) -> None:
    await bench.machine.set_watchdog(Watchdog(use=4, action="reset", flags=0x10))
    await bench.ask_all("04 2d 03 -> 00 00 c0 02 80", "04 2b 03 -> 00 c0 02 00 00 00")


@on_bench
async def test_what_is_known_of_sensors(bench: Bench) -> None:
    await bench.ask_all(
        "04 27 10 -> 00 1b 06 f2 00 54 5e 00",
        "04 27 11 -> 00 00 00 00 00 00 00 00",
        "04 27 01 -> cd",
        "04 27 63 -> cb",
        "04 23 10 00 -> 00 ff 05 00 00 00 00 f0",
        "04 23 01 00 -> cd",
        "04 29 10 -> 00 40",
        "04 29 01 -> 00 c0 03 00 00 00",
        "04 29 02 -> 00 c0 41 00 00 00",
        "04 29 03 -> 00 c0 0f 01 00 00",
        "04 29 04 -> 00 c0 14 00 00 00",
        "04 2b 02 -> 00 c0 01 00 00 00",
        "04 2f 11 -> 00 07 01",
        "04 2f 03 -> 00 23 6f",
        "04 2f 63 -> cb",
    )


@on_bench
async def test_nothing_about_a_sensor_can_be_changed(bench: Bench) -> None:
    await bench.ask_all(
        "04 26 10 08 00 00 00 50 00 00 -> cd",
        "04 26 63 08 00 00 00 50 00 00 -> cb",
        "04 24 10 ff 01 01 -> cd",
        "04 25 10 ff -> cd",
        "04 28 10 00 -> cd",
        "04 2a 10 00 -> cd",
        "04 2e 10 01 01 -> cd",
        "04 27 10 -> 00 1b 06 f2 00 54 5e 00",
        "04 10 -> 00 51 00 00",
        "04 13 05 00 00 -> 00 11 00",
        "04 13 07 00 00 -> 80",
        "04 12 05 00 -> c1",
    )


@given(st.sampled_from([analogue.scale for analogue in ANALOGUE.values()]), st.integers(0, 255))
def test_raw_values_are_exact(scale: Scale, raw: int) -> None:
    assert scale.raw(scale.value(raw)) == raw


def test_raw_values_end_where_a_byte_ends() -> None:
    load, inlet = ANALOGUE[CPU_LOAD.number].scale, ANALOGUE[INLET_TEMPERATURE.number].scale
    assert (load.raw(1e9), load.raw(-1), inlet.raw(-1e9), inlet.raw(1e9)) == (255, 0, 0x80, 0x7F)


# FRU


def areas(data: bytes) -> Iterator[tuple[bytes, list[bytes]]]:
    """The areas of a FRU and their fields, as the definition says; asserts checksums and ends."""
    assert data[0] == 1 and sum(data[:8]) % 256 == 0
    for offset, head in zip(data[2:5], (3, 6, 3), strict=True):
        area = data[offset * 8 :][: data[offset * 8 + 1] * 8]
        assert area[0] == 1 and sum(area) % 256 == 0
        fields, at = [], head
        while area[at] != 0xC1:
            assert area[at] >> 6 == 3
            fields.append(area[at + 1 : at + 1 + (area[at] & 0x3F)])
            at += 1 + (area[at] & 0x3F)
        assert not any(area[at + 1 : -1])
        yield area[:head], fields


def test_the_fru_is_what_smbios_shows() -> None:
    (chassis, chassis_fields), (board, board_fields), (product, product_fields) = areas(contents(INVENTORY))
    assert (chassis[2], board[2:], product[2]) == (0x17, bytes((25, 0, 0, 0)), 25)
    assert chassis_fields == [b"", b"1234abcd"]
    assert board_fields == [b"cybozu", b"mk2", b"1234abcd", b"", b""]
    assert product_fields == [b"cybozu", b"mk2", b"", b"", b"1234abcd", b"", b""]


@pytest.mark.parametrize(
    ("text", "stored"),
    [("Größe", "Größe".encode("latin-1")), ("機械", b"??"), ("x", b"x\0"), ("y" * 70, b"y" * 63), ("", b"")],
)
def test_strings_that_do_not_fit(text: str, stored: bytes) -> None:
    *_, (_, fields) = areas(contents(replace(INVENTORY, manufacturer=text, product=text, serial=text)))
    assert (fields[0], fields[1], fields[4]) == (stored, stored, stored)


@on_bench
async def test_the_fru_is_read_in_parts_and_not_written(bench: Bench) -> None:
    data = contents(INVENTORY)
    await bench.ask_all(f"0a 10 00 -> 00 {len(data):02x} 00 00", "0a 10 01 -> cb", "0a 11 01 00 00 08 -> cb")
    read = b""
    for offset in range(0, len(data), 20):
        part = await record_of(bench, f"0a 11 00 {offset:02x} 00 14")
        assert part[0] == len(part) - 1
        read += part[1:]
    assert read == data
    await bench.ask_all(f"0a 11 00 {len(data):02x} 00 01 -> c9", "0a 12 00 00 00 01 -> 80")
