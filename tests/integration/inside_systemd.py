"""Tests of the systemd adapter against a real systemd: run by test_systemd.py inside a sandbox, never on a host."""

import json
import os
import queue
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from placematd.errors import NotOurs, StepError, TimedOut, WrongState
from placematd.names import OwnerMark
from placematd.resources import UnitResource
from placematd.systemd import Systemd, UnitState
from placematd.unit import Property, Unit, command
from placematd.units import Units

pytestmark = pytest.mark.skipif("PLACEMAT_SANDBOX" not in os.environ, reason="only inside a placemat sandbox")

CLUSTER = "c1"
SLICE = "placemat-c1.slice"
SECOND = 1_000_000


@pytest.fixture(scope="module")
def systemd() -> Iterator[Systemd]:
    systemd = Systemd()
    yield systemd
    systemd.close()


@pytest.fixture(autouse=True)
def nothing_left(systemd: Systemd) -> Iterator[None]:
    yield
    systemd.stop("placemat.slice")
    units = [state.name for state in systemd.unit_states("placemat-c1-*")]
    for name in (*units, SLICE, "placemat.slice"):  # a slice stays as long as a unit refers to it
        systemd.reset_failed(name)
        systemd.wait_unloaded(name)


def service(name: str, *argv: str, **properties: object) -> Unit:
    given: dict[str, object] = {"Slice": SLICE, "Type": "exec", "ExecStart": (command(*argv),)} | properties
    return Unit(f"placemat-{CLUSTER}-app-{name}.service", tuple(given.items()))  # type: ignore[arg-type]


def mark_of(unit: Unit, digest: str = "abcdef012345") -> OwnerMark:
    return OwnerMark(CLUSTER, "unit", unit.name, digest)


def resource_of(unit: Unit) -> UnitResource:
    return UnitResource(name=unit.name, what="app", unit=unit, journal_fields=(("PLACEMAT_NODE", "n1"),))


def show(name: str, *properties: str) -> dict[str, str]:
    """What systemctl, an independent witness, says."""
    argv = ["systemctl", "show", name, *(f"--property={item}" for item in properties)]
    lines = subprocess.run(argv, text=True, capture_output=True, check=True).stdout.splitlines()
    return dict(line.split("=", 1) for line in lines)


def journal(*matches: str) -> list[dict[str, str]]:
    subprocess.run(["journalctl", "--sync"], check=True)
    argv = ["journalctl", "--output=json", "--no-pager", *matches]
    lines = subprocess.run(argv, text=True, capture_output=True, check=True).stdout.splitlines()
    return [json.loads(line) for line in lines]


# -- start and stop ---------------------------------------------------------------------------------------------------


def test_started_unit_runs_and_carries_mark_and_slice(systemd: Systemd) -> None:
    unit = service("sleep", "/bin/sleep", "600", Description="A nap")
    systemd.start(unit, mark_of(unit))
    shown = show(unit.name, "ActiveState", "Description", "Slice", "MainPID", "Transient")
    assert shown["Description"] == f"A nap [placemat c1 unit {unit.name} abcdef012345]"
    assert (shown["ActiveState"], shown["Slice"], shown["Transient"]) == ("active", SLICE, "yes")
    assert Path(f"/proc/{shown['MainPID']}/cmdline").read_bytes() == b"/bin/sleep\x00600\x00"
    assert systemd.unit_states("placemat-c1-app-*") == [
        UnitState(unit.name, "A nap", "loaded", "active", "running", mark_of(unit))
    ]
    properties = systemd.properties(unit.name)
    assert properties is not None
    assert (properties.main_pid, properties.result, properties.job) == (int(shown["MainPID"]), "success", None)
    assert properties.invocation_id == show(unit.name, "InvocationID")["InvocationID"]
    assert properties.active_since is not None
    assert abs(properties.active_since.timestamp() - time.time()) < 60

    systemd.stop(unit.name)
    systemd.wait_unloaded(unit.name)
    assert not Path(f"/proc/{shown['MainPID']}").exists()
    assert systemd.properties(unit.name) is None


