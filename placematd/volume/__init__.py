"""Volumes of nodes: made once, whole or not at all, and then the user's: never changed, never deleted unasked."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ..atomic import replacing
from ..errors import StepError
from ..image.cache import entry_of
from ..names import OwnerMark
from ..resources import Kind, VolumeFile
from . import record as records
from . import seed
from .base import check_self_contained, header
from .create import Progress, alone, give, make_disk, make_node_directory
from .manage import VolumeInfo, list_volumes, reset_volume
from .record import Record

__all__ = ["VolumeInfo", "Volumes", "list_volumes", "reset_volume"]

CHANGED = "0" * 12
"""Digest reported for a volume whose files have another content than those that it was made from."""


class Volumes:
    """The adapter of kind "volume".

    Disks lie in ROOT/CLUSTER/volumes/NODE, their records in DATA/CLUSTER/records/NODE (see `record`). A volume whose
    inputs have changed stays as it is, and `list_volumes` says so; where its node could not use it as it is, `create`
    refuses. Only a seed is made anew then: no guest has written to it.
    """

    kind: Kind = "volume"

    def __init__(
        self,
        data_dir: Path,
        *,
        progress: Progress = lambda item, done, total: None,
        warn: Callable[[str], None] = lambda message: None,
    ) -> None:
        self._data_dir, self._progress, self._warn = data_dir, progress, warn

    def observe(self, cluster: str) -> Sequence[OwnerMark]:
        """The volumes that are there. One whose image or seed files have changed has another digest than it had."""
        marks = []
        for mark, record in records.records(self._data_dir, cluster):
            if not records.exists(record):
                continue
            changed = records.content_changes(mark, record)
            marks.append(OwnerMark(cluster, self.kind, mark.name, CHANGED if changed else mark.digest))
        return marks

    def create(self, resource: VolumeFile, cluster: str) -> None:
        """Make it, or take over a disk that has no record (of placemat v2, say), with a warning.

        One that is there stays. Raises StepError where it cannot be used in the place of the one that is asked for:
        it lies elsewhere, has another format, or stands on another image.
        """
        try:
            if resource.form == "directory":
                _make_shared_directory(resource)
                self._write(resource, cluster)
                return
            make_node_directory(resource.path.parent, resource.user)
            with alone(resource.path.parent):
                self._make(resource, cluster)
        except OSError as error:
            raise StepError(
                f"make {resource.key}", ": ".join(filter(None, (error.filename, error.strerror)))
            ) from error

    def remove(self, mark: OwnerMark) -> None:
        """Do nothing: volumes outlive their cluster. `reset_volume` deletes one."""

    def _make(self, volume: VolumeFile, cluster: str) -> None:
        record = records.read(self._record_path(volume, cluster))
        if volume.form == "seed":
            self._make_seed(volume, cluster, record)
        elif volume.form == "state":
            volume.path.mkdir(mode=0o700, exist_ok=True)
            give(volume.path, volume.user, 0o700)
            self._write(volume, cluster)
        elif record and record.path != str(volume.path) and records.exists(record):
            move = f"mkdir -p {volume.path.parent} && mv {record.path} {volume.path}"
            raise _unusable(volume, f"it is at {record.path}", move)
        elif not os.path.lexists(volume.path):
            self._make_disk(volume, cluster)
        elif record is None:
            self._adopt(volume, cluster)
        else:
            self._keep(volume, cluster, record)

    def _make_disk(self, volume: VolumeFile, cluster: str) -> None:
        """The record comes first: a disk without one would pass for somebody else's after a crash in between."""
        with _held_base(volume):
            self._write(volume, cluster)
            try:
                with replacing(volume.path, _part(volume)) as part:
                    make_disk(volume, part, self._progress)
                    give(part, volume.user, 0o600)
            except BaseException:
                self._record_path(volume, cluster).unlink()
                raise

    def _make_seed(self, volume: VolumeFile, cluster: str, record: Record | None) -> None:
        """The record comes last: then a crash in between makes the seed again."""
        if volume.user_data is None:
            raise ValueError(f"{volume.key}: a seed has user-data")
        wanted = records.record_of(volume, cluster)
        if record is None or record.inputs != wanted.inputs or not records.exists(record):
            content = seed.files(volume.name, volume.user_data, volume.network_config)
            with replacing(volume.path, _part(volume)) as part:
                seed.build(content, part)
                give(part, volume.user, 0o600)
        records.write(self._record_path(volume, cluster), wanted)

    def _adopt(self, volume: VolumeFile, cluster: str) -> None:
        what = f"use {volume.key}"
        if volume.path.is_symlink() or not volume.path.is_file():
            raise StepError(what, f"{volume.path} is there and no regular file", "move it away")
        found = header(volume.path) if volume.format != "raw" else None
        if found and found.format != volume.format:
            new = volume.path.with_suffix(".new")
            convert = f"qemu-img convert -f {found.format} -O {volume.format} {volume.path} {new}"
            answer = f"{volume.path} is {found.format} and not {volume.format}"
            raise StepError(what, answer, f"{convert} && mv {new} {volume.path}")
        if found:
            check_self_contained(volume.path, found, what, volume.base if volume.form == "cow" else None)
        with _held_base(volume):
            give(volume.path, volume.user, 0o600)
            self._write(volume, cluster, adopted=True)
        self._warn(f"{volume.key}: {volume.path} was there already; it is used as it is, whatever it was made from")

    def _keep(self, volume: VolumeFile, cluster: str, record: Record) -> None:
        """Keep the disk; where its inputs have changed its record stays too, so that the change stays known."""
        if reason := _obstacle(volume, record):
            raise _unusable(volume, reason)
        if not records.differences(record.inputs, records.inputs(volume)):
            with _held_base(volume):
                self._write(volume, cluster, adopted=record.adopted)

    def _write(self, volume: VolumeFile, cluster: str, *, adopted: bool = False) -> None:
        record = records.record_of(volume, cluster, adopted=adopted)
        records.write(self._record_path(volume, cluster), record)

    def _record_path(self, volume: VolumeFile, cluster: str) -> Path:
        return records.record_path(self._data_dir, cluster, volume.name)


