"""Requests and answers of the service, as records: what HTTP server and tests have in common."""

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..accounts import Account
from .sessions import Session


@dataclass(frozen=True, kw_only=True)
class Request:
    """One HTTP request; `headers` finds names whatever their case."""

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    remote: str = ""


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who sent a request; nobody has no account."""

    account: Account | None = None
    session: Session | None = None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One HTTP answer: a body, or a stream of events that goes on until one side leaves."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    stream: AsyncIterator[bytes] | None = None


def json_answer(payload: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """An answer with a JSON object."""
    return Answer(
        status=status,
        headers={"Content-Type": "application/json;charset=utf-8", **(headers or {})},
        body=json.dumps(payload).encode(),
    )
