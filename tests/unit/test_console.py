"""The console hub against a server on a real Unix socket that plays QEMU."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from placematd.console import HISTORY_BYTES, VIEWER_BYTES, ConsoleHub, Viewer


class Qemu:
    """A listening socket that serves one client at a time, as QEMU's chardevs do."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clients: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
        self.writers: list[asyncio.StreamWriter] = []

    async def listen(self) -> None:
        self.path.unlink(missing_ok=True)
        self.server = await asyncio.start_unix_server(lambda *client: self.clients.put_nowait(client), self.path)

    async def accept(self) -> None:
        self.reader, writer = await self.clients.get()
        self.writers.append(writer)

    async def say(self, data: bytes) -> None:
        self.writers[-1].write(data)
        await self.writers[-1].drain()

    async def stop(self) -> None:
        for writer in self.writers:
            writer.close()
        self.server.close()
        await self.server.wait_closed()
        self.path.unlink(missing_ok=True)


async def start(path: Path) -> tuple[Qemu, ConsoleHub]:
    qemu, hub = Qemu(path), ConsoleHub(path)
    await qemu.listen()
    hub.attach()
    await qemu.accept()
    return qemu, hub


async def read_until(viewer: Viewer, end: bytes) -> bytes:
    seen = b""
    while not seen.endswith(end):
        data = await viewer.read()
        assert data, f"closed after {seen[-100:]!r}"
        seen += data
    return seen


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 30))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "console"


def test_all_viewers_see_all_and_their_input_is_merged(path: Path) -> None:
    async def main() -> None:
        qemu, hub = await start(path)
        viewers = [hub.view() for _ in range(3)]
        await qemu.say(b"login: ")
        assert [await viewer.read() for viewer in viewers] == [b"login: "] * 3
        await viewers[0].write(b"ro")
        await viewers[2].write(b"ot\r")
        assert await qemu.reader.readexactly(5) == b"root\r"
        await hub.close()
        await qemu.stop()

    run(main())


def test_new_viewer_sees_the_end_of_the_past(path: Path) -> None:
    async def main() -> None:
        qemu, hub = await start(path)
        first = hub.view()
        await qemu.say(b"x" * HISTORY_BYTES + b"the end")
        await read_until(first, b"the end")
        assert await hub.view().read() == b"x" * (HISTORY_BYTES - 7) + b"the end"
        await hub.close()
        await qemu.stop()

    run(main())


def test_slow_viewer_misses_output_and_holds_nobody_up(path: Path) -> None:
    async def main() -> None:
        qemu, hub = await start(path)
        slow, fast = hub.view(), hub.view()
        total = 0
        for number in range(100):
            block = b"%06d" % number * 10_000 + b"\n"
            await qemu.say(block)
            total += len(block)
            await read_until(fast, b"\n")
        seen = await slow.read()
        assert len(seen) <= VIEWER_BYTES + 100
        note, _, rest = seen.removeprefix(b"\r\n[placemat: ").partition(b" bytes skipped]\r\n")
        assert int(note) + len(rest) == total
        assert rest.endswith(b"000099\n")
        await qemu.say(b"more")
        assert await slow.read() == b"more"
        await hub.close()
        await qemu.stop()

    run(main())


def test_viewers_survive_a_restart_of_qemu(path: Path) -> None:
    async def main() -> None:
        qemu, hub = await start(path)
        viewer = hub.view()
        await qemu.say(b"first")
        assert await viewer.read() == b"first"
        await qemu.stop()
        assert await viewer.read() == b"\r\n[placemat: console disconnected: QEMU closed the connection]\r\n"
        await viewer.write(b"nobody hears this")
        await hub.detach()

        hub.attach()
        hub.attach()
        await asyncio.sleep(0.05)  # QEMU is not there at once
        await qemu.listen()
        await qemu.accept()
        await qemu.say(b"second")
        assert await viewer.read() == b"second"
        await viewer.write(b"hello")
        assert await qemu.reader.readexactly(5) == b"hello"
        assert qemu.clients.empty()
        await hub.close()
        await qemu.stop()

    run(main())


def test_detach_lets_go_and_tells_viewers(path: Path) -> None:
    async def main() -> None:
        qemu, hub = await start(path)
        viewer = hub.view()
        await hub.detach()
        assert await qemu.reader.read() == b""
        assert await viewer.read() == b"\r\n[placemat: console disconnected]\r\n"
        await hub.detach()
        hub.attach()
        await qemu.accept()
        await hub.close()
        await qemu.stop()

    run(main())


def test_closed_viewer_reads_what_waits_then_the_end(path: Path) -> None:
    async def main() -> None:
        qemu, hub = await start(path)
        leaving, staying = hub.view(), hub.view()
        await qemu.say(b"output")
        assert await staying.read() == b"output"
        leaving.close()
        await qemu.say(b" and more")
        assert await staying.read() == b" and more"
        assert [await leaving.read(), await leaving.read()] == [b"output", b""]
        waiting = asyncio.create_task(staying.read())
        await hub.close()
        assert await waiting == b""
        await qemu.stop()

    run(main())


def test_guest_that_does_not_read_holds_up_the_typist_only(path: Path) -> None:
    async def main() -> None:
        qemu, hub = await start(path)
        typist, watcher = hub.view(), hub.view()
        paste = asyncio.create_task(typist.write(b"y" * (8 << 20)))
        await qemu.say(b"still here")
        assert await watcher.read() == b"still here"
        assert not paste.done()
        assert await qemu.reader.readexactly(8 << 20) == b"y" * (8 << 20)
        await paste
        stuck = asyncio.create_task(typist.write(b"y" * (8 << 20)))
        await watcher.write(b"")
        await hub.detach()
        await stuck
        await hub.close()
        await qemu.stop()

    run(main())
