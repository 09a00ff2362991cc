"""The BMC's end of the guest's system interface, on a real Unix socket."""

import asyncio
import logging
import random
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fakes.machine import LIMITS, FakeMachine

from placematd.bmc.inband import READ_BYTES, InBand
from placematd.bmc.ipmi.request import SYSTEM_INTERFACE, Caller, Code, Execute, Privilege, Reply, Request
from placematd.bmc.ipmi.vm import REPLY_DATA_BYTES, Control, ControlCode, Decoder, Message
from placematd.bmc.machine import Limits
from placematd.errors import PlacematError
from placematd.pace import REPORT_SECONDS

HELLO = bytes.fromhex("ff01a1083fa1")
MUTE_HELLO = bytes.fromhex("ff01a1083ba1")
"""Of a device that has no interrupt."""

DEVICE_ID = Message(1, 0x06, 0, 0x01)
ENABLE = Control(ControlCode.ENABLE_INTERRUPT)
DISABLE = Control(ControlCode.DISABLE_INTERRUPT)


async def echo(request: Request) -> Reply:
    """Answers with what it was asked."""
    return Reply(data=request.data)


class Bmc:
    """An InBand on a socket as systemd makes it, and the relay's side of one connection."""

    def __init__(self, path: Path, execute: Execute = echo, machine: FakeMachine | None = None) -> None:
        self.path = path
        self.now = 0.0
        self.in_band = InBand(execute, machine or FakeMachine(), lambda: self.now)
        self.decoder = Decoder()
        self.writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> "Bmc":
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.listener.listen()
        await self.in_band.attach(self.listener.dup())
        await self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        for writer in self.writers:
            writer.transport.abort()
        await self.in_band.close()
        self.listener.close()

    async def connect(self, hello: bytes = HELLO) -> None:
        self.reader, self.writer = await asyncio.open_unix_connection(self.path)
        self.writer.write(hello)
        self.writers.append(self.writer)

    async def read(self) -> list[object]:
        """The next piece of what the BMC says."""
        return list(self.decoder.feed(await self.reader.read(READ_BYTES)))

    async def ask(self, *messages: Message) -> list[object]:
        self.writer.write(b"".join(message.encode() for message in messages))
        return await self.read()


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(20):
            await main()

    asyncio.run(limited())


def test_request_and_reply(tmp_path: Path) -> None:
    asked: list[Request] = []

    async def execute(request: Request) -> Reply:
        asked.append(request)
        return Reply(code=0x80, data=b"\xa0\xa1\xaa")

    async def main() -> None:
        async with Bmc(tmp_path / "bmc", execute) as bmc:
            assert await bmc.ask(Message(0xA0, 0x0A, 2, 0x43, b"\xaa\0")) == [
                Message(0xA0, 0x0B, 2, 0x43, b"\x80\xa0\xa1\xaa")
            ]

    run(main)
    caller = Caller(channel=SYSTEM_INTERFACE, privilege=Privilege.ADMINISTRATOR)
    assert asked == [Request(netfn=0x0A, command=0x43, data=b"\xaa\0", lun=2, caller=caller)]


def test_the_reply_goes_out_before_what_follows_it(tmp_path: Path) -> None:
    """A guest that switches itself off learns that its request was taken."""

    async def main() -> None:
        async def power_off() -> None:
            done.set_result(await bmc.read())

        async def execute(request: Request) -> Reply:
            return Reply(after=power_off)

        done = asyncio.get_running_loop().create_future()
        async with Bmc(tmp_path / "bmc", execute) as bmc:
            bmc.writer.write(DEVICE_ID.encode())
            assert await done == [DEVICE_ID.reply(0)]

    run(main)


