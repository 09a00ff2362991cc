"""Accept rules in chains of somebody else's firewall (Docker's, firewalld's), at the head, found again by their mark.

The mark is each rule's comment. Only rules that carry it are ever deleted, and nothing else is touched. A firewall that
is loaded anew loses them; then nothing is observed, and a reload of the cluster puts them back.
"""

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from .errors import MissingTool, StepError
from .facts import HostChain
from .names import OwnerMark
from .resources import Kind, Passage
from .ruleset import Rule, Table, closed_chains, legacy_table, marked_rules, nft_tables
from .run import find, run

SECONDS = 30
LEGACY = {"iptables-legacy": "ip_tables_names", "ip6tables-legacy": "ip6_tables_names"}
"""Programs of iptables without nftables, and the file in /proc/net that lists the tables they have loaded."""

REFUSED = "Operation not permitted"

Found = tuple[HostChain, Rule]

log = logging.getLogger("placematd")


class Passages:
    """Adapter for the rules in the network namespace of the calling thread. See `adapter.Adapter`."""

    kind: Kind = "passage"

    def observe(self, cluster: str) -> Sequence[OwnerMark]:
        """One mark for each chain that has rules of the cluster."""
        marks = [rule.mark for _, rule in _marked(tables()) if rule.mark and rule.mark.cluster == cluster]
        return list({mark.name: mark for mark in marks if mark.kind == self.kind}.values())

    def create(self, resource: Passage, cluster: str) -> None:
        """Put the rules at the head of the chain, and take older ones of ours away, in one transaction.

        A table that another process owns alone (firewalld 2.1 and later, see `flags owner` in nft(8)) cannot be changed
        by us: this is told, and no error, since the cluster's networks work without.
        """
        mark = resource.mark(cluster)
        chain = HostChain(resource.family, resource.table, resource.chain, resource.hook)
        older = [found for found in _marked(tables()) if _same(found[1].mark, mark)]
        try:
            _backend(chain).change(older, chain, resource.interfaces, mark)
        except StepError as error:
            if REFUSED not in error.answer:
                raise StepError(f"let {', '.join(resource.interfaces)} pass {_text(chain)}", error.answer) from error
            log.warning("%s", refusal(chain, resource.interfaces))

    def remove(self, mark: OwnerMark) -> None:
        """Delete the rules that carry this mark's cluster and name."""
        found = [found for found in _marked(tables()) if _same(found[1].mark, mark)]
        if found:
            try:
                _backend(found[0][0]).change(found)
            except StepError:
                if any(_same(rule.mark, mark) for _, rule in _marked(tables())):  # else it went away meanwhile
                    raise


def observe_closed_chains() -> tuple[HostChain, ...]:
    """The chains in which accept rules are needed. Raises StepError."""
    return tuple(chain for table in tables() for chain in closed_chains(table))


def refusal(chain: HostChain, interfaces: Iterable[str]) -> str:
    """What to tell where a table belongs to another process alone."""
    commands = " ".join(f"--add-interface={interface}" for interface in interfaces)
    return (
        f"{_text(chain)} may drop what the cluster forwards, and its owner lets nobody change it (with firewalld: "
        f"NftablesTableOwner=no in firewalld.conf, or firewall-cmd --zone=trusted {commands})"
    )


# -- the programs -----------------------------------------------------------------------------------------------------


class Backend(Protocol):
    """One way to change a chain."""

    def change(
        self,
        old: Sequence[Found],
        chain: HostChain | None = None,
        interfaces: Sequence[str] = (),
        mark: OwnerMark | None = None,
    ) -> None:
        """Delete the rules `old` and put new ones at the head of `chain`, all or nothing."""
        ...


class Nft:
    """nft(8). In JSON, since a chain made by iptables may have a name that nft's language does not allow.

    The rules have the form that iptables gives its own, so that it goes on listing the chain.
    """

    def change(
        self,
        old: Sequence[Found],
        chain: HostChain | None = None,
        interfaces: Sequence[str] = (),
        mark: OwnerMark | None = None,
    ) -> None:
        """See `Backend`."""
        commands = [{"delete": {"rule": {**_address(place), "handle": int(rule.reference)}}} for place, rule in old]
        if chain:
            for key, interface in _matches(chain, interfaces):
                match = {"match": {"op": "==", "left": {"meta": {"key": f"{key}ifname"}}, "right": interface}}
                expression = [match, {"counter": None}, {"accept": None}]
                commands.append({"insert": {"rule": {**_address(chain), "expr": expression, "comment": str(mark)}}})
        text = json.dumps({"nftables": commands})
        run(["nft", "--json", "--file", "-"], input=text, timeout_seconds=SECONDS)


def _address(chain: HostChain) -> dict[str, object]:
    return {"family": chain.family, "table": chain.table, "chain": chain.chain}


class Legacy:
    """iptables-legacy(8): where the host's firewall is made with it, nftables does not see it."""

    def __init__(self, program: str) -> None:
        self._program = program

    def change(
        self,
        old: Sequence[Found],
        chain: HostChain | None = None,
        interfaces: Sequence[str] = (),
        mark: OwnerMark | None = None,
    ) -> None:
        """See `Backend`."""
        lines = [f"-D{rule.reference.removeprefix('-A')}" for _, rule in old]
        if chain:
            rule = f'-m comment --comment "{mark}" -j ACCEPT'
            lines += [f"-I {chain.chain} -{key} {interface} {rule}" for key, interface in _matches(chain, interfaces)]
        text = "\n".join(["*filter", *lines, "COMMIT", ""])
        run([f"{self._program}-restore", "--noflush", "--wait", str(SECONDS)], input=text, timeout_seconds=2 * SECONDS)


def _backend(chain: HostChain) -> Backend:
    return Legacy(chain.family) if chain.family in LEGACY else Nft()


def _matches(chain: HostChain, interfaces: Sequence[str]) -> Iterator[tuple[str, str]]:
    """("i", interface) and ("o", interface) of each, the last first: every rule is put before those already there."""
    for interface in reversed(interfaces):
        if chain.hook == "forward":
            yield "o", interface
        yield "i", interface


# -- what is there ----------------------------------------------------------------------------------------------------


def tables(proc: Path = Path("/proc/thread-self/net")) -> list[Table]:
    """All tables that can see forwarded packets, but for iptables-legacy's where that is not installed."""
    found = nft_tables(run(["nft", "--json", "--terse", "list", "ruleset"], timeout_seconds=SECONDS))
    for program, names in LEGACY.items():
        if _has_filter(proc / names) and _installed(program):
            text = run([f"{program}-save", "-t", "filter"], timeout_seconds=SECONDS)
            found.append(legacy_table(program, text))
    return found


def _has_filter(path: Path) -> bool:
    """Whether the table exists: asking iptables-legacy would make it, and the kernel keeps it then."""
    try:
        return "filter" in path.read_text().split()
    except OSError:
        return False


def _installed(program: str) -> bool:
    try:
        find(f"{program}-save")
    except MissingTool:
        return False
    return True


def _marked(found: Iterable[Table]) -> Iterator[Found]:
    for table in found:
        for chain, rule in marked_rules(table):
            yield HostChain(table.family, table.name, chain), rule


def _same(found: OwnerMark | None, mark: OwnerMark) -> bool:
    return found is not None and (found.cluster, found.kind, found.name) == (mark.cluster, mark.kind, mark.name)


def _text(chain: HostChain) -> str:
    return f"chain {chain.chain} of table {chain.table} ({chain.family})"
