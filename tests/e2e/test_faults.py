"""What goes wrong at two in the morning, done to a cluster with a real systemd: what it says, and what it leaves.

No guest boots: QEMU with nothing to boot from is enough.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sandboxes import Box, as_root

from tests.e2e.console import CLI
from tests.e2e.host import differences, json_of, snapshot
from tests.e2e.journal import follow

pytestmark = [pytest.mark.e2e]

DEFAULTS = {
    "bridge": "faults0",
    "init": "/usr/bin/true",
    "app": "/usr/bin/sleep",
    "restart": "on-failure",
    "memory": "64M",
    "more": "",
}
CLUSTER = """\
kind: Network
name: {bridge}
type: external
use-nat: true
addresses: [10.99.0.1/24]
---
kind: Network
name: faults-bmc
type: bmc
use-nat: false
addresses: [10.98.0.1/24]
---
kind: NetworkNamespace
name: faults
init-scripts: [{init}]
interfaces: [{{network: {bridge}, addresses: [10.99.0.2/24]}}]
apps:
- {{name: app, command: [{app}, "infinity"], restart: {restart}}}
---
kind: Node
name: n1
interfaces: [{bridge}]
cpu: 1
memory: {memory}
{more}"""
SILENT_SERVER = """
import socket
server = socket.create_server(("127.0.0.1", 9999))
open("/run/silent", "w").close()
kept = []
while True:
    kept.append(server.accept())
