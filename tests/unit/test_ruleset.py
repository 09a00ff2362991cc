"""Which chains of somebody else's firewall need accept rules: listings as nft and iptables print them."""

import json
from typing import Any

import pytest

from placematd.facts import HostChain
from placematd.ruleset import Table, closed_chains, legacy_table, marked_rules, nft_tables

MARK = "placemat c passage ip:filter:FORWARD 0123456789ab"


def chain(name: str, hook: str = "", policy: str = "accept", family: str = "ip", kind: str = "filter") -> Any:
    base = {"type": kind, "hook": hook, "prio": 0, "policy": policy} if hook else {}
    return {"chain": {"family": family, "table": "filter", "name": name, "handle": 1, **base}}


def rule(within: str, *expression: Any, family: str = "ip", comment: str = "") -> Any:
    extra = {"comment": comment} if comment else {}
    return {
        "rule": {"family": family, "table": "filter", "chain": within, "handle": 7, "expr": list(expression), **extra}
    }


def listing(*items: Any, family: str = "ip") -> str:
    table = {"table": {"family": family, "name": "filter", "handle": 1}}
    return json.dumps({"nftables": [{"metainfo": {"version": "1.0.6"}}, table, *items]})


def closed(text: str) -> list[str]:
    return [found.chain for table in nft_tables(text) for found in closed_chains(table)]


def jump(target: str) -> Any:
    return {"jump": {"target": target}}


COUNTER = {"counter": {"packets": 0, "bytes": 0}}
ACCEPT, DROP, REJECT = {"accept": None}, {"drop": None}, {"reject": None}


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([], []),
        ([chain("FORWARD", "forward")], []),
        ([chain("FORWARD", "forward"), rule("FORWARD", COUNTER, ACCEPT)], []),
        ([chain("FORWARD", "forward", "drop")], ["FORWARD"]),
        ([chain("INPUT", "input", "drop")], []),
        ([chain("lonely"), rule("lonely", DROP)], []),
        ([chain("FORWARD", "forward"), rule("FORWARD", COUNTER, DROP)], ["FORWARD"]),
        ([chain("FORWARD", "forward"), rule("FORWARD", REJECT)], ["FORWARD"]),
        ([chain("FORWARD", "forward"), rule("FORWARD", {"reject": {"type": "icmpx", "expr": "x"}})], ["FORWARD"]),
        ([chain("FORWARD", "forward"), rule("FORWARD", {"xt": {"type": "target", "name": "REJECT"}})], ["FORWARD"]),
        ([chain("FORWARD", "forward"), rule("FORWARD", {"xt": {"type": "match", "name": "conntrack"}}, ACCEPT)], []),
        ([chain("FORWARD", "forward"), rule("FORWARD", {"xt": None})], ["FORWARD"]),
        ([chain("FORWARD", "forward"), chain("a"), rule("FORWARD", jump("a"))], []),
        ([chain("FORWARD", "forward"), chain("a"), rule("FORWARD", jump("a")), rule("a", DROP)], ["FORWARD"]),
        (
            [
                chain("FORWARD", "forward"),
                chain("a"),
                chain("b"),
                rule("FORWARD", {"goto": {"target": "a"}}),
                rule("a", jump("b")),
                rule("b", jump("a")),
                rule("b", DROP),
            ],
            ["FORWARD"],
        ),
        (
            [
                chain("FORWARD", "forward"),
                chain("a"),
                rule("FORWARD", {"vmap": {"key": {}, "data": {"set": [["eth0", jump("a")]]}}}),
                rule("a", DROP),
            ],
            ["FORWARD"],
        ),
        ([chain("FORWARD", "forward"), rule("FORWARD", {"vmap": {"key": {}, "data": "@verdicts"}})], ["FORWARD"]),
        (
            [chain("FORWARD", "forward", "drop"), chain("DOCKER-USER"), rule("FORWARD", COUNTER, jump("DOCKER-USER"))],
            ["DOCKER-USER"],
        ),
        (
            [
                chain("FORWARD", "forward", "drop"),
                chain("DOCKER-USER"),
                rule("FORWARD", {"match": {}}, DROP),
                rule("FORWARD", COUNTER, jump("DOCKER-USER")),
            ],
            ["FORWARD"],
        ),
        (
            [
                chain("FORWARD", "forward", "drop"),
                chain("DOCKER-USER"),
                rule("FORWARD", ACCEPT, comment=MARK),
                rule("FORWARD", COUNTER, jump("DOCKER-USER")),
            ],
            ["DOCKER-USER"],
        ),
    ],
)
def test_closed_are_chains_that_may_drop_what_is_forwarded(items: list[Any], expected: list[str]) -> None:
    assert closed(listing(*items)) == expected


