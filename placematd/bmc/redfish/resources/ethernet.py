"""The guest's network interfaces, with the MACs that it sees; its addresses are its own business."""

from collections.abc import Sequence

from ...machine import Nic, PowerState
from ..resource import Call, Json, Resource, collection, link
from .parts import HEALTHY, numbered, pick
from .paths import CHASSIS, ETHERNET


def interface(name: str, nic: Nic, power: PowerState) -> Json:
    """An EthernetInterface; healthy without power too, so that the inspection of a machine that is off finds it."""
    return {
        "Id": name,
        "Name": nic.name,
        "Description": f"On network {nic.network}",
        "InterfaceEnabled": True,
        "LinkStatus": "LinkDown" if power == "Off" else "LinkUp",
        "MACAddress": nic.mac,
        "PermanentMACAddress": nic.mac,
        "MTUSize": nic.mtu,
        "Status": HEALTHY,
        "Links": {"Chassis": link(CHASSIS)},
    }


async def _get_interfaces(call: Call) -> Json:
    nics = numbered("NIC", (await call.machine.inventory()).nics)
    return collection("Ethernet Interfaces", [f"{ETHERNET}/{name}" for name in nics])


async def _get_interface(call: Call) -> Json:
    name, nic = pick(numbered("NIC", (await call.machine.inventory()).nics), call)
    return interface(name, nic, await call.machine.power_state())


def routes() -> Sequence[Resource]:
    """EthernetInterfaces of the system."""
    return [
        Resource(uri=ETHERNET, type="EthernetInterfaceCollection.EthernetInterfaceCollection", get=_get_interfaces),
        Resource(uri=f"{ETHERNET}/{{id}}", type="EthernetInterface.v1_12_4.EthernetInterface", get=_get_interface),
    ]
