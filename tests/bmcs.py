"""BMCs for tests of clients: tests/fakes/bmc.py as a process on free ports of 127.0.0.1."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parent / "fakes" / "bmc.py"


@dataclass(frozen=True)
class RunningBmc:
    """A BMC that runs; users are cybozu/cybozu, admin/password, operator/operator and reader/reader."""

    process: "subprocess.Popen[str]"
    host: str
    ipmi_port: int
    redfish_port: int

    @property
    def url(self) -> str:
        return f"https://{self.host}:{self.redfish_port}"

    def ask(self, command: str = "state") -> dict[str, Any]:
        """See fakes/bmc.py: "state", "powers-off", "resets", "prints TEXT"."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer


@contextmanager
def running_bmc(*options: str) -> Iterator[RunningBmc]:
    """A BMC with options of fakes/bmc.py; its standard error goes to the test's."""
    argv = [sys.executable, str(SCRIPT), "--until-eof", "--ipmi", "127.0.0.1:0", "--redfish", "127.0.0.1:0", *options]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            line = process.stdout.readline()
            assert line.startswith("READY "), line
            told = json.loads(line.removeprefix("READY "))
            yield RunningBmc(process, told["ipmi"][0], told["ipmi"][1], told["redfish"][1])
        finally:
            process.terminate()
            process.wait(10)


@pytest.fixture
def bmc() -> Iterator[RunningBmc]:
    """A BMC of a machine that is off."""
    with running_bmc() as running:
        yield running
