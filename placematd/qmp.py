"""QEMU Machine Protocol: commands to one running QEMU, and its events.

Source: docs/interop/qmp-spec.rst of QEMU. One JSON object a line, in both directions. QEMU greets first and serves one
client at a time; a second one connects and waits for its greeting. Answers carry the id of their command; events come
at any time, also between a command and its answer (STOP and RESET come before the answer that they belong to).
"""

import asyncio
import itertools
import json
import logging
import os
import socket
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self, Union

from .errors import StepError, TimedOut

Json = Union[None, bool, int, float, str, list["Json"], dict[str, "Json"]]

log = logging.getLogger("placematd")

CONNECT_SECONDS = 5.0
COMMAND_SECONDS = 10.0
DRAIN_SECONDS = 0.01
CLOSED = "QEMU closed the connection"
LINE_BYTES = 8 << 20
"""The longest line that is accepted; query-qmp-schema answers with 0.2 MB, so this is for a QEMU that has gone mad."""


@dataclass(frozen=True)
class QmpEvent:
    """An event such as SHUTDOWN or RESET; `data` as in QEMU's QAPI schema, `timestamp` in seconds since the epoch."""

    name: str
    data: Mapping[str, Json]
    timestamp: float


class QmpError(StepError):
    """QEMU refused a command; `error_class` is CommandNotFound, DeviceNotFound, GenericError, ..."""

    def __init__(self, attempted: str, error_class: str, answer: str) -> None:
        self.error_class = error_class
        super().__init__(attempted, answer)


