"""Varlink (https://varlink.org): calls between two processes of one host as JSON objects, each ended by a NUL.

A server does not trust its clients: sizes, nesting and connections are bounded, and what is no call at all ends the
connection. Errors of ours travel as records, so that a client raises the class that the server raised.
"""

import asyncio
import json
import logging
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from .errors import MissingTool, NotFound, NotOurs, PlacematError, StepError, TimedOut, WrongState

log = logging.getLogger("placematd")

MAX_CALL_BYTES = 1 << 20
MAX_REPLY_BYTES = 16 << 20
MAX_DEPTH = 32
MAX_CONNECTIONS = 32

Object = dict[str, object]
"""A JSON object."""

Method = Callable[[Object], Awaitable[Object]]
Stream = Callable[[Object], AsyncGenerator[Object, None]]
Session = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Upgrade = Callable[[Object], Awaitable[Session]]

SERVICE = "org.varlink.service"
SERVICE_DESCRIPTION = """# The Varlink Service Interface is provided by every varlink service. It
# describes the service and the interfaces it implements.
interface org.varlink.service

# Get a list of all the interfaces a service provides and information
# about the implementation.
method GetInfo() -> (vendor: string, product: string, version: string, url: string, interfaces: []string)

# Get the description of an interface that is implemented by this service.
method GetInterfaceDescription(interface: string) -> (description: string)

error InterfaceNotFound (interface: string)
error MethodNotFound (method: string)
error MethodNotImplemented (method: string)
error InvalidParameter (parameter: string)
error PermissionDenied ()
error ExpectedMore ()
"""


class VarlinkError(PlacematError):
    """An error reply that is none of our own classes; `parameters` as the other side sent them."""

    def __init__(self, name: str, parameters: Mapping[str, object] | None = None) -> None:
        self.name, self.parameters = name, dict(parameters or {})
        super().__init__(name + (f" {json.dumps(self.parameters)[:200]}" if self.parameters else ""))


class Gone(ConnectionError):
    """The other side went away, or stopped to speak Varlink."""


class InvalidParameter(VarlinkError):
    """An argument is missing, has the wrong type or cannot be."""

    def __init__(self, parameter: str) -> None:
        super().__init__(f"{SERVICE}.InvalidParameter", {"parameter": parameter})


STEP_ERRORS: tuple[type[StepError], ...] = (NotOurs, TimedOut, StepError)
TEXT_ERRORS: tuple[type[PlacematError], ...] = (NotFound, WrongState, PlacematError)
"""Our errors, the general ones last. An interface that raises them has them in its description, with MissingTool."""


def encode_error(interface: str, error: PlacematError) -> Object:
    """An error as a reply; a class that the table does not have goes as the nearest one that it is derived from."""
    if isinstance(error, VarlinkError):
        return {"error": error.name, "parameters": error.parameters}
    if isinstance(error, MissingTool):
        fields: Object = {"program": error.program, "package": error.package}
        return {"error": f"{interface}.MissingTool", "parameters": fields}
    if isinstance(error, StepError):
        name = next(kind.__name__ for kind in STEP_ERRORS if isinstance(error, kind))
        fields = {"attempted": error.attempted, "answer": error.answer, "hint": error.hint}
        return {"error": f"{interface}.{name}", "parameters": fields}
    name = next(kind.__name__ for kind in TEXT_ERRORS if isinstance(error, kind))
    return {"error": f"{interface}.{name}", "parameters": {"text": str(error)}}


def decode_error(name: str, parameters: Object) -> PlacematError:
    """The error that `encode_error` wrote; VarlinkError where it is none of ours."""
    words = {key: value for key, value in parameters.items() if isinstance(value, str)}
    short = name.rpartition(".")[2]
    with suppress(KeyError):
        if name == f"{SERVICE}.InvalidParameter":
            return InvalidParameter(words["parameter"])
        if short == "MissingTool":
            return MissingTool(words["program"], words["package"])
        for step in STEP_ERRORS:
            if short == step.__name__:
                return step(words["attempted"], words["answer"], words["hint"])
        for text in TEXT_ERRORS:
            if short == text.__name__:
                return text(words["text"])
    return VarlinkError(name, parameters)


