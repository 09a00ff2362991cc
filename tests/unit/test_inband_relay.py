"""The relay between QEMU's IPMI device and the BMC's process, on real Unix sockets with a QEMU that the test plays."""

import asyncio
import os
import resource
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from fakes.machine import FakeMachine

from placematd.baseboard.inband import ATTEMPTS, BURST_PIECES, NOT_READY, PAUSE_SECONDS, READ_BYTES, InBandRelay
from placematd.bmc.inband import InBand
from placematd.bmc.ipmi.request import Reply, Request
from placematd.bmc.ipmi.vm import Control, ControlCode, Decoder, Message

HELLO = (Control(ControlCode.VERSION, b"\x01"), Control(ControlCode.CAPABILITIES, b"\x3f"))


def request(sequence: int) -> Message:
    return Message(sequence, 0x06, 0, 0x01, b"hello")


class Qemu:
    """The listening end of the IPMI device."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._decoder = Decoder()
        self._clients: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
        self._writers: list[asyncio.StreamWriter] = []
        self.said: list[object] = []

    async def start(self) -> None:
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(lambda *client: self._clients.put_nowait(client), self._path)

    async def accept(self, hello: tuple[Control, ...] = HELLO) -> None:
        self._reader, self._writer = await self._clients.get()
        self._writers.append(self._writer)
        self.send(*hello)

    def send(self, *items: Message | Control) -> None:
        self._writer.write(b"".join(item.encode() for item in items))

    async def flood(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def read(self) -> object:
        """The next that comes."""
        while not self.said:
            self.said += self._decoder.feed(await self._reader.read(READ_BYTES))
        return self.said.pop(0)

    async def ask(self, message: Message) -> object:
        self.send(message)
        return await self.read()

    async def end(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._server.close()
        await self._server.wait_closed()


class Process:
    """What a BMC's process said and heard: one connection, read item by item."""

    def __init__(self, stream: socket.socket) -> None:
        self.stream = stream
        stream.setblocking(False)
        self._decoder = Decoder()
        self._items: list[object] = []

    async def read(self) -> object:
        while not self._items:
            data = await asyncio.get_running_loop().sock_recv(self.stream, 4096)
            if not data:
                return None
            self._items += self._decoder.feed(data)
        return self._items.pop(0)

    async def hear(self) -> Message:
        """The next request, behind QEMU's hello."""
        while not isinstance(item := await self.read(), Message):
            pass
        return item

    def send(self, *items: Message | Control) -> None:
        self.stream.send(b"".join(item.encode() for item in items))


class Node:
    """A relay, the QEMU on one side and systemd's socket of the BMC on the other."""

    def __init__(self, folder: Path, reply_seconds: float = 10.0) -> None:
        self.qemu = Qemu(folder / "ipmi")
        self.now = 0.0
        self.problems: list[str] = []
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(folder / "bmc"))
        self.socket.listen()
        self.socket.setblocking(False)
        report = self.problems.append
        self.relay = InBandRelay(folder / "ipmi", folder / "bmc", report, lambda: self.now, reply_seconds)
        self.processes: list[Process] = []

    async def __aenter__(self) -> "Node":
        await self.qemu.start()
        self.relay.attach()
        await self.qemu.accept()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.relay.detach()
        await self.qemu.end()
        for process in self.processes:
            process.stream.close()
        self.socket.close()

    async def process(self) -> Process:
        """systemd starts the BMC's process: somebody has connected."""
        stream, _ = await asyncio.get_running_loop().sock_accept(self.socket)
        self.processes.append(Process(stream))
        return self.processes[-1]

    def started(self) -> bool:
        """Whether somebody has connected since."""
        try:
            stream, _ = self.socket.accept()
        except BlockingIOError:
            return False
        stream.close()
        return True


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(20):
            await main()

    asyncio.run(limited())


async def settle() -> None:
    """Let everybody who can run do so."""
    for _ in range(20):
        await asyncio.sleep(0.001)


