"""The BMCs of a cluster in the HTTP API (`api`), for people and scripts on this machine; no password is in it.

method and path             answer
--------------------------  ---------------------------------------------------------------------------------------
GET  /v1/bmcs               {"bmcs": [BMC, ...]}, in file order
GET  /v1/bmcs/NODE          a BMC with its state
GET  /v1/bmcs/NODE/sel      {"entries": [{"id", "time", "severity", "message", "data"}, ...]}, oldest first; data in hex
DELETE /v1/bmcs/NODE/sel    empty the event log
GET  /v1/bmc-ca             {"certificate": PEM}, of the CA that vouches for all BMCs

A BMC is {"node", "address": text or null, "source": "file", "guest" or null, "ipmi": bool, "cipher_suites": [int, ...],
"users": [{"name", "role", "enabled"}, ...], "unit", "unit_state", "last_session": null or {"user", "protocol",
"remote", "time"}}. Its state adds "power", "restart_cause", "boot": {"enabled", "target", "mode": text or null},
"watchdog": {"running": bool, "action", "seconds_left": number}, "media": [{"slot", "image", "inserted": bool}, ...] and
"sel_entries": int. Times are ISO 8601 in UTC.
"""

from typing import Any, Protocol

from .api_handler import NAME, JsonHandler
from .status import Json


class Bmcs(Protocol):
    """What the API needs of the BMCs. Nodes that do not exist raise NotFound."""

    async def statuses(self) -> list[Json]:
        """All BMCs as JSON, in file order."""
        ...

    async def status(self, node: str) -> Json:
        """One BMC with its state as JSON."""
        ...

    async def sel(self, node: str) -> list[Json]:
        """The event log as JSON, oldest first."""
        ...

    async def clear_sel(self, node: str) -> None:
        """Empty the event log."""
        ...

    async def authority(self) -> str:
        """The certificate of the CA, PEM."""
        ...


class BmcHandler(JsonHandler):
    """The base of these handlers."""

    def initialize(self, bmcs: Bmcs) -> None:
        """Keep the BMCs (tornado calls this with the route's arguments)."""
        self.bmcs = bmcs


class AllHandler(BmcHandler):
    """GET /v1/bmcs."""

    async def get(self) -> None:
        """Answer with all BMCs."""
        self.reply({"bmcs": await self.bmcs.statuses()})


class OneHandler(BmcHandler):
    """GET /v1/bmcs/NODE."""

    async def get(self, node: str) -> None:
        """Answer with one BMC."""
        self.reply(await self.bmcs.status(node))


class SelHandler(BmcHandler):
    """GET and DELETE /v1/bmcs/NODE/sel."""

    async def get(self, node: str) -> None:
        """Answer with the event log."""
        self.reply({"entries": await self.bmcs.sel(node)})

    async def delete(self, node: str) -> None:
        """Empty it."""
        await self.bmcs.clear_sel(node)
        self.set_status(204)


class AuthorityHandler(BmcHandler):
    """GET /v1/bmc-ca."""

    async def get(self) -> None:
        """Answer with the certificate."""
        self.reply({"certificate": await self.bmcs.authority()})


def routes(bmcs: Bmcs) -> list[tuple[str, type[BmcHandler], dict[str, Any]]]:
    """The routes, for tornado's Application."""
    handlers: list[tuple[str, type[BmcHandler]]] = [
        (r"/v1/bmcs", AllHandler),
        (rf"/v1/bmcs/{NAME}", OneHandler),
        (rf"/v1/bmcs/{NAME}/sel", SelHandler),
        (r"/v1/bmc-ca", AuthorityHandler),
    ]
    return [(pattern, handler, {"bmcs": bmcs}) for pattern, handler in handlers]
