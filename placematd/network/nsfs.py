"""Network namespaces as files in /run/netns, exactly as ip-netns(8) makes them, threads that enter them, their sysfs.

Follows netns_add() and on_netns_del() of iproute2's ip/ipnetns.c. Python 3.11 has neither unshare(2) nor setns(2), and
pyroute2 forks to use them, which a process with threads must not.
"""

import ctypes
import errno
import fcntl
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from ..errors import StepError

T = TypeVar("T")

DIRECTORY = Path("/run/netns")

CLONE_NEWNET = 0x40000000  # linux/sched.h
MS_BIND, MS_REC, MS_SHARED = 0x1000, 0x4000, 0x100000  # sys/mount.h
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _mount(source: Path | str, target: Path, flags: int, kind: bytes = b"none") -> None:
    result = _libc.mount(os.fsencode(source), os.fsencode(target), kind, ctypes.c_ulong(flags), None)
    _check(result, f"mount {target}")


def in_thread(function: Callable[[], T]) -> T:
    """Call it in a new thread, which ends with the call: the namespace it entered is never anybody else's."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="netns") as executor:
        return executor.submit(function).result()


def unshare() -> None:
    """Move the calling thread to a new network namespace. Only inside `in_thread`."""
    _check(_libc.unshare(CLONE_NEWNET), "unshare the network namespace")


def inside(path: Path, function: Callable[[], T]) -> T:
    """Call it in a thread inside a named network namespace."""

    def enter() -> T:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _check(_libc.setns(descriptor, CLONE_NEWNET), f"enter network namespace {path.name}")
        finally:
            os.close(descriptor)
        return function()

    return in_thread(enter)


def is_namespace(path: Path) -> bool:
    """Whether a namespace is bound to the path.

    An empty file with nothing bound to it is what an interrupted "ip netns add" leaves, and does not count.
    """
    try:
        return path.stat().st_dev == Path("/proc/thread-self/ns/net").stat().st_dev
    except FileNotFoundError:
        return False


def names(directory: Path) -> list[str]:
    """The named network namespaces."""
    try:
        return sorted(path.name for path in directory.iterdir() if is_namespace(path))
    except FileNotFoundError:
        return []


def give_name(directory: Path, name: str) -> None:
    """Bind the network namespace of the calling thread to a name. Raises StepError where the name is taken."""
    path = directory / name
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as ip does, so that the directory is mounted once
        _share(directory)
        if path.is_file() and not is_namespace(path) and path.stat().st_size == 0:
            path.unlink()
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0))
        try:
            _mount("/proc/thread-self/ns/net", path, MS_BIND)
        except BaseException:
            path.unlink()
            raise
    except FileExistsError as error:
        raise StepError(f"create network namespace {name}", f"{path} exists", f"remove it: rm {path}") from error
    finally:
        os.close(lock)


def _share(directory: Path) -> None:
    """Let mounts in the directory reach other mount namespaces, such as those of services."""
    try:
        _mount("", directory, MS_SHARED | MS_REC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        _mount(directory, directory, MS_BIND | MS_REC)  # now it is a mount point
        _mount("", directory, MS_SHARED | MS_REC)


def take_name(directory: Path, name: str) -> None:
    """Unbind a network namespace from its name, however often it was bound, and remove the file."""
    path = directory / name
    while is_namespace(path):
        _check(_libc.umount2(os.fsencode(path), MNT_DETACH), f"unmount {path}")
    path.unlink(missing_ok=True)


def mount_sysfs(path: Path) -> None:
    """Mount the sysfs of the calling thread's network namespace, read-only, in the place of what is mounted there.

    Its class/net has the namespace's links. The mount does not keep the namespace alive.
    """
    unmount_sysfs(path)
    path.mkdir(mode=0o755, parents=True)
    try:
        _mount("sysfs", path, MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, b"sysfs")
    except BaseException:
        unmount_sysfs(path)
        raise


def unmount_sysfs(path: Path) -> None:
    """Undo `mount_sysfs`, with the directory above once it is empty; nothing mounted is fine."""
    while path.is_mount():
        _check(_libc.umount2(os.fsencode(path), MNT_DETACH), f"unmount {path}")
    for directory in (path, path.parent):
        try:
            directory.rmdir()
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
