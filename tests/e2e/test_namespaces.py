"""Namespaces as routers and servers: real BIRD and dnsmasq, the examples rack0-tor1 and leaf-spine, real guests.

One sandbox for all. Asserts on what the kernel, BIRD, systemd, the journal and the guests say.
"""

import json
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from guests import Console, images
from sandboxes import Box, as_root, as_user

from tests.e2e.host import json_of, snapshot
from tests.e2e.journal import follow

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

REPOSITORY = Path(__file__).parents[2]
CLI = str(REPOSITORY / ".venv/bin/placemat-cli")
EXAMPLES = REPOSITORY / "examples"
FILES = Path(__file__).parent / "namespaces"
HERE = Path("/run/test-namespaces")
"""Where a sandbox has a copy of FILES that everybody may read, wherever the clone is: an app runs as nobody."""

BOOT_SECONDS = 400.0
BGP_SECONDS = 60.0


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    images()
    with as_root() as sandbox:
        sandbox.sh("command -v birdc dnsmasq")
        prepare(sandbox)
        yield sandbox


def prepare(box: Box) -> None:
    """Copy the files, and have /run/netns mounted, as iproute2 leaves it when the last namespace is gone."""
    box.sh(f"cp -R {FILES} {HERE}; chmod -R a+rX {HERE}")
    box.sh("ip netns add first; ip netns delete first")


@contextmanager
def cluster(box: Box, name: str, file: Path) -> Iterator[None]:
    """The cluster of a file, up; afterwards the host is as before."""
    before = snapshot(box.run)
    box.sh(f"mkdir -p /run/placemat; echo PLACEMAT_FILES={file} > /run/placemat/{name}.conf")
    try:
        start = box.run(["systemctl", "start", f"placemat@{name}"], check=False)
        assert start.returncode == 0, box.run(["journalctl", "--output=cat", f"PLACEMAT_CLUSTER={name}"]).stdout
        yield
        box.run(["systemctl", "stop", f"placemat@{name}"])
    finally:
        box.run(["rm", f"/run/placemat/{name}.conf"])
    assert snapshot(box.run) == before


def inside(box: Box, netns: str, *argv: str) -> str:
    return box.run(["ip", "netns", "exec", netns, *argv]).stdout


def eventually(what: Callable[[], bool], seconds: float, tell: Callable[[], Any]) -> None:
    """Ask until it is so: BIRD tells nobody when its routes are in the kernel."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, tell()
        time.sleep(0.2)


def sessions(box: Box, control: str) -> dict[str, str]:
    """BGP protocol -> what BIRD says of it."""
    table = box.run(["birdc", "-r", "-s", control, "show", "protocols"]).stdout
    return dict(re.findall(r"^(\S+)\s+BGP\s+\S+\s+\S+\s+\S+\s+(.*?)\s*$", table, re.MULTILINE))


def route(box: Box, netns: str, destination: str) -> set[str]:
    """The gateways to a destination in the kernel of a namespace, of routes that BIRD made."""
    found = json_of(box.run, "ip", "-n", netns, "-json", "route", "show", destination, "proto", "bird")
    hops = [hop for entry in found for hop in entry.get("nexthops", [entry])]
    return {hop["gateway"] for hop in hops}


@contextmanager
def console_of(box: Box, name: str, node: str) -> Iterator[Console]:
    """The guest's console, through placemat-cli, with a shell that answers."""
    ours, theirs = socket.socketpair()
    argv = [CLI, "--cluster", name, "node", "enter", node]
    process = box.popen(argv, stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL)
    theirs.close()
    console = Console(ours)
    try:
        console.send("\n")
        console.expect("# ")
        yield console
    finally:
        console.close()
        process.terminate()
        process.wait(30)


def entries(box: Box, *matches: str) -> list[dict[str, str]]:
    """Lines of the journal, as records."""
    lines = box.run(["journalctl", "--output=json", "_TRANSPORT=stdout", *matches]).stdout.splitlines()
    return [json.loads(line) for line in lines]


