"""IPMI as parts of the BMC's process: over the network, and as the guest's system interface."""

import asyncio
import socket
from collections.abc import Callable, Mapping

from .accounts import Accounts
from .inband import InBand
from .ipmi.commands import Commands
from .ipmi.server import IpmiServer
from .ipmi.sessions import SessionInfo
from .ipmi.table import Sessions
from .logins import Logins
from .machine import Login, Machine
from .process import Kind, Part


class IpmiPart:
    """IPMI over the network; where the limits say no IPMI, packets are taken and dropped."""

    def __init__(self, server: IpmiServer, commands: Commands, allowed: bool) -> None:
        self._server, self._commands, self._allowed = server, commands, allowed

    @property
    def busy(self) -> bool:
        """See Part."""
        return self._server.busy or self._server.active_sessions > 0 or self._commands.waiting

    @property
    def last_activity(self) -> float:
        """See Part."""
        return self._server.last_activity

    async def attach(self, sock: socket.socket) -> None:
        """See Part."""
        if self._allowed:
            await self._server.attach(sock)
        else:
            await asyncio.get_running_loop().create_datagram_endpoint(asyncio.DatagramProtocol, sock=sock)

    def close(self) -> None:
        """See Part."""
        self._server.close()

    async def finish(self) -> None:
        """See Part."""
        await self._server.finish()


class InBandPart:
    """The system interface."""

    def __init__(self, inband: InBand) -> None:
        self._inband = inband
        self._closing: asyncio.Future[None] | None = None

    @property
    def busy(self) -> bool:
        """See Part."""
        return self._inband.active

    @property
    def last_activity(self) -> float:
        """See Part."""
        return self._inband.last_activity

    async def attach(self, sock: socket.socket) -> None:
        """See Part."""
        await self._inband.attach(sock)

    def close(self) -> None:
        """See Part. What comes until `finish` is answered."""
        self._closing = asyncio.ensure_future(self._inband.close())

    async def finish(self) -> None:
        """See Part."""
        if self._closing:
            await self._closing


async def make_ipmi(
    machine: Machine, accounts: Accounts, logins: Logins, reset: Callable[[], None]
) -> Mapping[Kind, Part]:
    """Both parts, which share their commands and sessions; `reset` ends the process."""

    async def on_reset(cold: bool) -> None:
        reset()

    inventory, limits = await machine.inventory(), await machine.limits()

    def on_open(session: SessionInfo) -> None:
        host, _ = session.remote
        logins.note(Login(user=session.user, protocol="IPMI", remote=host))

    sessions = Sessions()
    sessions.on_open(on_open)
    commands = Commands(machine, accounts, sessions, on_reset=on_reset)
    await commands.resume()
    server = IpmiServer(machine, accounts, commands.execute, inventory.uuid, sessions=sessions)
    return {"ipmi": IpmiPart(server, commands, limits.ipmi), "inband": InBandPart(InBand(server.execute, machine))}
