"""A running node as placematd sees it: its power, its monitor, its console and what its guest says.

QEMU belongs to its unit, not to placematd: a `NodeControl` only connects to the sockets of a unit that runs, whoever
started it. That is how a new placematd adopts the guests of the one before. The unit also remembers that a node was
powered off: it stays "active (exited)" (RemainAfterExit=yes), so that a new placematd does not power it on again.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Literal, Protocol

from .baseboard.inband import InBandRelay
from .console import ConsoleHub
from .errors import PlacematError, StepError, TimedOut
from .events import Events
from .guest import GuestChannel
from .plan import NodePlan
from .qmp import QmpClient, QmpEvent
from .systemd import UnitState
from .unit_log import last_lines

log = logging.getLogger("placematd")

Power = Literal["On", "Off", "PoweringOn", "PoweringOff", "Unknown"]

MONITOR_SECONDS = 60.0
"""How long QEMU may take from its start until its monitor answers."""

STOP_SECONDS = 60.0
"""How long a unit's stop may take; above the unit's own TimeoutStopSec, which kills."""

NOT_YET_RUN = "prelaunch"
"""The run state of a QEMU that was started with -S (QAPI schema, RunState)."""

Step = Callable[[], Awaitable[None]]


class Board(Protocol):
    """What else follows a node's life: its baseboard."""

    async def prepare(self, monitor: QmpClient) -> None:
        """QEMU has started and its guest does not run yet. Raises StepError."""
        ...

    async def adopted(self, monitor: QmpClient) -> None:
        """QEMU was found running."""
        ...

    async def before_reset(self) -> None:
        """The node is about to be reset by us, not by its guest."""
        ...

    def expect_off(self, reason: str) -> None:
        """The node is about to be switched off; `reason` in words, unless a better one is known."""
        ...

    def on_qmp_event(self, event: QmpEvent) -> None:
        """QEMU told something."""
        ...

    def on_power(self, power: Power) -> None:
        """The node has gone on or off."""
        ...


POWER_OF_UNIT: dict[str, Power] = {
    "running": "On",
    "exited": "Off",
    "failed": "Off",
    "inactive": "Off",
    "activating": "PoweringOn",
    "deactivating": "PoweringOff",
}


TOLD_BY_SUB_STATE = {("active", "running"), ("active", "exited"), ("activating", "auto-restart")}


def unit_state(state: UnitState | None) -> str:
    """ActiveState, but "running" or "exited" for a unit that is active; "inactive" where systemd knows none.

    A unit that ended and waits to be started again (Restart=) is "auto-restart".
    """
    if state is None or state.load == "not-found":
        return "inactive"
    return state.sub if (state.active, state.sub) in TOLD_BY_SUB_STATE else state.active


