"""What is taken from the journal, with a journalctl of our own on PATH."""

import json
from pathlib import Path

import pytest

from placematd.unit_log import last_lines


def journalctl(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "journalctl").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "journalctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def entries(*pairs: tuple[object, str]) -> str:
    return "\n".join(json.dumps({"MESSAGE": message, "_PID": pid}) for message, pid in pairs)


@pytest.mark.parametrize(
    ("output", "lines"),
    [
        ("", []),
        (entries(("Starting", "1"), ("cannot bind", "77"), ("Failed with result", "1")), ["cannot bind"]),
        (entries(("Starting", "1"), ("Failed to listen", "1")), ["Starting", "Failed to listen"]),
        (entries((None, "77"), ([1, 2], "77"), ("text", "77")), ["text"]),
        (entries(*((str(number), "77") for number in range(9))), ["4", "5", "6", "7", "8"]),
    ],
)
def test_last_lines(output: str, lines: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "output").write_text(output)
    asked = f'case "$*" in --sync) ;; *) echo "$*" > {tmp_path}/asked; cat {tmp_path}/output ;; esac'
    journalctl(tmp_path, asked, monkeypatch)
    assert last_lines(r"placemat-a\x2db.service") == lines
    assert r"_SYSTEMD_UNIT=placemat-a\x2db.service + UNIT=placemat-a\x2db.service" in (tmp_path / "asked").read_text()


def test_without_a_journal_there_are_no_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journalctl(tmp_path, "echo No journal files were found >&2; exit 1", monkeypatch)
    assert last_lines("x.service") == []


def test_what_an_earlier_run_of_the_unit_said_explains_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = [
        {"MESSAGE": "terminating on signal 15", "_PID": "70", "_SYSTEMD_INVOCATION_ID": "a"},
        {"MESSAGE": "Stopped", "_PID": "1", "INVOCATION_ID": "a"},
        {"MESSAGE": "cannot set up guest memory", "_PID": "77", "_SYSTEMD_INVOCATION_ID": "b"},
        {"MESSAGE": "Failed with result", "_PID": "1", "INVOCATION_ID": "b"},
    ]
    (tmp_path / "output").write_text("\n".join(map(json.dumps, said)))
    journalctl(tmp_path, f'case "$*" in --sync) ;; *) cat {tmp_path}/output ;; esac', monkeypatch)
    assert last_lines("x.service") == ["cannot set up guest memory"]
