"""The cluster's nftables table: loaded in one transaction by nft(8), removed by deleting the table.

The mark is the table's comment. nft's JSON output has none (nftables 1.0.6), so it is read from the text output.
"""

import json
import re
from collections.abc import Sequence

from .errors import NotOurs, StepError
from .names import OwnerMark, table_name
from .resources import Firewall, Kind
from .run import run

FAMILY = "inet"
NFT_SECONDS = 30
MARK_BYTES = 127
"""Longest comment of a table (NFTNL_UDATA_COMMENT_MAXLEN in libnftnl's udata.h, without the final NUL)."""


class Firewalls:
    """Adapter for the table in the network namespace of the calling thread. See `adapter.Adapter`."""

    kind: Kind = "firewall"

    def observe(self, cluster: str) -> Sequence[OwnerMark]:
        """The mark of the cluster's table, if there is one."""
        found = _mark_of(table_name(cluster)) if _exists(table_name(cluster)) else None
        return [found] if found and found.cluster == cluster else []

    def create(self, resource: Firewall, cluster: str) -> None:
        """Load the table; one with our mark is replaced in the same transaction, so that no packet sees a gap."""
        mark = resource.mark(cluster)
        step = f"load nftables table {resource.name}"
        if len(str(mark)) > MARK_BYTES:
            raise StepError(step, f'its mark "{mark}" is longer than {MARK_BYTES} bytes', "shorten the cluster's name")
        if _exists(resource.name):
            found = _mark_of(resource.name)
            if found is None or found.cluster != cluster:
                hint = f"remove it: nft delete table {FAMILY} {resource.name}"
                raise NotOurs(step, "a table of this name exists and placemat did not make it", hint)
        try:
            run(["nft", "-f", "-"], input=_transaction(resource, mark), timeout_seconds=NFT_SECONDS)
        except StepError as error:
            raise StepError(step, error.answer, error.hint) from error

    def remove(self, mark: OwnerMark) -> None:
        """Delete the table if it carries this mark's cluster and name."""
        if not _exists(mark.name):
            return
        found = _mark_of(mark.name)
        if found and (found.cluster, found.name) == (mark.cluster, mark.name):
            run(["nft", "delete", "table", FAMILY, mark.name], timeout_seconds=NFT_SECONDS)


def _transaction(resource: Firewall, mark: OwnerMark) -> str:
    """Adding an empty table first makes deleting it work whether or not it exists."""
    name = f"{FAMILY} {resource.name}"
    return f'add table {name}\ndelete table {name}\ntable {name} {{\ncomment "{mark}"\n{resource.rules}\n}}\n'


def _exists(name: str) -> bool:
    output = run(["nft", "-j", "list", "tables", FAMILY], timeout_seconds=NFT_SECONDS)
    tables = [item["table"] for item in json.loads(output)["nftables"] if "table" in item]
    return any(table["name"] == name for table in tables)


def _mark_of(name: str) -> OwnerMark | None:
    text = run(["nft", "--terse", "list", "table", FAMILY, name], timeout_seconds=NFT_SECONDS)
    comment = re.search(r'^table [^{]*\{\s*comment "([^"]*)"', text)
    return OwnerMark.parse(comment[1]) if comment else None
