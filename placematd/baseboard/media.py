"""Images for a virtual media slot: fetched from a server, or taken from the folder that the cluster allows."""

import asyncio
import os
import re
import stat
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..atomic import replacing
from ..bmc.machine import Progress
from ..errors import NotFound, PlacematError, StepError
from ..image.download import Source
from ..image.http import Limits, redacted
from ..image.output import Output
from .store import private_directory

IMAGE_BYTES = 16 << 30
"""The largest image; discs of 9 GB exist."""

NAME_CHARACTERS = 2048
DOWNLOADS = ThreadPoolExecutor(max_workers=8, thread_name_prefix="media")
"""Threads of their own: a slow server must not keep placematd's other work waiting. More downloads wait in line."""
PRINTABLE = re.compile(r"[!-~]+(?: [!-~]+)*")


def is_url(image: str) -> bool:
    """Whether an image is to be fetched. Raises PlacematError on what is neither an http(s) URL nor a path."""
    if not PRINTABLE.fullmatch(image) or len(image) > NAME_CHARACTERS:
        raise PlacematError("the image's name is too long or has characters that no URL and no path here may have")
    if image.startswith("/"):
        return False
    try:
        parts = urlsplit(image)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return True
    except ValueError:  # a port or IPv6 address that is none
        pass
    raise PlacematError(f"{image}: neither an http(s) URL nor an absolute path")


def open_allowed(path: Path, folder: Path | None) -> tuple[Path, int]:
    """Open an image below `folder`; returns where it really lies, and its descriptor, which is the caller's to close.

    Links are followed, but not out of the folder, and what was opened is what is looked at. Raises PlacematError.
    """
    if folder is None:
        raise PlacematError(f"{path}: this cluster allows no images by path, only http(s) URLs")
    refused = NotFound(f"{path}: no such image below {folder}")
    try:
        inside = folder.resolve(strict=True)
        real = path.resolve(strict=True)
        if not real.is_relative_to(inside):
            raise refused
        descriptor = _open(real)
    except (OSError, RuntimeError, ValueError) as error:
        raise refused from error
    # Between looking and opening, a directory on the way may have become a link.
    opened = Path(f"/proc/self/fd/{descriptor}").readlink()
    if not opened.is_relative_to(inside):
        os.close(descriptor)
        raise refused
    return opened, descriptor


def open_image(path: Path) -> int:
    """Open an image that was fetched. Raises PlacematError."""
    try:
        return _open(path)
    except OSError as error:
        raise StepError(f"open {path}", error.strerror or str(error)) from error


def _open(path: Path) -> int:
    """A descriptor of a regular file that is not empty; never waits (a FIFO) and never acts (a device)."""
    if not stat.S_ISREG(path.lstat().st_mode):
        raise OSError(None, f"{path}: not a regular file")
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or not found.st_size or found.st_size > IMAGE_BYTES:
        os.close(descriptor)
        raise OSError(None, f"{path}: not a regular file of 1 to {IMAGE_BYTES} bytes")
    return descriptor


async def fetch(url: str, path: Path, limits: Limits, max_bytes: int = IMAGE_BYTES) -> AsyncGenerator[Progress, None]:
    """Download an image to `path`. Raises StepError; whoever stops listening cancels it, and nothing is left."""
    loop = asyncio.get_running_loop()
    cancelled, changed = threading.Event(), asyncio.Event()
    latest = [Progress(done=0, total=None)]

    def tell(done: int, total: int | None) -> None:  # in the thread
        latest[0] = Progress(done=done, total=total)
        loop.call_soon_threadsafe(changed.set)

    def run() -> None:
        try:
            _fetch(Source(url, f"fetch {redacted(url)}", cancelled, limits), path, max_bytes, tell)
        finally:
            with suppress(RuntimeError):  # the loop is closed: placematd ends
                loop.call_soon_threadsafe(changed.set)

    job = DOWNLOADS.submit(run)
    work = asyncio.wrap_future(job)
    try:
        while not work.done():
            yield latest[0]
            changed.clear()
            if not work.done():
                await _either(changed, work)
        await work
        yield latest[0]
    finally:
        cancelled.set()
        if not job.cancel() and not work.done():
            await asyncio.wait([work])
        if not work.cancelled():
            work.exception()  # looked at, so that nobody warns of it


async def _either(changed: asyncio.Event, work: "asyncio.Future[None]") -> None:
    waiting = asyncio.ensure_future(changed.wait())
    either: tuple[asyncio.Future[Any], ...] = (waiting, work)
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


def _fetch(source: Source, path: Path, max_bytes: int, tell: Callable[[int, int | None], None]) -> None:
    try:
        private_directory(path.parent)
        with replacing(path) as part:
            with Output(part, source.what, max_bytes) as output:
                source.download(output, tell)
            part.chmod(0o600)
            if not part.stat().st_size:
                raise StepError(source.what, "the image is empty")
    except OSError as error:
        raise StepError(source.what, f"{path}: {error.strerror}") from error
