"""What people are told about the BMCs of a cluster, as JSON: see `api_bmc`."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from datetime import UTC

from ..bmc.machine import SelEntry
from ..bmc_settings import effective
from ..facts import Settings
from ..models import Cluster, Node
from ..names import bmc_unit
from ..plan.bmc import speaks_ipmi
from ..status import Json
from .certificates import authority_pem
from .machine import Baseboard
from .rack import ACCOUNTS, Rack, nodes_with_bmc

CIPHER_SUITES = (3, 17)


class Reports:
    """`api_bmc.Bmcs` over a rack; `cluster` and `unit_states` give the present ones."""

    def __init__(
        self,
        settings: Settings,
        rack: Rack,
        cluster: Callable[[], Cluster],
        unit_states: Callable[[], Awaitable[Mapping[str, str]]],
    ) -> None:
        self._settings, self._rack = settings, rack
        self._cluster, self._unit_states = cluster, unit_states

    async def statuses(self) -> list[Json]:
        """See `api_bmc.Bmcs`."""
        states = await self._unit_states()
        nodes = [node for node in nodes_with_bmc(self._cluster()) if node.name in self._rack.boards]
        return [await self._short(node, states) for node in nodes]

    async def status(self, node: str) -> Json:
        """See `api_bmc.Bmcs`."""
        board = self._rack.board(node)
        found = next(item for item in self._cluster().nodes if item.name == node)
        return await self._short(found, await self._unit_states()) | await _state(board)

    async def sel(self, node: str) -> list[Json]:
        """See `api_bmc.Bmcs`."""
        return [_entry(entry) for entry in await self._rack.board(node).sel()]

    async def clear_sel(self, node: str) -> None:
        """See `api_bmc.Bmcs`."""
        await self._rack.board(node).clear_sel()

    async def authority(self) -> str:
        """See `api_bmc.Bmcs`."""
        return await asyncio.to_thread(authority_pem, self._settings.data_dir, self._settings.cluster)

    async def _short(self, node: Node, states: Mapping[str, str]) -> Json:
        cluster, board = self._cluster(), self._rack.board(node.name)
        address = board.identity.limits.address
        ipmi = speaks_ipmi(cluster, node)
        service, socket = (bmc_unit(cluster.name, node.name, suffix) for suffix in ("service", "socket"))
        running = states.get(service, "inactive")
        return {
            "node": node.name,
            "address": address or None,
            "source": ("file" if effective(cluster, node).address else "guest") if address else None,
            "ipmi": ipmi,
            "cipher_suites": list(CIPHER_SUITES) if ipmi else [],
            "users": await _users(board),
            "unit": service,
            "unit_state": running if running != "inactive" else _waiting(states.get(socket, "inactive")),
            "last_session": _login(board),
        }


def _waiting(socket: str) -> str:
    """A BMC without a process: systemd waits for its first packet."""
    return "listening" if socket == "active" else socket


def _login(board: Baseboard) -> Json | None:
    if board.last_login is None:
        return None
    login, time = board.last_login
    return asdict(login) | {"time": time.isoformat(timespec="seconds")}


async def _users(board: Baseboard) -> list[Json]:
    section = await board.load(ACCOUNTS)
    accounts = section.get("accounts", [])
    return [{key: account[key] for key in ("name", "role", "enabled")} for account in accounts]


async def _state(board: Baseboard) -> Json:
    boot, watchdog = await board.boot(), await board.watchdog()
    return {
        "power": await board.power_state(),
        "restart_cause": await board.restart_cause(),
        "boot": {"enabled": boot.enabled, "target": boot.target, "mode": boot.mode},
        "watchdog": {
            "running": watchdog.running,
            "action": watchdog.action,
            "seconds_left": watchdog.present / 10,
        },
        "media": [
            {"slot": media.slot, "image": media.image, "inserted": media.inserted} for media in await board.media()
        ],
        "sel_entries": len(await board.sel()),
    }


def _entry(entry: SelEntry) -> Json:
    return {
        "id": entry.record_id,
        "time": entry.time.astimezone(UTC).isoformat(timespec="seconds"),
        "severity": entry.severity,
        "message": entry.message,
        "data": entry.data.hex(),
    }
