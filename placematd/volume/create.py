"""Making the file of a volume under a name of its own; who calls puts it in its place."""

import fcntl
import os
import pwd
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import StepError
from ..resources import VolumeFile
from ..run import run
from .base import Base, inspect

COPY_SECONDS = 3600
CREATE_SECONDS = 60
REPORT_SECONDS = 1.0
SUFFIXES = "BKMGTP"

Progress = Callable[[str, int, int | None], None]


def make_disk(volume: VolumeFile, part: Path, progress: Progress) -> None:
    """Make a disk (copy, cow, raw or vars) as file `part`. Raises StepError, OSError."""
    match volume.form:
        case "raw":
            _qemu_img("create", "-q", "-f", volume.format, part, volume.size)
        case "vars":
            shutil.copyfile(_base(volume), part)
        case "copy" | "cow":
            base = inspect(_base(volume), f"make {volume.key}")
            check_growth(volume, base)
            with _reporting(str(volume.key), part, progress):
                _from_base(volume, base, part)
        case _:
            raise ValueError(f"{volume.key}: {volume.form} is no disk")


def _from_base(volume: VolumeFile, base: Base, part: Path) -> None:
    if volume.form == "cow":
        size = (volume.size,) if volume.size else ()
        _qemu_img("create", "-q", "-f", "qcow2", "-F", base.format, "-b", base.path, part, *size)
        return
    if base.plain_qcow2:
        run(["cp", "--reflink=auto", "--sparse=auto", base.path, part], timeout_seconds=COPY_SECONDS)
    else:
        _qemu_img("convert", "-q", "-f", base.format, "-O", "qcow2", base.path, part, timeout_seconds=COPY_SECONDS)
    if volume.size:
        _qemu_img("resize", "-q", "-f", "qcow2", part, volume.size)


def _base(volume: VolumeFile) -> Path:
    if volume.base is None:
        raise ValueError(f"{volume.key}: form {volume.form} has a base")
    return volume.base


def _qemu_img(*words: str | Path, timeout_seconds: float = CREATE_SECONDS) -> None:
    run(["qemu-img", *words], timeout_seconds=timeout_seconds)


# -- sizes ------------------------------------------------------------------------------------------------------------


def bytes_of(size: str) -> int:
    """A size as qemu-img takes it ("20G", "1.5T", "512"), in bytes; raises ValueError."""
    match = re.fullmatch(rf"([0-9.]+)([{SUFFIXES}]?)", size.upper())
    if not match:
        raise ValueError(f"{size}: not a size")
    return int(float(match[1]) * 1024 ** SUFFIXES.index(match[2] or "B"))


def check_growth(volume: VolumeFile, base: Base) -> None:
    """Raises StepError where `size` would cut off a part of the image."""
    if volume.size and bytes_of(volume.size) < base.virtual_size:
        answer = f"size {volume.size} is less than the {base.virtual_size} bytes of image {base.path}"
        raise StepError(f"make {volume.key}", answer, "a disk can be grown and never shrunk")


# -- owners and directories -------------------------------------------------------------------------------------------


def give(path: Path, user: str, mode: int) -> None:
    """Make `user` the owner of a file or directory, never through a link. Raises StepError, OSError."""
    entry = user_entry(user)
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        os.fchown(descriptor, entry.pw_uid, entry.pw_gid)
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def user_entry(user: str) -> pwd.struct_passwd:
    """The user's entry in the password database; raises StepError where there is none."""
    try:
        return pwd.getpwnam(user)
    except KeyError:
        hint = "`make install` makes it, as does systemd-sysusers with packaging/placemat.sysusers"
        raise StepError(f"find user {user}", "there is no such user", hint) from None


def make_node_directory(directory: Path, user: str) -> None:
    """The directory of a node's disks: its user can use what is in it, and nobody else can; missing parents too.

    Raises StepError, OSError.
    """
    entry = user_entry(user)
    for parent in reversed(directory.parents):
        if not parent.exists():
            parent.mkdir(exist_ok=True)
            parent.chmod(0o711)
    if not directory.exists():
        directory.mkdir(mode=0o700, exist_ok=True)
        os.chown(directory, -1, entry.pw_gid)
        directory.chmod(0o750)


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Lock a node's directory: placematd makes volumes and the CLI resets them. flock(2) works on directories."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _reporting(item: str, part: Path, progress: Progress) -> Iterator[None]:
    """Tell once a second how large the file has become."""
    done = threading.Event()

    def report() -> None:
        while not done.wait(REPORT_SECONDS):
            if part.exists():
                progress(item, part.stat().st_blocks * 512, None)

    thread = threading.Thread(target=report, name="volume-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
