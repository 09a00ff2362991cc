"""From a cluster and the facts of a host to everything that must exist on it, in the order of creation.

`plan` is pure: the same cluster, host and settings give the same plan, in every process. The parts are decided in
`network`, `apps`, `volumes`, `console`, `bmc`, `nodes` and `qemu`.
"""

from dataclasses import dataclass, replace

from ..errors import NotFound
from ..facts import Host, Learned, Settings
from ..models import Cluster, Node
from ..resources import Key, Resource
from .apps import app_units
from .bmc import bmc_addresses, bmc_units
from .console import console_unit_of
from .network import bridges, firewall, namespaces, passages, sysctls
from .nodes import NodePlan, node_plan, node_unit, taps, tpm_unit
from .volumes import cached_images, node_volumes

__all__ = ["NodePlan", "Plan", "plan"]

NOTHING_LEARNED = Learned()


@dataclass(frozen=True)
class Plan:
    """What must exist on the host: `resources` in creation order, and a summary of each node, in the file's order.

    The plan without resources is the plan of a stopped cluster.
    """

    cluster: str
    resources: tuple[Resource, ...] = ()
    nodes: tuple[NodePlan, ...] = ()

    def find(self, key: Key) -> Resource | None:
        """The resource of that key, or None."""
        return next((resource for resource in self.resources if resource.key == key), None)

    def node(self, name: str) -> NodePlan:
        """The summary of a node; raises NotFound."""
        for node in self.nodes:
            if node.name == name:
                return node
        known = ", ".join(node.name for node in self.nodes) or "none"
        raise NotFound(f"no node {name} in cluster {self.cluster} (nodes: {known})")


def plan(cluster: Cluster, host: Host, settings: Settings, learned: Learned = NOTHING_LEARNED) -> Plan:
    """Decide everything. The cluster must be valid: what `validate` refuses may raise ValueError here.

    Raises PlacematError where the host or the settings cannot carry the cluster.
    """
    cluster = chosen(cluster, learned)
    addresses = bmc_addresses(cluster, learned.addresses)
    return Plan(
        cluster=cluster.name,
        resources=(
            *sysctls(cluster),
            *bridges(cluster, host, addresses),
            *firewall(cluster),
            *passages(cluster, host),
            *(
                part
                for netns in namespaces(cluster, host)
                for part in (netns, *app_units(cluster, netns.name, host, settings))
            ),
            *cached_images(cluster, host, settings),
            *(volume for node in cluster.nodes for volume in node_volumes(cluster, node, host, settings)),
            *taps(cluster, host),
            *(console_unit_of(cluster, node, settings) for node in cluster.nodes),
            *(tpm_unit(cluster, node, host, settings) for node in cluster.nodes if node.tpm),
            *bmc_units(cluster, host, settings, addresses),
            *(node_unit(cluster, node, host, settings) for node in cluster.nodes),
        ),
        nodes=tuple(node_plan(cluster, node, host, settings) for node in cluster.nodes),
    )


def chosen(cluster: Cluster, learned: Learned) -> Cluster:
    """The cluster with the firmware that was chosen through BMCs."""

    def with_choice(node: Node) -> Node:
        choice = learned.firmware.get(node.name)
        if not choice:
            return node
        return replace(node, uefi=choice.uefi, secure_boot=choice.secure_boot, tpm=choice.tpm)

    return replace(cluster, nodes=tuple(map(with_choice, cluster.nodes)))
