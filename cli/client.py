"""The HTTP API of a cluster's service over its Unix socket: answers, the event stream, consoles."""

import http.client
import io
import json
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast
from urllib.parse import quote

from placematd.errors import NotFound, WrongState
from placematd.facts import API_GROUP

from .answers import Bmc, BmcState, Change, Cluster, Event, Forward, Node, SelEntry, Volume
from .errors import BadUsage, Refused, Unreachable

TIMEOUT_SECONDS = 15.0
RELOAD_TIMEOUT_SECONDS = 3600.0
_MAX_HEAD_BYTES = 64 * 1024


class _UnixConnection(http.client.HTTPConnection):
    """An HTTP connection over a Unix stream socket."""

    def __init__(self, path: Path, timeout_seconds: float | None) -> None:
        super().__init__("localhost", timeout=timeout_seconds)
        self._path = path
        self._timeout_seconds = timeout_seconds

    def connect(self) -> None:
        """Connect to the socket instead of a host."""
        self.sock = _connect(self._path, self._timeout_seconds)


def _connect(path: Path, timeout_seconds: float | None) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_seconds)
        connection.connect(str(path))
    except OSError:
        connection.close()
        raise
    return connection


@dataclass(frozen=True)
class Console:
    """A console's byte stream; `first` is what came with the answer."""

    connection: socket.socket
    first: bytes


class EventStream:
    """Events as they happen, the recent ones first; `close` may be called from another thread and ends it."""

    def __init__(self, connection: _UnixConnection, response: http.client.HTTPResponse, raw: socket.socket) -> None:
        self._connection, self._response, self._socket = connection, response, raw

    def __iter__(self) -> Iterator[Event]:
        """Until the service or `close` ends the stream."""
        try:
            while line := self._response.readline():
                yield cast(Event, json.loads(line))
        except (OSError, ValueError, http.client.HTTPException):
            return  # cut off in the middle of a line
        finally:
            self._response.close()
            self._connection.close()

    def close(self) -> None:
        """End the stream: the reader sees its end."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it ended by itself


class Api:
    """The API of one cluster. Every call raises Unreachable where the service does not answer.

    Its errors become NotFound (404), WrongState (409), BadUsage (400) and Refused (the others).
    """

    def __init__(self, cluster: str, path: Path) -> None:
        self.cluster = cluster
        self._path = path

    @property
    def has_socket(self) -> bool:
        """Whether there is something to connect to that we may see; a killed service leaves its socket."""
        return os.access(self._path, os.F_OK)

    def status(self) -> Cluster:
        """The whole cluster."""
        return cast(Cluster, self._call("GET", "/v1/cluster"))

    def nodes(self) -> list[Node]:
        """All nodes, in file order."""
        return cast(list[Node], self._call("GET", "/v1/nodes"))

    def node(self, name: str) -> Node:
        """One node."""
        return cast(Node, self._call("GET", f"/v1/nodes/{quote(name, safe='')}"))

    def node_action(
        self, name: str, action: Literal["start", "stop", "restart"], *, graceful: bool, timeout_seconds: float
    ) -> Node:
        """Switch a node; returns when it is done."""
        path = f"/v1/nodes/{quote(name, safe='')}/{action}"
        body = {"graceful": graceful, "timeout_seconds": timeout_seconds}
        return cast(Node, self._call("POST", path, body, timeout_seconds=timeout_seconds + 2 * TIMEOUT_SECONDS))

    def reload(self, *, dry_run: bool = False) -> list[Change]:
        """Read the files again; `dry_run` only tells the changes."""
        path = "/v1/reload" + ("?dry_run=1" if dry_run else "")
        answer = self._call("POST", path, {}, timeout_seconds=RELOAD_TIMEOUT_SECONDS)
        return cast(dict[str, list[Change]], answer)["changes"]

    def forwards(self) -> list[Forward]:
        """All port forwards."""
        return cast(list[Forward], self._call("GET", "/v1/forwards"))

    def add_forward(self, local: str, remote: str, protocol: str) -> Forward:
        """Open a port; the ends as `placematd.forward.parse` takes them."""
        body = {"local": local, "remote": remote, "protocol": protocol}
        return cast(Forward, self._call("POST", "/v1/forwards", body))

    def delete_forward(self, name: str) -> None:
        """Close the port of the forward with this `placematd.forward.Forward.name`."""
        self._call("DELETE", f"/v1/forwards/{quote(name, safe='')}")

    def volumes(self) -> list[Volume]:
        """All volumes, those of removed nodes too."""
        return cast(list[Volume], self._call("GET", "/v1/volumes"))

    def reset_volume(self, node: str, volume: str) -> Volume:
        """Delete a volume and have it made anew, which may take as long as copying its image; returns what it was."""
        path = f"/v1/volumes/{quote(node, safe='')}/{quote(volume, safe='@')}/reset"
        return cast(Volume, self._call("POST", path, {}, timeout_seconds=RELOAD_TIMEOUT_SECONDS))

    def bmcs(self) -> list[Bmc]:
        """All BMCs, in file order."""
        return cast(dict[str, list[Bmc]], self._call("GET", "/v1/bmcs"))["bmcs"]

    def bmc(self, node: str) -> BmcState:
        """One BMC with its state."""
        return cast(BmcState, self._call("GET", f"/v1/bmcs/{quote(node, safe='')}"))

    def sel(self, node: str) -> list[SelEntry]:
        """The event log of a BMC, oldest first."""
        answer = self._call("GET", f"/v1/bmcs/{quote(node, safe='')}/sel")
        return cast(dict[str, list[SelEntry]], answer)["entries"]

    def clear_sel(self, node: str) -> None:
        """Empty the event log of a BMC."""
        self._call("DELETE", f"/v1/bmcs/{quote(node, safe='')}/sel")

    def bmc_authority(self) -> str:
        """The certificate of the CA that vouches for the BMCs, PEM."""
        return cast(dict[str, str], self._call("GET", "/v1/bmc-ca"))["certificate"]

    def events(self) -> EventStream:
        """The event stream; between events it waits without limit."""
        connection = _UnixConnection(self._path, TIMEOUT_SECONDS)
        try:
            connection.request("GET", "/v1/events")
            raw = connection.sock
            response = connection.getresponse()
            if response.status != http.client.OK:
                _raise(response.status, response.read())
            raw.settimeout(None)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise self._unreachable(error) from error
        except BaseException:
            connection.close()
            raise
        return EventStream(connection, response, raw)

    def console(self, name: str, timeout_seconds: float = TIMEOUT_SECONDS) -> Console:
        """A node's console as a byte stream both ways (HTTP Upgrade, as `docker attach` does)."""
        path = f"/v1/nodes/{quote(name, safe='')}/console"
        head = f"POST {path} HTTP/1.1", "Host: localhost", "Connection: Upgrade", "Upgrade: tcp", "Content-Length: 0"
        request = "\r\n".join([*head, "", ""])
        try:
            connection = _connect(self._path, timeout_seconds)
        except OSError as error:
            raise self._unreachable(error) from error
        try:
            connection.sendall(request.encode())
            status, first = _read_upgrade(connection)
            if status != http.client.SWITCHING_PROTOCOLS:
                _raise(status, first)
        except (OSError, ValueError) as error:
            connection.close()
            raise self._unreachable(error) from error
        except BaseException:
            connection.close()
            raise
        connection.settimeout(None)
        return Console(connection, first)

    def _call(self, method: str, path: str, body: object = None, *, timeout_seconds: float = TIMEOUT_SECONDS) -> object:
        connection = _UnixConnection(self._path, timeout_seconds)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            status, answer = response.status, response.read()
            value: object = json.loads(answer) if status == http.client.OK else None
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        finally:
            connection.close()
        if status not in (http.client.OK, http.client.NO_CONTENT):
            _raise(status, answer)
        return value

    def _unreachable(self, error: Exception) -> Unreachable:
        if isinstance(error, FileNotFoundError | ConnectionRefusedError):
            return Unreachable(f"cluster {self.cluster} is not running (placemat-cli up {self.cluster})")
        if isinstance(error, PermissionError):
            hint = f"be root, or join the group: usermod --append --groups {API_GROUP} $USER"
            return Unreachable(f"connect to {self._path}: permission denied ({hint})")
        reason = "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
        hint = f"look: placemat-cli logs --daemon, systemctl status placemat@{self.cluster}"
        return Unreachable(f"the service of cluster {self.cluster} does not answer: {reason} ({hint})")


