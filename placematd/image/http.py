"""HTTP by urllib, and what that lacks: which redirects are followed, and an end to what is too slow or cancelled."""

import http.client
import socket
import ssl
import threading
import time
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import IO, Self
from urllib.parse import urlsplit

from ..errors import StepError


@dataclass(frozen=True)
class Limits:
    """How patient a download is. An attempt counts anew once the file has grown by a MiB, else `attempts` is all.

    `slowest_bytes` must come within each `slowest_seconds`.
    """

    silence_seconds: float = 30
    slowest_bytes: int = 64 << 10
    slowest_seconds: float = 60
    attempts: int = 5
    first_wait_seconds: float = 1


def redacted(url: str) -> str:
    """The URL without its user and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


class Watch:
    """Cuts the connection of an attempt that is cancelled or too slow: a blocking read cannot be ended otherwise."""

    def __init__(self, limits: Limits, cancelled: threading.Event) -> None:
        self._limits, self._cancelled = limits, cancelled
        self._done = threading.Event()
        self._socket: socket.socket | None = None
        self.too_slow = False
        self._renew()
        self._thread = threading.Thread(target=self._run, name="download-watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def connected(self, connection: socket.socket) -> None:
        """Watch over this connection from now on (after a redirect there is a new one)."""
        self._socket = connection

    def received(self, size: int) -> None:
        """Note that bytes came in."""
        self._bytes += size
        if self._bytes >= self._limits.slowest_bytes:
            self._renew()

    def _renew(self) -> None:
        self._bytes = 0
        self._deadline = time.monotonic() + self._limits.slowest_seconds

    def _run(self) -> None:
        while not self._done.wait(0.1):
            self.too_slow = self.too_slow or time.monotonic() > self._deadline
            if (self.too_slow or self._cancelled.is_set()) and self._socket:
                # The base class: SSLSocket.shutdown would take the TLS state away from under the reading thread.
                with suppress(OSError):  # ended by itself
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class _Connection(http.client.HTTPConnection):
    def __init__(self, host: str, *, timeout: float, watch: Watch) -> None:
        super().__init__(host, timeout=timeout)
        self._watch = watch

    def connect(self) -> None:
        super().connect()
        self._watch.connected(self.sock)


class _SecureConnection(http.client.HTTPSConnection):
    def __init__(self, host: str, *, timeout: float, watch: Watch) -> None:
        super().__init__(host, timeout=timeout, context=ssl.create_default_context())
        self._watch = watch

    def connect(self) -> None:
        super().connect()
        self._watch.connected(self.sock)


class _Handler(urllib.request.AbstractHTTPHandler):
    """http and https over connections that are watched."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch
        self.http_request = self.https_request = self.do_request_

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_Connection, watch=self._watch), request)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_SecureConnection, watch=self._watch), request)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https, never from https back to http."""

    max_redirections = 10

    def __init__(self, what: str) -> None:
        self._what = what

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        ways = {("http", "http"), ("http", "https"), ("https", "https")}
        if (req.type, urlsplit(newurl).scheme) not in ways:
            fp.close()
            raise StepError(self._what, f"redirect from {redacted(req.full_url)} to {redacted(newurl)} is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def opener(watch: Watch, what: str) -> urllib.request.OpenerDirector:
    """An opener for http and https alone, over connections that are watched; `what` is the step, for messages."""
    director = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
        _Redirects(what),
        _Handler(watch),
    ):
        director.add_handler(handler)
    return director
