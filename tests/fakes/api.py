"""The HTTP API of a cluster's service as a small real server on a Unix socket, for tests of its clients.

with FakeApi(tmp_path / "lab" / "api.sock") as api:
    api.publish("step", "making bridge net0")
    ...
    assert api.requests == [("GET", "/v1/events", None)]
"""

import json
import socket
import socketserver
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import unquote


def node(name: str, power: str = "On", **fields: object) -> dict[str, object]:
    """A node as the API shows it."""
    return {
        "name": name,
        "power": power,
        "unit": f"placemat-lab-node-{name}.service",
        "unit_state": "running" if power == "On" else "inactive",
        "interfaces": [{"network": "net0", "tap": "pmt-abc", "mac": "52:54:00:00:00:01"}],
        "volumes": ["root", "data"],
        "cpu": 2,
        "memory": "2G",
        "uefi": False,
        "secure_boot": False,
        "tpm": True,
        "smbios": {"manufacturer": "cybozu", "product": "mk2", "serial": "1234abcd"},
        "accelerator": "tcg",
        "console": f"/run/placemat/lab/node/{name}/console",
        "bmc_address": "172.16.1.2" if name == "worker-1" else None,
        "pid": 4242 if power == "On" else None,
    } | fields


def cluster(**fields: object) -> dict[str, object]:
    """A cluster as the API shows it, without its nodes."""
    return {
        "name": "lab",
        "state": "running",
        "step": "",
        "error": "",
        "warnings": [],
        "accelerator": "tcg",
        "networks": [
            {"name": "net0", "type": "external", "addresses": ["172.16.0.1/24", "fd00::1/64"]},
            {"name": "inside", "type": "internal", "addresses": []},
        ],
        "namespaces": [
            {
                "name": "boot",
                "interfaces": [
                    {"name": "eth0", "network": "net0", "addresses": ["172.16.0.2/24"]},
                    {"name": "eth1", "network": "inside", "addresses": []},
                ],
                "apps": [
                    {"name": "dnsmasq", "unit": "u", "state": "running", "command": "dnsmasq -d"},
                    {"name": "web", "unit": "v", "state": "failed", "command": "web"},
                ],
            }
        ],
    } | fields


def forward(local: str, remote: str, protocol: str) -> dict[str, object]:
    """A port forward as the API shows it."""
    address, _, port = local.rpartition(":")
    netns, _, end = remote.partition(":")
    host, _, remote_port = end.rpartition(":")
    return {
        "protocol": protocol,
        "local_address": address.strip("[]") or "localhost",
        "local_port": int(port),
        "netns": netns,
        "pod": netns,
        "remote_host": host.strip("[]"),
        "remote_port": int(remote_port),
    }


CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


def bmc(name: str, **fields: object) -> dict[str, object]:
    """A BMC with its state as the API shows it."""
    return {
        "node": name,
        "address": "172.16.1.2",
        "source": "file",
        "ipmi": True,
        "cipher_suites": [3, 17],
        "users": [
            {"name": "admin", "role": "Administrator", "enabled": True},
            {"name": "op", "role": "Operator", "enabled": False},
        ],
        "unit": f"placemat-lab-bmc-{name}.socket",
        "unit_state": "listening",
        "last_session": {
            "user": "admin",
            "protocol": "ipmi",
            "remote": "172.16.1.1",
            "time": "2026-01-02T03:04:05+00:00",
        },
        "power": "On",
        "restart_cause": "chassis-control",
        "boot": {"enabled": "Once", "target": "Pxe", "mode": "UEFI"},
        "watchdog": {"running": True, "action": "reset", "seconds_left": 12.5},
        "media": [{"slot": "Cd", "image": "http://images/live.iso", "inserted": True}],
        "sel_entries": 2,
    } | fields


STATE = ("power", "restart_cause", "boot", "watchdog", "media", "sel_entries")
"""What only the answer about one BMC has."""


