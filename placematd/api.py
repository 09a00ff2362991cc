"""The HTTP API of one cluster, as tornado handlers; JSON in, JSON out.

method and path                             answer
------------------------------------------  ------------------------------------------------------------------
GET  /v1/cluster                            the cluster: state, networks, namespaces with apps, nodes
GET  /v1/nodes, /v1/nodes/NAME              all nodes, one node
POST /v1/nodes/NAME/start|stop|restart      {"graceful": bool, "timeout_seconds": number}, both optional -> the node
POST /v1/nodes/NAME/console                 with "Upgrade: tcp": 101 and then the console's raw bytes, both ways
GET  /v1/events                             events as they happen, one JSON object a line (application/x-ndjson)
POST /v1/reload[?dry_run=1]                 read the files again; {"changes": [...]}
GET  /v1/volumes                            volumes, also of nodes that are no more (`storage.volume_json`)
POST /v1/volumes/NODE/VOLUME/reset          delete a volume and make it anew; its node must be off -> what it was
GET  /v1/forwards                           port forwards
POST /v1/forwards                           {"local", "remote", "protocol"}, as `forward.parse` takes them
DELETE /v1/forwards/PROTOCOL-LOCAL          take a forward away
/v1/bmcs..., /v1/bmc-ca                     BMCs: see `api_bmc`

An error is {"error": text, "hint": text, "mistakes": [text, ...]} with a status from `api_handler.STATUSES`.
"""

import json
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, Protocol

from tornado.iostream import IOStream, StreamClosedError
from tornado.web import Application, HTTPError

from .api_bmc import Bmcs
from .api_bmc import routes as bmc_routes
from .api_handler import NAME, JsonHandler
from .console import ConsoleHub
from .events import Events
from .forward import parse
from .forwards import Forwards
from .relay import relay

MAX_BODY_BYTES = 64 * 1024


@dataclass(frozen=True)
class PowerRequest:
    """The body of a node action."""

    graceful: bool = False
    timeout_seconds: float = 60.0

    @staticmethod
    def parse(body: bytes) -> "PowerRequest":
        """From JSON; an empty body means the defaults. Raises ValueError on anything else."""
        if not body:
            return PowerRequest()
        fields = json.loads(body)
        if not isinstance(fields, dict) or fields.keys() - {"graceful", "timeout_seconds"}:
            raise ValueError('expected a JSON object with "graceful" and "timeout_seconds", both optional')
        request = PowerRequest(**fields)
        if not isinstance(request.graceful, bool):
            raise ValueError('"graceful" must be true or false')
        if isinstance(request.timeout_seconds, bool) or not isinstance(request.timeout_seconds, int | float):
            raise ValueError('"timeout_seconds" must be a number')
        if not 0 < request.timeout_seconds <= 3600:
            raise ValueError('"timeout_seconds" must be above 0 and at most 3600')
        return request


class Backend(Protocol):
    """What the API needs of the service."""

    events: Events
    forwards: Forwards

    async def cluster_status(self) -> dict[str, Any]:
        """The cluster as JSON."""
        ...

    async def node_statuses(self) -> list[dict[str, Any]]:
        """All nodes as JSON, in file order."""
        ...

    async def node_status(self, name: str) -> dict[str, Any]:
        """One node as JSON; raises NotFound."""
        ...

    def node_action(self, name: str, action: str, request: PowerRequest) -> Awaitable[dict[str, Any]]:
        """Start, stop or restart a node and return it as JSON."""
        ...

    def console(self, name: str) -> ConsoleHub:
        """A node's console; raises NotFound."""
        ...

    async def volumes(self) -> list[dict[str, Any]]:
        """All volumes as JSON (`storage.volume_json`)."""
        ...

    async def reset_volume(self, node: str, volume: str) -> dict[str, Any]:
        """Delete a volume and make it anew; raises NotFound, and WrongState while its node is on."""
        ...

    def reload(self, dry_run: bool) -> Awaitable[list[dict[str, str]]]:
        """Apply the edited files, or say what would change."""
        ...


class Handler(JsonHandler):
    """The base of these handlers."""

    def initialize(self, backend: Backend) -> None:
        """Keep the service (tornado calls this with the route's arguments)."""
        self.backend = backend


class ClusterHandler(Handler):
    """GET /v1/cluster."""

    async def get(self) -> None:
        """Answer with the whole cluster."""
        self.reply(await self.backend.cluster_status())


class NodesHandler(Handler):
    """GET /v1/nodes."""

    async def get(self) -> None:
        """Answer with all nodes."""
        self.reply(await self.backend.node_statuses())


