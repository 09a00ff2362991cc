"""Decompression as a stream: gzip, bzip2 and xz by the standard library, zstd (new there in 3.14) by its program."""

import bz2
import gzip
import lzma
import subprocess
import tempfile
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import BinaryIO

from ..errors import StepError
from ..run import find

CHUNK = 1 << 20
ZSTD_MEMORY = "128MiB"  # zstd's own limit, and what `zstd --ultra -22` needs

MAGIC = {
    "gzip": b"\x1f\x8b\x08",
    "bzip2": b"BZh",
    "xz": b"\xfd7zXZ\x00",
    "zstd": b"\x28\xb5\x2f\xfd",
}
"""How compressed files begin (RFC 1952, RFC 8878, the xz format)."""

ZSTD_SKIPPABLE = b"\x2a\x4d\x18"  # after 50 to 5f: what pzstd writes first

Read = Callable[[int], bytes]


def detect(head: bytes) -> str:
    """The compression of a file that begins so; "" for none of ours."""
    if head[1:4] == ZSTD_SKIPPABLE and head[0] >> 4 == 5:
        return "zstd"
    return next((name for name, magic in MAGIC.items() if head.startswith(magic)), "")


def unpack(compression: str, source: BinaryIO, what: str) -> Generator[bytes, None, None]:
    """The content of an open file, in pieces; unchanged where `compression` is "".

    Raises StepError where the file is damaged, cut off or of another kind, and MissingTool for zstd.
    """
    with _reader(compression, source, what) as read:
        while True:
            try:
                data = read(CHUNK)
            except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
                raise StepError(what, f"the {compression or 'file'} data is damaged: {error}") from error
            if not data:
                return
            yield data


@contextmanager
def _reader(compression: str, source: BinaryIO, what: str) -> Iterator[Read]:
    match compression:
        case "":
            yield source.read
        case "gzip":
            with gzip.GzipFile(fileobj=source) as file:
                yield file.read
        case "bzip2":
            with bz2.BZ2File(source) as file:
                yield file.read
        case "xz":
            with lzma.LZMAFile(source) as file:
                yield file.read
        case "zstd":
            with _zstd(source, what) as read:
                yield read
        case _:
            raise StepError(what, f"unknown compression {compression}", f"one of {', '.join(MAGIC)}")


@contextmanager
def _zstd(source: BinaryIO, what: str) -> Iterator[Read]:
    argv = [
        str(find("zstd")),
        "--decompress",
        "--stdout",
        "--quiet",
        "--no-progress",
        f"--memory={ZSTD_MEMORY}",
    ]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(argv, stdin=source, stdout=subprocess.PIPE, stderr=errors)
        pipe = process.stdout
        if pipe is None:
            raise ValueError("stdout was asked for")

        def read(size: int) -> bytes:
            data = pipe.read(size)
            if not data and process.wait():
                errors.seek(0)
                raise StepError(what, f"the zstd data is damaged: {errors.read(1000).decode(errors='replace').strip()}")
            return data

        try:
            yield read
        finally:
            process.kill()
            process.wait()
            pipe.close()
