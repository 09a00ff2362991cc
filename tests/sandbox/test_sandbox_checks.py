"""What is missing is found before anything is made, told all at once, each with the command that provides it."""

import os
import subprocess
import sys

import pytest
import sandboxes
from placemat_cli.sandbox import NotReady, Sandbox

from .machine import CLI, Machine

pytestmark = [pytest.mark.integration, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


def refused(**options: bool) -> list[tuple[str, str]]:
    without = [name for name, has in options.items() if not has]
    with sandboxes.ordinary_user(without=without) as (launcher, env):
        with pytest.raises(NotReady) as raised, Sandbox(sandboxes.unique_name(), launcher=launcher, env=env):
            pass
        assert raised.value.missing
        return [(item.what, item.command) for item in raised.value.missing]


def test_everything_that_an_ordinary_user_lacks_is_told_at_once() -> None:
    found = refused(subuid=False, tun=False, cgroup=False)
    whats = [what for what, _ in found]
    assert [what.split()[0].rstrip(",") for what in whats[:3]] == ["/dev/net/tun", "/etc/subuid", "/etc/subgid"]
    assert "the cgroup of this process, belongs to somebody else" in whats[3]
    assert len(found) == 4


def test_tun() -> None:
    ((what, command),) = refused(tun=False)
    assert what == "/dev/net/tun has mode 0600, needs 0666 (as udev makes it)"
    assert command == "sudo chmod 0666 /dev/net/tun"


def test_id_ranges_and_the_command_that_gives_free_ones() -> None:
    (uids, gids) = refused(subuid=False)
    assert uids[0] == "/etc/subuid gives placemat-tester 0 IDs, needs 65535"
    assert uids[1].startswith("sudo usermod --add-subuids ")
    assert uids[1].endswith(" placemat-tester")
    assert gids[1].startswith("sudo usermod --add-subgids ")


AS_USER_WITHOUT_CGROUP = [sys.executable, str(sandboxes.REPOSITORY / "tests/sandboxes.py"), "--without-cgroup"]


class Shell:
    """Of the test user, who has no cgroup of its own."""

    def __init__(self, machine: Machine) -> None:
        self.process = machine.box.popen(
            [*AS_USER_WITHOUT_CGROUP, "sh"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, line: str) -> list[str]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{line} 2>&1; echo status $?\n")
        self.process.stdin.flush()
        lines: list[str] = []
        while not lines or not lines[-1].startswith("status "):
            lines.append(self.process.stdout.readline().strip())
            assert lines[-1] or self.process.poll() is None
        return lines

    def close(self) -> None:
        self.process.communicate(timeout=60)


def test_the_command_for_the_cgroup_provides_it(machine: Machine) -> None:
    """What is printed is pasted, with root's part done by root."""
    machine.box.run(["rm", "-rf", "/run/systemd/system"])  # which says that the user has a systemd to ask
    machine.box.run(["tee", "/usr/local/bin/sudo"], input='#!/bin/sh\nexec "$@"\n')
    machine.box.run(["chmod", "755", "/usr/local/bin/sudo"])
    shell = Shell(machine)
    (pid, _) = shell.run("echo $$")
    said = shell.run(f"{CLI} sandbox true")
    assert said[-1] == "status 125"
    (command,) = (line for line in said if "sudo" in line)
    machine.box.run(["sh", "-c", command.replace("$$", pid)])
    assert shell.run(f"{CLI} sandbox -- systemctl is-system-running") == ["running", "status 0"]
    shell.close()


def test_on_a_machine_with_systemd_a_scope_is_the_way(machine: Machine) -> None:
    done = machine.box.run([*AS_USER_WITHOUT_CGROUP, CLI, "sandbox", "true"], check=False)
    assert done.returncode == 125
    assert "systemd-run --user --scope -p Delegate=yes placemat-cli sandbox ..." in done.stderr


def test_programs(machine: Machine) -> None:
    machine.box.run(["rm", "/usr/bin/dbus-daemon", "/usr/bin/slirp4netns"])
    done = machine.box.run([CLI, "sandbox", "--nat", "true"], check=False)
    assert done.returncode == 125
    assert "apt-get install dbus\n" in done.stderr
    assert "apt-get install slirp4netns\n" in done.stderr


def test_a_read_only_cgroup(machine: Machine) -> None:
    inside = "mount -o remount,bind,ro /sys/fs/cgroup && exec " + CLI + " sandbox true"
    done = machine.box.run(["unshare", "--mount", "sh", "-c", inside], check=False)
    assert done.returncode == 125
    assert "is mounted read-only" in done.stderr
    assert "docker run --privileged --cgroupns=private" in done.stderr


def test_root_without_the_right_to_make_namespaces() -> None:
    argv = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", CLI, "sandbox", "true"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 125
    assert "root may not make namespaces here (Operation not permitted)" in done.stderr
