"""The IPMI server of one BMC: what a datagram is, whose it is, and who answers it.

Everything up to a packet with a session's own signature may be a stranger's: it is answered or dropped on the spot,
and changes nothing but the bounded table of handshakes. Requests of a session wait in a queue of that session's own.
"""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, cast
from uuid import UUID

from ...errors import PlacematError
from ..accounts import PRIVILEGE_OF, Accounts
from ..machine import Machine
from .channel import (
    ACTIVATE_SESSION,
    CLOSE_SESSION,
    GET_SESSION_CHALLENGE,
    NETFN_APP,
    OUTSIDE_SESSION,
    ChannelCommands,
    guid_bytes,
)
from .limited_log import Warnings
from .payloads import PayloadCommands
from .rakp import Handshakes
from .request import Caller, Code, Execute, Reply, Request
from .rmcp import (
    AUTH_NONE,
    AUTH_RMCP_PLUS,
    CLASS_ASF,
    CLASS_IPMI,
    RMCP_VERSION,
    Message,
    Packet,
    PayloadType,
    parse_message,
    parse_packet,
    parse_v15,
    plain_packet,
    pong,
    v15_packet,
)
from .sol import Sol
from .table import QUEUE_LENGTH, Address, Session, Sessions

log = logging.getLogger("placemat.bmc")

LARGEST_DATAGRAM = 1024
SWEEP_SECONDS = 2.0
DEFAULT_PORT = 623


