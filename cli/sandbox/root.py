"""The root file system of a sandbox: what the machine has, where nothing written reaches the machine.

Runs as process 1 of the new namespaces, before systemd. Root gets an overlay of every file system: all is writable,
all is forgotten. An ordinary user cannot (a copy-up needs an owner that the user namespace has), and gets
the machine's directories read-only, with copies of /etc and the frame of /var that belong to the user. Root gets that
too where the kernel refuses the overlay.
Only the directories of `Spec.writable` are the real ones in both.
"""

import os
import shutil
import stat
from pathlib import Path

from . import devices
from .cgroup import unescape
from .spec import Spec
from .syscalls import (
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_REC,
    bind,
    make_read_only,
    mount,
)

FRESH = {
    "run": "0755",
    "tmp": "1777",
    "var/tmp": "1777",
    "var/log": "0755",
    "var/lib/dbus": "0755",
    "var/lib/misc": "0755",
    "var/lib/private": "0700",
    "var/lib/systemd": "0755",
    "var/cache/private": "0700",
}
"""Directories that start empty, with their mode: state of the machine's own daemons, or emptied at boot."""

DATA = ("var/lib/placemat", "var/cache/placemat")
"""Volumes and downloaded images: empty, or the machine's own with `Spec.keep_data`."""

UNCHANGED = "run/placemat-sandbox"

KERNEL = ("proc", "sys", "dev", "run", "tmp")
STAGING = "/run"
"""Covered by a tmpfs that holds the new root; only in this mount namespace."""

_COPIED_AT_MOST_BYTES = 1 << 20


def build(spec: Spec, *, rootless: bool) -> Path:
    """Build the tree and return where it is mounted; raises OSError saying what could not be mounted where."""
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    real = [(path, os.open(path, os.O_PATH | os.O_CLOEXEC)) for path in _real_directories(spec)]
    lower = _mount_points()
    _tmpfs(STAGING, "0755")
    root = Path(STAGING, "root")
    root.mkdir()
    if rootless or not _overlay(root, lower):
        _copy_frame(root)
    _mount_kernel(root, rootless=rootless)
    for name, mode in FRESH.items():
        _tmpfs(_directory(root / name), mode)
    _mount_unchanged(root / UNCHANGED)
    for name in DATA:
        _tmpfs(_directory(root / name), "0755")
    for path, fd in real:
        # Through the descriptor: the path itself may be covered by now.
        bind(f"/proc/self/fd/{fd}", _directory(root / path.lstrip("/")))
        os.close(fd)
    return root


def _real_directories(spec: Spec) -> list[str]:
    if not spec.keep_data:
        return list(spec.writable)
    return [*spec.writable, *(f"/{name}" for name in DATA if Path("/", name).is_dir())]


def _directory(path: Path) -> str:
    path.mkdir(parents=True, exist_ok=True)
    return str(path)


def _tmpfs(target: str, mode: str) -> None:
    mount("tmpfs", target, "tmpfs", MS_NOSUID | MS_NODEV, f"mode={mode}")


