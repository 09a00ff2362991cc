"""Files that are whole or not there: written beside their place under a hidden name, synced, then renamed.

The hidden name derives from the final one, so what a killed process left is found, and removed, by the next writer.
Writers of one file exclude each other by a lock of their own.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def unfinished(path: Path) -> Path:
    """The hidden name of a file that is being made."""
    return path.with_name(f".{path.name}.part")


@contextmanager
def replacing(path: Path, part: Path | None = None) -> Iterator[Path]:
    """A free name to make the file under. It takes its place when the block ends well, and is removed otherwise.

    `part` is another name for it, on the same file system. Raises OSError.
    """
    part = part or unfinished(path)
    part.unlink(missing_ok=True)
    try:
        yield part
        sync(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    sync(path.parent)


def write_json(path: Path, value: object) -> None:
    """Write a small record that everybody may read. Raises OSError."""
    with replacing(path) as part:
        part.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
        part.chmod(0o644)


def sync(path: Path) -> None:
    """Have the disk store a file, or the names in a directory (fsync(2))."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
