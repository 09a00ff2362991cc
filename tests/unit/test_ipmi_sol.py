"""Serial over LAN and the commands about it."""

import asyncio
from collections.abc import Callable, Coroutine

import pytest
from fakes.machine import FakeMachine
from ipmi_peer import Bmc, Peer, a_bmc, request, settle

from placematd.bmc.ipmi.sol import BUFFER_BYTES, CHARACTERS, KEPT_BYTES, TYPED_BYTES, Link, SolTiming
from placematd.errors import PlacematError

ACTIVATE = b"\x01\x01\xc0\x00\x00\x00"
DEACTIVATE = b"\x01\x01\x00\x00\x00\x00"
NACK, DEACTIVATED, UNAVAILABLE, OVERRUN = 0x40, 0x10, 0x20, 0x08


def run(scenario: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 30))


async def logged_in(user: str = "admin", bmc: Bmc | None = None, port: int = 40000) -> tuple[Bmc, Peer]:
    bmc = bmc or await a_bmc(FakeMachine("On", echo=False))
    peer = Peer(bmc, user=user, port=port)
    assert peer.log_in({"admin": 0x14, "reader": 0x12}[user]) == 0
    if user == "admin":
        await peer.ask(0x06, 0x3B, b"\x04")
    return bmc, peer


def test_activation() -> None:
    async def scenario() -> None:
        bmc, peer = await logged_in()
        assert await peer.ask(0x06, 0x4A, b"\x01") == (0, b"\x01\x00\x00")
        assert await peer.ask(0x06, 0x4B, b"\x01\x01") == (0, bytes(4) + b"\x01" + bytes(7))
        size = (CHARACTERS + 4).to_bytes(2, "little")
        assert await peer.ask(0x06, 0x48, ACTIVATE) == (0, bytes(4) + size + size + b"\x6f\x02\xff\xff")
        assert await peer.ask(0x06, 0x4A, b"\x01") == (0, b"\x01\x01\x00")
        (code, info) = await peer.ask(0x06, 0x4B, b"\x01\x01")
        assert (code, info[:4]) == (0, peer.session_id.to_bytes(4, "little"))
        assert bmc.server.sessions.all()[0].console
        assert await peer.ask(0x06, 0x48, ACTIVATE) == (0x80, b"")
        assert await peer.ask(0x06, 0x49, DEACTIVATE) == (0, b"")
        assert await peer.ask(0x06, 0x49, DEACTIVATE) == (0x80, b"")
        assert peer.received(1) == [], "who deactivates it need not be told"
        assert not bmc.machine.viewers

    run(scenario)


def test_another_session_can_take_it_away() -> None:
    async def scenario() -> None:
        bmc, peer = await logged_in()
        _, other = await logged_in("reader", bmc, 40001)
        assert (await peer.ask(0x06, 0x48, ACTIVATE))[0] == 0
        assert await other.ask(0x06, 0x48, ACTIVATE) == (0x80, b"")
        assert await other.ask(0x06, 0x49, DEACTIVATE) == (0, b"")
        assert peer.received(1) == [bytes((0, 0, 0, DEACTIVATED))]
        assert (await other.ask(0x06, 0x48, ACTIVATE))[0] == 0
        bmc.machine.guest_prints(b"x" * 100)
        await settle()
        assert peer.received(1) == [] and other.received(1) == [b"\x01\x00\x00\x00" + b"x" * 100]

    run(scenario)


def test_it_ends_with_its_session() -> None:
    async def scenario() -> None:
        bmc, peer = await logged_in()
        await peer.ask(0x06, 0x48, ACTIVATE)
        assert len(bmc.machine.viewers) == 1
        await peer.ask(0x06, 0x3C, peer.session_id.to_bytes(4, "little"))
        await settle()
        assert not bmc.machine.viewers
        _, other = await logged_in(bmc=bmc, port=40001)
        assert (await other.ask(0x06, 0x48, ACTIVATE))[0] == 0

    run(scenario)


@pytest.mark.parametrize(
    ("command", "data", "code"),
    [
        (0x48, b"\x01\x01\x40\x00\x00\x00", 0x84),
        (0x48, b"\x01\x02\xc0\x00\x00\x00", 0xCC),
        (0x48, b"\x00\x01\xc0\x00\x00\x00", 0xCC),
        (0x48, ACTIVATE[:-1], 0xC7),
        (0x49, b"\x01\x02\x00\x00\x00\x00", 0xCC),
        (0x49, DEACTIVATE + b"\0", 0xC7),
        (0x4A, b"\x02", 0xCC),
        (0x4A, b"", 0xC7),
        (0x4B, b"\x01\x03", 0xCC),
        (0x4E, b"\x07", 0xCC),
        (0x4F, b"\x0e\x20", 0x80),
        (0x4F, b"\x0e", 0xC7),
        (0x4D, b"\x0e\x09", 0xCC),
        (0x4C, b"\x0e\x04\x04\x00\x00\x00", 0xCC),
    ],
)
def test_payload_commands_that_are_asked_wrongly(command: int, data: bytes, code: int) -> None:
    async def scenario() -> None:
        _, peer = await logged_in()
        assert await peer.ask(0x06, command, data) == (code, b"")

    run(scenario)


