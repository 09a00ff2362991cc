"""The parts of the sandbox that need neither root nor a sandbox: names, paths, files, registry, terminal relay."""

import os
import signal
import socket
import threading
from pathlib import Path

import pytest
from placemat_cli.sandbox import cgroup, etc, idmap, registry, terminal, units
from placemat_cli.sandbox.checks import Missing, NotReady
from placemat_cli.sandbox.registry import Running
from placemat_cli.sandbox.session import Entrance
from placemat_cli.sandbox.spec import Spec, check_name, real_directories

from placematd.errors import NotFound, StepError


@pytest.mark.parametrize("name", ["default", "a", "test-1-2", "A" * 40])
def test_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", "a-", "a/b", "..", "a b", "a" * 41, "ä", "a\n"])
def test_names_unfit(name: str) -> None:
    with pytest.raises(ValueError, match="1 to 40 letters"):
        check_name(name)


def test_a_spec_survives_the_way_to_the_supervisor() -> None:
    spec = Spec(name="x", nat=True, keep_data=True, writable=("/home/me", "/srv/a b"), placematd="/p", units="/u")
    assert Spec.from_json(spec.to_json()) == spec


def test_real_directories_are_the_outermost_ones_and_exist(tmp_path: Path) -> None:
    (tmp_path / "home/clone").mkdir(parents=True)
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to("data")
    wanted = [tmp_path / name for name in ("home/clone", "home", "link", "data", "missing")]
    assert real_directories(tuple(wanted)) == (str(tmp_path / "data"), str(tmp_path / "home"))


@pytest.mark.parametrize(
    "path", ["/", "/etc", "/usr", "/usr/lib", "/var", "/var/lib", "/tmp", "/run", "/home", "/dev/shm"]
)
def test_directories_of_the_system_are_never_the_real_ones(path: str) -> None:
    assert real_directories((Path(path),)) == ()


def fake_proc(folder: Path, cgroups: str, mounts: str) -> Path:
    (folder / "cgroup").write_text(cgroups)
    (folder / "mountinfo").write_text(mounts)
    return folder


