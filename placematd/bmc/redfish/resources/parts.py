"""Pieces of payload that several resources share."""

from collections.abc import Sequence
from typing import TypeVar

from ...machine import PowerState
from ..resource import Call, Json, missing

Item = TypeVar("Item")

HEALTHY: Json = {"State": "Enabled", "Health": "OK"}

_STATE_OF_POWER = {"On": "Enabled", "PoweringOff": "Enabled", "PoweringOn": "Starting", "Off": "StandbyOffline"}


def powered(power: PowerState) -> Json:
    """The Status of what works only while the machine has power."""
    return {"State": _STATE_OF_POWER[power], "Health": "OK"}


def rolled_up(status: Json) -> Json:
    """The Status of a resource with parts that are never in worse health than the whole."""
    return {**status, "HealthRollup": status["Health"]}


def numbered(prefix: str, items: Sequence[Item]) -> dict[str, Item]:
    """Items by the id of their resource, which counts from 1 ("NIC.1"): names may hold what a URI may not."""
    return {f"{prefix}.{number}": item for number, item in enumerate(items, start=1)}


def pick(items: dict[str, Item], call: Call, parameter: str = "id") -> tuple[str, Item]:
    """The id and the item that the URI names; 404 where there is none."""
    name = call.parameters[parameter]
    if name not in items:
        raise missing(call)
    return name, items[name]
