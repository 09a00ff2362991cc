"""Boot override and firmware settings of a node: what counts for its next boot, and what a boot uses up."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from ..bmc import sensors
from ..bmc.machine import BootOverride, Firmware
from ..errors import StepError, TimedOut, WrongState
from .boot import Monitor, set_order
from .identity import Identity
from .sel import EventLog
from .store import State, Store

log = logging.getLogger("placematd")

FIRMWARE_SECONDS = 2.0
"""How long after the begin of a boot a reset is the firmware's own and belongs to that boot: SeaBIOS answers a reset
with one to five more (tryReboot() in src/resume.c; seen within 50 ms under TCG), and reads the order after the last.
No Linux comes up, and down again, that soon."""

RESET_SECONDS = 10.0
"""How long QEMU may take to reset a machine whose CPUs do not run yet."""


class BootControl:
    """Decides from the store; `tell` is called with what changed ("boot" or "firmware") and its new value."""

    def __init__(
        self, store: Store, identity: Callable[[], Identity], log: EventLog, tell: Callable[[str, str], None]
    ) -> None:
        self._store, self._identity, self._log, self._tell = store, identity, log, tell
        self._one_at_a_time = asyncio.Lock()
        self._set_at = 0.0
        self._told: tuple[Monitor, tuple[str, ...]] | None = None
        """The order that a QEMU has; None where that is not known."""
        self._own_reset: asyncio.Event | None = None
        self._boots_until = 0.0
        self._settling: asyncio.Task[None] | None = None

    # -- what counts --------------------------------------------------------------------------------------------------

    @property
    def in_force(self) -> Firmware:
        """The firmware settings of the last start."""
        return self._store.state.chosen or self._identity().firmware

    @property
    def settings(self) -> Firmware:
        """The firmware settings from the next start on."""
        return self._store.state.pending or self.in_force

    @property
    def wanted(self) -> Firmware:
        """What a QEMU that is started now must have: the settings, but the mode of an override that counts."""
        override = self._store.state.boot
        return overridden(self.settings, override) if self._possible(override) else self.settings

    @property
    def running(self) -> Firmware:
        """What the QEMU that runs has."""
        return self._store.state.running or self.in_force

    @property
    def outdated(self) -> bool:
        """Whether the next boot needs another QEMU than the one that runs."""
        return self.running != self.wanted

    def _order(self) -> Sequence[str]:
        """The order that the firmware shall be told at the next reset of the QEMU that runs."""
        state, devices = self._store.state, self._identity().devices
        if self._counts(state) and state.boot.target != "None":
            return devices.order(state.boot.target)
        return devices.all if state.disordered and self.running.boot_mode == "UEFI" else ()

    def _counts(self, state: State) -> bool:
        """Whether there is an override for the firmware that runs; one for the other firmware waits for it."""
        return state.boot.enabled != "Disabled" and state.boot.mode in (None, self.running.boot_mode)

    # -- changes ------------------------------------------------------------------------------------------------------

    async def set(self, override: BootOverride, monitor: Monitor | None) -> None:
        """Change the override. Raises PlacematError, and the old one counts then."""
        if override.enabled == "Disabled":
            override = BootOverride()
        self._check(override)
        async with self._one_at_a_time:
            before = self._store.state.boot
            self._store.change(boot=override)
            try:
                if monitor:
                    await self._tell_order(monitor, self._order())
            except BaseException:
                self._store.change(boot=before)
                raise
            self._set_at = time.time()
            await self._store.commit()
        self._tell("boot", override.target)

    def _check(self, override: BootOverride) -> None:
        identity = self._identity()
        if not self._possible(override):
            raise WrongState(f"this host has no {override.mode} firmware")
        if override.target != "None" and not identity.devices.of(override.target):
            raise WrongState(f"node {identity.inventory.node} has no device for boot target {override.target}")

    def _possible(self, override: BootOverride) -> bool:
        return override.mode is None or override.mode in self._identity().offer.boot_modes

    async def set_firmware(self, firmware: Firmware, on: bool) -> None:
        """Change the settings, from the next start on. Raises WrongState where the host lacks what it takes."""
        identity = self._identity()
        if firmware.boot_mode not in identity.offer.boot_modes:
            raise WrongState(f"this host has no {firmware.boot_mode} firmware (apt-get install ovmf)")
        if firmware.secure_boot and firmware.boot_mode != "UEFI":
            raise WrongState("Secure Boot needs the boot mode UEFI")
        if firmware.secure_boot and not identity.offer.secure_boot:
            raise WrongState("this host has no UEFI variables with keys for Secure Boot (apt-get install ovmf)")
        if firmware.tpm and not identity.tpm_possible:
            raise WrongState("this host has no software TPM (apt-get install swtpm)")
        if on:
            self._store.change(pending=firmware if firmware != self.in_force else None)
        else:
            self._choose(firmware)
        await self._store.commit()
        self._tell("firmware", firmware.boot_mode)

    def _choose(self, firmware: Firmware) -> None:
        """Settings equal to those of the cluster file follow it, also when it changes."""
        chosen = firmware if firmware != self._identity().firmware else None
        self._store.change(chosen=chosen, pending=None)

    # -- boots --------------------------------------------------------------------------------------------------------

    async def prepare(self, monitor: Monitor, started: Firmware) -> None:
        """QEMU was started with `started` and its CPUs stand still: have this boot go where it shall.

        Raises StepError.
        """
        async with self._one_at_a_time:
            in_force, settings = self.in_force, self.settings
            if started == self.wanted:
                self._choose(settings)
            self._store.change(running=started)
            if settings != in_force:
                self._tell("firmware", started.boot_mode)
            order = self._order()
            if order:
                await self._tell_order(monitor, order)
                await self._reset(monitor)
            else:
                self._told = (monitor, ())
            self._begin_boot(monitor)
            self._use_up()

    def is_off(self) -> None:
        """The node went off: what waited for the next start is in force."""
        self._forget_settling()
        self._choose(self.settings)
        self._store.change(running=None)

    async def _reset(self, monitor: Monitor) -> None:
        """Have QEMU write the order for the firmware."""
        self._own_reset = done = asyncio.Event()
        try:
            await monitor.execute("system_reset")
            await asyncio.wait_for(done.wait(), RESET_SECONDS)
        except TimeoutError:
            raise TimedOut("prepare the boot order", "QEMU did not reset the machine") from None
        finally:
            self._own_reset = None

    def reset_seen(self, monitor: Monitor | None, by_guest: bool, timestamp: float) -> bool:
        """QEMU reset the machine; says whether that begins a boot. The override is used up then.

        An override that was set after the reset waits for the next.
        """
        if self._own_reset:
            self._own_reset.set()
            return False
        if by_guest and asyncio.get_running_loop().time() < self._boots_until:
            return False
        self._begin_boot(monitor)
        if timestamp >= self._set_at:
            self._use_up()
        return True

    async def before_reset(self, monitor: Monitor) -> None:
        """The machine is about to be reset: what the last boot used up shall not count again. Raises StepError."""
        if self._forget_settling():
            await self.settle(monitor)

    async def settle(self, monitor: Monitor) -> None:
        """Put the boot indexes to what the next reset shall find. Raises StepError."""
        async with self._one_at_a_time:
            await self._tell_order(monitor, self._order())

    async def _tell_order(self, monitor: Monitor, order: Sequence[str]) -> None:
        """Have QEMU tell the firmware this order, and change nothing where it does: a reset may come in between."""
        if self._told != (monitor, tuple(order)):
            self._told = None
            await set_order(monitor, self._identity().devices, order)
            self._told = (monitor, tuple(order))

    def close(self) -> None:
        """Let go of QEMU."""
        self._forget_settling()

    def _begin_boot(self, monitor: Monitor | None) -> None:
        self._boots_until = asyncio.get_running_loop().time() + FIRMWARE_SECONDS
        self._forget_settling()
        if monitor:
            self._settling = asyncio.create_task(self._settle_later(monitor), name="boot order")

    async def _settle_later(self, monitor: Monitor) -> None:
        await asyncio.sleep(FIRMWARE_SECONDS)
        try:
            await self.settle(monitor)
        except StepError as error:  # QEMU has gone, or the next boot goes where this one did
            log.warning("node %s: %s", self._identity().inventory.node, error)
        self._settling = None

    def _forget_settling(self) -> bool:
        """Whether the indexes are still those of the boot under way."""
        settling, self._settling = self._settling, None
        if settling:
            settling.cancel()
        return settling is not None

    def _use_up(self) -> None:
        state = self._store.state
        if not self._counts(state):
            return
        override = state.boot
        if override.target != "None":
            self._store.change(disordered=state.disordered or self.running.boot_mode == "UEFI")
            self._log.note(sensors.BOOT, *_boot_event(override))
        if override.enabled == "Once":
            self._store.change(boot=BootOverride())
            self._tell("boot", "None")


def overridden(settings: Firmware, override: BootOverride) -> Firmware:
    """Settings with the mode of an override that counts; a BIOS knows nothing of Secure Boot."""
    mode = override.mode if override.enabled != "Disabled" else None
    mode = mode or settings.boot_mode
    return replace(settings, boot_mode=mode, secure_boot=settings.secure_boot and mode == "UEFI")


def _boot_event(override: BootOverride) -> tuple[int, str]:
    offset = sensors.BOOT_PXE if override.target == "Pxe" else sensors.BOOT_RESTART
    return offset, f"Boot override used: {override.target} ({override.enabled})"
