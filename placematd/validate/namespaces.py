"""Routes of namespaces."""

import re
from collections.abc import Iterator
from ipaddress import ip_network

from ..describe import quote
from ..errors import Mistake
from ..models import Cluster, IPNetwork, NetworkNamespace, Route
from .mistakes import At, inside, line_of


def check(cluster: Cluster) -> Iterator[Mistake]:
    """Routes that the kernel would refuse."""
    for namespace in cluster.namespaces:
        yield from _routes(namespace)


def _routes(namespace: NetworkNamespace) -> Iterator[Mistake]:
    seen: dict[object, At] = {}
    for at, route in inside(namespace, Route):
        if not at.readable("to", "via"):
            continue
        destination = _destination(route)
        if destination is None:
            yield at.error("to", f'to: expected ADDRESS/PREFIX or "default", found {quote(route.to)}', _meant(route.to))
            continue
        if destination.version != route.via.version:
            yield at.error("via", f"via: expected an IPv{destination.version} address, found {route.via}")
        else:
            yield from _gateway(at, route, namespace)
        first = seen.setdefault(destination, at)
        if first is not at:
            where = line_of(first.marks.of("to"), at.marks.of("to"))
            yield at.error("to", f"to: there are two routes to {route.to}", f"the first is in {where}")


def _gateway(at: At, route: Route, namespace: NetworkNamespace) -> Iterator[Mistake]:
    """The kernel refuses a gateway that is not on a link: "Nexthop has invalid gateway"."""
    interfaces = namespace.interfaces
    if not all(At(namespace, interface).readable("addresses") for interface in interfaces):
        return
    subnets = [address.network for interface in interfaces for address in interface.addresses]
    if not any(route.via in subnet for subnet in subnets if subnet.version == route.via.version):
        known = ", ".join(str(subnet) for subnet in subnets) or "none"
        yield at.error("via", f"via: {route.via} is in no subnet of the namespace's interfaces", f"they are {known}")


def _destination(route: Route) -> IPNetwork | None:
    """What a route leads to; None where that is not written as ADDRESS/PREFIX, with no address bits past the prefix."""
    if route.to == "default":
        return ip_network("0.0.0.0/0" if route.via.version == 4 else "::/0")
    try:
        return ip_network(route.to) if re.fullmatch("[^/]+/[0-9]+", route.to) else None
    except ValueError:
        return None


def _meant(text: str) -> str:
    try:
        return f'did you mean "{ip_network(text, strict=False)}"?'
    except ValueError:
        return ""
