"""Varlink as the specification says, from clients that do not keep to it."""

import asyncio
import json
import random
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from placematd.baseboard.serve import listen
from placematd.errors import NotFound, PlacematError, StepError, WrongState
from placematd.varlink import (
    MAX_CALL_BYTES,
    MAX_CONNECTIONS,
    SERVICE,
    Client,
    Gone,
    Interface,
    InvalidParameter,
    Object,
    Server,
    Session,
    VarlinkError,
    decode_error,
    encode_error,
)

DESCRIPTION = "interface com.example.test\n\nmethod Echo(text: string) -> (text: string)\n"


class Example:
    """A service with one of each kind."""

    def __init__(self) -> None:
        self.told: list[Object] = []
        self.open_streams = 0

    def interface(self) -> Interface:
        return Interface(
            name="com.example.test",
            description=DESCRIPTION,
            methods={"Echo": self.echo, "Break": self.break_},
            streams={"Count": self.count, "Wait": self.wait},
            upgrades={"Shout": self.shout},
        )

    async def echo(self, parameters: Object) -> Object:
        self.told.append(parameters)
        if not isinstance(parameters.get("text"), str):
            raise InvalidParameter("text")
        return {"text": parameters["text"]}

    async def break_(self, parameters: Object) -> Object:
        raise OSError("secret detail")

    async def count(self, parameters: Object) -> AsyncGenerator[Object, None]:
        for number in range(3):
            yield {"number": number}
        if parameters.get("fail"):
            raise WrongState("cannot count further")

    async def wait(self, parameters: Object) -> AsyncGenerator[Object, None]:
        self.open_streams += 1
        try:
            yield {}
            await asyncio.Event().wait()
        finally:
            self.open_streams -= 1

    async def shout(self, parameters: Object) -> Session:
        async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(100):
                writer.write(data.upper())
                await writer.drain()

        return session


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[tuple[Server, Example]]:
    example = Example()
    server = Server("test", "1", example.interface())
    await server.start(listen(path))
    try:
        yield server, example
    finally:
        await server.stop()


def served(tmp_path: Path, check: Callable[[Server, Example, Path], Awaitable[None]]) -> None:
    async def inside() -> None:
        path = tmp_path / "socket"
        async with asyncio.timeout(30), serving(path) as (server, example):
            await check(server, example, path)

    asyncio.run(inside())


