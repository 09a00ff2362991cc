"""Planned units in a real systemd: run by test_planned_units.py inside a sandbox, never on a host.

Links, namespaces and volumes are made with ip(8) and qemu-img(1) here, so that only the units are under test.
"""

import json
import shlex
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from placematd.facts import QEMU_USER, Host, Settings
from placematd.models import (
    App,
    Cluster,
    HostPathVolume,
    NamespaceInterface,
    NetworkNamespace,
    Node,
    RawVolume,
    Smbios,
)
from placematd.network import Namespaces
from placematd.plan import Plan, plan
from placematd.resources import Netns, Tap, UnitResource, VolumeFile
from placematd.systemd import Systemd
from placematd.unit import exec_argv
from placematd.units import Units

SCRATCH = Path("/run/planned")
DEADLINE_SECONDS = 30
WORDS = ("$HOME", "${PATH}", "$$", "a; b", "`id`", "100%", "%n", 'say "hi"', "it's", "\\x41")

INIT = """#!/bin/sh
links=$(ip -br link | wc -l)
echo "init of $PLACEMAT_CLUSTER $PLACEMAT_NETNS in $(pwd) sees $(ls /run/netns | wc -l) and $links links"
"""
CLUSTER = Cluster(
    name="my-dc",
    namespaces=(
        NetworkNamespace(
            name="tor-1",
            interfaces=(NamespaceInterface(network="br0"),),
            init_scripts=(SCRATCH / "init",),
            directory=SCRATCH,
            apps=(
                App(name="words", command=("printf", "<%s>", *WORDS)),
                App(name="syslog", command=("logger", "by way of syslog")),
                App(name="systemd", command=("find", "/run/systemd", "-name", "system")),
                App(name="console", command=("cp", "/proc/self/status", "/dev/console")),
                App(name="relative", command=("./app", "1"), environment=(("WHO", "me"),)),
                App(name="crash", command=("false",)),
            ),
        ),
    ),
    nodes=(
        Node(
            name="n-1",
            cpu=2,
            memory="64M",
            tpm=True,
            interfaces=("br0",),
            smbios=Smbios(product="a $b; c, d"),
            volumes=(
                RawVolume(name="data", size="1M"),
                HostPathVolume(name="ro", path=SCRATCH / "ro"),
                HostPathVolume(name="rw", path=SCRATCH / "rw", writable=True),
            ),
        ),
        Node(name="n2", cpu=1, memory="64M", ignition=SCRATCH / "ignition"),
    ),
)
HOST = Host(accelerator="tcg", accelerator_reason="test")


