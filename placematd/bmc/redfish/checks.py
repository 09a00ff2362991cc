"""A request's body against what a resource or an action takes; what does not fit becomes messages."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .messages import LONGEST_ARGUMENT, Message
from .resource import Fields, Rule

_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "any": (object,),
}


@dataclass
class Checker:
    """Collects the messages of one body; `action` is the name of the action whose parameters the body has."""

    action: str = ""
    allowable: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """AllowableValues beyond those of the rules, by parameter."""
    messages: list[Message] = field(default_factory=list)

    def check(self, fields: Fields, body: Mapping[str, Any], current: object = None, at: str = "") -> dict[str, Any]:
        """The good part of `body`. `current` is the payload: what is in there and not in `fields` is read-only."""
        known = current if isinstance(current, dict) else {}
        good: dict[str, Any] = {}
        for name, value in body.items():
            where = f"{at}/{name}" if at else name
            if "@" in name:
                continue  # annotations are no properties (DSP0266 "PATCH")
            rule = fields.get(name)
            if rule is None:
                self._unknown(name, where, read_only=name in known)
            elif isinstance(rule, Rule):
                before = len(self.messages)
                value = self._value(rule, value, name, where, known.get(name))
                if len(self.messages) == before:
                    good[name] = value
            elif not isinstance(value, dict):
                self._add("TypeError", value, name, where)
            elif inner := self.check(rule, value, known.get(name), where):
                good[name] = inner
        return good

    def require(self, names: Sequence[str], body: Mapping[str, Any]) -> None:
        """Complain of each of `names` that is not in `body`."""
        for name in names:
            if name not in body and self.action:
                self.messages.append(Message("ActionParameterMissing", (self.action, name), name))
            elif name not in body:
                self.messages.append(Message("CreateFailedMissingReqProperties", (name,), name))

    def _unknown(self, name: str, where: str, *, read_only: bool) -> None:
        shown = name[:LONGEST_ARGUMENT]
        if self.action:
            self.messages.append(Message("ActionParameterUnknown", (self.action, shown), where))
        else:
            self.messages.append(Message("PropertyNotWritable" if read_only else "PropertyUnknown", (shown,), where))

    def _value(self, rule: Rule, value: Any, name: str, where: str, current: object) -> Any:
        """The value, with an array's elements merged; complains."""
        if value is None and rule.nullable:
            return None
        good_type = isinstance(value, _TYPES[rule.type]) and (
            rule.type in ("boolean", "any") or type(value) is not bool
        )
        if not good_type:
            self._add("TypeError", value, name, where, secret=rule.secret)
            return None
        if rule.type == "array":
            value = merge(value, current)
        allowed = [*rule.values, *self.allowable.get(name, ())]
        size = len(value) if isinstance(value, str | list | dict) else value
        if allowed and value not in allowed:
            self._add("NotInList", value, name, where)
        elif not isinstance(value, bool) and not _inside(rule, size):
            number = isinstance(value, int | float)
            self._add("OutOfRange" if number else "FormatError", value, name, where, secret=rule.secret)
        elif rule.items and isinstance(value, list):
            return [self._value(rule.items, item, name, f"{where}/{index}", None) for index, item in enumerate(value)]
        elif rule.items and isinstance(value, dict):
            return {key: self._value(rule.items, item, key, f"{where}/{key}", None) for key, item in value.items()}
        return value

    def _add(self, kind: str, value: object, name: str, where: str, *, secret: bool = False) -> None:
        shown = "******" if secret else value if isinstance(value, str) else json.dumps(value)
        arguments = (shown[:LONGEST_ARGUMENT], name[:LONGEST_ARGUMENT])
        if self.action:
            kind = "FormatError" if kind == "OutOfRange" else kind
            self.messages.append(Message(f"ActionParameterValue{kind}", (*arguments, self.action), where))
        else:
            self.messages.append(Message(f"PropertyValue{kind}", arguments, where))


def _inside(rule: Rule, size: object) -> bool:
    if not isinstance(size, int | float):
        return True
    return (rule.minimum is None or size >= rule.minimum) and (rule.maximum is None or size <= rule.maximum)


def merge(sent: Sequence[Any], current: object) -> list[Any]:
    """An array as PATCH means it: {} keeps the element, null removes it (DSP0266 "PATCH on array properties")."""
    old = current if isinstance(current, list) else []
    merged = [old[index] if item == {} and index < len(old) else item for index, item in enumerate(sent)]
    return [item for item in merged if item is not None]
