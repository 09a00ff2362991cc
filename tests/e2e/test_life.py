"""What made placemat v2 hang, crash or damage its host, done to a cluster: named after what must not come back.

No guests: two QEMUs with nothing to boot. Asserts on what systemd, the kernel and the API say.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sandboxes import Box, as_root

from tests.e2e.console import CLI
from tests.e2e.host import differences, json_of, snapshot
from tests.e2e.journal import follow

pytestmark = [pytest.mark.e2e]

HERE = Path(__file__).parent / "life"
STOP_SECONDS = 60
"""Longer than the time that systemd gives a stubborn app before it kills it."""


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    with as_root() as box:
        box.sh(f"mkdir -p /run/life /run/placemat; cp {HERE}/* /run/life; mkfifo /run/life/go")
        box.sh("ip netns add first; ip netns delete first")
        yield box


@contextmanager
def configured(box: Box, cluster: str, *settings: str) -> Iterator[str]:
    """A cluster's settings file; gives the name of its unit. The host is as before afterwards."""
    before = snapshot(box.run)
    lines = "\n".join([f"PLACEMAT_FILES=/run/life/{cluster}.yml", *settings])
    box.run(["tee", f"/run/placemat/{cluster}.conf"], input=lines + "\n")
    try:
        yield f"placemat@{cluster}.service"
    finally:
        box.run(["systemctl", "stop", f"placemat@{cluster}"], check=False)
        box.run(["systemctl", "reset-failed", f"placemat@{cluster}"], check=False)
        box.run(["rm", f"/run/placemat/{cluster}.conf"])
    assert differences(before, snapshot(box.run)) == {}


@pytest.fixture(scope="module")
def cluster(box: Box) -> Iterator[str]:
    with configured(box, "cluster") as unit:
        start = box.run(["systemctl", "start", unit], check=False)
        assert start.returncode == 0, box.run(["journalctl", "--output=cat", f"--unit={unit}"]).stdout
        yield unit


def show(box: Box, unit: str, name: str) -> str:
    return box.run(["systemctl", "show", "--value", f"--property={name}", unit]).stdout.strip()


def node_pids(box: Box) -> dict[str, str]:
    return {name: show(box, f"placemat-cluster-node-{name}.service", "MainPID") for name in ("one", "two")}


# -- a cluster that is up ---------------------------------------------------------------------------------------------


def test_an_app_that_fails_is_told_and_nothing_else_ends(box: Box, cluster: str) -> None:
    with follow(box.popen, "UNIT=placemat-cluster-app-apps-fails.service") as journal:
        journal.wait("Failed with result", 30)
    status = json_of(box.run, CLI, "--cluster", "cluster", "status", "--json")
    assert status["state"] == "degraded"
    assert status["failed_units"] == ["placemat-cluster-app-apps-fails.service"]
    assert show(box, "placemat-cluster-app-apps-steady.service", "SubState") == "running"
    assert [node["power"] for node in status["nodes"]] == ["On", "On"]


def test_nodes_without_a_serial_are_switched_each_by_its_name(box: Box, cluster: str) -> None:
    before = node_pids(box)
    for name, other in (("one", "two"), ("two", "one")):
        pid = node_pids(box)
        box.run([CLI, "--cluster", "cluster", "node", "stop", name])
        assert node_pids(box) == {name: "0", other: pid[other]}
        box.run([CLI, "--cluster", "cluster", "node", "start", name])
    assert set(node_pids(box).values()).isdisjoint({*before.values(), "0"})


def test_what_another_cluster_has_is_not_taken_from_it(box: Box, cluster: str) -> None:
    links = box.sh("ip -o link show master life0; cat /sys/class/net/life0/ifindex")
    with configured(box, "taken") as second:
        assert box.run(["systemctl", "start", second], check=False).returncode != 0
        assert "life0" in box.run(["journalctl", "--output=cat", f"--unit={second}"]).stdout
        assert box.sh("ip -o link show master life0; cat /sys/class/net/life0/ifindex") == links


def test_a_child_that_an_app_leaves_does_not_hold_up_the_end(box: Box, cluster: str) -> None:
    """Last of this cluster: it ends it."""
    assert len(box.sh("pgrep -f 'sleep 8642[12]'").split()) == 2
    begin = time.monotonic()
    box.run(["systemctl", "stop", cluster], timeout=STOP_SECONDS)
    assert time.monotonic() - begin < STOP_SECONDS
    assert box.run(["pgrep", "-f", "sleep 8642[12]"], check=False).stdout == ""


# -- a cluster that starts --------------------------------------------------------------------------------------------


@contextmanager
def starting(box: Box) -> Iterator[str]:
    """A start that waits for its init script."""
    with configured(box, "slow") as unit:
        since = box.sh("journalctl --sync; journalctl --quiet --show-cursor --lines=0").split("cursor: ")[-1].strip()
        box.run(["systemctl", "start", "--no-block", unit])
        with follow(box.popen, f"--after-cursor={since}", "SYSLOG_IDENTIFIER=slow-init") as journal:
            journal.wait("waiting", 60)
        yield unit


def test_a_stop_during_the_start_leaves_nothing(box: Box) -> None:
    with starting(box) as unit:
        box.run(["systemctl", "stop", unit], timeout=STOP_SECONDS)
        assert show(box, unit, "Result") == "success"


def test_a_hangup_during_the_start_is_survived(box: Box) -> None:
    with starting(box) as unit:
        pid = show(box, unit, "MainPID")
        box.run(["kill", "-HUP", pid])
        box.sh("echo the hangup > /run/life/go")
        box.run(["systemctl", "start", unit], timeout=STOP_SECONDS)
        assert (show(box, unit, "ActiveState"), show(box, unit, "MainPID")) == ("active", pid)


def test_an_address_that_cannot_be_listened_on_ends_the_start_with_its_reason(box: Box) -> None:
    with configured(box, "slow", "PLACEMAT_LISTEN=203.0.113.99:10808") as unit:
        assert box.run(["systemctl", "start", unit], check=False, timeout=STOP_SECONDS).returncode != 0
        said = box.run(["journalctl", "--output=cat", f"--unit={unit}"]).stdout
        assert "listen on 203.0.113.99:10808" in said
        assert show(box, unit, "ExecMainStatus") == "1"
