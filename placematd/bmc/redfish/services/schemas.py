"""JsonSchemas: a pointer to DMTF's publication for each type that this service uses."""

from collections.abc import Sequence

from ..presentation import SCHEMAS
from ..resource import ROOT, Call, Json, Resource, collection, missing
from .root import ROOT_TYPE

SCHEMAS_URI = f"{ROOT}/JsonSchemas"
_FILE = "JsonSchemaFile.v1_1_5.JsonSchemaFile"
_FILES = "JsonSchemaFileCollection.JsonSchemaFileCollection"


def schema_routes(others: Sequence[Resource]) -> Sequence[Resource]:
    """The collection and its files, for the types of the `others` and of itself."""
    types = {resource.type for resource in others} | {_FILE, _FILES, ROOT_TYPE}
    files = {resource_type.rpartition(".")[0]: resource_type for resource_type in sorted(types)}

    async def get_all(call: Call) -> Json:
        return collection("Schema Collection", [f"{SCHEMAS_URI}/{name}" for name in files])

    async def get(call: Call) -> Json:
        name = call.parameters["schema"]
        if name not in files:
            raise missing(call)
        return {
            "Id": name,
            "Name": f"{name} Schema File",
            "Schema": f"#{files[name]}",
            "Languages": ["en"],
            "Location": [{"Language": "en", "PublicationUri": f"{SCHEMAS}/{name}.json"}],
        }

    return [
        Resource(uri=SCHEMAS_URI, type=_FILES, get=get_all),
        Resource(uri=SCHEMAS_URI + "/{schema}", type=_FILE, get=get),
    ]