def messages(box: Box, *matches: str) -> list[str]:
    return [entry["MESSAGE"] for entry in entries(box, *matches)]


# -- each field -------------------------------------------------------------------------------------------------------


VIEW = ["192.0.2.1 only-left", "nameserver 192.0.2.53"]
"""What the files of namespace `left` say."""

FILES_OF_LEFT = """
mkdir -p /etc/netns/left /run/systemd/resolve
echo 192.0.2.1 only-left > /etc/netns/left/hosts
echo nameserver 192.0.2.53 > /etc/netns/left/resolv.conf
: > /etc/netns/left/unheard-of
# As with systemd-resolved: a link into what apps do not see.
echo nameserver 127.0.0.53 > /run/systemd/resolve/stub-resolv.conf
echo nameserver 192.0.2.99 > /run/systemd/resolve/resolv.conf
cp /etc/resolv.conf /run/resolv.conf.before
ln -sf /run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
"""
NO_FILES_OF_LEFT = """
rm -r /etc/netns/left /run/systemd/resolve /run/namespaces /etc/resolv.conf
mv /run/resolv.conf.before /etc/resolv.conf
"""


@contextmanager
def fields_up(box: Box) -> Iterator[Box]:
    """Cluster `fields`, with files in /etc/netns for namespace `left` alone."""
    box.sh(FILES_OF_LEFT)
    with cluster(box, "fields", HERE / "cluster.yml"):
        with follow(box.popen, "PLACEMAT_CLUSTER=fields", "PLACEMAT_APP=late") as late:
            late.wait(VIEW[-1], 60)
        for app in ("always", "on-failure"):
            with follow(box.popen, "PLACEMAT_CLUSTER=fields", f"PLACEMAT_APP={app}") as journal:
                journal.wait(f"{app} again", 60)
        yield box
    box.sh(NO_FILES_OF_LEFT)


@pytest.fixture(scope="module")
def fields(box: Box) -> Iterator[Box]:
    with fields_up(box):
        yield box


@pytest.mark.proves("NetworkNamespace.name", "NetworkNamespace.interfaces.network")
def test_interfaces_have_names_in_their_order_and_are_ports_of_their_bridge(fields: Box) -> None:
    assert {"left", "right"} <= {item["name"] for item in json_of(fields.run, "ip", "-json", "netns", "list")}
    links = json_of(fields.run, "ip", "-n", "left", "-json", "link", "show", "type", "veth")
    assert [link["ifname"] for link in links] == ["eth0", "eth1"]
    assert len(json_of(fields.run, "ip", "-json", "link", "show", "master", "link")) == 3


@pytest.mark.proves("NetworkNamespace.interfaces.addresses")
def test_addresses_of_point_to_point_networks_work(fields: Box) -> None:
    inside(fields, "left", "ping", "-c", "1", "-W", "10", "10.8.0.1")
    inside(fields, "left", "ping", "-c", "1", "-W", "10", "fd00:8::1")


@pytest.mark.proves("NetworkNamespace.routes.to", "NetworkNamespace.routes.via")
def test_routes_lead_through_their_gateways(fields: Box) -> None:
    inside(fields, "left", "ping", "-c", "1", "-W", "10", "10.7.0.1")
    inside(fields, "left", "ping", "-c", "1", "-W", "10", "fd00:7::1")


@pytest.mark.proves("NetworkNamespace.sysctls")
def test_sysctls_are_of_the_namespace_alone(fields: Box) -> None:
    names = ("net.ipv4.ip_default_ttl", "net.ipv6.conf.eth0.hop_limit", "net.ipv4.ip_forward")
    assert inside(fields, "left", "sysctl", "-n", *names).split() == ["77", "33", "1"]
    assert inside(fields, "right", "sysctl", "-n", *names).split() == ["64", "64", "1"]


