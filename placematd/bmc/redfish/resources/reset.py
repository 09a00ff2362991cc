"""Reset actions of the system and the chassis: which ResetType does what, in which power state."""

from collections.abc import Sequence
from typing import Final, Literal, get_args

from ...machine import Machine, PowerAction, PowerState, RestartCause
from ..messages import RedfishError
from ..resource import Call, Json, Resource, one_of

ResetType = Literal[
    "On",
    "ForceOn",
    "ForceOff",
    "GracefulShutdown",
    "GracefulRestart",
    "ForceRestart",
    "PowerCycle",
    "PushPowerButton",
    "Nmi",
]
RESET_TYPES: Final[Sequence[str]] = get_args(ResetType)

ACTION_INFO: Final = "ResetActionInfo"
RESET_RULE: Final = one_of(*RESET_TYPES)

_WHILE_ON: Final[dict[str, PowerAction]] = {
    "On": "on",
    "ForceOn": "on",
    "ForceOff": "off",
    "GracefulShutdown": "soft-off",
    "GracefulRestart": "soft-reset",
    "ForceRestart": "reset",
    "PowerCycle": "cycle",
    "PushPowerButton": "soft-off",
    "Nmi": "nmi",
}
_WHILE_OFF: Final[dict[str, PowerAction | None]] = {
    "On": "on",
    "ForceOn": "on",
    "ForceOff": None,
    "GracefulShutdown": None,
    "GracefulRestart": "on",
    "ForceRestart": "on",
    "PowerCycle": "on",
    "PushPowerButton": "on",
}
"""Restarts end with the machine running, also where they began without power; what is off is off already."""


def power_action(kind: str, power: PowerState) -> PowerAction | None:
    """What the machine must do for a ResetType; None for nothing at all.

    Raises RedfishError (409) for an interrupt to a machine that has no power to take it.
    """
    if power != "Off":
        return _WHILE_ON[kind]
    if kind == "Nmi":
        raise RedfishError("ResourceInStandby")
    return _WHILE_OFF[kind]


async def reset(machine: Machine, kind: str) -> None:
    """Do what a ResetType says; returns when it was begun for good."""
    action = power_action(kind, await machine.power_state())
    cause: RestartCause = "power-button" if kind == "PushPowerButton" else "chassis-control"
    if action:
        await machine.power(action, cause)


async def run(call: Call) -> None:
    """The Reset action of the system and of the chassis, which is the same box."""
    await reset(call.machine, call.body["ResetType"])


def offer(uri: str, name: str, types: Sequence[str] = RESET_TYPES) -> Json:
    """The "Actions" of a resource that can be reset, with the ActionInfo that the core does not know of."""
    reset = {
        "target": f"{uri}/Actions/{name}",
        "ResetType@Redfish.AllowableValues": list(types),
        "@Redfish.ActionInfo": f"{uri}/{ACTION_INFO}",
    }
    return {"Actions": {f"#{name}": reset}}


def action_info(uri: str, types: Sequence[str] = RESET_TYPES) -> Resource:
    """The ActionInfo of the Reset action of `uri`: its one parameter and all values of it."""

    async def get(_: Call) -> Json:
        parameter = {"Name": "ResetType", "Required": True, "DataType": "String", "AllowableValues": list(types)}
        return {"Id": ACTION_INFO, "Name": "Reset Action Info", "Parameters": [parameter]}

    return Resource(uri=f"{uri}/{ACTION_INFO}", type="ActionInfo.v1_4_2.ActionInfo", get=get)
