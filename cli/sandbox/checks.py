"""What a sandbox needs of the machine, looked at before anything is made, and all that is missing told at once."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from placematd.errors import PlacematError

from . import cgroup, idmap, nat, units
from .spec import Spec
from .syscalls import CLONE_NEWNS, CLONE_NEWUSER, unshare

CONTAINER_HINT = "in a container, it takes: docker run --privileged --cgroupns=private"


@dataclass(frozen=True)
class Missing:
    """Something that is needed, what for or why it is thought missing, and the command that provides it."""

    what: str
    command: str

    def __str__(self) -> str:
        return f"{self.what}\n      {self.command}"


class NotReady(PlacematError):
    """The machine lacks something; `missing` has all of it."""

    def __init__(self, missing: tuple[Missing, ...]) -> None:
        self.missing = missing
        lines = "".join(f"\n  - {item}" for item in missing)
        super().__init__(f"a sandbox needs what this machine does not have yet; each with the command for it:{lines}")

    def to_fields(self) -> list[dict[str, str]]:
        """For JSON."""
        return [asdict(item) for item in self.missing]


def require(spec: Spec) -> None:
    """Raise NotReady where something is missing for the caller."""
    missing = tuple(find(spec))
    if missing:
        raise NotReady(missing)


def find(spec: Spec) -> Iterator[Missing]:
    """All that is missing."""
    yield from _programs(spec)
    yield from _tun()
    if os.geteuid() == 0:
        yield from _as_root()
    else:
        yield from _as_user()
    yield from _cgroup()


def _programs(spec: Spec) -> Iterator[Missing]:
    if units.systemd() is None:
        yield Missing("systemd is not installed", "apt-get install systemd")
    if not shutil.which("dbus-daemon"):
        yield Missing("dbus-daemon, the system bus, is not installed", "apt-get install dbus")
    if spec.nat and not nat.available():
        yield Missing("slirp4netns, the way out for --nat, is not installed", "apt-get install slirp4netns")


def _tun() -> Iterator[Missing]:
    tun = Path("/dev/net/tun")
    if not tun.exists():
        yield Missing("/dev/net/tun does not exist (taps of virtual machines)", "modprobe tun")
    elif os.geteuid() != 0 and tun.stat().st_mode & 0o006 != 0o006:
        mode = tun.stat().st_mode & 0o777
        yield Missing(
            f"/dev/net/tun has mode {mode:04o}, needs 0666 (as udev makes it)", "sudo chmod 0666 /dev/net/tun"
        )


def _as_root() -> Iterator[Missing]:
    if error := _try_unshare(CLONE_NEWNS):
        yield Missing(f"root may not make namespaces here ({error})", f"# {CONTAINER_HINT}")
    if "\toverlay\n" not in Path("/proc/filesystems").read_text():
        yield Missing("the kernel has no overlay file system loaded", "modprobe overlay")


def _as_user() -> Iterator[Missing]:
    name = idmap.user_name()
    for program in ("newuidmap", "newgidmap"):
        if not shutil.which(program):
            yield Missing(f"{program} is not installed", "sudo apt-get install uidmap")
    for table, option in (("/etc/subuid", "--add-subuids"), ("/etc/subgid", "--add-subgids")):
        available = sum(count for _, count in idmap.ranges(Path(table)))
        if available < idmap.NEEDED:
            what = f"{table} gives {name} {available} IDs, needs {idmap.NEEDED}"
            yield Missing(what, f"sudo usermod {option} {_free_range(Path(table))} {name}")
    if error := _try_unshare(CLONE_NEWUSER):
        yield Missing(f"user namespaces are off for ordinary users ({error})", _userns_command())


def _free_range(table: Path) -> str:
    """FIRST-LAST above all that the table gives to anybody."""
    rows = [line.split(":") for line in table.read_text().splitlines()] if table.is_file() else []
    first = max([100000, *(int(row[1]) + int(row[2]) for row in rows if len(row) == 3)])
    return f"{first}-{first + 65535}"


def _userns_command() -> str:
    for name, value in (("kernel/unprivileged_userns_clone", 1), ("kernel/apparmor_restrict_unprivileged_userns", 0)):
        path = Path("/proc/sys", name)
        if path.exists() and int(path.read_text()) != value:
            return f"sudo sysctl -w {name.replace('/', '.')}={value}"
    return "sudo sysctl -w user.max_user_namespaces=15000"


def _try_unshare(flag: int) -> str:
    """The error of unshare(2), tried in a process that ends at once; "" for none."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            unshare(flag)
        except OSError as error:
            os.write(writing, os.strerror(error.errno or 0).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read().decode()
    os.waitpid(pid, 0)
    return answer


def _cgroup() -> Iterator[Missing]:
    own = cgroup.own()
    if own is None:
        command = "mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified"
        yield Missing("no cgroup2 hierarchy is mounted that shows this process", _sudo(command))
    elif os.statvfs(own).f_flag & os.ST_RDONLY:
        yield Missing(f"{own} is mounted read-only", f"# {CONTAINER_HINT}")
    elif not all(os.access(path, os.W_OK) for path in (own, own / "cgroup.procs")):
        yield Missing(f"{own}, the cgroup of this process, belongs to somebody else", _delegation(own))


def _sudo(command: str) -> str:
    return command if os.geteuid() == 0 else f"sudo sh -c '{command}'"


def _delegation(own: Path) -> str:
    """A scope from the user's systemd; where there is none, a cgroup made by root for this shell."""
    if Path("/run/systemd/system").is_dir():
        return "systemd-run --user --scope -p Delegate=yes placemat-cli sandbox ..."
    directory = own / f"placemat-{idmap.user_name()}"
    files = " ".join(f"{directory}/{name}" for name in ("cgroup.procs", "cgroup.subtree_control", "cgroup.threads"))
    owner = os.geteuid()
    script = f"mkdir -p {directory} && chown {owner} {directory} {files} && echo $$ > {directory}/cgroup.procs"
    return f'sudo sh -c "{script}"'  # double quotes: $$ is the shell that it is pasted into
