"""The image cache: what lies in CACHE/images, where it came from, and who stands on it.

    NAME             the image, whole and decompressed
    NAME.json        its `Record`; one that does not fit the image (size, time) counts for nothing
    NAME.users.json  the copy-on-write volumes that have it as their base: a list of paths
    .NAME.lock       held by whoever reads the record and acts on it
    .NAME.*.part     what somebody is making, or was when he was killed

All clusters of a host share it. NAME is `plan`'s: 32 hexadecimal digits from source and compression.
"""

import fcntl
import json
import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..atomic import sync, unfinished, write_json
from ..errors import StepError


@dataclass(frozen=True, kw_only=True)
class Record:
    """Where a cached image came from, and what it was when it was stored."""

    source: str
    """URL (without password) or path."""
    compression: str
    sha256: str
    """Of the file as it was served."""
    served_bytes: int
    fetched: str
    """When, in ISO 8601."""
    etag: str = ""
    last_modified: str = ""
    source_mtime_ns: int = 0
    size: int = 0
    mtime_ns: int = 0
    used_by: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Cluster -> name of the image there -> digest of its resource."""


@dataclass(frozen=True)
class Entry:
    """A place in the cache."""

    path: Path

    @property
    def record_path(self) -> Path:
        """The record's file."""
        return self.path.with_name(self.path.name + ".json")

    @property
    def users_path(self) -> Path:
        """The file with the volumes that stand on the image."""
        return self.path.with_name(self.path.name + ".users.json")

    @property
    def lock_path(self) -> Path:
        """The lock's file."""
        return self.path.with_name(f".{self.path.name}.lock")

    @property
    def served_path(self) -> Path:
        """Where the download goes before it is unpacked."""
        return self.path.with_name(f".{self.path.name}.served.part")

    @property
    def parts(self) -> tuple[Path, ...]:
        """All that may be unfinished here."""
        names = (self.path, self.record_path, self.users_path)
        return (self.served_path, *(unfinished(path) for path in names))

    def record(self) -> Record | None:
        """The record; None where the image is missing or is not the one that was recorded."""
        try:
            record = Record(**json.loads(self.record_path.read_text()))
            found = self.path.stat()
        except (OSError, ValueError, TypeError):
            return None
        return record if (found.st_size, found.st_mtime_ns) == (record.size, record.mtime_ns) else None

    def write(self, record: Record) -> None:
        """Store the record. Raises OSError."""
        write_json(self.record_path, asdict(record))

    @contextmanager
    def lock(self, waiting: Callable[[], None]) -> Iterator[None]:
        """Hold the lock; calls `waiting` every now and then until it is free, which may raise to give up.

        Raises OSError where the directory cannot be written.
        """
        descriptor = self._locked()
        while descriptor is None:
            waiting()
            descriptor = self._locked()
        try:
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def try_lock(self) -> Iterator[bool]:
        """Hold the lock if it is free; says whether it is held."""
        descriptor = self._locked()
        try:
            yield descriptor is not None
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def _locked(self) -> int | None:
        """A descriptor with the lock; None while somebody else has it. flock(2): it excludes threads as well."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self.lock_path, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), self.lock_path.lstat()):
                return descriptor
        except (BlockingIOError, FileNotFoundError):
            pass  # held, or deleted by `prune` in between
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    # The rest is for those who hold the lock.

    def clean(self) -> None:
        """Remove what somebody who was killed had begun."""
        for part in self.parts:
            part.unlink(missing_ok=True)

    def users(self) -> tuple[Path, ...]:
        """The copy-on-write volumes that stand on this image and still exist."""
        return tuple(path for path in self._users() if path.exists())

    def hold(self, volume: Path) -> None:
        """Note a volume that stands on this image: from now on it is neither replaced nor pruned."""
        write_json(self.users_path, sorted({str(path) for path in (*self.users(), volume)}))

    def release(self, volume: Path) -> None:
        """Forget a volume."""
        users = [str(path) for path in self._users() if path != volume]
        if users:
            write_json(self.users_path, users)
        else:
            self.users_path.unlink(missing_ok=True)

    def _users(self) -> list[Path]:
        try:
            return [Path(name) for name in json.loads(self.users_path.read_text())]
        except FileNotFoundError:
            return []


def entry_of(base: Path) -> Entry | None:
    """The entry of a volume's base; None where the base is a file outside of the cache."""
    entry = Entry(base)
    return entry if entry.record_path.exists() else None


def open_directory(directory: Path) -> None:
    """Make the directory of the cache where it is missing.

    Raises StepError where somebody else could put files, or links, into it.
    """
    try:
        for made in (directory.parent, directory):
            if not made.exists():
                made.mkdir(parents=True, exist_ok=True)
                made.chmod(0o755)  # QEMU's user reads here, whatever our umask is
        found = directory.stat()
    except OSError as error:
        raise StepError(f"make {directory}", error.strerror or str(error)) from error
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        hint = f"chown root {directory} && chmod 755 {directory}"
        raise StepError(f"use {directory}", "others may write to it, so its images cannot be trusted", hint)


# -- for people -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ImageInfo:
    """One image of the cache. `stored_bytes` is what it takes on the disk, without its holes."""

    path: Path
    size: int
    stored_bytes: int
    record: Record | None
    users: tuple[Path, ...]


def entries(cache_dir: Path) -> list[Entry]:
    """All places of the cache, those with unfinished or damaged images too."""
    directory = cache_dir / "images"
    names = {_entry_name(path.name) for path in directory.iterdir()} if directory.is_dir() else set()
    return [Entry(directory / name) for name in sorted(names)]


def _entry_name(file_name: str) -> str:
    """NAME of any file of an entry: what comes before the first dot within."""
    return file_name.removeprefix(".").partition(".")[0]


def list_images(cache_dir: Path) -> list[ImageInfo]:
    """What the cache holds; an image without record is damaged, and fetched anew when it is used next."""
    found = []
    for entry in entries(cache_dir):
        try:
            size = entry.path.stat()
        except FileNotFoundError:
            continue
        found.append(ImageInfo(entry.path, size.st_size, size.st_blocks * 512, entry.record(), entry.users()))
    return found


def prune(cache_dir: Path, keep: Collection[Path] = ()) -> list[ImageInfo]:
    """Delete the images that no copy-on-write volume stands on and that are not in `keep`; returns them.

    Images that somebody is fetching are left alone. Raises StepError where the system refuses.
    """
    listed = {info.path: info for info in list_images(cache_dir)}
    removed = []
    try:
        for entry in entries(cache_dir):
            with entry.try_lock() as locked:
                if not locked:
                    continue
                entry.clean()
                if entry.path not in keep and not entry.users():
                    for path in (entry.record_path, entry.users_path, entry.path):
                        path.unlink(missing_ok=True)
                    removed += [listed[entry.path]] if entry.path in listed else []
                entry.lock_path.unlink()
    except OSError as error:
        raise StepError(f"prune {cache_dir / 'images'}", f"{error.filename}: {error.strerror}") from error
    if removed:
        sync(cache_dir / "images")
    return removed