@pytest.mark.proves("NetworkNamespace.init-scripts")
def test_init_scripts_run_in_order_inside_the_namespace(fields: Box) -> None:
    said = messages(fields, "PLACEMAT_CLUSTER=fields", "SYSLOG_IDENTIFIER=left-init")
    assert said[0] == f"first of left in fields at {HERE}"
    links = said[1].removeprefix("second sees ").split()
    assert {"/sys/class/net/eth0", "/sys/class/net/eth1", "/sys/class/net/made"} <= set(links)
    assert "/sys/class/net/link" not in links, "that is the host's"
    assert said[2:] == VIEW


@pytest.mark.proves(
    "NetworkNamespace.apps.name",
    "NetworkNamespace.apps.command",
    "NetworkNamespace.apps.user",
    "NetworkNamespace.apps.environment",
    "NetworkNamespace.apps.working-directory",
)
def test_apps_have_user_directory_environment_and_the_namespaces_view(fields: Box) -> None:
    links = messages(fields, "PLACEMAT_CLUSTER=fields", "PLACEMAT_NETNS=left", "PLACEMAT_APP=early")[3]
    assert {"/sys/class/net/eth0", "/sys/class/net/made"} <= set(links.split())
    assert "/sys/class/net/link" not in links
    view = [links, *VIEW]
    assert messages(fields, "PLACEMAT_CLUSTER=fields", "PLACEMAT_NETNS=left", "PLACEMAT_APP=early") == [
        "user root",
        f"directory {HERE}",
        "variables fields left hello world $HOME %n",
        *view,
    ]
    assert messages(fields, "PLACEMAT_CLUSTER=fields", "PLACEMAT_NETNS=left", "PLACEMAT_APP=late") == [
        "user nobody",
        f"directory {HERE}/elsewhere",
        "variables fields left",
        *view,
    ]


def test_an_ordinary_users_apps_have_the_same_view() -> None:
    with as_user() as box:
        prepare(box)
        with fields_up(box):
            links, *files = messages(box, "PLACEMAT_CLUSTER=fields", "PLACEMAT_APP=late")[3:]
    assert "/sys/class/net/eth0" in links and "/sys/class/net/link" not in links
    assert files == VIEW


@pytest.mark.proves("NetworkNamespace.apps.after", "NetworkNamespace.init-scripts")
def test_apps_start_after_the_scripts_and_after_those_they_name(fields: Box) -> None:
    units = [f"placemat-fields-{part}.service" for part in ("init-left", "app-left-early", "app-left-late")]
    times = [
        int(fields.run(["systemctl", "show", "--value", "--property=ActiveEnterTimestampMonotonic", unit]).stdout)
        for unit in units
    ]
    assert 0 < times[0] < times[1] < times[2]


@pytest.mark.proves("NetworkNamespace.apps.restart")
def test_apps_are_started_again_as_they_ask(fields: Box) -> None:
    def state(app: str) -> list[str]:
        unit = f"placemat-fields-app-left-{app}.service"
        options = ["--property=ActiveState", "--property=NRestarts", "--value"]
        return sorted(fields.run(["systemctl", "show", *options, unit]).stdout.split())

    assert state("on-failure") == state("always") == ["1", "active"]
    assert state("failed") == ["0", "failed"]
    assert messages(fields, "PLACEMAT_CLUSTER=fields", "PLACEMAT_APP=failed") == ["tried"]


@pytest.mark.proves("NetworkNamespace.init-scripts")
def test_a_script_that_fails_ends_the_start_with_what_it_said(fields: Box) -> None:
    box = fields
    before = snapshot(box.run)
    box.sh(f"mkdir -p /run/placemat; echo PLACEMAT_FILES={HERE}/fails.yml > /run/placemat/fails.conf")
    assert box.run(["systemctl", "start", "placemat@fails"], check=False).returncode != 0
    status = box.run(["systemctl", "status", "--full", "--lines=50", "placemat@fails"], check=False).stdout
    assert "exit status 9" in status, status
    assert " | ".join(f"line {number} of what went wrong" for number in range(3, 8)) in status
    said = messages(box, "PLACEMAT_CLUSTER=fails", "SYSLOG_IDENTIFIER=broken-init")
    assert said[-7:] == [f"line {number} of what went wrong" for number in range(1, 8)]
    assert said[-8] == "nameserver 192.0.2.99", "the host's own server stands in for systemd-resolved's stub"
    assert not any("first" in line for line in said), "the script after the one that failed"
    assert not entries(box, "PLACEMAT_CLUSTER=fails", "PLACEMAT_APP=never")
    box.sh("systemctl reset-failed placemat@fails; rm /run/placemat/fails.conf")
    assert snapshot(box.run) == before


