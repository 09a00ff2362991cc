"""A /dev of the sandbox's own: the nodes that clusters need, pseudo-terminals and a console."""

import fcntl
import os
import stat
import struct
from pathlib import Path

from .syscalls import MS_NODEV, MS_NOEXEC, MS_NOSUID, bind, mount

NODES = ("null", "zero", "full", "random", "urandom", "tty", "fuse", "kvm", "net/tun", "vhost-net", "vhost-vsock")
"""Everybody in the sandbox may use them: QEMU runs as a user of its own there."""

LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}

_TTY_GROUP = 5


def build(dev: Path) -> None:
    """Fill the directory `dev`; nodes that the machine lacks are left out."""
    mount("tmpfs", str(dev), "tmpfs", MS_NOSUID, "mode=0755")
    for name in NODES:
        source = Path("/dev", name)
        if source.exists():
            _node(source, dev / name)
    for name, target in LINKS.items():
        (dev / name).symlink_to(target)
    for name, kind, options in (
        ("pts", "devpts", f"newinstance,ptmxmode=0666,mode=0620,gid={_TTY_GROUP}"),
        ("shm", "tmpfs", "mode=1777"),
        ("mqueue", "mqueue", ""),
    ):
        (dev / name).mkdir()
        mount(kind, str(dev / name), kind, MS_NOSUID | MS_NOEXEC | (0 if kind == "devpts" else MS_NODEV), options)


def _node(source: Path, target: Path) -> None:
    """A node of the sandbox's own where that is allowed, so that its mode is; else the machine's."""
    target.parent.mkdir(exist_ok=True)
    try:
        os.mknod(target, stat.S_IFCHR | 0o666, source.stat().st_rdev)
        target.chmod(0o666)
        # Making a node may be allowed and opening it not: a tmpfs of a user namespace has no devices.
        _try_to_open(target)
    except PermissionError:
        target.unlink(missing_ok=True)
        target.touch()
        bind(str(source), str(target))


def _try_to_open(node: Path) -> None:
    """Raise PermissionError where it is forbidden; the device itself may be absent or busy."""
    try:
        os.close(os.open(node, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY))
    except PermissionError:
        raise
    except OSError:
        return


def console(dev: Path) -> tuple[int, int]:
    """Make a pseudo-terminal the console; returns (master, slave)."""
    master = os.open(dev / "pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    number = unlock(master)
    slave_path = dev / "pts" / str(number)
    slave = os.open(slave_path, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    (dev / "console").touch()
    bind(str(slave_path), str(dev / "console"))
    return master, slave


def unlock(master: int) -> int:
    """Unlock the slave of a pseudo-terminal and return its number (ioctl_tty(2): TIOCSPTLCK, TIOCGPTN)."""
    fcntl.ioctl(master, 0x40045431, struct.pack("i", 0))
    (number,) = struct.unpack("I", fcntl.ioctl(master, 0x80045430, struct.pack("I", 0)))
    return int(number)
