"""The control service of one cluster: start, reload, stop and everything in between.

    files -> read -> plan(cluster, host) -> compare with what is observed -> apply -> attach to the nodes

Start, reload and stop are the same arrow with another plan (stop: the empty one). Nothing is remembered that the host
does not know: a new service finds what the old one made by its marks and adopts it.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

from . import plan as planning
from .adapter import Adapter
from .api import PowerRequest
from .apply import Applier
from .baseboard.rack import Rack, concerns_bmcs
from .baseboard.reports import Reports
from .console import ConsoleHub
from .errors import InvalidCluster, PlacematError, StepError, WrongState
from .events import Events
from .facts import Settings
from .firewall_watch import FirewallWatch, mend
from .fleet import Fleet, units_of
from .forwards import Forwards
from .host import forward_chains
from .models import Cluster
from .names import bmc_unit, service_unit, slice_unit
from .nodes import NodeControl
from .plan import Plan
from .reconcile import Changes, compare
from .resources import Kind
from .status import Json, changes_json, failed_units, namespace_json, networks_json, node_json, summary
from .storage import Storage, kept_for_starting, volumes_of
from .systemd import Systemd, UnitState
from .wanted import Wanted, read_cluster

log = logging.getLogger("placematd")

UP = ("running", "degraded")
"""The states in which nodes can be switched, and the cluster be reloaded."""

SETTLE_SECONDS = 1.0
"""How long after a change of a unit the cluster's state is told."""