class NodeHandler(Handler):
    """GET /v1/nodes/NAME."""

    async def get(self, name: str) -> None:
        """Answer with one node."""
        self.reply(await self.backend.node_status(name))


class ActionHandler(Handler):
    """POST /v1/nodes/NAME/start|stop|restart."""

    async def post(self, name: str, action: str) -> None:
        """Do it, then answer with the node."""
        self.reply(await self.backend.node_action(name, action, PowerRequest.parse(self.request.body)))


class ReloadHandler(Handler):
    """POST /v1/reload."""

    async def post(self) -> None:
        """Answer with the changes."""
        dry_run = self.get_query_argument("dry_run", "0") not in ("0", "false", "")
        self.reply({"changes": await self.backend.reload(dry_run)})


class VolumesHandler(Handler):
    """GET /v1/volumes."""

    async def get(self) -> None:
        """Answer with all volumes."""
        self.reply(await self.backend.volumes())


class ResetHandler(Handler):
    """POST /v1/volumes/NODE/VOLUME/reset."""

    async def post(self, node: str, volume: str) -> None:
        """Reset it and answer with what it was."""
        self.reply(await self.backend.reset_volume(node, volume))


class ForwardsHandler(Handler):
    """GET and POST /v1/forwards."""

    async def get(self) -> None:
        """Answer with all forwards."""
        self.reply(await self.backend.forwards.all())

    async def post(self) -> None:
        """Make one and answer with it."""
        fields = json.loads(self.request.body)
        if not isinstance(fields, dict) or not all(isinstance(value, str) for value in fields.values()):
            raise ValueError('expected a JSON object of texts: "local", "remote" and, if it is not tcp, "protocol"')
        if fields.keys() - {"protocol"} != {"local", "remote"}:
            raise ValueError('expected "local" and "remote"')
        self.reply(await self.backend.forwards.add(parse(**fields)))


class ForwardHandler(Handler):
    """DELETE /v1/forwards/NAME."""

    async def delete(self, name: str) -> None:
        """Take it away."""
        await self.backend.forwards.remove(name)
        self.set_status(204)


class EventsHandler(Handler):
    """GET /v1/events."""

    async def get(self) -> None:
        """Write events, the recent ones first, until the client goes away."""
        self.set_header("Content-Type", "application/x-ndjson")
        subscription = self.backend.events.subscribe()
        self._subscription = subscription
        try:
            await self.flush()
            while event := await subscription.get():
                self.write(json.dumps(event) + "\n")
                await self.flush()
        except StreamClosedError:
            return
        finally:
            self.backend.events.unsubscribe(subscription)

    def on_connection_close(self) -> None:
        """A client that left while nothing happened must not be kept waiting for."""
        self.backend.events.unsubscribe(self._subscription)


class ConsoleHandler(Handler):
    """POST /v1/nodes/NAME/console."""

    async def post(self, name: str) -> None:
        """Switch protocols, then relay bytes between client and console until one of them ends."""
        hub = self.backend.console(name)
        if self.request.headers.get("Upgrade", "").lower() != "tcp":
            self.set_header("Upgrade", "tcp")
            raise HTTPError(426)
        stream: IOStream = self.detach()
        await stream.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        await relay(stream, hub)


class MissingHandler(Handler):
    """Every other path."""

    def prepare(self) -> None:
        """Answer 404 whatever the method."""
        raise HTTPError(404)


def application(backend: Backend, bmcs: Bmcs | None = None) -> Application:
    """The API's routes; those of BMCs only where there are any."""
    routes = [
        (r"/v1/cluster", ClusterHandler),
        (r"/v1/nodes", NodesHandler),
        (rf"/v1/nodes/{NAME}", NodeHandler),
        (rf"/v1/nodes/{NAME}/(start|stop|restart)", ActionHandler),
        (rf"/v1/nodes/{NAME}/console", ConsoleHandler),
        (r"/v1/events", EventsHandler),
        (r"/v1/reload", ReloadHandler),
        (r"/v1/volumes", VolumesHandler),
        (rf"/v1/volumes/{NAME}/(@?[A-Za-z0-9][A-Za-z0-9_.-]*)/reset", ResetHandler),
        (r"/v1/forwards", ForwardsHandler),
        (r"/v1/forwards/([^/]+)", ForwardHandler),
    ]
    return Application(
        [
            *((pattern, handler, {"backend": backend}) for pattern, handler in routes),
            *(bmc_routes(bmcs) if bmcs else ()),
        ],
        default_handler_class=MissingHandler,
        default_handler_args={"backend": backend},
        log_function=lambda handler: None,
    )