def test_what_payloads_there_are() -> None:
    async def scenario() -> None:
        _, peer = await logged_in()
        assert await peer.ask(0x06, 0x4E, b"\x0e") == (0, bytes.fromhex("03003f0000000000"))
        for payload_type in (0x00, 0x01, 0x10, 0x15):
            assert await peer.ask(0x06, 0x4F, bytes((0x01, payload_type))) == (0, b"\x10")

    run(scenario)


def test_who_may_have_the_console() -> None:
    async def scenario() -> None:
        bmc, peer = await logged_in()
        _, reader = await logged_in("reader", bmc, 40001)
        assert await peer.ask(0x06, 0x4D, b"\x0e\x04") == (0, b"\x02\0\0\0")
        assert await peer.ask(0x06, 0x4C, b"\x0e\x44\x02\0\0\0") == (0, b"")
        assert await peer.ask(0x06, 0x4D, b"\x0e\x04") == (0, b"\0\0\0\0")
        assert await reader.ask(0x06, 0x48, ACTIVATE) == (0xD4, b"")
        assert await reader.ask(0x06, 0x4C, b"\x0e\x04\x02\0\0\0") == (0xD4, b"")
        assert await peer.ask(0x06, 0x4C, b"\x0e\x04\x02\0\0\0") == (0, b"")
        assert await peer.ask(0x0C, 0x21, b"\x0e\x02\xc3") == (0, b"")
        assert await reader.ask(0x06, 0x48, ACTIVATE) == (0xD4, b"")
        assert await peer.ask(0x0C, 0x21, b"\x0e\x01\x00") == (0, b"")
        assert await peer.ask(0x06, 0x48, ACTIVATE) == (0x81, b"")

    run(scenario)


@pytest.mark.parametrize(
    ("parameter", "default", "changed"),
    [
        (0, b"\x00", b"\x01"),
        (1, b"\x01", b"\x00"),
        (2, b"\xc2", b"\xc4"),
        (3, b"\x01\x60", b"\x05\x20"),
        (4, b"\x07\x32", b"\x03\x0a"),
        (5, b"\x0a", b"\x06"),
        (6, b"\x0a", b"\x07"),
    ],
)
def test_configuration_is_changed_and_kept(parameter: int, default: bytes, changed: bytes) -> None:
    async def scenario() -> None:
        machine = FakeMachine("On")
        bmc, peer = await logged_in(bmc=await a_bmc(machine))
        get, put = bytes((0x0E, parameter, 0, 0)), bytes((0x0E, parameter))
        assert await peer.ask(0x0C, 0x22, get) == (0, b"\x11" + default)
        assert await peer.ask(0x0C, 0x21, put + changed) == (0, b"")
        assert await peer.ask(0x0C, 0x22, get) == (0, b"\x11" + changed)
        await bmc.accounts.delete(3)
        again = await a_bmc_of(machine)
        _, peer = await logged_in(bmc=again)
        assert await peer.ask(0x0C, 0x22, get) == (0, b"\x11" + (changed if parameter else default))

    run(scenario)


async def a_bmc_of(machine: FakeMachine) -> Bmc:
    """Another process for the same machine."""
    from ipmi_peer import Clock

    from placematd.bmc.accounts import Accounts

    accounts = Accounts(machine)
    await accounts.load()
    return Bmc(machine, accounts, Clock())


@pytest.mark.parametrize(
    ("command", "data", "code"),
    [
        (0x22, b"\x0e\x09\x00\x00", 0x80),
        (0x22, b"\x07\x01\x00\x00", 0xCC),
        (0x22, b"\x0e\x01\x00", 0xC7),
        (0x21, b"\x0e\x07\x01", 0x82),
        (0x21, b"\x0e\x09\x01", 0x80),
        (0x21, b"\x0e\x00\x02", 0xCC),
        (0x21, b"\x0e\x01", 0xC7),
        (0x21, b"\x0e\x03\x01", 0xC7),
        (0x21, b"\x0e\x03\x00\x01", 0xCC),
        (0x21, b"\x0e\x02\x02", 0xCC),
        (0x21, b"\x0e\x02\xc1", 0xCC),
        (0x21, b"\x0e\x05\x0b", 0xCC),
    ],
)
def test_configuration_that_is_refused(command: int, data: bytes, code: int) -> None:
    async def scenario() -> None:
        _, peer = await logged_in()
        assert await peer.ask(0x0C, command, data) == (code, b"")
        assert await peer.ask(0x0C, 0x22, b"\x8e\x00\x00\x00") == (0, b"\x11")

    run(scenario)


