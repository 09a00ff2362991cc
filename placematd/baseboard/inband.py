"""Between QEMU's IPMI device and the BMC's process: the guest's requests, one at a time.

QEMU listens at one end and lives as long as the guest; at the other end systemd listens and starts the BMC's process
when somebody connects. So nothing is connected there until the guest asks, and an idle BMC costs no process.

A guest is not trusted: whatever it sends, memory, time and journal stay bounded. Its driver waits for each answer
(QEMU gives one itself after 4 s: completion code C3), so answering late slows it down and loses nothing.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from ..bmc.ipmi.vm import Control, ControlCode, Decoder, Fault, Message
from ..chardev import Chardev
from ..pace import Allowance, Complaints

READ_BYTES = 512
"""What is read from QEMU at once: a request mostly comes alone, as one piece."""

BURST_PIECES = 500
PIECES_PER_SECOND = 200.0
PAUSE_SECONDS = 0.05
"""How long a guest that asks too much is not read."""

REPLY_SECONDS = 30.0
"""How long a BMC may take before it counts as dead; the guest has stopped waiting long before."""

ATTEMPTS = 3
"""How many processes are asked, where one after the other ends without having read the request."""

NOT_READY = 0xD2
"""Completion code "BMC initialization in progress" (IPMI 2.0 table 5-2): what QEMU says as well without a BMC."""

HELLO = {ControlCode.VERSION, ControlCode.CAPABILITIES}
FROM_BMC = {
    ControlCode.NO_ATTENTION,
    ControlCode.ATTENTION,
    ControlCode.ATTENTION_INTERRUPT,
    ControlCode.ENABLE_INTERRUPT,
    ControlCode.DISABLE_INTERRUPT,
}
"""What a BMC may tell QEMU. Power is not among it: that goes through the machine, which keeps account of it."""

log = logging.getLogger("placematd")


ToGuest = Callable[[bytes], Awaitable[None]]


class Unread(Exception):
    """The BMC's process ended before it read the request."""


class Died(Exception):
    """The BMC's process ended, or did not answer, after it may have begun with the request."""


