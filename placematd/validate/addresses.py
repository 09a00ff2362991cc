"""Addresses of networks and of the interfaces of namespaces."""

from collections.abc import Iterator
from typing import NamedTuple

from ..describe import subject
from ..errors import Mistake
from ..models import Cluster, IPInterface, NamespaceInterface, Network
from .mistakes import At, inside


class _Written(NamedTuple):
    """An address, and where it stands."""

    at: At
    field_name: str
    network: str
    address: IPInterface


def check(cluster: Cluster) -> Iterator[Mistake]:
    """What a network's type demands, and addresses that are malformed, taken twice or overlap."""
    for network in cluster.networks:
        yield from _by_type(network)
    written = [*_of_networks(cluster), *_of_namespaces(cluster)]
    for item in written:
        yield from _usable(item)
    yield from _taken_twice(written)
    yield from _overlapping(list(_of_networks(cluster)))


def _by_type(network: Network) -> Iterator[Mistake]:
    at = At(network)
    if not at.readable("type"):
        return
    if network.use_nat and network.type != "external":
        hint = f'remove it, or make the network "type: external" instead of "{network.type}"'
        yield at.error("use_nat", "use-nat: only external networks can have NAT", hint)
    if network.type == "internal":
        for name in ("address", "addresses"):
            if getattr(network, name):
                hint = 'remove it, or make the network "type: external"'
                yield at.error(name, f"{name}: an internal network has no address of its own", hint)
    elif not network.all_addresses and at.readable("address", "addresses"):
        article = "an" if network.type == "external" else "a"
        yield at.error(
            "type", f'missing key "address": {article} {network.type} network needs one', "such as 10.0.0.1/24"
        )


def _of_networks(cluster: Cluster) -> Iterator[_Written]:
    for network in cluster.networks:
        if network.address:
            yield _Written(At(network), "address", network.name, network.address)
        for index, address in enumerate(network.addresses):
            yield _Written(At(network), f"addresses.{index}", network.name, address)


def _of_namespaces(cluster: Cluster) -> Iterator[_Written]:
    for namespace in cluster.namespaces:
        for at, interface in inside(namespace, NamespaceInterface):
            for index, address in enumerate(interface.addresses):
                yield _Written(at, f"addresses.{index}", interface.network, address)


def _usable(item: _Written) -> Iterator[Mistake]:
    address, subnet = item.address, item.address.network
    key = item.field_name.partition(".")[0]
    reason = _unusable(address)
    if reason:
        yield item.at.error(item.field_name, f"{key}: {address} is {reason}")
    elif subnet.num_addresses > 2 and address.version == 4 and address.ip == subnet.broadcast_address:
        yield item.at.error(item.field_name, f"{key}: {address} is the broadcast address of {subnet}")
    elif subnet.num_addresses > 2 and address.ip == subnet.network_address:
        hint = f"probably meant: {subnet.network_address + 1}/{subnet.prefixlen}"
        what = "the network address" if address.version == 4 else "the subnet-router anycast address"
        yield item.at.warning(item.field_name, f"{key}: {address} is {what} of {subnet}", hint)


def _unusable(address: IPInterface) -> str:
    if address.ip.is_unspecified:
        return "the unspecified address"
    if address.ip.is_loopback:
        return "a loopback address"
    return "a multicast address" if address.ip.is_multicast else ""


def _taken_twice(written: list[_Written]) -> Iterator[Mistake]:
    """The same address twice on one network; on different networks only a warning, and none for host addresses.

    A router's loopback or an anycast address is a /32 or /128 that several may have.
    """
    on_network: dict[tuple[str, object], _Written] = {}
    anywhere: dict[object, _Written] = {}
    for item in written:
        ip, first = item.address.ip, on_network.setdefault((item.network, item.address.ip), item)
        other = anywhere.setdefault(ip, item)
        key = item.field_name.partition(".")[0]
        if _namesakes(first, item) or _namesakes(other, item):
            continue
        if first is not item:
            message = f"{key}: {ip} is taken already on network {item.network}"
            yield item.at.error(item.field_name, message, f"by {_owner(first)}")
        elif other is not item and item.address.network.prefixlen < ip.max_prefixlen and not ip.is_link_local:
            message = f"{key}: {ip} is also the address of {_owner(other)} on network {other.network}"
            yield item.at.warning(item.field_name, message)


def _namesakes(first: _Written, second: _Written) -> bool:
    """Whether they are in two resources of one name, which is a mistake of its own and explains the others."""
    one, other = first.at.resource, second.at.resource
    return one is not other and subject(one) == subject(other)


def _owner(item: _Written) -> str:
    return " ".join(filter(None, (subject(item.at.resource), item.at.label)))


class _Range(NamedTuple):
    """The addresses of a subnet as numbers."""

    version: int
    first: int
    last: int
    item: _Written


def _overlapping(written: list[_Written]) -> Iterator[Mistake]:
    """Subnets of different networks that have addresses in common. Link-local ones are on every network anyway.

    Sorted by first address, a subnet overlaps with an earlier one if it begins before the furthest end so far.
    """
    ranges = [
        _Range(subnet.version, int(subnet.network_address), int(subnet.broadcast_address), item)
        for item in written
        if not (subnet := item.address.network).is_link_local and not _unusable(item.address)
    ]
    furthest: _Range | None = None
    for this in sorted(ranges, key=lambda item: (item.version, item.first, -item.last)):
        if furthest is None or furthest.version != this.version or furthest.last < this.first:
            furthest = this
            continue
        if furthest.item.network != this.item.network:
            first, second = sorted((furthest.item, this.item), key=lambda item: item.at.marks.of(item.field_name))
            yield _overlap(first, second)
        furthest = max(furthest, this, key=lambda item: item.last)


def _overlap(first: _Written, second: _Written) -> Mistake:
    key = second.field_name.partition(".")[0]
    message = f"{key}: {second.address.network} overlaps with {first.address.network} of {subject(first.at.resource)}"
    return second.at.error(second.field_name, message)