def test_somebody_else_is_changing_the_configuration() -> None:
    async def scenario() -> None:
        _, peer = await logged_in()
        assert await peer.ask(0x0C, 0x21, b"\x0e\x00\x01") == (0, b"")
        assert await peer.ask(0x0C, 0x21, b"\x0e\x00\x01") == (0x81, b"")
        assert await peer.ask(0x0C, 0x21, b"\x0e\x00\x00") == (0, b"")

    run(scenario)


def test_nothing_is_lost_and_nothing_comes_before_the_answer() -> None:
    async def scenario() -> None:
        bmc, peer = await logged_in()
        opened, console = asyncio.Event(), bmc.machine.console

        async def slow() -> object:
            await opened.wait()
            return await console()

        bmc.machine.console = slow  # type: ignore[assignment, method-assign]
        assert await peer.tell(peer.seal(request(0x06, 0x48, ACTIVATE, 50))) == []
        opened.set()
        while not bmc.machine.viewers:
            await asyncio.sleep(0)
        bmc.machine.guest_prints(b"x" * 96)
        await settle()
        types = [peer.unseal(datagram)[0] for datagram, _ in bmc.wire.sent]
        assert types == [0, 1], "the answer, then the output"

    run(scenario)


def test_what_is_typed_arrives_once() -> None:
    async def scenario() -> None:
        bmc, peer = await logged_in()
        await peer.ask(0x06, 0x48, ACTIVATE)
        for packet in (b"\x01\0\0\0ab", b"\x01\0\0\0ab", b"\x02\0\0\0c", b"\x0f\0\0\0d", b"\x01\0\0\0e"):
            bmc.server.datagram_received(peer.seal(packet, 1), peer.address)
            await settle()
        assert bmc.machine.typed == b"abcde"
        assert peer.received(1) == [
            bytes((0, sequence, count, 0)) for sequence, count in ((1, 2), (1, 2), (2, 1), (15, 1), (1, 1))
        ]
        for packet in (b"", b"\x02", b"\x02\0\0", b"\x03\0\0\0" + bytes(256)):
            bmc.server.datagram_received(peer.seal(packet, 1), peer.address)
        await settle()
        assert peer.received(1) == []

    run(scenario)


def test_another_session_cannot_type() -> None:
    async def scenario() -> None:
        bmc, peer = await logged_in()
        _, other = await logged_in(bmc=bmc, port=40001)
        await peer.ask(0x06, 0x48, ACTIVATE)
        bmc.server.datagram_received(other.seal(b"\x01\0\0\0x", 1), other.address)
        await settle()
        assert bmc.machine.typed == b"" and other.received(1) == []

    run(scenario)


class Console:
    """A machine that has only a console; `write` waits for `writable`."""

    def __init__(self) -> None:
        self.output: asyncio.Queue[bytes] = asyncio.Queue()
        self.typed = b""
        self.writable = asyncio.Event()
        self.emptied = asyncio.Event()
        """Set while a reader waits for output."""
        self.opened = 0
        self.closed = 0
        self.reads = 0
        self.refused = False

    async def console(self) -> "Console":
        if self.refused:
            raise PlacematError("no power")
        self.opened += 1
        return self

    async def read(self) -> bytes:
        self.emptied.clear() if self.output.qsize() else self.emptied.set()
        data = await self.output.get()
        self.reads += 1
        return data

    async def write(self, data: bytes) -> None:
        await self.writable.wait()
        self.typed += data

    async def close(self) -> None:
        self.closed += 1


class Line:
    """A Link with what it sent; time is real, the intervals are short."""

    def __init__(self, **timing: int) -> None:
        self.machine = Console()
        self.sent: list[bytes] = []
        self.more = asyncio.Event()
        self.link = Link(self.machine, SolTiming(**{"accumulate": 1, "retry_interval": 1, **timing}), self.send)  # type: ignore[arg-type]
        self.opening = asyncio.ensure_future(self.link.open())
        self.link.start()

    def send(self, payload: bytes) -> None:
        self.sent.append(payload)
        self.more.set()

    async def next(self) -> bytes:
        while not self.sent:
            self.more.clear()
            await self.more.wait()
        return self.sent.pop(0)

    def print(self, text: bytes) -> None:
        self.machine.output.put_nowait(text)


