"""Query parameters (DSP0266 "Query parameters"): $expand, $select, $top, $skip and only."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import unquote_plus

from .messages import RedfishError

MOST_LEVELS = 6
MOST_EXPANDED = 500
"""Resources in one answer; further ones stay links."""
_EXPAND = re.compile(r"(\.|\*|~)(?:\(\$levels=([0-9]{1,4})\))?")
_PATHS = re.compile(r"[A-Za-z0-9_@.#*-]+(/[A-Za-z0-9_@.#*-]+)*")
_ALWAYS = ("@odata.id", "@odata.type", "@odata.etag", "@odata.context", "Members@odata.count", "error")

Payload = dict[str, Any]


@dataclass(frozen=True)
class Query:
    """What a GET asks for beyond the resource."""

    expand: Literal["", ".", "~", "*"] = ""
    levels: int = 1
    select: Sequence[Sequence[str]] = ()
    top: int | None = None
    skip: int = 0
    only: bool = False

    @property
    def plain(self) -> bool:
        """Whether the answer is the resource as it is."""
        return self == Query()

    def check_kind(self, payload: Mapping[str, Any]) -> None:
        """Refuse what is for collections alone where there is none. Raises RedfishError."""
        if "Members" not in payload and (self.only or self.skip or self.top is not None):
            raise RedfishError("QueryNotSupportedOnResource")

    def page(self, payload: Payload) -> Payload:
        """The collection with the members that $skip and $top leave; the count stays that of all."""
        if not self.skip and self.top is None:
            return payload
        end = None if self.top is None else self.skip + self.top
        return {**payload, "Members": payload["Members"][self.skip : end]}

    def selected(self, payload: Payload) -> Payload:
        """The payload with no more than what $select names."""
        return _select(payload, self.select) if self.select else payload


def parse(text: str) -> Query:
    """The parameters of a URI's query. Raises RedfishError: 501 for unknown ones with a $, 400 for bad values."""
    found: dict[str, str | None] = {}
    for part in filter(None, text.split("&")):
        name, equals, value = part.partition("=")
        name, plain = unquote_plus(name), unquote_plus(value)
        if name.startswith("$") and name not in ("$expand", "$select", "$top", "$skip"):
            raise RedfishError("QueryParameterUnsupported", name)
        if name.startswith("$") or name == "only":
            if name in found:
                raise RedfishError("QueryParameterValueFormatError", plain, name)
            found[name] = plain if equals else None
    if "only" in found and (found["only"] is not None):
        raise RedfishError("QueryParameterValueFormatError", found["only"], "only")
    if "only" in found and found.keys() & {"$top", "$skip"}:
        raise RedfishError("QueryCombinationInvalid")
    expand, levels = _expand(found)
    return Query(
        expand, levels, _selection(found), _number(found, "$top"), _number(found, "$skip") or 0, "only" in found
    )


def _expand(found: Mapping[str, str | None]) -> tuple[Literal["", ".", "~", "*"], int]:
    if "$expand" not in found:
        return "", 1
    value = found["$expand"] or ""
    match = _EXPAND.fullmatch(value)
    if not match:
        raise RedfishError("QueryParameterValueFormatError", value, "$expand")
    levels = int(match[2] or 1)
    if not 1 <= levels <= MOST_LEVELS:
        raise RedfishError("QueryParameterOutOfRange", value, "$expand", f"1-{MOST_LEVELS}")
    kind: Literal[".", "~", "*"] = "." if match[1] == "." else "~" if match[1] == "~" else "*"
    return kind, levels


def _selection(found: Mapping[str, str | None]) -> Sequence[Sequence[str]]:
    if "$select" not in found:
        return ()
    value = found["$select"] or ""
    paths = [path.strip() for path in value.split(",")]
    if not all(map(_PATHS.fullmatch, paths)):
        raise RedfishError("QueryParameterValueFormatError", value, "$select")
    return tuple(tuple(path.split("/")) for path in paths)


def _number(found: Mapping[str, str | None], name: str) -> int | None:
    if name not in found:
        return None
    value = found[name] or ""
    if not re.fullmatch(r"-?[0-9]{1,9}", value):
        raise RedfishError("QueryParameterValueTypeError", value, name)
    if value.startswith("-"):
        raise RedfishError("QueryParameterOutOfRange", value, name, "0-")
    return int(value)


def _select(value: Any, paths: Sequence[Sequence[str]]) -> Any:
    if isinstance(value, list):
        return [_select(item, paths) for item in value]
    if not isinstance(value, dict):
        return value
    chosen = {}
    for name, inner in value.items():
        deeper = [path[1:] for path in paths if path[0] in (name, "*") or name.startswith(path[0] + "@")]
        if name in _ALWAYS:
            chosen[name] = inner
        elif deeper:
            chosen[name] = inner if any(not path for path in deeper) else _select(inner, deeper)
    return chosen


async def expanded(payload: Payload, query: Query, read: Callable[[str], Awaitable[Payload | None]]) -> Payload:
    """The payload with its links replaced by what they lead to, `query.levels` deep.

    `read` gives the payload of a URI, None where the caller may not see it or nothing is there.
    """
    left = MOST_EXPANDED

    async def walk(value: Any, levels: int, *, links: bool) -> Any:
        nonlocal left
        if isinstance(value, list):
            return [await walk(item, levels, links=links) for item in value]
        if not isinstance(value, dict):
            return value
        if set(value) == {"@odata.id"}:
            wanted = query.expand == "*" or links == (query.expand == "~")
            if not wanted or left <= 0 or "#" in value["@odata.id"]:
                return value
            left -= 1
            inner = await read(value["@odata.id"])
            return value if inner is None else await dive(inner, levels - 1)
        return {name: await walk(inner, levels, links=links or name == "Links") for name, inner in value.items()}

    async def dive(inner: Payload, levels: int) -> Any:
        return (
            {name: await walk(item, levels, links=name == "Links") for name, item in inner.items()} if levels else inner
        )

    result: Payload = await dive(payload, query.levels)
    return result
