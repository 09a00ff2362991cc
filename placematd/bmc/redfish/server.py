"""The HTTPS server of Redfish: sockets in, `Service` behind; everything a client can hold on to is bounded."""

import asyncio
import logging
import socket
import ssl
import time
from collections import Counter
from contextlib import aclosing, suppress
from dataclasses import dataclass
from http import HTTPStatus

from tornado.http1connection import HTTP1Connection, HTTP1ServerConnection
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders, HTTPServerRequest, ResponseStartLine
from tornado.iostream import IOStream, StreamBufferFullError, StreamClosedError

from ..accounts import Accounts
from ..logins import Logins
from ..machine import Machine
from .delivery import Delivery
from .events import Events
from .login import Login
from .requests import Answer, Request
from .resource import Services
from .resources import routes as machine_routes
from .service import Service
from .services import routes as own_routes
from .sessions import Sessions
from .settings import Settings
from .tasks import Tasks

MOST_HEADER_BYTES = 16 * 1024
MOST_BODY_BYTES = 256 * 1024
"""Beyond it the connection ends; below it and above `body.MOST_BYTES` the client is told."""
MOST_UNSENT_BYTES = 1024 * 1024
"""What a stream's reader may leave unread."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How much a client can hold on to, and for how long."""

    connections: int = 128
    idle_seconds: float = 30.0
    """For the whole head of the next request to come, and for TLS before it."""
    body_seconds: float = 20.0
    write_seconds: float = 30.0
    """For an answer to be taken."""


class RedfishServer:
    """Serves one machine. `open` comes first; the rest is what the process needs of a part."""

    def __init__(
        self,
        machine: Machine,
        accounts: Accounts,
        logins: Logins,
        context: ssl.SSLContext,
        bounds: Bounds | None = None,
    ) -> None:
        settings, tasks = Settings(machine), Tasks()
        events = Events(machine, settings)
        sessions = Sessions(accounts.by_slot, lambda: settings.values.session_timeout_seconds)
        self._login = Login(accounts, sessions, settings, logins)
        self._services = Services(
            machine=machine,
            accounts=accounts,
            login=self._login,
            sessions=sessions,
            tasks=tasks,
            events=events,
            settings=settings,
        )
        self._context, self._bounds = context, bounds or Bounds()
        machines = machine_routes()
        self.service = Service(self._services, [*machines, *own_routes(machines)])
        self._delivery: Delivery | None = None
        self._http: _Http | None = None
        self._answering: set[asyncio.Task[None]] = set()
        self.last_activity = time.monotonic()
        """When a request began or ended last, on the monotonic clock."""

    async def open(self) -> None:
        """Read what is stored and begin to pass events on."""
        logging.getLogger("tornado").setLevel(logging.ERROR)  # a line for each bad packet is for strangers to write
        await self._services.settings.load()
        self._delivery = Delivery(self._services.events, self._services.settings)
        self._services.events.open(self._delivery.start)

    async def attach(self, sock: socket.socket) -> None:
        """Serve a socket that listens."""
        if self._http is None:
            self._http = _Http(
                self._take,
                most=self._bounds.connections,
                ssl_options=self._context,
                max_header_size=MOST_HEADER_BYTES,
                max_body_size=MOST_BODY_BYTES,
                max_buffer_size=MOST_BODY_BYTES + MOST_HEADER_BYTES,
                idle_connection_timeout=self._bounds.idle_seconds,
                body_timeout=self._bounds.body_seconds,
            )
        self._http.add_socket(sock)

    @property
    def active(self) -> int:
        """How many things would be lost if the process ended now: sessions, streams, subscriptions, tasks, requests."""
        services = self._services
        lasting = len(services.sessions.all()) + len(services.events.all()) + services.tasks.running
        return lasting + len(self._answering) + self._login.any_locked

    @property
    def busy(self) -> bool:
        """Whether the process must not end."""
        return self.active > 0

    def close(self) -> None:
        """Take no new connections and no new requests; what is being answered goes on."""
        if self._http:
            self._http.stop()

    async def finish(self) -> None:
        """End everything: streams, tasks, deliveries, connections."""
        self.close()
        await self._services.events.close()
        await self._services.tasks.close()
        if self._delivery:
            self._delivery.close()
        if self._answering:
            await asyncio.wait(self._answering, timeout=1)
        if self._http:
            await self._http.close_all_connections()
        for task in list(self._answering):
            task.cancel()

    def _take(self, request: HTTPServerRequest) -> None:
        task = asyncio.get_running_loop().create_task(self._respond(request))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _respond(self, request: HTTPServerRequest) -> None:
        self.last_activity = time.monotonic()
        answer = await self.service.answer(
            Request(
                method=request.method or "",
                path=request.path,
                query=request.query,
                headers=request.headers,
                body=request.body,
                remote=request.remote_ip or "",
            )
        )
        self.last_activity = time.monotonic()
        seconds = self._bounds.write_seconds
        try:
            await (_stream(request, answer, seconds) if answer.stream else _send(request, answer, seconds))
        except (StreamClosedError, StreamBufferFullError, TimeoutError):
            _connection(request).stream.close()  # it left, or it does not take what it asked for


