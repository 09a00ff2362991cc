"""Port forwards into network namespaces: a socket unit on the host, and a proxy inside the namespace.

systemd opens the port and hands it to systemd-socket-proxyd(8), which runs in the namespace without any privilege and
goes on when placematd does not. It does not speak UDP, which `udp_relay` carries in the same way. Nothing is remembered
besides: the description of the socket unit says where the forward leads.
"""

import hashlib
import re
import sys
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, cast

from .models import IPAddress
from .names import OwnerMark, escape, slice_unit
from .plan_apps import NETNS_DIRECTORY
from .unit import Property, Unit, Value, command

Protocol = Literal["tcp", "udp"]

PROXY = Path("/usr/lib/systemd/systemd-socket-proxyd")
UDP_RELAY = Path(__file__).with_name("udp_relay.py")
LOOPBACK = ("127.0.0.1", "[::1]")

_LOCAL = re.compile(r"(?:(?P<address>[0-9.]+|\[[0-9A-Fa-f:.]+\]):)?(?P<port>[0-9]{1,5})")
_REMOTE = re.compile(
    r"(?P<netns>[A-Za-z0-9][A-Za-z0-9_.-]*):(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9][A-Za-z0-9.-]*):(?P<port>[0-9]{1,5})"
)
_DESCRIPTION = re.compile(r"Forward (tcp|udp) (\S+) to (\S+)")


@dataclass(frozen=True, kw_only=True)
class Forward:
    """From a port of the host to `host`:`port` as seen from the namespace `netns`.

    `local_address` None means the loopback addresses, IPv4 and IPv6; `host` is an address or a name, which is resolved
    on the host side by the proxy at each connection.
    """

    protocol: Protocol
    local_address: IPAddress | None
    local_port: int
    netns: str
    host: str
    port: int

    @property
    def local(self) -> str:
        """The local end as it is written: 30000, 192.0.2.1:30000 or [2001:db8::1]:30000."""
        return f"{_bracketed(self.local_address)}:{self.local_port}" if self.local_address else str(self.local_port)

    @property
    def remote(self) -> str:
        """The other end as it is written: NETNS:HOST:PORT, an IPv6 address in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.netns}:{host}:{self.port}"

    @property
    def name(self) -> str:
        """Its name in unit names and in the API: two forwards with the same local end cannot exist."""
        return f"{self.protocol}-{self.local}"


def parse(local: str, remote: str, protocol: str = "tcp") -> Forward:
    """A forward as people write it; raises ValueError that says what was expected."""
    if protocol not in ("tcp", "udp"):
        raise ValueError(f"{protocol}: expected tcp or udp")
    near, far = _LOCAL.fullmatch(local), _REMOTE.fullmatch(remote)
    if near is None:
        raise ValueError(f"{local}: expected PORT or ADDRESS:PORT (an IPv6 address in brackets)")
    if far is None:
        raise ValueError(f"{remote}: expected NETNS:HOST:PORT (an IPv6 address in brackets)")
    return Forward(
        protocol=cast(Protocol, protocol),
        local_address=ip_address(near["address"].strip("[]")) if near["address"] else None,
        local_port=_port(near["port"]),
        netns=far["netns"],
        host=str(ip_address(far["host"].strip("[]"))) if far["host"].startswith("[") else far["host"],
        port=_port(far["port"]),
    )


def of_description(description: str) -> Forward | None:
    """The forward that a socket unit's description (without mark) names."""
    match = _DESCRIPTION.fullmatch(description)
    return parse(match[2], match[3], match[1]) if match else None


def _port(text: str) -> int:
    port = int(text)
    if not 1 <= port <= 65535:
        raise ValueError(f"{text}: a port is 1 to 65535")
    return port


def _bracketed(address: IPAddress) -> str:
    return f"[{address}]" if address.version == 6 else str(address)


def unit_name(cluster: str, forward_name: str, suffix: str = "socket") -> str:
    """The unit of a forward; its name is escaped whole, for it holds colons and brackets."""
    return f"placemat-{escape(cluster)}-forward-{escape(forward_name)}.{suffix}"


def owner_mark(cluster: str, forward: Forward) -> OwnerMark:
    """The mark of a forward's units. Its kind is none that a plan has, so a reload leaves forwards alone."""
    digest = hashlib.sha256(f"{forward.name} {forward.remote}".encode()).hexdigest()[:12]
    return OwnerMark(cluster, "forward", unit_name(cluster, forward.name), digest)


def units(cluster: str, forward: Forward) -> Unit:
    """The socket unit with its service."""
    addresses = [_bracketed(forward.local_address)] if forward.local_address else LOOPBACK
    listen: Value = tuple(
        ("Stream" if forward.protocol == "tcp" else "Datagram", f"{address}:{forward.local_port}")
        for address in addresses
    )
    description = ("Description", f"Forward {forward.protocol} {forward.local} to {forward.remote}")
    service = Unit(
        unit_name(cluster, forward.name, "service"),
        (
            description,
            ("Type", "exec"),
            ("ExecStart", (command(*_proxy(forward)),)),
            ("NetworkNamespacePath", str(NETNS_DIRECTORY / forward.netns)),
            ("SyslogIdentifier", f"forward-{forward.name}"),
            *_confinement(cluster),
        ),
    )
    return Unit(
        unit_name(cluster, forward.name),
        (
            description,
            ("Slice", slice_unit(cluster)),
            ("Listen", listen),
            ("BindIPv6Only", "ipv6-only"),
        ),
        (service,),
    )


def _proxy(forward: Forward) -> tuple[str, ...]:
    host = f"[{forward.host}]" if ":" in forward.host else forward.host
    if forward.protocol == "tcp":
        return (str(PROXY), f"{host}:{forward.port}")
    return (sys.executable, str(UDP_RELAY), forward.host, str(forward.port))


def _confinement(cluster: str) -> tuple[Property, ...]:
    """A proxy moves bytes between two sockets and needs nothing else (systemd.exec(5))."""
    return (
        ("Slice", slice_unit(cluster)),
        ("DynamicUser", True),
        ("NoNewPrivileges", True),
        ("CapabilityBoundingSet", 0),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "read-only"),
        ("PrivateDevices", True),
        ("PrivateTmp", True),
        ("ProtectProc", "invisible"),
        ("ProtectControlGroups", True),
        ("ProtectKernelLogs", True),
        ("ProtectKernelModules", True),
        ("ProtectKernelTunables", True),
        ("LockPersonality", True),
        ("RestrictAddressFamilies", (True, ("AF_INET", "AF_INET6", "AF_UNIX"))),
        ("RestrictNamespaces", 0),
        ("RestrictRealtime", True),
        ("RestrictSUIDSGID", True),
        ("SystemCallArchitectures", ("native",)),
        ("UMask", 0o077),
    )


def forward_json(forward: Forward) -> dict[str, Any]:
    """A forward for people's scripts; `pod` is what placemat v2 called the namespace."""
    return {
        "protocol": forward.protocol,
        "local_address": str(forward.local_address) if forward.local_address else "localhost",
        "local_port": forward.local_port,
        "netns": forward.netns,
        "pod": forward.netns,
        "remote_host": forward.host,
        "remote_port": forward.port,
    }
