"""The BMC as its own guest sees it: the server's end of the OpenIPMI VM protocol (`ipmi.vm`).

QEMU's device is behind it, with placematd's relay between (`baseboard.inband`), which lets only whole messages through
and slows down a guest that floods. Power is switched by the commands, as for everybody else; the protocol's own power
controls are never sent.
"""

import asyncio
import logging
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from ..errors import PlacematError
from ..pace import Complaints
from .ipmi.request import SYSTEM_INTERFACE, Caller, Code, Execute, Privilege, Reply, Request
from .ipmi.vm import CAN_INTERRUPT, REPLY_DATA_BYTES, Control, ControlCode, Decoder, Fault, Message
from .machine import Machine

SET_GLOBAL_ENABLES = (0x06, 0x2E)
"""Set BMC Global Enables (IPMI 2.0 section 22.1): bit 0 of its data switches the interface's interrupts."""

READ_BYTES = 4096
"""What is read at once, and half of what waits in memory while a request is executed."""

CLOSE_SECONDS = 5.0
"""How long the end waits for requests that were begun."""

CALLER = Caller(channel=SYSTEM_INTERFACE, privilege=Privilege.ADMINISTRATOR)

log = logging.getLogger("placemat.bmc")


class InBand:
    """Answers the guest with `execute`, one request at a time; nothing is executed where the limits say no IPMI.

    There is one placematd, so a new connection replaces the one before.
    """

    def __init__(self, execute: Execute, machine: Machine, clock: Callable[[], float] = time.monotonic) -> None:
        self._execute, self._machine, self._clock = execute, machine, clock
        self._server: asyncio.Server | None = None
        self._current: asyncio.StreamWriter | None = None
        self._allowed: bool | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._requests = 0
        self._closing = False
        self._report = Complaints(lambda problem: log.warning("system interface: %s", problem), clock)
        self.last_activity = clock()
        """When the guest last asked something or was answered, by `clock`."""

    @property
    def active(self) -> bool:
        """Whether a request is being worked on. A connection that is open is no reason to stay."""
        return self._requests > 0

    async def attach(self, sock: socket.socket) -> None:
        """Serve a Unix stream socket that listens already and belongs to somebody else (systemd)."""
        if sys.version_info >= (3, 13):
            self._server = await asyncio.start_unix_server(
                self._serve, sock=sock, limit=READ_BYTES, cleanup_socket=False
            )
        else:
            self._server = await asyncio.start_unix_server(self._serve, sock=sock, limit=READ_BYTES)

    async def close(self) -> None:
        """End. What has arrived is answered first; what has not stays with the relay, which asks the next process."""
        self._closing = True
        if self._server:
            self._server.close()
        if self._current:
            with suppress(OSError):  # the relay has gone already
                self._current.get_extra_info("socket").shutdown(socket.SHUT_RD)
        if self._connections:
            _, stuck = await asyncio.wait(self._connections, timeout=CLOSE_SECONDS)
            for task in stuck:
                task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closing:
            writer.transport.abort()  # unread
            return
        if self._current:
            self._current.transport.abort()
        self._current, self._allowed = writer, None
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._converse(reader, writer)
        except OSError as error:
            log.debug("system interface: %s", error)
        finally:
            self._connections.discard(task)
            if self._current is writer:
                self._current = None
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from QEMU's hello to its end."""
        decoder = Decoder()
        can_interrupt = False
        while data := await reader.read(READ_BYTES):
            for item in decoder.feed(data):
                if isinstance(item, Message):
                    await self._answer(item, can_interrupt, writer)
                elif isinstance(item, Fault):
                    self._report(f"a message was ignored: {item.reason}")
                elif item.code == ControlCode.CAPABILITIES:
                    can_interrupt = bool(item.data and item.data[0] & CAN_INTERRUPT)

    async def _answer(self, message: Message, can_interrupt: bool, writer: asyncio.StreamWriter) -> None:
        self._requests += 1
        self.last_activity = self._clock()
        try:
            reply = await self._reply(message)
            writer.write(_encode(message, reply, can_interrupt))
            await writer.drain()
            if reply.after:
                await reply.after()
        except PlacematError as error:
            self._report(str(error))
        finally:
            self._requests -= 1
            self.last_activity = self._clock()

    async def _reply(self, message: Message) -> Reply:
        if message.netfn & 1:  # a reply is no question
            return Reply(code=Code.INVALID_COMMAND)
        try:
            if self._allowed is None:
                self._allowed = (await self._machine.limits()).ipmi
        except PlacematError as error:
            self._report(f"what this BMC may do is not known: {error}")
            return Reply(code=Code.NODE_BUSY)
        if not self._allowed:
            return Reply(code=Code.DESTINATION_UNAVAILABLE)
        return await self._execute(
            Request(netfn=message.netfn, command=message.command, data=message.data, lun=message.lun, caller=CALLER)
        )


def _encode(message: Message, reply: Reply, can_interrupt: bool) -> bytes:
    """A reply as it goes to QEMU, with the switch for interrupts behind it where the guest has just set that."""
    if len(reply.data) > REPLY_DATA_BYTES:
        return message.reply(Code.CANNOT_RETURN_BYTES).encode()
    sent = message.reply(reply.code, reply.data).encode()
    if can_interrupt and reply.code == Code.OK and (message.netfn, message.command) == SET_GLOBAL_ENABLES:
        enable = bool(message.data and message.data[0] & 1)
        sent += Control(ControlCode.ENABLE_INTERRUPT if enable else ControlCode.DISABLE_INTERRUPT).encode()
    return sent
