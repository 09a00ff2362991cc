"""A node's serial console for people: one connection to QEMU, any number of viewers.

QEMU's socket serves one client, so this is it. Nothing is logged here: the journal has a path of its own.
"""

import asyncio
from pathlib import Path

from .chardev import Chardev

HISTORY_BYTES = 64 << 10
"""What a new viewer sees of the past."""

VIEWER_BYTES = 256 << 10
"""What waits for a viewer that does not read, before the oldest half of it is skipped."""


class Viewer:
    """One person at a console, made by `ConsoleHub.view`. Who does not keep up misses output; nobody waits for them."""

    def __init__(self, hub: "ConsoleHub", history: bytes) -> None:
        self._hub = hub
        self._waiting = bytearray(history)
        self._skipped = 0
        self._wake = asyncio.Event()
        self._closed = False

    async def read(self) -> bytes:
        """The next piece of output, as soon as there is one; empty when the viewer or the hub was closed."""
        while not self._waiting and not self._closed:
            self._wake.clear()
            await self._wake.wait()
        note = _note(f"{self._skipped} bytes skipped") if self._skipped else b""
        data = note + self._waiting
        self._waiting, self._skipped = bytearray(), 0
        return bytes(data)

    async def write(self, data: bytes) -> None:
        """Type; waits while the guest does not read. What is typed while the node is off is lost."""
        await self._hub.write(data)

    def close(self) -> None:
        """Leave. What waits can still be read."""
        self._hub.forget(self)
        self._closed = True
        self._wake.set()

    def show(self, data: bytes) -> None:
        """Called by the hub."""
        self._waiting += data
        if len(self._waiting) > VIEWER_BYTES:
            skip = len(self._waiting) - VIEWER_BYTES // 2
            del self._waiting[:skip]
            self._skipped += skip
        self._wake.set()


class ConsoleHub:
    """The console of one node. It lives as long as placematd, and is attached while the node's QEMU runs."""

    def __init__(self, path: Path) -> None:
        self._chardev = Chardev(path, self._on_data, self._on_end)
        self._history = bytearray()
        self._viewers: set[Viewer] = set()

    def attach(self) -> None:
        """QEMU runs: connect, in the background, unless connected."""
        self._chardev.attach()

    async def detach(self) -> None:
        """Let go of QEMU; viewers stay, and see what comes after the next `attach`."""
        if self._chardev.connected:
            self._show(_note("console disconnected"))
        await self._chardev.detach()

    async def close(self) -> None:
        """Let go of QEMU and of all viewers."""
        await self._chardev.detach()
        for viewer in list(self._viewers):
            viewer.close()

    def view(self) -> Viewer:
        """A new viewer, who sees the latest output first."""
        viewer = Viewer(self, bytes(self._history))
        self._viewers.add(viewer)
        return viewer

    async def write(self, data: bytes) -> None:
        """Send what a viewer typed."""
        await self._chardev.write(data)

    def forget(self, viewer: Viewer) -> None:
        """Show nothing more to a viewer."""
        self._viewers.discard(viewer)

    async def _on_data(self, data: bytes) -> None:
        self._show(data)

    def _on_end(self, reason: str) -> None:
        self._show(_note(f"console disconnected: {reason}"))

    def _show(self, data: bytes) -> None:
        self._history += data
        del self._history[:-HISTORY_BYTES]
        for viewer in self._viewers:
            viewer.show(data)


def _note(text: str) -> bytes:
    return f"\r\n[placemat: {text}]\r\n".encode()