async def raw(path: Path, sent: bytes) -> list[Object]:
    """What the server says to these bytes until it or we close."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(sent)
    if sent and writer.can_write_eof():
        writer.write_eof()
    try:
        answer = await reader.read()
    except ConnectionError:
        answer = b""
    writer.close()
    return [json.loads(message) for message in answer.split(b"\0")[:-1]]


def message(method: str, **fields: object) -> bytes:
    return json.dumps({"method": method, **fields}).encode() + b"\0"


def test_calls_and_replies_look_as_the_specification_says(tmp_path: Path) -> None:
    async def check(server: Server, example: Example, path: Path) -> None:
        assert await raw(path, b'{"method":"com.example.test.Echo","parameters":{"text":"\xc3\xbc"}}\0') == [
            {"parameters": {"text": "ü"}}
        ]
        assert await raw(path, message("com.example.test.Count", more=True)) == [
            {"parameters": {"number": 0}, "continues": True},
            {"parameters": {"number": 1}, "continues": True},
            {"parameters": {"number": 2}, "continues": True},
            {"parameters": {}},
        ]

    served(tmp_path, check)


def test_calls_of_one_connection_are_answered_in_order(tmp_path: Path) -> None:
    async def check(server: Server, example: Example, path: Path) -> None:
        calls = [message("com.example.test.Echo", parameters={"text": str(n)}) for n in range(50)]
        replies = await raw(path, b"".join(calls))
        assert [reply["parameters"] for reply in replies] == [{"text": str(n)} for n in range(50)]

    served(tmp_path, check)


def test_oneway_calls_are_made_and_not_answered(tmp_path: Path) -> None:
    async def check(server: Server, example: Example, path: Path) -> None:
        for method in ("com.example.test.Echo", "com.example.test.Break", "com.example.test.Count"):
            assert await raw(path, message(method, parameters={"text": "x"}, oneway=True)) == []
        assert example.told == [{"text": "x"}]

    served(tmp_path, check)


def test_the_service_describes_itself(tmp_path: Path) -> None:
    async def check(server: Server, example: Example, path: Path) -> None:
        client = await Client.connect(path)
        info = await client.call(f"{SERVICE}.GetInfo", {})
        assert info == {
            "vendor": "placemat",
            "product": "test",
            "version": "1",
            "url": "",
            "interfaces": ["com.example.test", SERVICE],
        }
        for name, start in (("com.example.test", DESCRIPTION), (SERVICE, "# The Varlink Service")):
            reply = await client.call(f"{SERVICE}.GetInterfaceDescription", {"interface": name})
            assert str(reply["description"]).startswith(start)
        with pytest.raises(VarlinkError, match="InterfaceNotFound"):
            await client.call(f"{SERVICE}.GetInterfaceDescription", {"interface": "com.example.other"})
        with pytest.raises(InvalidParameter):
            await client.call(f"{SERVICE}.GetInterfaceDescription", {"interface": 1})
        client.close()

    served(tmp_path, check)


@pytest.mark.parametrize(
    ("call", "error", "parameters"),
    [
        (message("com.example.other.Echo"), f"{SERVICE}.InterfaceNotFound", {"interface": "com.example.other"}),
        (message("Echo"), f"{SERVICE}.InterfaceNotFound", {"interface": ""}),
        (message("com.example.test.echo"), f"{SERVICE}.MethodNotFound", {"method": "com.example.test.echo"}),
        (message("com.example.test.Echo"), f"{SERVICE}.InvalidParameter", {"parameter": "text"}),
        (message("com.example.test.Count"), f"{SERVICE}.ExpectedMore", {}),
        (message("com.example.test.Shout"), f"{SERVICE}.InvalidParameter", {"parameter": "upgrade"}),
        (
            message("com.example.test.Break"),
            "com.example.test.PlacematError",
            {"text": "internal error; the journal of placematd has more"},
        ),
    ],
)
def test_what_cannot_be_called_is_an_error(
    tmp_path: Path, call: bytes, error: str, parameters: Object, caplog: pytest.LogCaptureFixture
) -> None:
    async def check(server: Server, example: Example, path: Path) -> None:
        echo = message("com.example.test.Echo", parameters={"text": "still there"})
        assert await raw(path, call + echo) == [
            {"error": error, "parameters": parameters},
            {"parameters": {"text": "still there"}},
        ]

    served(tmp_path, check)


def test_a_stream_can_end_with_an_error(tmp_path: Path) -> None:
    async def check(server: Server, example: Example, path: Path) -> None:
        client = await Client.connect(path)
        seen = []
        with pytest.raises(WrongState, match="cannot count further"):
            async for parameters in client.stream("com.example.test.Count", {"fail": True}):
                seen.append(parameters["number"])
        assert seen == [0, 1, 2]
        assert await client.call("com.example.test.Echo", {"text": "again"}) == {"text": "again"}
        client.close()

    served(tmp_path, check)


def test_a_stream_ends_when_its_client_goes(tmp_path: Path) -> None:
    async def check(server: Server, example: Example, path: Path) -> None:
        client = await Client.connect(path)
        await anext(client.stream("com.example.test.Wait", {}))
        assert example.open_streams == 1
        client.close()
        while example.open_streams or server.connections:
            await asyncio.sleep(0.001)

    served(tmp_path, check)


def test_an_upgrade_leaves_a_byte_stream(tmp_path: Path) -> None:
    async def check(server: Server, example: Example, path: Path) -> None:
        client = await Client.connect(path)
        await client.upgrade("com.example.test.Shout", {})
        client.writer.write(b"hello \0 {")
        assert await client.reader.readexactly(9) == b"HELLO \0 {"
        client.close()

    served(tmp_path, check)


@pytest.mark.parametrize(
    "sent",
    [
        b"\0",
        b"hello\0",
        b"[]\0",
        b"{}\0",
        b'{"method":1}\0',
        b'{"method":"a.b","parameters":[]}\0',
        b'{"method":"a.b","more":1}\0',
        b'{"method":"a.b","more":"yes"}\0',
        b'{"method":"com.example.test.Echo","parameters":{"text":NaN}}\0',
        b'{"method":"com.example.test.Echo","parameters":{"text":"\\ud800"}}\0',
        b'{"method":"com.example.test.Echo","parameters":{"\\ud800":"x"}}\0',
        b'{"method":"com.example.test.Echo","parameters":{"text":"\xff"}}\0',
        b'{"method":"com.example.test.Echo","parameters":{"text":' + b"9" * 10000 + b"}}\0",
        b'{"method":"com.example.test.Echo","parameters":' + b'{"a":' * 40 + b"1" + b"}" * 40 + b"}\0",
        b'{"method":"com.example.test.Echo","parameters":{"a":' + b"[" * 500_000 + b"\0",
        b'{"method":"com.example.test.Echo"',
        b"x" * (MAX_CALL_BYTES + 2),
    ],
    ids=lambda sent: sent[:60].decode(errors="replace"),
)
def test_what_is_no_call_ends_the_connection_and_nothing_else(
    tmp_path: Path, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def check(server: Server, example: Example, path: Path) -> None:
        other = await Client.connect(path)
        assert await raw(path, sent) == []
        assert await other.call("com.example.test.Echo", {"text": "hi"}) == {"text": "hi"}
        other.close()
        assert example.told == [{"text": "hi"}]

    served(tmp_path, check)
    assert not caplog.records


def test_the_longest_call_is_taken(tmp_path: Path) -> None:
    async def check(server: Server, example: Example, path: Path) -> None:
        client = await Client.connect(path)
        text = "x" * (MAX_CALL_BYTES - 100)
        assert await client.call("com.example.test.Echo", {"text": text}) == {"text": text}
        client.close()

    served(tmp_path, check)


def test_connections_are_bounded_and_given_back(tmp_path: Path) -> None:
    async def check(server: Server, example: Example, path: Path) -> None:
        clients = [await Client.connect(path) for _ in range(MAX_CONNECTIONS)]
        for client in clients:
            await client.call("com.example.test.Echo", {"text": "x"})
        one_more = await Client.connect(path)
        with pytest.raises(Gone):
            await one_more.call("com.example.test.Echo", {"text": "x"})
        one_more.close()
        clients.pop().close()
        while server.connections == MAX_CONNECTIONS:
            await asyncio.sleep(0.001)
        clients.append(await Client.connect(path))
        assert await clients[-1].call("com.example.test.Echo", {"text": "x"}) == {"text": "x"}
        for client in clients:
            client.close()

    served(tmp_path, check)


def test_a_client_that_does_not_read_holds_nobody_up(tmp_path: Path) -> None:
    async def check(server: Server, example: Example, path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as deaf:
            deaf.setblocking(False)
            await asyncio.get_running_loop().sock_connect(deaf, str(path))
            call = message("com.example.test.Echo", parameters={"text": "x" * 100_000})
            sending = asyncio.create_task(asyncio.get_running_loop().sock_sendall(deaf, call * 20))
            client = await Client.connect(path)
            for _ in range(100):
                await client.call("com.example.test.Echo", {"text": "y"})
            assert sum(parameters["text"] != "y" for parameters in example.told) < 20
            sending.cancel()
            client.close()

    served(tmp_path, check)


def test_mutated_calls_do_no_harm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def check(server: Server, example: Example, path: Path) -> None:
        chance = random.Random(4)
        good = b'{"method":"com.example.test.Echo","parameters":{"text":"abc"},"more":false}\0'
        for _ in range(1500):
            bad = bytearray(good * chance.choice((1, 1, 2)))
            for _ in range(chance.randrange(1, 5)):
                where = chance.randrange(len(bad))
                bad[where : where + chance.randrange(3)] = chance.randbytes(chance.randrange(3))
            await raw(path, bytes(bad) or b"\0")
        client = await Client.connect(path)
        assert await client.call("com.example.test.Echo", {"text": "fine"}) == {"text": "fine"}
        client.close()

    served(tmp_path, check)
    assert not caplog.records


def test_stopping_ends_all_connections(tmp_path: Path) -> None:
    async def inside() -> None:
        path = tmp_path / "socket"
        async with serving(path) as (_, example):
            client = await Client.connect(path)
            stream = client.stream("com.example.test.Wait", {})
            await anext(stream)
        assert example.open_streams == 0
        with pytest.raises(Gone):
            await anext(stream)
        client.close()

    asyncio.run(asyncio.wait_for(inside(), 10))


class Special(StepError):
    """One that the table does not have."""


@pytest.mark.parametrize(
    ("error", "arrives"),
    [
        (Special("open door", "locked", "find the key"), StepError),
        (NotFound("no node"), NotFound),
        (InvalidParameter("text"), InvalidParameter),
        (VarlinkError("com.example.Other", {"x": 1}), VarlinkError),
    ],
)
def test_errors_travel(error: PlacematError, arrives: type[PlacematError]) -> None:
    record = json.loads(json.dumps(encode_error("com.example.test", error)))
    decoded = decode_error(record["error"], record["parameters"])
    assert type(decoded) is arrives and str(decoded) == str(error)


@pytest.mark.parametrize("parameters", [{}, {"text": 1}, {"attempted": "x"}])
def test_an_error_without_its_fields_is_an_error_nevertheless(parameters: Object) -> None:
    for name in ("com.example.test.StepError", "com.example.test.WrongState", f"{SERVICE}.InvalidParameter"):
        assert type(decode_error(name, parameters)) is VarlinkError
