"""Switching a node as its BMC does: one action after the other, in the background, each told and logged."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from ..bmc import sensors
from ..bmc.machine import PowerAction, PowerState, RestartCause
from ..console import ConsoleHub
from ..errors import PlacematError, StepError, WrongState
from ..events import Events
from ..nodes import Power
from .boot import Monitor
from .sel import EventLog

log = logging.getLogger("placematd")

BEGIN_SECONDS = 1.0
"""How long `act` waits for an action to fail; then it goes on in the background, and only the journal tells."""

SOFT_RESET_SECONDS = 120.0
"""How long a soft reset waits for its guest. A guest that ignores the power button is left alone, as Redfish's
GracefulRestart promises: whoever wants it gone asks for a reset."""

WAITING = 4
"""Actions that may wait for their turn; a node that is that busy refuses more."""

ALREADY_RIGHT: dict[PowerAction, PowerState] = {"on": "On", "off": "Off", "soft-off": "Off"}


class Node(Protocol):
    """What a baseboard needs of its node, see `nodes.NodeControl`."""

    @property
    def power(self) -> Power:
        """The truth at this moment."""
        ...

    @property
    def console(self) -> ConsoleHub:
        """The serial console."""
        ...

    async def start(self) -> None:
        """Power on; returns when it is on. One that is on stays as it is. Raises PlacematError."""
        ...

    async def stop(self, graceful: bool, timeout_seconds: float) -> None:
        """Power off; returns when it is off. One that is off stays as it is. Raises PlacematError."""
        ...

    async def pid(self) -> int | None:
        """The process of QEMU; None where there is none."""
        ...


class PowerSwitch:
    """The actions on one node. `outdated` says whether the next boot needs another QEMU (other firmware),
    `before_reset` is awaited before one, `before_boot` before anything that brings a boot.
    """

    def __init__(
        self,
        name: str,
        node: Node,
        monitor: Callable[[], Monitor | None],
        outdated: Callable[[], bool],
        before_reset: Callable[[], Awaitable[None]],
        before_boot: Callable[[], Awaitable[None]],
        event_log: EventLog,
        events: Events,
    ) -> None:
        self._name, self._node = name, node
        self._monitor, self._outdated = monitor, outdated
        self._before_reset, self._before_boot = before_reset, before_boot
        self._log, self._events = event_log, events
        self._one_at_a_time = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._soft_reset: asyncio.Task[None] | None = None
        self._off = asyncio.Event()
        self.boot_cause: RestartCause | None = None
        """Why the next boot comes, where an action here is what brings it."""
        self.off_reason = ""
        """Why the next power off comes, in words."""

    @property
    def state(self) -> PowerState:
        """As a BMC tells it; a node whose QEMU failed is off."""
        power = self._node.power
        return "Off" if power == "Unknown" else power

    async def act(self, action: PowerAction, cause: RestartCause) -> None:
        """Begin an action; see `Machine.power`. Raises PlacematError where it is refused or fails at once."""
        if self.state == "Off" and action in ("reset", "soft-reset", "nmi"):
            raise WrongState(f"node {self._name} is off")
        if self.state == ALREADY_RIGHT.get(action) and self._tasks <= {self._soft_reset}:
            return
        if action == "nmi":
            await self.interrupt("by its BMC")
            return
        self.forget_soft_reset()
        if action in ("soft-off", "soft-reset"):
            await self._press_button()
            if action == "soft-reset":
                self._off.clear()
                self._soft_reset = self._spawn(self._start_when_off(cause))
            return
        await self._begin(action, cause)

    async def interrupt(self, why: str) -> None:
        """Send the guest a non-maskable interrupt. Raises StepError."""
        await self.command("inject-nmi")
        self._log.note(
            sensors.CRITICAL_INTERRUPT, sensors.NMI_DIAGNOSTIC, f"Diagnostic interrupt (NMI) {why}", "Warning"
        )
        self._tell(f"NMI {why}")

    async def command(self, command: str) -> None:
        """A monitor command without arguments. Raises StepError."""
        monitor = self._monitor()
        if monitor is None:
            raise StepError(f"{command} on node {self._name}", "its monitor is not connected", "is the node on?")
        await monitor.execute(command)

    def is_off(self) -> None:
        """The node went off."""
        self._off.set()

    def forget_soft_reset(self) -> None:
        """Whoever switches otherwise no longer wants the start that would follow."""
        if self._soft_reset:
            self._soft_reset.cancel()
            self._soft_reset = None

    def renew(self, cause: RestartCause) -> None:
        """In the background: off and on, for a boot that needs another QEMU."""

        async def reset_once() -> None:
            if self._outdated() and self.state == "On":
                await self._in_turn("reset", cause)

        self._spawn(reset_once())

    async def close(self) -> None:
        """Give up what waits or runs; the node stays as it is."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _begin(self, action: PowerAction, cause: RestartCause) -> None:
        if len(self._tasks) >= WAITING:
            raise WrongState(f"node {self._name} is busy with earlier power actions")
        task = self._spawn(self._in_turn(action, cause))
        done, _ = await asyncio.wait([task], timeout=BEGIN_SECONDS)
        if done and not task.cancelled() and (error := task.exception()):
            raise error

    async def _in_turn(self, action: PowerAction, cause: RestartCause) -> None:
        async with self._one_at_a_time:
            self._tell(f"{action} ({cause})")
            self.boot_cause = cause
            try:
                await self._steps(action, cause)
            except BaseException:
                self.boot_cause = None
                raise
            finally:
                self.off_reason = ""

    async def _steps(self, action: PowerAction, cause: RestartCause) -> None:
        if action == "reset" and not self._outdated():
            await self._before_boot()
            await self._before_reset()
            await self.command("system_reset")  # its event, which uses the cause up, may come after the answer
            return
        if action != "on":
            await self._unplug(action, cause)
        if action != "off":
            await self._before_boot()
            await self._node.start()
        self.boot_cause = None

    async def _unplug(self, action: PowerAction, cause: RestartCause) -> None:
        if self.state == "Off":
            return
        self.off_reason = f"{action}, {cause}"
        await self._node.stop(False, 0)
        offset = sensors.POWER_UNIT_OFF if action == "off" else sensors.POWER_UNIT_CYCLE
        self._log.note(sensors.POWER_UNIT, offset, f"Power {'off' if action == 'off' else 'cycle'} ({cause})")

    async def _press_button(self) -> None:
        await self.command("system_powerdown")
        self._log.note(sensors.BUTTON, sensors.BUTTON_POWER, "Power button pressed (ACPI soft-off)")
        self._tell("ACPI power button pressed")

    async def _start_when_off(self, cause: RestartCause) -> None:
        try:
            await asyncio.wait_for(self._off.wait(), SOFT_RESET_SECONDS)
        except TimeoutError:
            ignored = f"its guest did not power off within {SOFT_RESET_SECONDS:g} s; it is left running"
            self._events.publish("warning", f"node {self._name}: BMC: soft-reset: {ignored}", node=self._name)
            return
        finally:
            self._soft_reset = None
        await self._in_turn("on", cause)

    def _spawn(self, work: Awaitable[None]) -> asyncio.Task[None]:
        async def run() -> None:
            await work

        task = asyncio.create_task(run(), name=f"BMC of {self._name}")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if not isinstance(error, PlacematError):
            log.error("node %s: BMC", self._name, exc_info=error)
        self._events.publish("error", f"node {self._name}: BMC: {error}", node=self._name)

    def _tell(self, what: str) -> None:
        self._events.publish("node", f"node {self._name}: BMC: {what}", node=self._name, power=self._node.power)