def sh(line: str) -> str:
    """What a command that must succeed prints."""
    done = subprocess.run(["sh", "-ec", line], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
    return done.stdout


def journal(*fields: str) -> list[str]:
    """The messages with these fields, oldest first."""
    sh("journalctl --sync")
    return sh(shlex.join(["journalctl", "--quiet", "--output=cat", *fields])).splitlines()


def until_said(text: str, *fields: str, times: int = 1) -> list[str]:
    """The messages with these fields up to the one in which the text stands for the nth time."""
    argv = ["timeout", str(DEADLINE_SECONDS), "journalctl", "--follow", "--lines=all", "--output=cat", *fields]
    seen = []
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout
        for line in follower.stdout:
            seen.append(line.rstrip("\n"))
            if sum(text in message for message in seen) == times:
                follower.terminate()
                return seen
    raise AssertionError(f"{text!r} is not {times} times in {seen}")


def until_systemd_says(text: str, unit: str, times: int = 1) -> list[str]:
    """The same for what systemd reports about a unit."""
    return until_said(text, f"UNIT={unit}", times=times)


@pytest.fixture(scope="module")
def planned() -> Plan:
    return plan(CLUSTER, HOST, Settings(cluster=CLUSTER.name))


def prepare(planned: Plan) -> None:
    """What the units stand on."""
    SCRATCH.mkdir(mode=0o755)
    for name, text in (("init", INIT), ("app", "#!/bin/sh\necho $WHO in $(pwd); exec sleep infinity\n")):
        (SCRATCH / name).write_text(text)
        (SCRATCH / name).chmod(0o755)
    (SCRATCH / "ignition").write_text("{}")
    (SCRATCH / "ignition").chmod(0o600)
    sh("ip link add br0 type bridge; ip link set br0 up")
    for share in (SCRATCH / "ro", SCRATCH / "rw"):
        sh(f"mkdir --parents --mode=700 {share}; echo secret > {share}/file; chmod 600 {share}/file")
    for resource in planned.resources:
        if isinstance(resource, VolumeFile) and resource.form != "directory":
            sh(f"install --directory --owner={QEMU_USER} --mode=700 {resource.path.parent}")
            make = f"qemu-img create -q -f {resource.format} {resource.path} {resource.size}"
            sh(f"mkdir {resource.path}" if resource.form == "state" else make)
            sh(f"chown {QEMU_USER} {resource.path}")
        if isinstance(resource, Netns):
            Namespaces().create(resource, CLUSTER.name)
        if isinstance(resource, Tap):
            sh(f"ip tuntap add {resource.name} mode tap user {resource.user} vnet_hdr; ip link set {resource.name} up")


@pytest.fixture(scope="module")
def systemd() -> Iterator[Systemd]:
    systemd = Systemd()
    yield systemd
    systemd.close()


@pytest.fixture(scope="module", autouse=True)
def units(planned: Plan, systemd: Systemd) -> Iterator[Units]:
    prepare(planned)
    units = Units(systemd)
    for resource in planned.resources:
        if isinstance(resource, UnitResource):
            units.create(resource, CLUSTER.name)
    for node in planned.nodes:
        let_run(planned, node.name)
    yield units
    systemd.stop(r"placemat-my\x2ddc.slice")
    left = sh("ps -eo comm,user | grep -E 'qemu|swtpm|sed' || true")
    assert left == ""


class Monitor:
    """A node's QMP monitor."""

    def __init__(self, planned: Plan, node: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(DEADLINE_SECONDS)
        try:
            self.socket.connect(str(planned.node(node).paths.qmp))
        except OSError:
            self.socket.close()
            raise
        self.lines = self.socket.makefile("rw")
        self.lines.readline()
        self.ask("qmp_capabilities")

    def ask(self, command: str) -> Any:
        self.lines.write(json.dumps({"execute": command}) + "\n")
        self.lines.flush()
        while "return" not in (answer := json.loads(self.lines.readline())):
            assert "error" not in answer, answer
        return answer["return"]

    def close(self) -> None:
        self.lines.close()
        self.socket.close()


def let_run(planned: Plan, node: str) -> None:
    """QEMU starts stopped (-S), and its unit is up before its monitor is."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        try:
            monitor = Monitor(planned, node)
            break
        except (FileNotFoundError, ConnectionRefusedError):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    monitor.ask("cont")
    monitor.close()


def show(unit: str, name: str) -> str:
    return sh(shlex.join(["systemctl", "show", "--value", f"--property={name}", unit])).strip()


def pid_of(planned: Plan, node: str) -> int:
    return int(show(planned.node(node).unit, "MainPID"))


# -- apps -------------------------------------------------------------------------------------------------------------

BY_APP = "PLACEMAT_CLUSTER=my-dc", "PLACEMAT_NETNS=tor-1"


def test_init_script_runs_in_the_namespace() -> None:
    (line,) = journal(*BY_APP, "SYSLOG_IDENTIFIER=tor-1-init")
    assert line == f"init of my-dc tor-1 in {SCRATCH} sees 1 and 2 links"


def test_arguments_arrive_as_written() -> None:
    assert until_said("<", *BY_APP, "PLACEMAT_APP=words") == ["".join(f"<{word}>" for word in WORDS)]


def test_arguments_arrive_as_written_after_daemon_reload() -> None:
    until_said("<", *BY_APP, "PLACEMAT_APP=words")
    sh(r"systemctl daemon-reload; systemctl restart 'placemat-my\x2ddc-app-tor\x2d1-words.service'")
    lines = until_said("<", *BY_APP, "PLACEMAT_APP=words", times=2)
    assert lines == ["".join(f"<{word}>" for word in WORDS)] * 2


def test_syslog_reaches_the_journal_with_the_fields() -> None:
    assert until_said("syslog", *BY_APP, "PLACEMAT_APP=syslog") == ["by way of syslog"]


def test_apps_do_not_take_this_for_a_systemd_host() -> None:
    unit = r"placemat-my\x2ddc-app-tor\x2d1-systemd.service"
    assert show(unit, "SubState") == "exited"
    assert journal(*BY_APP, "PLACEMAT_APP=systemd") == []


def test_console_is_the_null_device() -> None:
    assert show(r"placemat-my\x2ddc-app-tor\x2d1-console.service", "Result") == "success"


def test_relative_program_environment_and_directory() -> None:
    assert until_said("me", *BY_APP, "PLACEMAT_APP=relative") == [f"me in {SCRATCH}"]


def test_a_crash_loop_ends_as_failed() -> None:
    unit = r"placemat-my\x2ddc-app-tor\x2d1-crash.service"
    lines = until_systemd_says("Start request repeated too quickly", unit)
    assert 5 <= sum("Main process exited" in line for line in lines) <= 10  # daemon-reload lets it count anew
    assert show(unit, "ActiveState") == "failed"


# -- nodes ------------------------------------------------------------------------------------------------------------


def test_node_runs_without_privileges(planned: Plan) -> None:
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid_of(planned, 'n-1')}/status").read_text().splitlines()
    )
    assert status["Uid"].split()[0] == sh(f"id -u {QEMU_USER}").strip()
    assert int(status["CapEff"], 16) == 0b11111
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"


def test_node_sees_nothing_of_others(planned: Plan) -> None:
    inside = Path(f"/proc/{pid_of(planned, 'n-1')}/root")

    def names(path: str) -> set[str]:
        return {item.name for item in (inside / path).iterdir()}

    assert names("run/placemat/my-dc/node") == names("run/placemat/my-dc/log") == {"n-1"}
    assert names("var/lib/placemat/my-dc/volumes") == {"n-1"}
    assert names("etc") == names("home") == names("root") == set()
    assert names("run/planned/ro") == names("run/planned/rw") == {"file"}


def test_monitor_tpm_and_disk(planned: Plan) -> None:
    monitor = Monitor(planned, "n-1")
    assert monitor.ask("query-status")["status"] == "running"
    assert [item["model"] for item in monitor.ask("query-tpm")] == ["tpm-tis"]
    disks = [item["inserted"]["drv"] for item in monitor.ask("query-block") if "inserted" in item]
    assert disks == ["qcow2"]
    monitor.close()


def test_console_is_in_the_journal_by_node() -> None:
    lines = until_said("SeaBIOS", "PLACEMAT_NODE=n-1", "SYSLOG_IDENTIFIER=n-1")
    assert any(line.startswith("SeaBIOS (version") for line in lines)
    assert all(character.isprintable() for line in lines for character in line)


def test_console_filter_survives_daemon_reload(planned: Plan) -> None:
    unit = r"placemat-my\x2ddc-console-n-1.service"
    sh(f"systemctl daemon-reload; systemctl restart '{unit}'")
    planned.node("n-1").paths.log.write_text("after \x1b[1mreload\x1b[0m\r\n")
    assert "reload" in until_said("after", "PLACEMAT_NODE=n-1", "SYSLOG_IDENTIFIER=n-1")[-1]


def test_power_cycle_with_tpm(planned: Plan, units: Units, systemd: Systemd) -> None:
    node = planned.node("n-1")
    tpm = r"placemat-my\x2ddc-tpm-n-1.service"
    assert show(tpm, "ActiveState") == "active"
    ended = threading.Event()
    systemd.subscribe(lambda state: ended.set() if (state.name, state.sub) == (node.unit, "exited") else None)
    monitor = Monitor(planned, "n-1")
    monitor.ask("quit")
    monitor.close()
    assert ended.wait(DEADLINE_SECONDS), "a node that is off is remembered"
    until_systemd_says("Deactivated successfully", tpm)
    systemd.stop(node.unit)
    (resource,) = (item for item in planned.resources if item.name == node.unit)
    assert isinstance(resource, UnitResource)
    units.create(resource, CLUSTER.name)
    let_run(planned, "n-1")
    until_said("SeaBIOS (version", "PLACEMAT_NODE=n-1", times=2)
    monitor = Monitor(planned, "n-1")
    assert [item["model"] for item in monitor.ask("query-tpm")] == ["tpm-tis"]
    monitor.close()


def test_ignition_is_readable_for_qemu_alone(planned: Plan) -> None:
    (resource,) = (item for item in planned.resources if item.name == planned.node("n2").unit)
    assert isinstance(resource, UnitResource)
    path = next(word for word in exec_argv(resource.unit) if "com.coreos" in word).partition("file=")[2]
    assert show(resource.unit.name, "ActiveState") == "active"
    assert Path(f"/proc/{pid_of(planned, 'n2')}/root{path}").read_text() == "{}"