def test_output_waits_for_its_acknowledgement() -> None:
    async def scenario() -> None:
        line = Line(retry_interval=255)
        line.print(b"a" * CHARACTERS + b"b" * 10)
        assert await line.next() == b"\x01\0\0\0" + b"a" * CHARACTERS
        line.print(b"c")
        await settle()
        assert line.sent == []
        line.link.receive(bytes((0, 2, CHARACTERS, 0)))
        assert line.sent == [], "an acknowledgement of something else"
        line.link.receive(bytes((0, 1, CHARACTERS, 0)))
        assert await line.next() == b"\x02\0\0\0" + b"b" * 10 + b"c"
        line.link.receive(bytes((0, 2, 4, 0)))
        assert await line.next() == b"\x03\0\0\0" + b"b" * 6 + b"c", "the client took a part"
        line.link.receive(bytes((0, 3, 200, 0)))
        for number in (*range(4, 16), 1, 2):
            line.print(b"x" * 96)
            assert await line.next() == bytes((number, 0, 0, 0)) + b"x" * 96
            line.link.receive(bytes((0, number, 96, 0)))
        line.link.close(tell=True)
        assert line.sent == [bytes((0, 0, 0, DEACTIVATED))]

    run(scenario)


def test_output_is_sent_again_until_somebody_takes_it() -> None:
    async def scenario() -> None:
        line = Line(retries=3)
        line.print(b"hello")
        assert [await line.next() for _ in range(4)] == [b"\x01\0\0\0hello"] * 4
        await asyncio.sleep(0.05)
        assert line.sent == [], "no more than the retries"
        line.print(b" world")
        await settle()
        line.link.receive(bytes((0, 1, 5, 0)))
        assert await line.next() == b"\x02\0\0\0 world"
        line.link.close(tell=False)

    run(scenario)


def test_what_nobody_takes_is_bounded() -> None:
    async def scenario() -> None:
        line = Line(retries=1)
        for _ in range(100):
            line.print(bytes(4096))
        first = await line.next()
        await settle()
        assert line.machine.reads == BUFFER_BYTES // 4096 + 1, "the console waits for the client"
        await line.machine.emptied.wait()
        assert len(line.link._buffer) <= KEPT_BYTES, "but not for ever"
        assert await line.next() == first
        line.link.receive(bytes((0, 1, CHARACTERS, 0)))
        assert (await line.next())[3] == OVERRUN
        line.link.receive(bytes((0, 2, CHARACTERS, 0)))
        assert (await line.next())[3] == 0
        line.link.close(tell=False)

    run(scenario)


def test_input_is_bounded_and_refused_while_there_is_no_room() -> None:
    async def scenario() -> None:
        line = Line()
        await settle()
        sent = 0
        for number in range(60):
            line.link.receive(bytes((number % 15 + 1, 0, 0, 0)) + b"x" * 250)
            await settle()
            answer = await line.next()
            sent += answer[2]
            if answer[3]:
                break
        assert answer == bytes((0, number % 15 + 1, 0, NACK))
        assert TYPED_BYTES - 250 < sent <= TYPED_BYTES + 250
        line.machine.writable.set()
        await settle()
        line.link.receive(bytes((number % 15 + 1, 0, 0, 0)) + b"x" * 250)
        assert await line.next() == bytes((0, number % 15 + 1, 250, 0)), "the retry is taken"
        await settle()
        assert line.machine.typed == b"x" * (sent + 250)
        line.link.close(tell=False)

    run(scenario)


def test_the_client_can_pause_and_flush() -> None:
    async def scenario() -> None:
        line = Line(retry_interval=255)
        line.link.receive(b"\0\0\0\x08")
        line.print(b"x" * 100)
        await settle()
        assert line.sent == []
        line.link.receive(b"\0\0\0\x01")
        line.print(b"y" * 100)
        assert await line.next() == b"\x01\0\0\0" + b"y" * 100
        line.link.close(tell=False)

    run(scenario)


def test_the_console_may_end_and_come_back() -> None:
    async def scenario() -> None:
        line = Line(retry_interval=255)
        await settle()
        line.machine.refused = True
        line.print(b"")
        await settle()
        assert (line.machine.opened, line.machine.closed) == (1, 1)
        line.link.receive(b"\x01\0\0\0x")
        assert await line.next() == bytes((0, 1, 0, NACK | UNAVAILABLE))
        line.machine.refused = False
        line.print(b"booted" * 20)
        assert await line.next() == b"\x01\0\0\0" + b"booted" * 20
        line.machine.writable.set()
        line.link.receive(b"\x01\0\0\0x")
        assert await line.next() == bytes((0, 1, 1, 0))
        await settle()
        assert line.machine.typed == b"x"
        line.link.close(tell=False)
        await settle()
        assert line.machine.opened == line.machine.closed == 2

    run(scenario)