def test_stopping_what_is_not_there_is_fine(systemd: Systemd) -> None:
    systemd.stop("placemat-c1-app-nothing.service")
    systemd.reset_failed("placemat-c1-app-nothing.service")
    systemd.wait_unloaded("placemat-c1-app-nothing.service")


def test_oneshot_is_waited_for(systemd: Systemd, tmp_path: Path) -> None:
    done = tmp_path / "done"
    unit = service("oneshot", "/bin/sh", "-c", f"sleep 0.5; touch {done}", Type="oneshot", RemainAfterExit=True)
    systemd.start(unit, mark_of(unit))
    assert done.exists()


def test_names_with_escapes_are_found_and_removed(systemd: Systemd) -> None:
    unit = service(r"boot\x2dserver-dns\x40x", "/bin/sleep", "600")
    resource = resource_of(unit)
    adapter = Units(systemd)
    adapter.create(resource, CLUSTER)
    assert adapter.observe(CLUSTER) == [resource.mark(CLUSTER)]
    adapter.remove(resource.mark(CLUSTER))
    assert adapter.observe(CLUSTER) == []


# -- failures ---------------------------------------------------------------------------------------------------------


def test_failure_tells_reason_last_lines_and_where_to_look(systemd: Systemd) -> None:
    unit = service("broken", "/bin/sh", "-c", "echo cannot bind port 53 >&2; exit 7", Type="oneshot")
    with pytest.raises(StepError) as caught:
        systemd.start(unit, mark_of(unit))
    assert "exit-code, exit status 7" in str(caught.value)
    assert "; the journal ends: cannot bind port 53 (" in str(caught.value)
    assert f"journalctl -u '{unit.name}'" in str(caught.value)


def test_missing_program(systemd: Systemd) -> None:
    unit = service("missing", "/usr/bin/no-such-program")
    with pytest.raises(StepError, match=r"exit status 203.*No such file or directory"):
        systemd.start(unit, mark_of(unit))


def test_leftover_of_ours_that_failed_is_cleared_away(systemd: Systemd) -> None:
    broken = service("again", "/bin/false", Type="oneshot")
    with pytest.raises(StepError):
        systemd.start(broken, mark_of(broken))
    assert show(broken.name, "ActiveState")["ActiveState"] == "failed"
    unit = service("again", "/bin/sleep", "600")
    systemd.start(unit, mark_of(unit, "fedcba"))
    assert show(unit.name, "ActiveState")["ActiveState"] == "active"


def test_unit_of_somebody_else_is_left_alone(systemd: Systemd) -> None:
    unit = service("theirs", "/bin/sleep", "600")
    subprocess.run(["systemd-run", "--quiet", f"--unit={unit.name}", f"--slice={SLICE}", "sleep", "601"], check=True)
    pid = show(unit.name, "MainPID")["MainPID"]
    with pytest.raises(NotOurs, match="is not ours"):
        Units(systemd).create(resource_of(unit), CLUSTER)
    assert show(unit.name, "MainPID", "ActiveState") == {"MainPID": pid, "ActiveState": "active"}
    Units(systemd).remove(mark_of(unit))
    assert show(unit.name, "MainPID")["MainPID"] == pid
    assert Units(systemd).observe(CLUSTER) == []


def test_unit_of_ours_that_runs_is_left_alone(systemd: Systemd) -> None:
    unit = service("twice", "/bin/sleep", "600")
    adapter = Units(systemd)
    adapter.create(resource_of(unit), CLUSTER)
    pid = show(unit.name, "MainPID")
    with pytest.raises(WrongState, match="active already"):
        adapter.create(resource_of(unit), CLUSTER)
    assert show(unit.name, "MainPID") == pid


def test_adapter_leaves_nothing_of_a_failure(systemd: Systemd) -> None:
    unit = service("broken", "/bin/false", Type="oneshot")
    with pytest.raises(StepError, match="exit status 1"):
        Units(systemd).create(resource_of(unit), CLUSTER)
    assert systemd.unit_states(unit.name) == []


