"""JSON bodies from the network: bounded in size, depth and spelling."""

import json
from collections.abc import Sequence
from typing import Any

from .messages import RedfishError

MOST_BYTES = 64 * 1024
MOST_DEPTH = 16


def parse(body: bytes, content_type: str) -> dict[str, Any]:
    """The JSON object of a request. Raises RedfishError.

    curl sends a form's content type unless told otherwise, so that this is taken for JSON too; a browser's form can
    hold no JSON under that type.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in ("", "application/json", "application/x-www-form-urlencoded"):
        raise RedfishError("UnrecognizedRequestBody")
    if len(body) > MOST_BYTES:
        raise RedfishError("PayloadTooLarge")
    try:
        value = json.loads(body.decode(), object_pairs_hook=_unique, parse_constant=_refuse)
        json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate is no text
    except (ValueError, RecursionError) as error:
        raise RedfishError("MalformedJSON") from error
    if not isinstance(value, dict) or _depth(value) > MOST_DEPTH:
        raise RedfishError("MalformedJSON")
    return value


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name twice")
    return found


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _depth(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inner), default=0)
