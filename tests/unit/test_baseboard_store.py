"""The durable state of a baseboard, and its event log."""

import asyncio
import json
import stat
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from placematd.baseboard import sel, store
from placematd.baseboard.sel import EventLog
from placematd.baseboard.store import State, Store, StoredMedia
from placematd.bmc import sensors
from placematd.bmc.machine import BootOverride, Firmware, SelEntry, Watchdog
from placematd.errors import PlacematError, StepError

ENTRY = SelEntry(
    record_id=7, time=datetime(2026, 1, 2, 3, 4, 5, 6, UTC), data=bytes(10), message="é", severity="Warning"
)
FULL = State(
    boot=BootOverride(enabled="Once", target="Pxe", mode="UEFI"),
    disordered=True,
    restart_cause="watchdog",
    sel=(ENTRY,),
    sel_last=7,
    sel_full=True,
    watchdog=Watchdog(running=True, use=4, action="cycle", initial=100, present=90, flags=16),
    watchdog_ends=1e9,
    power_on_seconds=12.5,
    counted_at=1e9,
    running=Firmware(boot_mode="UEFI", tpm=True),
    chosen=Firmware(boot_mode="Legacy", tpm=False),
    pending=Firmware(boot_mode="UEFI", tpm=True, secure_boot=True),
    media={"Cd": StoredMedia(image="http://x/y.iso", path="/z", downloaded=True)},
    sections={"accounts": {"users": [1, {"a": None}]}},
)


@pytest.mark.parametrize("state", [State(), FULL])
def test_what_is_written_is_what_is_read(tmp_path: Path, state: State) -> None:
    path = tmp_path / "bmc" / "n.json"

    async def main() -> None:
        kept = await Store.open(path)
        kept.state = state
        await kept.commit()
        assert (await Store.open(path)).state == state

    asyncio.run(main())
    if state is FULL:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert [file.name for file in path.parent.iterdir()] == ["n.json"]


WHOLE = json.loads(store.encode(FULL))


