"""One image into its place in the cache: ask whether it is current, fetch, verify, unpack, put in place."""

import hashlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from ..atomic import replacing
from ..errors import StepError
from ..resources import CachedImage
from .cache import Entry, Record
from .download import Interrupted, Source, Version
from .http import Limits, redacted
from .output import MAX_IMAGE_BYTES, Output
from .unpack import detect, unpack

PROGRESS_SECONDS = 0.1
LOCK_WAIT_SECONDS = 0.2
HEAD_BYTES = 512
UNVERSIONED = Version()


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What fetching needs besides the image: whom to tell, when to stop, how patient and how large."""

    progress: Callable[[str, int, int | None], None] = lambda item, done, total: None
    """Called with the item, the bytes done and the bytes in all (None: unknown), at most ten times a second an item."""
    warn: Callable[[str], None] = lambda message: None
    cancelled: threading.Event = field(default_factory=threading.Event)
    limits: Limits = Limits()
    max_bytes: int = MAX_IMAGE_BYTES


class Fetch:
    """Making one image current. Everything but `wait` is for the holder of the entry's lock."""

    def __init__(self, image: CachedImage, around: Surroundings) -> None:
        self._image, self._around = image, around
        self._entry = Entry(image.path)
        self._told = 0.0
        self.what = f"fetch {image.key}"

    def wait(self) -> None:
        """Somebody else is fetching it; raises StepError when cancelled."""
        self._progress(0, None)
        self._around.cancelled.wait(LOCK_WAIT_SECONDS)
        self._check_cancelled()

    def run(self) -> Record:
        """The record of the image, which is in its place now. Raises StepError, OSError."""
        self._entry.clean()
        record = self._entry.record()
        if record and self._is_current(record):
            return record
        if record and (users := self._entry.users()):
            return self._kept(record, users)
        try:
            return self._fetch(record.used_by if record else {})
        except StepError as error:
            if record is None or not self._fits(record) or self._around.cancelled.is_set():
                raise
            self._around.warn(f"{error}; using the cached version of {record.fetched}")
            return record

    # -- is it current? -----------------------------------------------------------------------------------------------

    def _fits(self, record: Record) -> bool:
        return self._image.sha256.lower() in ("", record.sha256)

    def _is_current(self, record: Record) -> bool:
        if self._image.sha256:
            return self._fits(record)
        if self._image.file:
            return file_unchanged(record)
        version = Version(record.etag, record.last_modified)
        if not version.condition:
            return True  # the server gave us nothing to ask with
        try:
            return self._source().is_current(version)
        except (Interrupted, StepError) as error:
            self._check_cancelled()
            answer = error.answer if isinstance(error, StepError) else f"{record.source}: {error}"
            self._around.warn(f"{self._image.key}: {answer}; using the cached version of {record.fetched}")
            return True

    def _kept(self, record: Record, users: tuple[Path, ...]) -> Record:
        """The old version, where changing it would change the disks that stand on it."""
        volumes = ", ".join(map(str, users))
        if not self._fits(record):
            answer = f"the cached version has sha256 {record.sha256}, and {volumes} stand on it"
            raise StepError(self.what, answer, "placemat-cli volume reset NODE VOLUME for each of them, then again")
        self._around.warn(
            f"{self._image.key}: {record.source} has another version now; "
            f"that of {record.fetched} is still used, because {volumes} stand on it"
        )
        return record

    # -- fetching -----------------------------------------------------------------------------------------------------

    def _fetch(self, used_by: Mapping[str, Mapping[str, str]]) -> Record:
        record = self._from_file(self._image.file) if self._image.file else self._from_url()
        found = self._entry.path.stat()
        record = replace(record, size=found.st_size, mtime_ns=found.st_mtime_ns, used_by=used_by)
        self._entry.write(record)
        return record

    def _from_url(self) -> Record:
        served = self._entry.served_path
        try:
            with Output(served, self.what, self._around.max_bytes) as output:
                version, digest = self._source().download(output, self._progress)
            self._verify(digest)
            with served.open("rb", buffering=0) as source:
                self._store(source, served)
        finally:
            served.unlink(missing_ok=True)
        return self._record(redacted(self._image.url), digest, output.size, version)

    def _from_file(self, path: Path) -> Record:
        try:
            source = path.open("rb", buffering=0)
        except OSError as error:
            raise StepError(self.what, f"{path}: {error.strerror}") from error
        with source:
            before = os.fstat(source.fileno())
            digest = hashlib.file_digest(source, "sha256").hexdigest()
            self._verify(digest)
            source.seek(0)
            self._store(source, None)
            after = os.fstat(source.fileno())
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            self._entry.path.unlink()
            raise StepError(self.what, f"{path} was written to while it was read")
        return replace(self._record(str(path), digest, before.st_size), source_mtime_ns=before.st_mtime_ns)

    def _store(self, source: BinaryIO, spare: Path | None) -> None:
        """Unpack an open file into the image's place; `spare` is its path if it may become the image itself."""
        self._check_head(source, self._image.compression)
        with replacing(self._entry.path) as part:
            if spare and not self._image.compression:
                spare.rename(part)
                return
            total = os.fstat(source.fileno()).st_size
            pieces = unpack(self._image.compression, source, self.what)
            with Output(part, self.what, self._around.max_bytes) as output, closing(pieces):
                for data in pieces:
                    self._check_cancelled()
                    output.write(data)
                    self._progress(source.tell(), total)
                output.finish()
            if self._image.compression:
                with part.open("rb", buffering=0) as unpacked:
                    self._check_head(unpacked, "")

    def _check_head(self, source: BinaryIO, compression: str) -> None:
        """Raises StepError where the file is not compressed in that way, or clearly no image."""
        head = source.read(HEAD_BYTES)
        source.seek(0)
        if not head:
            raise StepError(self.what, "it is empty")
        if head.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
            raise StepError(
                self.what, "it is a web page and no image", "an error page or a login? open it in a browser"
            )
        found = detect(head)
        if found != compression:
            hint = f"the Image needs compression: {found}" if found and not compression else ""
            raise StepError(self.what, f"it is {found or 'not'} compressed, not {compression or 'plain'}", hint)

    def _verify(self, digest: str) -> None:
        if self._image.sha256.lower() not in ("", digest):
            answer = f"sha256 is {digest}, expected {self._image.sha256.lower()}"
            raise StepError(self.what, answer, "damaged on the way, or a newer version: compare with its publisher's")

    def _record(self, source: str, digest: str, size: int, version: Version = UNVERSIONED) -> Record:
        return Record(
            source=source,
            compression=self._image.compression,
            sha256=digest,
            served_bytes=size,
            fetched=datetime.now(UTC).isoformat(timespec="seconds"),
            etag=version.etag,
            last_modified=version.last_modified,
        )

    # -- surroundings -------------------------------------------------------------------------------------------------

    def _source(self) -> Source:
        return Source(self._image.url, self.what, self._around.cancelled, self._around.limits)

    def _progress(self, done: int, total: int | None) -> None:
        """Tell how far it is: ten times a second, and always the end."""
        now = time.monotonic()
        if now - self._told >= PROGRESS_SECONDS or done == total:
            self._told = now
            self._around.progress(str(self._image.key), done, total)

    def _check_cancelled(self) -> None:
        if self._around.cancelled.is_set():
            raise StepError(self.what, "cancelled")


def file_unchanged(record: Record) -> bool:
    """Whether a local source is the file that was copied; one that is gone, or a URL, has not changed either."""
    if not record.source_mtime_ns:
        return True
    try:
        found = Path(record.source).stat()
    except FileNotFoundError:
        return True
    return (found.st_mtime_ns, found.st_size) == (record.source_mtime_ns, record.served_bytes)
