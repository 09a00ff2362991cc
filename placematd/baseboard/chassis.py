"""What happens to a node, as its BMC's side sees it: QEMU comes, resets and goes, and the watchdog bites.

Whoever runs the node tells four things: `prepare` and `adopted` (QEMU is there), `on_qmp_event`, and `on_power`.
"""

import asyncio
from collections.abc import Awaitable
from typing import Literal, cast
from weakref import WeakSet

from ..bmc import sensors
from ..bmc.machine import Firmware, MachineEvent, RestartCause, Watchdog
from ..errors import PlacematError
from ..events import Events
from ..nodes import Power
from ..qmp import QmpEvent
from .boot import Monitor
from .health import Readings
from .hours import PowerHours
from .identity import Identity
from .override import BootControl
from .power import Node, PowerSwitch
from .sel import EventLog
from .slot import VirtualMedia
from .store import Store
from .watchdog import WatchdogTimer

EVENTS_WAITING = 256
"""What waits for a listener that does not keep up; the oldest is lost then."""

Kind = Literal["power", "boot", "sel", "media", "firmware"]


class Chassis:
    """One node with what its BMC keeps of it, in the event loop."""

    def __init__(self, node: Node, identity: Identity, store: Store, events: Events) -> None:
        self.identity = identity
        """May be replaced when the cluster is reloaded."""
        self._node, self._store, self._events = node, store, events
        self._monitor: Monitor | None = None
        self._listeners: WeakSet[asyncio.Queue[MachineEvent]] = WeakSet()
        self._tasks: set[asyncio.Task[None]] = set()
        self._hours = PowerHours(store, self._commit_soon)
        inventory = identity.inventory
        self._name = inventory.node
        cpus = inventory.cpu_sockets * inventory.cpu_cores * inventory.cpu_threads
        self._readings = Readings(self._name, cpus, inventory.memory_mib)
        self._log = EventLog(store, lambda record_id: self._tell("sel", str(record_id)))
        self._boot = BootControl(store, lambda: self.identity, self._log, self._tell_change)
        self._slot = VirtualMedia(
            store, lambda: self.identity, lambda: self._monitor, lambda slot: self._tell("media", slot)
        )
        self._switch = PowerSwitch(
            self._name,
            node,
            lambda: self._monitor,
            lambda: self._boot.outdated,
            self.before_reset,
            self._before_boot,
            self._log,
            events,
        )
        self._timer = WatchdogTimer(store, self._watchdog_warns, self._watchdog_expired)

    # -- told by whoever runs the node --------------------------------------------------------------------------------

    @property
    def firmware_wanted(self) -> Firmware:
        """What a QEMU that is started now must have: settings chosen through the BMC, and an override's mode."""
        return self._boot.wanted

    @property
    def firmware_settings(self) -> Firmware:
        """The same without the override, which counts for one boot or is taken back."""
        return self._boot.settings

    async def prepare(self, monitor: Monitor, started: Firmware | None = None) -> None:
        """A new QEMU answers, and its CPUs stand still: have it boot from what it shall. The caller lets it run then.

        `started` is the firmware that it was started with, `firmware_wanted` where it is not said. RESET events must
        reach `on_qmp_event` already. Raises StepError.
        """
        self._monitor = monitor
        cause = self._switch.boot_cause or "unknown"
        self._switch.boot_cause = None
        self._store.change(restart_cause=cause)
        self._log.note(sensors.ACPI_POWER_STATE, sensors.ACPI_WORKING, f"Power on ({cause})")
        self._note_restart(cause)
        await self._boot.prepare(monitor, started or self._boot.wanted)
        if gone := await self._slot.attach(monitor):
            self._warn(gone)
        self._hours.start()
        await self._store.commit()

    async def adopted(self, monitor: Monitor) -> None:
        """A QEMU answers that ran before this placematd did. Never raises PlacematError: the node runs anyway."""
        self._monitor = monitor
        self._hours.resume()
        self._timer.resume()
        try:
            await self._boot.settle(monitor)
            if gone := await self._slot.adopt(monitor):
                self._warn(gone)
        except PlacematError as error:
            self._warn(str(error))
        self._commit_soon()

    def on_qmp_event(self, event: QmpEvent) -> None:
        """QEMU said something; to be called in the event loop, with every event, in order."""
        match event.name:
            case "RESET":
                by_guest = bool(event.data.get("guest"))
                if self._boot.reset_seen(self._monitor, by_guest, event.timestamp):
                    self._guest_boots(by_guest)
            case "SHUTDOWN" if event.data.get("reason") == "guest-shutdown":
                self._switch.off_reason = "by its operating system"
            case "GUEST_PANICKED":
                self._log.note(sensors.OS_STOP, sensors.OS_CRITICAL_STOP, "The operating system panicked", "Critical")
                self._commit_soon()

    async def before_reset(self) -> None:
        """To be called before a reset that is not `power`'s, or it may repeat a boot that was to be once."""
        if self._monitor:
            await self._boot.before_reset(self._monitor)

    async def _before_boot(self) -> None:
        """A boot from CD waits for a disc that is on its way: provisioning tools do not wait for it themselves."""
        if self._store.state.boot.target == "Cd":
            await self._slot.loaded()

    def on_power(self, power: Power) -> None:
        """The node's power changed. Also to be told of a node that is found off when placematd starts."""
        self._tell("power", "Off" if power == "Unknown" else power)
        if power in ("Off", "Unknown"):
            self._monitor = None
            self._switch.is_off()
            if self._hours.counting:
                self._went_off()
                self._commit_soon()

    async def cluster_stops(self) -> None:
        """The node is about to be taken away with its cluster: that is no unexpected power off."""
        if self._hours.counting:
            self.expect_off("the cluster was stopped")
            self._went_off()
            await self._store.commit()

    def expect_off(self, reason: str) -> None:
        """The node is about to go off because somebody wants it; `reason` in words."""
        self._switch.off_reason = self._switch.off_reason or reason

    async def close(self) -> None:
        """Let go: the node is removed, or placematd leaves. What is remembered stays."""
        self._timer.close()
        self._hours.close()
        self._boot.close()
        await self._switch.close()
        for task in list(self._tasks):
            await asyncio.wait([task])

    # -- what happens -------------------------------------------------------------------------------------------------

    def _guest_boots(self, by_guest: bool) -> None:
        """The machine was reset, by an action here, by its guest, or by placemat's own reset."""
        cause = self._switch.boot_cause or ("soft-reset" if by_guest else "reset-button")
        self._switch.boot_cause = None
        self._store.change(restart_cause=cause)
        self._note_restart(cause)
        if self._boot.outdated:
            self._switch.renew(cause)
        self._commit_soon()

    def _note_restart(self, cause: RestartCause) -> None:
        code = sensors.RESTART_CAUSE_CODES[cause]
        self._log.note(sensors.BOOT, sensors.BOOT_RESTART, f"System restart ({cause})", data2=code)

    def _went_off(self) -> None:
        reason = self._switch.off_reason or "unexpected, or while placematd was away"
        self._switch.off_reason = ""
        self._log.note(sensors.ACPI_POWER_STATE, sensors.ACPI_SOFT_OFF, f"Power off ({reason})")
        self._hours.stop()
        self._boot.is_off()
        self._timer.stop()

    def _watchdog_warns(self, watchdog: Watchdog) -> None:
        """The pre-timeout interval begins."""
        if self._switch.state == "Off":
            return
        if not watchdog.dont_log:
            use = 2 << 4 | watchdog.use  # the interrupt is an NMI
            text = "The watchdog is about to expire: NMI"
            self._log.note(sensors.WATCHDOG2, sensors.WATCHDOG_INTERRUPT, text, "Warning", data2=use)
        self._spawn(self._switch.interrupt("by its watchdog"))
        self._commit_soon()

    def _watchdog_expired(self, watchdog: Watchdog) -> None:
        if not watchdog.dont_log:
            self._log.note(
                sensors.WATCHDOG2,
                sensors.WATCHDOG_EXPIRED[watchdog.action],
                f"The watchdog expired: {watchdog.action}",
                "Warning" if watchdog.action == "none" else "Critical",
                data2=watchdog.use,
            )
        if watchdog.action != "none" and self._switch.state != "Off":
            self._spawn(self._switch.act(watchdog.action, "watchdog"))
        self._commit_soon()

    # -- telling ------------------------------------------------------------------------------------------------------

    def _tell(self, kind: Kind, value: str) -> None:
        for listener in self._listeners:
            if listener.full():
                listener.get_nowait()
            listener.put_nowait(MachineEvent(kind=kind, value=value))

    def _tell_change(self, kind: str, value: str) -> None:
        self._tell(cast(Kind, kind), value)

    def _warn(self, text: str) -> None:
        self._events.publish("warning", f"node {self._name}: BMC: {text}", node=self._name)

    def _commit_soon(self) -> None:
        """For what happens by itself, and nobody waits for."""
        self._spawn(self._store.commit())

    def _spawn(self, work: Awaitable[None]) -> None:
        async def run() -> None:
            try:
                await work
            except PlacematError as error:
                self._warn(str(error))

        task = asyncio.create_task(run(), name=f"baseboard of {self._name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
