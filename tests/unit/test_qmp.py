"""The QMP client against a scripted server on a real Unix socket; the transcripts are QEMU 7.2's."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from placematd.errors import StepError, TimedOut
from placematd.qmp import QmpClient, QmpError, QmpEvent

GREETING = (
    b'{"QMP": {"version": {"qemu": {"micro": 17, "minor": 2, "major": 7}, '
    b'"package": "Debian 1:7.2+dfsg-7+deb12u16"}, "capabilities": ["oob"]}}\r\n'
)
STOP = b'{"timestamp": {"seconds": 1732175000, "microseconds": 250000}, "event": "STOP"}\r\n'
SHUTDOWN = (
    b'{"timestamp": {"seconds": 1732175001, "microseconds": 0}, "event": "SHUTDOWN", '
    b'"data": {"guest": true, "reason": "guest-shutdown"}}\r\n'
)


class Peer:
    """The server's side of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def command(self) -> dict[str, object]:
        message: dict[str, object] = json.loads(await self.reader.readline())
        return message

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def answer(self, command: dict[str, object], value: object = None) -> None:
        self.send(json.dumps({"return": value if value is not None else {}, "id": command["id"]}).encode() + b"\r\n")

    async def greet(self) -> None:
        self.send(GREETING)
        command = await self.command()
        assert command["execute"] == "qmp_capabilities"
        self.answer(command)


@asynccontextmanager
async def qemu(path: Path, script: Callable[[Peer], Awaitable[None]]) -> AsyncIterator[None]:
    """A server that runs `script` for each client and then closes; an assertion in the script fails the test."""
    tasks: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await script(Peer(reader, writer))
        finally:
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.ensure_future(serve(reader, writer)))

    server = await asyncio.start_unix_server(accept, path)
    try:
        yield
        await asyncio.gather(*tasks)
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "qmp"


async def until_eof(peer: Peer) -> None:
    assert await peer.reader.read() == b""


def test_an_end_with_a_command_unread_is_an_end(path: Path) -> None:
    sent = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.greet()
        peer.writer.transport.pause_reading()  # the kernel resets a connection that is closed with something unread
        await sent.wait()

    async def main() -> None:
        async with qemu(path, script):
            client = await QmpClient.connect(path)
            command = asyncio.ensure_future(client.execute("cont"))
            await asyncio.sleep(0)  # it is written when the task waits
            sent.set()
            for answer in (command, client.execute("cont")):
                with pytest.raises(StepError, match="QEMU closed the connection"):
                    await answer
            await client.close()

    asyncio.run(main())