FIB = {"match": {"op": "==", "left": {"fib": {"result": "oif", "flags": ["saddr", "iif"]}}, "right": False}}
RPFILTER = {"xt": {"type": "match", "name": "rpfilter"}}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ((FIB, DROP), ["PREROUTING"]),
        ((RPFILTER, COUNTER, DROP), ["PREROUTING"]),
        ((FIB, ACCEPT), []),
        (({"match": {}}, DROP), []),
    ],
)
def test_chains_that_ask_for_the_way_back_count_too(expression: tuple[Any, ...], expected: list[str]) -> None:
    text = listing(chain("PREROUTING", "prerouting"), chain("INPUT", "input"), rule("PREROUTING", *expression))
    found = [found for table in nft_tables(text) for found in closed_chains(table)]
    assert found == [HostChain("ip", "filter", name, "prerouting") for name in expected]


@pytest.mark.parametrize("family", ["bridge", "arp", "netdev"])
def test_tables_of_other_layers_do_not_count(family: str) -> None:
    text = listing(chain("FORWARD", "forward", "drop", family=family), family=family)
    assert nft_tables(text) == []


def test_each_base_chain_counts_since_a_packet_must_pass_all() -> None:
    early, late = chain("early", "forward", "drop", family="inet"), chain("late", "forward", "drop", family="inet")
    assert closed(listing(early, late, family="inet")) == ["early", "late"]


def test_marked_rules_are_found_with_chain_and_handle() -> None:
    text = listing(
        chain("FORWARD", "forward"),
        rule("FORWARD", ACCEPT, comment=MARK),
        rule("FORWARD", ACCEPT, comment="placemat likes this"),
        rule("FORWARD", ACCEPT),
    )
    (table,) = nft_tables(text)
    ((name, found),) = marked_rules(table)
    assert (name, found.reference, str(found.mark)) == ("FORWARD", "7", MARK)


LEGACY = """# Generated by iptables-save v1.8.9
*filter
:INPUT DROP [0:0]
:FORWARD {policy} [12:345]
:OUTPUT ACCEPT [0:0]
:DOCKER-USER - [0:0]
:other - [0:0]
{rules}
COMMIT
"""


def legacy(*rules: str, policy: str = "ACCEPT") -> Table:
    return legacy_table("iptables-legacy", LEGACY.format(policy=policy, rules="\n".join(rules)))


@pytest.mark.parametrize(
    ("rules", "policy", "expected"),
    [
        ([], "ACCEPT", []),
        ([], "DROP", ["FORWARD"]),
        (["-A INPUT -j DROP"], "ACCEPT", []),
        (["-A FORWARD -i eth0 -j DROP"], "ACCEPT", ["FORWARD"]),
        (
            ["-A FORWARD -i eth0 -j other", "-A other -j REJECT --reject-with icmp-port-unreachable"],
            "ACCEPT",
            ["FORWARD"],
        ),
        (["-A FORWARD -g other", "-A other -j REJECT"], "ACCEPT", ["FORWARD"]),
        (['-A FORWARD -j LOG --log-prefix "will DROP -j DROP"'], "ACCEPT", []),
        (["-A FORWARD -m comment --comment only"], "ACCEPT", []),
        (["-A FORWARD -j DOCKER-USER"], "DROP", ["DOCKER-USER"]),
        (["-A FORWARD -i eth0 -j ACCEPT", "-A FORWARD -j DOCKER-USER"], "DROP", ["FORWARD"]),
    ],
)
def test_iptables_without_nftables(rules: list[str], policy: str, expected: list[str]) -> None:
    assert list(closed_chains(legacy(*rules, policy=policy))) == [
        HostChain("iptables-legacy", "filter", name) for name in expected
    ]


def test_marked_rules_of_iptables_are_found_with_their_line() -> None:
    line = f'-A FORWARD -i net0 -m comment --comment "{MARK}" -j ACCEPT'
    ((name, found),) = marked_rules(legacy(line, "-A FORWARD -m comment --comment mine -j ACCEPT"))
    assert (name, found.reference, str(found.mark)) == ("FORWARD", line, MARK)
