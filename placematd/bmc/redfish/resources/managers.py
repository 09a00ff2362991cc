"""The manager: the BMC itself, its address and the protocols that it speaks."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from typing import Final
from uuid import UUID, uuid5

from .... import __version__
from ...machine import Inventory, Limits
from ..resource import Action, Call, Json, Resource, collection, link, one_of
from . import reset
from .logs import timestamp
from .parts import HEALTHY
from .paths import (
    CHASSIS,
    FIRMWARE,
    MANAGER,
    MANAGER_ETHERNET,
    MANAGER_ID,
    MANAGER_LOG_SERVICES,
    MANAGERS,
    NETWORK_PROTOCOL,
    SYSTEM,
    VIRTUAL_MEDIA,
)
from .systems import IPMI_PORT

HTTPS_PORT: Final = 443
INTERFACE_ID: Final = "eth0"
RESET_TYPES: Final = ("ForceRestart", "GracefulRestart")
SECONDS_TO_ANSWER: Final = 0.5
"""Between the answer to a Reset and the end of the process."""


def manager_uuid(inventory: Inventory) -> UUID:
    """The BMC's own UUID: the same at each start, and not that of the system."""
    return uuid5(inventory.uuid, "bmc")


def manager(inventory: Inventory, now: datetime) -> Json:
    """The Manager resource; the media are the system's, where today's clients look for them."""
    return {
        "Id": MANAGER_ID,
        "Name": f"BMC of {inventory.node}",
        "ManagerType": "BMC",
        "Manufacturer": "placemat",
        "Model": "placemat virtual BMC",
        "UUID": str(manager_uuid(inventory)),
        "FirmwareVersion": __version__,
        "DateTime": timestamp(now),
        "DateTimeLocalOffset": "+00:00",
        "PowerState": "On",
        "Status": HEALTHY,
        "EthernetInterfaces": link(MANAGER_ETHERNET),
        "NetworkProtocol": link(NETWORK_PROTOCOL),
        "LogServices": link(MANAGER_LOG_SERVICES),
        "VirtualMedia": link(VIRTUAL_MEDIA),
        "Links": {
            "ManagerForServers": [link(SYSTEM)],
            "ManagerForChassis": [link(CHASSIS)],
            "ManagerInChassis": link(CHASSIS),
            "ActiveSoftwareImage": link(f"{FIRMWARE}/BMC"),
            "SoftwareImages": [link(f"{FIRMWARE}/BMC")],
        },
    }


def network_protocol(limits: Limits) -> Json:
    """What the BMC speaks; nothing here can be changed but in the cluster file."""
    return {
        "Id": "NetworkProtocol",
        "Name": "Manager Network Protocol",
        "HTTP": {"ProtocolEnabled": False},
        "HTTPS": {"ProtocolEnabled": True, "Port": HTTPS_PORT},
        "IPMI": {"ProtocolEnabled": limits.ipmi, "Port": IPMI_PORT},
        "SSDP": {"ProtocolEnabled": False},
        "Status": HEALTHY,
    }


def interface(limits: Limits) -> Json:
    """The BMC's network interface."""
    payload: Json = {
        "Id": INTERFACE_ID,
        "Name": "BMC network interface",
        "InterfaceEnabled": True,
        "LinkStatus": "LinkUp",
        "Status": HEALTHY,
        **_addresses(ip_interface(limits.network) if limits.network else None),
    }
    macs = {"MACAddress": limits.mac, "PermanentMACAddress": limits.mac}
    return {**payload, **macs} if limits.mac else payload


def _addresses(address: IPv4Interface | IPv6Interface | None) -> Json:
    """Addresses of both families; a BMC has no way out of its network, hence no gateway."""
    fourth: list[Json] = []
    sixth: list[Json] = []
    if isinstance(address, IPv4Interface):
        origin = {"AddressOrigin": "Static", "Gateway": None}
        fourth = [{"Address": str(address.ip), "SubnetMask": str(address.netmask), **origin}]
    elif address:
        length = address.network.prefixlen
        sixth = [{"Address": str(address.ip), "PrefixLength": length, "AddressOrigin": "Static"}]
    return {"IPv4Addresses": fourth, "IPv6Addresses": sixth}


async def _get_managers(_: Call) -> Json:
    return collection("Managers", [MANAGER])


async def _get_manager(call: Call) -> Json:
    payload = manager(await call.machine.inventory(), datetime.now(UTC))
    return payload | reset.offer(MANAGER, "Manager.Reset", RESET_TYPES)


async def _get_protocol(call: Call) -> Json:
    return network_protocol(await call.machine.limits())


async def _get_interfaces(_: Call) -> Json:
    return collection("Manager Ethernet Interfaces", [f"{MANAGER_ETHERNET}/{INTERFACE_ID}"])


async def _get_interface(call: Call) -> Json:
    return interface(await call.machine.limits())


async def _reset(call: Call) -> None:
    """End the process when the answer is out; its sockets stay with systemd, which starts it for the next client."""
    asyncio.get_running_loop().call_later(SECONDS_TO_ANSWER, call.services.restart)


def routes() -> Sequence[Resource]:
    """The BMC and its network."""
    kinds = {"ResetType": one_of(*RESET_TYPES)}
    return [
        Resource(uri=MANAGERS, type="ManagerCollection.ManagerCollection", get=_get_managers),
        Resource(
            uri=MANAGER,
            type="Manager.v1_20_0.Manager",
            get=_get_manager,
            actions=(Action("Manager.Reset", _reset, kinds, required=("ResetType",)),),
            write="ConfigureManager",
            volatile=frozenset({"DateTime"}),
        ),
        reset.action_info(MANAGER, RESET_TYPES),
        Resource(uri=NETWORK_PROTOCOL, type="ManagerNetworkProtocol.v1_10_1.ManagerNetworkProtocol", get=_get_protocol),
        Resource(
            uri=MANAGER_ETHERNET,
            type="EthernetInterfaceCollection.EthernetInterfaceCollection",
            get=_get_interfaces,
        ),
        Resource(
            uri=f"{MANAGER_ETHERNET}/{INTERFACE_ID}",
            type="EthernetInterface.v1_12_4.EthernetInterface",
            get=_get_interface,
        ),
    ]
