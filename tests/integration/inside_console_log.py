"""Tests of the way from a guest's console to the journal: run by test_systemd.py inside a sandbox, never on a host."""

import os
import shutil
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boot_sector
import pytest

from placematd.facts import QEMU_USER, Settings
from placematd.models import Cluster, Node
from placematd.names import OwnerMark, node_paths, slice_unit
from placematd.plan.console import console_unit_of
from placematd.systemd import Systemd
from placematd.unit import Unit, command
from placematd.units import Units

pytestmark = pytest.mark.skipif("PLACEMAT_SANDBOX" not in os.environ, reason="only inside a placemat sandbox")

SETTINGS = Settings(cluster="log")
LINES = 0x4000


@pytest.fixture
def units() -> Iterator[Units]:
    systemd = Systemd()
    units = Units(systemd)
    yield units
    for mark in units.observe("log"):
        units.remove(mark)
    systemd.stop(slice_unit("log"))
    systemd.close()


@dataclass
class Logger:
    """The console units of a node as they are planned, running."""

    node: str
    fifo: Path
    service: str


@pytest.fixture
def logger(units: Units, request: pytest.FixtureRequest) -> Iterator[Logger]:
    node = Node(name=request.function.__name__.replace("_", "-")[:40])  # of its own, so that its lines are
    resource = console_unit_of(Cluster(name="log", nodes=(node,)), node, SETTINGS)
    units.create(resource, "log")
    logger = Logger(node.name, node_paths(SETTINGS.run_dir, "log", node.name).log, resource.unit.auxiliaries[0].name)
    yield logger
    units.remove(resource.mark("log"))
    assert not logger.fifo.exists()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for QEMU, which is another user and cannot reach pytest's."""
    folder = Path(tempfile.mkdtemp(prefix="placemat-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def start_qemu(units: Units, logger: Logger, folder: Path) -> None:
    """A QEMU like a node's: its console is a socket for people and goes to the FIFO as well."""
    disk = boot_sector.write(folder / "disk", LINES)
    (folder / "disk").chmod(0o666)
    console = f"socket,id=console,path={folder}/console,server=on,wait=off,logfile={logger.fifo},logappend=on"
    argv = ["/usr/bin/qemu-system-x86_64", *disk, "-chardev", console, "-serial", "chardev:console"]
    properties = (("Slice", slice_unit("log")), ("Type", "exec"), ("User", QEMU_USER), ("ExecStart", (command(*argv),)))
    unit = Unit("placemat-log-node-n1.service", properties)
    units._systemd.start(unit, OwnerMark("log", "unit", unit.name, "1234"))


def lines_of(logger: Logger) -> list[str]:
    """The node's lines in the journal, followed until the last one of the guest's comes."""
    matches = [f"PLACEMAT_NODE={logger.node}", "PLACEMAT_CLUSTER=log", f"SYSLOG_IDENTIFIER={logger.node}"]
    argv = ["timeout", "60", "journalctl", "--follow", "--output=cat", "--lines=all", *matches]
    seen = []
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            seen.append(line.rstrip("\n"))
            if seen[-1] == boot_sector.line(LINES - 1):
                break
        process.terminate()
    return seen


def test_fifo_is_for_qemu_alone_and_nobody_reads_it_yet(units: Units, logger: Logger) -> None:
    info = logger.fifo.stat()
    assert stat.S_ISFIFO(info.st_mode)
    assert (stat.S_IMODE(info.st_mode), logger.fifo.owner()) == (0o600, QEMU_USER)
    states = {state.name: state.active for state in units._systemd.unit_states("placemat-log-console-*")}
    assert states[logger.service] == "inactive"


def test_every_line_reaches_the_journal(units: Units, logger: Logger, folder: Path) -> None:
    start_qemu(units, logger, folder)
    assert lines_of(logger) == [boot_sector.line(number) for number in range(LINES)]
    with socket.socket(socket.AF_UNIX) as console:  # and people still have their socket
        console.connect(str(folder / "console"))
        console.sendall(b"hello")
        assert console.recv(1) == b"h"


def test_restarted_logger_goes_on_and_only_breaks_the_line_it_was_reading(
    units: Units, logger: Logger, folder: Path
) -> None:
    restarts = 8
    start_qemu(units, logger, folder)
    for _ in range(restarts):
        subprocess.run(["systemctl", "restart", logger.service], check=True)
        subprocess.run(["systemctl", "reset-failed", logger.service], check=True)  # no start limit for us
    seen, expected = lines_of(logger), [boot_sector.line(number) for number in range(LINES)]
    planned, read = set(expected), set(seen)
    whole = [line for line in seen if line in planned]
    broken = [line for line in expected if line not in read]
    fragments = [line for line in seen if line not in planned]
    assert whole == [line for line in expected if line not in broken]
    assert len(broken) <= restarts
    assert all(any(line.endswith(fragment) for line in broken) for fragment in fragments)
