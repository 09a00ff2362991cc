"""Which addresses BMCs can have: those of networks of type bmc that nobody else uses.

The cluster file may give one, and guests tell them; both are held against the same rules.
"""

from collections.abc import Mapping

from .models import Cluster, IPAddress, IPInterface


def address_problem(address: IPAddress, cluster: Cluster, taken: Mapping[str, str], node: str = "") -> str:
    """Why the BMC of `node` cannot have the address, "" if it can; the text goes after the address.

    `taken` maps addresses of other BMCs to their nodes, besides those that the cluster file gives.
    """
    bmc_addresses = [item for network in cluster.networks if network.type == "bmc" for item in network.all_addresses]
    if not bmc_addresses:
        return "the cluster has no network of type bmc with an address"
    subnets = [item.network for item in bmc_addresses if address in item.network]
    if not subnets:
        expected = ", ".join(str(item.network) for item in bmc_addresses)
        return f"not in a network of type bmc (expected one of {expected})"
    for subnet in subnets:
        if subnet.prefixlen < subnet.max_prefixlen - 1:
            if address == subnet.network_address:
                return f"this is the address of the network {subnet} itself"
            if address.version == 4 and address == subnet.broadcast_address:
                return f"this is the broadcast address of {subnet}"
    user = _user_of(address, cluster, node) or _node_text(taken.get(str(address)))
    return f"used by {user} already" if user else ""


def _user_of(address: IPAddress, cluster: Cluster, node: str) -> str:
    """Who in the cluster file has an address, except `node`, or ""."""
    users: list[tuple[str, tuple[IPInterface, ...]]] = [
        *((f"the bridge of network {network.name}", network.all_addresses) for network in cluster.networks),
        *(
            (f"network namespace {namespace.name}", interface.addresses)
            for namespace in cluster.namespaces
            for interface in namespace.interfaces
        ),
    ]
    given = (other.name for other in cluster.nodes if other.bmc.address == address and other.name != node)
    user = next((user for user, addresses in users if address in (item.ip for item in addresses)), "")
    return user or _node_text(next(given, None))


def _node_text(node: str | None) -> str:
    return f"the BMC of node {node}" if node else ""