def test_events_before_the_answer_are_not_the_answer(path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        command = await peer.command()
        assert command == {"execute": "stop", "id": command["id"]}
        peer.send(STOP + SHUTDOWN)
        peer.answer(command, {"the": "answer"})
        await until_eof(peer)

    async def main() -> None:
        events: list[QmpEvent] = []
        async with qemu(path, script):
            client = await QmpClient.connect(path, on_event=events.append)
            assert await client.execute("stop") == {"the": "answer"}
            await client.close()
        assert events == [
            QmpEvent("STOP", {}, 1732175000.25),
            QmpEvent("SHUTDOWN", {"guest": True, "reason": "guest-shutdown"}, 1732175001.0),
        ]

    asyncio.run(main())


def test_answers_out_of_order_reach_their_commands(path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        commands = [await peer.command() for _ in range(3)]
        for command in reversed(commands):
            peer.answer(command, command["arguments"])
        await until_eof(peer)

    async def main() -> None:
        async with qemu(path, script):
            client = await QmpClient.connect(path)
            calls = [client.execute("echo", {"number": number}) for number in range(3)]
            assert await asyncio.gather(*calls) == [{"number": 0}, {"number": 1}, {"number": 2}]
            await client.close()

    asyncio.run(main())


def test_refusal_names_command_class_and_reason(path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        command = await peer.command()
        error = {"class": "CommandNotFound", "desc": "The command nope has not been found"}
        peer.send(json.dumps({"id": command["id"], "error": error}).encode() + b"\n")
        peer.answer(await peer.command(), {"status": "running", "running": True, "singlestep": False})
        await until_eof(peer)

    async def main() -> None:
        async with qemu(path, script):
            client = await QmpClient.connect(path)
            with pytest.raises(QmpError, match=r"nope on .*qmp: The command nope has not been found") as caught:
                await client.execute("nope")
            assert caught.value.error_class == "CommandNotFound"
            assert await client.query_status() == "running"
            await client.close()

    asyncio.run(main())


def test_late_and_unknown_answers_are_dropped(path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        late = await peer.command()
        second = await peer.command()
        peer.answer(late, {"status": "late"})
        peer.send(b'{"return": {"status": "unknown"}, "id": 12345}\n{"return": {}}\n{"return": {}, "id": "x"}\n')
        peer.answer(second, {"status": "paused"})
        await until_eof(peer)

    async def main() -> None:
        async with qemu(path, script):
            client = await QmpClient.connect(path)
            with pytest.raises(TimedOut, match=r"query-status on .*: no answer within 0.05 s"):
                await client.execute("query-status", timeout_seconds=0.05)
            assert await client.query_status() == "paused"
            await client.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("garbage", "reason"),
    [
        (b"hello\n", "not QMP"),
        (b"\xff\xfe\x00\n", "not QMP"),
        (b"[1, 2]\n", "not an object"),
        (b"null\n", "not an object"),
        (b"[" * 200_000 + b"\n", "not QMP"),
        (b'{"return": "' + b"x" * (9 << 20) + b'"}\n', "not QMP"),
        (b'{"return": {}', "QEMU closed the connection"),
        (b"", "QEMU closed the connection"),
    ],
    ids=["text", "binary", "array", "null", "nested", "overlong", "truncated", "eof"],
)
def test_whoever_waits_hears_of_a_broken_connection(path: Path, garbage: bytes, reason: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.command()
        await peer.command()
        peer.send(garbage)

    async def main() -> None:
        async with qemu(path, script):
            client = await QmpClient.connect(path)
            calls = [client.execute(command, timeout_seconds=20) for command in ("query-status", "query-kvm")]
            results = await asyncio.gather(*calls, return_exceptions=True)
            for result in results:
                assert isinstance(result, StepError)
                assert not isinstance(result, TimedOut)
                assert reason in result.answer
            assert not client.connected
            with pytest.raises(StepError, match=reason):
                await client.execute("cont")
            await client.close()

    asyncio.run(main())


def test_large_answers_pass(path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        peer.answer(await peer.command(), "x" * (4 << 20))
        await until_eof(peer)

    async def main() -> None:
        async with qemu(path, script):
            client = await QmpClient.connect(path)
            assert await client.execute("query-qmp-schema") == "x" * (4 << 20)
            await client.close()

    asyncio.run(main())


def test_answer_in_pieces(path: Path) -> None:
    async def script(peer: Peer) -> None:
        for byte in GREETING:
            peer.send(bytes([byte]))
            await asyncio.sleep(0)
        peer.answer(await peer.command())
        await until_eof(peer)

    async def main() -> None:
        async with qemu(path, script):
            client = await QmpClient.connect(path)
            assert client.connected
            await client.close()

    asyncio.run(main())


def test_monitor_that_serves_another_client(path: Path) -> None:
    async def main() -> None:
        async with qemu(path, until_eof):
            with pytest.raises(TimedOut, match=r"no greeting within 0.1 s .*one client at a time"):
                await QmpClient.connect(path, timeout_seconds=0.1)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("greeting", "reason"),
    [(b'{"hello": 1}\n', "not a QEMU monitor"), (b"SSH-2.0\n", "not QMP"), (b"", "closed the connection")],
)
def test_what_is_no_monitor_is_refused(path: Path, greeting: bytes, reason: str) -> None:
    async def script(peer: Peer) -> None:
        peer.send(greeting)

    async def main() -> None:
        async with qemu(path, script):
            with pytest.raises(StepError, match=rf"connect to the monitor {path}: .*{reason}"):
                await QmpClient.connect(path)

    asyncio.run(main())


def test_nobody_listens(path: Path) -> None:
    async def main() -> None:
        with pytest.raises(StepError, match=rf"connect to the monitor {path}: No such file or directory \(is the node"):
            await QmpClient.connect(path)

    asyncio.run(main())


def test_close_ends_those_who_wait(path: Path) -> None:
    async def main() -> None:
        asked = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.greet()
            await peer.command()
            asked.set()
            await until_eof(peer)

        async with qemu(path, script):
            client = await QmpClient.connect(path)
            call = asyncio.create_task(client.query_status())
            await asked.wait()
            await client.close()
            with pytest.raises(StepError, match="the connection was closed"):
                await call

    asyncio.run(main())
