"""rtnetlink as typed records and calls: the wrapper around pyroute2 (rtnetlink(7), linux/if_link.h).

pyroute2 0.7 opens its socket when the object is made; 0.9 opens one for each thread, on first use there. A `Netlink`
must therefore be opened and used in one thread; it stays in the network namespace which that thread was in at the time.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface, ip_address, ip_interface, ip_network
from types import TracebackType
from typing import Any, Self

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from ..errors import StepError
from ..names import OwnerMark

AF_INET, AF_INET6 = 2, 10
IFF_UP = 1  # linux/if.h
IFA_F_NODAD = 0x02  # linux/if_addr.h
ADDR_GEN_MODE_EUI64, ADDR_GEN_MODE_NONE = 0, 1  # linux/if_link.h
LOOPBACK = 1
"""Index of lo, the first link of every network namespace."""

Interface = IPv4Interface | IPv6Interface

BRIDGE_IS_FULL = (
    "a Linux bridge has at most 1023 ports: spread the nodes and namespaces of this network over several networks"
)


@dataclass(frozen=True)
class Link:
    """A network interface; `kind` is "" for hardware, `master` the index of its bridge or 0, `mtu` in bytes."""

    index: int
    name: str
    kind: str
    alias: str
    mac: str
    mtu: int
    up: bool
    master: int

    @property
    def mark(self) -> OwnerMark | None:
        """The mark in its ifalias; None for what is not ours."""
        return OwnerMark.parse(self.alias)


class Netlink:
    """One rtnetlink socket in the network namespace of the calling thread; use it as a context manager.

    Calls raise NetlinkError: wrap them in `attempt`.
    """

    def __init__(self) -> None:
        self._socket: Any = IPRoute()
        self._socket.link("get", index=LOOPBACK)  # 0.9 opens its socket only now

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._socket.close()

    # -- links

    def links(self) -> list[Link]:
        """Every link, from one dump."""
        return [_link(message) for message in self._socket.get_links()]

    def link(self, name: str) -> Link | None:
        """The link of that name."""
        return self._get(ifname=name)

    def link_at(self, index: int) -> Link | None:
        """The link with that index."""
        return self._get(index=index)

    def _get(self, **key: str | int) -> Link | None:
        try:
            return _link(next(iter(self._socket.link("get", **key))))
        except NetlinkError as error:
            if error.code == errno.ENODEV:
                return None
            raise

    def add_bridge(self, name: str, mac: str) -> int:
        """A bridge, down and without ports; returns its index. See `bridge` for the reasons behind its options."""
        self._socket.link(
            "add",
            ifname=name,
            kind="bridge",
            address=mac,
            br_stp_state=0,
            br_forward_delay=0,
            br_mcast_snooping=0,
            br_group_fwd_mask=GROUP_FWD_MASK,
        )
        return self._index(name)

    def add_veth(self, outside: str, inside: str, mac: str, thread_id: int) -> int:
        """A veth pair whose inner end appears, with its final name, in the network namespace of a thread.

        Returns the index of the outer end. One step: no end passes through a namespace that it is not meant for.
        """
        peer = {"ifname": inside, "address": mac, "net_ns_pid": thread_id}
        self._socket.link("add", ifname=outside, kind="veth", peer=peer)
        return self._index(outside)

    def set_link(
        self, index: int, *, alias: OwnerMark | None = None, mtu: int | None = None, master: int = 0, up: bool = False
    ) -> None:
        """Change a link in one message, which the kernel applies in this order: MTU, alias, bridge, up."""
        changes: dict[str, Any] = {}
        if alias is not None:
            changes["ifalias"] = str(alias)
        if mtu is not None:
            changes["mtu"] = mtu
        if master:
            changes["master"] = master
        if up:
            changes["state"] = "up"
        self._socket.link("set", index=index, **changes)

    def set_link_local(self, index: int, *, wanted: bool) -> None:
        """Whether the kernel gives a link an IPv6 link-local address, which it does as soon as the link is up."""
        mode = {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", ADDR_GEN_MODE_EUI64 if wanted else ADDR_GEN_MODE_NONE)]}
        try:
            self._socket.link("set", index=index, IFLA_AF_SPEC={"attrs": [("AF_INET6", mode)]})
        except NetlinkError as error:
            if error.code != errno.EAFNOSUPPORT:  # a kernel without IPv6
                raise

    def delete_link(self, index: int) -> None:
        """Delete a link, and the other end of a veth pair with it; one that is gone already is fine."""
        try:
            self._socket.link("delete", index=index)
        except NetlinkError as error:
            if error.code != errno.ENODEV:
                raise

    def _index(self, name: str) -> int:
        link = self.link(name)
        if link is None:
            raise NetlinkError(errno.ENODEV, f"{name} went away")
        return link.index

    # -- addresses and routes

    def addresses(self, index: int) -> list[Interface]:
        """The addresses of a link, without link-local ones."""
        found = [
            ip_interface(f"{message.get_attr('IFA_LOCAL') or message.get_attr('IFA_ADDRESS')}/{message['prefixlen']}")
            for message in self._socket.get_addr(index=index)
        ]
        return [address for address in found if not (address.version == 6 and address.is_link_local)]

    def add_address(self, index: int, address: Interface) -> None:
        """An address that can be used at once.

        IPv6: without duplicate address detection, during which no program could bind to it for more than a second.
        IPv4: with the broadcast address of its network, where there is one (RFC 3021: none in a /31).
        """
        options: dict[str, Any] = {}
        if isinstance(address, IPv6Interface):
            options["flags"] = IFA_F_NODAD
        elif address.network.prefixlen < 31:
            options["broadcast"] = str(address.network.broadcast_address)
        self._socket.addr("add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen, **options)

    def delete_address(self, index: int, address: Interface) -> None:
        """Take an address away."""
        self._socket.addr("delete", index=index, address=str(address.ip), prefixlen=address.network.prefixlen)

    def add_route(self, to: str, via: str) -> None:
        """A route to a network, given as ADDRESS/PREFIX or "default", through a gateway.

        The gateway's family tells which default is meant.
        """
        version_4 = isinstance(ip_address(via), IPv4Address)
        everything = "0.0.0.0/0" if version_4 else "::/0"
        to = everything if to == "default" else str(ip_network(to, strict=False))
        self._socket.route("add", dst=to, gateway=via, family=AF_INET if version_4 else AF_INET6)

    def route_link(self, destination: str) -> Link | None:
        """The link that packets to an address leave by; None where there is no route."""
        family = AF_INET if isinstance(ip_address(destination), IPv4Address) else AF_INET6
        try:
            message = next(iter(self._socket.route("get", dst=destination, family=family)))
        except NetlinkError as error:
            if error.code in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
                return None
            raise
        index = message.get_attr("RTA_OIF")
        return self.link_at(index) if index else None


GROUP_FWD_MASK = 0xFFF8
"""Link-local multicast groups (01:80:c2:00:00:0X, a bit for each X) that our bridges forward, as a cable would: all but
0 (STP), 1 (pause frames) and 2 (LACP), which the kernel refuses (BR_GROUPFWD_RESTRICTED). 0E is LLDP, 03 is 802.1X."""


def _link(message: Any) -> Link:
    info = message.get_attr("IFLA_LINKINFO")
    return Link(
        index=message["index"],
        name=message.get_attr("IFLA_IFNAME"),
        kind=(info.get_attr("IFLA_INFO_KIND") if info else None) or "",
        alias=message.get_attr("IFLA_IFALIAS") or "",
        mac=message.get_attr("IFLA_ADDRESS") or "",
        mtu=message.get_attr("IFLA_MTU") or 0,
        up=bool(message["flags"] & IFF_UP),
        master=message.get_attr("IFLA_MASTER") or 0,
    )


@contextmanager
def attempt(what: str) -> Iterator[None]:
    """Name the step: what the kernel refuses inside becomes a StepError with that name and a hint where we know one."""
    try:
        yield
    except NetlinkError as error:
        raise StepError(what, _answer(error), _HINTS.get(error.code, "")) from error
    except OSError as error:
        hint = NEEDS_ROOT if error.errno == errno.EPERM else ""
        raise StepError(what, error.strerror or str(error), hint) from error


def _answer(error: NetlinkError) -> str:
    text = error.args[1] if len(error.args) > 1 else ""
    return f"{text or 'netlink error'} ({errno.errorcode.get(error.code, error.code)})"


NEEDS_ROOT = "root or CAP_NET_ADMIN is needed: placemat-cli sandbox works without"
_HINTS = {
    errno.EXFULL: BRIDGE_IS_FULL,
    errno.EPERM: NEEDS_ROOT,
    errno.EACCES: "is IPv6 switched off? sysctl net.ipv6.conf.all.disable_ipv6",
    errno.EOPNOTSUPP: "the kernel lacks this kind of link or address family: modprobe bridge veth ipv6",
    errno.ENETUNREACH: "the gateway must be in the network of one of the interfaces",
    errno.EHOSTUNREACH: "the gateway must be in the network of one of the interfaces",
}
