"""What we know about each volume: a record beside the disks, where no QEMU can see it.

    DATA/CLUSTER/records/NODE/VOLUME.json

The disk itself may be elsewhere, on a device class or, for a shared directory, anywhere.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from ..atomic import write_json
from ..image.cache import entry_of
from ..names import OwnerMark
from ..resources import VolumeFile
from . import seed


@dataclass(frozen=True, kw_only=True)
class Record:
    """How a volume was made. `mark` is the resource's, in text; `made` the time in ISO 8601."""

    mark: str
    form: str
    path: str
    made: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    """What it was made from, for people and for comparison."""
    adopted: bool = False
    """The disk was there before its record, which says what it would have been made from then."""


def record_path(data_dir: Path, cluster: str, name: str) -> Path:
    """Where the record of volume NODE/VOLUME is."""
    return data_dir / cluster / "records" / f"{name}.json"


def read(path: Path) -> Record | None:
    """The record in a file; None where there is none, or none that can be read."""
    try:
        return Record(**json.loads(path.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def records(data_dir: Path, cluster: str) -> Iterator[tuple[OwnerMark, Record]]:
    """All records of a cluster, by name. Raises OSError where they may not be read."""
    for path in sorted((data_dir / cluster / "records").glob("*/*.json")):
        record = read(path)
        mark = OwnerMark.parse(record.mark) if record else None
        if record and mark and mark.cluster == cluster:
            yield mark, record


def write(path: Path, record: Record) -> None:
    """Store a record. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, asdict(record))


def record_of(volume: VolumeFile, cluster: str, *, adopted: bool = False) -> Record:
    """The record of a volume that is made from what is there now. Raises StepError, OSError as `inputs` does."""
    made = datetime.now(UTC).isoformat(timespec="seconds")
    return Record(
        mark=str(volume.mark(cluster)),
        form=volume.form,
        path=str(volume.path),
        made=made,
        inputs=inputs(volume),
        adopted=adopted,
    )


def inputs(volume: VolumeFile) -> dict[str, str]:
    """What the volume is made from, the content of its files included.

    Raises OSError where a file cannot be read.
    """
    found = {"form": volume.form, "format": volume.format, "size": volume.size}
    if volume.base:
        found["image"] = str(volume.base)
        if volume.form != "vars":  # a newer template is no reason to report a change
            found["image content"] = base_content(volume.base)
    if volume.user_data:
        found |= {"user-data": str(volume.user_data), "network-config": str(volume.network_config or "")}
        found["seed content"] = seed.digest(seed.files(volume.name, volume.user_data, volume.network_config))
    return {name: value for name, value in found.items() if value}


def base_content(base: Path) -> str:
    """What tells one content of an image from another: for a cached image its checksum, else size and time."""
    entry = entry_of(base)
    cached = entry.record() if entry else None
    if cached:
        return f"sha256 {cached.sha256}"
    found = base.stat()
    return f"{found.st_size} bytes written {found.st_mtime_ns / 1e9:.6f}"


def content_changes(mark: OwnerMark, record: Record) -> str:
    """Which of the files that a volume was made from have changed since; "" for none.

    A file that is gone has not changed.
    """
    old = dict(record.inputs)
    try:
        if record.form in ("copy", "cow"):
            now = {**old, "image content": base_content(Path(old["image"]))}
        elif record.form == "seed":
            network = Path(old["network-config"]) if "network-config" in old else None
            now = {**old, "seed content": seed.digest(seed.files(mark.name, Path(old["user-data"]), network))}
        else:
            return ""
    except (FileNotFoundError, KeyError):
        return ""
    return differences(old, now)


def changes_of(mark: OwnerMark, record: Record, volume: VolumeFile | None) -> str:
    """How a volume differs from what would be made now, in words; "" where it does not.

    Without `volume`, what the cluster file says of it now, only the content of its files is compared. What cannot be
    read has not changed.
    """
    if volume is None:
        return content_changes(mark, record)
    if volume.form in ("directory", "state"):
        return ""
    try:
        now = inputs(volume)
    except OSError:
        return content_changes(mark, record)
    return differences({**record.inputs, "path": record.path}, {**now, "path": str(volume.path)})


def differences(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """In words: "image content: sha256 12... → sha256 34..., size: 10G → 20G"; "" where there are none."""
    changed = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    return ", ".join(f"{name}: {old.get(name, 'none')} → {new.get(name, 'none')}" for name in changed)


def exists(record: Record) -> bool:
    """Whether the volume itself is there."""
    wanted = os.path.isdir if record.form in ("directory", "state") else os.path.isfile
    return wanted(record.path)
