"""What placematd tells systemd, received as systemd does: on a datagram socket."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from placematd.__main__ import Notifier


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield receiver


def first_sign_of_life(notifier: Notifier, systemd: socket.socket) -> list[str]:
    async def scenario() -> list[str]:
        life = asyncio.ensure_future(notifier.show_life())
        lines = (await asyncio.to_thread(systemd.recv, 4096)).decode().splitlines()
        life.cancel()
        notifier.close()
        return lines

    return asyncio.run(scenario())


def test_a_start_that_takes_long_is_waited_for(systemd: socket.socket) -> None:
    assert first_sign_of_life(Notifier({}), systemd) == ["EXTEND_TIMEOUT_USEC=90000000"]


def test_the_watchdog_is_fed_also_when_there_is_nothing_to_do(systemd: socket.socket) -> None:
    notifier = Notifier({"WATCHDOG_USEC": "60000000"})
    notifier.busy = False
    assert first_sign_of_life(notifier, systemd) == ["WATCHDOG=1"]


def test_status_follows_events_on_one_line(systemd: socket.socket) -> None:
    notifier = Notifier({})
    notifier.event({"kind": "node", "message": "not a step"})
    notifier.event({"kind": "step", "message": "create bridge net0\nREADY=1"})
    assert systemd.recv(4096) == b"STATUS=create bridge net0 READY=1"
    notifier.close()
