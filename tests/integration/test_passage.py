"""Accept rules in the chains of Docker, firewalld and iptables without nftables, with packets really passing.

`rulesets/firewalld.nft` is `nft list ruleset` beside a firewalld 1.3.3 (Debian 12) as installed.
"""

import shutil
import subprocess
from ipaddress import ip_interface
from pathlib import Path

import pytest

from placematd.facts import HostChain, Settings
from placematd.firewall import Firewalls
from placematd.host import observe_host
from placematd.models import Cluster, Network
from placematd.names import mac_address, passage_name
from placematd.network import Bridges, Namespaces
from placematd.passage import Passages, observe_closed_chains, refusal
from placematd.resources import Bridge, Firewall, Netns, Passage, Veth

pytestmark = pytest.mark.integration

RULESETS = Path(__file__).parent / "rulesets"
DOCKER, FIREWALLD = RULESETS / "docker.iptables", RULESETS / "firewalld.nft"

DOCKER_CHAINS = [HostChain("ip", "filter", "DOCKER-USER"), HostChain("ip6", "filter", "DOCKER-USER")]
FIREWALLD_CHAINS = [
    HostChain("inet", "firewalld", "filter_PREROUTING", "prerouting"),
    HostChain("inet", "firewalld", "filter_FORWARD"),
]
LEGACY_CHAINS = [
    HostChain("iptables-legacy", "filter", "DOCKER-USER"),
    HostChain("ip6tables-legacy", "filter", "DOCKER-USER"),
]
OWN_RULES = 'chain forward {\ntype filter hook forward priority filter; policy accept;\niifname "net0" accept\n}\n'


def passage(chain, *interfaces):
    return Passage(
        name=passage_name(*chain[:3]),
        family=chain.family,
        table=chain.table,
        chain=chain.chain,
        hook=chain.hook,
        interfaces=interfaces or ("net0",),
    )


def restore(net, *programs):
    if not all(shutil.which(program) for program in programs):
        pytest.skip("needs iptables")
    for program in programs:
        done = subprocess.run([f"{program}-restore"], input=DOCKER.read_text(), text=True, capture_output=True)
        if done.returncode and "legacy" in program:
            pytest.skip(f"this kernel has no {program}: {done.stderr}")
        assert done.returncode == 0, done.stderr


def docker(net):
    restore(net, "iptables-nft", "ip6tables-nft")


def firewalld(net):
    net.sh("nft", "-f", str(FIREWALLD))


def legacy(net):
    restore(net, "iptables-legacy", "ip6tables-legacy")


def both(net):
    docker(net)
    firewalld(net)


def listing(net):
    """Every rule of the host, counters left out."""
    text = net.sh("nft", "--stateless", "list", "ruleset")
    names = Path("/proc/thread-self/net/ip_tables_names")
    if names.exists() and "filter" in names.read_text():
        lines = net.sh("iptables-legacy-save", "-t", "filter") + net.sh("ip6tables-legacy-save", "-t", "filter")
        text += "".join(line + "\n" for line in lines.splitlines() if line.startswith("-"))
    return text


@pytest.fixture(params=[(docker, DOCKER_CHAINS), (firewalld, FIREWALLD_CHAINS), (legacy, LEGACY_CHAINS)])
def foreign(request, private_net):
    """Somebody's rules in place, and the chains of theirs that matter."""
    load, chains = request.param
    load(private_net)
    return chains


