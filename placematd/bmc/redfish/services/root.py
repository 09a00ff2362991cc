"""The service root."""

from collections.abc import Sequence

from ..query import MOST_LEVELS
from ..resource import ROOT, Call, Json, Resource, link
from ..resources.managers import manager_uuid

_BELOW = (
    *("AccountService", "Chassis", "EventService", "JsonSchemas", "Managers"),
    *("Registries", "SessionService", "Systems", "UpdateService"),
)

ROOT_TYPE = "ServiceRoot.v1_17_0.ServiceRoot"
REDFISH_VERSION = "1.20.0"
FEATURES: Json = {
    "ExpandQuery": {"ExpandAll": True, "Levels": True, "Links": True, "MaxLevels": MOST_LEVELS, "NoLinks": True},
    "SelectQuery": True,
    "OnlyMemberQuery": True,
    "TopSkipQuery": True,
    "FilterQuery": False,
    "ExcerptQuery": False,
    "MultipleHTTPRequests": True,
    "DeepOperations": {"DeepPATCH": False, "DeepPOST": False},
}


def route(others: Sequence[Resource]) -> Resource:
    """The root, with a link to each of the `others` that belongs right below it."""
    here = {resource.uri for resource in others} | {f"{ROOT}/JsonSchemas"}
    links = {name: link(f"{ROOT}/{name}") for name in _BELOW if f"{ROOT}/{name}" in here}

    async def get(call: Call) -> Json:
        inventory = await call.machine.inventory()
        return {
            "Id": "RootService",
            "Name": "Root Service",
            "RedfishVersion": REDFISH_VERSION,
            "UUID": str(manager_uuid(inventory)),
            "Vendor": "placemat",
            "Product": "placemat virtual BMC",
            "ServiceIdentification": inventory.serial,
            "ProtocolFeaturesSupported": FEATURES,
            **links,
            "Tasks": link(f"{ROOT}/TaskService"),
            "Links": {"Sessions": link(f"{ROOT}/SessionService/Sessions")},
        }

    return Resource(uri=ROOT, type=ROOT_TYPE, get=get, read="NoAuth")
