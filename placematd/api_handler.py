"""What all handlers of the HTTP API have in common: JSON, errors by table, nothing for browsers."""

import json
import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from tornado.web import HTTPError, RequestHandler

from .errors import InvalidCluster, NotFound, PlacematError, TimedOut, WrongState

log = logging.getLogger("placematd")

# The one place that knows which error is which HTTP status; the first match counts.
STATUSES: Sequence[tuple[type[Exception], int]] = (
    (InvalidCluster, 400),
    (ValueError, 400),
    (NotFound, 404),
    (WrongState, 409),
    (TimedOut, 504),
    (PlacematError, 500),
)

NAME = r"([A-Za-z0-9][A-Za-z0-9_.-]*)"
"""The name of a node in a route."""


class JsonHandler(RequestHandler):
    """The base of all handlers."""

    def set_default_headers(self) -> None:
        """Every answer is JSON unless its handler says otherwise."""
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.set_header("Cache-Control", "no-store")

    def reply(self, value: object) -> None:
        """Finish with a JSON value (also a list, which tornado's own `write` refuses)."""
        self.finish(json.dumps(value) + "\n")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Finish with the error as JSON, its status taken from `STATUSES`."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        status = next((status for kind, status in STATUSES if isinstance(error, kind)), status_code)
        self.set_status(status)
        text = str(error) if isinstance(error, PlacematError | ValueError) else HTTPStatus(status).phrase
        mistakes = [str(mistake) for mistake in error.mistakes] if isinstance(error, InvalidCluster) else []
        self.reply({"error": text, "hint": getattr(error, "hint", ""), "mistakes": mistakes})

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Errors raised on purpose are the caller's to see; only the others need a traceback in the journal."""
        if not isinstance(value, PlacematError | ValueError | HTTPError):
            log.error("%s %s failed", self.request.method, self.request.path, exc_info=(typ, value, tb))