# -- the examples -----------------------------------------------------------------------------------------------------


@pytest.mark.proves("NetworkNamespace.apps.command", "NetworkNamespace.init-scripts")
def test_rack0_tor1_of_the_design_document(box: Box) -> None:
    with cluster(box, "rack0-tor1", EXAMPLES / "rack0-tor1/cluster.yml"):
        control = "/var/run/bird/bird_rack0-tor1.ctl"
        up = {"s1": "Established", "s2": "Established"}
        eventually(lambda: sessions(box, control) == up, BGP_SECONDS, lambda: sessions(box, control))
        eventually(lambda: route(box, "s1", "10.69.0.64/26") == {"10.0.1.1"}, BGP_SECONDS, lambda: "no route")
        eventually(lambda: route(box, "s2", "10.69.0.64/26") == {"10.0.1.13"}, BGP_SECONDS, lambda: "no route")
        assert route(box, "rack0-tor1", "10.69.0.192/26") == {"10.0.1.0"}
        assert route(box, "rack0-tor1", "10.69.1.128/26") == {"10.0.1.12"}
        with follow(box.popen, "PLACEMAT_CLUSTER=rack0-tor1", "PLACEMAT_NODE=r0-worker") as journal:
            journal.wait(r"r0-worker address 10\.69\.0\.1[01]\d/26 on ens3", BOOT_SECONDS)
            journal.wait("placemat-guest: ready", BOOT_SECONDS)
        with console_of(box, "rack0-tor1", "r0-worker") as console:
            assert "1 packets received" in console.run("ping -c 1 -W 30 10.69.0.195")
            assert "1 packets received" in console.run("ping -c 1 -W 30 10.69.1.131")
        asked = messages(box, "PLACEMAT_NETNS=boot-0") + messages(box, "PLACEMAT_NETNS=boot-1")
        assert any("DHCPACK" in line for line in asked)


def test_leaf_spine_carries_a_ping_from_rack_to_rack_over_both_spines(box: Box) -> None:
    with cluster(box, "leaf-spine", EXAMPLES / "leaf-spine/cluster.yml"):
        up = {"spine1": "Established", "spine2": "Established"}
        for leaf in ("leaf0", "leaf1", "leaf2"):
            control = f"/run/bird/leaf-spine-{leaf}.ctl"
            eventually(lambda c=control: sessions(box, c) == up, BGP_SECONDS, lambda c=control: sessions(box, c))
        both = {"10.0.1.2", "10.0.2.2"}
        eventually(
            lambda: route(box, "leaf1", "10.2.0.0/24") == both, BGP_SECONDS, lambda: inside(box, "leaf1", "ip", "r")
        )
        addresses = {}
        for rack in (1, 2):
            node = f"rack{rack}-node"
            with follow(box.popen, "PLACEMAT_CLUSTER=leaf-spine", f"PLACEMAT_NODE={node}") as journal:
                found = journal.wait(rf"{node} address (10\.{rack}\.0\.\d+)/24 on ens3", BOOT_SECONDS)
                addresses[node] = found[1]
                journal.wait("placemat-guest: ready", BOOT_SECONDS)
        with console_of(box, "leaf-spine", "rack1-node") as console:
            assert "1 packets received" in console.run(f"ping -c 1 -W 30 {addresses['rack2-node']}")
