"""One http(s) download into a file, resumed where it broke off, and bounded in attempts, time and size.

urllib and not tornado's client: this runs in a worker thread, and urllib knows proxies (http_proxy, no_proxy) and lets
the reader set the pace.
"""

import base64
import hashlib
import http.client
import re
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus
from typing import cast
from urllib.parse import unquote, urlsplit

from .. import __version__
from ..errors import StepError
from .http import Limits, Watch, opener, redacted
from .output import Output

CHUNK = 1 << 18
MAX_WAIT_SECONDS = 30.0
PROGRESS_BYTES = 1 << 20
RETRIED = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}


@dataclass(frozen=True)
class Version:
    """What a server says about the version of a file that it serves (RFC 9110 section 8.8)."""

    etag: str = ""
    last_modified: str = ""

    @property
    def condition(self) -> dict[str, str]:
        """Headers that ask for the file only where it has another version."""
        headers = {"If-None-Match": self.etag, "If-Modified-Since": self.last_modified}
        return {name: value for name, value in headers.items() if value}

    @property
    def strong(self) -> str:
        """The value for If-Range, which needs a strong validator (RFC 9110 section 13.1.5); "" where there is none."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified


class Interrupted(Exception):
    """An attempt broke off in a way that another may not; `wait_seconds` is what the server asked for."""

    def __init__(self, answer: str, wait_seconds: float = 0) -> None:
        super().__init__(answer)
        self.wait_seconds = wait_seconds


class Source:
    """A URL to ask and to download from. `what` is the step, for messages ("fetch image ubuntu")."""

    def __init__(self, url: str, what: str, cancelled: threading.Event, limits: Limits) -> None:
        self.url, self.what = url, what
        self._cancelled, self._limits = cancelled, limits

    def is_current(self, version: Version) -> bool:
        """Whether the server still has this version. One attempt; raises Interrupted or StepError."""
        with self._answer(version.condition) as answer:
            return answer is None or _version(answer.headers) == version

    def download(self, output: Output, progress: Callable[[int, int | None], None]) -> tuple[Version, str]:
        """Fetch the file, in as many attempts as the limits allow; returns its version and its SHA-256.

        A later attempt goes on where the one before broke off if the server can tell that the version is the same, and
        otherwise begins anew. A body without length that ends early cannot be told from a whole one (`sha256:` can).
        Raises StepError.
        """
        transfer = _Transfer(output, progress)
        attempts, wait, best = self._limits.attempts, self._limits.first_wait_seconds, 0
        while True:
            try:
                with self._answer(transfer.conditions()) as response:
                    if response is None:
                        raise Interrupted("HTTP 304 Not Modified, unasked")
                    self._receive(response, transfer)
                    return transfer.version, transfer.sha256.hexdigest()
            except Interrupted as error:
                if isinstance(error, _RangeRefused):
                    transfer.restart()
                if output.size >= best + PROGRESS_BYTES:
                    attempts, wait, best = self._limits.attempts, self._limits.first_wait_seconds, output.size
                attempts -= 1
                if not attempts:
                    answer = f"{redacted(self.url)}: {error} (in attempt {self._limits.attempts}, the last)"
                    raise StepError(self.what, answer) from error
                self._cancelled.wait(min(max(wait, error.wait_seconds), MAX_WAIT_SECONDS))
                wait *= 2

    @contextmanager
    def _answer(self, headers: Mapping[str, str]) -> Iterator["_Response | None"]:
        """The answer to a GET, None for 304; everything that goes wrong meanwhile becomes Interrupted or StepError."""
        self._check_cancelled()
        with Watch(self._limits, self._cancelled) as watch:
            try:
                response = self._open(headers, watch)
                try:
                    yield _Response(response, watch) if response else None
                finally:
                    if response:
                        response.close()
            except urllib.error.HTTPError as error:
                error.close()
                raise self._refused(error) from error
            except (OSError, http.client.HTTPException) as error:
                self._check_cancelled()
                reason = error.reason if isinstance(error, urllib.error.URLError) else error
                if isinstance(reason, ssl.SSLCertVerificationError):
                    raise StepError(self.what, f"{redacted(self.url)}: {reason}") from error
                raise Interrupted(self._slow if watch.too_slow else str(reason) or type(reason).__name__) from error
            self._check_cancelled()

    def _open(self, headers: Mapping[str, str], watch: Watch) -> http.client.HTTPResponse | None:
        try:
            return cast(
                http.client.HTTPResponse,
                opener(watch, self.what).open(self._request(headers), None, self._limits.silence_seconds),
            )
        except urllib.error.HTTPError as error:
            if error.code == HTTPStatus.NOT_MODIFIED:
                error.close()
                return None
            raise

    def _request(self, headers: Mapping[str, str]) -> urllib.request.Request:
        """A user and password in the URL are for this server alone, not for those that it redirects to."""
        if urlsplit(self.url).scheme not in ("http", "https"):
            raise StepError(self.what, f"{redacted(self.url)}: not an http or https URL")
        request = urllib.request.Request(
            redacted(self.url), headers={"User-Agent": f"placemat/{__version__}", **headers}
        )
        user, separator, _ = urlsplit(self.url).netloc.rpartition("@")
        if separator:
            request.add_unredirected_header(
                "Authorization", f"Basic {base64.b64encode(unquote(user).encode()).decode()}"
            )
        return request

    def _refused(self, error: urllib.error.HTTPError) -> Exception:
        answer = f"HTTP {error.code} {str(error.reason).splitlines()[0] if error.reason else ''}".rstrip()
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return _RangeRefused(answer)
        if error.code >= HTTPStatus.INTERNAL_SERVER_ERROR or error.code in RETRIED:
            seconds = error.headers.get("Retry-After", "")
            return Interrupted(answer, float(seconds) if seconds.isdecimal() else 0)
        return StepError(self.what, f"{redacted(self.url)}: {answer}")

    def _receive(self, response: "_Response", transfer: "_Transfer") -> None:
        transfer.begin(response, self.what, redacted(self.url))
        while data := response.read(transfer.missing):
            transfer.take(data)
        self._check_cancelled()
        if response.watch.too_slow:
            raise Interrupted(self._slow)
        if transfer.missing:
            raise Interrupted(f"connection closed {transfer.missing} bytes before the end")
        transfer.output.finish()

    @property
    def _slow(self) -> str:
        return f"less than {self._limits.slowest_bytes >> 10} KiB in {self._limits.slowest_seconds:g} s"

    def _check_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise StepError(self.what, "cancelled")


class _RangeRefused(Interrupted):
    """The rest of the file is not to be had: begin anew."""


class _Response:
    """An answer with a body."""

    def __init__(self, response: http.client.HTTPResponse, watch: Watch) -> None:
        self._response, self.watch = response, watch
        self.status, self.headers = response.status, response.headers

    def read(self, most: int | None) -> bytes:
        """What has come in, b"" at the end; `most` is what there is to come, None where that is unknown."""
        data = self._response.read1(CHUNK if most is None else min(CHUNK, most)) if most != 0 else b""
        self.watch.received(len(data))
        return data


class _Transfer:
    """How much of the file is here, and of which version."""

    version: Version
    _total: int | None

    def __init__(self, output: Output, progress: Callable[[int, int | None], None]) -> None:
        self.output, self._progress = output, progress
        self.restart()

    @property
    def missing(self) -> int | None:
        """Bytes to come; None where the server has not told."""
        return None if self._total is None else self._total - self.output.size

    def conditions(self) -> dict[str, str]:
        """Headers that ask for the rest, if it is of the same version."""
        if not (self.output.size and self.version.strong):
            return {}
        return {"Range": f"bytes={self.output.size}-", "If-Range": self.version.strong}

    def begin(self, response: _Response, what: str, url: str) -> None:
        """Go on where the response does, or begin anew. Raises Interrupted where its range is not the one asked for."""
        if response.headers.get_content_type() == "text/html":
            raise StepError(what, f"{url}: a web page and no image", "an error page or a login? open it in a browser")
        if response.status == HTTPStatus.PARTIAL_CONTENT:
            self._go_on(response)
            return
        self.restart()
        self.version = _version(response.headers)
        length = response.headers.get("Content-Length", "")
        chunked = response.headers.get("Transfer-Encoding", "").lower() == "chunked"
        self._total = int(length) if length.isdecimal() and not chunked else None
        if self._total:
            self.output.expect(self._total)
        self._progress(0, self._total)

    def _go_on(self, response: _Response) -> None:
        part = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        same = _version(response.headers).strong in ("", self.version.strong)
        if not (part and same and self.output.size and int(part[1]) == self.output.size):
            self.restart()
            raise Interrupted(f"another part than asked for (Content-Range: {response.headers.get('Content-Range')})")
        if self._total is None and part[2] != "*":
            self._total = int(part[2])

    def take(self, data: bytes) -> None:
        """Write what came."""
        self.output.write(data)
        self.sha256.update(data)
        self._progress(self.output.size, self._total)

    def restart(self) -> None:
        """Forget what came."""
        self.output.restart()
        self.sha256 = hashlib.sha256()
        self.version = Version()
        self._total = None


def _version(headers: Message) -> Version:
    return Version(headers.get("ETag", ""), headers.get("Last-Modified", ""))