class NodeControl:
    """One node; `start_units` starts its units, `end_qemu` asks QEMU to end (its unit then shows "exited")."""

    def __init__(
        self,
        plan: NodePlan,
        events: Events,
        start_units: Step,
        end_qemu: Step,
        on_line: Callable[[str, bytes], None],
    ) -> None:
        self.plan = plan
        self.console = ConsoleHub(plan.paths.console)
        self._guest = GuestChannel(plan.paths.guest, lambda line: on_line(plan.name, line), self._misbehaves)
        self._ipmi = InBandRelay(plan.paths.ipmi, plan.paths.bmc_ipmi, self._misbehaves) if plan.ipmi else None
        self._events = events
        self._start_units, self._end_qemu = start_units, end_qemu
        self._monitor: QmpClient | None = None
        self._unit = "inactive"
        self._transition: Power | None = None
        self._changed = asyncio.Condition()
        self._one_at_a_time = asyncio.Lock()
        self.board: Board | None = None
        """To be set before `attach`."""

    @property
    def power(self) -> Power:
        """Off means that there is no QEMU; a unit between two states shows where it is going."""
        return self._transition or POWER_OF_UNIT.get(self._unit, "Unknown")

    async def unit_changed(self, state: str) -> None:
        """Take note of the unit's state (see `unit_state`): the one source of what power is."""
        before, self._unit = self._unit, state
        if state == before:
            return
        changed = POWER_OF_UNIT.get(before) != POWER_OF_UNIT.get(state)
        if POWER_OF_UNIT.get(state) == "Off":
            await self.detach()
        async with self._changed:
            self._changed.notify_all()
        if changed and self.board:
            self.board.on_power(POWER_OF_UNIT.get(state, "Unknown"))
        if changed and not self._transition:
            self._tell(f"power {self.power}")

    async def attach(self) -> None:
        """Connect to a QEMU that runs: monitor first, since only its answer shows that QEMU took its arguments.

        Raises StepError where QEMU ended or did not answer in `MONITOR_SECONDS`.
        """
        if self._monitor:
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + MONITOR_SECONDS
        while self._monitor is None:
            if POWER_OF_UNIT.get(self._unit) == "Off":
                said = await asyncio.to_thread(last_lines, self.plan.unit)
                answer = "QEMU ended at once" + (f": {' | '.join(said)}" if said else "")
                raise StepError(f"start node {self.plan.name}", answer, f"journalctl -u '{self.plan.unit}'")
            try:
                self._monitor = await QmpClient.connect(
                    self.plan.paths.qmp, timeout_seconds=deadline - loop.time(), on_event=self._heard
                )
            except StepError as error:
                if loop.time() >= deadline:
                    raise TimedOut(f"connect to the monitor of node {self.plan.name}", str(error)) from error
                await self._pause(0.05)
        self.console.attach()
        self._guest.attach()
        if self._ipmi:
            self._ipmi.attach()
        await self._let_run(self._monitor)

    async def _let_run(self, monitor: QmpClient) -> None:
        """QEMU starts stopped (-S): the guest runs when its baseboard has set what to boot from."""
        try:
            if await monitor.query_status() == NOT_YET_RUN:
                if self.board:
                    await self.board.prepare(monitor)
                await monitor.cont()
            elif self.board:
                await self.board.adopted(monitor)
        except PlacematError as error:
            raise StepError(f"let the guest of node {self.plan.name} run", str(error)) from error

    async def detach(self) -> None:
        """Let go of QEMU's sockets; QEMU itself is not touched."""
        monitor, self._monitor = self._monitor, None
        await self.console.detach()
        await self._guest.detach()
        if self._ipmi:
            await self._ipmi.detach()
        if monitor:
            await monitor.close()

    async def close(self) -> None:
        """Let go of QEMU, and of those who watch the console: the node is removed or made anew."""
        await self.detach()
        await self.console.close()

    async def pid(self) -> int | None:
        """The process of QEMU; None where there is none, or placematd is not connected to it."""
        return self._monitor.pid if self._monitor else None

    async def start(self) -> None:
        """Power on; a node that is on stays as it is."""
        async with self._one_at_a_time:
            if self.power != "On":
                await self._towards("PoweringOn", self._power_on)

    async def stop(self, graceful: bool, timeout_seconds: float) -> None:
        """Power off: at once, as if unplugged, or by the ACPI power button with a deadline.

        Raises TimedOut where the guest did not power itself off in time; it goes on running then.
        """
        async with self._one_at_a_time:
            if self.power in ("Off", "Unknown"):
                return
            if graceful:
                await self._towards("PoweringOff", lambda: self._press_power_button(timeout_seconds))
            else:
                await self._towards("PoweringOff", self._unplug)

    async def restart(self, graceful: bool, timeout_seconds: float) -> None:
        """Reset a node that is on (after a graceful stop if asked for), start one that is off."""
        if self.power == "On" and not graceful:
            async with self._one_at_a_time:
                if self.board:
                    await self.board.before_reset()
                await self._monitor_command("system_reset")
                self._tell("reset")
                return
        await self.stop(graceful, timeout_seconds)
        await self.start()

    async def _power_on(self) -> None:
        await self._start_units()
        await self.attach()

    async def _unplug(self) -> None:
        if self.board:
            self.board.expect_off("switched off through placemat")
        await self._end_qemu()
        await self._wait_until_off(STOP_SECONDS, "QEMU did not end")

    async def _press_power_button(self, timeout_seconds: float) -> None:
        await self._monitor_command("system_powerdown")
        hint = "the guest may ignore the ACPI power button; stop the node without --graceful"
        await self._wait_until_off(timeout_seconds, "its guest did not power off", hint)

    def _heard(self, event: QmpEvent) -> None:
        if self.board:
            self.board.on_qmp_event(event)

    async def _towards(self, transition: Power, step: Step) -> None:
        """Run a step while the node shows where it is going, then tell what became of it."""
        self._transition = transition
        try:
            await step()
        finally:
            self._transition = None
            self._tell(f"power {self.power}")

    def _misbehaves(self, what: str) -> None:
        self._events.publish("warning", f"node {self.plan.name}: {what}", node=self.plan.name)

    def _tell(self, what: str) -> None:
        name = self.plan.name
        self._events.publish("node", f"node {name}: {what}", node=name, power=self.power)

    async def _wait_until_off(self, timeout_seconds: float, otherwise: str, hint: str = "") -> None:
        async def off() -> None:
            async with self._changed:
                await self._changed.wait_for(lambda: POWER_OF_UNIT.get(self._unit) == "Off")

        try:
            await asyncio.wait_for(off(), timeout_seconds)
        except TimeoutError:
            answer = f"{otherwise} within {timeout_seconds:g} s"
            raise TimedOut(f"stop node {self.plan.name}", answer, hint) from None

    async def _monitor_command(self, command: str) -> None:
        if self._monitor is None:
            raise StepError(f"{command} on node {self.plan.name}", "its monitor is not connected", "is the node on?")
        try:
            await self._monitor.execute(command)
        except PlacematError as error:
            raise StepError(f"{command} on node {self.plan.name}", str(error)) from error

    async def _pause(self, seconds: float) -> None:
        """Wait for a change of the unit, at most so long: QEMU's sockets come without an event."""
        with suppress(TimeoutError):
            async with self._changed:
                await asyncio.wait_for(self._changed.wait(), seconds)
