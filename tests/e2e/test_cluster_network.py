"""Networks of all types beside the rules of Docker and firewalld, with an uplink of 1460 bytes and a real guest.

The host is a sandbox. Its uplink leads to namespace `world`, which knows no way back to the cluster: what it answers
came with the host's address. One cluster for all tests, which come in the order of its life.
"""

import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from e2e.host import json_of, snapshot
from e2e.journal import Follower, follow
from guests import Console, images
from sandboxes import Box, as_root

pytestmark = [pytest.mark.e2e]

REPOSITORY = Path(__file__).parents[2]
CLI = str(REPOSITORY / ".venv/bin/placemat-cli")
RULESETS = REPOSITORY / "tests/integration/rulesets"
HERE = Path(__file__).parent / "network"
MTU = 1460
HEADERS = 28  # IPv4 and ICMP
WORLD, WORLD6 = "203.0.113.2", "2001:db8::2"
FORWARDING = ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding")

WORLD_SEES = f"""
table inet sees {{
    counter whole {{ }}
    counter pieces {{ }}
    counter larger {{ }}
    chain arriving {{
        type filter hook prerouting priority -500; policy accept;
        ip length {MTU} ip frag-off 0x4000 counter name whole
        ip frag-off & 0x3fff != 0 counter name pieces
        ip length > {MTU} counter name larger
    }}
}}
"""


@dataclass
class Lab:
    """The host, its state before the cluster, and the guest's journal and console."""

    box: Box
    before: dict[str, list[str]]
    rules: str
    journal: Follower
    cluster: Follower
    console: Console

    def pings(self, netns: str, address: str, *options: str, tries: int = 1) -> bool:
        argv = ["ip", "netns", "exec", netns, "ping", "-n", "-c", str(tries), "-W", "3", *options, address]
        return self.box.run(argv, check=False).returncode == 0


def rules_of(box: Box) -> str:
    """All rules of the host but their counters."""
    return box.run(["nft", "--stateless", "list", "ruleset"]).stdout


def make_uplink(box: Box) -> None:
    box.sh(
        f"""
        ip netns add world
        ip link add uplink mtu {MTU} type veth peer name eth0 mtu {MTU} netns world
        ip address add 203.0.113.1/24 dev uplink
        ip address add 2001:db8::1/64 dev uplink nodad
        ip -n world address add {WORLD}/24 dev eth0
        ip -n world address add {WORLD6}/64 dev eth0 nodad
        ip link set uplink up
        ip -n world link set eth0 up
        ip route add default via {WORLD}
        ip -6 route add default via {WORLD6}
        """
    )
    box.run(["ip", "netns", "exec", "world", "nft", "-f", "-"], input=WORLD_SEES)


def load_other_firewalls(box: Box) -> None:
    docker = (RULESETS / "docker.iptables").read_text()
    box.run(["iptables-nft-restore"], input=docker)
    box.run(["ip6tables-nft-restore"], input=docker)
    load_firewalld(box)


def load_firewalld(box: Box) -> None:
    box.run(["nft", "-f", "-"], input=(RULESETS / "firewalld.nft").read_text())


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with as_root() as box:
        if box.run(["sh", "-c", "command -v iptables-nft"], check=False).returncode:
            pytest.skip("needs iptables")
        make_uplink(box)
        load_other_firewalls(box)
        before, rules = snapshot(box.run), rules_of(box)
        folder = f"/run/{box.name}"
        box.sh(f"mkdir {folder}; cp {HERE}/* {images().vmlinuz} {images().initrd} {folder}; mkdir -p /run/placemat")
        box.run(["sh", "-c", f"echo PLACEMAT_FILES={folder}/cluster.yml > /run/placemat/network.conf"])
        box.run(["systemctl", "start", "placemat@network"])
        with (
            follow(box.popen, "PLACEMAT_NODE=guest") as journal,
            follow(box.popen, "_SYSTEMD_UNIT=placemat@network.service") as cluster,
            console_of(box, "guest") as console,
        ):
            yield Lab(box, before, rules, journal, cluster, console)


class console_of:  # noqa: N801
    """The guest's console, through placemat-cli."""

    def __init__(self, box: Box, node: str) -> None:
        ours, theirs = socket.socketpair()
        self._process = box.popen(
            [CLI, "--cluster", "network", "node", "enter", node], stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL
        )
        theirs.close()
        self._console = Console(ours)

    def __enter__(self) -> Console:
        return self._console

    def __exit__(self, *_: object) -> None:
        self._console.close()
        self._process.terminate()
        self._process.wait(30)


@pytest.mark.proves("Network.name", "Network.address", "Network.addresses")
def test_each_network_is_a_bridge_of_its_name_with_its_addresses(lab: Lab) -> None:
    addresses = {
        link["ifname"]: [
            f"{item['local']}/{item['prefixlen']}" for item in link["addr_info"] if item["scope"] != "link"
        ]
        for link in json_of(lab.box.run, "ip", "-json", "address", "show", "type", "bridge")
    }
    assert addresses == {
        "net0": ["10.0.0.1/24", "10.0.1.1/24", "fd00:10::1/64"],
        "net1": ["10.1.0.1/24"],
        "quiet": ["10.2.0.1/24"],
        "inner": [],
        "mgmt": ["10.3.0.1/24"],
    }


def test_every_link_has_the_mtu_of_the_path_to_the_world(lab: Lab) -> None:
    links = json_of(lab.box.run, "ip", "-json", "link")
    ours = [link for link in links if link["ifname"].startswith("pm")]
    bridges = [link for link in links if link["ifname"] in ("net0", "net1", "quiet", "inner", "mgmt")]
    inside = json_of(lab.box.run, "ip", "-n", "boot", "-json", "link", "show", "type", "veth")
    assert len(ours) == 8 and len(bridges) == 5 and len(inside) == 2
    assert {link["mtu"] for link in (*ours, *bridges, *inside)} == {MTU}


