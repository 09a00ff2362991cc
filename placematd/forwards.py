"""The port forwards of a running cluster, made, listed and taken away as units (see `forward`)."""

import asyncio
from typing import Any

from .errors import NotFound, WrongState
from .forward import Forward, forward_json, of_description, owner_mark, unit_name, units
from .names import escape
from .plan_apps import NETNS_DIRECTORY
from .systemd import Systemd, UnitState


class Forwards:
    """What systemd knows is all there is, so forwards outlive placematd and end with the cluster's slice."""

    def __init__(self, cluster: str, systemd: Systemd) -> None:
        self._cluster = cluster
        self._systemd = systemd

    async def all(self) -> list[dict[str, Any]]:
        """All forwards as JSON, in the order of their names."""
        return [forward_json(forward) for _, forward in await self._existing()]

    async def add(self, forward: Forward) -> dict[str, Any]:
        """Open the port; raises NotFound for an unknown namespace, WrongState where the local end is taken."""
        if not (NETNS_DIRECTORY / forward.netns).exists():
            raise NotFound(f"no network namespace {forward.netns} (placemat-cli netns list shows them)")
        for _, other in await self._existing():
            if other.protocol == forward.protocol and other.local_port == forward.local_port:
                raise WrongState(f"{other.protocol} port {other.local} is forwarded to {other.remote} already")
        mark = owner_mark(self._cluster, forward)
        fields = (("PLACEMAT_CLUSTER", self._cluster), ("PLACEMAT_NETNS", forward.netns))
        await asyncio.to_thread(self._systemd.start, units(self._cluster, forward), mark, fields)
        return forward_json(forward)

    async def remove(self, name: str) -> None:
        """Close the port and end its connections; raises NotFound."""
        existing = {forward.name: forward for _, forward in await self._existing()}
        if name not in existing:
            raise NotFound(f"no forward of {name.replace('-', ' port ')} (forwards: {', '.join(existing) or 'none'})")
        for suffix in ("socket", "service"):
            unit = unit_name(self._cluster, name, suffix)
            await asyncio.to_thread(self._systemd.stop, unit)
            await asyncio.to_thread(self._systemd.reset_failed, unit)

    async def _existing(self) -> list[tuple[UnitState, Forward]]:
        pattern = f"placemat-{escape(self._cluster)}-forward-*.socket"
        states = await asyncio.to_thread(self._systemd.unit_states, pattern)
        forwards = [(state, of_description(state.description)) for state in states if state.mark]
        found = [(state, forward) for state, forward in forwards if forward and state.active == "active"]
        return sorted(found, key=lambda pair: pair[1].name)
