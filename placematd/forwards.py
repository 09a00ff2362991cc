"""The port forwards of a running cluster, made, listed and taken away as units (see `forward`)."""

import asyncio
import re
from collections.abc import Collection
from typing import Any

from .errors import NotFound, StepError, WrongState
from .forward import Forward, forward_json, of_description, owner_mark, unit_name, units
from .names import escape
from .plan.apps import NETNS_DIRECTORY
from .systemd import Systemd

_NOT_OPENED = re.compile(r"Failed to create listening socket \((\S+)\): ([^|]*[^|\s])")
"""What systemd says where bind(2) fails (socket_open_fds in its src/core/socket.c)."""


class Forwards:
    """What systemd knows is all there is, so forwards outlive placematd and end with the cluster's slice."""

    def __init__(self, cluster: str, systemd: Systemd) -> None:
        self._cluster = cluster
        self._systemd = systemd

    async def all(self) -> list[dict[str, Any]]:
        """All forwards as JSON, in the order of their names."""
        return [forward_json(forward) for forward in await self._existing()]

    async def add(self, forward: Forward) -> dict[str, Any]:
        """Open the port; raises NotFound for an unknown namespace, WrongState where the local end is taken."""
        if not (NETNS_DIRECTORY / forward.netns).exists():
            raise NotFound(f"no network namespace {forward.netns} (placemat-cli netns list shows them)")
        for other in await self._existing():
            if other.name == forward.name:
                raise WrongState(f"{other.protocol} port {other.local} is forwarded to {other.remote} already")
        mark = owner_mark(self._cluster, forward)
        fields = (("PLACEMAT_CLUSTER", self._cluster), ("PLACEMAT_NETNS", forward.netns))
        try:
            await asyncio.to_thread(self._systemd.start, units(self._cluster, forward), mark, fields)
        except StepError as error:
            if match := _NOT_OPENED.search(error.answer):
                hint = "who listens: ss --listening --processes --numeric"
                raise StepError(f"open {forward.protocol} port {match[1]}", match[2], hint) from error
            raise
        return forward_json(forward)

    async def remove(self, name: str) -> None:
        """Close the port and end its connections; raises NotFound."""
        existing = {forward.name: forward for forward in await self._existing()}
        if name not in existing:
            known = ", ".join(f"{forward.protocol} {forward.local}" for forward in existing.values())
            raise NotFound(f"no forward of {name.replace('-', ' port ', 1)} (there is {known or 'none'})")
        await self._stop(existing[name], "socket", "service")

    async def follow(self, replaced: Collection[str], removed: Collection[str]) -> None:
        """Have forwards lead into namespaces that were made anew, and take those away whose namespace is gone.

        A proxy stays in the namespace that it was started in; the next connection starts another one.
        """
        for forward in await self._existing():
            if forward.netns in removed:
                await self._stop(forward, "socket", "service")
            elif forward.netns in replaced:
                await self._stop(forward, "service")

    async def _stop(self, forward: Forward, *suffixes: str) -> None:
        for suffix in suffixes:
            await asyncio.to_thread(self._systemd.stop, unit_name(self._cluster, forward.name, suffix))

    async def _existing(self) -> list[Forward]:
        pattern = f"placemat-{escape(self._cluster)}-forward-*.socket"
        states = await asyncio.to_thread(self._systemd.unit_states, pattern)
        found = [of_description(state.description) for state in states if state.mark and state.active == "active"]
        return sorted((forward for forward in found if forward), key=lambda forward: forward.name)
