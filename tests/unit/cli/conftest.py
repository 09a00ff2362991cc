"""The CLI in directories of its own, with a fake API and fake programs."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fakes.api import FakeApi
from placemat_cli.__main__ import app


@dataclass(frozen=True)
class Result:
    status: int
    out: str
    err: str


@dataclass(frozen=True)
class Places:
    config: Path
    run: Path
    bin: Path


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    """Empty directories in the place of /etc/placemat and /run/placemat, and one that is first in PATH."""
    found = Places(tmp_path / "etc", tmp_path / "run", tmp_path / "bin")
    for directory in (found.config, found.run, found.bin):
        directory.mkdir()
    for name in [name for name in os.environ if name.startswith("PLACEMAT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PLACEMAT_CONFIG_DIR", str(found.config))
    monkeypatch.setenv("PLACEMAT_RUN_DIR", str(found.run))
    monkeypatch.setenv("PATH", f"{found.bin}:{os.environ['PATH']}")
    monkeypatch.setenv("COLUMNS", "100")
    return found


@pytest.fixture
def api(places: Places) -> Iterator[FakeApi]:
    """The API of the running cluster "lab"."""
    with FakeApi(places.run / "lab" / "api.sock") as server:
        yield server


@pytest.fixture
def cli(places: Places, capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run placemat-cli in this process."""

    def run(*arguments: str) -> Result:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            app(list(arguments), prog_name="placemat-cli")
        code = ended.value.code
        return Result(0 if code is None else int(code), *capfd.readouterr())

    return run


@pytest.fixture
def program(places: Places) -> Callable[[str, str], Path]:
    """Put a shell script on PATH."""

    def make(name: str, body: str) -> Path:
        path = places.bin / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return path

    return make
