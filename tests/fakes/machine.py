"""A machine in memory: the reference of what `placematd.bmc.machine.Machine` promises, for tests of a BMC.

machine = FakeMachine()
await machine.set_boot(BootOverride(enabled="Once", target="Pxe"))
await machine.power("on")
assert machine.starts == [("Pxe", "Legacy")] and machine.actions == [("set_boot", ...), ("power", "on", ...)]

What a guest does is told with `guest_powers_off`, `guest_resets` and `guest_prints`. What a real machine keeps on disk
is in `durable`; a test that kills the BMC's process keeps the FakeMachine.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID
from weakref import WeakSet

from placematd.bmc.machine import (
    BootMode,
    BootOverride,
    BootTarget,
    Disk,
    Firmware,
    FirmwareOffer,
    Health,
    Inventory,
    Json,
    Limits,
    Login,
    MachineEvent,
    Media,
    Nic,
    PowerAction,
    PowerState,
    Progress,
    RestartCause,
    SelEntry,
    Watchdog,
)
from placematd.errors import NotFound, PlacematError, WrongState

GIB = 1 << 30
BMC_GENERATOR = bytes((0x20, 0x00))
ACPI_POWER, BOOT_INITIATED, WATCHDOG_2, POWER_SENSOR, BOOT_SENSOR, WATCHDOG_SENSOR = 0x22, 0x1D, 0x23, 0x01, 0x02, 0x03
WATCHDOG_OFFSETS = {"none": 0, "reset": 1, "off": 2, "cycle": 3}
EVENTS_WAITING = 1000

INVENTORY = Inventory(
    cluster="lab",
    node="worker-1",
    manufacturer="cybozu",
    product="mk2",
    serial="1234abcd",
    uuid=UUID("d1f5a1f0-5b3c-4c1e-9d3a-0123456789ab"),
    bios_version="1.16.2-debian-1.16.2-1",
    boot_mode="Legacy",
    cpu_model="AMD EPYC Processor",
    cpu_sockets=1,
    cpu_cores=2,
    cpu_threads=1,
    memory_mib=2048,
    tpm=True,
    nics=(
        Nic(name="eth0", mac="52:54:00:00:00:01", network="net0", mtu=1500),
        Nic(name="eth1", mac="52:54:00:00:00:02", network="net1", mtu=1460),
    ),
    disks=(
        Disk(name="root", device="virtio-blk", capacity_bytes=10 * GIB, format="qcow2"),
        Disk(name="seed", device="virtio-blk", capacity_bytes=1 << 20, format="raw", read_only=True),
    ),
)
LIMITS = Limits(address="127.0.0.1", network="127.0.0.1/8", mac="52:54:00:00:00:fe")


class FakeConsole:
    """One viewer of a FakeMachine's console."""

    def __init__(self, machine: "FakeMachine") -> None:
        self._machine = machine
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue()

    def show(self, data: bytes) -> None:
        self._waiting.put_nowait(data)

    async def read(self) -> bytes:
        data = await self._waiting.get()
        if not data:
            self._waiting.put_nowait(b"")  # the end stays the end
        return data

    async def write(self, data: bytes) -> None:
        self._machine.typed += data
        if self._machine.echo:
            self._machine.guest_prints(data)

    async def close(self) -> None:
        self._machine.viewers.discard(self)
        self.show(b"")


