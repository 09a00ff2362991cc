"""Bridges: one for each Network, with the Network's name.

What differs from the kernel's defaults, and why:

- The MAC is derived. By default a bridge takes the lowest MAC of its ports, so that the host's own MAC changes in the
  guests' ARP tables as nodes come and go.
- STP is off and the forward delay 0: a port forwards from the first frame, and DHCP and iPXE do not time out.
- Multicast snooping is off. Nobody queries on these networks, and without a querier snooping forgets members after some
  minutes: IPv6 neighbour discovery and OSPF, both multicast, then die silently. Flooding costs nothing at this size.
- LLDP and 802.1X are forwarded as by a cable (`netlink.GROUP_FWD_MASK`).
- Router advertisements are ignored: a simulated router must not give the host a default route. Without an IPv6 address
  of its own the host also takes no link-local one, so it is not part of a network that it has no address in.
- No duplicate address detection: the MAC is derived and so unique, and for two seconds the host would have no
  link-local address to look for its neighbours with, so that nothing could be forwarded to them.
"""

from collections.abc import Sequence
from pathlib import Path

from ..names import OwnerMark, mac_address
from ..resources import Bridge, Kind
from ..sysctl import write_sysctl
from .netlink import Interface, Netlink, attempt
from .ownership import check_link, same_owner, unfinished


class Bridges:
    """Adapter for bridges in the network namespace of the calling thread. See `adapter.Adapter`."""

    kind: Kind = "bridge"

    def __init__(self, proc_sys: Path = Path("/proc/sys")) -> None:
        self._proc_sys = proc_sys

    def observe(self, cluster: str) -> Sequence[OwnerMark]:
        """The marks of the cluster's bridges."""
        with attempt("list bridges"), Netlink() as netlink:
            marks = [(link.name, link.mark) for link in netlink.links() if link.kind == "bridge"]
        return [mark for name, mark in marks if mark and mark.cluster == cluster and mark.name == name]

    def create(self, resource: Bridge, cluster: str) -> None:
        """Make the bridge; where it exists with our mark, change it in place and leave its ports attached."""
        mark = resource.mark(cluster)
        with attempt(f"create bridge {resource.name}"), Netlink() as netlink:
            link = netlink.link(resource.name)
            check_link(link, mark)
            if link is not None:
                self._configure(netlink, link.index, resource, mark)
                return
            index = netlink.add_bridge(resource.name, mac_address(cluster, f"bridge {resource.name}", 0))
            try:
                self._configure(netlink, index, resource, mark)
            except BaseException:
                netlink.delete_link(index)
                raise

    def _configure(self, netlink: Netlink, index: int, resource: Bridge, mark: OwnerMark) -> None:
        netlink.set_link(index, alias=unfinished(mark), mtu=resource.mtu)
        write_sysctl(f"net/ipv6/conf/{resource.name}/accept_ra", "0", self._proc_sys)
        write_sysctl(f"net/ipv6/conf/{resource.name}/accept_dad", "0", self._proc_sys)
        netlink.set_link_local(index, wanted=any(address.version == 6 for address in resource.addresses))
        netlink.set_link(index, up=True)
        set_addresses(netlink, index, resource.addresses)
        netlink.set_link(index, alias=mark)

    def remove(self, mark: OwnerMark) -> None:
        """Delete the bridge if it carries this mark's cluster and name; ports of others are detached, not deleted."""
        with attempt(f"remove bridge {mark.name}"), Netlink() as netlink:
            link = netlink.link(mark.name)
            if link is not None and same_owner(link.mark, mark):
                netlink.delete_link(link.index)


def set_addresses(netlink: Netlink, index: int, wanted: Sequence[Interface]) -> None:
    """Give the link these addresses and no other; one that it has already is not touched."""
    for address in netlink.addresses(index):
        if address not in wanted:
            netlink.delete_address(index, address)
    existing = netlink.addresses(index)  # with the first address of a subnet the kernel takes its others away
    for address in wanted:
        if address not in existing:
            with attempt(f"add address {address}"):
                netlink.add_address(index, address)