@pytest.mark.proves("Network.type", "Network.use-nat")
def test_networks_with_nat_reach_the_world_in_each_of_their_families(lab: Lab) -> None:
    assert lab.pings("boot", WORLD)
    assert lab.pings("boot", WORLD, "-I", "10.0.1.2")
    assert lab.pings("boot", WORLD6)
    assert lab.pings("peer", WORLD)


@pytest.mark.proves("Network.type")
def test_internal_networks_join_their_members_alone(lab: Lab) -> None:
    assert lab.pings("boot", "10.9.0.0")
    assert lab.pings("peer", "fd00:9::")


@pytest.mark.proves("Network.type", "Network.use-nat")
def test_networks_without_nat_and_bmc_networks_are_not_forwarded(lab: Lab) -> None:
    assert not lab.pings("loner", WORLD)
    assert lab.pings("loner", "10.2.0.1") and lab.pings("loner", "10.3.0.1"), "they do reach the host"


@pytest.mark.proves("Network.use-nat")
def test_the_host_forwards_both_families(lab: Lab) -> None:
    assert lab.box.run(["sysctl", "-n", *FORWARDING]).stdout.split() == ["1", "1"]


def test_a_subnet_of_the_same_network_sees_the_true_source(lab: Lab) -> None:
    rules = lab.box.run(["nft", "list", "chain", "inet", "placemat-network", "postrouting"]).stdout
    assert "ip saddr 10.0.1.0/24 ip daddr != 10.0.0.0/23 masquerade" in rules


@pytest.mark.proves("Network.use-nat")
def test_a_guest_boots_and_reaches_the_world(lab: Lab) -> None:
    lab.journal.wait(r"placemat-guest: ready", 240)
    lab.journal.wait(r"placemat-guest: guest address 10\.0\.0\.10/24 on ens3", 240)
    lab.console.send("\n")
    lab.console.expect("# ")
    assert "1 packets received" in lab.console.run(f"ping -c 1 -W 30 {WORLD}")
    lab.console.run("echo 0 > /proc/sys/net/ipv6/conf/ens3/accept_dad")
    lab.console.run("ip -6 address add fd00:10::10/64 dev ens3 && ip -6 route add default via fd00:10::1")
    assert "1 packets received" in lab.console.run(f"ping -6 -c 1 -W 30 {WORLD6}")


def test_the_guests_nic_has_the_mtu_and_can_have_no_larger(lab: Lab) -> None:
    assert lab.console.run("cat /sys/class/net/ens3/mtu /sys/class/net/ens4/mtu").split() == [str(MTU), str(MTU)]
    assert lab.console.run(f"ip link set ens3 mtu {MTU + 1} 2> /dev/null || echo refused").endswith("refused")


def test_a_full_size_packet_arrives_and_a_larger_one_does_not(lab: Lab) -> None:
    """The route lets the guest send more than its NIC's MTU, not to be fragmented: then the path alone decides."""
    lab.console.run(f"ip route add {WORLD} via 10.0.0.1 mtu 2000")
    before = counters(lab)
    assert "1 packets received" in lab.console.run(f"ping -c 1 -W 30 -s {MTU - HEADERS} {WORLD}")
    full = counters(lab)
    assert (full["whole"] - before["whole"], full["pieces"], full["larger"]) == (1, before["pieces"], 0)
    answer = lab.console.run(f"ping -c 1 -W 5 -s {MTU - HEADERS + 1} {WORLD} || true")
    assert "0 packets received" in answer
    assert counters(lab) == full


def counters(lab: Lab) -> dict[str, int]:
    listing = json_of(lab.box.run, "ip", "netns", "exec", "world", "nft", "-j", "list", "counters")["nftables"]
    return {item["counter"]["name"]: item["counter"]["packets"] for item in listing if "counter" in item}


def test_a_firewall_that_is_loaded_anew_does_not_cut_the_cluster_off(lab: Lab) -> None:
    lab.box.run(["nft", "delete", "table", "inet", "firewalld"])
    load_firewalld(lab.box)
    lab.cluster.wait("firewall was changed: create passage inet:firewalld:filter_FORWARD", 60)
    assert lab.pings("boot", WORLD)
    assert lab.pings("boot", WORLD6)


def test_a_reload_puts_back_what_nobody_told_was_lost(lab: Lab) -> None:
    """As where the firewall is iptables-legacy, or placematd was not there."""
    lab.box.run(["systemctl", "kill", "--signal=STOP", "--kill-whom=main", "placemat@network"])
    rules = rules_of(lab.box)
    lab.box.run(["nft", "flush", "ruleset"])
    load_other_firewalls(lab.box)
    assert not lab.pings("boot", WORLD)
    lab.box.run(["systemctl", "kill", "--signal=CONT", "--kill-whom=main", "placemat@network"])
    lab.box.run([CLI, "reload", "network"])
    assert sorted(rules_of(lab.box).splitlines()) == sorted(rules.splitlines())
    assert lab.pings("boot", WORLD)


@pytest.mark.proves("Network.use-nat")
def test_stopping_leaves_the_host_as_it_was(lab: Lab) -> None:
    """Last: it ends the cluster."""
    assert rules_of(lab.box) != lab.rules
    lab.box.run(["systemctl", "stop", "placemat@network"])
    assert rules_of(lab.box) == lab.rules
    lab.box.run(["rm", "/run/placemat/network.conf"])
    after = snapshot(lab.box.run)
    assert {key: value for key, value in after.items() if key != "nftables"} == {
        key: value for key, value in lab.before.items() if key != "nftables"
    }
