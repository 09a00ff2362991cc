"""A client of one of QEMU's character devices: a Unix stream socket that serves one client.

QEMU listens as long as it runs, so there is nothing to reconnect to after it has closed the connection: whoever learns
that QEMU runs again attaches again.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

CONNECT_SECONDS = 10.0
RETRY_SECONDS = 0.1
READ_BYTES = 65536


class Chardev:
    """Reads a character device while attached.

    `on_data` is awaited with each piece, so one that takes its time slows the guest down and nobody else; `on_end` is
    called with the reason when QEMU has gone or could not be reached, not after `detach`.
    """

    def __init__(
        self,
        path: Path,
        on_data: Callable[[bytes], Awaitable[None]],
        on_end: Callable[[str], None],
        read_bytes: int = READ_BYTES,
    ) -> None:
        self._path = path
        self._on_data, self._on_end = on_data, on_end
        self._read_bytes = read_bytes
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        """Whether what is written reaches QEMU."""
        return self._writer is not None

    def attach(self) -> None:
        """Connect, in the background, unless that is done or under way. To be called in the event loop."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name=f"read {self._path}")

    async def detach(self) -> None:
        """Disconnect; when this returns, `on_data` is not called any more."""
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def write(self, data: bytes) -> None:
        """Send, and wait while the guest does not read. Without a connection, nothing hears it, as on a real line."""
        if self._writer:
            with suppress(OSError):  # QEMU has gone, which the reading side tells
                self._writer.write(data)
                await self._writer.drain()

    async def _run(self) -> None:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                reader, self._writer = await self._connect()
        except TimeoutError:
            self._on_end(f"cannot connect to {self._path}")
            return
        try:
            while data := await reader.read(self._read_bytes):
                await self._on_data(data)
            reason = "QEMU closed the connection"
        except OSError as error:
            reason = error.strerror or str(error)
        finally:
            self._writer.transport.abort()  # not close: nothing shall wait for a guest that does not read
            self._writer = None
        self._on_end(reason)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect as soon as QEMU listens; there is no event for that."""
        while True:
            try:
                return await asyncio.open_unix_connection(self._path)
            except OSError:
                await asyncio.sleep(RETRY_SECONDS)
