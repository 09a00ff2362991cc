"""The nodes of a cluster: a control for each, which follows what systemd says of its unit."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any

from .adapter import Adapter
from .errors import NotFound
from .events import Events
from .facts import Settings
from .models import Cluster
from .names import node_unit, slice_unit
from .nodes import NodeControl, unit_state
from .plan import NodePlan, Plan
from .resources import UnitResource
from .systemd import Systemd, UnitState

STARTED_ANEW = ("exited", "failed")
"""States of a unit that has to be made anew before it can run again."""


class Fleet:
    """All nodes by name, in the order of the cluster file. `on_line` gets each line that a guest writes."""

    def __init__(
        self,
        settings: Settings,
        systemd: Systemd,
        units: Adapter[Any],
        events: Events,
        on_line: Callable[[str, bytes], None],
    ) -> None:
        self.controls: dict[str, NodeControl] = {}
        self._cluster, self._events, self._on_line = settings.cluster, events, on_line
        self._systemd, self._units = systemd, units
        self._prefix = slice_unit(settings.cluster).removesuffix(".slice") + "-"

    def control(self, name: str) -> NodeControl:
        """A node; raises NotFound."""
        try:
            return self.controls[name]
        except KeyError:
            known = ", ".join(self.controls) or "none"
            raise NotFound(f"no node {name} in cluster {self._cluster} (nodes: {known})") from None

    # -- what systemd says --------------------------------------------------------------------------------------------

    def owns(self, unit: str) -> bool:
        """Whether a unit is one of this cluster's."""
        return unit.startswith(self._prefix)

    async def states(self) -> dict[str, str]:
        """The states (see `unit_state`) of the cluster's units that systemd knows."""
        states = await asyncio.to_thread(self._systemd.unit_states, self._prefix + "*")
        return {state.name: unit_state(state) for state in states}

    async def on(self, cluster: Cluster) -> set[str]:
        """The nodes whose QEMU runs."""
        states = await self.states()
        return {node.name for node in cluster.nodes if states.get(node_unit(cluster.name, node.name)) == "running"}

    async def off_units(self) -> set[str]:
        """The units of nodes that were powered off."""
        return {name for name, state in (await self.states()).items() if state == "exited"}

    async def follow(self, state: UnitState) -> None:
        """A unit changed: tell its node."""
        for control in list(self.controls.values()):
            if control.plan.unit == state.name:
                await control.unit_changed(unit_state(state))

    async def refresh(self) -> Mapping[str, str]:
        """Tell all nodes what their units are now; returns `states`."""
        states = await self.states()
        for control in list(self.controls.values()):
            await control.unit_changed(states.get(control.plan.unit, "inactive"))
        return states

    # -- life ---------------------------------------------------------------------------------------------------------

    def fit(self, nodes: Sequence[NodePlan], start: Callable[[NodeControl], Awaitable[None]]) -> None:
        """Have a control for each node of a plan, keeping those that are there; `start` makes the units of one run."""
        self.controls = {node.name: self.controls.get(node.name) or self._control(node, start) for node in nodes}

    def _control(self, node: NodePlan, start: Callable[[NodeControl], Awaitable[None]]) -> NodeControl:
        async def start_units() -> None:
            await start(control)

        async def end_qemu() -> None:
            await asyncio.to_thread(self._systemd.kill, node.unit, signal.SIGTERM)

        control = NodeControl(node, self._events, start_units, end_qemu, self._on_line)
        return control

    async def drop(self, units: Collection[str]) -> None:
        """Let go of those nodes whose units are about to be removed or made anew."""
        for control in list(self.controls.values()):
            if control.plan.unit in units:
                await control.close()
                del self.controls[control.plan.name]

    async def start(self, control: NodeControl, plan: Plan) -> None:
        """Start those units of a node that do not run."""
        states = await self.states()
        for resource in units_of(plan, control.plan.name):
            state = states.get(resource.unit.name, "inactive")
            if state in STARTED_ANEW:
                await asyncio.to_thread(self._units.remove, resource.mark(self._cluster))
            if state in (*STARTED_ANEW, "inactive"):
                await asyncio.to_thread(self._units.create, resource, self._cluster)

    async def attach(self, started: Collection[str], report: Callable[[str], None]) -> None:
        """Connect to every node that is on; those whose units were just `started` must answer.

        Raises the first error (the others are told).
        """
        for control in self.controls.values():
            if control.board and control.power == "Off":
                control.board.on_power("Off")
        controls = [c for c in self.controls.values() if c.power != "Off" or c.plan.unit in started]
        if controls:
            report(f"waiting for the monitors of {', '.join(control.plan.name for control in controls)}")
        results = await asyncio.gather(*(control.attach() for control in controls), return_exceptions=True)
        errors = [error for error in results if isinstance(error, BaseException)]
        for error in errors[1:]:
            self._events.publish("error", str(error))
        if errors:
            raise errors[0]

    async def attach_what_runs(self) -> None:
        """Connect to the nodes that a failed reload left running."""
        await self.refresh()
        running = [control for control in self.controls.values() if control.power == "On"]
        for result in await asyncio.gather(*(control.attach() for control in running), return_exceptions=True):
            if isinstance(result, BaseException):
                self._events.publish("error", str(result))

    async def detach(self) -> None:
        """Let go of all nodes, which go on."""
        await asyncio.gather(*(control.detach() for control in self.controls.values()))


def units_of(plan: Plan, node: str) -> list[UnitResource]:
    """The units of a node in the order they start: console, TPM, BMC, QEMU."""
    return [unit for unit in plan.resources if isinstance(unit, UnitResource) and unit.owner == f"Node {node}"]