def test_start_and_stop_have_deadlines(systemd: Systemd) -> None:
    slow = service("slow", "/bin/sleep", "600", Type="oneshot")
    with pytest.raises(TimedOut, match=r"start .* not finished after 0.5 s"):
        systemd.start(slow, mark_of(slow), timeout_seconds=0.5)
    properties = systemd.properties(slow.name)
    assert properties is not None
    assert properties.job == "start"
    stubborn = service("stubborn", "/bin/sh", "-c", "trap '' TERM; echo set; while :; do sleep 1; done")
    systemd.start(stubborn, mark_of(stubborn))
    wait_for_line("set", f"--unit={stubborn.name}")
    with pytest.raises(TimedOut, match="stop"):
        systemd.stop(stubborn.name, timeout_seconds=0.5)
    systemd.kill(stubborn.name, signal.SIGKILL)


def wait_for_line(text: str, *matches: str) -> None:
    """Follow the journal until a line of that text comes."""
    argv = ["journalctl", "--follow", "--output=cat", "--lines=all", *matches]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as follow:
        assert follow.stdout is not None
        assert any(line.strip() == text for line in follow.stdout)
        follow.kill()


def test_start_timeout_of_the_unit_itself(systemd: Systemd) -> None:
    unit = service("late", "/bin/sleep", "600", Type="notify", TimeoutStartUSec=SECOND // 2)
    with pytest.raises(StepError, match="timeout"):
        systemd.start(unit, mark_of(unit))


# -- journal ----------------------------------------------------------------------------------------------------------


def test_journal_fields(systemd: Systemd) -> None:
    unit = service("talk", "/bin/sh", "-c", "echo hello; echo oops >&2", Type="oneshot", SyslogIdentifier="talker")
    fields = [("PLACEMAT_CLUSTER", CLUSTER), ("PLACEMAT_NODE", "worker-1"), ("PLACEMAT_TEST", str(os.getpid()))]
    systemd.start(unit, mark_of(unit), fields)
    entries = journal("PLACEMAT_CLUSTER=c1", "PLACEMAT_NODE=worker-1", f"PLACEMAT_TEST={os.getpid()}")
    assert [entry["MESSAGE"] for entry in entries] == ["hello", "oops"]
    assert {entry["_SYSTEMD_UNIT"] for entry in entries} == {unit.name}


# -- sockets ----------------------------------------------------------------------------------------------------------


def socket_unit(name: str, listen: tuple[str, str], *argv: str, **properties: object) -> Unit:
    stem = f"placemat-{CLUSTER}-console-{name}"
    of_service: list[Property] = [("Slice", SLICE), ("Type", "exec"), ("ExecStart", (command(*argv),))]
    of_service += properties.items()  # type: ignore[arg-type]
    auxiliary = Unit(stem + ".service", tuple(of_service))
    of_socket: tuple[Property, ...] = (("Slice", SLICE), ("Listen", (listen,)), ("RemoveOnStop", True))
    return Unit(stem + ".socket", of_socket, (auxiliary,))


def test_socket_with_service(systemd: Systemd, tmp_path: Path) -> None:
    path = tmp_path / "echo"
    unit = socket_unit("echo", ("Stream", str(path)), "/bin/sleep", "600")
    resource, adapter = resource_of(unit), Units(systemd)
    adapter.create(resource, CLUSTER)
    states = {state.name: (state.active, state.mark) for state in systemd.unit_states("placemat-c1-console-*")}
    mark = resource.mark(CLUSTER)
    assert states == {unit.name: ("active", mark), unit.auxiliaries[0].name: ("inactive", mark)}
    assert adapter.observe(CLUSTER) == [mark]
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))  # starts the service
        events: queue.SimpleQueue[UnitState] = queue.SimpleQueue()
        systemd.subscribe(events.put)
        while {s.name: s.sub for s in systemd.unit_states("placemat-c1-console-*")}[
            unit.auxiliaries[0].name
        ] != "running":
            events.get(timeout=10)
    adapter.remove(mark)
    assert systemd.unit_states("placemat-c1-console-*") == []
    assert not path.exists()


