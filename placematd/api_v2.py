"""placemat v2's HTTP API, for its `pmctl2` and for scripts: served on the TCP listener, which is off unless asked for.

GET /nodes, GET /nodes/NAME and POST /nodes/NAME/start|stop|restart, with v2's shapes and statuses (v2's
pkg/placemat/server.go); but the CPU count and the serial number are the true ones. A TCP port on the loopback address
is open to every local user and to what browsers send, so there is nothing else here, and foreign pages are refused.
"""

import json
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from tornado.web import Application, HTTPError, RequestHandler

from .api import Backend, PowerRequest
from .errors import NotFound, PlacematError
from .status import Json

ACTIONS = ("start", "stop", "restart")


def v2_node(node: Json) -> Json:
    """A node of our API as v2's NodeStatus. v2 could not have two NICs on one network; the first one is shown."""
    power = node["power"] if node["power"] in ("On", "Off") else "Unknown"
    return {
        "name": node["name"],
        "taps": {nic["network"]: nic["tap"] for nic in reversed(node["interfaces"])},
        "volumes": node["volumes"],
        "cpu": node["cpu"],
        "memory": node["memory"],
        "uefi": node["uefi"],
        "tpm": node["tpm"],
        "smbios": node["smbios"],
        "power_status": power,
        "socket_path": node["console"],
    }


def is_local(host: str) -> bool:
    """Whether a Host header names this machine as an address or localhost: a rebound DNS name does neither."""
    name = urlsplit(f"//{host}").hostname or ""
    try:
        ip_address(name)
    except ValueError:
        return name == "localhost"
    return True


class V2Handler(RequestHandler):
    """The base: v2's way to fail is a status with `null`."""

    def initialize(self, backend: Backend) -> None:
        """Keep the service."""
        self.backend = backend

    def prepare(self) -> None:
        """Refuse what a browser sends for a page of another site (DNS rebinding, cross-site POST)."""
        if "Origin" in self.request.headers or not is_local(self.request.host):
            raise HTTPError(403)

    def reply(self, value: object) -> None:
        """Finish with a JSON value."""
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(json.dumps(value))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Finish with null."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        if isinstance(error, PlacematError):
            self.set_status(404 if isinstance(error, NotFound) else 500)
        self.reply(None)


class NodesHandler(V2Handler):
    """GET /nodes."""

    async def get(self) -> None:
        """All nodes, in file order."""
        self.reply([v2_node(node) for node in await self.backend.node_statuses()])


class NodeHandler(V2Handler):
    """GET /nodes/NAME."""

    async def get(self, name: str) -> None:
        """One node."""
        self.reply(v2_node(await self.backend.node_status(name)))


class ActionHandler(V2Handler):
    """POST /nodes/NAME/ACTION."""

    async def post(self, name: str, action: str) -> None:
        """Switch a node; 404 for an unknown one, 400 for an unknown action."""
        await self.backend.node_status(name)
        if action not in ACTIONS:
            raise HTTPError(400)
        await self.backend.node_action(name, action, PowerRequest())
        self.reply(None)


class MissingHandler(V2Handler):
    """Every other path."""

    def prepare(self) -> None:
        """Answer 404 whatever the method."""
        raise HTTPError(404)


def application(backend: Backend) -> Application:
    """v2's routes."""
    arguments = {"backend": backend}
    return Application(
        [
            (r"/nodes", NodesHandler, arguments),
            (r"/nodes/([^/]+)", NodeHandler, arguments),
            (r"/nodes/([^/]+)/([^/]+)", ActionHandler, arguments),
        ],
        default_handler_class=MissingHandler,
        default_handler_args=arguments,
        log_function=lambda handler: None,
    )
