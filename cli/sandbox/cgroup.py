"""The one thing of a sandbox that exists outside of its namespaces: its cgroup, a child of the caller's own.

See cgroups(7) and Documentation/admin-guide/cgroup-v2.rst, "Delegation".
"""

import errno
import os
import re
import select
import time
from pathlib import Path

PREFIX = "placemat-sandbox-"


def unescape(field: str) -> str:
    r"""A path of /proc/self/mountinfo: \040 and the like are octal (proc_pid_mountinfo(5))."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def own(proc: Path = Path("/proc/self")) -> Path | None:
    """The caller's directory in the cgroup2 hierarchy; None where none is mounted that shows it."""
    path = next((line[3:] for line in (proc / "cgroup").read_text().splitlines() if line.startswith("0::")), None)
    if path is None:
        return None
    for line in (proc / "mountinfo").read_text().splitlines():
        fields, _, kind = line.partition(" - ")
        root, mount_point = map(unescape, fields.split()[3:5])
        if kind.split()[0] == "cgroup2" and Path(path).is_relative_to(root):
            return Path(mount_point, Path(path).relative_to(root))
    return None


def of(name: str, parent: Path) -> Path:
    """The directory of the sandbox `name` in `parent`."""
    return parent / (PREFIX + name)


def make(directory: Path) -> bool:
    """Make the cgroup; True where an empty one was left by a sandbox that was killed, and is replaced.

    Raises OSError (EBUSY where processes are in it).
    """
    stale = directory.is_dir()
    if stale:
        remove(directory, timeout_seconds=0)
    directory.mkdir()
    return stale


def remove(directory: Path, timeout_seconds: float = 5.0) -> None:
    """Remove an empty cgroup with all below it; one already gone is fine.

    Waits up to `timeout_seconds` for the kernel to finish with processes that have ended; then raises OSError (EBUSY).
    """
    deadline = time.monotonic() + timeout_seconds
    while directory.is_dir():
        try:
            for path, _, _ in os.walk(directory, topdown=False):
                Path(path).rmdir()
        except FileNotFoundError:
            continue
        except OSError as error:
            remaining = deadline - time.monotonic()
            if error.errno != errno.EBUSY or remaining <= 0:
                raise
            _wait_for_change(directory, remaining)


def _wait_for_change(directory: Path, timeout_seconds: float) -> None:
    """Wait until "populated" in cgroup.events changes, at most 50 ms at a time: a child may be the busy one."""
    try:
        fd = os.open(directory / "cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.read(fd, 4096)
        poll = select.poll()
        poll.register(fd, select.POLLPRI)
        poll.poll(min(timeout_seconds, 0.05) * 1000)
    finally:
        os.close(fd)


def add(directory: Path, pid: int) -> None:
    """Move a process into the cgroup."""
    (directory / "cgroup.procs").write_text(str(pid))
