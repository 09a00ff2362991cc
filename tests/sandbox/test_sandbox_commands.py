"""Commands in a sandbox: exit status, streams, signals, terminal; a second terminal's commands in the same sandbox."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from sandboxes import Box

from .machine import CLI, Machine, outcome

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("exit 42", 42), ("kill -TERM $$", 143), ("kill -KILL $$", 137)],
)
def test_the_exit_status_is_the_commands(box: Box, script: str, status: int) -> None:
    assert box.run(["bash", "-c", script], check=False).returncode == status


@pytest.mark.parametrize(
    ("command", "status", "message"),
    [("no-such-program", 127, "no-such-program: not found"), ("/etc/passwd", 126, "Permission denied")],
)
def test_a_command_that_does_not_start(box: Box, command: str, status: int, message: str) -> None:
    done = box.run([command], check=False)
    assert (done.returncode, message in done.stderr) == (status, True)


def test_a_working_directory_that_is_not_there(box: Box) -> None:
    done = box.run(["true"], cwd="/nowhere", check=False)
    assert (done.returncode, "'/nowhere'" in done.stderr or "/nowhere" in done.stderr) == (125, True)


def test_streams_pass_through(box: Box) -> None:
    done = box.run(["bash", "-c", "cat; echo error >&2"], input="a\0b" * 100_000)
    assert done.stdout == "a\0b" * 100_000
    assert done.stderr == "error\n"


def test_environment(box: Box) -> None:
    given = {"PATH": "/usr/bin:/bin", "MINE": "1", "XDG_RUNTIME_DIR": "/run/user/0", "NOTIFY_SOCKET": "/x"}
    seen = dict(line.split("=", 1) for line in box.run(["env"], env=given).stdout.splitlines())
    assert seen["MINE"] == "1"
    assert seen["PLACEMAT_SANDBOX"] == box.name
    assert not {"XDG_RUNTIME_DIR", "NOTIFY_SOCKET"} & set(seen)
    assert "/usr/sbin" in seen["PATH"].split(":")


def test_signals_reach_the_command(box: Box) -> None:
    script = (  # blocked before it is ready: whenever the signal comes, it is waited for
        "import signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}); print('ready', flush=True);"
        "signal.sigwait({signal.SIGINT}); print('interrupted'); sys.exit(3)"
    )
    process = box.popen(["/usr/bin/python3", "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[0] == "interrupted\n"
    assert process.returncode == 3


def test_the_command_is_killed_with_its_keeper(box: Box) -> None:
    process = box.popen(["bash", "-c", "echo $$; exec sleep 4242"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid = process.stdout.readline().strip()
    assert box.run(["cat", f"/proc/{pid}/comm"]).stdout == "sleep\n"
    process.kill()
    process.communicate(timeout=30)  # standard output ends with the command
    state = box.run(["ps", "-o", "stat=", "-p", pid], check=False).stdout
    assert state[:1] in ("", "Z"), "gone, or waiting for the machine's init to take note"


class Terminal:
    """A terminal with a person at it."""

    def __init__(self, argv: list[str], rows: int = 33, columns: int = 99) -> None:
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.execvp(argv[0], argv)
        termios.tcsetwinsize(self.master, (rows, columns))
        self.seen = ""

    def expect(self, text: str, timeout_seconds: float = 30) -> None:
        deadline = time.monotonic() + timeout_seconds
        while text not in self.seen:
            ready = select.select([self.master], [], [], max(0, deadline - time.monotonic()))[0]
            try:
                data = os.read(self.master, 65536) if ready else b""
            except OSError:
                data = b""
            assert data, f"no {text!r} in {self.seen!r}"
            self.seen += data.decode()
        self.seen = self.seen.partition(text)[2]

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def wait(self) -> int:
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.master)
        return status


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_terminal(home: Path) -> None:
    """Keys, window size, Ctrl-C and job control belong to the command; the terminal is as before afterwards."""
    name = f"tty-{os.getpid()}"
    command = f"{CLI} sandbox --name {name} -- bash --norc -i"
    terminal = Terminal(["bash", "-c", f"stty -g > {home}/before; {command}; echo status $?; stty -g > {home}/after"])
    terminal.expect("# ")
    terminal.type("tty; stty size; PS1='>> '\n")
    terminal.expect("/dev/pts/")
    terminal.expect("33 99")
    terminal.expect(">> ")
    terminal.type("sleep 1000\n")
    terminal.expect("sleep 1000")
    time.sleep(0.3)  # until bash has started it, which shows nowhere
    terminal.type("\x03")
    terminal.expect(">> ")
    terminal.type("sleep 2000\n")
    terminal.expect("sleep 2000")
    time.sleep(0.3)
    terminal.type("\x1a")
    terminal.expect("Stopped")
    terminal.type("kill %1; wait; echo done with $((40 + 2))\n")
    terminal.expect("done with 42")
    termios.tcsetwinsize(terminal.master, (20, 70))
    terminal.type("sleep 0.2; stty size\n")
    terminal.expect("20 70")
    terminal.type("exit 9\n")
    terminal.expect("status 9")
    assert terminal.wait() == 0
    assert (home / "before").read_text() == (home / "after").read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_terminal_that_goes_away_ends_the_sandbox(home: Path) -> None:
    name = f"hangup-{os.getpid()}"
    terminal = Terminal([CLI, "sandbox", "--name", name, "--", "bash", "-c", "echo started; exec sleep 1000"])
    terminal.expect("started")
    leader = json.loads(subprocess.run([CLI, "sandbox", "--list", "--json"], capture_output=True, check=True).stdout)
    (pid,) = (item["leader_pid"] for item in leader if item["name"] == name)
    pidfd = os.pidfd_open(pid)
    os.close(terminal.master)
    assert select.select([pidfd], [], [], 30)[0], "its systemd lives on"
    os.close(pidfd)
    os.waitpid(terminal.pid, 0)


def test_a_second_terminal_joins(machine: Machine) -> None:
    process = machine.start_and_wait("--name", "first")
    run = machine.box.run
    listed = json.loads(run([CLI, "sandbox", "--list", "--json"]).stdout)
    assert [(item["name"], item["nat"]) for item in listed] == [("first", False)]
    assert run([CLI, "sandbox", "--list"]).stdout.splitlines()[1].startswith(f"first  {listed[0]['leader_pid']} ")
    done = run([CLI, "sandbox", "--join", "first", "--", "sh", "-c", "hostname; exit 4"], check=False)
    assert (done.returncode, done.stdout) == (4, "placemat-first\n")
    again = run([CLI, "sandbox", "--name", "first", "true"], check=False)
    assert again.returncode == 125
    assert "a sandbox of that name is running (placemat-cli sandbox --join first, or another --name)" in again.stderr
    process.terminate()
    assert outcome(process)[0] == 143
    gone = run([CLI, "sandbox", "--join", "first", "true"], check=False)
    assert (gone.returncode, "no sandbox first is running" in gone.stderr) == (125, True)
    assert run([CLI, "sandbox", "--list", "--json"]).stdout == "[]\n"


@pytest.mark.parametrize("name", ["../x", "a b", "-x", "x" * 41, ""])
def test_names_unfit_for_a_cgroup(name: str) -> None:
    argv = [sys.executable, "-c", "import sys; from placemat_cli.sandbox import Sandbox; Sandbox(sys.argv[1])", name]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert "ValueError" in done.stderr