def _start(request: HTTPServerRequest, answer: Answer) -> tuple[ResponseStartLine, HTTPHeaders]:
    reason = HTTPStatus(answer.status).phrase
    return ResponseStartLine("HTTP/1.1", answer.status, reason), HTTPHeaders(answer.headers)


async def _send(request: HTTPServerRequest, answer: Answer, seconds: float) -> None:
    """Write an answer whole. Raises TimeoutError where the client does not take it."""
    start, headers = _start(request, answer)
    if request.method != "HEAD" and answer.status not in (204, 304):
        headers["Content-Length"] = str(len(answer.body))
    connection = _connection(request)
    written = connection.write_headers(start, headers, answer.body or None)
    connection.finish()
    async with asyncio.timeout(seconds):
        await written


async def _stream(request: HTTPServerRequest, answer: Answer, seconds: float) -> None:
    """Write events as they come, until either side ends it."""
    assert answer.stream
    connection = _connection(request)
    start, headers = _start(request, answer)
    gone = asyncio.get_running_loop().create_future()
    connection.set_close_callback(lambda: _end(gone))
    connection.stream.max_write_buffer_size = MOST_UNSENT_BYTES
    headers["Connection"] = "close"
    connection.write_headers(start, headers)
    async with aclosing(answer.stream) as events:  # type: ignore[type-var]
        while not gone.done() and not connection.stream.closed():
            following = asyncio.ensure_future(anext(events, None))
            await asyncio.wait((following, gone), return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
                return
            chunk = following.result()
            if chunk is None:
                break
            async with asyncio.timeout(seconds):
                await connection.write(chunk)
    connection.finish()


def _end(gone: "asyncio.Future[None]") -> None:
    if not gone.done():
        gone.set_result(None)


def _connection(request: HTTPServerRequest) -> HTTP1Connection:
    """The connection as this server always has it."""
    assert isinstance(request.connection, HTTP1Connection)
    return request.connection


class _Http(HTTPServer):
    """Tornado's server with a bound on connections.

    Beyond it, the oldest of the host that has most of them makes room for another host: nobody keeps others out.
    """

    def initialize(self, *arguments: object, most: int, **options: object) -> None:  # type: ignore[override]
        self._most = most
        self._hosts: dict[IOStream, object] = {}
        super().initialize(*arguments, **options)  # type: ignore[arg-type]

    def _handle_connection(self, connection: socket.socket, address: object) -> None:
        """Who sends something and is gone before it is taken makes the ssl module raise (CVE-2023-40217)."""
        with suppress(OSError):  # an SSLError is one; the socket is closed by then
            super()._handle_connection(connection, address)

    def handle_stream(self, stream: IOStream, address: tuple[object, ...]) -> None:
        host = address[0] if address else ""
        if len(self._hosts) >= self._most and not self._make_room(host):
            stream.close()
            return
        self._hosts[stream] = host
        super().handle_stream(stream, address)

    def _make_room(self, host: object) -> bool:
        """Close a connection in favour of a host that has fewer than another."""
        counts = Counter(self._hosts.values())
        busiest, most = counts.most_common(1)[0]
        if counts[host] + 1 >= most:
            return False
        oldest = next(stream for stream, other in self._hosts.items() if other == busiest)
        del self._hosts[oldest]
        oldest.close()
        return True

    def on_close(self, server_conn: object) -> None:
        if isinstance(server_conn, HTTP1ServerConnection):
            self._hosts.pop(server_conn.stream, None)
        super().on_close(server_conn)
