"""IPMI commands on a machine in memory, asked and answered in hexadecimal.

async with Bench() as bench:
    assert await bench.ask("00 02 01") == "00"      # network function, command, data; completion code, data
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Self

from fakes.machine import FakeMachine

from placematd.bmc.accounts import Accounts
from placematd.bmc.ipmi.commands import Commands
from placematd.bmc.ipmi.request import LAN_CHANNEL, SYSTEM_INTERFACE, Caller, Privilege, Reply, Request
from placematd.bmc.ipmi.sessions import SessionInfo

ADMINISTRATOR = Caller(channel=LAN_CHANNEL, user_id=2, user="admin", privilege=Privilege.ADMINISTRATOR, session_id=7)
GUEST = Caller(channel=SYSTEM_INTERFACE, privilege=Privilege.ADMINISTRATOR)
NOBODY = Caller()

NOON = 1_800_000_000


def caller(privilege: Privilege, session_id: int = 7) -> Caller:
    return Caller(channel=LAN_CHANNEL, user_id=3, user="somebody", privilege=privilege, session_id=session_id)


class NoSessions:
    """A table of sessions with nobody in it."""

    last: SessionInfo | None = None

    def all(self) -> Sequence[SessionInfo]:
        return ()

    def get(self, session_id: int) -> SessionInfo | None:
        return None


class Bench:
    """Commands with one Administrator, "admin"; `now` is their clock (they start at NOON)."""

    def __init__(self, machine: FakeMachine | None = None) -> None:
        self.machine = machine or FakeMachine("On")
        self.accounts = Accounts(self.machine)
        self.resets: list[bool] = []
        self.now = float(NOON)
        self.commands = self.new_process()

    def new_process(self) -> Commands:
        """The commands as a new process has them: with nothing but what the machine keeps."""
        self.commands = Commands(self.machine, self.accounts, NoSessions(), self._reset, lambda: self.now)
        return self.commands

    async def _reset(self, cold: bool) -> None:
        self.resets.append(cold)

    async def __aenter__(self) -> Self:
        await self.accounts.load()
        if not self.accounts.all():
            await self.accounts.create(name="admin", password="secret", role="Administrator", slot=2)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: Any, trace: TracebackType | None) -> None:
        """Nothing to close."""

    async def reply(self, request: str | bytes, by: Caller = ADMINISTRATOR, lun: int = 0) -> Reply:
        raw = bytes.fromhex(request) if isinstance(request, str) else request
        wanted = Request(netfn=raw[0], command=raw[1], data=raw[2:], lun=lun, caller=by)
        return await self.commands.execute(wanted)

    async def ask(self, request: str | bytes, by: Caller = ADMINISTRATOR, lun: int = 0) -> str:
        """Ask, and do what is done after the answer."""
        reply = await self.reply(request, by, lun)
        if reply.after:
            await reply.after()
        return bytes((reply.code, *reply.data)).hex(" ")

    async def ask_all(self, *lines: str, by: Caller = ADMINISTRATOR) -> None:
        """Lines "request -> answer", asked one after the other."""
        for line in lines:
            request, _, answer = line.partition("->")
            assert await self.ask(request, by) == answer.strip(), line


def on_bench(test: Callable[[Bench], Awaitable[None]]) -> Callable[[], None]:
    """Run a test on a new bench whose machine is on."""

    def run() -> None:
        asyncio.run(_on_bench(test, Bench()))

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


async def _on_bench(test: Callable[[Bench], Awaitable[None]], bench: Bench) -> None:
    async with bench:
        await test(bench)
