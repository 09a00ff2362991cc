"""Port forwards into network namespaces: a socket unit on the host, and a proxy inside the namespace.

systemd opens the port and hands it to systemd-socket-proxyd(8), which runs in the namespace without any privilege and
goes on when placematd does not. It does not speak UDP, which `udp_relay` carries in the same way; as the proxy's user
need not be able to read our files (a clone below /root), it gets that program on its standard input. Nothing is
remembered besides: the description of the socket unit says where the forward leads.
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
from .plan.apps import NETNS_DIRECTORY
from .unit import Property, Unit, Value, command

Protocol = Literal["tcp", "udp"]

PROXY = Path("/usr/lib/systemd/systemd-socket-proxyd")
UDP_RELAY = Path(__file__).with_name("udp_relay.py").read_text()
COLLECT = "inactive-or-failed"
"""A forward that could not be opened, or whose namespace is gone, leaves no failed unit behind."""
LOOPBACK = ("127.0.0.1", "[::1]")

PYTHON = str(Path(sys.executable).resolve())
"""The interpreter behind a virtual environment, which the proxy's user need not be able to read either."""

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
        return _local_text(self.local_address, self.local_port)

    @property
    def remote(self) -> str:
        """The other end as it is written: NETNS:HOST:PORT, an IPv6 address in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.netns}:{host}:{self.port}"

    @property
    def name(self) -> str:
        """Its name in unit names and in the API: two forwards with the same local end cannot exist."""
        return forward_name(self.protocol, self.local_address, self.local_port)


def forward_name(protocol: Protocol, local_address: IPAddress | None, local_port: int) -> str:
    """The name of the forward that has this local end."""
    return f"{protocol}-{_local_text(local_address, local_port)}"


def parse_local(text: str) -> tuple[IPAddress | None, int]:
    """A local end as people write it; raises ValueError that says what was expected."""
    match = _LOCAL.fullmatch(text)
    if match is None:
        raise ValueError(f"{text}: expected PORT or ADDRESS:PORT (an IPv6 address in brackets)")
    return ip_address(match["address"].strip("[]")) if match["address"] else None, _port(match["port"])


def parse(local: str, remote: str, protocol: str = "tcp") -> Forward:
    """A forward as people write it; raises ValueError that says what was expected."""
    if protocol not in ("tcp", "udp"):
        raise ValueError(f"{protocol}: expected tcp or udp")
    local_address, local_port = parse_local(local)
    far = _REMOTE.fullmatch(remote)
    if far is None:
        raise ValueError(f"{remote}: expected NETNS:HOST:PORT (an IPv6 address in brackets)")
    return Forward(
        protocol=cast(Protocol, protocol),
        local_address=local_address,
        local_port=local_port,
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


def _local_text(address: IPAddress | None, port: int) -> str:
    return f"{_bracketed(address)}:{port}" if address else str(port)


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
            *_proxy(forward),
            ("CollectMode", COLLECT),
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
            ("CollectMode", COLLECT),
        ),
        (service,),
    )


def _proxy(forward: Forward) -> tuple[Property, ...]:
    """The program; python3(1) isolated (-I), since it needs its standard library only.

    systemd-socket-proxyd cuts at the last colon and takes brackets for part of the name (systemd issue 35621).
    """
    if forward.protocol == "tcp":
        return (("ExecStart", (command(str(PROXY), f"{forward.host}:{forward.port}"),)),)
    return (
        ("ExecStart", (command(PYTHON, "-I", "-", forward.host, str(forward.port)),)),
        ("StandardInput", "data"),
        ("StandardInputData", UDP_RELAY),
    )


def _confinement(cluster: str) -> tuple[Property, ...]:
    """A proxy moves bytes between two sockets and needs nothing else (systemd.exec(5))."""
    return (
        ("Slice", slice_unit(cluster)),
        ("DynamicUser", True),
        ("NoNewPrivileges", True),
        ("CapabilityBoundingSet", 0),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "yes"),
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