def test_firmware_that_was_written_before_there_was_secure_boot() -> None:
    old = WHOLE | {"pending": {"boot_mode": "UEFI", "tpm": True}}
    assert store.decode(json.dumps(old).encode()).pending == Firmware(boot_mode="UEFI", tpm=True)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b"[" * 100_000,
        json.dumps(WHOLE).encode()[:-20],
        json.dumps(WHOLE | {"format": 2}).encode(),
        json.dumps(WHOLE | {"boot": {"enabled": "Sometimes"}}).encode(),
        json.dumps(WHOLE | {"sel": [[1, "2026-01-01T00:00:00+00:00", "00", "x", "OK"]]}).encode(),
        json.dumps(WHOLE | {"watchdog": None}).encode(),
        json.dumps(WHOLE | {"watchdog": {"initial": "x"}}).encode(),
    ],
)
def test_a_damaged_file_is_set_aside(tmp_path: Path, text: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "n.json"
    path.write_bytes(text)
    assert store.read(path) == State()
    assert (tmp_path / "n.json.damaged").read_bytes() == text
    assert "begun anew" in caplog.text


def test_fields_of_a_later_version_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "n.json"
    path.write_text(json.dumps(WHOLE | {"boot": WHOLE["boot"] | {"new": 1}, "newer": 2}))
    assert store.read(path) == FULL


def test_a_disk_that_refuses_is_an_error_and_the_next_commit_tries_again(tmp_path: Path) -> None:
    path = tmp_path / "file" / "n.json"
    path.parent.write_text("in the way")

    async def main() -> None:
        kept = await Store.open(tmp_path / "none" / "n.json")
        kept.path = path
        kept.change(restart_cause="watchdog")
        with pytest.raises(StepError, match=r"write .*n\.json"):
            await kept.commit()
        path.parent.unlink()
        await kept.commit()
        assert store.read(path).restart_cause == "watchdog"

    asyncio.run(main())


def test_many_commits_are_few_writes_and_none_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    real = store._write
    monkeypatch.setattr(store, "_write", lambda path, text: (written.append(text), real(path, text)))

    async def main() -> None:
        kept = await Store.open(tmp_path / "n.json")

        async def save(number: int) -> None:
            kept.set_section(f"s{number}", {"n": number})
            await kept.commit()
            assert store.read(kept.path).sections[f"s{number}"] == {"n": number}

        await asyncio.gather(*(save(number) for number in range(30)))

    asyncio.run(main())
    assert len(written) <= 3


def test_a_cancelled_commit_never_brings_an_older_state_back(tmp_path: Path) -> None:
    async def main() -> None:
        kept = await Store.open(tmp_path / "n.json")
        for number in range(50):
            kept.set_section("s", {"n": number})
            task = asyncio.create_task(kept.commit())
            await asyncio.sleep(0)
            task.cancel()
        kept.set_section("s", {"n": 50})
        await kept.commit()
        await asyncio.get_running_loop().shutdown_default_executor()
        assert store.read(kept.path).sections["s"] == {"n": 50}

    asyncio.run(main())


def test_no_more_sections_than_fit(tmp_path: Path) -> None:
    kept = Store(tmp_path / "n.json", State())
    for number in range(store.SECTIONS):
        kept.set_section(f"s{number}", {})
    kept.set_section("s0", {"again": True})
    with pytest.raises(PlacematError, match="more than 32 sections"):
        kept.set_section("one-more", {})


# -- the log ----------------------------------------------------------------------------------------------------------


def test_the_log_is_bounded_and_says_so_once(tmp_path: Path) -> None:
    kept = Store(tmp_path / "n.json", State())
    told: list[int] = []
    log = EventLog(kept, told.append)
    for number in range(sel.ENTRIES + 5):
        log.add(bytes(10), str(number), "OK")
    entries = kept.state.sel
    assert len(entries) == sel.ENTRIES
    assert [entry.record_id for entry in entries] == list(range(7, sel.ENTRIES + 7))
    assert [entry.message for entry in entries if entry.data[5] == sensors.SEL.number] == [
        "The system event log is full; its oldest entries are dropped from now on"
    ]
    assert told == list(range(1, sel.ENTRIES + 7))
    log.clear()
    assert [(entry.record_id, entry.data[7]) for entry in kept.state.sel] == [(1, sensors.SEL_CLEARED)]


def test_record_ids_begin_again_before_the_reserved_ones(tmp_path: Path) -> None:
    kept = Store(tmp_path / "n.json", replace(State(), sel_last=sel.LAST_RECORD_ID - 1))
    log = EventLog(kept, lambda _: None)
    assert [log.add(bytes(10), "", "OK") for _ in range(3)] == [0xFFFE, 1, 2]


@pytest.mark.parametrize(("data", "severity"), [(bytes(16), "OK"), (b"", "OK"), (bytes(10), "Bad")])
def test_what_is_no_event_is_refused(tmp_path: Path, data: bytes, severity: str) -> None:
    log = EventLog(Store(tmp_path / "n.json", State()), lambda _: None)
    with pytest.raises(PlacematError, match="expected"):
        log.add(data, "x", severity)


def test_oem_records_without_a_time_stamp_are_longer(tmp_path: Path) -> None:
    kept = Store(tmp_path / "n.json", State())
    EventLog(kept, lambda _: None).add(b"\xe0" + bytes(13), "OEM", "OK")
    assert store.decode(store.encode(kept.state).encode()) == kept.state


def test_events_are_as_ipmi_has_them() -> None:
    """IPMI 2.0 table 32-1; the numbers of sensors are used once."""
    watchdog = sensors.event(sensors.WATCHDOG2, sensors.WATCHDOG_EXPIRED["reset"], data2=4)
    assert watchdog == bytes.fromhex("02 2000 04 23 03 6f c1 04 ff")
    assert sensors.event(sensors.ACPI_POWER_STATE, sensors.ACPI_SOFT_OFF) == bytes.fromhex("02 2000 04 22 02 6f 06ffff")
    numbers = [sensor.number for sensor in sensors.SENSORS]
    assert len(set(numbers)) == len(numbers)