def _read_upgrade(connection: socket.socket) -> tuple[int, bytes]:
    """Status and what follows the head: the stream's first bytes, or the whole body of an error.

    Raises ValueError on what is not HTTP. (http.client would read ahead and keep the stream's first bytes.)
    """
    data = bytearray()
    while (end := data.find(b"\r\n\r\n")) < 0:
        chunk = connection.recv(4096)
        if not chunk or len(data) > _MAX_HEAD_BYTES:
            raise ValueError("the answer ends before its head is complete")
        data += chunk
    status_line, _, fields = bytes(data[: end + 4]).partition(b"\r\n")
    body = bytes(data[end + 4 :])
    status = int(status_line.split()[1])
    if status != http.client.SWITCHING_PROTOCOLS:
        length = int(http.client.parse_headers(io.BytesIO(fields)).get("Content-Length", "0"))
        while len(body) < length and (chunk := connection.recv(4096)):
            body += chunk
    return status, body


def _raise(status: int, body: bytes) -> None:
    """Raise the service's error as one of ours."""
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    fields: Mapping[str, object] = answer if isinstance(answer, dict) else {}
    text, hint, mistakes = fields.get("error"), fields.get("hint"), fields.get("mistakes")
    message = str(text or f"the service answered with status {status}")
    if isinstance(mistakes, list) and mistakes:
        message = "\n".join(map(str, mistakes))
    elif hint and str(hint) not in message:
        message += f" ({hint})"
    kinds = {400: BadUsage, 404: NotFound, 409: WrongState}
    raise kinds.get(status, Refused)(message)