class Service:
    """One cluster."""

    def __init__(
        self, settings: Settings, systemd: Systemd, adapters: Mapping[Kind, Adapter[Any]], events: Events
    ) -> None:
        self.settings, self.events = settings, events
        self.state, self.step, self.error = "starting", "", ""
        self._systemd = systemd
        self._adapters = adapters
        self._applier = Applier(settings.cluster, adapters, self._report_step)
        self._wanted: Wanted | None = None
        self._failed: set[str] = set()
        self._settling: asyncio.TimerHandle | None = None
        self.fleet = Fleet(settings, systemd, adapters["unit"], events, self._guest_line)
        self._rack = Rack(settings, events)
        self.bmcs = Reports(settings, self._rack, lambda: self._require().cluster, self.fleet.states)
        self._storage = Storage(settings, adapters["volume"])
        self.forwards = Forwards(settings.cluster, systemd)
        self._changing = asyncio.Lock()
        self._reloading: asyncio.Task[None] | None = None
        self._firewall = FirewallWatch(self._mend_firewall)
        self._tasks: set[asyncio.Task[None]] = set()

    # -- life -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Make the cluster what its files say; returns when it is up. Raises PlacematError; nothing is left then."""
        async with self._changing:
            wanted = await self._read()
            self._watch_units(asyncio.get_running_loop())
            off = await self.fleet.off_units()
            changes = compare(wanted.plan, await self._applier.observe(), adopt=True, off=off)
            await self._check_kept(wanted, changes)
            try:
                await self._adopt(wanted)
                await self._applier.apply(changes, lambda: self._attach_nodes(changes))
            except BaseException:
                await self._detach_nodes()
                await self._remove_remains()
                raise
            self._firewall.start()
            self._settle()

    async def job(self) -> str | None:
        """What systemd is about to do with our unit ("start", "stop", "restart", ...); None where it does nothing."""
        properties = await asyncio.to_thread(self._systemd.properties, service_unit(self.settings.cluster))
        return properties.job if properties else None

    async def _remove_remains(self) -> None:
        """Of a cluster that did not come up and of which nothing runs: what an earlier placematd left half-made."""
        with suppress(StepError):  # it follows an error that tells more
            if not await self.fleet.states():
                await self._remove_all()

    async def _remove_all(self) -> None:
        nothing = Plan(cluster=self.settings.cluster)
        await self._applier.remove(compare(nothing, await self._applier.observe(), gone="").remove)
        self._rack.clear()
        await asyncio.to_thread(self._systemd.stop, slice_unit(self.settings.cluster))

    async def leave(self) -> None:
        """Let go of the cluster and leave it as it is."""
        self._set_state("stopping", f"leaving cluster {self.settings.cluster} to the next placematd")
        async with self._alone():
            await self._detach_nodes()

    async def stop(self) -> None:
        """Take everything of the cluster away; volumes and images stay."""
        self._set_state("stopping", f"stopping cluster {self.settings.cluster}")
        async with self._alone():
            await self._rack.stop()
            await self._detach_nodes()
            await self._remove_all()

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Nothing else changes the cluster any more; a reload under way is given up."""
        self._firewall.close()
        if self._reloading:
            self._reloading.cancel()
        async with self._changing:
            yield

    async def reload(self, dry_run: bool = False) -> list[dict[str, str]]:
        """Read the files again and apply the difference; mistakes in them change nothing.

        Returns the changes as {"action": create|update|replace|remove|keep, "resource", "reason"}. Where a step fails,
        what was created is undone and what was removed is missing: the cluster is degraded until the next reload.
        """
        self._check_up("it can be reloaded")  # before the lock, as a start may hold it for long
        async with self._changing:
            self._check_up("it can be reloaded")
            wanted = await self._read()
            changes = compare(wanted.plan, await self._applier.observe(), off=await self.fleet.off_units())
            if dry_run:
                return changes_json(changes)
            await self._check_kept(wanted, changes)
            self._set_state("reloading", f"reloading cluster {self.settings.cluster}")
            self._reloading = asyncio.ensure_future(self._reconcile(wanted, changes))
            try:
                await self._reloading
                self.error = ""
            except PlacematError as error:
                self.error = f"the last reload failed: {error}"
                raise
            except asyncio.CancelledError:
                raise WrongState(f"cluster {self.settings.cluster} is {self.state}; the reload was given up") from None
            finally:
                self._reloading = None
                if self.state == "reloading":
                    self._settle()
            return changes_json(changes)

    async def _reconcile(self, wanted: Wanted, changes: Changes) -> None:
        touched = {change.key.name for change in (*changes.remove, *changes.create, *changes.keep)}
        await self.fleet.drop(touched)
        try:
            await self._adopt(wanted)
            await self._applier.apply(changes, lambda: self._attach_nodes(changes))
        except PlacematError:
            await self.fleet.attach_what_runs()
            raise
        parts = (changes.remove, changes.create)
        gone, made = ({change.key.name for change in part if change.key.kind == "netns"} for part in parts)
        await self.forwards.follow(gone & made, gone - made)

    def close(self) -> None:
        """End threads."""
        self._applier.close()

    # -- parts of start -------------------------------------------------------------------------------------------

    async def _read(self) -> Wanted:
        self._report_step("reading the cluster files")
        cluster, warnings, host = await asyncio.to_thread(read_cluster, self.settings)
        for warning in warnings:
            self.events.publish("warning", warning.text)
        if cluster.nodes:
            self.events.publish("state", f"acceleration: {host.accelerator_reason}")
        learned = await self._rack.learn(cluster, await self.fleet.on(cluster))
        return Wanted(cluster, warnings, host, planning.plan(cluster, host, self.settings, learned))

    async def _adopt(self, wanted: Wanted) -> None:
        """Have a control and a baseboard for each node of the plan, keeping those that are there."""
        self._wanted = wanted
        self.fleet.fit(wanted.plan.nodes, self._start_node)
        await self._refresh()  # whoever asks a BMC from now on is told whether its node is on
        renewed = {bmc_unit(wanted.cluster.name, name) for name in await self._rack.fit(wanted, self.fleet.controls)}
        for unit in renewed.intersection(await self.fleet.states() if renewed else ()):
            await asyncio.to_thread(self._systemd.stop, unit)  # the next packet starts one that reads what is new

    async def _start_node(self, control: NodeControl) -> None:
        """Have the units of a node run, which is to be powered on."""
        name = control.plan.name
        async with self._changing:
            self._check_up("nodes can be switched")
            if self.fleet.controls.get(name) is not control:
                raise WrongState(f"node {name} was changed by a reload meanwhile; try again")
            await self._choose_firmware(control)
            plan = self._require().plan
            await asyncio.to_thread(self._storage.make, volumes_of(plan, f"Node {name}"))
            await self.fleet.start(control, plan)
            await self._refresh()

    async def _choose_firmware(self, control: NodeControl) -> None:
        """Plan a node that is about to start anew: its firmware may have been changed through its BMC."""
        wanted, name = self._require(), control.plan.name
        before = units_of(wanted.plan, name)
        learned = self._rack.learned(wanted.cluster, await self.fleet.on(wanted.cluster) - {name})
        plan = planning.plan(wanted.cluster, wanted.host, self.settings, learned)
        self._wanted = replace(wanted, plan=plan)
        control.plan = plan.node(name)
        after = {unit.key for unit in units_of(plan, name)}
        for unit in before:
            if unit.key not in after:
                await asyncio.to_thread(self._adapters["unit"].remove, unit.mark(self.settings.cluster))

    async def _attach_nodes(self, changes: Changes) -> None:
        """Connect to every node that is on; those that were just started must answer."""
        await self._refresh()
        await self._wake_bmcs()
        await self.fleet.attach({change.key.name for change in changes.create}, self._report_step)

    async def _wake_bmcs(self) -> None:
        """Have those BMCs run that somebody waits for events of."""
        for node in self._rack.subscribed():
            try:
                await asyncio.to_thread(self._systemd.wake, bmc_unit(self.settings.cluster, node))
            except StepError as error:
                self.events.publish("warning", f"node {node}: its BMC tells nobody of events: {error}")

    async def _detach_nodes(self) -> None:
        await self._rack.close()
        await self.fleet.detach()

    async def _refresh(self) -> None:
        self._failed = set(failed_units(await self.fleet.refresh()))

    # -- events ---------------------------------------------------------------------------------------------------

    def _watch_units(self, loop: asyncio.AbstractEventLoop) -> None:
        def tell(state: UnitState) -> None:  # in a thread of Systemd's
            loop.call_soon_threadsafe(self._unit_event, state)

        self._systemd.subscribe(tell)

    def _unit_event(self, state: UnitState) -> None:
        """A unit changed (called in the loop): tell its node, and soon whether the cluster still works."""
        if not self.fleet.owns(state.name):
            return
        self._spawn(self.fleet.follow(state))
        if not self._settling:  # an app that systemd starts again is "failed" for a moment
            self._settling = asyncio.get_running_loop().call_later(SETTLE_SECONDS, lambda: self._spawn(self._look()))

    async def _look(self) -> None:
        """See which units failed, and say so."""
        self._settling = None
        with suppress(StepError):  # systemd is away; when it is back, all units are told anew
            self._failed = set(failed_units(await self.fleet.states()))
            if self.state in UP:
                self._settle()

    async def _mend_firewall(self) -> None:
        """The host's firewall was changed: put back what it lost of ours."""
        async with self._changing:
            wanted = self._wanted
            if wanted is None or self.state not in UP:
                return
            try:
                chains = await asyncio.to_thread(forward_chains, wanted.cluster)
                host = replace(wanted.host, closed_chains=chains)
                plan = planning.plan(wanted.cluster, host, self.settings)
                for change in await asyncio.to_thread(mend, plan, self._adapters):
                    self.events.publish("warning", f"the host's firewall was changed: {change.action} {change.key}")
            except PlacematError as error:
                self.events.publish("error", f"the host's firewall was changed: {error}")

    def _guest_line(self, node: str, line: bytes) -> None:
        """A line that a guest wrote to /dev/virtio-ports/placemat: the address of its BMC."""
        if node in self.fleet.controls and self._rack.addresses.hear(self._require().cluster, node, line):
            self._spawn(self._move_bmcs())

    async def _move_bmcs(self) -> None:
        """Guests told addresses: have the bridges and the units of BMCs follow."""
        async with self._changing:
            wanted = self._wanted
            if wanted is None or self.state not in UP:
                return  # it did not come up, or goes down
            try:
                await self._follow(wanted)
            except PlacematError as error:
                self.events.publish("error", f"the addresses of BMCs: {error}")

    async def _follow(self, wanted: Wanted) -> None:
        learned = self._rack.learned(wanted.cluster, await self.fleet.on(wanted.cluster))
        plan = planning.plan(wanted.cluster, wanted.host, self.settings, learned)
        changes = compare(plan, await self._applier.observe())
        await self._adopt(replace(wanted, plan=plan))
        await self._applier.apply(changes.of(lambda key: concerns_bmcs(key, wanted.cluster)))
        await self._wake_bmcs()

    # -- for the API ----------------------------------------------------------------------------------------------

    async def cluster_status(self) -> Json:
        """See `api`."""
        wanted = self._wanted
        states = await self.fleet.states()
        cluster = wanted.cluster if wanted else Cluster(name=self.settings.cluster)
        degraded = self.state == "running" and any(failed_units(states))
        return {
            "name": self.settings.cluster,
            "state": "degraded" if degraded else self.state,
            "step": self.step,
            "error": self.error,
            "warnings": await self._warnings(),
            "accelerator": wanted.host.accelerator if wanted else None,
            "failed_units": sorted(failed_units(states)),
            "networks": networks_json(cluster),
            "namespaces": [namespace_json(cluster.name, namespace, states) for namespace in cluster.namespaces],
            "nodes": await self.node_statuses(),
        }

    async def node_statuses(self) -> list[Json]:
        """See `api`."""
        states = await self.fleet.states()
        return [self._node_json(control, states) for control in self.fleet.controls.values()]

    async def node_status(self, name: str) -> Json:
        """See `api`."""
        return self._node_json(self._node(name), await self.fleet.states())

    async def node_action(self, name: str, action: str, request: PowerRequest) -> Json:
        """See `api`."""
        control = self._node(name)
        self._check_up("nodes can be switched")
        try:
            if action == "start":
                await control.start()
            elif action == "stop":
                await control.stop(request.graceful, request.timeout_seconds)
            else:
                await control.restart(request.graceful, request.timeout_seconds)
        finally:
            if self.state in UP:
                self._settle()
        return await self.node_status(name)

    async def volumes(self) -> list[Json]:
        """See `api`."""
        return await asyncio.to_thread(self._storage.listed, self._require().plan)

    async def reset_volume(self, node: str, volume: str) -> Json:
        """See `api`."""
        async with self._changing:
            self._check_up("volumes can be reset")
            control = self.fleet.controls.get(node)
            if control and control.power != "Off":
                raise WrongState(f"node {node} is {control.power}: stop it first (placemat-cli node stop {node})")
            done = await asyncio.to_thread(self._storage.reset, self._require().plan, node, volume)
            self.events.publish("state", f"volume {node}/{volume}: reset")
            return done

    def console(self, name: str) -> ConsoleHub:
        """See `api`."""
        return self._node(name).console

    def summary(self) -> str:
        """One line: what is up."""
        return summary(self._require().cluster, self.fleet.controls.values())

    def fail(self, error: BaseException) -> None:
        """Note why the cluster is not up, for status and journal; a file's mistakes get a line each."""
        self.state, self.error = "failed", str(error)
        lines = [str(mistake) for mistake in error.mistakes] if isinstance(error, InvalidCluster) else [str(error)]
        for line in lines:
            self.events.publish("error", line)

    async def _warnings(self) -> list[str]:
        """Those of the cluster files, and the volumes that have changed."""
        if self._wanted is None:
            return []
        try:
            changed = await asyncio.to_thread(self._storage.warnings, self._wanted.plan)
        except StepError as error:  # a disk that is gone does not keep the status from being told
            changed = [str(error)]
        return [*(warning.text for warning in self._wanted.warnings), *changed]

    # -- small things ---------------------------------------------------------------------------------------------

    def _node_json(self, control: NodeControl, states: Mapping[str, str]) -> Json:
        unit = states.get(control.plan.unit, "inactive")
        return node_json(control, unit, self._rack.address(control.plan.name))

    def _node(self, name: str) -> NodeControl:
        """A node; raises NotFound, and WrongState while it is not known which there are."""
        self._require()
        return self.fleet.control(name)

    def _require(self) -> Wanted:
        if self._wanted is None:
            raise WrongState(f"cluster {self.settings.cluster} is {self.state}")
        return self._wanted

    async def _check_kept(self, wanted: Wanted, changes: Changes) -> None:
        """Tell what differs and stays; raises StepError where a node that starts could not use a volume of its."""
        await asyncio.to_thread(self._storage.make, kept_for_starting(changes))
        told = [f"{change.key}: {change.reason}" for change in changes.keep if change.key.kind != "volume"]
        for warning in [*told, *await asyncio.to_thread(self._storage.warnings, wanted.plan)]:
            self.events.publish("warning", warning)

    def _check_up(self, what: str) -> None:
        """Raise WrongState unless the cluster is up; `what` can be done then."""
        if self.state not in UP:
            raise WrongState(f"cluster {self.settings.cluster} is {self.state}; {what} when it is up")

    def _settle(self) -> None:
        """Say how a cluster that is up is: whether all of it works, or what does not."""
        name = self.settings.cluster
        troubles = [*([self.error] if self.error else []), *(f"{unit} failed" for unit in sorted(self._failed))]
        state = "degraded" if troubles else "running"
        message = f"cluster {name} is degraded: {'; '.join(troubles)}" if troubles else f"cluster {name} is up"
        message += f": {self.summary()}" if not troubles else f" ({self.summary()})"
        if (state, message) != (self.state, self.step):
            self._set_state(state, message)

    def _report_step(self, message: str) -> None:
        self.step = message
        self.events.publish("step", message)

    def _set_state(self, state: str, message: str) -> None:
        self.state, self.step = state, message
        self.events.publish("state", message, state=state)

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
