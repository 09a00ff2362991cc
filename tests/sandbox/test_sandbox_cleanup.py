"""However a sandbox ends, the machine is as it was."""

import pytest

from .machine import CLI, Machine, outcome

pytestmark = pytest.mark.integration

SUPERVISOR = "placemat_cli.sandbox.supervisor"
COMMAND_LINE = r"placemat-cli sandbox"


def test_the_command_ends(machine: Machine) -> None:
    before = machine.snapshot()
    script = """
    touch /tmp/a /run/b /etc/c /usr/d /var/lib/e
    ip link add br0 type bridge
    ip netns add n
    mount -t tmpfs x /mnt
    setsid sleep 1000 &
    exit 5
    """
    done = machine.box.run([CLI, "sandbox", "--", "bash", "-ec", script], check=False)
    assert (done.returncode, done.stdout, done.stderr) == (5, "", "")
    assert machine.changes(before) == {}


@pytest.mark.parametrize(("name", "status"), [("INT", 130), ("TERM", 143), ("HUP", 129)])
def test_a_signal_ends_the_command_and_the_sandbox(machine: Machine, name: str, status: int) -> None:
    before = machine.snapshot()
    process = machine.start_and_wait()
    (pid,) = machine.pids(COMMAND_LINE)
    machine.kill(name, pid)
    assert outcome(process) == (status, "")
    assert machine.changes(before) == {}


def test_a_signal_while_it_boots(machine: Machine) -> None:
    before = machine.snapshot()
    stop = r"until pid=$(pgrep -f 'sandbox.supervisor'); do :; done; pkill -TERM -f 'placemat-cli sandbo[x]'"
    process = machine.start("--", "sleep", "1000")
    machine.box.sh(stop)
    assert outcome(process) == (143, "")
    assert machine.changes(before) == {}


def test_the_command_line_is_killed(machine: Machine) -> None:
    before = machine.snapshot()
    process = machine.start_and_wait()
    (pid,) = machine.pids(COMMAND_LINE)
    machine.kill("KILL", pid)
    assert outcome(process)[0] == 128 + 9
    assert machine.changes(before) == {}


def test_the_supervisor_is_killed(machine: Machine) -> None:
    """The kernel ends the sandbox, and the command line removes the cgroup in the supervisor's place."""
    before = machine.snapshot()
    process = machine.start_and_wait()
    (pid,) = machine.pids(SUPERVISOR)
    machine.kill("KILL", pid)
    status, error = outcome(process)
    assert status == 125
    assert "supervisor has ended" in error
    assert machine.changes(before) == {}


def test_both_are_killed_and_the_next_start_removes_the_rest(machine: Machine) -> None:
    before = machine.snapshot()
    process = machine.start_and_wait("--name", "x")
    pids = [*machine.pids(COMMAND_LINE), *machine.pids(SUPERVISOR)]
    machine.box.run(["kill", "-KILL", *map(str, pids)])
    outcome(process)
    assert set(machine.changes(before)) == {"cgroups"}
    done = machine.box.run([CLI, "sandbox", "--name", "x", "--", "true"])
    assert "an earlier sandbox that was killed" in done.stderr
    assert machine.changes(before) == {}


@pytest.mark.parametrize("name", ["KILL", "SEGV", "ABRT"])
def test_its_systemd_crashes(machine: Machine, name: str) -> None:
    before = machine.snapshot()
    process = machine.start_and_wait()
    machine.kill(name, machine.leader())
    status, error = outcome(process)
    assert status == 125
    assert "run sandbox default: its systemd has ended" in error
    assert machine.changes(before) == {}


def test_its_systemd_is_told_to_power_off(machine: Machine) -> None:
    before = machine.snapshot()
    status, error = outcome(machine.start("--", "bash", "-c", "systemctl poweroff --force --force; sleep 100"))
    assert (status, "its systemd has ended" in error) == (125, True)
    assert machine.changes(before) == {}


def test_it_does_not_boot(machine: Machine) -> None:
    """A clear error with what systemd said last."""
    command = "/bin/sh -c 'echo the disk is on fire; exec sleep 1000'"
    unit = f"[Service]\nType=oneshot\nExecStart={command}\nTimeoutStartSec=infinity\n"
    target = "[Unit]\nRequires=burn.service\nAfter=burn.service\n"
    units = "/usr/lib/systemd/system"
    machine.box.run(["tee", f"{units}/burn.service"], input=unit)
    machine.box.run(["mkdir", f"{units}/placemat-sandbox.target.d"])
    machine.box.run(["tee", f"{units}/placemat-sandbox.target.d/burn.conf"], input=target)
    script = "from placemat_cli.sandbox import Sandbox; Sandbox('slow', boot_timeout_seconds=3).__enter__()"
    done = machine.box.run([CLI.replace("placemat-cli", "python"), "-c", script], check=False)
    assert done.returncode == 1
    assert "run sandbox slow: it has not booted in 3 s; its last words:" in done.stderr
    assert "the disk is on fire" in done.stderr
    assert not [path for path in machine.snapshot()["cgroups"] if "slow" in path]
