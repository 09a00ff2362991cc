"""The HTTPS server of Redfish on loopback: what real and bad clients do to it."""

import asyncio
import base64
import json
import socket
import ssl
import struct
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from fakes.machine import FakeMachine

from placematd.bmc.accounts import Accounts
from placematd.bmc.logins import Logins
from placematd.bmc.redfish.server import Bounds, RedfishServer

V1 = "/redfish/v1"
SYSTEM = f"{V1}/Systems/System.Embedded.1"
ADMIN = "Authorization: Basic " + base64.b64encode(b"admin:password").decode()
OPENSSL = "openssl req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -days 2 -subj /CN=bmc"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    folder: Path = tmp_path_factory.mktemp("tls")
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run([*OPENSSL.split(), *files], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


class Client:
    def __init__(self, port: int) -> None:
        self.port = port

    async def open(self, host: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection from a local address."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=context, local_addr=(host, 0))

    async def ask(self, raw: bytes) -> bytes:
        """All that comes until the server ends the connection."""
        reader, writer = await self.open()
        writer.write(raw)
        async with asyncio.timeout(5):
            try:
                answer = await reader.read()
            except ConnectionResetError:
                answer = b""
        writer.close()
        return answer

    async def get(self, path: str, *headers: str) -> bytes:
        return await self.ask(request("GET", path, ADMIN, "Connection: close", *headers))


def request(method: str, path: str, *headers: str, body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: bmc", *headers, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


def json_of(answer: bytes) -> dict[str, object]:
    found: dict[str, object] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return found


async def answer_of(reader: asyncio.StreamReader) -> bytes:
    """One answer with a length."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return head + await reader.readexactly(int(length.partition(b":")[2]))


@asynccontextmanager
async def serving(context: ssl.SSLContext, **bounds: float) -> AsyncIterator[tuple[Client, RedfishServer]]:
    machine = FakeMachine()
    accounts = Accounts(machine)
    await accounts.load()
    await accounts.create(name="admin", password="password", role="Administrator")
    server = RedfishServer(machine, accounts, Logins(machine), context, Bounds(**bounds))  # type: ignore[arg-type]
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    await server.open()
    await server.attach(sock)
    try:
        yield Client(sock.getsockname()[1]), server
    finally:
        await server.finish()


def test_many_requests_on_one_connection(certificate: ssl.SSLContext) -> None:
    async def run() -> None:
        async with serving(certificate) as (client, server):
            reader, writer = await client.open()
            for _ in range(3):
                writer.write(request("GET", f"{V1}/", ADMIN))
                assert (await answer_of(reader)).startswith(b"HTTP/1.1 200 OK\r\n")
            writer.write(request("GET", f"{V1}/") * 2)
            assert json_of(await answer_of(reader))["Id"] == "RootService"
            assert json_of(await answer_of(reader))["Id"] == "RootService"
            writer.close()
            assert server.last_activity > 0
            assert not server.busy

    asyncio.run(run())


def test_heads_and_empty_answers(certificate: ssl.SSLContext) -> None:
    async def run() -> None:
        async with serving(certificate) as (client, _):
            reader, writer = await client.open()
            writer.write(request("HEAD", SYSTEM, ADMIN))
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK")
            body = b'{"ResetType": "On"}'
            writer.write(request("POST", f"{SYSTEM}/Actions/ComputerSystem.Reset", ADMIN, body=body))
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204 No Content")
            writer.write(request("GET", SYSTEM, ADMIN))
            assert json_of(await answer_of(reader))["PowerState"] in ("On", "PoweringOn")
            writer.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"\x00\xff\xfe\r\n\r\n", b"HTTP/1.1 400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 20000 + b"\r\n\r\n", b""),
        (b"GET /\xff HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"HTTP/1.1 401"),
        (b"GET /redfish/v1/\xc3\xa9 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"HTTP/1.1 401"),
        (b"GET http://elsewhere/redfish HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"HTTP/1.1 401"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\nConnection: close\r\n\r\n", b"HTTP/1.1 4"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n", b"HTTP/1.1 400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Basic \xff\xff\r\nConnection: close\r\n\r\n", b"HTTP/1.1 401"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX-Auth-Token: \xff\xff\r\nConnection: close\r\n\r\n", b"HTTP/1.1 401"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"HTTP/1.1 400"),
    ],
)
def test_what_is_hardly_http(raw: bytes, expected: bytes, certificate: ssl.SSLContext) -> None:
    async def run() -> None:
        async with serving(certificate, idle_seconds=0.5) as (client, _):
            answer = await client.ask(raw)
            assert answer.startswith(expected) if expected else not answer
            assert b"Traceback" not in answer
            assert (await client.get(f"{V1}/")).startswith(b"HTTP/1.1 200")

    asyncio.run(run())


def test_http_without_tls_gets_nothing(certificate: ssl.SSLContext) -> None:
    async def run() -> None:
        async with serving(certificate) as (client, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
            writer.write(request("GET", f"{V1}/"))
            async with asyncio.timeout(5):
                with suppress(ConnectionResetError):
                    assert b"HTTP" not in await reader.read()
            writer.close()
            assert (await client.get(f"{V1}/")).startswith(b"HTTP/1.1 200")

    asyncio.run(run())


def test_who_sends_and_leaves_at_once_is_not_worth_a_line(
    certificate: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        async with serving(certificate) as (client, _):
            for _ in range(3):
                hasty = socket.create_connection(("127.0.0.1", client.port))
                hasty.sendall(b"\x16\x03\x01nonsense")
                hasty.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                hasty.close()  # with a reset, before the server has been given time to accept
            assert (await client.get(V1)).startswith(b"HTTP/1.1 200 ")

    asyncio.run(run())
    assert caplog.messages == []


def test_bodies_too_large(certificate: ssl.SSLContext) -> None:
    async def run() -> None:
        async with serving(certificate) as (client, _):
            large = request("PATCH", f"{V1}/SessionService", ADMIN, "Connection: close", body=b" " * 70_000)
            answer = await client.ask(large)
            assert answer.startswith(b"HTTP/1.1 413")
            assert b"PayloadTooLarge" in answer
            chunks = b"Transfer-Encoding: chunked\r\n\r\n" + (b"8000\r\n" + b"x" * 0x8000 + b"\r\n") * 20
            endless = request("POST", f"{V1}/SessionService", ADMIN).partition(b"Content-Length")[0] + chunks
            assert not (await client.ask(endless)).startswith(b"HTTP/1.1 2")

    asyncio.run(run())


@pytest.mark.parametrize(
    "raw",
    [b"", b"GET / HT", request("POST", f"{V1}/", "Content-Type: x").replace(b"h: 0", b"h: 9") + b"abc"],
)
def test_slow_clients_are_left(raw: bytes, certificate: ssl.SSLContext) -> None:
    async def run() -> None:
        async with serving(certificate, idle_seconds=0.2, body_seconds=0.2) as (client, server):
            await client.ask(raw)  # ends by itself
            assert not server.busy

    asyncio.run(run())


def test_a_handshake_that_never_ends_is_left(certificate: ssl.SSLContext) -> None:
    async def run() -> None:
        async with serving(certificate, idle_seconds=0.2) as (client, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
            async with asyncio.timeout(5):
                assert await reader.read() == b""
            writer.close()

    asyncio.run(run())


def test_connections_are_bounded(certificate: ssl.SSLContext) -> None:
    async def run() -> None:
        async with serving(certificate, connections=2) as (client, _):
            first, second = await client.open(), await client.open()
            with pytest.raises((ConnectionError, ssl.SSLError)):
                await client.open()
            first[1].close()
            async with asyncio.timeout(5):
                while not (await taken(client)).startswith(b"HTTP/1.1 200"):
                    await asyncio.sleep(0.01)
            second[1].close()

    async def taken(client: Client) -> bytes:
        try:
            return await client.get(f"{V1}/")
        except (ConnectionError, ssl.SSLError):
            return b""

    asyncio.run(run())


def test_one_host_does_not_keep_the_others_out(certificate: ssl.SSLContext) -> None:
    async def run() -> None:
        async with serving(certificate, connections=4) as (client, _):
            strangers = [await client.open("127.0.0.2") for _ in range(4)]
            assert (await client.get(f"{V1}/")).startswith(b"HTTP/1.1 200")
            assert await strangers[0][0].read() == b"", "the oldest made room"
            for _, writer in strangers:
                writer.close()

    asyncio.run(run())


def test_somebody_who_asks_and_does_not_read_is_left(certificate: ssl.SSLContext) -> None:
    async def run() -> None:
        async with serving(certificate, write_seconds=0.3) as (client, server):
            _, writer = await client.open()
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            writer.write(request("GET", f"{V1}/?$expand=*($levels=6)", ADMIN) * 40)
            async with asyncio.timeout(20):
                while not server.busy:
                    await asyncio.sleep(0.01)
                while server.busy:
                    await asyncio.sleep(0.05)
            writer.transport.abort()

    asyncio.run(run())


def test_events_over_the_wire(certificate: ssl.SSLContext) -> None:
    async def run() -> None:
        async with serving(certificate) as (client, server):
            reader, writer = await client.open()
            writer.write(request("GET", f"{V1}/EventService/SSE", ADMIN, "Accept: text/event-stream"))
            async with asyncio.timeout(5):
                head = await reader.readuntil(b": open\n\n")
                assert b"text/event-stream" in head
                assert server.active == 2, "the stream and its request"
                test = f"{V1}/EventService/Actions/EventService.SubmitTestEvent"
                await client.ask(request("POST", test, ADMIN, "Connection: close", body=b"{}"))
                assert b'data: {"@odata.type": "#Event.' in await reader.readuntil(b"}]}\n\n")
                writer.close()
                while server.busy:
                    await asyncio.sleep(0.01)

    asyncio.run(run())


def test_the_end_ends_streams(certificate: ssl.SSLContext) -> None:
    async def run() -> None:
        async with serving(certificate) as (client, server):
            reader, writer = await client.open()
            writer.write(request("GET", f"{V1}/EventService/SSE", ADMIN))
            async with asyncio.timeout(5):
                await reader.readuntil(b": open\n\n")
                await server.finish()
                await reader.read()
            writer.close()
            with pytest.raises(OSError):
                await client.open()

    asyncio.run(run())


def test_a_session_keeps_the_process(certificate: ssl.SSLContext) -> None:
    async def run() -> None:
        async with serving(certificate) as (client, server):
            body = json.dumps({"UserName": "admin", "Password": "password"}).encode()
            answer = await client.ask(request("POST", f"{V1}/SessionService/Sessions", "Connection: close", body=body))
            assert answer.startswith(b"HTTP/1.1 201")
            assert (server.active, server.busy) == (1, True)
            await client.ask(request("DELETE", str(json_of(answer)["@odata.id"]), ADMIN, "Connection: close"))
            assert not server.busy

    asyncio.run(run())
