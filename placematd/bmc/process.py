"""The life of a BMC's process: it is started by the first packet and ends when nobody has needed it for a while.

The sockets belong to systemd. Whatever has come to one and was not taken from it when the process ends starts the next
process; so does what comes later. A part (IPMI, Redfish) is imported and made when its socket has something for the
first time, because most BMCs are only ever asked for their power state.
"""

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

from ..errors import PlacematError
from ..pace import Complaints
from .accounts import Accounts
from .logins import Logins
from .machine import Machine

if TYPE_CHECKING:
    from .redfish.server import RedfishServer

IDLE_SECONDS = 300.0
FINISH_SECONDS = 5.0
"""How long what is under way may take to end when the process is told to."""

RETRY_SECONDS = 1.0

Kind = Literal["ipmi", "redfish", "inband"]

T = TypeVar("T")

log = logging.getLogger("placemat.bmc")


class Part(Protocol):
    """A server as the process sees it."""

    @property
    def busy(self) -> bool:
        """Whether the process must not end: sessions, requests, tasks, connections."""
        ...

    @property
    def last_activity(self) -> float:
        """When it was needed last, in seconds of time.monotonic()."""
        ...

    async def attach(self, sock: socket.socket) -> None:
        """Serve a socket that is bound (and listens)."""
        ...

    def close(self) -> None:
        """Take nothing more from the sockets."""
        ...

    async def finish(self) -> None:
        """After `close`: wait until what was taken has been done."""
        ...


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """Files with the server's certificate (and those between it and the CA) and its private key, both PEM."""

    certificate: Path
    key: Path


def kind_of(sock: socket.socket) -> Kind:
    """What a socket is for, by its address family and type; raises ValueError for one that is for nothing."""
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        if sock.type == socket.SOCK_DGRAM:
            return "ipmi"
        if sock.type == socket.SOCK_STREAM:
            return "redfish"
    if sock.family == socket.AF_UNIX and sock.type == socket.SOCK_STREAM:
        return "inband"
    raise ValueError(f"{sock.family.name} {sock.type.name} is no socket of a BMC")


class Process:
    """Serves one machine. `certificate` is needed where a TCP socket comes."""

    def __init__(
        self,
        machine: Machine,
        certificate: Certificate | None = None,
        *,
        idle_seconds: float = IDLE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._machine, self._certificate, self._idle_seconds, self._clock = machine, certificate, idle_seconds, clock
        self._accounts: Accounts | None = None
        self._logins = Logins(machine)
        self._parts: dict[Kind, Part] = {}
        ipmi = asyncio.Lock()
        self._making: dict[Kind, asyncio.Lock] = {"redfish": asyncio.Lock(), "ipmi": ipmi, "inband": ipmi}
        self._starting: set[asyncio.Task[None]] = set()
        self._waiting: set[socket.socket] = set()
        self._stop = asyncio.Event()
        self._failure: BaseException | None = None
        self._complain = Complaints(lambda problem: log.warning("%s", problem), clock)

    def stop(self) -> None:
        """End: also how a reset of the BMC is done, for the next packet starts a new one."""
        self._stop.set()

    async def run(self, sockets: Sequence[socket.socket], ready: Callable[[], None]) -> None:
        """Serve until idle or stopped; `ready` is called when a packet would be served.

        Raises what made a part fail for a reason that trying again does not cure.
        """
        loop = asyncio.get_running_loop()
        for sock in sockets:
            kind_of(sock)
            sock.setblocking(False)
            self._waiting.add(sock)
            loop.add_reader(sock, self._wake, sock)
        ready()
        self._begin(self._patiently(self._resume))
        try:
            await self._needed()
        finally:  # nothing was awaited since the process was found idle, so that nothing can have come in between
            for sock in self._waiting:
                loop.remove_reader(sock)
            for part in self._parts.values():
                part.close()
            await self._finish()
        if self._failure:
            raise self._failure

    async def _needed(self) -> None:
        """Return when idle or told to stop."""
        last = self._clock()
        while not self._stop.is_set():
            last = max(last, *(part.last_activity for part in self._parts.values()), last)
            if self._starting or any(part.busy for part in self._parts.values()):
                last = self._clock()
            remaining = last + self._idle_seconds - self._clock()
            if remaining <= 0:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(min(remaining, self._idle_seconds / 4)):
                    await self._stop.wait()

    def _wake(self, sock: socket.socket) -> None:
        """There is something on a socket for the first time."""
        asyncio.get_running_loop().remove_reader(sock)
        self._waiting.discard(sock)
        self._begin(self._start(sock))

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._starting.add(task)
        task.add_done_callback(self._started)

    def _started(self, task: asyncio.Task[None]) -> None:
        self._starting.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._failure = error
            self.stop()

    async def _start(self, sock: socket.socket) -> None:
        part = await self._patiently(lambda: self._part(kind_of(sock)))
        await part.attach(sock)

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask until placematd answers: ending would only start the next process."""
        while True:
            try:
                return await ask()
            except PlacematError as error:
                self._complain(f"not served yet: {error}")
            await asyncio.sleep(RETRY_SECONDS)

    async def _part(self, kind: Kind) -> Part:
        async with self._making[kind]:
            if kind not in self._parts:
                accounts = await self._loaded_accounts()
                if kind == "redfish":
                    self._parts[kind] = await self._make_redfish(accounts)
                else:
                    from .parts import make_ipmi

                    self._parts |= await make_ipmi(self._machine, accounts, self._logins, self.stop)
            return self._parts[kind]

    async def _make_redfish(self, accounts: Accounts) -> Part:
        if self._certificate is None:
            raise ValueError("a TCP socket, and no certificate for it")
        server_class = await asyncio.to_thread(_import_redfish)
        server = server_class(self._machine, accounts, self._logins, tls_context(self._certificate))
        await server.open()
        return server

    async def _loaded_accounts(self) -> Accounts:
        if self._accounts is None:
            accounts = Accounts(self._machine)
            await accounts.load()
            self._accounts = self._accounts or accounts  # both parts have the same, whoever was quicker
        return self._accounts

    async def _resume(self) -> None:
        """Take up what an earlier process left: event subscriptions, and boot flags that expire within a minute."""
        waiting = [sock for sock in self._waiting if kind_of(sock) == "redfish"]
        if waiting and (await self._machine.load("redfish")).get("subscriptions"):
            for sock in self._waiting.intersection(waiting):
                self._wake(sock)
        if await self._machine.load("ipmi"):
            await self._part("ipmi")

    async def _finish(self) -> None:
        for task in self._starting:
            task.cancel()
        finishing = [asyncio.ensure_future(part.finish()) for part in self._parts.values()]
        if finishing:
            _, late = await asyncio.wait(finishing, timeout=FINISH_SECONDS)
            if late:
                log.warning("ended in the middle of something")


def tls_context(files: Certificate) -> ssl.SSLContext:
    """TLS 1.2 and 1.3 with the BMC's certificate; raises OSError where the files are bad."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(files.certificate, files.key)
    return context


def _import_redfish() -> "type[RedfishServer]":
    """A quarter of a second, which IPMI does not wait for."""
    from .redfish.server import RedfishServer

    return RedfishServer