def test_socket_whose_main_unit_was_stopped_is_no_longer_whole(systemd: Systemd, tmp_path: Path) -> None:
    unit = socket_unit("half", ("Stream", str(tmp_path / "half")), "/bin/sleep", "600")
    resource, adapter = resource_of(unit), Units(systemd)
    adapter.create(resource, CLUSTER)
    systemd._call("start", "StartUnit", unit.auxiliaries[0].name, "replace")
    systemd.stop(unit.name)
    systemd.wait_unloaded(unit.name)
    (mark,) = adapter.observe(CLUSTER)
    assert (mark.name, mark.digest) == (unit.name, "")
    adapter.remove(mark)
    assert adapter.observe(CLUSTER) == []


def test_socket_that_cannot_listen(systemd: Systemd) -> None:
    unit = socket_unit("nowhere", ("Stream", "/proc/nowhere"), "/bin/sleep", "600")
    with pytest.raises(StepError, match=r"start .*\.socket.*resources.*Failed to create listening socket"):
        Units(systemd).create(resource_of(unit), CLUSTER)
    assert systemd.unit_states("placemat-c1-console-*") == []


# -- signals ----------------------------------------------------------------------------------------------------------


def states_until(events: "queue.SimpleQueue[UnitState]", name: str, last: str) -> list[str]:
    """The states of a unit, in order, until `last` comes."""
    seen: list[str] = []
    while not seen or seen[-1] != last:
        state = events.get(timeout=20)
        if state.name == name:
            seen.append(f"{state.load} {state.active}/{state.sub}")
    return seen


def test_subscriber_hears_of_a_life(systemd: Systemd) -> None:
    events: queue.SimpleQueue[UnitState] = queue.SimpleQueue()
    systemd.subscribe(events.put)
    unit = service(r"a\x2db", "/bin/sleep", "600", Description="Heard", RemainAfterExit=True)
    systemd.start(unit, mark_of(unit))
    assert states_until(events, unit.name, "loaded active/running")
    systemd.kill(unit.name, signal.SIGTERM, "main")
    assert states_until(events, unit.name, "loaded active/exited") == ["loaded active/exited"]
    systemd.stop(unit.name)
    assert states_until(events, unit.name, "not-found inactive/dead")[-1:] == ["not-found inactive/dead"]


def test_subscriber_hears_of_a_crash(systemd: Systemd) -> None:
    events: queue.SimpleQueue[UnitState] = queue.SimpleQueue()
    systemd.subscribe(events.put)
    unit = service("crash", "/bin/sleep", "600")
    systemd.start(unit, mark_of(unit))
    systemd.kill(unit.name, signal.SIGKILL)
    assert states_until(events, unit.name, "loaded failed/failed")
    properties = systemd.properties(unit.name)
    assert properties is not None
    assert (properties.result, properties.exit_status, properties.main_pid) == ("signal", signal.SIGKILL, 0)


def test_restart_shows_as_job(systemd: Systemd) -> None:
    stubborn = "trap 'sleep 1; exit' TERM; echo set; while :; do sleep 0.1; done"
    unit = service("restart", "/bin/sh", "-c", stubborn)
    systemd.start(unit, mark_of(unit))
    wait_for_line("set", f"--unit={unit.name}")
    subprocess.run(["systemctl", "restart", "--no-block", unit.name], check=True)
    properties = systemd.properties(unit.name)
    assert properties is not None
    assert properties.job == "restart"