"""
WITH_IMAGE = """\
volumes: [{kind: image, name: root, image: slow}]
---
kind: Image
name: slow
url: http://127.0.0.1:9999/slow.img
"""
UNIT = "placemat@f.service"
NODE = "placemat-f-node-n1.service"


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    with as_root() as box:
        box.sh("mkdir -p /etc/placemat; ip netns add first; ip netns delete first")
        yield box


@pytest.fixture(scope="module")
def untouched(box: Box) -> dict[str, list[str]]:
    return snapshot(box.run)


@pytest.fixture
def clean(box: Box, untouched: dict[str, list[str]]) -> Iterator[None]:
    """Whatever the test does, `down` makes the host what it was."""
    yield
    box.run([CLI, "down", "f"])
    assert differences(untouched, snapshot(box.run)) == {}


def write(box: Box, **fields: str) -> None:
    box.run(["tee", "/etc/placemat/f.yml"], input=CLUSTER.format(**(DEFAULTS | fields)))


def up(box: Box) -> None:
    box.run([CLI, "up", "f"])


def show(box: Box, unit: str, name: str) -> str:
    return str(box.run(["systemctl", "show", "--value", f"--property={name}", unit]).stdout.strip())


def pid(box: Box, unit: str = UNIT) -> str:
    return show(box, unit, "MainPID")


def status(box: Box) -> Any:
    return json_of(box.run, CLI, "status", "f", "--json")


@contextmanager
def wait_for(box: Box, *patterns: str) -> Iterator[None]:
    """After what is done within, the daemon says lines like these."""
    begin = box.sh("journalctl --sync; journalctl --quiet --lines=1 --show-cursor | sed -n 's/^-- cursor: //p'")
    yield
    with follow(box.popen, f"--after-cursor={begin.strip()}", f"_SYSTEMD_UNIT={UNIT}") as journal:
        for pattern in patterns:
            journal.wait(pattern, 60)


# -- a start that fails -----------------------------------------------------------------------------------------------

DATA = "/var/lib/placemat"
VOLUMES = f"{DATA}/f/volumes"

FAULTS: Mapping[str, tuple[dict[str, str], str, str]] = {
    "the bridge's name is taken": (
        {},
        "ip link add faults0 type bridge",
        "create bridge faults0: .* placemat did not make it",
    ),
    "the namespace's name is taken": ({}, "ip netns add faults", "create netns faults: .* placemat did not make it"),
    "an init script fails": (
        {"init": "/usr/bin/false"},
        "true",
        "start placemat-f-init-faults.service: .*exit status 1",
    ),
    "an app's program is missing": (
        {"app": "/nonexistent"},
        "true",
        "start placemat-f-app-faults-app.service: .*/nonexistent",
    ),
    "more memory than there is": ({"memory": "99999G"}, "true", "start node n1: QEMU ended at once: .*memory"),
    "a disk is full": (
        {"more": "volumes: [{kind: raw, name: data, size: 1G}]"},
        f"mkdir -p {VOLUMES}; mount -t tmpfs -o size=4k tmpfs {VOLUMES}; head -c 4096 /dev/zero > {VOLUMES}/full",
        "run qemu-img create .*data.img.*: No space left on device",
    ),
    "there is no room for the state of BMCs": (
        {},
        f"mount -t tmpfs -o size=4k tmpfs {DATA}; head -c 4096 /dev/zero > {DATA}/full",
        "certificate of the BMC of node n1: .*No space left on device",
    ),
    "nft is missing": (
        {},
        "mount --bind /dev/null /usr/sbin/nft",
        "run nft: not found in PATH .apt-get install nftables",
    ),
}
MENDED = (
    "set +e; ip link delete faults0; ip netns delete faults; "
    f"umount {VOLUMES}; umount {DATA}; umount /usr/sbin/nft; true"
)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_start_that_fails_says_why_everywhere_and_leaves_nothing(box: Box, fault: str) -> None:
    fields, script, reason = FAULTS[fault]
    write(box, **fields)
    box.sh("mkdir -p /var/lib/placemat")
    box.sh(script)
    try:
        before = snapshot(box.run)
        attempt = box.run([CLI, "up", "f"], check=False)
        assert attempt.returncode == 1
        assert_matches(reason, attempt.stderr)
        assert show(box, UNIT, "ExecMainStatus") == "1"
        assert_matches(reason, show(box, UNIT, "StatusText"))
        assert_matches(reason, box.run(["systemctl", "status", "--full", UNIT], check=False).stdout)
        assert_matches(reason, box.run([CLI, "status", "f"], check=False).stdout)
        box.run(["systemctl", "reset-failed", UNIT])
        assert differences(before, snapshot(box.run)) == {}
    finally:
        box.sh(MENDED)


def assert_matches(pattern: str, text: str) -> None:
    assert re.search(pattern, text), text


# -- a start that is cut short ----------------------------------------------------------------------------------------


@pytest.fixture
def downloading(box: Box, clean: None) -> Iterator[None]:
    """The cluster starts, and waits for a server that never answers."""
    server = box.popen(["python3", "-c", SILENT_SERVER])
    try:
        box.sh("until [ -e /run/silent ]; do sleep 0.05; done")
        write(box, more=WITH_IMAGE)
        with wait_for(box, "create image slow"):
            box.run(["systemctl", "start", "--no-block", UNIT])
        yield
    finally:
        server.kill()
        server.wait(30)
        box.run(["rm", "-f", "/run/silent"])


def test_a_stop_during_the_start(box: Box, downloading: None) -> None:
    for command in (["node", "start", "n1"], ["reload", "f"]):
        refused = box.run([CLI, *command], check=False, timeout=20)
        assert (refused.returncode, "is starting" in refused.stderr) == (1, True)
    assert status(box)["state"] == "starting"
    box.run(["systemctl", "stop", UNIT], timeout=30)
    assert (show(box, UNIT, "ActiveState"), show(box, UNIT, "Result")) == ("inactive", "success")


def test_kill_during_the_start_is_a_failed_start(box: Box, downloading: None) -> None:
    with wait_for(box, "given up, on a signal, while: create image slow"):
        box.run(["kill", pid(box)])
    assert show(box, UNIT, "NRestarts") == "0"


def test_down_takes_away_what_a_killed_start_left(box: Box, downloading: None) -> None:
    with wait_for(box, "reading the cluster files", "create image slow"):
        box.run(["kill", "-KILL", pid(box)])
    box.run([CLI, "down", "f"])
    assert box.run(["ip", "link", "show", "faults0"], check=False).returncode == 1


# -- a cluster that is up ---------------------------------------------------------------------------------------------


def test_an_app_that_ends_soon_degrades_the_cluster(box: Box, clean: None) -> None:
    """At once would be a race in systemd: it may see the end before it sees that the program was executed."""
    write(box, app="sh, -c, sleep 2; exit 1", restart='"no"')
    with wait_for(box, "is degraded: placemat-f-app-faults-app.service failed"):
        up(box)
    assert (status(box)["state"], status(box)["failed_units"]) == ("degraded", ["placemat-f-app-faults-app.service"])


@pytest.fixture
def running(box: Box, clean: None) -> None:
    write(box)
    up(box)


def ends(box: Box) -> Mapping[str, Callable[[], object]]:
    return {
        "failed": lambda: box.run(["kill", "-KILL", pid(box, NODE)]),
        "inactive": lambda: box.run(["systemctl", "stop", NODE]),
    }


@pytest.mark.parametrize(("unit_state", "cluster"), [("failed", "degraded"), ("inactive", "running")])
def test_a_qemu_that_somebody_ended_is_started_again(box: Box, running: None, unit_state: str, cluster: str) -> None:
    with wait_for(box, "0 of 1 node on"):
        ends(box)[unit_state]()
    found = status(box)
    assert (found["state"], found["nodes"][0]["power"], found["nodes"][0]["unit_state"]) == (cluster, "Off", unit_state)
    with wait_for(box, "cluster f is up: .* 1 of 1 node on"):
        box.run([CLI, "node", "start", "n1"])
    assert show(box, NODE, "ActiveState") == "active"


def test_daemon_reload_and_a_restart_of_placematd_change_no_node(box: Box, running: None) -> None:
    qemu = pid(box, NODE)
    box.run(["systemctl", "daemon-reload"])
    assert status(box)["nodes"][0]["power"] == "On"
    box.sh("mkdir -p /run/placemat/f/address; echo 10.98.0.7 > /run/placemat/f/address/n1")
    with wait_for(box, "cluster f: node n1: BMC address 10.98.0.7", "cluster f is up"):
        box.run(["kill", "-KILL", pid(box)])
    assert pid(box, NODE) == qemu
    assert status(box)["nodes"][0]["bmc_address"] == "10.98.0.7"
    box.run([CLI, "node", "stop", "n1"])
    box.run(["systemctl", "restart", UNIT])
    assert status(box)["nodes"][0] | {"power": "Off", "bmc_address": "10.98.0.7"} == status(box)["nodes"][0]


def test_a_second_placematd_is_refused_and_harms_nothing(box: Box, running: None) -> None:
    second = box.run([str(Path(CLI).with_name("placematd")), "f"], check=False, timeout=30)
    assert second.returncode == 1
    assert status(box)["state"] == "running"


def test_a_reload_with_mistakes_or_half_way_is_told_as_it_is(box: Box, running: None) -> None:
    qemu = pid(box, NODE)
    write(box, more="colour: red\n---\nkind: Nod\n")
    with wait_for(box, "colour", "Nod"):
        assert box.run(["systemctl", "reload", UNIT], check=False).returncode == 1
    assert (status(box)["state"], pid(box, NODE)) == ("running", qemu)

    write(box, memory="99999G")
    reload = box.run([CLI, "reload", "f"], check=False)
    assert (reload.returncode, "memory" in reload.stderr) == (1, True)
    assert status(box)["state"] == "degraded"
    assert "QEMU ended at once" in status(box)["error"]
    assert "QEMU ended at once" in show(box, UNIT, "StatusText")

    write(box)
    box.run([CLI, "reload", "f"])
    assert (status(box)["state"], status(box)["error"]) == ("running", "")


def test_reloads_and_restarts_leak_nothing(box: Box, running: None) -> None:
    def resources() -> list[int]:
        return [int(box.sh(f"ls /proc/{pid(box)}/{what} | wc -l")) for what in ("fd", "task")]

    def change(number: int) -> None:
        write(box, memory=f"{64 + number}M")
        box.run([CLI, "reload", "f"])
        box.run([CLI, "node", "stop", "n1"])
        box.run([CLI, "node", "start", "n1"])

    change(1)
    change(2)
    before = resources()
    for number in range(3, 7):
        change(number)
    assert all(after <= first + 2 for first, after in zip(before, resources(), strict=True))


def test_without_a_bus_nothing_is_claimed_and_down_works_when_it_is_back(box: Box, running: None) -> None:
    box.sh("systemctl stop dbus.socket dbus.service")
    try:
        stopped = box.run([CLI, "down", "f"], check=False, timeout=60)
        assert stopped.returncode == 1
        assert "D-Bus" in stopped.stderr
        assert show(box, NODE, "ActiveState") == "active"
    finally:
        box.sh("systemctl start dbus.socket dbus.service")