def _obstacle(volume: VolumeFile, record: Record) -> str:
    """Why a disk that was made for other inputs cannot be used for these; "" where it can."""
    image, found_format = record.inputs.get("image", ""), record.inputs.get("format", "")
    if record.form == "cow" and (volume.form != "cow" or image != str(volume.base)):
        return f"it stands on image {image}"
    return f"it is {found_format} and not {volume.format}" if found_format != volume.format else ""


def _unusable(volume: VolumeFile, reason: str, otherwise: str = "") -> StepError:
    node, _, name = volume.name.partition("/")
    other = f", or keep it: {otherwise}" if otherwise else ""
    hint = f"`placemat-cli volume reset {node} {name}` deletes it, with all that the guest wrote{other}"
    return StepError(f"use {volume.key}", f"the cluster file changed since it was made: {reason}", hint)


def _make_shared_directory(volume: VolumeFile) -> None:
    """As placemat v2: missing directories are made, for all to read. What is there is not touched."""
    if volume.path.exists() and not volume.path.is_dir():
        raise StepError(f"share {volume.path}", "it is no directory")
    volume.path.mkdir(parents=True, exist_ok=True, mode=0o755)


def _part(volume: VolumeFile) -> Path:
    """Beside the node's directory, which its QEMU can see: there a link could be waiting."""
    node = volume.path.parent
    return node.parent / f".{node.name}@{volume.path.name}.part"


@contextmanager
def _held_base(volume: VolumeFile) -> Iterator[None]:
    """Keep the cache from changing or pruning the image that a copy-on-write volume stands on, from now on."""
    with ExitStack() as stack:
        entry = entry_of(volume.base) if volume.form == "cow" and volume.base else None
        if entry:
            stack.enter_context(entry.lock(lambda: None))
            entry.hold(volume.path)
        yield
