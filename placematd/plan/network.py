"""What a cluster needs of the host's network: sysctls, bridges, the firewall table, network namespaces."""

from collections.abc import Iterator, Mapping
from ipaddress import IPv4Interface, collapse_addresses

from ..facts import Host
from ..models import Cluster, IPAddress, IPInterface, NamespaceInterface, Network, NetworkNamespace
from ..names import mac_address, passage_name, table_name, veth_name
from ..resources import Bridge, Firewall, Key, Netns, Passage, Sysctl, Veth

FORWARDING = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}
"""IP version -> the sysctl that makes a network stack a router."""

ROUTER_SYSCTLS = (
    (FORWARDING[4], "1"),
    (FORWARDING[6], "1"),
    ("net.ipv4.conf.default.rp_filter", "0"),
    ("net.ipv4.conf.all.rp_filter", "0"),
)
"""Set in every network namespace where its file says nothing else: it forwards, also where the way back is another."""


def sysctls(cluster: Cluster) -> Iterator[Sysctl]:
    """Forwarding on the host, for the address families of external networks with NAT alone.

    A host that forwards IPv6 no longer accepts router advertisements (ip-sysctl: accept_ra), so it is not done for
    nothing.
    """
    for version, name in FORWARDING.items():
        networks = [network for network, address in _masqueraded(cluster) if address.version == version]
        if networks:
            yield Sysctl(name=name, owner=_owner(networks[0]), value="1")


def bridges(cluster: Cluster, host: Host, bmcs: Mapping[str, IPInterface]) -> Iterator[Bridge]:
    """A bridge per network, of the network's name; those of type bmc have the addresses of the BMCs, too."""
    for network in cluster.networks:
        yield Bridge(
            name=network.name,
            owner=_owner(network),
            addresses=(*network.all_addresses, *_bmcs_of(network, bmcs)),
            mtu=host.mtu,
        )


def bmc_network(cluster: Cluster, address: IPAddress) -> Network | None:
    """The network of type bmc that a BMC's address is in."""
    networks = (network for network in cluster.networks if network.type == "bmc")
    return next((n for n in networks if any(address in own.network for own in n.all_addresses)), None)


def _bmcs_of(network: Network, bmcs: Mapping[str, IPInterface]) -> tuple[IPInterface, ...]:
    subnets = {address.network for address in network.all_addresses} if network.type == "bmc" else set()
    return tuple(address for address in bmcs.values() if address.network in subnets)


def bridge_keys(cluster: Cluster, names: tuple[str, ...]) -> tuple[Key, ...]:
    """The keys of those `names` that are bridges of the cluster; the others are the host's own."""
    ours = {network.name for network in cluster.networks}
    return tuple(Key("bridge", name) for name in dict.fromkeys(names) if name in ours)


# -- firewall ---------------------------------------------------------------------------------------------------------


def firewall(cluster: Cluster) -> Iterator[Firewall]:
    """One nftables table: lets pass what goes through internal and NAT networks, masquerades what leaves a NAT network.

    The reachability of spec section 2: external networks without NAT and BMC networks get no rule at all.
    """
    if forwarded := _forwarded(cluster):
        rules = _rules(cluster, forwarded)
        yield Firewall(name=table_name(cluster.name), owner=_owners(forwarded), rules=rules)


def passages(cluster: Cluster, host: Host) -> Iterator[Passage]:
    """The same reachability in each chain of the host's own firewall that might drop what passes."""
    if forwarded := _forwarded(cluster):
        for family, table, chain, hook in host.closed_chains:
            yield Passage(
                name=passage_name(family, table, chain),
                owner=_owners(forwarded),
                family=family,
                table=table,
                chain=chain,
                hook=hook,
                interfaces=forwarded,
            )


def _forwarded(cluster: Cluster) -> tuple[str, ...]:
    return tuple(network.name for network in cluster.networks if network.type == "internal" or _has_nat(network))


def _owners(networks: tuple[str, ...]) -> str:
    return f"Network {', '.join(networks)}"


def _rules(cluster: Cluster, forwarded: tuple[str, ...]) -> str:
    interfaces = ", ".join(f'"{name}"' for name in forwarded)
    forward = [f"iifname {{ {interfaces} }} accept", f"oifname {{ {interfaces} }} accept"]
    masquerade = [_masquerade(network, address) for network, address in _masqueraded(cluster)]
    chains = _chain("forward", "filter hook forward priority filter", forward)
    if masquerade:
        chains += _chain("postrouting", "nat hook postrouting priority srcnat", masquerade)
    return chains


def _chain(name: str, hook: str, rules: list[str]) -> str:
    return "\n".join([f"chain {name} {{", f"\ttype {hook}; policy accept;", *(f"\t{rule}" for rule in rules), "}\n"])


def _masquerade(network: Network, address: IPInterface) -> str:
    """From one of the network's subnets to anywhere but its subnets."""
    family = "ip" if isinstance(address, IPv4Interface) else "ip6"
    every = [other.network for other in network.all_addresses if other.version == address.version]
    inside = [str(subnet) for subnet in collapse_addresses(every)]  # type: ignore[type-var]
    subnets = inside[0] if len(inside) == 1 else f"{{ {', '.join(inside)} }}"
    return f"{family} saddr {address.network} {family} daddr != {subnets} masquerade"


def _masqueraded(cluster: Cluster) -> Iterator[tuple[Network, IPInterface]]:
    for network in cluster.networks:
        if _has_nat(network):
            for address in network.all_addresses:
                yield network, address


def _has_nat(network: Network) -> bool:
    return network.type == "external" and network.use_nat


# -- namespaces -------------------------------------------------------------------------------------------------------


def namespaces(cluster: Cluster, host: Host) -> Iterator[Netns]:
    """The network namespaces with their interfaces eth0, eth1, ..."""
    for namespace in cluster.namespaces:
        yield Netns(
            name=namespace.name,
            owner=f"NetworkNamespace {namespace.name}",
            needs=bridge_keys(cluster, tuple(interface.network for interface in namespace.interfaces)),
            interfaces=tuple(
                _veth(cluster, namespace, index, interface, host)
                for index, interface in enumerate(namespace.interfaces)
            ),
            init_scripts=namespace.init_scripts,
            sysctls=tuple((dict(ROUTER_SYSCTLS) | dict(namespace.sysctls)).items()),
            routes=tuple((route.to, str(route.via)) for route in namespace.routes),
        )


def _veth(cluster: Cluster, namespace: NetworkNamespace, index: int, interface: NamespaceInterface, host: Host) -> Veth:
    return Veth(
        inside=f"eth{index}",
        outside=veth_name(cluster.name, namespace.name, index),
        bridge=interface.network,
        mac=mac_address(cluster.name, f"netns {namespace.name}", index),
        addresses=interface.addresses,
        mtu=host.mtu,
    )


def _owner(network: Network) -> str:
    return f"Network {network.name}"
