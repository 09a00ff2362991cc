"""A machine on a Unix socket of its node's own, for the process of its BMC.

That process talks to whoever reaches the BMC's address, so it is believed nothing: it can do to its own node what a
BMC does, within bounds, and nothing to any other.
"""

import asyncio
import re
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import Any

from .. import __version__
from ..bmc.machine import ConsoleStream, Machine, Watchdog
from ..bmc.wire import CONSOLE, EVENTS, INSERT_MEDIA, INTERFACE, METHODS, Method, encode
from ..errors import WrongState
from ..pace import Allowance
from ..varlink import Interface, InvalidParameter, Object, Server, Session
from ..varlink import Method as Answer

SECTION = re.compile(r"[a-z0-9-]{1,32}")
SECTION_BYTES = 256 << 10
SEL_DATA_BYTES = range(10, 15)  # OEM records without a time stamp have 14
LONGEST_IDENTIFY_SECONDS = 1e9
CONSOLES = 8
MEDIA_LOADS = 2
CALLS_AT_ONCE, CALLS_PER_SECOND = 1000, 500
"""More than that waits: one BMC gone mad must not keep placematd from the others."""

BYTES_AT_ONCE = 16 << 10


def description() -> str:
    """The text of the interface (https://varlink.org/Interface-Definition)."""
    return files(__package__).joinpath(f"{INTERFACE}.varlink").read_text()


class MachineSocket:
    """Serves a machine on `path` between `start` and `stop`.

    Whoever enters the directory of `path` may connect: it is bound into the BMC's unit, whose user has to. One above
    it keeps others out. The directory has to be there, and stays: the unit sees the next socket of that name in it.
    """

    def __init__(self, path: Path, machine: Machine) -> None:
        self._path, self._machine = path, machine
        self._consoles = self._loads = 0
        self._allowance = Allowance(CALLS_AT_ONCE, CALLS_PER_SECOND)
        self._server = Server("placematd", __version__, self._interface())

    async def start(self) -> None:
        """Listen; a socket that an earlier process left is replaced."""
        await self._server.start(listen(self._path))

    async def stop(self) -> None:
        """Remove the socket and end all connections."""
        self._path.unlink(missing_ok=True)
        await self._server.stop()

    async def __aenter__(self) -> "MachineSocket":
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    def _interface(self) -> Interface:
        return Interface(
            name=INTERFACE,
            description=description(),
            methods={method.name: self._answer(method) for method in METHODS},
            streams={INSERT_MEDIA.name: self._insert_media, EVENTS.name: self._events},
            upgrades={CONSOLE.name: self._console},
        )

    def _answer(self, method: Method[Any]) -> Answer:
        async def answer(parameters: Object) -> Object:
            arguments = method.decode_arguments(parameters)
            check(arguments)
            while not self._allowance.take():
                await asyncio.sleep(1 / CALLS_PER_SECOND)
            return method.encode_result(await getattr(self._machine, method.python)(**arguments))

        return answer

    async def _insert_media(self, parameters: Object) -> AsyncGenerator[Object, None]:
        arguments: Mapping[str, Any] = INSERT_MEDIA.decode_arguments(parameters)
        check(arguments)
        if self._loads >= MEDIA_LOADS:
            raise WrongState("images are being loaded already")
        self._loads += 1
        progress = self._machine.insert_media(**arguments)
        try:
            async for step in progress:
                yield {"progress": encode(step)}
        finally:
            self._loads -= 1
            await _close(progress)

    async def _events(self, parameters: Object) -> AsyncGenerator[Object, None]:
        EVENTS.decode_arguments(parameters)
        events = self._machine.events()
        try:
            yield {}
            async for event in events:
                yield {"event": encode(event)}
        finally:
            await _close(events)

    async def _console(self, parameters: Object) -> Session:
        CONSOLE.decode_arguments(parameters)
        if self._consoles >= CONSOLES:
            raise WrongState("the console has too many viewers")
        console = await self._machine.console()
        self._consoles += 1

        async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await _pump(console, reader, writer)
            finally:
                self._consoles -= 1
                await console.close()

        return session


def listen(path: Path) -> socket.socket:
    """A listening socket that everybody may connect to who sees it, in the place of what was at `path`."""
    part = path.with_name(f".{path.name}.new")
    part.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listening.bind(str(part))
        part.chmod(0o666)
        listening.listen(128)
        part.replace(path)
    except OSError:
        listening.close()
        part.unlink(missing_ok=True)
        raise
    return listening


async def _pump(console: ConsoleStream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until either side ends."""

    async def output() -> None:
        while data := await console.read():
            writer.write(data)
            await writer.drain()

    async def typed() -> None:
        while data := await reader.read(BYTES_AT_ONCE):
            await console.write(data)

    tasks = [asyncio.create_task(output()), asyncio.create_task(typed())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            with suppress(OSError):
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _close(iterator: AsyncIterator[object]) -> None:
    if isinstance(iterator, AsyncGenerator):
        await iterator.aclose()


def check(arguments: Mapping[str, Any]) -> None:
    """Raise InvalidParameter where an argument has the right type and nevertheless cannot be."""
    for name, value in arguments.items():
        if name in CHECKS and not CHECKS[name](value):
            raise InvalidParameter(name)


def _check_watchdog(watchdog: Watchdog) -> bool:
    """The widths of the fields of Set Watchdog Timer (IPMI 2.0 section 27.6)."""
    bytes_ = (watchdog.pre_timeout_seconds, watchdog.flags)
    intervals = (watchdog.initial, watchdog.present)
    return (
        0 <= watchdog.use <= 7
        and all(0 <= value <= 0xFF for value in bytes_)
        and all(0 <= value <= 0xFFFF for value in intervals)
    )


CHECKS: Mapping[str, Callable[[Any], bool]] = {
    "watchdog": _check_watchdog,
    "data": lambda data: len(data) in SEL_DATA_BYTES,
    "message": lambda message: len(message) <= 256 and message.isprintable(),
    "severity": lambda severity: severity in ("OK", "Warning", "Critical"),
    "seconds": lambda seconds: seconds is None or 0 <= seconds <= LONGEST_IDENTIFY_SECONDS,
    "slot": lambda slot: 1 <= len(slot) <= 32,
    "image": lambda image: 1 <= len(image) <= 2048 and image.isprintable(),
    "section": lambda section: SECTION.fullmatch(section) is not None,
    "value": lambda value: len(repr(value)) <= SECTION_BYTES,
}
"""Arguments of Machine's methods by name."""