@dataclass(frozen=True, kw_only=True)
class Interface:
    """What a server offers under a name: `methods` answer once, `streams` until they end (a client says "more"), and
    `upgrades` turn the connection into a byte stream for what they return. `description` is the interface's .varlink
    text. Any of them may raise PlacematError, InvalidParameter for an argument.
    """

    name: str
    description: str
    methods: Mapping[str, Method] = field(default_factory=dict)
    streams: Mapping[str, Stream] = field(default_factory=dict)
    upgrades: Mapping[str, Upgrade] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call, as it was read."""

    method: str
    parameters: Object
    more: bool = False
    oneway: bool = False
    upgrade: bool = False


class Server:
    """Serves interfaces on a listening Unix socket."""

    def __init__(self, product: str, version: str, *interfaces: Interface) -> None:
        self._info: Object = {"vendor": "placemat", "product": product, "version": version, "url": ""}
        own = {"GetInfo": self._get_info, "GetInterfaceDescription": self._get_description}
        service = Interface(name=SERVICE, description=SERVICE_DESCRIPTION, methods=own)
        self._interfaces = {interface.name: interface for interface in (service, *interfaces)}
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, listening: socket.socket) -> None:
        """Serve what comes to a socket that listens."""
        self._server = await asyncio.start_unix_server(self._accept, sock=listening, limit=MAX_CALL_BYTES)

    async def stop(self) -> None:
        """Close the socket and end all connections."""
        if self._server:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._tasks)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        writer.transport.set_write_buffer_limits(0)
        task = asyncio.create_task(self._converse(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (message := await read_message(reader)) is not None:
                session = await self._answer(parse_call(message), reader, writer)
                if session:
                    await session(reader, writer)
                    return
        except (OSError, ValueError):
            pass  # gone, or no Varlink
        except Exception:
            log.exception("varlink: a call failed")
        finally:
            writer.transport.abort()  # all was sent, or the other side does not read

    async def _answer(self, call: Call, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Session | None:
        """Run one call and send its replies; returns what takes the connection over, if anything does."""
        interface_name, _, name = call.method.rpartition(".")
        try:
            interface = self._interfaces.get(interface_name)
            if not interface:
                raise VarlinkError(f"{SERVICE}.InterfaceNotFound", {"interface": interface_name})
            if name in interface.streams:
                await self._stream(interface.streams[name], call, reader, writer)
                return None
            if name in interface.upgrades:
                if not call.upgrade or call.oneway:
                    raise InvalidParameter("upgrade")
                session = await interface.upgrades[name](call.parameters)
                with suppress(Gone):  # the session sees that at once, and cleans up
                    await send(writer, {"parameters": {}})
                return session
            if name not in interface.methods:
                raise VarlinkError(f"{SERVICE}.MethodNotFound", {"method": call.method})
            reply: Object = {"parameters": await interface.methods[name](call.parameters)}
        except PlacematError as error:
            reply = encode_error(interface_name, error)
        except Gone:
            raise
        except Exception:
            log.exception("varlink: %s failed", call.method[:100])
            reply = encode_error(interface_name, PlacematError("internal error; the journal of placematd has more"))
        if not call.oneway:
            await send(writer, reply)
        return None

    async def _stream(
        self, stream: Stream, call: Call, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Send replies until the stream ends; a client that goes away ends it, too."""
        if not call.more or call.oneway:
            raise VarlinkError(f"{SERVICE}.ExpectedMore")
        sending = asyncio.create_task(_send_all(stream(call.parameters), writer))
        gone = asyncio.create_task(_end_of(reader))
        try:
            await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                raise Gone("the client ended the stream")
            sending.result()
        finally:
            sending.cancel()
            gone.cancel()
            await asyncio.gather(sending, gone, return_exceptions=True)

    async def _get_info(self, parameters: Object) -> Object:
        return {**self._info, "interfaces": sorted(self._interfaces)}

    async def _get_description(self, parameters: Object) -> Object:
        name = parameters.get("interface")
        if not isinstance(name, str):
            raise InvalidParameter("interface")
        if name not in self._interfaces:
            raise VarlinkError(f"{SERVICE}.InterfaceNotFound", {"interface": name})
        return {"description": self._interfaces[name].description}