def test_a_process_is_started_by_the_first_request_and_hears_the_hello(tmp_path: Path) -> None:
    async def main() -> None:
        async with Node(tmp_path) as node:
            await settle()
            assert not node.started()
            node.qemu.send(request(1))
            process = await node.process()
            assert [await process.read() for _ in range(3)] == [*HELLO, request(1)]
            process.send(request(1).reply(0, b"hi"))
            assert await node.qemu.read() == request(1).reply(0, b"hi")
            node.qemu.send(request(2))
            assert await process.read() == request(2)
            process.send(request(2).reply(0x80))
            assert await node.qemu.read() == request(2).reply(0x80)
            assert not node.started()
            assert node.problems == []

    run(main)


def test_idle_processes_come_and_go(tmp_path: Path) -> None:
    """With the real other end: each request finds a process, each process ends when it has answered."""

    async def echo(asked: Request) -> Reply:
        return Reply(data=asked.data)

    async def main() -> None:
        async with Node(tmp_path) as node:
            for number in range(200):
                in_band = InBand(echo, FakeMachine())
                await in_band.attach(node.socket.dup())
                first, second = request(number), request((number + 1) % 256)
                assert await node.qemu.ask(first) == first.reply(0, b"hello")
                node.qemu.send(second)  # at the same time as the end, before or after it
                for _ in range(number % 7):
                    await asyncio.sleep(0)
                await in_band.close()
                following = InBand(echo, FakeMachine())
                await following.attach(node.socket.dup())
                assert await node.qemu.read() == second.reply(0, b"hello")
                await following.close()
            assert node.problems == []

    run(main)


def test_what_a_dead_process_had_not_read_is_asked_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with Node(tmp_path) as node:
            node.qemu.send(request(1))
            for _ in range(ATTEMPTS - 1):
                (await node.process()).stream.close()
            process = await node.process()
            assert await process.hear() == request(1)
            process.send(request(1).reply(0))
            assert await node.qemu.read() == request(1).reply(0)
            # and one that ended between two requests
            process.stream.close()
            node.qemu.send(request(2))
            process = await node.process()
            assert await process.hear() == request(2)
            process.send(request(2).reply(0))
            assert await node.qemu.read() == request(2).reply(0)
            assert node.problems == []

    run(main)


def test_processes_that_all_die_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with Node(tmp_path) as node:
            node.qemu.send(request(1))
            for _ in range(ATTEMPTS):
                (await node.process()).stream.close()
            assert await node.qemu.read() == request(1).reply(NOT_READY)
            assert node.problems == [
                f"the BMC did not answer the guest: {ATTEMPTS} processes ended before they had read the request"
            ]

    run(main)


def test_what_a_process_may_have_done_is_not_asked_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with Node(tmp_path) as node:
            node.qemu.send(request(1))
            process = await node.process()
            assert await process.hear() == request(1)
            process.stream.close()
            assert await node.qemu.read() == request(1).reply(NOT_READY)
            assert not node.started()
            assert node.problems == ["the BMC did not answer the guest: its process has ended"]
            node.qemu.send(request(2))
            assert await (await node.process()).hear() == request(2)

    run(main)


def test_without_a_socket_the_guest_is_told_so(tmp_path: Path) -> None:
    async def main() -> None:
        async with Node(tmp_path) as node:
            (tmp_path / "bmc").unlink()
            assert await node.qemu.ask(request(1)) == request(1).reply(NOT_READY)
            assert await node.qemu.ask(request(2)) == request(2).reply(NOT_READY)
            (problem,) = node.problems
            assert "No such file" in problem

    run(main)


def test_a_process_that_hangs_is_left(tmp_path: Path) -> None:
    async def main() -> None:
        async with Node(tmp_path, reply_seconds=0.05) as node:
            node.qemu.send(request(1))
            hanging = await node.process()
            assert await hanging.hear() == request(1)
            assert await node.qemu.read() == request(1).reply(NOT_READY)
            assert node.problems == ["the BMC did not answer the guest: no answer within 0.05 s"]
            assert await hanging.read() is None
            node.qemu.send(request(2))
            process = await node.process()
            assert await process.hear() == request(2)
            process.send(request(2).reply(0))
            assert await node.qemu.read() == request(2).reply(0)

    run(main)


def test_a_guest_that_has_asked_anew_hears_nothing_of_the_old_question(tmp_path: Path) -> None:
    async def main() -> None:
        async with Node(tmp_path) as node:
            node.qemu.send(request(1))
            hanging = await node.process()
            assert await hanging.hear() == request(1)
            node.qemu.send(request(2), request(3))
            await settle()
            hanging.stream.close()
            process = await node.process()
            assert await process.hear() == request(3)
            process.send(request(3).reply(0))
            assert await node.qemu.read() == request(3).reply(0)

    run(main)


