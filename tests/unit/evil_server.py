"""A real HTTP server on 127.0.0.1 that misbehaves as its test wants."""

import re
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self


class Request(BaseHTTPRequestHandler):
    """One request; `self.server.files` says how each path is answered."""

    protocol_version = "HTTP/1.1"
    server: "_Http"

    def do_GET(self) -> None:
        self.close_connection = True
        self.server.seen.append(self)
        with suppress(BrokenPipeError, ConnectionResetError):
            self.server.answers[self.path.partition("?")[0]](self)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""

    def head(self, status: int = 200, **headers: object) -> None:
        """Status and headers; `Content_Length=5` is Content-Length: 5."""
        self.send_response(status)
        for name, value in {"Connection": "close", **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def range_start(self) -> int | None:
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        return int(match[1]) if match else None


Answer = Callable[[Request], None]


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    answers: dict[str, Answer]
    seen: list[Request]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is part of the plan."""


class Server:
    """`with Server() as server: server.answers["/x"] = File(b"...")`."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._http = _Http(("127.0.0.1", 0), Request)
        self._scheme = "https" if tls else "http"
        if tls:
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True)
        self._http.answers, self._http.seen = {}, []
        self._thread = threading.Thread(target=lambda: self._http.serve_forever(poll_interval=0.02))
        self.answers = self._http.answers

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        if self._thread.is_alive():
            self._http.shutdown()
            self._thread.join()
            self._http.server_close()

    def url(self, path: str = "/image") -> str:
        return f"{self._scheme}://127.0.0.1:{self._http.server_address[1]}{path}"

    @property
    def seen(self) -> list[Request]:
        """All requests so far."""
        return self._http.seen


@dataclass
class File:
    """A file served well, except for what is asked.

    drop_at     close the connection after so many bytes of the body, as many times as `drops`
    ranges      honour Range and If-Range
    chunked     send it chunked; with length=False and chunked=False the end of the connection is the end of the file
    """

    data: bytes
    etag: str = ""
    last_modified: str = ""
    length: bool = True
    chunked: bool = False
    ranges: bool = True
    conditions: bool = True
    drop_at: int = 0
    drops: int = 1
    headers: dict[str, str] = field(default_factory=dict)

    def __call__(self, request: Request) -> None:
        headers: dict[str, object] = {**self.headers}
        if self.etag:
            headers["ETag"] = self.etag
        if self.last_modified:
            headers["Last_Modified"] = self.last_modified
        if self.conditions and self.unchanged(request):
            return request.head(304, **headers)
        start, status = request.range_start(), 200
        if start is not None and self.ranges and request.headers.get("If-Range") in (self.etag, self.last_modified):
            headers["Content_Range"] = f"bytes {start}-{len(self.data) - 1}/{len(self.data)}"
            status = 206
        body = self.data[start or 0 :] if status == 206 else self.data
        if self.chunked:
            headers["Transfer_Encoding"] = "chunked"
        elif self.length:
            headers["Content_Length"] = len(body)
        request.head(status, **headers)
        return self.send(request, body)

    def unchanged(self, request: Request) -> bool:
        if known := request.headers.get("If-None-Match"):
            return known == self.etag
        known = request.headers.get("If-Modified-Since")
        return bool(known) and known == self.last_modified

    def send(self, request: Request, body: bytes) -> None:
        dropped = bool(self.drop_at and self.drops)
        if dropped:
            self.drops -= 1
            body = body[: self.drop_at]
        if not self.chunked:
            request.wfile.write(body)
            return
        for start in range(0, len(body), 100_000):
            piece = body[start : start + 100_000]
            request.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        if not dropped:
            request.wfile.write(b"0\r\n\r\n")
