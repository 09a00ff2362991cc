"""Volumes for people: list them, and delete one so that the next start makes it anew."""

import fcntl
import os
import shutil
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import NotFound, StepError, WrongState
from ..image.cache import entry_of
from ..names import OwnerMark
from ..resources import VolumeFile
from .create import alone
from .record import Record, changes_of, exists, record_path, records

LOCK_FORMAT = "hhqqi4x"  # struct flock of fcntl(2) on 64 bit Linux: type, whence, start, length, pid


@dataclass(frozen=True)
class VolumeInfo:
    """One volume. `stored_bytes` is what it takes on the disk; `changes` says how its inputs changed since."""

    node: str
    name: str
    form: str
    path: Path
    exists: bool
    stored_bytes: int
    changes: str
    made: str


def list_volumes(data_dir: Path, cluster: str, planned: Iterable[VolumeFile] = ()) -> list[VolumeInfo]:
    """The volumes of a cluster, those of stopped and removed nodes too, compared with those that are planned.

    Raises StepError where it may not look.
    """
    wanted = {volume.name: volume for volume in planned}
    directory = data_dir / cluster / "records"
    try:
        if directory.exists():
            next(directory.iterdir(), None)  # glob() takes what it may not read for empty
        return [_info(mark, record, wanted.get(mark.name)) for mark, record in records(data_dir, cluster)]
    except OSError as error:
        hint = "be root" if isinstance(error, PermissionError) else ""
        raise StepError(f"list volumes of {cluster}", f"{error.filename}: {error.strerror}", hint) from error


def _info(mark: OwnerMark, record: Record, planned: VolumeFile | None = None) -> VolumeInfo:
    node, _, name = mark.name.partition("/")
    found = exists(record)
    if not found and record.form != "directory":
        with suppress(FileNotFoundError, NotADirectoryError):
            Path(record.path).stat()  # what we may not see is not missing
    stored = _stored_bytes(Path(record.path)) if found and record.form != "directory" else 0
    changes = changes_of(mark, record, planned)
    return VolumeInfo(node, name, record.form, Path(record.path), found, stored, changes, record.made)


def _stored_bytes(path: Path) -> int:
    files = [path, *path.rglob("*")] if path.is_dir() else [path]
    return sum(file.lstat().st_blocks * 512 for file in files)


def reset_volume(data_dir: Path, cluster: str, node: str, volume: str) -> VolumeInfo:
    """Delete a volume and its record; returns what it was. A shared directory is the user's and stays.

    Raises NotFound, WrongState while its node (or its TPM) runs, and StepError where the system refuses.
    """
    for mark, record in records(data_dir, cluster):
        if mark.name == f"{node}/{volume}":
            info = _info(mark, record)
            try:
                _delete(info, Path(record.inputs["image"]) if record.form == "cow" else None)
                record_path(data_dir, cluster, mark.name).unlink()
            except OSError as error:
                raise StepError(f"reset volume {mark.name}", f"{error.filename}: {error.strerror}") from error
            return info
    known = ", ".join(mark.name for mark, _ in records(data_dir, cluster)) or "none"
    raise NotFound(f"no volume {node}/{volume} in cluster {cluster} (volumes: {known})")


def _delete(info: VolumeInfo, base: Path | None) -> None:
    if info.form == "directory" or not info.exists:
        return
    with alone(info.path.parent):
        files = [file for file in info.path.rglob("*") if file.is_file()] if info.path.is_dir() else [info.path]
        if any(in_use(file) for file in files):
            raise WrongState(f"volume {info.node}/{info.name} is in use: stop node {info.node} first")
        if info.path.is_dir():
            shutil.rmtree(info.path)
        else:
            info.path.unlink()
    entry = entry_of(base) if base else None
    if entry:
        with entry.lock(lambda: None):
            entry.release(info.path)


def in_use(path: Path) -> bool:
    """Whether some process holds a lock on the file, as QEMU does on its disks and swtpm on its state (fcntl(2))."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        asked = struct.pack(LOCK_FORMAT, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, asked)
        return bool(struct.unpack(LOCK_FORMAT, answer)[0] != fcntl.F_UNLCK)
    finally:
        os.close(descriptor)