class BmcConnection:
    """One connection to the BMC's process; `to_guest` is awaited with what goes to QEMU."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, to_guest: ToGuest) -> None:
        self._reader, self._writer, self._to_guest = reader, writer, to_guest
        self._sequence = 0
        self._answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._answered.set_result(None)
        self._task = asyncio.create_task(self._read(), name="read a BMC's answers")

    @property
    def alive(self) -> bool:
        """Whether the process has not closed the connection, as far as can be known."""
        return not (self._task.done() or self._reader.at_eof() or self._reader.exception())

    def tell(self, control: Control) -> None:
        """Pass on what QEMU says about its interface."""
        self._writer.write(control.encode())

    async def ask(self, request: Message, seconds: float) -> None:
        """Have a request answered in so long; the reply goes to the guest by itself. Raises Unread or Died."""
        if not self.alive:
            raise Unread
        self._sequence = request.sequence
        self._answered = asyncio.get_running_loop().create_future()
        self._writer.write(request.encode())
        try:
            async with asyncio.timeout(seconds):
                await self._answered
        except TimeoutError:
            raise Died(f"no answer within {seconds:g} s") from None

    def abort(self) -> None:
        """Close, whatever is under way."""
        self._writer.transport.abort()

    async def _read(self) -> None:
        end: Exception = Died("its process has ended")
        decoder = Decoder()
        try:
            while data := await self._reader.read(READ_BYTES):
                for item in decoder.feed(data):
                    await self._pass_on(item)
        except OSError:
            # A Unix socket says ECONNRESET or EPIPE where its other end was closed, or closed for reading, with
            # something unread; what was read and not answered ends in a plain end of file.
            end = Unread()
        finally:
            self._writer.transport.abort()
            if not self._answered.done():
                self._answered.set_exception(end)

    async def _pass_on(self, item: Message | Control | Fault) -> None:
        if isinstance(item, Control) and item.code in FROM_BMC:
            await self._to_guest(Control(item.code).encode())
        elif isinstance(item, Message) and item.sequence == self._sequence and not self._answered.done():
            self._answered.set_result(None)
            await self._to_guest(item.encode())


class InBandRelay:
    """A node's IPMI device: QEMU's socket at `qemu_path`, the BMC's at `bmc_path`.

    A request that no BMC answered gets NOT_READY. One that a BMC may have begun with is not asked twice.
    `report` is called with what goes wrong, at most once a minute each.
    """

    def __init__(
        self,
        qemu_path: Path,
        bmc_path: Path,
        report: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        reply_seconds: float = REPLY_SECONDS,
    ) -> None:
        self._qemu_path, self._bmc_path, self._reply_seconds = qemu_path, bmc_path, reply_seconds
        self._report = Complaints(report or self._log, clock)
        self._chardev = Chardev(qemu_path, self._on_data, self._on_end, READ_BYTES)
        self._allowance = Allowance(BURST_PIECES, PIECES_PER_SECOND, clock)
        self._decoder = Decoder()
        self._hello: dict[int, Control] = {}
        self._next: Message | None = None
        self._wake = asyncio.Event()
        self._bmc: BmcConnection | None = None
        self._task: asyncio.Task[None] | None = None

    def attach(self) -> None:
        """QEMU runs: connect, in the background, unless connected."""
        self._chardev.attach()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work(), name=f"serve {self._qemu_path}")

    async def detach(self) -> None:
        """Let go of QEMU and of the BMC; a guest that waits is told by QEMU that there is no BMC now."""
        await self._chardev.detach()
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._forget()

    async def _on_data(self, data: bytes) -> None:
        if not self._allowance.take():
            self._report(f"the guest asks its BMC more than {PIECES_PER_SECOND:g} times a second; it has to wait")
            await asyncio.sleep(PAUSE_SECONDS)
        for item in self._decoder.feed(data):
            if isinstance(item, Message):
                self._next = item  # instead of one that waits: QEMU sends another only when it gave that one up
                self._wake.set()
            elif isinstance(item, Fault):
                self._report("what the IPMI device sent was malformed and is ignored")
            elif item.code in HELLO:
                self._hello[item.code] = item

    def _on_end(self, reason: str) -> None:
        self._forget()

    def _forget(self) -> None:
        """QEMU has gone: the next one begins with a hello of its own."""
        self._decoder, self._hello, self._next = Decoder(), {}, None
        if self._bmc:
            self._bmc.abort()
            self._bmc = None

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            request, self._next = self._next, None
            if request:
                await self._answer(request)

    async def _answer(self, request: Message) -> None:
        try:
            await self._ask(request)
        except (OSError, Died) as error:
            if self._bmc:
                self._bmc.abort()
            if self._chardev.connected:
                self._report(f"the BMC did not answer the guest: {error}")
            if self._next is None:  # QEMU would take an answer to what it gave up for one to what it waits for
                await self._chardev.write(request.reply(NOT_READY).encode())

    async def _ask(self, request: Message) -> None:
        for _ in range(ATTEMPTS):
            bmc = await self._connected()
            try:
                await bmc.ask(request, self._reply_seconds)
                return
            except Unread:
                continue
        raise Died(f"{ATTEMPTS} processes ended before they had read the request")

    async def _connected(self) -> BmcConnection:
        """The BMC's process, started where there is none. Raises OSError."""
        if not (self._bmc and self._bmc.alive):
            reader, writer = await asyncio.open_unix_connection(self._bmc_path, limit=READ_BYTES)
            self._bmc = BmcConnection(reader, writer, self._chardev.write)
            for control in self._hello.values():
                self._bmc.tell(control)
        return self._bmc

    def _log(self, problem: str) -> None:
        log.warning("%s: %s", self._qemu_path, problem)
