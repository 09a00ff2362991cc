"""The quick start, from nothing to nothing, as root and as an ordinary user: what README shows, proved.

Asserts on what guests print and on what the kernel, iproute2, nftables and systemd say, never on placemat's own records
alone. One scenario, since every step needs the one before.
"""

import json
import os
import pty
import re
import select
import termios
import time
from pathlib import Path

import pytest
from e2e.host import differences, json_of, snapshot
from e2e.journal import Follower, follow

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

REPOSITORY = Path(__file__).parents[2]
CLI = str(REPOSITORY / ".venv/bin/placemat-cli")
CLUSTER = str(REPOSITORY / "examples/quickstart/cluster.yml")
WORKERS = {"worker-1": "172.16.1.2", "worker-2": "172.16.1.3"}
BOOT_SECONDS = 600.0


@pytest.mark.parametrize("account", ["root", "user"])
def test_the_quick_start_comes_up_works_and_leaves_nothing(account: str, request: pytest.FixtureRequest) -> None:
    box = request.getfixturevalue(f"{account}_sandbox")
    run = box.run
    before = snapshot(run)

    up = run([CLI, "up", CLUSTER])
    assert "cluster quickstart is up" in up.stdout + up.stderr
    systemd_says_what_runs(run)
    nat_rules_are_there(run)

    with follow(box.popen, "PLACEMAT_NODE=worker-1") as worker1, follow(box.popen, "PLACEMAT_NODE=worker-2") as worker2:
        for name, journal in (("worker-1", worker1), ("worker-2", worker2)):
            booted_over_the_network_to_userspace(name, journal)
            address = leased_address(journal)
            run(["ping", "-c", "1", "-W", "60", address])
            journal.wait(rf"cluster quickstart: node {name}: BMC address {WORKERS[name]}$", BOOT_SECONDS)
        guest_reaches_the_host_outside_its_network(box, worker1)

    status = json_of(run, CLI, "status", "--json")
    assert {node["name"]: node["bmc_address"] for node in status["nodes"]} == WORKERS
    assert [node["power"] for node in status["nodes"]] == ["On", "On"]

    run([CLI, "down", "quickstart"])
    assert differences(before, snapshot(run)) == {}


def systemd_says_what_runs(run) -> None:
    units = json_of(run, "systemctl", "list-units", "placemat-quickstart-*", "--output=json")
    running = {unit["unit"] for unit in units if unit["sub"] == "running" and unit["unit"].endswith(".service")}
    assert {
        "placemat-quickstart-app-boot-dnsmasq.service",
        "placemat-quickstart-node-worker-1.service",
        "placemat-quickstart-node-worker-2.service",
    } <= running
    users = run(["ps", "-C", "qemu-system-x86_64", "-o", "user:20="]).stdout.split()
    assert users == ["placemat-qemu", "placemat-qemu"]


def nat_rules_are_there(run) -> None:
    rules = run(["nft", "list", "table", "inet", "placemat-quickstart"]).stdout
    assert re.search(r"ip saddr 172\.16\.0\.0/24 .*masquerade", rules)


def booted_over_the_network_to_userspace(name: str, journal: Follower) -> None:
    journal.wait(r"iPXE", BOOT_SECONDS)
    journal.wait(r"boot\.ipxe", BOOT_SECONDS)
    journal.wait(r"placemat-guest: ready", BOOT_SECONDS)


def leased_address(journal: Follower) -> str:
    line = journal.wait(r"placemat-guest: \S+ address (172\.16\.0\.\d+)/24 on ens3", BOOT_SECONDS)
    return line[1]


def guest_reaches_the_host_outside_its_network(box, journal: Follower) -> None:
    """Types into the console; the answer comes through the NAT table, whose counter of connections tracked says so."""
    box.run(["ip", "link", "add", "outside", "type", "bridge"])
    box.run(["ip", "address", "add", "203.0.113.1/24", "dev", "outside"])
    box.run(["ip", "link", "set", "outside", "up"])
    try:
        box.run(["ip", "netns", "add", "world"])
        box.run(["ip", "link", "add", "w0", "type", "veth", "peer", "name", "eth0", "netns", "world"])
        box.run(["ip", "link", "set", "w0", "master", "outside", "up"])
        box.run(["ip", "-n", "world", "address", "add", "203.0.113.2/24", "dev", "eth0"])
        box.run(["ip", "-n", "world", "link", "set", "eth0", "up"])
        type_into_the_console(box, "ping -c 1 -W 60 203.0.113.2 && echo through-nat-$((20 + 3))", "through-nat-23")
        journal.wait("through-nat-23", BOOT_SECONDS)
    finally:
        box.run(["ip", "netns", "delete", "world"], check=False)
        box.run(["ip", "link", "delete", "outside"])


def type_into_the_console(box, line: str, answer: str) -> None:
    """Enter the console in a terminal, type, read the answer, leave with Ctrl-Q Ctrl-X; the terminal is as before."""
    terminal, inside = pty.openpty()
    before = termios.tcgetattr(inside)
    console = box.popen([CLI, "node", "enter", "worker-1"], stdin=inside, stdout=inside, stderr=inside)
    try:
        read_until(terminal, "Ctrl-Q Ctrl-X leaves")
        os.write(terminal, line.encode() + b"\r")
        read_until(terminal, answer)
        os.write(terminal, b"\x11\x18")
        assert console.wait(60) == 0
        assert termios.tcgetattr(inside) == before
    finally:
        console.kill()
        console.wait(60)
        os.close(inside)
        os.close(terminal)


def read_until(terminal: int, text: str, timeout_seconds: float = 300.0) -> None:
    """Read what a terminal shows until a text appears in it."""
    shown, deadline = "", time.monotonic() + timeout_seconds
    while text not in shown:
        readable, _, _ = select.select([terminal], [], [], deadline - time.monotonic())
        assert readable, f"{text!r} did not appear; shown: {shown}"
        shown += os.read(terminal, 4096).decode(errors="replace")


def test_a_broken_file_fails_fast_with_all_mistakes_and_touches_nothing(root_sandbox) -> None:
    run = root_sandbox.run
    broken = (
        "kind: Network\nname: a-name-that-is-too-long\ntype: internal\n---\n"
        "kind: Node\nname: n1\ninterfaces: [nowhere]\ncpu: two\n---\nkind: Nod\nname: n2\n"
    )
    before = snapshot(run)
    run(["mkdir", "-p", "/etc/placemat"])
    run(["tee", "/etc/placemat/broken.yml"], input=broken)
    start = run(["systemctl", "start", "placemat@broken"], check=False)
    assert start.returncode != 0
    status = run(["systemctl", "status", "--full", "--lines=50", "placemat@broken"], check=False).stdout
    journal = run(["journalctl", "--output=cat", "PLACEMAT_CLUSTER=broken"]).stdout
    for mistake in (
        r"/etc/placemat/broken\.yml:2:7: .*a-name-that-is-too-long",
        r"/etc/placemat/broken\.yml:7:1[0-9]: .*nowhere",
        r"/etc/placemat/broken\.yml:8:6: .*two",
        r"/etc/placemat/broken\.yml:10:7: .*Nod",
    ):
        assert re.search(mistake, journal), mistake
        assert re.search(mistake, status), mistake
    assert (
        json.loads(run(["systemctl", "show", "--property=ExecMainStatus", "placemat@broken"]).stdout.split("=")[1]) == 2
    )
    run(["systemctl", "reset-failed", "placemat@broken"])
    run(["rm", "/etc/placemat/broken.yml"])
    assert differences(before, snapshot(run)) == {}
