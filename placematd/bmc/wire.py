"""The Protocol `Machine` as calls between a BMC's process and placematd: names, arguments and records as JSON.

What a method takes and returns is read off the Protocol's own annotations, so that the two sides cannot differ. The
decoders believe nothing: exact types, values of Literals only, bounded sizes.
"""

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Mapping as AbstractMapping
from collections.abc import Sequence as AbstractSequence
from dataclasses import fields, is_dataclass
from datetime import datetime
from functools import cache, cached_property
from types import NoneType, UnionType
from typing import Any, Generic, Literal, TypeVar, Union, get_args, get_origin, get_type_hints
from uuid import UUID

from ..varlink import InvalidParameter, Object
from .machine import (
    BootOverride,
    Firmware,
    FirmwareOffer,
    Health,
    Inventory,
    Json,
    Limits,
    Machine,
    Media,
    PowerState,
    RestartCause,
    SelEntry,
    Watchdog,
)

INTERFACE = "io.placemat.Machine"
MAX_CHARACTERS = 4096
MAX_BYTES = 1024
MAX_ITEMS = 65536

T = TypeVar("T")
R = TypeVar("R")


def encode(value: object) -> object:
    """A record or value of machine.py as JSON."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: encode(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, AbstractMapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, AbstractSequence) and not isinstance(value, str):
        return [encode(item) for item in value]
    return value


def decode(hint: object, value: object) -> object:
    """JSON as the type that `hint` says; raises ValueError or TypeError where it is not."""
    return _decoder(hint)(value)


Decoder = Callable[[object], object]


@cache
def _decoder(hint: Any) -> Decoder:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return lambda value: _one_of(value, arguments)
    if origin in (Union, UnionType):
        decoders = [_decoder(argument) for argument in arguments if argument is not NoneType]
        if len(decoders) != 1:
            raise NotImplementedError(hint)
        return lambda value: None if value is None else decoders[0](value)
    if origin in (AbstractSequence, Sequence):
        return lambda value: _items(value, _decoder(arguments[0]))
    if origin in (dict, AbstractMapping, Mapping):
        return lambda value: _typed(value, dict)
    if is_dataclass(hint) and isinstance(hint, type):
        hints = get_type_hints(hint)
        return lambda value: _record(hint, hints, value)
    return SIMPLE[hint]


def _typed(value: object, kind: type[T]) -> T:
    if type(value) is not kind:
        raise TypeError(f"not {kind.__name__}")
    return value


def _one_of(value: object, allowed: tuple[object, ...]) -> object:
    if not isinstance(value, str) or value not in allowed:
        raise ValueError("not an allowed value")
    return value


def _items(value: object, decoder: Decoder) -> tuple[object, ...]:
    items: list[object] = _typed(value, list)
    if len(items) > MAX_ITEMS:
        raise ValueError("too many items")
    return tuple(decoder(item) for item in items)


def _record(kind: Callable[..., object], hints: Mapping[str, object], value: object) -> object:
    """Fields with a default may be missing and unknown ones are ignored: the two sides may differ in their versions."""
    record: Object = _typed(value, dict)
    return kind(**{name: decode(hint, record[name]) for name, hint in hints.items() if name in record})


def _string(value: object) -> str:
    text = _typed(value, str)
    if len(text) > MAX_CHARACTERS or "\0" in text:
        raise ValueError("too long, or not a text")
    return text


def _integer(value: object) -> int:
    number = _typed(value, int)
    if abs(number) > 1 << 53:  # beyond, JSON numbers are not exact everywhere
        raise ValueError("too large")
    return number


def _number(value: object) -> float:
    number = float(_integer(value)) if isinstance(value, int) else _typed(value, float)
    if not math.isfinite(number):
        raise ValueError("not finite")
    return number


def _bytes(value: object) -> bytes:
    data = base64.b64decode(_string(value), validate=True)
    if len(data) > MAX_BYTES:
        raise ValueError("too long")
    return data


SIMPLE: Mapping[object, Decoder] = {
    str: _string,
    int: _integer,
    float: _number,
    bool: lambda value: _typed(value, bool),
    bytes: _bytes,
    datetime: lambda value: datetime.fromisoformat(_string(value)),
    UUID: lambda value: UUID(_string(value)),
    NoneType: lambda value: None,
}


class Method(Generic[R]):
    """One method of Machine as a call; `returns` names what it returns, several names for a tuple."""

    def __init__(self, name: str, function: Callable[..., object], *returns: str) -> None:
        self.name, self.python, self.returns = name, function.__name__, returns
        self.full_name = f"{INTERFACE}.{name}"
        self._function = function

    @cached_property
    def _hints(self) -> dict[str, object]:
        return get_type_hints(self._function)

    @cached_property
    def arguments(self) -> dict[str, object]:
        """Names and types of the arguments."""
        return {name: hint for name, hint in self._hints.items() if name != "return"}

    def decode_arguments(self, parameters: Object) -> Object:
        """The arguments of a call; raises InvalidParameter. An argument with a default may not be left out."""
        for name in parameters.keys() ^ self.arguments.keys():
            raise InvalidParameter(name[:100])
        decoded: Object = {}
        for name, hint in self.arguments.items():
            try:
                decoded[name] = decode(hint, parameters[name])
            except (ValueError, TypeError) as error:
                raise InvalidParameter(name) from error
        return decoded

    def encode_result(self, result: object) -> Object:
        """What the method returned, as a reply."""
        values = result if len(self.returns) > 1 and isinstance(result, tuple) else (result,)
        return {name: encode(value) for name, value in zip(self.returns, values, strict=False)}

    def decode_result(self, reply: Object) -> R:
        """What `encode_result` was given; raises ValueError, TypeError or KeyError where the reply is another."""
        hint = self._hints["return"]
        hints = get_args(hint) if len(self.returns) > 1 else (hint,)
        values = tuple(decode(hint, reply[name]) for name, hint in zip(self.returns, hints, strict=False))
        result: Any = values if len(self.returns) > 1 else values[0] if values else None
        typed: R = result
        return typed


INVENTORY: Method[Inventory] = Method("GetInventory", Machine.inventory, "inventory")
HEALTH: Method[Health] = Method("GetHealth", Machine.health, "health")
POWER_STATE: Method[PowerState] = Method("GetPowerState", Machine.power_state, "state")
POWER: Method[None] = Method("Power", Machine.power)
RESTART_CAUSE: Method[RestartCause] = Method("GetRestartCause", Machine.restart_cause, "cause")
POWER_ON_HOURS: Method[float] = Method("GetPowerOnHours", Machine.power_on_hours, "hours")
BOOT: Method[BootOverride] = Method("GetBoot", Machine.boot, "override")
SET_BOOT: Method[None] = Method("SetBoot", Machine.set_boot)
SEL: Method[Sequence[SelEntry]] = Method("GetSel", Machine.sel, "entries")
ADD_SEL: Method[int] = Method("AddSel", Machine.add_sel, "record_id")
CLEAR_SEL: Method[None] = Method("ClearSel", Machine.clear_sel)
WATCHDOG: Method[Watchdog] = Method("GetWatchdog", Machine.watchdog, "watchdog")
SET_WATCHDOG: Method[None] = Method("SetWatchdog", Machine.set_watchdog)
FIRMWARE: Method[tuple[Firmware, Firmware, FirmwareOffer]] = Method(
    "GetFirmware", Machine.firmware, "current", "next", "offer"
)
SET_FIRMWARE: Method[None] = Method("SetFirmware", Machine.set_firmware)
LIMITS: Method[Limits] = Method("GetLimits", Machine.limits, "limits")
IDENTIFY: Method[None] = Method("Identify", Machine.identify)
LOGGED_IN: Method[None] = Method("LoggedIn", Machine.logged_in)
IDENTIFYING: Method[bool] = Method("IsIdentifying", Machine.identifying, "identifying")
MEDIA: Method[Sequence[Media]] = Method("GetMedia", Machine.media, "slots")
EJECT_MEDIA: Method[None] = Method("EjectMedia", Machine.eject_media)
LOAD: Method[Json] = Method("Load", Machine.load, "value")
SAVE: Method[None] = Method("Save", Machine.save)

METHODS: tuple[Method[Any], ...] = tuple(value for value in list(globals().values()) if isinstance(value, Method))
"""Every method of Machine that answers once."""

INSERT_MEDIA: Method[object] = Method("InsertMedia", Machine.insert_media)
EVENTS: Method[object] = Method("Subscribe", Machine.events)
CONSOLE: Method[object] = Method("OpenConsole", Machine.console)
