"""An image file in the making: holes where it is zero, and never more than the disk and the limit allow."""

import os
from pathlib import Path
from types import TracebackType
from typing import Self

from ..errors import StepError

BLOCK = 1 << 16
ZEROS = bytes(BLOCK)
SPACE_CHECK_BYTES = 64 << 20
RESERVE_BYTES = 256 << 20
"""Left free on the file system, for those who share it."""

MAX_IMAGE_BYTES = 1 << 40
"""Largest image: a few megabytes unpack to any size, and holes cost nothing, so the free space alone is no limit."""


PRUNE_HINT = "placemat-cli image prune makes room, PLACEMAT_CACHE_DIR names another place"


class Output:
    """A new file for an image; `size` counts what was written. Everything raises StepError."""

    def __init__(self, path: Path, what: str, max_bytes: int = MAX_IMAGE_BYTES) -> None:
        self._path, self._what, self._max_bytes = path, what, max_bytes
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._file = os.open(path, flags, 0o600)
        except OSError as error:
            raise self._refused(error) from error
        self.restart()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def restart(self) -> None:
        """Forget what was written."""
        os.ftruncate(self._file, 0)
        self.size = 0
        self._pending = bytearray()
        self._flushed = 0
        self._next_check = 0

    def expect(self, size: int) -> None:
        """Refuse a size that cannot fit, before it is fetched."""
        self._check(size, size - self.size)

    def write(self, data: bytes) -> None:
        """Append."""
        self.size += len(data)
        if self.size > min(self._next_check, self._max_bytes):
            self._check(self.size, 0)
            self._next_check = self.size + SPACE_CHECK_BYTES
        self._pending += data
        while len(self._pending) >= BLOCK:
            self._flush(bytes(self._pending[:BLOCK]))
            del self._pending[:BLOCK]

    def finish(self) -> None:
        """Write the rest; then everybody may read the file."""
        self._flush(bytes(self._pending))
        self._pending.clear()
        try:
            os.ftruncate(self._file, self.size)
            os.fchmod(self._file, 0o644)
        except OSError as error:
            raise self._refused(error) from error

    def _flush(self, block: bytes) -> None:
        try:
            if block != ZEROS[: len(block)]:
                _write_all(self._file, block, self._flushed)
        except OSError as error:
            raise self._refused(error) from error
        self._flushed += len(block)

    def _check(self, size: int, more: int) -> None:
        if size > self._max_bytes:
            raise StepError(self._what, f"larger than the limit of {self._max_bytes >> 20} MiB")
        space = os.statvfs(self._path.parent)
        free = space.f_bavail * space.f_frsize
        reserve = min(RESERVE_BYTES, space.f_blocks * space.f_frsize // 20)
        if free - more < reserve:
            needed = f"{more >> 20} MiB more and " if more else ""
            answer = f"{free >> 20} MiB free in {self._path.parent}, needs {needed}a reserve of {reserve >> 20} MiB"
            raise StepError(self._what, answer, PRUNE_HINT)

    def _refused(self, error: OSError) -> StepError:
        return StepError(self._what, f"{self._path}: {error.strerror}", PRUNE_HINT)


def _write_all(file: int, data: bytes, offset: int) -> None:
    """A disk that fills up takes a part first and then refuses."""
    while data:
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written