def test_only_the_answer_to_the_question_reaches_the_guest(tmp_path: Path) -> None:
    async def main() -> None:
        async with Node(tmp_path) as node:
            node.qemu.send(request(7))
            process = await node.process()
            await process.hear()
            late, twice = request(6).reply(0), request(7).reply(0)
            process.stream.send(b"\xa0\xa1\xaa\xa0rubbish\xa0")
            process.send(late, twice, twice)
            assert await node.qemu.read() == twice
            node.qemu.send(request(8))
            await process.hear()
            process.send(request(8).reply(0))
            assert await node.qemu.read() == request(8).reply(0)

    run(main)


def test_a_bmc_switches_interrupts_but_no_power(tmp_path: Path) -> None:
    async def main() -> None:
        async with Node(tmp_path) as node:
            node.qemu.send(request(1))
            process = await node.process()
            await process.hear()
            for code in range(256):
                process.send(Control(code))
            process.send(request(1).reply(0))
            passed = []
            while isinstance(item := await node.qemu.read(), Control):
                passed.append(item.code)
            assert passed == [
                ControlCode.NO_ATTENTION,
                ControlCode.ATTENTION,
                ControlCode.ATTENTION_INTERRUPT,
                ControlCode.ENABLE_INTERRUPT,
                ControlCode.DISABLE_INTERRUPT,
            ]

    run(main)


def test_a_new_qemu_has_a_hello_of_its_own(tmp_path: Path) -> None:
    async def main() -> None:
        async with Node(tmp_path) as node:
            node.qemu.send(request(1))
            process = await node.process()
            assert await process.hear() == request(1)
            await node.qemu.end()
            assert await process.read() is None  # the process may end
            await node.qemu.start()
            node.relay.attach()
            mute = (Control(ControlCode.VERSION, b"\x01"), Control(ControlCode.CAPABILITIES, b"\x3b"))
            await node.qemu.accept(mute)
            node.qemu.send(request(1))
            process = await node.process()
            assert [await process.read() for _ in range(3)] == [*mute, request(1)]
            assert node.problems == []

    run(main)


def test_detach_and_attach(tmp_path: Path) -> None:
    async def main() -> None:
        async with Node(tmp_path) as node:
            node.qemu.send(request(1))
            process = await node.process()
            assert await process.hear() == request(1)
            await node.relay.detach()
            assert await process.read() is None
            node.relay.attach()
            node.relay.attach()
            await node.qemu.accept()
            node.qemu.send(request(2))
            assert await (await node.process()).hear() == request(2)

    run(main)


FLOODS = {
    "requests": request(1).encode() * 20_000,
    "ends": b"\xa0" * 200_000,
    "controls": Control(ControlCode.RESET).encode() * 100_000,
    "endless": b"x" * 200_000,
    "random": os.urandom(200_000),
}


@pytest.mark.parametrize("name", FLOODS)
def test_who_floods_is_read_slowly(tmp_path: Path, name: str) -> None:
    async def main() -> None:
        async with Node(tmp_path) as node:
            answered = 0

            async def count(asked: Request) -> Reply:
                nonlocal answered
                answered += 1
                return Reply()

            in_band = InBand(count, FakeMachine())
            await in_band.attach(node.socket.dup())
            pieces = BURST_PIECES * READ_BYTES
            flood = asyncio.create_task(node.qemu.flood(FLOODS[name] * 10))
            while not any("it has to wait" in problem for problem in node.problems):
                await asyncio.sleep(PAUSE_SECONDS)
            assert answered <= BURST_PIECES + 1
            before = resource.getrusage(resource.RUSAGE_SELF)
            began = time.monotonic()
            await asyncio.sleep(10 * PAUSE_SECONDS)
            after = resource.getrusage(resource.RUSAGE_SELF)
            busy = (after.ru_utime - before.ru_utime) / (time.monotonic() - began)
            assert busy < 0.5
            assert not flood.done() or len(FLOODS[name]) * 10 < 2 * pieces
            flood.cancel()
            assert len(node.problems) <= 2
            assert all(len(problem) < 200 for problem in node.problems)
            await in_band.close()

    run(main)
