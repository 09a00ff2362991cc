"""Relays UDP between a socket that systemd opened and an address: `udp_relay.py HOST PORT`.

systemd-socket-proxyd(8) for datagrams, which that does not carry. Every client gets a socket of its own towards the
target, so that answers find their way back. A file that runs by itself: the standard library is all it needs.
"""

import asyncio
import socket
import sys
from collections import OrderedDict
from typing import cast

FIRST_FD = 3  # sd_listen_fds(3)
IDLE_SECONDS = 120
"""How long a client's way back is kept open, as long as a NAT must (RFC 4787 section 4.3)."""
MAX_CLIENTS = 1024
"""The oldest client makes room for a new one, so that a flood of source ports takes no more sockets than this."""

Client = tuple[object, ...]


class Answers(asyncio.DatagramProtocol):
    """The target's side of one client: what arrives goes back to the client."""

    def __init__(self, listener: asyncio.DatagramTransport, client: Client) -> None:
        self._listener, self._client = listener, client

    def datagram_received(self, data: bytes, addr: object) -> None:
        """Hand an answer to the client."""
        self._listener.sendto(data, self._client)

    def error_received(self, exc: Exception) -> None:
        """A target that is not there yet (ICMP port unreachable) may be later; UDP promises nothing."""


class Listener(asyncio.DatagramProtocol):
    """The clients' side."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._clients: OrderedDict[Client, asyncio.Task[asyncio.DatagramTransport]] = OrderedDict()
        self._expiry: dict[Client, asyncio.TimerHandle] = {}
        self._senders: set[asyncio.Task[None]] = set()
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back to the clients."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Without clients there is nothing to wait for."""
        for client in list(self._clients):
            self._forget(client)

    def datagram_received(self, data: bytes, addr: Client) -> None:
        """Send a client's datagram to the target, through the client's own socket."""
        loop = asyncio.get_running_loop()
        if addr not in self._clients:
            if len(self._clients) >= MAX_CLIENTS:
                self._forget(next(iter(self._clients)))
            self._clients[addr] = loop.create_task(self._connect(addr))
        self._clients.move_to_end(addr)
        if timer := self._expiry.pop(addr, None):
            timer.cancel()
        self._expiry[addr] = loop.call_later(IDLE_SECONDS, self._forget, addr)
        sender = loop.create_task(self._send(self._clients[addr], data))
        self._senders.add(sender)
        sender.add_done_callback(self._senders.discard)

    async def _connect(self, client: Client) -> asyncio.DatagramTransport:
        listener = self._transport
        if listener is None:
            raise OSError("the listening socket is closed")
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: Answers(listener, client), remote_addr=self._target)
        return transport

    async def _send(self, connecting: "asyncio.Task[asyncio.DatagramTransport]", data: bytes) -> None:
        try:
            (await asyncio.shield(connecting)).sendto(data)
        except OSError as error:
            print(f"{self._target[0]} port {self._target[1]}: {error}", file=sys.stderr, flush=True)

    def _forget(self, client: Client) -> None:
        if timer := self._expiry.pop(client, None):
            timer.cancel()
        task = self._clients.pop(client)
        if task.done() and not task.cancelled() and task.exception() is None:
            task.result().close()
        else:
            task.cancel()


async def relay(sockets: list[socket.socket], host: str, port: int) -> None:
    """Relay until cancelled, then close the sockets."""
    loop = asyncio.get_running_loop()
    transports = []
    try:
        for listening in sockets:
            listening.setblocking(False)
            transport, _ = await loop.create_datagram_endpoint(lambda: Listener(host, port), sock=listening)
            transports.append(transport)
        await loop.create_future()
    finally:
        for transport in transports:
            transport.abort()


def main(environ: dict[str, str], argv: list[str]) -> None:
    """Entry point: the sockets are those of LISTEN_FDS."""
    count = int(environ.get("LISTEN_FDS", "0"))
    sockets = [socket.socket(fileno=fd) for fd in range(FIRST_FD, FIRST_FD + count)]
    asyncio.run(relay(sockets, argv[0], int(argv[1])))


if __name__ == "__main__":
    import os

    main(dict(os.environ), sys.argv[1:])