def test_what_follows_a_reply_may_fail(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise PlacematError("no such volume")

    async def execute(request: Request) -> Reply:
        return Reply(after=fail)

    async def main() -> None:
        async with Bmc(tmp_path / "bmc", execute) as bmc:
            assert await bmc.ask(DEVICE_ID) == [DEVICE_ID.reply(0)]
            assert await bmc.ask(DEVICE_ID) == [DEVICE_ID.reply(0)]

    run(main)
    assert [record.message for record in caplog.records] == ["system interface: no such volume"]


@pytest.mark.parametrize(
    ("hello", "data", "code", "expected"),
    [
        (HELLO, b"\x01", 0, [ENABLE]),
        (HELLO, b"\x0f", 0, [ENABLE]),
        (HELLO, b"\x0e", 0, [DISABLE]),
        (HELLO, b"\x01", 0xCC, []),
        (MUTE_HELLO, b"\x01", 0, []),
        (b"", b"\x01", 0, []),
    ],
)
def test_interrupts_follow_the_global_enables(
    tmp_path: Path, hello: bytes, data: bytes, code: int, expected: list[Control]
) -> None:
    async def execute(request: Request) -> Reply:
        return Reply(code=code)

    async def main() -> None:
        async with Bmc(tmp_path / "bmc", execute) as bmc:
            await bmc.connect(hello)
            request = Message(1, 0x06, 0, 0x2E, data)
            # The message first: QEMU may forget what it has read behind a control.
            assert await bmc.ask(request) == [request.reply(code), *expected]
            other = Message(2, 0x06, 0, 0x2F, data)
            assert await bmc.ask(other) == [other.reply(code)]

    run(main)


def test_reply_that_a_guest_cannot_read(tmp_path: Path) -> None:
    async def execute(request: Request) -> Reply:
        return Reply(data=bytes(REPLY_DATA_BYTES + request.data[0]))

    async def main() -> None:
        async with Bmc(tmp_path / "bmc", execute) as bmc:
            longest, too_long = (Message(1, 0x0A, 0, 0x11, bytes((extra,))) for extra in (0, 1))
            assert await bmc.ask(longest) == [longest.reply(0, bytes(REPLY_DATA_BYTES))]
            assert await bmc.ask(too_long) == [too_long.reply(Code.CANNOT_RETURN_BYTES)]

    run(main)


def test_a_reply_is_no_request(tmp_path: Path) -> None:
    async def execute(request: Request) -> Reply:
        raise AssertionError(request)

    async def main() -> None:
        async with Bmc(tmp_path / "bmc", execute) as bmc:
            message = Message(1, 0x07, 0, 0x01, b"\0")
            assert await bmc.ask(message) == [message.reply(Code.INVALID_COMMAND)]

    run(main)


class Limited(FakeMachine):
    """A machine whose limits are what the test says, or not known."""

    said: Limits | None = None

    async def limits(self) -> Limits:
        if self.said is None:
            raise PlacematError("placematd does not answer")
        return self.said


def test_limits_decide(tmp_path: Path) -> None:
    machine = Limited()

    async def main() -> None:
        async with Bmc(tmp_path / "bmc", echo, machine) as bmc:
            assert await bmc.ask(DEVICE_ID) == [DEVICE_ID.reply(Code.NODE_BUSY)]
            machine.said = replace(LIMITS, ipmi=False)
            assert await bmc.ask(DEVICE_ID) == [DEVICE_ID.reply(Code.DESTINATION_UNAVAILABLE)]
            machine.said = LIMITS
            await bmc.connect()
            assert await bmc.ask(DEVICE_ID) == [DEVICE_ID.reply(0)]

    run(main)


def test_rubbish_is_ignored_and_seldom_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with Bmc(tmp_path / "bmc") as bmc:
            for _ in range(2):
                bmc.writer.write(b"\xa0\xa1\xaa\xa0" * 100 + b"x" * 5000 + b"\xa0")
                assert await bmc.ask(DEVICE_ID) == [DEVICE_ID.reply(0)]
            said = [record.getMessage() for record in caplog.records]
            assert len(said) == len(set(said)) > 0, "each kind once"
            bmc.now = REPORT_SECONDS
            bmc.writer.write(b"\xa0")
            assert await bmc.ask(DEVICE_ID) == [DEVICE_ID.reply(0)]
            assert len(caplog.records) == len(said) + 1

    run(main)


def test_random_streams(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Half a million bytes, rich in frame ends and escapes: the BMC lives, and answers nothing but whole messages."""
    caplog.set_level(logging.CRITICAL)
    source = random.Random(4)
    answered = 0

    async def execute(request: Request) -> Reply:
        nonlocal answered
        answered += 1
        return Reply(data=request.data)

    async def main() -> None:
        async with Bmc(tmp_path / "bmc", execute) as bmc:
            good = 0
            for _ in range(2000):
                noise = bytes(source.choices(b"\xa0\xa1\xaa\xb0\xba\x18\x01\x00\xff", k=source.randrange(500)))
                message = Message(source.randrange(256), 6, 0, 1, source.randbytes(source.randrange(200)))
                bmc.writer.write(noise + b"\xa0" + message.encode())
                good += 1
                while message.reply(0, message.data) not in await bmc.read():
                    pass
            assert answered >= good

    run(main)


def test_close_answers_what_has_arrived_and_leaves_the_rest_unread(tmp_path: Path) -> None:
    async def main() -> None:
        begun, go = asyncio.Event(), asyncio.Event()

        async def execute(request: Request) -> Reply:
            begun.set()
            await go.wait()
            return Reply()

        async with Bmc(tmp_path / "bmc", execute) as bmc:
            second = replace(DEVICE_ID, sequence=2)
            bmc.writer.write(DEVICE_ID.encode() + second.encode())
            await begun.wait()
            assert bmc.in_band.active
            closing = asyncio.create_task(bmc.in_band.close())
            await asyncio.sleep(0)
            with socket.socket(fileno=bmc.writer.get_extra_info("socket").fileno()) as raw:
                with pytest.raises(BrokenPipeError):
                    raw.send(DEVICE_ID.encode())
                raw.detach()
            go.set()
            answers = await bmc.read()
            while len(answers) < 2:
                answers += await bmc.read()
            assert answers == [DEVICE_ID.reply(0), second.reply(0)]
            assert await bmc.reader.read() == b""
            await closing
            assert not bmc.in_band.active
            assert bmc.path.exists()  # it is systemd's, and so is who connects from now on

    run(main)


def test_a_new_connection_replaces_the_one_before(tmp_path: Path) -> None:
    async def main() -> None:
        async with Bmc(tmp_path / "bmc") as bmc:
            assert await bmc.ask(DEVICE_ID) == [DEVICE_ID.reply(0)]
            before = bmc.reader
            await bmc.connect()
            assert await bmc.ask(DEVICE_ID) == [DEVICE_ID.reply(0)]
            assert await before.read() == b""

    run(main)


def test_activity(tmp_path: Path) -> None:
    async def main() -> None:
        begun, go = asyncio.Event(), asyncio.Event()

        async def execute(request: Request) -> Reply:
            begun.set()
            await go.wait()
            return Reply()

        async with Bmc(tmp_path / "bmc", execute) as bmc:
            bmc.now = 5.0
            assert (bmc.in_band.active, bmc.in_band.last_activity) == (False, 0.0)
            bmc.writer.write(DEVICE_ID.encode())
            await begun.wait()
            assert (bmc.in_band.active, bmc.in_band.last_activity) == (True, 5.0)
            bmc.now = 7.0
            go.set()
            await bmc.read()
            assert (bmc.in_band.active, bmc.in_band.last_activity) == (False, 7.0)

    run(main)


def test_memory_is_bounded_while_a_request_is_executed(tmp_path: Path) -> None:
    async def main() -> None:
        begun, go = asyncio.Event(), asyncio.Event()

        async def execute(request: Request) -> Reply:
            begun.set()
            await go.wait()
            return Reply()

        async with Bmc(tmp_path / "bmc", execute) as bmc:
            bmc.writer.write(DEVICE_ID.encode() * 1_000_000)
            await begun.wait()
            flushed = asyncio.create_task(bmc.writer.drain())
            await asyncio.sleep(0.2)
            assert not flushed.done()  # the rest waits with the sender
            flushed.cancel()
            bmc.writer.transport.abort()
            go.set()

    run(main)
