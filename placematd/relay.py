"""Connects a client of the API with a console, once its HTTP connection has become a raw one."""

import asyncio
from contextlib import suppress

from tornado.iostream import IOStream, StreamClosedError

from .console import ConsoleHub, Viewer

CHUNK_BYTES = 64 << 10
"""All that an IOStream reads at once: it sees a client leave only while it holds nothing that was not asked for."""


async def relay(stream: IOStream, hub: ConsoleHub) -> None:
    """Carry bytes both ways until the client leaves or the console is closed; a client may stop typing and go on."""
    viewer = hub.view()
    stream.set_close_callback(viewer.close)  # `_type` does not see it while it waits for a guest that does not read
    directions = [asyncio.ensure_future(_show(viewer, stream)), asyncio.ensure_future(_type(stream, viewer))]
    try:
        await directions[0]
    finally:
        viewer.close()
        for direction in directions:
            direction.cancel()
        await asyncio.gather(*directions, return_exceptions=True)
        stream.close()


async def _show(viewer: Viewer, stream: IOStream) -> None:
    with suppress(StreamClosedError):
        while data := await viewer.read():
            await stream.write(data)


async def _type(stream: IOStream, viewer: Viewer) -> None:
    try:
        while True:
            await viewer.write(await stream.read_bytes(CHUNK_BYTES, partial=True))
    except StreamClosedError:
        viewer.close()
