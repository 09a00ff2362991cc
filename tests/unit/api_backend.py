"""A small cluster for the HTTP API's tests: what the API asks of the service, without a host."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_unix_socket
from tornado.web import Application

from placematd.api import MAX_BODY_BYTES, PowerRequest
from placematd.console import ConsoleHub
from placematd.errors import NotFound, WrongState
from placematd.events import Events
from placematd.forward import Forward, forward_json

NODE = {
    "name": "worker-1",
    "power": "On",
    "unit": "placemat-lab-node-worker\\x2d1.service",
    "unit_state": "running",
    "interfaces": [
        {"network": "net0", "tap": "pmt-1", "mac": "52:54:00:00:00:01"},
        {"network": "net0", "tap": "pmt-2", "mac": "52:54:00:00:00:02"},
        {"network": "net1", "tap": "pmt-3", "mac": "52:54:00:00:00:03"},
    ],
    "volumes": ["root"],
    "cpu": 6,
    "memory": "2G",
    "uefi": False,
    "secure_boot": False,
    "tpm": True,
    "smbios": {"manufacturer": "cybozu", "product": "mk2", "serial": "1234abcd"},
    "uuid": "00000000-0000-0000-0000-000000000001",
    "accelerator": "tcg",
    "console": "/run/placemat/lab/node/worker-1/console",
    "bmc_address": None,
}


class FakeForwards:
    """Forwards that lead nowhere."""

    def __init__(self) -> None:
        self.made: dict[str, Forward] = {}

    async def all(self) -> list[dict[str, Any]]:
        return [forward_json(forward) for forward in self.made.values()]

    async def add(self, forward: Forward) -> dict[str, Any]:
        if forward.name in self.made:
            raise WrongState(f"{forward.protocol} port {forward.local} is forwarded already")
        self.made[forward.name] = forward
        return forward_json(forward)

    async def remove(self, name: str) -> None:
        if self.made.pop(name, None) is None:
            raise NotFound(f"no forward {name}")


class FakeBackend:
    """One node; `error` is raised by whatever is asked next."""

    def __init__(self, console: Path) -> None:
        self.events = Events()
        self.forwards: Any = FakeForwards()
        self.hub = ConsoleHub(console)
        self.node: dict[str, Any] = dict(NODE)
        self.actions: list[tuple[str, str, PowerRequest]] = []
        self.reloads: list[bool] = []
        self.error: Exception | None = None

    def _check(self, name: str = "worker-1") -> None:
        if self.error:
            raise self.error
        if name != "worker-1":
            raise NotFound(f"no node {name} in cluster lab (nodes: worker-1)")

    async def cluster_status(self) -> dict[str, Any]:
        self._check()
        return {"name": "lab", "state": "running", "nodes": [self.node]}

    async def node_statuses(self) -> list[dict[str, Any]]:
        self._check()
        return [self.node]

    async def node_status(self, name: str) -> dict[str, Any]:
        self._check(name)
        return self.node

    async def node_action(self, name: str, action: str, request: PowerRequest) -> dict[str, Any]:
        self._check(name)
        self.actions.append((name, action, request))
        self.node["power"] = "Off" if action == "stop" else "On"
        return self.node

    def console(self, name: str) -> ConsoleHub:
        self._check(name)
        return self.hub

    async def volumes(self) -> list[dict[str, Any]]:
        self._check()
        return [{"node": "worker-1", "name": "@tpm"}]

    async def reset_volume(self, node: str, volume: str) -> dict[str, Any]:
        self._check(node)
        if self.node["power"] != "Off":
            raise WrongState(f"node {node} is On: stop it first")
        return {"node": node, "name": volume}

    async def reload(self, dry_run: bool) -> list[dict[str, str]]:
        self._check()
        self.reloads.append(dry_run)
        return [{"action": "create", "resource": "unit x", "reason": "missing"}]


@asynccontextmanager
async def serving(application: Application, folder: Path) -> AsyncIterator[Path]:
    """The application on a Unix socket, with placematd's limits."""
    path = folder / "api.sock"
    server = HTTPServer(application, max_body_size=MAX_BODY_BYTES)
    server.add_socket(bind_unix_socket(str(path)))
    try:
        yield path
    finally:
        server.stop()
        await server.close_all_connections()
        path.unlink()


async def ask(path: Path, method: str, target: str, body: bytes = b"", headers: str = "") -> tuple[int, bytes, bytes]:
    """Status, head and body of the answer to one request."""
    reader, writer = await asyncio.open_unix_connection(path)
    host = "" if "Host:" in headers else "Host: localhost\r\n"
    length = f"Content-Length: {len(body)}\r\n" if body or method == "POST" else ""
    writer.write(f"{method} {target} HTTP/1.1\r\n{host}Connection: close\r\n{length}{headers}\r\n".encode() + body)
    try:
        head, _, rest = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
        await writer.wait_closed()
    return int(head.split()[1]), head, rest


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a scenario, for half a minute at most."""

    async def limited() -> None:
        await asyncio.wait_for(test(), 30)

    asyncio.run(limited())


class Listener:
    """A listening Unix socket that plays QEMU's console; its one client is `connection`."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self._socket.setblocking(False)

    async def accept(self) -> socket.socket:
        connection, _ = await asyncio.get_running_loop().sock_accept(self._socket)
        connection.setblocking(False)
        return connection

    def close(self) -> None:
        self._socket.close()
