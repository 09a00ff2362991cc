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


def test_the_command_for_the_cgroup_provides_it(machine: Machine) -> None:
    """Run as printed (by root, where it says sudo), it lets the user's shell start a sandbox."""
    script = f"""
import subprocess, sys
sys.path.insert(0, {str(sandboxes.REPOSITORY / "tests")!r})
import sandboxes
from pathlib import Path
with sandboxes.ordinary_user(without=["cgroup"]) as (launcher, env):
    shell = subprocess.Popen([*launcher, "sh"], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    shell.stdin.write("echo up\\n"); shell.stdin.flush(); shell.stdout.readline()
    (pid,) = [shell.pid]
    cgroup = "/sys/fs/cgroup" + Path(f"/proc/{{pid}}/cgroup").read_text().splitlines()[-1][3:]
    shell.stdin.write("{CLI} sandbox true 2>&1; echo status $?\\n"); shell.stdin.flush()
    said = []
    while not said or not said[-1].startswith("status"):
        said.append(shell.stdout.readline())
    print("".join(said))
    (command,) = [line.strip() for line in said if "sudo sh" in line]
    subprocess.run(["sh", "-c", command.replace("sudo sh -c", "sh -c").replace("$PPID", str(pid))], check=True)
    said, _ = shell.communicate("{CLI} sandbox -- systemctl is-system-running; echo status $?\\n")
    print(said)
    from placemat_cli.sandbox import cgroup as cgroups
    cgroups.remove(Path(command.split()[5]))
"""
    machine.box.run(["rm", "-rf", "/run/systemd/system"])  # what tells that the user has a systemd to ask
    done = machine.box.run([sys.executable, "-c", script])
    assert "status 125" in done.stdout
    assert done.stdout.rstrip().endswith("running\nstatus 0")


def test_on_a_machine_with_systemd_a_scope_is_the_way(machine: Machine) -> None:
    argv = [
        sys.executable,
        str(sandboxes.REPOSITORY / "tests/sandboxes.py"),
        "--without-cgroup",
        CLI,
        "sandbox",
        "true",
    ]
    done = machine.box.run(argv, check=False)
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
