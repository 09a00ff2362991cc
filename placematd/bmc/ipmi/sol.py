"""Serial over LAN (IPMI 2.0 section 15): the machine's console inside a session, one session at a time."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from ...errors import PlacematError
from ..machine import ConsoleStream, Machine
from .rmcp import PayloadType
from .table import Session

HEADER_BYTES = 4
CHARACTERS = 240
"""Characters in one packet to the client; the size of a payload is that and the header."""
MOST_CHARACTERS = 255
"""What a client may send in one packet: the acknowledged count is one byte."""

TYPED_BYTES = 4096
BUFFER_BYTES = 16 * 1024
"""Output beyond this stays with the console until the client has taken some."""
KEPT_BYTES = 128 * 1024
"""What a client that stopped taking anything may find later; older output is dropped, and it is told so."""
SLOW_RETRY_SECONDS = 5.0
OPEN_SECONDS = 2.0
REOPEN_SECONDS = 0.5

_FLUSH_OUTBOUND, _FLUSH_INBOUND, _PAUSE, _CLIENT_NACK = 0x01, 0x02, 0x08, 0x40
_OVERRUN, _DEACTIVATED, _UNAVAILABLE, _NACK = 0x08, 0x10, 0x20, 0x40


@dataclass(frozen=True, kw_only=True)
class SolTiming:
    """The parameters of Serial over LAN that time its packets, in the units of table 26-5."""

    accumulate: int = 1
    """5 ms each: how long characters are collected."""
    threshold: int = 96
    """So many characters are sent at once."""
    retries: int = 7
    retry_interval: int = 50
    """10 ms each."""


class Link:
    """Serial over LAN in one session. `send` takes the payload; the console may end and come back meanwhile."""

    def __init__(self, machine: Machine, timing: SolTiming, send: Callable[[bytes], None]) -> None:
        self._machine = machine
        self._timing = timing
        self._send = send
        self._stream: ConsoleStream | None = None
        self._reader: asyncio.Task[None] | None = None
        self._typist: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._typed = bytearray()
        self._buffer = bytearray()
        self._room = asyncio.Event()
        self._room.set()
        self._in_flight = b""
        self._sequence = 0
        self._tries = 0
        self._tried = asyncio.Event()
        self._held = True
        self._paused = False
        self._overrun = False
        """Whether output was lost and the client does not know yet."""
        self._status = 0
        """What the packet in flight says besides its characters."""
        self._received = (0, 0, 0)
        """Sequence number, accepted characters and status of the last packet that the client numbered."""

    async def open(self) -> None:
        """Watch the console from now on; returns when that is so, or cannot be yet."""
        self._reader = asyncio.get_running_loop().create_task(self._run())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(OPEN_SECONDS):
                await self._tried.wait()

    def start(self) -> None:
        """Send what the console has said and says."""
        self._held = False
        if self._timer is None:
            self._transmit()

    def close(self, tell: bool) -> None:
        """End; `tell` the client, who did not ask for it, that the payload is not active any more."""
        if tell:
            self._send(bytes((0, 0, 0, _DEACTIVATED)))
        for task in (self._reader, self._typist):
            if task is not None:
                task.cancel()
        self._stop_timer()

    # from the client

    def receive(self, payload: bytes) -> None:
        """Take a packet of the client's."""
        if len(payload) < HEADER_BYTES or len(payload) > HEADER_BYTES + MOST_CHARACTERS:
            return
        sequence, acknowledged, accepted, operation = payload[0] & 0x0F, payload[1] & 0x0F, payload[2], payload[3]
        self._paused = bool(operation & _PAUSE)
        if operation & _FLUSH_INBOUND:
            self._typed.clear()
        if operation & _FLUSH_OUTBOUND:
            self._buffer.clear()
            self._room.set()
        if acknowledged and acknowledged == self._sequence and self._in_flight:
            self._acknowledge(accepted, bool(operation & _CLIENT_NACK))
        if sequence:
            self._accept(sequence, payload[HEADER_BYTES:])
        if self._timer is None:
            self._transmit()

    def _accept(self, sequence: int, characters: bytes) -> None:
        if sequence != self._received[0]:
            count, status = 0, 0
            if self._stream is None:
                status = _NACK | _UNAVAILABLE
            else:
                # All or nothing: a retry after a lost answer must not type a part of it twice.
                fits = len(self._typed) + len(characters) <= TYPED_BYTES
                count, status = (len(characters), 0) if fits else (0, _NACK)
                self._typed += characters[:count]
                self._type()
            self._received = (sequence, count, status)
        _, count, status = self._received
        self._send(bytes((0, sequence, count, status)))
        if status:
            self._received = (0, 0, 0)

    def _type(self) -> None:
        if self._typed and (self._typist is None or self._typist.done()):
            self._typist = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        while self._typed and self._stream is not None:
            characters = bytes(self._typed)
            self._typed.clear()
            with contextlib.suppress(PlacematError, OSError):
                await self._stream.write(characters)

    # to the client

    async def _run(self) -> None:
        """Read the console for as long as the payload is active; a machine without power has none."""
        while True:
            with contextlib.suppress(PlacematError, OSError):
                try:
                    self._stream = await self._machine.console()
                finally:
                    self._tried.set()
                try:
                    await self._read(self._stream)
                finally:
                    stream, self._stream = self._stream, None
                    self._typed.clear()
                    await stream.close()
            await asyncio.sleep(REOPEN_SECONDS)

    async def _read(self, stream: ConsoleStream) -> None:
        while data := await stream.read():
            self._buffer += data
            if len(self._buffer) > KEPT_BYTES:
                del self._buffer[: len(self._buffer) - KEPT_BYTES]
                self._overrun = True
            if self._timer is None:
                self._collect()
            if len(self._buffer) >= BUFFER_BYTES and self._tries <= self._timing.retries:
                self._room.clear()
                await self._room.wait()

    def _collect(self) -> None:
        """Wait a moment for more characters, unless there are enough for a packet."""
        if len(self._buffer) >= self._timing.threshold:
            self._transmit()
        else:
            self._start_timer(self._timing.accumulate * 0.005)

    def _transmit(self) -> None:
        """Send what is in flight once more, or the next characters."""
        self._stop_timer()
        if not self._in_flight:
            if self._held or self._paused or not self._buffer:
                return
            self._in_flight = bytes(self._buffer[:CHARACTERS])
            del self._buffer[:CHARACTERS]
            self._sequence = self._sequence % 15 + 1
            self._tries = 0
            self._status, self._overrun = _OVERRUN if self._overrun else 0, False
        self._send(bytes((self._sequence, 0, 0, self._status)) + self._in_flight)
        self._tries += 1
        if self._tries <= self._timing.retries:
            self._start_timer(max(self._timing.retry_interval, 1) * 0.01)
        else:
            self._room.set()
            self._start_timer(SLOW_RETRY_SECONDS)

    def _acknowledge(self, accepted: int, refused: bool) -> None:
        rest = self._in_flight[accepted:]
        self._buffer[:0] = rest
        self._in_flight = b""
        self._tries = 0
        if len(self._buffer) < BUFFER_BYTES:
            self._room.set()
        self._stop_timer()
        if refused:
            self._start_timer(max(self._timing.retry_interval, 1) * 0.01)

    def _start_timer(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._transmit)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Sol:
    """The one instance of Serial over LAN that a BMC has."""

    def __init__(self, machine: Machine, transmit: Callable[[Session, int, bytes], None]) -> None:
        self._machine = machine
        self._transmit = transmit
        self._link: Link | None = None
        self.session: Session | None = None
        """The session that has it."""

    async def activate(self, session: Session, timing: SolTiming) -> None:
        """Give it to a session: nothing that the console says from now on is lost, but sent only after `start`."""
        self.session = session
        session.console = True

        def send(payload: bytes) -> None:
            self._transmit(session, PayloadType.SOL, payload)

        self._link = Link(self._machine, timing, send)
        await self._link.open()

    def start(self, session: Session) -> None:
        """Let the characters flow; nothing where it was taken away meanwhile."""
        if self._link is not None and self.session is session:
            self._link.start()

    def deactivate(self, by: Session | None) -> None:
        """Take it away; a session that did not do it itself is told."""
        if self._link is not None and self.session is not None:
            self._link.close(tell=self.session is not by)
            self.session.console = False
        self._link = self.session = None

    def ended(self, session: Session) -> None:
        """A session has ended."""
        if self.session is session:
            self.deactivate(session)

    def receive(self, session: Session, payload: bytes) -> None:
        """A packet of a client's; only the session that has it is listened to."""
        if self.session is session and self._link is not None:
            self._link.receive(payload)
