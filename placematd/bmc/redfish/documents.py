"""What is no resource: /redfish, the OData service document and $metadata (DSP0266 "OData")."""

import re
from collections.abc import Iterable, Sequence
from xml.sax.saxutils import quoteattr

from .messages import RedfishError
from .presentation import SCHEMAS
from .requests import Answer, Request, json_answer
from .resource import ROOT, Resource

EMBEDDED = (
    "Message.v1_1_2",
    "Resource.v1_19_0",
    "Event.v1_9_0",
    "MessageRegistry.v1_6_0",
    "IPAddresses.v1_1_3",
    "Settings.v1_3_5",
)
"""Schemas of objects within resources, beside those of the resources' own types."""
SERVICES = (
    *("AccountService", "Chassis", "EventService", "JsonSchemas", "Managers"),
    *("Registries", "SessionService", "Systems", "TaskService", "UpdateService"),
)
"""What may stand right below the service root."""

_EDMX = "http://docs.oasis-open.org/odata/ns/edmx"
_EDM = "http://docs.oasis-open.org/odata/ns/edm"


class Documents:
    """The three documents, which anybody may read."""

    def __init__(self, resources: Sequence[Resource]) -> None:
        here = {resource.uri for resource in resources}
        entry = {"name": "Service", "kind": "Singleton", "url": f"{ROOT}/"}
        below = [
            {"name": name, "kind": "Singleton", "url": f"{ROOT}/{name}"}
            for name in SERVICES
            if f"{ROOT}/{name}" in here
        ]
        sessions = {"name": "Sessions", "kind": "Singleton", "url": f"{ROOT}/SessionService/Sessions"}
        self._documents: dict[str, dict[str, object]] = {
            "/redfish": {"v1": f"{ROOT}/"},
            f"{ROOT}/odata": {"@odata.context": f"{ROOT}/$metadata", "value": [entry, *below, sessions]},
        }
        self._metadata = metadata(resource.type for resource in resources).encode()

    def answer(self, request: Request) -> Answer:
        """The document at the request's path. Raises RedfishError for other methods than GET and HEAD."""
        allow = {"Allow": "GET, HEAD"}
        if request.method not in ("GET", "HEAD"):
            raise RedfishError("OperationNotAllowed", headers=allow)
        if request.headers.get("OData-Version", "4.0").strip() != "4.0":
            raise RedfishError("PreconditionFailed")
        path = request.path.removesuffix("/")
        if path in self._documents:
            return json_answer(self._documents[path], headers=allow)
        return Answer(headers={**allow, "Content-Type": "application/xml;charset=utf-8"}, body=self._metadata)


def metadata(types: Iterable[str]) -> str:
    """The $metadata document: a reference for each schema, and the entity container."""
    namespaces = sorted({resource_type.rpartition(".")[0] for resource_type in types} | set(EMBEDDED))
    root = next(name for name in namespaces if name.startswith("ServiceRoot.v"))
    references = "".join(map(_reference, namespaces))
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<edmx:Edmx xmlns:edmx="{_EDMX}" Version="4.0">\n'
        f"{references}{_include('RedfishExtensions_v1.xml', [('RedfishExtensions.v1_0_0', 'Redfish')])}"
        f'<edmx:DataServices><Schema xmlns="{_EDM}" Namespace="Service">'
        f'<EntityContainer Name="Service" Extends="{root}.ServiceContainer"/>'
        "</Schema></edmx:DataServices>\n</edmx:Edmx>\n"
    )


def _reference(namespace: str) -> str:
    """A schema's file is named after its major version; a collection has one version alone."""
    name = namespace.partition(".")[0]
    versions = (name, namespace) if re.search(r"\.v\d", namespace) else (name,)
    return _include(f"{name}_v1.xml", [(version, "") for version in versions])


def _include(file: str, included: Sequence[tuple[str, str]]) -> str:
    """A reference; `included` has namespaces, each with its alias or ""."""
    lines = [
        f"<edmx:Include Namespace={quoteattr(name)}" + (f" Alias={quoteattr(alias)}/>" if alias else "/>")
        for name, alias in included
    ]
    return f"<edmx:Reference Uri={quoteattr(f'{SCHEMAS}/{file}')}>{''.join(lines)}</edmx:Reference>\n"
