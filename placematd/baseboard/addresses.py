"""The addresses of BMCs, as guests told them and as the host keeps them: RUN/CLUSTER/address/NODE holds a node's.

A guest tells its address once, so the next placematd has to find it. It checks again what it finds, since the cluster
file may have changed. Where the cluster file gives the address, what a guest says counts for nothing.
"""

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from ..atomic import replacing
from ..errors import PlacematError
from ..events import Events
from ..guest import check_address, parse_address
from ..models import Cluster
from ..pace import Allowance

REFUSALS_AT_ONCE = 5
REFUSALS_PER_SECOND = 1 / 60
"""How many refused addresses of a node reach the journal: a guest must not be able to fill it."""


class BmcAddresses:
    """The addresses of one cluster; `of` maps nodes to them. To be called in the event loop."""

    def __init__(self, directory: Path, cluster: str, events: Events) -> None:
        self.of: dict[str, str] = {}
        self._directory, self._cluster, self._events = directory, cluster, events
        self._refusals: dict[str, Allowance] = {}

    def hear(self, cluster: Cluster, node: str, line: bytes) -> bool:
        """Take a line that a guest wrote; returns whether the BMC's address changed."""
        before = self.of.get(node)
        try:
            address = self._checked(cluster, node, line)
            if address == given(cluster, node):
                return False
        except (ValueError, PlacematError) as error:
            allowance = self._refusals.setdefault(node, Allowance(REFUSALS_AT_ONCE, REFUSALS_PER_SECOND))
            if allowance.take():
                self._events.publish("warning", f"node {node}: refused BMC address: {error}", node=node)
            return False
        try:
            self._directory.mkdir(exist_ok=True)
            with replacing(self._directory / node) as part:
                part.write_text(address + "\n")
        except OSError as error:
            what = f"keep the BMC address of node {node} in {self._directory}: {error.strerror}"
            self._events.publish("warning", f"{what}; the next placematd will not know it", node=node)
        self._take(node, address)
        return address != before

    def adopt(self, cluster: Cluster, nodes: Collection[str]) -> None:
        """Know `nodes` alone, and of what is kept what still fits the cluster."""
        for node in self.of.keys() | self._kept():
            if node not in nodes or given(cluster, node):
                self._forget(node)
        for node in [node for node in nodes if node in self._kept() | self.of.keys()]:
            before = self.of.pop(node, None)
            try:
                address = before or (self._directory / node).read_text().strip()
                address = self._checked(cluster, node, address.encode())
            except (ValueError, OSError, PlacematError) as error:
                self._events.publish("warning", f"node {node}: BMC address forgotten: {error}", node=node)
                self._forget(node)
                continue
            if before:
                self.of[node] = before
            else:
                self._take(node, address)

    def clear(self) -> None:
        """Forget all, with what is kept."""
        for node in self.of.keys() | self._kept():
            self._forget(node)
        with suppress(OSError):  # there is none
            self._directory.rmdir()

    def _checked(self, cluster: Cluster, node: str, line: bytes) -> str:
        address = parse_address(line)
        written = given(cluster, node)
        if written and str(address) != written:
            raise PlacematError(f"{address}: the cluster file gives it {written}")
        check_address(address, cluster, {address: name for name, address in self.of.items() if name != node}, node)
        return str(address)

    def _take(self, node: str, address: str) -> None:
        self.of[node] = address
        message = f"cluster {self._cluster}: node {node}: BMC address {address}"
        self._events.publish("bmc", message, node=node, address=address)

    def _forget(self, node: str) -> None:
        self.of.pop(node, None)
        (self._directory / node).unlink(missing_ok=True)

    def _kept(self) -> set[str]:
        """The nodes that an address is kept of, and what a killed writer left."""
        return {path.name for path in self._directory.iterdir()} if self._directory.is_dir() else set()


def given(cluster: Cluster, node: str) -> str:
    """The address that the cluster file gives a node's BMC, or ""."""
    return next((str(item.bmc.address) for item in cluster.nodes if item.name == node and item.bmc.address), "")
