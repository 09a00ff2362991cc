"""The cluster's nftables table, as nft(8) sees it."""

import json

import pytest

from placematd.errors import MissingTool, NotOurs, StepError
from placematd.firewall import Firewalls
from placematd.resources import Firewall

pytestmark = pytest.mark.integration

RULES = """
chain forward {
    type filter hook forward priority filter; policy accept;
    iifname { "net0", "net-1" } accept
}
chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr 10.0.0.0/24 ip daddr != 10.0.0.0/24 masquerade
    ip6 saddr fd00::/64 ip6 daddr != fd00::/64 masquerade
}
"""


def firewall(rules=RULES, name="placemat-c"):
    return Firewall(name=name, rules=rules)


def ruleset(net):
    return json.loads(net.sh("nft", "-j", "list", "ruleset"))["nftables"][1:]


def test_table_is_loaded_observed_and_deleted(private_net):
    firewalls = Firewalls()
    assert firewalls.observe("c") == []
    firewalls.create(firewall(), "c")
    chains = {item["chain"]["name"]: item["chain"] for item in ruleset(private_net) if "chain" in item}
    assert {name: chain["hook"] for name, chain in chains.items()} == {
        "forward": "forward",
        "postrouting": "postrouting",
    }
    assert sum("rule" in item for item in ruleset(private_net)) == 3
    assert firewalls.observe("c") == [firewall().mark("c")]
    assert firewalls.observe("other") == []
    firewalls.remove(firewall().mark("c"))
    assert ruleset(private_net) == []
    firewalls.remove(firewall().mark("c"))


def test_another_digest_replaces_the_whole_table(private_net):
    firewalls = Firewalls()
    firewalls.create(firewall(), "c")
    other = firewall("chain forward {\n}\n")
    firewalls.create(other, "c")
    assert [list(item) for item in ruleset(private_net)] == [["table"], ["chain"]]
    assert firewalls.observe("c") == [other.mark("c")]


def test_other_tables_are_left_alone(private_net):
    private_net.sh("nft", "-f", "-", input="table inet firewalld {\nchain filter_FORWARD {\n}\n}\ntable ip nat {\n}\n")
    before = ruleset(private_net)
    Firewalls().create(firewall(), "c")
    Firewalls().create(firewall(name="placemat-d"), "d")
    Firewalls().remove(firewall().mark("c"))
    Firewalls().remove(firewall(name="placemat-d").mark("d"))
    assert ruleset(private_net) == before


def test_mistake_in_the_rules_quotes_nft_and_leaves_nothing(private_net):
    with pytest.raises(StepError, match=r"(?s)load nftables table placemat-c: exit status 1: .*syntax error.*nonsense"):
        Firewalls().create(firewall("chain forward { nonsense here }"), "c")
    assert ruleset(private_net) == []


def test_mistake_in_the_new_rules_keeps_the_old_table(private_net):
    Firewalls().create(firewall(), "c")
    before = ruleset(private_net)
    with pytest.raises(StepError):
        Firewalls().create(firewall("chain forward { nonsense here }"), "c")
    assert ruleset(private_net) == before
    assert Firewalls().observe("c") == [firewall().mark("c")]


@pytest.mark.parametrize("comment", ["", 'comment "placemat other firewall placemat-c 0123"', 'comment "my own"'])
def test_a_table_that_is_not_ours_is_left_alone(private_net, comment):
    private_net.sh("nft", "-f", "-", input=f"table inet placemat-c {{ {comment}\n chain mine {{ }}\n}}\n")
    before = private_net.sh("nft", "list", "ruleset")
    with pytest.raises(NotOurs, match=r"placemat did not make it \(remove it: nft delete table inet placemat-c\)"):
        Firewalls().create(firewall(), "c")
    Firewalls().remove(firewall().mark("c"))
    assert Firewalls().observe("c") == []
    assert private_net.sh("nft", "list", "ruleset") == before


def test_a_table_of_this_name_in_another_family_is_no_obstacle(private_net):
    private_net.sh("nft", "add", "table", "ip", "placemat-c")
    Firewalls().create(firewall(), "c")
    Firewalls().remove(firewall().mark("c"))
    assert private_net.sh("nft", "list", "tables").split() == ["table", "ip", "placemat-c"]


def test_a_chain_with_a_comment_is_not_the_tables_mark(private_net):
    mark = firewall().mark("c")
    text = f'table inet placemat-c {{ chain mine {{ comment "{mark}"\n }}\n}}\n'
    private_net.sh("nft", "-f", "-", input=text)
    assert Firewalls().observe("c") == []


def test_longest_cluster_name(private_net):
    """nftables takes 127 bytes of comment; the mark holds the cluster's name twice."""
    cluster = "x" * 43
    resource = firewall(name=f"placemat-{cluster}")
    Firewalls().create(resource, cluster)
    assert Firewalls().observe(cluster) == [resource.mark(cluster)]
    cluster += "x"
    with pytest.raises(StepError, match=r"longer than 127 bytes \(shorten the cluster's name\)"):
        Firewalls().create(firewall(name=f"placemat-{cluster}"), cluster)


def test_without_nft_the_package_is_named(private_net, monkeypatch, tmp_path):
    private_net.sh("mount", "-t", "tmpfs", "none", "/usr/sbin")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingTool, match="apt-get install nftables"):
        Firewalls().observe("c")
