"""What the core adds to a payload: annotations, actions with their AllowableValues, the ETag and the Link header."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from .messages import RedfishError
from .resource import ROOT, Action, Call, Resource, Rule

Payload = dict[str, Any]
SCHEMAS = "http://redfish.dmtf.org/schemas/v1"


async def present(resource: Resource, call: Call) -> Payload:
    """The resource as a client sees it."""
    payload = await resource.get(call)
    payload = {"@odata.id": odata_id(call.uri), "@odata.type": f"#{resource.type}", **payload}
    if resource.actions:
        payload["Actions"] = {
            **{f"#{action.name}": await _offer(action, call) for action in resource.actions},
            **payload.get("Actions", {}),
        }
    payload["@odata.etag"] = etag(payload, resource.volatile)
    return payload


def odata_id(uri: str) -> str:
    """The service root alone has a slash at its end."""
    return ROOT + "/" if uri == ROOT else uri


async def _offer(action: Action, call: Call) -> Payload:
    allowable = {
        name: list(rule.values) for name, rule in action.parameters.items() if isinstance(rule, Rule) and rule.values
    }
    if action.allowable:
        allowable |= {name: list(values) for name, values in (await action.allowable(call)).items()}
    values = {f"{name}@Redfish.AllowableValues": names for name, names in allowable.items()}
    return {"target": f"{call.uri}/Actions/{action.name}", **values}


def etag(payload: Mapping[str, Any], volatile: frozenset[str]) -> str:
    """A strong ETag (RFC 9110 section 8.8.3) of everything that does not change by itself."""
    lasting = {name: value for name, value in payload.items() if name not in volatile and name != "@odata.etag"}
    return '"' + hashlib.sha256(json.dumps(lasting, sort_keys=True).encode()).hexdigest()[:24] + '"'


def described_by(resource_type: str) -> str:
    """The Link header of a type: its JSON schema."""
    return f"<{SCHEMAS}/{resource_type.rpartition('.')[0]}.json>; rel=describedby"


def matches(header: str, tag: str, *, weakly: bool = False) -> bool:
    """Whether an If-Match or If-None-Match header names the tag."""
    sent = [part.strip() for part in header.split(",")]
    return "*" in sent or tag in [part.removeprefix("W/") if weakly else part for part in sent]


def precondition(headers: Mapping[str, str], tag: str) -> None:
    """Hold If-Match and If-None-Match of a writing request against the resource as it is. Raises RedfishError."""
    required, forbidden = headers.get("If-Match"), headers.get("If-None-Match")
    if (required is not None and not matches(required, tag)) or (forbidden and matches(forbidden, tag, weakly=True)):
        raise RedfishError("PreconditionFailed", headers={"ETag": tag})
