"""`up` and `down` with a fake systemctl, whose `start` and `stop` are shell snippets of the test."""

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes.api import FakeApi

YAML = """kind: Network
name: net0
type: internal
---
kind: Node
name: worker-1
interfaces: [net0]
cpu: 1
memory: 1G
"""
CLI = [sys.executable, "-m", "placemat_cli"]
DEADLINE_SECONDS = 20


class Systemd:
    """What the fake systemctl and journalctl answer, and what they were asked for."""

    def __init__(self, directory: Path, program: Callable[[str, str], Path]) -> None:
        self.directory = directory
        directory.mkdir()
        program(
            "systemctl",
            f"""cd {directory}; [ "$1" != --no-ask-password ] || shift
            echo "$*" >>calls
            case "$1" in
            is-system-running) cat system ;;
            show) cat show ;;
            list-units) cat units ;;
            start|stop) . ./$1 ;;
            esac""",
        )
        program("journalctl", f'cd {directory}; echo "$*" >>journal-calls; cat journal')
        self.write("system", "running\n")
        self.write("units", "")
        self.write("journal", "")
        self.write("active", self.properties("active"))
        self.write("inactive", self.properties("inactive"))
        self.write("start", "cp active show")
        self.write("stop", "cp inactive show")
        self.write("show", self.properties("inactive"))

    @staticmethod
    def properties(active: str, result: str = "success", status: str = "", load: str = "loaded") -> str:
        pairs = {
            "LoadState": load,
            "ActiveState": active,
            "SubState": "",
            "Result": result,
            "StatusText": status,
            "ExecMainStatus": 1,
            "InvocationID": "abc",
        }
        return "".join(f"{name}={value}\n" for name, value in pairs.items())

    def write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text)

    def calls(self) -> list[str]:
        """The calls that change something."""
        path = self.directory / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if line.split()[0] in ("start", "stop")]


@pytest.fixture
def systemd(tmp_path: Path, program: Callable[[str, str], Path]) -> Systemd:
    return Systemd(tmp_path / "systemd", program)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "lab.yml"
    path.write_text(YAML)
    return path


@pytest.fixture
def api(places, systemd: Systemd) -> Iterator[FakeApi]:
    with FakeApi(places.run / "lab" / "api.sock") as server:
        yield server


def once_listened(api: FakeApi, snippet: str) -> str:
    """A start that takes until someone listens, as real ones do."""
    return f"until [ -e {api.listened} ]; do sleep .02; done; {snippet}"


def test_up_checks_starts_and_shows_what_happens(cli, systemd, places, file, api):
    systemd.write("start", once_listened(api, "cp active show"))
    api.publish("step", "bridge net0: new")
    api.publish("progress", "image", item="ubuntu", done=3 * 2**20, total=6 * 2**20)
    api.publish("warning", "no KVM")
    api.publish("state", "cluster lab is up", state="running")
    result = cli("up", str(file))
    assert result.status == 0
    assert result.out.startswith("lab is up: 1 network, 0 namespaces, 1 node (")
    assert result.err.splitlines() == [
        "bridge net0: new",
        "ubuntu: 3.0 of 6.0 MiB (50%)",
        "warning: no KVM",
        "cluster lab is up",
    ]
    assert systemd.calls() == ["start placemat@lab.service"]
    assert (places.run / "lab.conf").read_text() == f'PLACEMAT_FILES="{file}"\n'


def test_up_of_files_takes_a_name_and_settings_from_the_environment(cli, systemd, places, file, tmp_path, monkeypatch):
    other = tmp_path / "more files.yml"
    other.write_text("kind: Network\nname: net1\ntype: internal\n")
    monkeypatch.setenv("PLACEMAT_ACCELERATOR", "tcg")
    monkeypatch.chdir(tmp_path)
    result = cli("up", "lab.yml", "./more files.yml", "--name", "racks")
    assert (result.status, result.err) == (0, "")
    assert systemd.calls() == ["start placemat@racks.service"]
    conf = (places.run / "racks.conf").read_text()
    assert conf == f'PLACEMAT_ACCELERATOR="tcg"\nPLACEMAT_FILES="{file}:{other}"\n'


