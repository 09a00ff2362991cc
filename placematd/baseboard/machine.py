"""The baseboard of a node: placematd's side of its BMC, which is what outlives the BMC's process.

BMC's process --Varlink--> Baseboard (Machine) --> NodeControl, QEMU's monitor
                               Store: DATA/CLUSTER/bmc/NODE.json
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..bmc.machine import (
    BootOverride,
    ConsoleStream,
    Firmware,
    FirmwareOffer,
    Health,
    Inventory,
    Json,
    Limits,
    Login,
    MachineEvent,
    Media,
    PowerAction,
    PowerState,
    Progress,
    RestartCause,
    SelEntry,
    Watchdog,
)
from ..console import Viewer
from ..events import Events
from .chassis import EVENTS_WAITING, Chassis
from .identity import Identity, bios_version
from .power import Node
from .store import Store


class NodeConsole:
    """A viewer of the node's console, as a BMC sees it."""

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer

    async def read(self) -> bytes:
        """See `ConsoleStream`."""
        return await self._viewer.read()

    async def write(self, data: bytes) -> None:
        """See `ConsoleStream`."""
        await self._viewer.write(data)

    async def close(self) -> None:
        """See `ConsoleStream`."""
        self._viewer.close()


class Baseboard(Chassis):
    """`Machine` for one node, to be made with `open`. See `Machine` for what is not said here, and `Chassis` for what
    must be told.
    """

    last_login: tuple[Login, datetime] | None = None
    """Who logged in last, since placematd runs."""
    _lit_until = 0.0

    @classmethod
    async def open(cls, path: Path, node: Node, identity: Identity, events: Events) -> "Baseboard":
        """The baseboard whose store is at `path` (DATA/CLUSTER/bmc/NODE.json). Raises StepError."""
        return cls(node, identity, await Store.open(path), events)

    async def inventory(self) -> Inventory:
        """See `Machine`."""
        firmware = self._boot.running if self._store.state.running else self._boot.wanted
        return replace(
            self.identity.inventory,
            boot_mode=firmware.boot_mode,
            tpm=firmware.tpm,
            secure_boot=firmware.secure_boot,
            bios_version=await asyncio.to_thread(bios_version, firmware.boot_mode),
            disks=await self.identity.disks_now(),
        )

    async def health(self) -> Health:
        """See `Machine`."""
        return await self._readings.read(await self._node.pid() if self._switch.state != "Off" else None)

    async def power_state(self) -> PowerState:
        """See `Machine`."""
        return self._switch.state

    async def power(self, action: PowerAction, cause: RestartCause = "chassis-control") -> None:
        """See `Machine`. A reset becomes off and on where the next boot needs other firmware."""
        await self._switch.act(action, cause)
        await self._store.commit()

    async def restart_cause(self) -> RestartCause:
        """See `Machine`."""
        return self._store.state.restart_cause

    async def power_on_hours(self) -> float:
        """See `Machine`."""
        return self._hours.seconds / 3600

    async def boot(self) -> BootOverride:
        """See `Machine`."""
        return self._store.state.boot

    async def set_boot(self, override: BootOverride) -> None:
        """See `Machine`."""
        # Half an order would count as a whole one at the next reset, so a client that leaves does not stop it.
        await asyncio.shield(self._boot.set(override, self._monitor))

    async def sel(self) -> Sequence[SelEntry]:
        """See `Machine`."""
        return self._store.state.sel

    async def add_sel(self, data: bytes, message: str, severity: str = "OK") -> int:
        """See `Machine`."""
        record_id = self._log.add(data, message, severity)
        await self._store.commit()
        return record_id

    async def clear_sel(self) -> None:
        """See `Machine`; the log begins with the entry that says so."""
        self._log.clear()
        await self._store.commit()

    async def watchdog(self) -> Watchdog:
        """See `Machine`."""
        return self._timer.present

    async def set_watchdog(self, watchdog: Watchdog) -> None:
        """See `Machine`."""
        self._timer.set(watchdog)
        await self._store.commit()

    async def firmware(self) -> tuple[Firmware, Firmware, FirmwareOffer]:
        """See `Machine`."""
        return self._boot.in_force, self._boot.settings, self.identity.offer

    async def set_firmware(self, firmware: Firmware) -> None:
        """See `Machine`; the settings of a machine that is off are in force at once."""
        await self._boot.set_firmware(firmware, on=self._switch.state != "Off")

    async def limits(self) -> Limits:
        """See `Machine`."""
        return self.identity.limits

    async def logged_in(self, login: Login) -> None:
        """See `Machine`."""
        self.last_login = login, datetime.now(UTC)

    async def identify(self, seconds: float | None) -> None:
        """See `Machine`."""
        now = asyncio.get_running_loop().time()
        self._lit_until = float("inf") if seconds is None else now + max(0.0, seconds)

    async def identifying(self) -> bool:
        """See `Machine`."""
        return asyncio.get_running_loop().time() < self._lit_until

    async def console(self) -> ConsoleStream:
        """See `Machine`."""
        return NodeConsole(self._node.console.view())

    async def media(self) -> Sequence[Media]:
        """See `Machine`."""
        return (self._slot.media,)

    def insert_media(self, slot: str, image: str, write_protected: bool = True) -> AsyncIterator[Progress]:
        """See `Machine`."""
        return self._slot.insert(slot, image, write_protected)

    async def eject_media(self, slot: str) -> None:
        """See `Machine`."""
        await asyncio.shield(self._slot.eject(slot))

    async def load(self, section: str) -> Json:
        """See `Machine`."""
        return self._store.section(section)

    async def save(self, section: str, value: Mapping[str, Any]) -> None:
        """See `Machine`."""
        self._store.set_section(section, value)
        await self._store.commit()

    def events(self) -> AsyncIterator[MachineEvent]:
        """See `Machine`."""
        queue: asyncio.Queue[MachineEvent] = asyncio.Queue(EVENTS_WAITING)
        self._listeners.add(queue)
        return _drain(queue)


async def _drain(queue: asyncio.Queue[MachineEvent]) -> AsyncIterator[MachineEvent]:
    while True:
        yield await queue.get()