@pytest.mark.parametrize(
    ("cgroups", "mounts", "expected"),
    [
        ("0::/user.slice/a\n", "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "/sys/fs/cgroup/user.slice/a"),
        (
            "8:memory:/x\n0::/\n",
            "31 23 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
            "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:5 - cgroup2 cgroup2 rw\n",
            "/sys/fs/cgroup/unified",
        ),
        ("0::/a/b/c\n", r"31 23 0:28 /a/b /my\040cgroup rw - cgroup2 cgroup2 rw" + "\n", "/my cgroup/c"),
        ("0::/a\n", "31 23 0:28 /other /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", None),
        ("8:memory:/x\n", "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", None),
    ],
    ids=["unified", "hybrid", "of a container", "not shown", "version 1 alone"],
)
def test_the_callers_cgroup(tmp_path: Path, cgroups: str, mounts: str, expected: str | None) -> None:
    found = cgroup.own(fake_proc(tmp_path, cgroups, mounts))
    assert found == (Path(expected) if expected else None)


def test_a_cgroup_that_is_left_is_replaced_and_said(tmp_path: Path) -> None:
    directory = cgroup.of("x", tmp_path)
    assert not cgroup.make(directory)
    (directory / "system.slice/a.service").mkdir(parents=True)
    assert cgroup.make(directory)
    assert list(directory.iterdir()) == []
    cgroup.remove(directory)
    cgroup.remove(directory)
    assert list(tmp_path.iterdir()) == []


def test_id_ranges_are_found_by_name_and_number(tmp_path: Path) -> None:
    table = tmp_path / "subuid"
    table.write_text(f"other:1:2\n{idmap.user_name()}:100000:65536\n{os.geteuid()}:300000:10\nbroken\n")
    assert idmap.ranges(table) == ((100000, 65536), (300000, 10))
    assert idmap.ranges(tmp_path / "none") == ()


@pytest.fixture
def etc_files(tmp_path: Path) -> Path:
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "passwd").write_text("root:x:0:0:root:/root:/bin/bash\ntaken:x:999:999::/:/bin/false\n")
    (folder / "group").write_text("root:x:0:\ntaken:x:999:\n")
    (folder / "hosts").write_text("127.0.0.1 localhost\n")
    (folder / "fstab").write_text("/dev/sda1 / ext4 defaults 0 1\n")
    (folder / "resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    return folder


def test_files_of_a_sandbox(etc_files: Path) -> None:
    etc.write(etc_files, Spec(name="x"))
    rows = [line.split(":") for line in (etc_files / "passwd").read_text().splitlines()]
    (qemu,) = (row for row in rows if row[0] == "placemat-qemu")
    groups = {line.split(":")[0]: line.split(":")[2] for line in (etc_files / "group").read_text().splitlines()}
    assert {"placemat", "placemat-qemu", "systemd-journal", "root"} <= set(groups)
    assert qemu[3] == groups["placemat-qemu"]
    assert len(set(groups.values())) == len(groups)
    assert len({row[2] for row in rows}) == len(rows)
    shadow = (etc_files / "shadow").read_text().splitlines()
    assert [line.split(":")[:2] for line in shadow] == [[row[0], "*"] for row in rows]
    assert (etc_files / "fstab").read_text() == ""
    assert (etc_files / "hosts").read_text() == "127.0.0.1 localhost\n127.0.1.1 placemat-x\n"
    assert len((etc_files / "machine-id").read_text().strip()) == 32
    assert "nameserver" not in (etc_files / "resolv.conf").read_text()


def test_accounts_that_the_machine_has_stay(etc_files: Path) -> None:
    etc.write(etc_files, Spec(name="x", nat=True))
    before = {name: (etc_files / name).read_text() for name in ("passwd", "group", "shadow")}
    etc.write(etc_files, Spec(name="x", nat=True))
    assert {name: (etc_files / name).read_text() for name in before} == before
    assert (etc_files / "resolv.conf").read_text() == "nameserver 198.19.255.3\n"


def test_what_the_distribution_starts_is_found_whatever_it_is(tmp_path: Path) -> None:
    system = tmp_path / "usr/lib/systemd/system"
    for name in (
        "sysinit.target.wants/new.service",
        "local-fs.target.requires/x.mount",
        "sockets.target.wants/dbus.socket",
    ):
        (system / name).parent.mkdir(parents=True, exist_ok=True)
        (system / name).touch()
    (system / "sysinit.target.wants/cryptsetup.target").touch()
    assert units.started_at_boot(tmp_path) == {"new.service", "x.mount"}


RUNNING = Running(name="x", leader_pid=1, cgroup="/c", nat=False, since="2020-01-01T00:00:00+00:00")


def test_the_registry_knows_what_runs_and_nothing_else() -> None:
    name = f"unit-{os.getpid()}"
    pidfd = os.pidfd_open(os.getpid())
    with registry.claim(name) as listener:
        assert name in registry.names()
        with pytest.raises(StepError, match=f"placemat-cli sandbox --join {name}"):
            registry.claim(name)
        thread = threading.Thread(target=registry.answer, args=(listener, RUNNING, pidfd))
        thread.start()
        found, received = registry.find(name)
        thread.join()
        assert found == RUNNING
        os.close(received)
    os.close(pidfd)
    assert name not in registry.names()
    with pytest.raises(NotFound, match="no sandbox"):
        registry.find(name)


def test_the_environment_inside() -> None:
    entrance = Entrance(RUNNING, -1)
    seen = entrance.environment({"PATH": "/bin", "A": "b", "DBUS_SESSION_BUS_ADDRESS": "unix:x", "TMPDIR": "/x"})
    assert seen == {"PATH": "/bin:/usr/sbin:/sbin", "A": "b", "PLACEMAT_SANDBOX": "x", "container": "placemat"}


def test_everything_that_is_missing_is_in_the_message() -> None:
    error = NotReady((Missing("a is missing", "get a"), Missing("b is missing", "get b")))
    lines = str(error).splitlines()
    assert lines[1:] == ["  - a is missing", "      get a", "  - b is missing", "      get b"]
    assert error.to_fields()[1] == {"what": "b is missing", "command": "get b"}


def forked(*argv: str, session: bool = True) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            if session:
                os.setsid()
            os.execvp(argv[0], argv)
        finally:
            os._exit(127)
    return pid


@pytest.fixture
def arrived() -> socket.socket:
    """A byte in it is a signal that has arrived."""
    reading, writing = socket.socketpair()
    reading.setblocking(False)
    writing.send(bytes([signal.SIGTERM]))
    yield reading
    reading.close()
    writing.close()


def test_signals_are_sent_on(arrived: socket.socket) -> None:
    parent = os.pidfd_open(os.getpid())
    status = terminal.wait(forked("sleep", "60"), arrived, parent)
    os.close(parent)
    assert os.WTERMSIG(status) == signal.SIGTERM


def read_until(fd: int, text: bytes) -> bytes:
    seen = b""
    while text not in seen:
        seen += os.read(fd, 4096)
    return seen


def test_a_terminal_is_joined_and_restored() -> None:
    person, ours = os.openpty()
    master, slave = os.openpty()
    before = terminal.termios.tcgetattr(ours)
    pid = os.fork()
    if pid == 0:
        os.login_tty(slave)
        os.execvp("bash", ["bash", "-c", "echo ready; read line; echo got $line; exit 7"])
    os.close(slave)
    answering = threading.Thread(target=lambda: read_until(person, b"ready") and os.write(person, b"hello\r"))
    answering.start()
    reading, writing = socket.socketpair()
    parent = os.pidfd_open(os.getpid())
    status = terminal.attach(pid, reading, parent, master, ours, ours)
    assert os.waitstatus_to_exitcode(status) == 7
    answering.join()
    assert read_until(person, b"got hello")
    after = terminal.termios.tcgetattr(ours)
    assert after == before
    for fd in (person, ours, master, parent):
        os.close(fd)
    reading.close()
    writing.close()