class FakeMachine:
    """See `Machine` for the meaning of the methods that are not described here.

    `soft_seconds` is how long the guest takes to shut down after the power button, None where it never does.
    `media_seconds` is how long each of the four pieces of an image takes to load.
    """

    def __init__(
        self,
        power: PowerState = "Off",
        *,
        inventory: Inventory = INVENTORY,
        limits: Limits = LIMITS,
        modes: Sequence[BootMode] = ("Legacy", "UEFI"),
        secure_boot: bool = True,
        soft_seconds: float | None = 0.02,
        media_seconds: float = 0.0,
        echo: bool = True,
    ) -> None:
        self.actions: list[tuple[object, ...]] = []
        """Every call that changes something, with its arguments."""
        self.starts: list[tuple[BootTarget, BootMode]] = []
        """What each start or reset booted from, and with which firmware."""
        self.durable: dict[str, Json] = {}
        """The sections saved."""
        self.typed = b""
        """What was written to the console."""
        self.viewers: set[FakeConsole] = set()
        self.failure: PlacematError | None = None
        """Raised by every call while it is set."""
        self.echo, self.soft_seconds, self.media_seconds = echo, soft_seconds, media_seconds
        self._inventory, self._limits = inventory, limits
        self._offer = FirmwareOffer(boot_modes=tuple(modes), secure_boot=secure_boot and "UEFI" in modes)
        self._firmware = self._next = Firmware(
            boot_mode=inventory.boot_mode, tpm=inventory.tpm, secure_boot=inventory.secure_boot
        )
        self._running = self._firmware
        self._state: PowerState = power
        self._since = time.monotonic()
        self._on_seconds = 0.0
        self._cause: RestartCause = "unknown"
        self._boot = BootOverride()
        self._sel: list[SelEntry] = []
        self._watchdog = Watchdog()
        self._expires = 0.0
        self._timers: list[asyncio.TimerHandle] = []
        self._soft: asyncio.TimerHandle | None = None
        self._lit_until = 0.0
        self._media = {"Cd": Media(slot="Cd")}
        self._listeners: WeakSet[asyncio.Queue[MachineEvent]] = WeakSet()

    # what happens inside the machine

    def guest_powers_off(self) -> None:
        """The guest's own `poweroff`."""
        self._turn("Off")

    def guest_resets(self) -> None:
        """The guest's own `reboot`."""
        self._start("unknown")

    def guest_prints(self, data: bytes) -> None:
        """Output on the serial console."""
        for viewer in self.viewers:
            viewer.show(data)

    def end_consoles(self) -> None:
        """The console ends for all who watch."""
        for viewer in list(self.viewers):
            self.viewers.discard(viewer)
            viewer.show(b"")

    def tell(self, kind: Any, value: str) -> None:
        """An event for all listeners."""
        for listener in self._listeners:
            if listener.qsize() < EVENTS_WAITING:
                listener.put_nowait(MachineEvent(kind=kind, value=value))

    @property
    def listeners(self) -> int:
        """How many event streams are open."""
        return len(self._listeners)

    def _turn(self, state: PowerState) -> None:
        if state == self._state:
            return
        now = time.monotonic()
        if self._state != "Off":
            self._on_seconds += now - self._since
        self._state, self._since = state, now
        self.tell("power", state)
        if state in ("On", "Off"):
            offset, words = (0x00, "powered on") if state == "On" else (0x06, "powered off")
            self._log(ACPI_POWER, POWER_SENSOR, bytes((offset, 0xFF, 0xFF)), f"The machine was {words}")
        if state == "Off":
            self._end_soft()
            self._watchdog = replace(self._watchdog, running=False)
            self._stop_timers()

    def _start(self, cause: RestartCause) -> None:
        """The machine goes through its firmware: a power on or a reset."""
        cold = self._state == "Off"
        self._end_soft()
        self._turn("On")
        self._cause = cause
        if self._next != self._firmware:
            self._firmware = self._next
            self.tell("firmware", self._firmware.boot_mode)
        override = self._boot
        target: BootTarget = override.target if override.enabled != "Disabled" else "None"
        mode = (override.mode if override.enabled != "Disabled" else None) or self._firmware.boot_mode
        self._running = replace(
            self._firmware, boot_mode=mode, secure_boot=self._firmware.secure_boot and mode == "UEFI"
        )
        self.starts.append((target, mode))
        self._log(BOOT_INITIATED, BOOT_SENSOR, bytes((0 if cold else 1, 0xFF, 0xFF)), "System boot initiated")
        if override.enabled == "Once":
            self._boot = BootOverride()
            self.tell("boot", self._boot.target)

    def _log(self, sensor_type: int, sensor: int, event_data: bytes, message: str, severity: Any = "OK") -> int:
        data = bytes((0x02, *BMC_GENERATOR, 0x04, sensor_type, sensor, 0x6F, *event_data))
        return self._append(data, message, severity)

    def _append(self, data: bytes, message: str, severity: Any) -> int:
        record_id = self._sel[-1].record_id + 1 if self._sel else 1
        now = datetime.now(UTC)
        entry = SelEntry(record_id=record_id, time=now, data=data, message=message, severity=severity)
        self._sel.append(entry)
        self.tell("sel", str(record_id))
        return record_id

    def _end_soft(self) -> None:
        if self._soft:
            self._soft.cancel()
            self._soft = None

    def _check(self) -> None:
        if self.failure:
            raise self.failure

    def _did(self, *action: object) -> None:
        self._check()
        self.actions.append(action)

    # Machine

    async def inventory(self) -> Inventory:
        self._check()
        seen = self._firmware if self._state == "Off" else self._running
        return replace(self._inventory, boot_mode=seen.boot_mode, tpm=seen.tpm, secure_boot=seen.secure_boot)

    async def health(self) -> Health:
        self._check()
        if self._state == "Off":
            return Health(cpu_load_percent=0.0, memory_used_mib=0, inlet_celsius=23.0, power_watts=0.0)
        used = self._inventory.memory_mib // 4
        return Health(cpu_load_percent=12.5, memory_used_mib=used, inlet_celsius=23.0, power_watts=60.0)

    async def power_state(self) -> PowerState:
        self._check()
        return self._state

    async def power(self, action: PowerAction, cause: RestartCause = "chassis-control") -> None:
        """Nothing happens to a machine that is off and is told to go off; the rest of what needs power is refused."""
        self._did("power", action, cause)
        if self._state == "Off" and action in ("reset", "soft-reset", "nmi"):
            raise WrongState(f"node {self._inventory.node} is off")
        if action == "off" or action == "cycle":
            self._turn("Off")
        if action == "cycle" or action == "reset" or (action == "on" and self._state == "Off"):
            self._start(cause)
        elif action in ("soft-off", "soft-reset") and self._state == "On":
            self._press_button(cause if action == "soft-reset" else None)

    def _press_button(self, cause: RestartCause | None) -> None:
        """ACPI power button; `cause` is that of the start which follows, None where none does."""
        if self.soft_seconds is None:
            return
        self._turn("PoweringOff")

        def off() -> None:
            self._turn("Off")
            if cause:
                self._start(cause)

        self._soft = asyncio.get_running_loop().call_later(self.soft_seconds, off)

    async def restart_cause(self) -> RestartCause:
        self._check()
        return self._cause

    async def power_on_hours(self) -> float:
        self._check()
        running = time.monotonic() - self._since if self._state != "Off" else 0.0
        return (self._on_seconds + running) / 3600

    async def boot(self) -> BootOverride:
        self._check()
        return self._boot

    async def set_boot(self, override: BootOverride) -> None:
        self._did("set_boot", override)
        if override.mode and override.mode not in self._offer.boot_modes:
            raise WrongState(f"this host has no {override.mode} firmware")
        self._boot = override
        self.tell("boot", override.target)

    async def sel(self) -> Sequence[SelEntry]:
        self._check()
        return tuple(self._sel)

    async def add_sel(self, data: bytes, message: str, severity: str = "OK") -> int:
        self._did("add_sel", data, message, severity)
        return self._append(data, message, severity)

    async def clear_sel(self) -> None:
        self._did("clear_sel")
        self._sel.clear()

    async def watchdog(self) -> Watchdog:
        self._check()
        if not self._watchdog.running:
            return self._watchdog
        return replace(self._watchdog, present=max(0, round((self._expires - time.monotonic()) * 10)))

    async def set_watchdog(self, watchdog: Watchdog) -> None:
        self._did("set_watchdog", watchdog)
        self._stop_timers()
        self._watchdog = watchdog
        if watchdog.running:
            loop, seconds = asyncio.get_running_loop(), watchdog.present / 10
            self._expires = time.monotonic() + seconds
            self._timers.append(loop.call_later(seconds, self._expire))
            if watchdog.pre_timeout_action == "nmi" and watchdog.pre_timeout_seconds < seconds:
                warning = seconds - watchdog.pre_timeout_seconds
                self._timers.append(loop.call_later(warning, self.actions.append, ("power", "nmi", "watchdog")))

    def _stop_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def _expire(self) -> None:
        expired, self._timers = self._watchdog, []
        flags = expired.flags | 1 << expired.use
        self._watchdog = replace(expired, running=False, present=0, flags=flags)
        if not expired.dont_log:
            data = bytes((0xC0 | WATCHDOG_OFFSETS[expired.action], expired.use, 0xFF))
            words = f"The watchdog expired: {expired.action}"
            self._log(WATCHDOG_2, WATCHDOG_SENSOR, data, words, "Critical" if expired.action != "none" else "Warning")
        if expired.action in ("off", "cycle") and self._state != "Off":
            self._turn("Off")
        if expired.action == "cycle" or (expired.action == "reset" and self._state != "Off"):
            self._start("watchdog")

    async def firmware(self) -> tuple[Firmware, Firmware, FirmwareOffer]:
        self._check()
        return self._firmware, self._next, self._offer

    async def set_firmware(self, firmware: Firmware) -> None:
        self._did("set_firmware", firmware)
        if firmware.boot_mode not in self._offer.boot_modes:
            raise WrongState(f"this host has no {firmware.boot_mode} firmware")
        if firmware.secure_boot and not (self._offer.secure_boot and firmware.boot_mode == "UEFI"):
            raise WrongState("no Secure Boot with this firmware")
        self._next = firmware
        if self._state == "Off":
            self._firmware = firmware
        self.tell("firmware", firmware.boot_mode)

    async def limits(self) -> Limits:
        self._check()
        return self._limits

    async def logged_in(self, login: Login) -> None:
        self._did("logged_in", login.user, login.protocol)

    async def identify(self, seconds: float | None) -> None:
        self._did("identify", seconds)
        self._lit_until = float("inf") if seconds is None else time.monotonic() + seconds if seconds else 0.0

    async def identifying(self) -> bool:
        self._check()
        return time.monotonic() < self._lit_until

    async def console(self) -> FakeConsole:
        self._check()
        viewer = FakeConsole(self)
        self.viewers.add(viewer)
        return viewer

    async def media(self) -> Sequence[Media]:
        self._check()
        return tuple(self._media.values())

    async def insert_media(self, slot: str, image: str, write_protected: bool = True) -> AsyncIterator[Progress]:
        """An image whose name ends in "missing.iso" cannot be loaded."""
        self._did("insert_media", slot, image, write_protected)
        if slot not in self._media:
            raise NotFound(f"no virtual media slot {slot}")
        if not image.startswith(("http://", "https://", "/")):
            raise PlacematError(f"{image}: neither an http(s) URL nor a path")
        if self._media[slot].inserted:
            raise WrongState(f"{slot} holds {self._media[slot].image}; eject it first")
        total = 4 << 20
        yield Progress(done=0, total=total)
        for done in range(1 << 20, total + 1, 1 << 20):
            await asyncio.sleep(self.media_seconds)
            if image.endswith("missing.iso"):
                raise NotFound(f"{image}: 404 Not Found")
            yield Progress(done=done, total=total)
        self._media[slot] = Media(slot=slot, image=image, inserted=True, write_protected=write_protected)
        self.tell("media", slot)

    async def eject_media(self, slot: str) -> None:
        self._did("eject_media", slot)
        if slot not in self._media:
            raise NotFound(f"no virtual media slot {slot}")
        if self._media[slot].inserted:
            self._media[slot] = Media(slot=slot)
            self.tell("media", slot)

    async def load(self, section: str) -> Json:
        self._check()
        copy: Json = json.loads(json.dumps(self.durable.get(section, {})))
        return copy

    async def save(self, section: str, value: Mapping[str, Any]) -> None:
        self._check()
        self.durable[section] = json.loads(json.dumps(dict(value), allow_nan=False))

    def events(self) -> AsyncIterator[MachineEvent]:
        queue: asyncio.Queue[MachineEvent] = asyncio.Queue()
        self._listeners.add(queue)
        return self._drain(queue)

    async def _drain(self, queue: asyncio.Queue[MachineEvent]) -> AsyncIterator[MachineEvent]:
        while True:
            yield await queue.get()
