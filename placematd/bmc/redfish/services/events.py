"""EventService: subscriptions, the SSE stream and test events (DSP0266 "Eventing")."""

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from ipaddress import ip_address
from urllib.parse import urlsplit

from ..events import SYSTEM, TYPES, Listener, Subscription, new_id
from ..messages import Message, RedfishError
from ..registry import REGISTRIES
from ..resource import (
    ROOT,
    Action,
    Call,
    Created,
    Json,
    Resource,
    Rule,
    array_of,
    boolean,
    collection,
    integer,
    link,
    missing,
    one_of,
    text,
)

SERVICE = f"{ROOT}/EventService"
SUBSCRIPTIONS = f"{SERVICE}/Subscriptions"
STREAM = f"{SERVICE}/SSE"

_POLICIES = one_of("TerminateAfterRetries", "SuspendRetries", "RetryForever")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
_FORBIDDEN_HEADERS = {"host", "content-length", "transfer-encoding", "connection", "content-type", "expect", "upgrade"}
_HEADER_VALUE = re.compile(r"[\x20-\x7e]{0,1024}")

_SUBSCRIPTION = {
    "Destination": text(1024, 1),
    "Protocol": one_of("Redfish"),
    "SubscriptionType": one_of("RedfishEvent"),
    "EventFormatType": one_of("Event"),
    "Context": text(256, nullable=True),
    "RegistryPrefixes": array_of(one_of(*REGISTRIES), 8),
    "MessageIds": array_of(text(128, 1), 32),
    "EventTypes": array_of(one_of(*TYPES), 8),
    "HttpHeaders": array_of(Rule("object", maximum=16, secret=True), 8),
    "DeliveryRetryPolicy": _POLICIES,
    "VerifyCertificate": boolean(),
}


def routes() -> Sequence[Resource]:
    """The resources of this module."""
    return [
        Resource(
            uri=SERVICE,
            type="EventService.v1_10_2.EventService",
            get=_service,
            patch=_change,
            writable={"DeliveryRetryAttempts": integer(0, 10), "DeliveryRetryIntervalSeconds": integer(1, 3600)},
            write="ConfigureManager",
            actions=[
                Action(
                    "EventService.SubmitTestEvent",
                    _test,
                    {
                        "EventId": text(64),
                        "EventType": one_of(*TYPES),
                        "EventTimestamp": text(64),
                        "EventGroupId": integer(0, 2**31 - 1),
                        "Message": text(256),
                        "MessageArgs": array_of(text(128), 8),
                        "MessageId": text(128),
                        "MessageSeverity": one_of("OK", "Warning", "Critical"),
                        "OriginOfCondition": text(256),
                        "Severity": text(64),
                    },
                ),
            ],
        ),
        Resource(
            uri=SUBSCRIPTIONS,
            type="EventDestinationCollection.EventDestinationCollection",
            get=_subscriptions,
            post=_subscribe,
            creatable=_SUBSCRIPTION,
            required=("Destination", "Protocol"),
            write="ConfigureManager",
        ),
        Resource(
            uri=SUBSCRIPTIONS + "/{subscription}",
            type="EventDestination.v1_14_1.EventDestination",
            get=_subscription,
            patch=_patch,
            writable={
                "Context": text(256, nullable=True),
                "DeliveryRetryPolicy": _POLICIES,
                "VerifyCertificate": boolean(),
            },
            delete=_delete,
            write="ConfigureManager",
        ),
        Resource(uri=STREAM, type="Event.v1_9_0.Event", get=_no_payload, stream=_stream),
    ]


async def _service(call: Call) -> Json:
    values = call.services.settings.values
    return {
        "Id": "EventService",
        "Name": "Event Service",
        "ServiceEnabled": True,
        "DeliveryRetryAttempts": values.delivery_attempts,
        "DeliveryRetryIntervalSeconds": values.delivery_interval_seconds,
        "EventFormatTypes": ["Event"],
        "EventTypesForSubscription": list(TYPES),
        "RegistryPrefixes": list(REGISTRIES),
        "IncludeOriginOfConditionSupported": False,
        "SubordinateResourcesSupported": False,
        "ServerSentEventUri": STREAM,
        "Subscriptions": link(SUBSCRIPTIONS),
        "Status": {"State": "Enabled", "Health": "OK"},
    }


async def _change(call: Call) -> None:
    values = call.services.settings.values
    await call.services.settings.change(
        delivery_attempts=call.body.get("DeliveryRetryAttempts", values.delivery_attempts),
        delivery_interval_seconds=call.body.get("DeliveryRetryIntervalSeconds", values.delivery_interval_seconds),
    )