@pytest.fixture
def routed(private_net):
    """Namespaces `guest`, in the cluster's network net0, and `world`, outside; this host forwards between them."""
    for name, bridge, v4, v6 in (
        ("guest", "net0", "10.0.0", "fd00:0:0:1:"),
        ("world", "out", "192.0.2", "fd00:0:0:2:"),
    ):
        Bridges().create(Bridge(name=bridge, addresses=(ip_interface(f"{v4}.1/24"), ip_interface(f"{v6}:1/64"))), "x")
        inside = (ip_interface(f"{v4}.2/24"), ip_interface(f"{v6}:2/64"))
        veth = Veth(inside="eth0", outside=f"v-{name}", bridge=bridge, mac=mac_address("x", name, 0), addresses=inside)
        routes = (("default", f"{v4}.1"), ("default", f"{v6}:1"))
        Namespaces().create(Netns(name=name, interfaces=(veth,), routes=routes), "x")
    private_net.sh("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    assert reaches(private_net) == (True, True)
    return private_net


def reaches(net):
    """Whether the guest reaches the world over IPv4 and IPv6."""
    argv = ["ip", "netns", "exec", "guest", "ping", "-n", "-c1", "-W1"]
    destinations = ("192.0.2.2", "fd00:0:0:2::2")
    return tuple(subprocess.run([*argv, address], capture_output=True).returncode == 0 for address in destinations)


@pytest.mark.proves("Network.type", "Network.use-nat")
def test_guests_reach_the_world_through_somebody_elses_firewall(routed, foreign):
    before = listing(routed)
    Firewalls().create(Firewall(name="placemat-c", rules=OWN_RULES), "c")
    assert reaches(routed) == (False, False), "an accept in a table of our own is enough after all"
    assert list(observe_closed_chains()) == foreign
    for chain in foreign:
        Passages().create(passage(chain), "c")
    assert reaches(routed) == (True, True)
    marks = Passages().observe("c")
    assert sorted(marks, key=str) == sorted((passage(chain).mark("c") for chain in foreign), key=str)
    assert list(observe_closed_chains()) == foreign, "what is decided must not depend on what is there already"
    for mark in marks:
        Passages().remove(mark)
    Firewalls().remove(Firewall(name="placemat-c", rules=OWN_RULES).mark("c"))
    assert reaches(routed) == (False, False)
    assert listing(routed) == before


def test_docker_and_firewalld_at_once(routed):
    both(routed)
    before = listing(routed)
    chains = observe_closed_chains()
    assert sorted(chains) == sorted(DOCKER_CHAINS + FIREWALLD_CHAINS)
    for number, chain in enumerate(chains):
        assert reaches(routed) == (False, False), f"after {number} of {len(chains)} chains"
        Passages().create(passage(chain), "c")
    assert reaches(routed) == (True, True)
    for mark in Passages().observe("c"):
        Passages().remove(mark)
    assert listing(routed) == before


@pytest.mark.parametrize(("load", "chains"), [(docker, DOCKER_CHAINS), (firewalld, FIREWALLD_CHAINS)])
def test_frames_inside_a_network_pass_where_bridges_call_iptables(private_net, load, chains):
    """Docker and Kubernetes switch br_netfilter on: FORWARD then drops between two ports of one bridge, and firewalld
    drops IPv6 from networks that the host has no address in.
    """
    switches = [Path(f"/proc/sys/net/bridge/bridge-nf-call-{name}") for name in ("iptables", "ip6tables")]
    if not all(switch.exists() for switch in switches):
        pytest.skip("this kernel has no br_netfilter")
    load(private_net)
    Bridges().create(Bridge(name="net0"), "x")
    for number in (1, 2):
        addresses = (ip_interface(f"10.0.0.{number}/24"), ip_interface(f"fd00::{number}/64"))
        mac = mac_address("x", "n", number)
        veth = Veth(inside="eth0", outside=f"p{number}", bridge="net0", mac=mac, addresses=addresses)
        Namespaces().create(Netns(name=f"n{number}", interfaces=(veth,)), "x")

    def joined():
        return [private_net.ping("n1", address) for address in ("10.0.0.2", "fd00::2")]

    for switch in switches:
        switch.write_text("0")
    assert joined() == [True, True]
    for switch in switches:
        switch.write_text("1")
    assert joined() == [False, False]
    for chain in chains:
        Passages().create(passage(chain), "c")
    assert joined() == [True, True]


def test_creating_again_gives_the_same_rules_and_a_new_digest_replaces_them(private_net, foreign):
    passages = Passages()
    passages.create(passage(foreign[0]), "c")
    once = listing(private_net)
    passages.create(passage(foreign[0]), "c")
    assert listing(private_net) == once
    other = passage(foreign[0], "net1", "net2")
    passages.create(other, "c")
    assert passages.observe("c") == [other.mark("c")]
    text = listing(private_net).replace('"', "")
    assert "net0" not in text
    assert [text.count(f"{name} ") for name in ("net1", "net2")] == [2 if foreign[0].hook == "forward" else 1] * 2


def test_two_clusters_do_not_touch_each_others_rules(private_net, foreign):
    passages = Passages()
    passages.create(passage(foreign[0], "net0"), "c")
    before = listing(private_net)
    passages.create(passage(foreign[0], "net1"), "d")
    assert passages.observe("d") == [passage(foreign[0], "net1").mark("d")]
    passages.remove(passage(foreign[0]).mark("d"))
    assert listing(private_net) == before
    passages.remove(passage(foreign[0]).mark("d"))
    assert passages.observe("c") == [passage(foreign[0]).mark("c")]


def test_a_firewall_loaded_anew_is_noticed_and_repaired(routed):
    firewalld(routed)
    Passages().create(passage(FIREWALLD_CHAINS[1]), "c")
    routed.sh("nft", "delete", "table", "inet", "firewalld")
    firewalld(routed)
    assert reaches(routed) == (False, False)
    assert Passages().observe("c") == []
    Passages().create(passage(FIREWALLD_CHAINS[1]), "c")
    assert reaches(routed) == (True, True)


def test_a_firewall_that_went_away_needs_no_removal(private_net):
    firewalld(private_net)
    Passages().create(passage(FIREWALLD_CHAINS[1]), "c")
    private_net.sh("nft", "flush", "ruleset")
    Passages().remove(passage(FIREWALLD_CHAINS[1]).mark("c"))
    assert observe_closed_chains() == ()


def test_iptables_goes_on_listing_the_chain_and_rules_of_others_stay(private_net):
    docker(private_net)
    private_net.sh("iptables-nft", "-A", "DOCKER-USER", "-i", "eth9", "-j", "ACCEPT")
    before = listing(private_net)
    Passages().create(passage(DOCKER_CHAINS[0]), "c")
    assert private_net.sh("iptables-nft", "-S", "DOCKER-USER").splitlines() == [
        "-N DOCKER-USER",
        f'-A DOCKER-USER -i net0 -m comment --comment "{passage(DOCKER_CHAINS[0]).mark("c")}" -j ACCEPT',
        f'-A DOCKER-USER -o net0 -m comment --comment "{passage(DOCKER_CHAINS[0]).mark("c")}" -j ACCEPT',
        "-A DOCKER-USER -i eth9 -j ACCEPT",
    ]
    Passages().remove(passage(DOCKER_CHAINS[0]).mark("c"))
    assert listing(private_net) == before


def test_a_chain_whose_name_nft_cannot_spell(private_net):
    docker(private_net)
    private_net.sh("iptables-nft", "-F", "FORWARD")
    private_net.sh("iptables-nft", "-N", "4:all")
    private_net.sh("iptables-nft", "-A", "FORWARD", "-j", "4:all")
    odd = HostChain("ip", "filter", "4:all")
    Passages().create(passage(odd), "c")
    assert private_net.sh("iptables-nft", "-S", "4:all").count("-j ACCEPT") == 2
    Passages().remove(passage(odd).mark("c"))
    assert private_net.sh("iptables-nft", "-S", "4:all") == "-N 4:all\n"


def test_a_table_that_its_owner_lets_nobody_change_is_told(private_net, caplog):
    """firewalld 2.1 and later own their table as long as they run."""
    owner = subprocess.Popen(["nft", "--interactive"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdin and owner.stdout
        owner.stdin.write("add table inet firewalld { flags owner; }\n")
        owner.stdin.write("add chain inet firewalld f { type filter hook forward priority 10; policy drop; }\n")
        owner.stdin.write("list tables\n")
        owner.stdin.flush()
        while "table inet firewalld" not in owner.stdout.readline():
            pass
        (chain,) = observe_closed_chains()
        Passages().create(passage(chain), "c")
        assert refusal(chain, ["net0"]) in caplog.text
        assert "firewall-cmd --zone=trusted --add-interface=net0" in caplog.text
        assert Passages().observe("c") == []
    finally:
        owner.communicate("quit\n", timeout=30)


def test_looking_makes_no_iptables_table(private_net):
    names = Path("/proc/thread-self/net/ip_tables_names")
    before = names.read_text() if names.exists() else ""
    assert observe_closed_chains() == ()
    assert (names.read_text() if names.exists() else "") == before


def test_the_host_tells_its_closed_chains_only_where_something_is_forwarded(private_net):
    firewalld(private_net)
    settings = Settings(cluster="c")
    internal, bmc = Network(name="net0", type="internal"), Network(name="bmc", type="bmc")
    assert observe_host(settings, Cluster(name="c", networks=(internal,))).closed_chains == tuple(FIREWALLD_CHAINS)
    assert observe_host(settings, Cluster(name="c", networks=(bmc,))).closed_chains == ()
