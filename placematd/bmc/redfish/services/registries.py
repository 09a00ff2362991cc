"""Registries: where to find the messages that this service uses."""

from collections.abc import Sequence

from ..base_registry import Template
from ..registry import OWN_VERSION, REGISTRIES
from ..resource import ROOT, Call, Json, Resource, collection, missing
from ..resources.bios import REGISTRY_URI as BIOS_ATTRIBUTES

REGISTRIES_URI = f"{ROOT}/Registries"
OWN_URI = f"{REGISTRIES_URI}/Placemat/Registry"
PUBLISHED = "https://redfish.dmtf.org/registries"


def routes() -> Sequence[Resource]:
    """The resources of this module."""
    return [
        Resource(uri=REGISTRIES_URI, type="MessageRegistryFileCollection.MessageRegistryFileCollection", get=_files),
        Resource(uri=REGISTRIES_URI + "/{registry}", type="MessageRegistryFile.v1_1_4.MessageRegistryFile", get=_file),
        Resource(uri=OWN_URI, type="MessageRegistry.v1_6_2.MessageRegistry", get=_own),
    ]


async def _files(call: Call) -> Json:
    messages = [f"{REGISTRIES_URI}/{name}" for name in REGISTRIES]
    return collection("Registry File Collection", [*messages, BIOS_ATTRIBUTES])


async def _file(call: Call) -> Json:
    name = call.parameters["registry"]
    if name not in REGISTRIES:
        raise missing(call)
    version = REGISTRIES[name][0]
    published = {"Language": "en", "PublicationUri": f"{PUBLISHED}/{name}.{version}.json"}
    return {
        "Id": name,
        "Name": f"{name} Message Registry File",
        "Registry": f"{name}.{version.rpartition('.')[0]}",
        "Languages": ["en"],
        "Location": [{"Language": "en", "Uri": OWN_URI} if name == "Placemat" else published],
    }


async def _own(call: Call) -> Json:
    return {
        "Id": f"Placemat.{OWN_VERSION}",
        "Name": "placemat Message Registry",
        "Language": "en",
        "Description": "Messages of placemat's virtual BMC that no standard registry has.",
        "RegistryPrefix": "Placemat",
        "RegistryVersion": OWN_VERSION,
        "OwningEntity": "placemat",
        "Messages": {name: _entry(template) for name, template in REGISTRIES["Placemat"][1].items()},
    }


def _entry(template: Template) -> Json:
    types = {"ParamTypes": ["string"] * template.arguments} if template.arguments else {}
    return {
        "Description": template.text.replace("%1", "a text"),
        "Message": template.text,
        "MessageSeverity": template.severity,
        "NumberOfArgs": template.arguments,
        **types,
        "Resolution": template.resolution,
    }