def test_up_of_a_name_needs_no_settings_of_this_run(cli, systemd, places):
    (places.config / "lab.yml").write_text(YAML)
    (places.run / "lab.conf").write_text("PLACEMAT_FILES=/old.yml\n")
    assert cli("up", "lab").status == 0
    assert systemd.calls() == ["start placemat@lab.service"]
    assert not (places.run / "lab.conf").exists()


def test_mistakes_are_shown_before_anything_is_touched(cli, systemd, places, file):
    file.write_text(YAML.replace("interfaces: [net0]", "interfaces: [bad]"))
    result = cli("up", str(file))
    assert result.status == 2
    assert result.err.startswith(f"{file}:")
    assert systemd.calls() == []
    assert list(places.run.iterdir()) == []


def test_without_systemd_up_names_the_sandbox(cli, systemd, places, file):
    systemd.write("system", "offline\n")
    result = cli("up", str(file))
    assert result.status == 1
    assert result.err == (
        f"error: systemd is not PID 1 here; run it in a sandbox: placemat-cli sandbox -- placemat-cli up {file}\n"
    )
    assert systemd.calls() == []
    assert list(places.run.iterdir()) == []


def test_without_the_unit_up_says_so(cli, systemd, file):
    systemd.write("show", systemd.properties("inactive", load="not-found"))
    result = cli("up", str(file))
    assert (result.status, result.err) == (1, "error: systemd has no unit placemat@lab.service (make install)\n")


def test_a_failed_start_tells_status_and_journal(cli, systemd, file, api):
    systemd.write("failed", systemd.properties("failed", "exit-code", "create bridge net0: file exists"))
    snippet = "cp failed show; echo 'Job for placemat@lab.service failed.' >&2; exit 1"
    systemd.write("start", once_listened(api, snippet))
    systemd.write("journal", "reading files\ncreate bridge net0: file exists\nno undo needed\n")
    api.publish("step", "reading files")
    result = cli("up", str(file))
    assert result.status == 1
    assert result.err.splitlines() == [
        "reading files",
        "error: cluster lab did not come up: create bridge net0: file exists",
        "  no undo needed",
        "more: journalctl -u placemat@lab.service",
    ]
    assert "_SYSTEMD_INVOCATION_ID=abc" in (systemd.directory / "journal-calls").read_text()


def test_a_start_that_systemd_refuses(cli, systemd, file):
    systemd.write("start", "echo 'Failed to start: Access denied' >&2; exit 4")
    result = cli("up", str(file))
    assert result.status == 1
    assert "cluster lab did not come up: Failed to start: Access denied" in result.err


def test_up_again_is_no_error(cli, systemd, places, file):
    cli("up", str(file))
    result = cli("up", str(file))
    assert result.status == 0
    assert result.out == "lab is up already; after editing its files: placemat-cli reload lab\n"
    assert systemd.calls() == ["start placemat@lab.service"]


def test_a_cluster_that_runs_from_other_files_is_left_alone(cli, systemd, places, file, tmp_path):
    cli("up", str(file))
    other = tmp_path / "other" / "lab.yml"
    other.parent.mkdir()
    other.write_text(YAML)
    result = cli("up", str(other))
    assert (result.status, result.err) == (
        2,
        "error: a cluster lab is running from other files (choose another with --name)\n",
    )
    assert (places.run / "lab.conf").read_text() == f'PLACEMAT_FILES="{file}"\n'


def test_a_name_whose_settings_name_other_files_is_refused(cli, systemd, places, file):
    conf = places.config / "lab.conf"
    conf.write_text("PLACEMAT_FILES=/srv/lab.yml\n")
    result = cli("up", str(file))
    assert (result.status, result.err) == (
        2,
        f"error: {conf} sets other files for cluster lab (choose another with --name)\n",
    )
    assert systemd.calls() == []


def test_a_colon_in_a_path_is_refused(cli, systemd, tmp_path):
    path = tmp_path / "a:b.yml"
    path.write_text(YAML)
    result = cli("up", str(path))
    assert result.status == 2
    assert "a colon in the path" in result.err


def test_settings_that_cannot_be_written(cli, systemd, places, file, monkeypatch):
    (places.run / "file").touch()
    monkeypatch.setenv("PLACEMAT_RUN_DIR", str(places.run / "file" / "below"))
    result = cli("up", str(file))
    assert (result.status, systemd.calls()) == (1, [])
    assert result.err.startswith(f"error: write {places.run}/file/below/lab.conf: ")


