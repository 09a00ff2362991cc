"""Disk image files as they are, read with care: an image from elsewhere may name other files of the host as its own.

A qcow2 file can have a backing file and an external data file, VMDK lists of extents: any path, /etc/shadow too, which
its guest could then read. So the header is looked at here before QEMU's tools see the file, and those are always told
the format; they never guess it from what a guest may have written.
"""

import json
import struct
from pathlib import Path
from typing import NamedTuple

from ..errors import StepError
from ..run import run

QCOW2_MAGIC = b"QFI\xfb"
VDI_SIGNATURE = b"\x7f\x10\xda\xbe"  # at byte 64
EXTERNAL_DATA_FILE = 1 << 2  # incompatible features, docs/interop/qcow2.txt
HEADER_BYTES = 4096
INFO_SECONDS = 60

SELF_CONTAINED = {b"conectix": "vpc", b"vhdxfile": "vhdx"}
REFUSED = {b"KDMV": "VMDK", b"COWD": "VMDK", b"# Disk DescriptorFile": "VMDK", b"QED\0": "QED"}


class Header(NamedTuple):
    """What the first bytes of a disk image say; `backing` is "" where it stands alone."""

    format: str
    backing: str = ""
    external_data: bool = False


class Base(NamedTuple):
    """An image that a volume can start from."""

    path: Path
    format: str
    virtual_size: int

    @property
    def plain_qcow2(self) -> bool:
        """Whether a copy of the file is a qcow2 disk."""
        return self.format == "qcow2"


def header(path: Path) -> Header:
    """The format of a disk image, by its first bytes; what has no known header is raw.

    Raises OSError, and StepError for formats that are not taken.
    """
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
    for magic, name in REFUSED.items():
        if head.startswith(magic):
            hint = f"convert it where you trust it: qemu-img convert -O qcow2 {path} {path.stem}.qcow2"
            raise StepError(f"read {path}", f"{name} images may consist of other files of this host", hint)
    if head.startswith(QCOW2_MAGIC):
        return _qcow2(head)
    if head[64:68] == VDI_SIGNATURE:
        return Header("vdi")
    return Header(next((name for magic, name in SELF_CONTAINED.items() if head.startswith(magic)), "raw"))


def _qcow2(head: bytes) -> Header:
    head = head.ljust(HEADER_BYTES, b"\0")
    version, offset, length = struct.unpack_from(">IQI", head, 4)
    features = struct.unpack_from(">Q", head, 72)[0] if version >= 3 else 0
    backing = head[offset : offset + length].decode(errors="replace") if offset else ""
    return Header("qcow2", backing or ("?" if offset else ""), bool(features & EXTERNAL_DATA_FILE))


def inspect(path: Path, what: str) -> Base:
    """An image that is a whole disk by itself; raises StepError for any other."""
    try:
        found = header(path)
    except OSError as error:
        raise StepError(what, f"{path}: {error.strerror}") from error
    check_self_contained(path, found, what)
    output = run(["qemu-img", "info", "--output=json", "-U", "-f", found.format, path], timeout_seconds=INFO_SECONDS)
    return Base(path, found.format, int(json.loads(output)["virtual-size"]))


def check_self_contained(path: Path, found: Header, what: str, backing: Path | None = None) -> None:
    """Raises StepError where a disk names files of the host as parts of its own, save for `backing`."""
    if found.external_data:
        raise StepError(what, f"{path} keeps its data in another file", _flatten(path))
    if found.backing and found.backing != str(backing):
        answer = f"{path} has a backing file, {found.backing}: an image may not name other files of this host"
        raise StepError(what, answer, _flatten(path))


def _flatten(path: Path) -> str:
    return f"if you trust it, make it whole: qemu-img convert -O qcow2 {path} {path.stem}-whole.qcow2"
