"""The bus thread, and what is said where there is no bus or no systemd."""

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from placematd.bus import Worker
from placematd.errors import StepError
from placematd.systemd import Systemd


def test_worker_returns_raises_and_keeps_to_one_thread() -> None:
    worker = Worker()
    threads = {worker.call(threading.get_ident) for _ in range(5)}
    assert len(threads) == 1
    assert threading.get_ident() not in threads
    with pytest.raises(KeyError, match="lost"):
        worker.call(lambda: {}["lost"])
    with pytest.raises(RuntimeError, match="must not wait for the bus thread"):
        worker.call(lambda: worker.call(int))
    worker.close()
    worker.close()
    with pytest.raises(RuntimeError, match="has ended"):
        worker.call(int)


def test_worker_runs_later() -> None:
    worker, done = Worker(), threading.Event()
    worker.call(lambda: worker.call_later(0.01, done.set))
    assert done.wait(10)
    worker.close()


def test_no_bus(tmp_path: Path) -> None:
    systemd = Systemd(f"unix:path={tmp_path}/no-bus")
    for _ in range(2):
        with pytest.raises(StepError, match=r"talk to systemd over D-Bus: .*No such file or directory") as caught:
            systemd.unit_states("placemat-*")
        assert caught.value.hint == "systemd is not PID 1 here; use placemat-cli sandbox"
    systemd.close()


def test_bus_that_says_nothing(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "mute"))
        server.listen()
        systemd = Systemd(f"unix:path={tmp_path}/mute", timeout_seconds=0.2)
        begin = time.monotonic()
        with pytest.raises(StepError, match=r"talk to systemd over D-Bus: .*cancelled"):
            systemd.properties("placemat-x.service")
        assert time.monotonic() - begin < 10
        systemd.close()


@pytest.fixture
def bus_address(tmp_path: Path) -> Iterator[str]:
    """A message bus with nobody on it."""
    daemon = shutil.which("dbus-daemon") or pytest.skip("apt-get install dbus-daemon")
    address = f"unix:path={tmp_path}/bus"
    argv = [daemon, "--session", "--nofork", "--print-address", "--nopidfile", f"--address={address}"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        yield address
        process.kill()


def test_bus_without_systemd(bus_address: str) -> None:
    systemd = Systemd(bus_address, timeout_seconds=5)
    with pytest.raises(StepError) as caught:
        systemd.stop("placemat-x.service")
    assert caught.value.hint == "systemd is not PID 1 here; use placemat-cli sandbox"
    systemd.close()