def test_no_wait_hands_over_to_systemd(cli, systemd, file):
    result = cli("up", "--no-wait", str(file))
    assert (result.status, result.out) == (0, "lab is starting: placemat-cli status lab\n")
    assert systemd.calls() == ["start --no-block placemat@lab.service"]
    systemd.write("show", systemd.properties("inactive"))
    systemd.write("start", "echo no >&2; exit 1")
    assert cli("up", "--no-wait", str(file)).err == "error: start placemat@lab.service: no\n"


def test_no_wait_and_attach_exclude_each_other(cli, systemd, file):
    assert cli("up", "--no-wait", "--attach", str(file)).status == 2


class Foreground:
    """A placemat-cli in a process of its own whose output is read as it comes."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [*CLI, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
        self.output = b""

    def prints(self, text: str) -> None:
        assert self.process.stdout
        deadline = time.monotonic() + DEADLINE_SECONDS
        while text.encode() not in self.output:
            ready = select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))[0]
            data = os.read(self.process.stdout.fileno(), 4096) if ready else b""
            assert data, f"{text!r} did not come: {self.output.decode()}"
            self.output += data

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()

    def ends(self) -> tuple[int, str]:
        rest, _ = self.process.communicate(timeout=DEADLINE_SECONDS)
        return self.process.returncode, (self.output + rest).decode()


@pytest.fixture
def foreground(systemd: Systemd) -> Iterator[Callable[..., Foreground]]:
    """Start a placemat-cli that does not outlive the test."""
    started = []

    def start(*arguments: str) -> Foreground:
        started.append(Foreground(*arguments))
        return started[-1]

    yield start
    for process in started:
        process.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_attach_stays_until_told_and_then_takes_the_cluster_down(systemd, foreground, file, api, number):
    cluster = foreground("up", "--attach", str(file))
    cluster.prints("Ctrl-C takes it down.")
    api.publish("bmc", "node worker-1: BMC address 172.16.1.2", node="worker-1", address="172.16.1.2")
    cluster.prints("node worker-1: BMC address 172.16.1.2\n")
    cluster.process.send_signal(number)
    status, output = cluster.ends()
    assert status == 0
    assert output.splitlines()[-1] == "lab is down"
    assert systemd.calls() == ["start placemat@lab.service", "stop placemat@lab.service"]


def test_ctrl_c_during_an_attached_start_takes_the_cluster_down(systemd, foreground, file, api):
    systemd.write("start", "cp activating show; echo started >fifo; exec sleep 60")
    systemd.write("activating", systemd.properties("activating"))
    os.mkfifo(systemd.directory / "fifo")
    cluster = foreground("up", "--attach", str(file))
    (systemd.directory / "fifo").read_text()
    cluster.process.send_signal(signal.SIGINT)
    status, output = cluster.ends()
    assert (status, output.splitlines()[-1]) == (0, "lab is down")
    assert systemd.calls() == ["start placemat@lab.service", "stop placemat@lab.service"]


def test_attach_ends_when_the_cluster_is_stopped_by_someone_else(systemd, foreground, file, api):
    cluster = foreground("up", "--attach", str(file))
    cluster.prints("Ctrl-C takes it down.")
    systemd.write("show", systemd.properties("inactive"))
    api.stop()
    assert cluster.ends()[0] == 0
    assert systemd.calls() == ["start placemat@lab.service"]


def test_attach_fails_when_the_cluster_does(systemd, foreground, file, api):
    cluster = foreground("up", "--attach", str(file))
    cluster.prints("Ctrl-C takes it down.")
    systemd.write("show", systemd.properties("failed", "watchdog", "stuck"))
    api.stop()
    status, output = cluster.ends()
    assert status == 1
    assert "error: cluster lab failed: stuck" in output


def test_ctrl_c_while_waiting_leaves_the_start_to_systemd(systemd, foreground, file, api):
    systemd.write("start", "echo started >fifo; exec sleep 60")
    os.mkfifo(systemd.directory / "fifo")
    cluster = foreground("up", str(file))
    (systemd.directory / "fifo").read_text()
    cluster.process.send_signal(signal.SIGINT)
    status, output = cluster.ends()
    assert status == 130
    assert "lab goes on starting; placemat-cli down lab takes it down" in output
    assert systemd.calls() == ["start placemat@lab.service"]


def test_down_stops_waits_and_forgets(cli, systemd, places, file, api):
    cli("up", str(file))
    api.publish("step", "unit placemat-lab-node-worker-1.service: stop")
    result = cli("down")
    assert (result.status, result.out) == (0, "lab is down\n")
    assert systemd.calls()[-1] == "stop placemat@lab.service"
    assert not (places.run / "lab.conf").exists()


def test_down_does_not_show_what_happened_before(cli, systemd, api):
    systemd.write("show", systemd.properties("active"))
    api.publish("step", "long ago")
    time.sleep(0.002)  # events have milliseconds
    assert "long ago" not in cli("down").err


def test_down_of_what_is_down_is_no_error(cli, systemd, places):
    result = cli("down", "lab")
    assert (result.status, result.out) == (0, "lab is not running\n")
    result = cli("down")
    assert (result.status, result.out) == (0, "no cluster is running (start one: placemat-cli up FILE)\n")
    assert systemd.calls() == []


def test_down_without_systemd(cli, systemd):
    systemd.write("system", "offline\n")
    result = cli("down", "lab")
    assert result.status == 1
    assert result.err.startswith("error: systemd is not PID 1 here")


def test_down_has_a_deadline(cli, systemd):
    systemd.write("show", systemd.properties("active"))
    systemd.write("stop", "exec sleep 60")
    result = cli("down", "lab", "--timeout", "1")
    assert result.status == 1
    assert result.err == "error: lab is still stopping after 1 s (systemctl status placemat@lab.service)\n"


def test_a_stop_that_fails_is_told(cli, systemd):
    systemd.write("show", systemd.properties("active"))
    systemd.write("failed", systemd.properties("failed", "timeout"))
    systemd.write("stop", "cp failed show")
    result = cli("down", "lab")
    assert result.status == 1
    assert "cluster lab did not stop as it should: placemat@lab.service: failed (timeout, exit status 1)" in result.err


UNIT = "placemat-lab-node-worker-1.service loaded active running QEMU\n"


def test_down_cleans_up_after_a_service_that_died(cli, systemd):
    systemd.write("units", UNIT)
    result = cli("down", "lab")
    assert (result.status, result.out) == (0, "lab is down\n")
    assert systemd.calls() == ["start placemat@lab.service", "stop placemat@lab.service"]


def test_down_says_what_to_do_when_that_fails_too(cli, systemd):
    systemd.write("units", UNIT)
    systemd.write("start", "exit 1")
    result = cli("down", "lab")
    assert result.status == 1
    assert result.err.splitlines()[-1] == "end the units alone: systemctl stop 'placemat-lab.slice'"


def test_progress_is_drawn_at_a_terminal_and_erased_at_the_end(systemd, file, api):
    keyboard, terminal = pty.openpty()
    systemd.write("start", "read line <fifo; cp active show")
    os.mkfifo(systemd.directory / "fifo")
    process = subprocess.Popen(
        [*CLI, "up", str(file)], stderr=terminal, stdout=terminal, env={**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    )
    os.close(terminal)
    screen = b""

    def draws(text: bytes) -> None:
        nonlocal screen
        deadline = time.monotonic() + DEADLINE_SECONDS
        while text not in screen:
            assert select.select([keyboard], [], [], max(0, deadline - time.monotonic()))[0], screen
            screen += os.read(keyboard, 4096)

    api.publish("step", "image ubuntu: new")
    api.publish("progress", "image", item="ubuntu", done=2**20, total=4 * 2**20)
    draws(b"image ubuntu: new")
    draws(b" 25%")
    api.publish("warning", "no KVM")
    draws(b"no KVM")
    (systemd.directory / "fifo").write_text("go\n")
    draws(b"lab is up: 1 network")
    assert process.wait(DEADLINE_SECONDS) == 0
    os.close(keyboard)
    last_step = screen.rindex(b"image ubuntu: new")
    assert b"\x1b[2K" in screen[last_step:]  # the line was erased
    assert screen.rindex(b"\x1b[?25h") > last_step  # and the cursor is back