async def _test(call: Call) -> None:
    body = dict(call.body)
    event_type = body.pop("EventType", "Alert")
    origin = body.pop("OriginOfCondition", SYSTEM)
    call.services.events.publish(Message("TestEvent", registry="Placemat"), event_type, origin, **body)


async def _subscriptions(call: Call) -> Json:
    uris = [f"{SUBSCRIPTIONS}/{listener.subscription.id}" for listener in call.services.events.all()]
    return collection("Event Subscriptions Collection", uris)


def _find(call: Call) -> Listener:
    listener = call.services.events.get(call.parameters["subscription"])
    if listener is None:
        raise missing(call)
    return listener


async def _subscription(call: Call) -> Json:
    listener = _find(call)
    subscription = listener.subscription
    if not subscription.destination:
        return {
            "Id": subscription.id,
            "Name": "Server-sent event stream",
            "Context": subscription.context,
            "Protocol": "Redfish",
            "SubscriptionType": "SSE",
            "EventFormatType": "Event",
            "Status": {"State": "Enabled", "Health": "OK"},
        }
    state = "Disabled" if listener.suspended else "Enabled"
    return {
        "Id": subscription.id,
        "Name": "Event Subscription",
        "Destination": subscription.destination,
        "Context": subscription.context,
        "Protocol": "Redfish",
        "SubscriptionType": "RedfishEvent",
        "EventFormatType": "Event",
        "RegistryPrefixes": list(subscription.registry_prefixes),
        "MessageIds": list(subscription.message_ids),
        "EventTypes": list(subscription.event_types) or list(TYPES),
        "HttpHeaders": [],  # they may be secret (EventDestination.HttpHeaders)
        "DeliveryRetryPolicy": subscription.retry,
        "VerifyCertificate": subscription.verify,
        "Status": {"State": state, "Health": "Warning" if listener.suspended else "OK"},
    }


async def _subscribe(call: Call) -> Created:
    body = call.body
    _check_destination(body["Destination"])
    subscription = Subscription(
        id=new_id(),
        destination=body["Destination"],
        context=body.get("Context") or "",
        registry_prefixes=tuple(body.get("RegistryPrefixes", ())),
        message_ids=tuple(body.get("MessageIds", ())),
        event_types=tuple(body.get("EventTypes", ())),
        headers=_headers(body.get("HttpHeaders", ())),
        retry=body.get("DeliveryRetryPolicy", "TerminateAfterRetries"),
        verify=body.get("VerifyCertificate", False),
    )
    await call.services.events.subscribe(subscription)
    return Created(f"{SUBSCRIPTIONS}/{subscription.id}")


def _check_destination(destination: str) -> None:
    """Raises RedfishError unless it is a URL that events could be posted to."""
    try:
        parts = urlsplit(destination)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 443) > 0
    except ValueError:
        usable = False
    if usable and parts.hostname:
        usable = not _is_unusable(parts.hostname) and parts.username is None
    if not usable or not destination.isprintable() or not destination.isascii() or " " in destination:
        raise RedfishError("PropertyValueFormatError", destination, "Destination", at="Destination")


def _is_unusable(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return address.is_unspecified or address.is_multicast


def _headers(sent: Sequence[Json]) -> Sequence[tuple[str, str]]:
    pairs = [(name, value) for item in sent for name, value in item.items()]
    for name, value in pairs:
        good = isinstance(value, str) and _HEADER_VALUE.fullmatch(value) and _HEADER_NAME.fullmatch(name)
        if not good or name.lower() in _FORBIDDEN_HEADERS:
            raise RedfishError("PropertyValueFormatError", "******", "HttpHeaders", at="HttpHeaders")
    return tuple(pairs)


async def _patch(call: Call) -> None:
    listener, body = _find(call), call.body
    before = listener.subscription
    if not before.destination and body.keys() - {"Context"}:
        raise RedfishError("PropertyNotWritable", sorted(body.keys() - {"Context"})[0])
    after = replace(
        before,
        context=(body["Context"] or "") if "Context" in body else before.context,
        retry=body.get("DeliveryRetryPolicy", before.retry),
        verify=body.get("VerifyCertificate", before.verify),
    )
    await call.services.events.change(after)


async def _delete(call: Call) -> None:
    await call.services.events.unsubscribe(_find(call).subscription.id)


async def _no_payload(call: Call) -> Json:
    raise missing(call)


def _stream(call: Call) -> AsyncIterator[bytes]:
    return call.services.events.stream()