class FakeApi:
    """A cluster "lab" with two nodes; what a test changes in it shows in the next answer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.listened = path.with_name("listened")  # is there once a client has asked for events
        self.cluster = cluster()
        self.nodes = [node("worker-1"), node("worker-2", "Off")]
        self.forwards: dict[str, dict[str, object]] = {}
        self.changes: list[dict[str, str]] = []
        self.volumes: list[dict[str, object]] = []
        self.bmcs = [bmc("worker-1"), bmc("worker-2", address=None, source=None, last_session=None)]
        self.sel: list[dict[str, object]] = []
        self.errors: dict[str, tuple[int, object]] = {}  # path -> status and body
        self.requests: list[tuple[str, str, object]] = []
        self.consoles: list[socket.socket] = []
        self.console_opened = threading.Semaphore(0)
        self.node_missed = threading.Semaphore(0)
        self.greeting = b"login: "
        self._events: list[bytes] = []
        self._changed = threading.Condition()
        self._streams: set[socket.socket] = set()
        self._closing = False

    def __enter__(self) -> "FakeApi":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.unlink(missing_ok=True)
        self._closing = False
        self._server = _Server(str(self.path), _Handler)
        self._server.api = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def stop(self) -> None:
        """As when the service is killed: every connection ends."""
        if self._closing:
            return
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for stream in [*self.consoles, *self._streams]:
            with suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self.consoles.clear()
        self.path.unlink(missing_ok=True)

    def publish(self, kind: str, message: str, **fields: object) -> None:
        """An event to all who listen, and to those who will."""
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        event = {"time": time, "kind": kind, "message": message} | fields
        with self._changed:
            self._events.append(json.dumps(event).encode() + b"\n")
            self._changed.notify_all()

    def fail(self, path: str, status: int, error: str, hint: str = "", mistakes: tuple[str, ...] = ()) -> None:
        """Answer a path with an error from now on."""
        self.errors[path] = (status, {"error": error, "hint": hint, "mistakes": list(mistakes)})

    def stream_events(self, write: Callable[[bytes], object]) -> None:
        """Write events until the server closes or the client leaves."""
        sent = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda seen=sent: len(self._events) > seen or self._closing)
                if self._closing:
                    return
                new, sent = self._events[sent:], len(self._events)
            for line in new:
                write(line)

    def find(self, name: str) -> dict[str, object] | None:
        """A node, or None."""
        found = next((found for found in self.nodes if found["name"] == name), None)
        if found is None:
            self.node_missed.release()
        return found

    def find_bmc(self, node: str) -> dict[str, object] | None:
        """The BMC of a node, or None."""
        return next((found for found in self.bmcs if found["node"] == node), None)


class _Server(socketserver.ThreadingUnixStreamServer):
    api: FakeApi

    def get_request(self) -> tuple[socket.socket, str]:
        connection, _ = super().get_request()
        self.api._streams.add(connection)
        return connection, "local"

    def shutdown_request(self, request: socket.socket) -> None:
        self.api._streams.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that left early is no failure of the test."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        api = self._begin(None)
        parts = [unquote(part) for part in self.path.split("/")[2:]]
        if self._failed():
            return
        match parts:
            case ["cluster"]:
                self._reply(200, api.cluster | {"nodes": api.nodes})
            case ["nodes"]:
                self._reply(200, api.nodes)
            case ["nodes", name] if api.find(name):
                self._reply(200, api.find(name))
            case ["forwards"]:
                self._reply(200, list(api.forwards.values()))
            case ["volumes"]:
                self._reply(200, api.volumes)
            case ["bmcs"]:
                short = [{key: bmc[key] for key in bmc.keys() - set(STATE)} for bmc in api.bmcs]
                self._reply(200, {"bmcs": short})
            case ["bmcs", name] if api.find_bmc(name):
                self._reply(200, api.find_bmc(name))
            case ["bmcs", name, "sel"] if api.find_bmc(name):
                self._reply(200, {"entries": api.sel})
            case ["bmc-ca"]:
                self._reply(200, {"certificate": CERTIFICATE})
            case ["events"]:
                self._stream()
            case _:
                self._reply(404, {"error": f"no {self.path} in cluster lab", "hint": "", "mistakes": []})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        wanted = json.loads(body) if body else None
        api = self._begin(wanted)
        if self._failed():
            return
        match [unquote(part) for part in self.path.split("/")[2:]]:
            case ["nodes", name, "console"] if api.find(name):
                self._console()
            case ["nodes", name, ("start" | "stop" | "restart") as action] if found := api.find(name):
                found["power"] = "Off" if action == "stop" else "On"
                self._reply(200, found)
            case ["forwards"] if isinstance(wanted, dict):
                made = forward(**wanted)
                api.forwards[f"{made['protocol']}-{wanted['local']}"] = made
                self._reply(200, made)
            case ["volumes", node, name, "reset"]:
                found = [item for item in api.volumes if (item["node"], item["name"]) == (node, name)]
                self._reply(200, found[0])
            case ["reload"] | ["reload?dry_run=1"]:
                self._reply(200, {"changes": api.changes})
            case _:
                self._reply(404, {"error": f"no {self.path} in cluster lab", "hint": "", "mistakes": []})

    def do_DELETE(self) -> None:
        api = self._begin(None)
        if self._failed():
            return
        match [unquote(part) for part in self.path.split("/")[2:]]:
            case ["bmcs", name, "sel"] if api.find_bmc(name):
                api.sel.clear()
                self.send_response(204)
                self.end_headers()
            case ["forwards", name] if api.forwards.pop(name, None):
                self.send_response(204)
                self.end_headers()
            case _:
                self._reply(404, {"error": f"no {self.path} in cluster lab", "hint": "", "mistakes": []})

    def _begin(self, body: object) -> FakeApi:
        api = self.server.api
        api.requests.append((self.command, self.path, body))
        return api

    def _failed(self) -> bool:
        found = self.server.api.errors.get(self.path)
        if found:
            self._reply(*found)
        return found is not None

    def _reply(self, status: int, value: object) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self) -> None:
        """Chunked, as tornado does it."""
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.server.api.listened.touch()
        self.close_connection = True
        self.server.api.stream_events(lambda line: self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line)))

    def _console(self) -> None:
        """101 and the greeting in one piece, then an echo in capitals."""
        api = self.server.api
        head = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        self.close_connection = True
        api.consoles.append(self.connection)
        self.connection.sendall(head + api.greeting)
        api.console_opened.release()
        while data := self.connection.recv(4096):
            self.connection.sendall(data.upper())

    def log_message(self, *_: object) -> None:
        """Quiet."""