async def _send_all(stream: AsyncGenerator[Object, None], writer: asyncio.StreamWriter) -> None:
    async with aclosing(stream):
        async for parameters in stream:
            await send(writer, {"parameters": parameters, "continues": True})
    await send(writer, {"parameters": {}})


async def _end_of(reader: asyncio.StreamReader) -> None:
    """Return when the other side has closed; what it says while it is being answered is not asked for, and ends it."""
    await reader.read(1)


class Client:
    """A connection for one call."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, path: Path) -> "Client":
        """Connect to a server's socket; raises OSError."""
        return cls(*await asyncio.open_unix_connection(path, limit=MAX_REPLY_BYTES))

    async def call(self, method: str, parameters: Object) -> Object:
        """Call and return the reply's parameters; raises what the server raised, or Gone."""
        await send(self.writer, {"method": method, "parameters": parameters})
        return (await self._reply())[0]

    async def stream(self, method: str, parameters: Object) -> AsyncGenerator[Object, None]:
        """Call and yield the parameters of the replies as they come."""
        await send(self.writer, {"method": method, "parameters": parameters, "more": True})
        continues = True
        while continues:
            reply, continues = await self._reply()
            if continues:
                yield reply

    async def upgrade(self, method: str, parameters: Object) -> None:
        """Call; afterwards `reader` and `writer` are a byte stream to what the method is about."""
        await send(self.writer, {"method": method, "parameters": parameters, "upgrade": True})
        await self._reply()

    def close(self) -> None:
        """Close; what was written before still goes out."""
        self.writer.close()

    async def _reply(self) -> tuple[Object, bool]:
        message = await read_message(self.reader)
        if message is None:
            raise Gone("the other side went away")
        reply = parse(message)
        parameters = reply.get("parameters") or {}
        if not isinstance(parameters, dict):
            raise Gone("the other side does not speak Varlink")
        if error := reply.get("error"):
            raise decode_error(str(error), parameters)
        return parameters, reply.get("continues") is True


async def send(writer: asyncio.StreamWriter, message: Object) -> None:
    """Write one message; raises Gone."""
    writer.write(json.dumps(message, allow_nan=False, separators=(",", ":")).encode() + b"\0")
    try:
        await writer.drain()
    except OSError as error:
        raise Gone(str(error)) from error


async def read_message(reader: asyncio.StreamReader) -> bytes | None:
    """The next message without its NUL, None at the end; raises Gone where it ends in the middle or has no end."""
    try:
        return (await reader.readuntil(b"\0"))[:-1]
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise Gone("half a message") from error
        return None
    except (OSError, asyncio.LimitOverrunError) as error:
        raise Gone(str(error)) from error


def parse(message: bytes) -> Object:
    """A message; raises ValueError where it is no JSON object, or one that nobody honest would send."""
    try:
        value = json.loads(message, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("not an object")
    _check(value, MAX_DEPTH)
    return value


def parse_call(message: bytes) -> Call:
    """A message as a call; raises ValueError."""
    value = parse(message)
    method, parameters = value.get("method"), value.get("parameters")
    flags = {name: value.get(name) or False for name in ("more", "oneway", "upgrade")}
    if not isinstance(method, str) or not (parameters is None or isinstance(parameters, dict)):
        raise ValueError("not a call")
    if not all(isinstance(flag, bool) for flag in flags.values()):
        raise ValueError("not a call")
    more, oneway, upgrade = (flag is True for flag in flags.values())
    return Call(method=method, parameters=parameters or {}, more=more, oneway=oneway, upgrade=upgrade)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _check(value: object, depth: int) -> None:
    """Raise ValueError for deep nesting, and for strings that are no text (half a surrogate pair)."""
    if depth == 0:
        raise ValueError("nested too deeply")
    if isinstance(value, str):
        if not value.isascii():
            value.encode()  # UnicodeEncodeError is a ValueError
    elif isinstance(value, dict):
        for key, item in value.items():
            _check(key, depth - 1)
            _check(item, depth - 1)
    elif isinstance(value, list):
        for item in value:
            _check(item, depth - 1)