class IpmiServer(asyncio.DatagramProtocol):
    """IPMI over LAN for one BMC, on a socket that was bound before.

    sessions = Sessions()
    server = IpmiServer(machine, accounts, Commands(machine, accounts, sessions).execute, uuid, sessions=sessions)
    await server.attach(sock)

    `clock` counts seconds (monotonic). `execute` runs a request of the system interface too, the LAN's own commands
    included.
    """

    def __init__(
        self,
        machine: Machine,
        accounts: Accounts,
        execute: Execute,
        guid: UUID,
        *,
        sessions: Sessions | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.sessions = sessions if sessions is not None else Sessions(clock)
        self.last_activity = clock()
        """When (on `clock`) something was answered last."""
        self._clock = clock
        self._accounts = accounts
        self._execute = execute
        self._warn = Warnings(clock)
        self._handshakes = Handshakes(accounts, guid_bytes(guid), self.sessions, self._warn)
        self._channel = ChannelCommands(self.sessions, guid)
        self._sol = Sol(machine, self._send_in_session)
        self._payloads = PayloadCommands(machine, accounts, self.sessions, self._sol, self._port)
        self._transport: asyncio.DatagramTransport | None = None
        self._late: socket.socket | None = None
        """What answers go through between `close` and `finish`."""
        self._full = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self.sessions.on_close(self._sol.ended)
        accounts.subscribe(self._account_changed)

    # life

    async def attach(self, sock: socket.socket) -> None:
        """Serve a bound UDP socket, which becomes the server's own."""
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, sock=sock)

    def close(self) -> None:
        """Take nothing more; what is being executed is brought to its end and answered (`finish` waits for it)."""
        self._sol.deactivate(None)
        for session in list(self.sessions):
            self.sessions.close(session)
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        if self._transport is not None:
            if self._tasks:
                # A transport that is closed sends nothing; one that is open would take packets of the next process.
                self._late = self._transport.get_extra_info("socket").dup()
            self._transport.close()
            self._transport = None

    async def finish(self) -> None:
        """Wait until all that was accepted has been done."""
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._late is not None:
            self._late.close()
            self._late = None

    @property
    def active_sessions(self) -> int:
        """How many sessions are open."""
        return len(self.sessions)

    @property
    def busy(self) -> bool:
        """Whether anything is being executed, or somebody is logging in."""
        return bool(self._tasks) or len(self._handshakes) > 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def pause_writing(self) -> None:
        """Called by the event loop: the kernel takes no more, so that answers are dropped, as a network would."""
        self._full = True

    def resume_writing(self) -> None:
        """Called by the event loop."""
        self._full = False

    def _port(self) -> int:
        name = self._transport.get_extra_info("sockname") if self._transport else None
        return int(name[1]) if name else DEFAULT_PORT

    def sweep(self) -> None:
        """End what has timed out; called again and again while there is anything that can."""
        self._handshakes.expire()
        self.sessions.expire()
        if self._sweep is not None:
            self._sweep.cancel()
        waiting = len(self.sessions) or len(self._handshakes) or self.sessions.has_revoked
        self._sweep = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self.sweep) if waiting else None

    # datagrams

    def datagram_received(self, data: bytes, addr: Address) -> None:
        """Handle one datagram; nothing that it may be raises."""
        if not 4 < len(data) <= LARGEST_DATAGRAM or data[0] != RMCP_VERSION:
            return
        try:
            self._receive(data, addr)
        except Exception as error:
            self._warn(f"packet from {addr[0]} dropped: {error!r}")

    def _receive(self, data: bytes, address: Address) -> None:
        kind = data[4] & 0x0F
        if data[3] == CLASS_ASF:
            self._send(pong(data), address)
        elif data[3] == CLASS_IPMI and kind == AUTH_RMCP_PLUS:
            packet = parse_packet(data)
            if packet is not None and packet.session_id:
                self._receive_in_session(packet, address)
            elif packet is not None and not packet.encrypted and not packet.authenticated:
                self._receive_outside(packet, address)
        elif data[3] == CLASS_IPMI and kind == AUTH_NONE:
            raw = parse_v15(data)
            reply = self._answer_stranger(raw, address) if raw is not None else None
            self._send(v15_packet(reply) if reply else None, address)

    def _receive_outside(self, packet: Packet, address: Address) -> None:
        if packet.payload_type == PayloadType.IPMI:
            reply = self._answer_stranger(packet.payload, address)
            self._send(plain_packet(PayloadType.IPMI, reply) if reply else None, address)
            return
        answer = self._handshakes.answer(packet.payload_type, packet.payload, address)
        if answer is not None:
            self._send(plain_packet(*answer), address)
            self._keep_sweeping()

    def _answer_stranger(self, raw: bytes, address: Address) -> bytes | None:
        """Answer a message of somebody who is not logged in, in either version of IPMI."""
        message = parse_message(raw)
        if message is None:
            return None
        if message.netfn == NETFN_APP and message.command in OUTSIDE_SESSION:
            reply = self._channel.execute(_request(message, Caller(remote=(address[0], address[1]))))
            return message.reply(reply.code, reply.data) if reply else None
        if message.netfn == NETFN_APP and message.command in (GET_SESSION_CHALLENGE, ACTIVATE_SESSION):
            return message.reply(Code.INVALID_COMMAND)
        return message.reply(Code.INSUFFICIENT_PRIVILEGE)

    def _receive_in_session(self, packet: Packet, address: Address) -> None:
        session = self.sessions.find(packet.session_id)
        payload = session.unseal(packet, self._clock()) if session else None
        if session is None or payload is None:
            return
        session.address = address
        self.last_activity = self._clock()
        if packet.payload_type == PayloadType.SOL:
            self._sol.receive(session, payload)
        elif packet.payload_type == PayloadType.IPMI:
            self._enqueue(session, payload)

    def _send(self, datagram: bytes | None, address: Address) -> None:
        if datagram is None or self._full:
            return
        self.last_activity = self._clock()
        if self._transport is not None:
            self._transport.sendto(datagram, address)
        elif self._late is not None:
            with contextlib.suppress(OSError):
                self._late.sendto(datagram, address)

    def _send_in_session(self, session: Session, payload_type: int, payload: bytes) -> None:
        self._send(session.seal(payload_type, payload), session.address)

    def _keep_sweeping(self) -> None:
        if self._sweep is None:
            self.sweep()

    # requests of a session

    def _enqueue(self, session: Session, raw: bytes) -> None:
        message = parse_message(raw)
        if message is None or raw == session.running or raw in session.queue:
            return
        before = session.replied(raw, self._clock())
        if before is not None:
            self._send_in_session(session, PayloadType.IPMI, before)
        elif len(session.queue) >= QUEUE_LENGTH:
            self._send_in_session(session, PayloadType.IPMI, message.reply(Code.NODE_BUSY))
        else:
            session.queue.append(raw)
            if session.running is None:
                session.running = raw
                self._spawn(self._work(session))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, session: Session) -> None:
        """Execute the requests of a session one after the other: answer first, then act."""
        try:
            while session.queue:
                session.running = raw = session.queue.popleft()
                message = parse_message(raw)
                if message is None:
                    continue
                reply = await self._answer(session, message)
                answer = message.reply(reply.code, reply.data)
                session.remember(raw, answer, self._clock())
                self._send_in_session(session, PayloadType.IPMI, answer)
                if reply.after is not None:
                    await self._act(reply.after)
        finally:
            session.running = None

    async def _answer(self, session: Session, message: Message) -> Reply:
        closes = message.netfn == NETFN_APP and message.command == CLOSE_SESSION
        if session.revoked is not None and not closes:
            return Reply(code=Code.INSUFFICIENT_PRIVILEGE)
        return await self.execute(_request(message, session.caller))

    async def execute(self, request: Request) -> Reply:
        """Run any command, this transport's own first."""
        try:
            own = self._channel.execute(request) or await self._payloads.execute(request)
            return own if own is not None else await self._execute(request)
        except Exception as error:
            self._warn(f"command {request.netfn:#04x}/{request.command:#04x} failed: {error!r}")
            return Reply(code=Code.UNSPECIFIED)

    async def _act(self, after: Callable[[], Awaitable[None]]) -> None:
        try:
            await after()
        except PlacematError as error:
            self._warn(f"a command that was answered failed: {error}")
        except Exception as error:
            self._warn(f"a command that was answered failed: {error!r}")

    def _account_changed(self, slot: int) -> None:
        """End the sessions of a user who may not log in like that any more."""
        account = self._accounts.by_slot(slot)
        for session in self.sessions:
            if session.account.slot != slot:
                continue
            known = session.account
            if (
                account is None
                or (account.name, account.password) != (known.name, known.password)
                or not account.may_log_in("ipmi")
                or PRIVILEGE_OF[account.role] < session.limit
            ):
                self.sessions.revoke(session)
            else:
                session.account = account


def _request(message: Message, caller: Caller) -> Request:
    return Request(netfn=message.netfn, command=message.command, data=message.data, lun=message.lun, caller=caller)
