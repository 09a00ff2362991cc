"""LAN configuration parameters (IPMI 2.0 chapter 23): the truth, for reading.

Address and mask come from the guest or from the cluster file; nothing here can be set but the set-in-progress marker.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_interface

from ...machine import Limits, Machine
from ..request import LAN_CHANNEL, Code, CommandError, Reply, Request
from ..suites import SUITES
from .channels import channel_of
from .settings import InProgress
from .table import ADMINISTRATOR, OPERATOR, TRANSPORT, Row, between, require

REVISION = 0x11
REVISION_ONLY = 0x80
UNSUPPORTED, IN_PROGRESS, READ_ONLY = 0x80, 0x81, 0x82

STATIC = 0x01
ANSWERS_ARP = 0x02
IPV4_HEADER = bytes((0x40, 0x40, 0x10))
"""Time to live 64, do not fragment, minimum delay."""
PORT, SECURE_PORT = 623, 664
SUITE_ENTRIES = 16
IPV4_ONLY, IPV6_ONLY = 0x00, 0x01
HOP_LIMIT = 64
ACTIVE, DISABLED_STATUS = 0x00, 0x01
STATIC_IN_USE = 0x80

Address = IPv4Interface | IPv6Interface


@dataclass(frozen=True)
class Lan:
    """What the parameters tell about."""

    interface: Address
    mac: bytes

    @property
    def ipv4(self) -> IPv4Interface | None:
        """The interface if it is one of IPv4."""
        return self.interface if isinstance(self.interface, IPv4Interface) else None

    @property
    def ipv6(self) -> IPv6Interface | None:
        """The interface if it is one of IPv6."""
        return self.interface if isinstance(self.interface, IPv6Interface) else None


def lan_of(limits: Limits) -> Lan:
    """The BMC's place in the network; 0.0.0.0/0 while it has none."""
    interface = ip_interface(limits.network or limits.address or "0.0.0.0/0")
    return Lan(interface, bytes.fromhex(limits.mac.replace(":", "")) if limits.mac else bytes(6))


def _ipv4(lan: Lan) -> bytes:
    return lan.ipv4.ip.packed if lan.ipv4 else IPv4Address(0).packed


def _mask(lan: Lan) -> bytes:
    return lan.ipv4.netmask.packed if lan.ipv4 else IPv4Address(0).packed


def _suites(lan: Lan) -> bytes:
    return bytes((0, *(suite.id for suite in SUITES))).ljust(1 + SUITE_ENTRIES, b"\0")


def _suite_privileges(lan: Lan) -> bytes:
    """Two suites a byte, the first in the low half: Administrator for each that there is."""
    levels = [4] * len(SUITES) + [0] * (SUITE_ENTRIES - len(SUITES))
    return bytes((0, *(low | high << 4 for low, high in zip(levels[::2], levels[1::2], strict=True))))


def _ipv6(lan: Lan) -> bytes:
    """Static address 0 (table 23-4, parameter 56): source, address, prefix length, status."""
    if lan.ipv6 is None:
        return bytes((0, 0)) + IPv6Address(0).packed + bytes((0, DISABLED_STATUS))
    return bytes((0, STATIC_IN_USE)) + lan.ipv6.ip.packed + bytes((lan.ipv6.network.prefixlen, ACTIVE))


def _constant(value: bytes) -> Callable[[Lan], bytes]:
    return lambda lan: value


PARAMETERS: Mapping[int, Callable[[Lan], bytes]] = {
    1: _constant(bytes(1)),  # no authentication type of IPMI 1.5
    2: _constant(bytes(5)),  # nor is one enabled
    3: _ipv4,
    4: _constant(bytes((STATIC,))),
    5: lambda lan: lan.mac,
    6: _mask,
    7: _constant(IPV4_HEADER),
    8: _constant(PORT.to_bytes(2, "little")),
    9: _constant(SECURE_PORT.to_bytes(2, "little")),
    10: _constant(bytes((ANSWERS_ARP,))),
    11: _constant(bytes(1)),
    12: _constant(bytes(4)),  # no default gateway: answers go back the way the question came
    13: _constant(bytes(6)),
    14: _constant(bytes(4)),
    15: _constant(bytes(6)),
    17: _constant(bytes(1)),  # no alert destinations
    20: _constant(bytes(2)),  # no VLAN
    21: _constant(bytes(1)),
    22: _constant(bytes((len(SUITES),))),
    23: _suites,
    24: _suite_privileges,
    50: _constant(bytes((0x01,))),  # IPv4 or IPv6, one of them
    51: lambda lan: bytes((IPV6_ONLY if lan.ipv6 else IPV4_ONLY,)),
    52: _constant(bytes(1)),
    53: _constant(bytes((HOP_LIMIT,))),
    54: _constant(bytes(3)),
    55: _constant(bytes((1, 0, 0))),  # one static address, no dynamic one, neither DHCPv6 nor SLAAC
    56: _ipv6,
}
SELECTED = (56,)
"""Parameters with a set selector, of which 0 is the only one there is."""
SET_IN_PROGRESS = 0


class LanConfiguration:
    """Get and Set LAN Configuration Parameters."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._progress = InProgress()

    def rows(self) -> Sequence[Row]:
        """The two commands."""
        return (
            Row(TRANSPORT, 0x01, ADMINISTRATOR, between(3, 32), self.set),
            Row(TRANSPORT, 0x02, OPERATOR, (4,), self.get),
        )

    async def get(self, request: Request) -> Reply:
        """Section 23.2: [revision only + channel, parameter, set selector, block selector]."""
        channel, parameter, selector, _ = request.data
        require(channel_of(request.caller, channel) == LAN_CHANNEL)
        value = PARAMETERS.get(parameter)
        if value is None and parameter != SET_IN_PROGRESS:
            raise CommandError(UNSUPPORTED)
        if channel & REVISION_ONLY:
            return Reply(data=bytes((REVISION,)))
        if value is None:
            return Reply(data=bytes((REVISION, self._progress.state)))
        require(selector == 0 or parameter not in SELECTED, Code.OUT_OF_RANGE)
        return Reply(data=bytes((REVISION,)) + value(lan_of(await self._machine.limits())))

    async def set(self, request: Request) -> Reply:
        """Section 23.1: [channel, parameter, data...]."""
        channel, parameter, value, *rest = request.data
        require(channel_of(request.caller, channel) == LAN_CHANNEL)
        if parameter == SET_IN_PROGRESS:
            require(not rest, Code.REQUEST_LENGTH_INVALID)
            require(value <= 1)
            require(self._progress.take((request.caller.channel, request.caller.session_id), value), IN_PROGRESS)
            return Reply()
        raise CommandError(READ_ONLY if parameter in PARAMETERS else UNSUPPORTED)