def test_systemd_that_reloads_and_reexecutes_is_still_heard(systemd: Systemd) -> None:
    events: queue.SimpleQueue[UnitState] = queue.SimpleQueue()
    systemd.subscribe(events.put)
    unit = service("survivor", "/bin/sleep", "600")
    systemd.start(unit, mark_of(unit))
    for verb in ("daemon-reload", "daemon-reexec"):
        subprocess.run(["systemctl", verb], check=True)
        other = service(verb, "/bin/sleep", "600")
        systemd.start(other, mark_of(other))
        assert states_until(events, other.name, "loaded active/running")
    assert show(unit.name, "ActiveState")["ActiveState"] == "active"
    assert systemd.unit_states(unit.name)[0].mark == mark_of(unit)


def test_a_reload_of_systemd_unloads_no_unit(systemd: Systemd) -> None:
    """It says UnitRemoved of all units, and loads them again."""
    events: queue.SimpleQueue[UnitState] = queue.SimpleQueue()
    systemd.subscribe(events.put)
    unit, last = service("stays", "/bin/sleep", "600"), service("last", "/bin/sleep", "600")
    systemd.start(unit, mark_of(unit))
    assert states_until(events, unit.name, "loaded active/running")
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    systemd.start(last, mark_of(last))
    heard = []
    while (state := events.get(timeout=30)).name != last.name or state.active != "active":
        heard.append(state)
    assert [(state.load, state.active) for state in heard if state.name == unit.name] == []


# -- a bus that does not answer ---------------------------------------------------------------------------------------


def test_bus_that_hangs_does_not_hang_us() -> None:
    patient = Systemd(timeout_seconds=0.5)
    patient.unit_states("placemat-*")
    dbus = int(show("dbus.service", "MainPID")["MainPID"])
    os.kill(dbus, signal.SIGSTOP)
    try:
        begin = time.monotonic()
        with pytest.raises(StepError, match=r"list units: Timeout was reached"):
            patient.unit_states("placemat-*")
        with pytest.raises(StepError, match="talk to systemd over D-Bus"):
            Systemd(timeout_seconds=0.5).unit_states("placemat-*")
        assert 0.9 < time.monotonic() - begin < 5
    finally:
        os.kill(dbus, signal.SIGCONT)
    assert patient.unit_states("placemat-c1-*") == []
    patient.close()


def test_lost_bus_fails_those_who_wait_and_is_found_again() -> None:
    systemd = Systemd()
    events: queue.SimpleQueue[UnitState] = queue.SimpleQueue()
    systemd.subscribe(events.put)
    slow = service("slow", "/bin/sleep", "600", Type="oneshot")
    with ThreadPoolExecutor(1) as thread:
        start = thread.submit(systemd.start, slow, mark_of(slow))
        assert states_until(events, slow.name, "loaded activating/start")
        subprocess.run(["systemctl", "restart", "dbus.service"], check=True)
        with pytest.raises(StepError, match="the connection was lost"):
            start.result(20)
    systemd.stop(slow.name)
    other = service("other", "/bin/sleep", "600")
    systemd.start(other, mark_of(other))
    assert states_until(events, other.name, "loaded active/running")
    assert show(other.name, "ActiveState")["ActiveState"] == "active"
    systemd.close()


# -- many -------------------------------------------------------------------------------------------------------------


def test_200_units(systemd: Systemd, capsys: pytest.CaptureFixture[str]) -> None:
    adapter = Units(systemd)
    resources = [resource_of(service(f"many-{number}", "/bin/sleep", "600")) for number in range(200)]
    times = {}
    with ThreadPoolExecutor(8) as threads:
        begin = time.monotonic()
        list(threads.map(lambda resource: adapter.create(resource, CLUSTER), resources))
        times["create"] = time.monotonic() - begin
        begin = time.monotonic()
        observed = adapter.observe(CLUSTER)
        times["observe"] = time.monotonic() - begin
        assert {mark.name for mark in observed} == {resource.name for resource in resources}
        begin = time.monotonic()
        list(threads.map(adapter.remove, observed))
        times["remove"] = time.monotonic() - begin
    assert adapter.observe(CLUSTER) == []
    with capsys.disabled():
        print("\n200 units:", ", ".join(f"{what} {seconds:.2f} s" for what, seconds in times.items()))
    assert max(times.values()) < 30