class QmpClient:
    """A connection to a QEMU's monitor. It does not reconnect: when it is lost, every command fails with StepError."""

    def __init__(self, path: Path, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._path = path
        self._reader, self._writer = reader, writer
        self._ids = itertools.count(1)
        self._pending: dict[int, asyncio.Future[Json]] = {}
        self._on_event: Callable[[QmpEvent], None] | None = None
        self._lost = ""
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def connect(
        cls,
        path: Path,
        timeout_seconds: float = CONNECT_SECONDS,
        on_event: Callable[[QmpEvent], None] | None = None,
    ) -> Self:
        """Connect and leave negotiation mode; `on_event` is called, in the loop, with each event from then on.

        Raises StepError where nobody listens or what answers is not QEMU, TimedOut where it serves somebody else.
        """
        attempted = f"connect to the monitor {path}"
        try:
            async with asyncio.timeout(timeout_seconds):
                reader, writer = await asyncio.open_unix_connection(path, limit=LINE_BYTES)
                client = cls(path, reader, writer)
                try:
                    await client._negotiate(attempted, on_event)
                except BaseException:
                    await client.close()
                    raise
                return client
        except TimeoutError:
            hint = "QEMU serves one client at a time"
            raise TimedOut(attempted, f"no greeting within {timeout_seconds:g} s", hint) from None
        except OSError as error:
            raise StepError(attempted, error.strerror or str(error), "is the node on?") from error

    @property
    def connected(self) -> bool:
        """Whether commands can be sent."""
        return not self._lost

    async def close(self) -> None:
        """Disconnect; commands that wait for an answer fail."""
        self._fail("the connection was closed")
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        with suppress(OSError):
            await self._writer.wait_closed()

    async def execute(
        self,
        command: str,
        arguments: Mapping[str, Json] | None = None,
        timeout_seconds: float = COMMAND_SECONDS,
        fd: int = -1,
    ) -> Json:
        """Run a command and return what is in its "return"; `fd` is a descriptor to send with it, for add-fd.

        Raises QmpError where QEMU refuses, TimedOut, and StepError where the connection is or gets lost.
        """
        attempted = f"{command} on {self._path}"
        if self._lost:
            raise StepError(attempted, self._lost)
        number = next(self._ids)
        request = {"execute": command, "id": number} | ({"arguments": dict(arguments)} if arguments else {})
        self._pending[number] = answer = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._send(json.dumps(request).encode() + b"\n", fd)
                result: Json = await answer
                return result
        except TimeoutError:
            raise TimedOut(attempted, f"no answer within {timeout_seconds:g} s") from None
        except ConnectionError as error:  # whoever writes may learn it before the reader does
            self._fail(CLOSED)
            raise StepError(attempted, self._lost) from error
        except OSError as error:
            raise StepError(attempted, error.strerror or str(error)) from error
        except _Failure as failure:
            if failure.error_class:
                raise QmpError(attempted, failure.error_class, failure.answer) from None
            raise StepError(attempted, failure.answer) from None
        finally:
            self._pending.pop(number, None)

    async def _send(self, line: bytes, fd: int) -> None:
        """Send a line, with a descriptor (unix(7), SCM_RIGHTS) unless `fd` is negative."""
        if fd >= 0:
            while self._writer.transport.get_write_buffer_size():  # what was written before comes before
                await asyncio.sleep(DRAIN_SECONDS)
            with socket.socket(fileno=os.dup(self._writer.get_extra_info("socket").fileno())) as stream:
                line = line[socket.send_fds(stream, [line], [fd]) :]
        self._writer.write(line)
        await self._writer.drain()

    @property
    def pid(self) -> int:
        """The process that listens on the socket: QEMU (unix(7), SO_PEERCRED)."""
        stream = self._writer.get_extra_info("socket")
        pid, _, _ = struct.unpack("3i", stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
        return int(pid)

    async def query_status(self) -> str:
        """RunState of QEMU's QAPI schema: running, paused, shutdown, prelaunch, ..."""
        answer = await self.execute("query-status")
        return str(answer["status"]) if isinstance(answer, dict) else ""

    async def system_powerdown(self) -> None:
        """Press the ACPI power button; what happens then is up to the guest."""
        await self.execute("system_powerdown")

    async def system_reset(self) -> None:
        """Reset the machine, as its reset button would."""
        await self.execute("system_reset")

    async def cont(self) -> None:
        """Let the CPUs run."""
        await self.execute("cont")

    async def inject_nmi(self) -> None:
        """Send a non-maskable interrupt to the guest."""
        await self.execute("inject-nmi")

    async def quit(self) -> None:
        """End QEMU at once, as if its plug was pulled."""
        await self.execute("quit")

    # -- reading -------------------------------------------------------------------------------------------------------

    async def _negotiate(self, attempted: str, on_event: Callable[[QmpEvent], None] | None) -> None:
        try:
            greeting = await self._read()
        except _Failure as failure:
            raise StepError(attempted, failure.answer) from None
        if "QMP" not in greeting:
            raise StepError(attempted, "what answers there is not a QEMU monitor")
        self._on_event = on_event
        self._task = asyncio.create_task(self._read_all(), name=f"qmp {self._path}")
        await self.execute("qmp_capabilities", timeout_seconds=COMMAND_SECONDS)

    async def _read_all(self) -> None:
        try:
            while True:
                self._take(await self._read())
        except _Failure as failure:
            self._fail(failure.answer)
        finally:
            self._fail("nobody reads the connection any more")

    async def _read(self) -> dict[str, Json]:
        """The next object; raises _Failure where there is none."""
        try:
            line = await self._reader.readline()
            if not line.endswith(b"\n"):
                raise _Failure(CLOSED)
            message = json.loads(line)
        except ConnectionError as error:  # QEMU went with something of ours unread: "reset" instead of an end
            raise _Failure(CLOSED) from error
        except OSError as error:
            raise _Failure(error.strerror or str(error)) from error
        except (ValueError, RecursionError) as error:  # too long, not UTF-8, not JSON, or nested without end
            raise _Failure(f"QEMU sent something that is not QMP ({error})") from error
        if not isinstance(message, dict):
            raise _Failure("QEMU sent something that is not QMP (not an object)")
        return message

    def _take(self, message: dict[str, Json]) -> None:
        if "event" in message:
            self._take_event(message)
            return
        number = message.get("id")
        answer = self._pending.get(number) if isinstance(number, int) else None
        if answer is None or answer.done():  # the answer to a command whose deadline has passed
            return
        if "return" in message:
            answer.set_result(message["return"])
        else:
            error = message.get("error")
            details = error if isinstance(error, dict) else {}
            answer.set_exception(_Failure(str(details.get("desc", error)), str(details.get("class", "GenericError"))))

    def _take_event(self, message: dict[str, Json]) -> None:
        data, timestamp = message.get("data"), message.get("timestamp")
        parts = [timestamp.get(key) for key in ("seconds", "microseconds")] if isinstance(timestamp, dict) else []
        seconds, microseconds = (part if isinstance(part, int) else 0 for part in (*parts, 0, 0)[:2])
        event = QmpEvent(str(message["event"]), data if isinstance(data, dict) else {}, seconds + microseconds / 1e6)
        if self._on_event:
            self._on_event(event)

    def _fail(self, reason: str) -> None:
        """The connection is of no more use: tell everyone who waits."""
        self._lost = self._lost or reason
        self._writer.close()
        for answer in self._pending.values():
            if not answer.done():
                answer.set_exception(_Failure(self._lost))


class _Failure(Exception):
    """Why there is no answer; `error_class` is empty unless QEMU itself said no."""

    def __init__(self, answer: str, error_class: str = "") -> None:
        self.answer, self.error_class = answer, error_class
        super().__init__(answer)
