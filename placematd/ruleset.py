"""What a host's firewall does with forwarded packets, read from the listings of nft(8) and iptables-legacy-save(8).

An accept in our own table ends nothing but that table: a packet is dropped as soon as one base chain at the forward
hook drops it (nft(8), VERDICT STATEMENTS). So where somebody else's chain may drop or reject, what our networks send
must be accepted in that very chain. Pure: text in, records out.
"""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from .facts import HostChain
from .names import OwnerMark

DOCKER_USER = "DOCKER-USER"
"""The chain that Docker leaves to others: it jumps there before its own rules and never changes it."""

FAMILIES = frozenset({"ip", "ip6", "inet"})
CLOSING = frozenset({"drop", "reject"})
CLOSING_TARGETS = frozenset({"DROP", "REJECT"})


@dataclass(frozen=True)
class Rule:
    """One rule: whose it is, whether it may drop or reject, and the chains it leads to.

    `looks_back` where it drops what comes from addresses that the host has no route to (rpfilter). `reference` names
    it to who wants to delete it: nft's handle, or the line of iptables-save.
    """

    reference: str
    mark: OwnerMark | None = None
    closes: bool = False
    looks_back: bool = False
    leads_to: frozenset[str] = frozenset()


@dataclass
class Chain:
    """One chain; `hook` is where packets enter it ("" for a chain that others jump to), `drops` its policy."""

    hook: str = ""
    drops: bool = False
    rules: list[Rule] = field(default_factory=list)


@dataclass(frozen=True)
class Table:
    """One table; `family` as in `facts.HostChain`."""

    family: str
    name: str
    chains: dict[str, Chain] = field(default_factory=dict)


# -- deciding ---------------------------------------------------------------------------------------------------------


def closed_chains(table: Table) -> Iterator[HostChain]:
    """Where accept rules are needed.

    In base chains that may drop what is forwarded, or in Docker's chain for others. And in those that check the way
    back: with br_netfilter they see the frames inside a network, to whose addresses the host may have no route at all.
    """
    for name, chain in table.chains.items():
        if chain.hook == "forward" and any(link.drops or _any_closes(link) for link in _reachable(table, name)):
            first = next((rule for rule in chain.rules if rule.mark is None), None)
            docker = first is not None and first.leads_to == {DOCKER_USER} and not first.closes
            yield HostChain(table.family, table.name, DOCKER_USER if docker else name)
        if chain.hook == "prerouting" and any(
            rule.looks_back for link in _reachable(table, name) for rule in link.rules
        ):
            yield HostChain(table.family, table.name, name, "prerouting")


def _any_closes(chain: Chain) -> bool:
    return any(rule.closes for rule in chain.rules)


def _reachable(table: Table, base: str) -> list[Chain]:
    """The chain and those that it leads to."""
    names = [base]
    for name in names:  # which grows
        chain = table.chains.get(name, Chain())
        names += sorted({target for rule in chain.rules for target in rule.leads_to}.difference(names))
    return [table.chains.get(name, Chain()) for name in names]


def marked_rules(table: Table) -> Iterator[tuple[str, Rule]]:
    """Rules that carry a mark, each with the chain that it is in."""
    for name, chain in table.chains.items():
        yield from ((name, rule) for rule in chain.rules if rule.mark)


# -- nftables ---------------------------------------------------------------------------------------------------------


def nft_tables(text: str) -> list[Table]:
    """The tables that can see forwarded packets, from `nft --json --terse list ruleset` (libnftables-json(5))."""
    tables: dict[tuple[str, str], Table] = {}
    for item in json.loads(text)["nftables"]:
        kind, content = next(iter(item.items()))
        if kind == "table" and content["family"] in FAMILIES:
            tables[content["family"], content["name"]] = Table(content["family"], content["name"])
        table = tables.get((content.get("family", ""), content.get("table", "")))
        if table is None:
            continue
        if kind == "chain":
            table.chains[content["name"]] = Chain(
                hook=content.get("hook", "") if content.get("type") == "filter" else "",
                drops=content.get("policy") == "drop",
            )
        elif kind == "rule":
            table.chains[content["chain"]].rules.append(_nft_rule(content))
    return list(tables.values())


def _nft_rule(content: Mapping[str, Any]) -> Rule:
    words = list(_statements(content["expr"]))
    closes = any(key in CLOSING or (key == "xt" and _closes_by_target(value)) for key, value in words)
    unknown = any(key == "vmap" and isinstance(value["data"], str) for key, value in words)  # --terse omits the map
    return Rule(
        reference=str(content["handle"]),
        mark=OwnerMark.parse(content.get("comment", "")),
        closes=closes or unknown,
        looks_back=closes
        and any(key == "fib" or (key == "xt" and _extension(value) == "rpfilter") for key, value in words),
        leads_to=frozenset(value["target"] for key, value in words if key in ("jump", "goto")),
    )


def _closes_by_target(extension: Any) -> bool:
    """Of an extension of iptables', what is known is its name; some versions of nft do not tell even that."""
    return not isinstance(extension, dict) or _extension(extension) in CLOSING_TARGETS


def _extension(extension: Any) -> str:
    return str(extension.get("name", "")) if isinstance(extension, dict) else ""


def _statements(expression: Any) -> Iterator[tuple[str, Any]]:
    """All keys in a JSON value, each with what is below it."""
    if isinstance(expression, dict):
        yield from expression.items()
        expression = list(expression.values())
    if isinstance(expression, list):
        for item in expression:
            yield from _statements(item)


# -- iptables without nftables ----------------------------------------------------------------------------------------


def legacy_table(program: str, text: str) -> Table:
    """The filter table of `program` ("iptables-legacy"), from the output of `PROGRAM-save -t filter`."""
    table = Table(program, "filter")
    for line in text.splitlines():
        if match := re.match(r":(\S+) (\S+)", line):
            table.chains[match[1]] = Chain("forward" if match[1] == "FORWARD" else "", drops=match[2] == "DROP")
        elif line.startswith("-A "):
            chain, rule = _legacy_rule(line)
            table.chains[chain].rules.append(rule)
    return table


def _legacy_rule(line: str) -> tuple[str, Rule]:
    words = shlex.split(line)
    options = dict(pairwise(words))
    target = options.get("-j") or options.get("-g", "")
    mark = OwnerMark.parse(options.get("--comment", ""))
    return words[1], Rule(line, mark, closes=target in CLOSING_TARGETS, leads_to=frozenset({target} - {""}))
