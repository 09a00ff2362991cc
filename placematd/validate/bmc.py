"""BMCs: their addresses, and the users that may log in to them."""

from collections.abc import Iterator
from dataclasses import replace

from ..bmc_address import address_problem
from ..bmc_settings import DEFAULT_NAME, DEFAULT_PASSWORD, effective
from ..credentials import FIRST_SLOT, LAST_SLOT, name_problem
from ..describe import Resource, quote, resources
from ..errors import Mistake
from ..models import BmcUser, Cluster, ClusterBmc, Node, NodeBmc
from .mistakes import At, inside

SLOTS = LAST_SLOT - FIRST_SLOT + 1

EXAMPLE = "kind: Cluster, bmc: {users: [{name: admin, role: Administrator, password-file: admin.password}]}"


def check(cluster: Cluster, complete: bool) -> Iterator[Mistake]:
    """Addresses that a BMC cannot have, users that cannot be, BMCs that anybody or nobody can administer."""
    for resource in resources(cluster):
        for at, user in inside(resource, BmcUser):
            yield from _user(at, user)
        yield from _users(resource)
    if complete:
        yield from _addresses(cluster)
        yield from _well_known(cluster)


def _user(at: At, user: BmcUser) -> Iterator[Mistake]:
    if at.readable("name") and (problem := name_problem(user.name)):
        yield at.error("name", f"name: {quote(user.name)} {problem}")
    if not at.readable("password", "password_file", "password_credential"):
        return
    if user.password_file and user.password_credential:
        message = 'both "password-file" and "password-credential" are written, expected one of them'
        yield at.error("password_credential", message)
    elif not user.password_file and not user.password_credential:
        hint = "a file of root's that holds it, such as password-file: admin.password"
        yield at.error("", 'missing key "password-file" or "password-credential"', hint)


def _users(resource: Resource) -> Iterator[Mistake]:
    """What a list of users must be as a whole."""
    sections: list[tuple[At, ClusterBmc | NodeBmc]] = [*inside(resource, ClusterBmc), *inside(resource, NodeBmc)]
    for at, bmc in sections:
        if len(bmc.users) > SLOTS:
            yield at.error("users", f"users: {len(bmc.users)} are more than the {SLOTS} that IPMI has room for")
        readable = all(user.readable("role") for user, _ in inside(resource, BmcUser))
        if bmc.users and readable and all(user.role != "Administrator" for user in bmc.users):
            message = "users: none of them is an Administrator, so that nobody can change accounts or settings"
            yield at.warning("users", message)


def _addresses(cluster: Cluster) -> Iterator[Mistake]:
    """The address of each node that has one in the file, in file order: the second that has it is at fault."""
    if not all(At(network).readable("type", "address", "addresses") for network in cluster.networks):
        return
    others, taken = replace(cluster, nodes=()), dict[str, str]()
    for node in cluster.nodes:
        address = node.bmc.address
        if not address:
            continue
        holder = taken.get(str(address))
        problem = address_problem(address, others, taken)
        if problem and holder != node.name:  # namesakes are a mistake of their own
            yield At(node, node.bmc, "bmc").error("address", f"address: {address}: {problem}")
        taken.setdefault(str(address), node.name)


def _well_known(cluster: Cluster) -> Iterator[Mistake]:
    """BMCs that can be reached and that no users are configured for."""
    reachable = any(network.type == "bmc" and network.all_addresses for network in cluster.networks)
    nodes = [node for node in cluster.nodes if reachable and _unconfigured(cluster, node)]
    if nodes:
        whose = f"its BMC and {len(nodes) - 1} more have" if len(nodes) > 1 else "its BMC has"
        message = f"{whose} the well-known user {DEFAULT_NAME} with password {DEFAULT_PASSWORD}"
        yield At(nodes[0]).warning("bmc", message, f"write {EXAMPLE}")


def _unconfigured(cluster: Cluster, node: Node) -> bool:
    written = [At(node, node.bmc), *(At(settings, settings.bmc) for settings in cluster.settings)]
    return not effective(cluster, node).users and all(at.readable("users") for at in written)