def _mount_points() -> list[str]:
    """What is mounted below /, outermost first, without what the sandbox has its own of."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = dict.fromkeys(unescape(line.split()[4]) for line in lines)
    own = [f"/{name}" for name in (*KERNEL, *FRESH)]
    return [point for point in points if point != "/" and not any(Path(point).is_relative_to(path) for path in own)]


def _overlay(root: Path, mount_points: list[str]) -> bool:
    """False where / takes no overlay: it is one itself twice over (a sandbox in a sandbox in a container)."""
    layers = Path(STAGING, "layers")
    layers.mkdir()
    try:
        _overlay_one("/", str(root), layers / "root")
    except OSError:
        return False
    for number, point in enumerate(mount_points):
        target = root / point.lstrip("/")
        if not target.exists():  # covered by another mount
            continue
        if not os.path.isdir(point):  # noqa: PTH112  # a container runtime's /etc/hosts and the like
            _copy_file(Path(point), target)
            continue
        try:
            _overlay_one(point, str(target), layers / str(number))
        except OSError:  # a file system that overlayfs does not take, such as FAT
            bind(point, str(target), read_only=True)
    return True


def _overlay_one(lower: str, target: str, layer: Path) -> None:
    upper, work = layer / "upper", layer / "work"
    work.mkdir(parents=True)
    upper.mkdir()
    shutil.copymode(lower, upper)
    fd = os.open(lower, os.O_PATH | os.O_CLOEXEC)
    try:
        # By descriptor: a colon or comma in a path would end the option.
        options = f"lowerdir=/proc/self/fd/{fd},upperdir={upper},workdir={work}"
        mount("overlay", target, "overlay", 0, options)
    finally:
        os.close(fd)


def _copy_file(source: Path, target: Path) -> None:
    if source.is_file() and source.stat().st_size <= _COPIED_AT_MOST_BYTES:
        target.unlink()
        shutil.copy2(source, target)


def _copy_frame(root: Path) -> None:
    """/ and /var, /var/lib, /var/cache as directories of the user's own, /etc as a copy, all else read-only."""
    _tmpfs(str(root), "0755")
    _show(Path("/"), root, skip={*KERNEL, "etc", "var"})
    for name in KERNEL:
        (root / name).mkdir()
    _copy_tree(Path("/etc"), root / "etc")
    for frame in ("var", "var/lib", "var/cache"):
        own = (Path(name) for name in (*FRESH, *DATA, "var/lib", "var/cache"))
        _show(Path("/", frame), root / frame, skip={path.name for path in own if path.parent == Path(frame)})


def _show(source: Path, target: Path, skip: set[str]) -> None:
    """Fill the directory `target` with the entries of `source`, read-only."""
    target.mkdir(exist_ok=True)
    for entry in os.scandir(source):
        shown = target / entry.name
        if entry.name in skip:
            continue
        if entry.is_symlink():
            shown.symlink_to(Path(entry.path).readlink())
        elif entry.is_dir():
            shown.mkdir()
            bind(entry.path, str(shown), read_only=True)
        elif entry.is_file() and source != Path("/"):
            shown.touch()
            bind(entry.path, str(shown), read_only=True)


def _copy_tree(source: Path, target: Path) -> None:
    """Copy what can be read; large files and other file systems are not configuration."""
    target.mkdir()
    for entry in os.scandir(source):
        copy = target / entry.name
        if entry.is_symlink():
            copy.symlink_to(Path(entry.path).readlink())
        elif not os.access(entry.path, os.R_OK):
            continue
        elif entry.is_dir():
            if os.access(entry.path, os.X_OK):
                _copy_tree(Path(entry.path), copy)
        elif stat.S_ISREG(entry.stat().st_mode) and entry.stat().st_size <= _COPIED_AT_MOST_BYTES:
            shutil.copy(entry.path, copy)


def _mount_kernel(root: Path, *, rootless: bool) -> None:
    quiet = MS_NOSUID | MS_NODEV | MS_NOEXEC
    mount("proc", _directory(root / "proc"), "proc", quiet)
    mount("sysfs", _directory(root / "sys"), "sysfs", quiet)
    make_read_only(str(root / "sys"))
    mount("cgroup2", str(root / "sys/fs/cgroup"), "cgroup2", quiet, "nsdelegate")
    if not rootless:
        _protect_proc(root / "proc")
    devices.build(Path(_directory(root / "dev")))


def _mount_unchanged(folder: Path) -> None:
    """A /proc and a /sys that nothing is mounted in, nor read-only, out of the way.

    In a user namespace, the kernel lets these be mounted anew only where such a one is visible already
    (mount_too_revealing in fs/namespace.c), and "ip netns exec" and sandboxes in the sandbox do mount them.
    """
    folder.mkdir(mode=0o700)
    for name, kind in (("proc", "proc"), ("sys", "sysfs")):
        mount(kind, _directory(folder / name), kind, MS_NOSUID | MS_NODEV | MS_NOEXEC)


def _protect_proc(proc: Path) -> None:
    """Keep root from changing the whole machine through /proc; the network's sysctls are the sandbox's own."""
    net = str(proc / "sys/net")
    for name in ("sys", "sysrq-trigger", "irq", "bus"):
        if (proc / name).exists():
            path = str(proc / name)
            fd = os.open(net, os.O_PATH | os.O_CLOEXEC)
            bind(path, path)
            make_read_only(path)
            if name == "sys":
                bind(f"/proc/self/fd/{fd}", net)
            os.close(fd)
