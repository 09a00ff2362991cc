"""Boot option parameter 5, the boot flags (IPMI 2.0 table 28-14), and the minute after which they are forgotten."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Final, cast

from ....errors import PlacematError
from ...machine import BootEnabled, BootMode, BootOverride, BootTarget, Machine
from ..request import Code, CommandError
from .settings import Now, Settings
from .table import require

log = logging.getLogger("placemat.bmc")

VALID, PERSISTENT, EFI = 0x80, 0x40, 0x20
DEVICES: Final[Mapping[BootTarget, int]] = {"None": 0x0, "Pxe": 0x1, "Hdd": 0x2, "Cd": 0x5}
"""Boot device selectors that come true; others (floppy, diagnostics, setup, remote media) are refused."""
TARGETS = {device: target for target, device in DEVICES.items()}
DEVICE_BITS = 0x3C
LENGTH = 5

VALID_SECONDS = 60.0
"""How long flags wait for a chassis control command (table 28-14, parameter 3)."""
DEADLINE = "boot_deadline"
"""Key in the settings: {"at": seconds since 1970, "target", "mode"} of flags that wait for chassis control."""


def encode(override: BootOverride) -> bytes:
    """The boot flags that say `override`; all zero where there is none."""
    if override.enabled == "Disabled":
        return bytes(LENGTH)
    flags = VALID | (PERSISTENT if override.enabled == "Continuous" else 0) | (EFI if override.mode == "UEFI" else 0)
    return bytes((flags, DEVICES[override.target] << 2, 0, 0, 0))


def decode(flags: bytes) -> BootOverride:
    """What the five bytes ask for. Raises CommandError for what would not come true (locks, CMOS clear, console...)."""
    require(len(flags) == LENGTH, Code.REQUEST_LENGTH_INVALID)
    require(not any(flags[2:]) and not flags[0] & 0x1F and not flags[1] & ~DEVICE_BITS)
    target = TARGETS.get(flags[1] >> 2)
    if target is None:
        raise CommandError(Code.INVALID_FIELD)
    mode: BootMode | None = "UEFI" if flags[0] & EFI else None
    if not flags[0] & VALID or (target == "None" and mode is None):
        return BootOverride()
    enabled: BootEnabled = "Continuous" if flags[0] & PERSISTENT else "Once"
    return BootOverride(enabled=enabled, target=target, mode=mode)


class BootFlags:
    """The machine's boot override as IPMI's boot flags.

    Flags for the next boot that no chassis control command follows are cleared after a minute, unless parameter 3 says
    otherwise; what Redfish has set, and persistent flags, stay. The deadline is durable: `resume` takes it up again.
    """

    def __init__(self, machine: Machine, settings: Settings, now: Now) -> None:
        self._machine, self._settings, self._now = machine, settings, now
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> bool:
        """Whether the process is needed, because flags have to be cleared soon."""
        return self._timer is not None or (self._task is not None and not self._task.done())

    async def resume(self) -> None:
        """Take up a deadline that an earlier process left."""
        deadline = await self._settings.get(DEADLINE)
        if isinstance(deadline, dict) and self._timer is None:
            self._start(min(max(deadline.get("at", 0.0) - self._now(), 0.0), VALID_SECONDS))

    async def get(self) -> bytes:
        """The five bytes as they stand."""
        return encode(await self._machine.boot())

    async def set(self, flags: bytes, expires: bool) -> None:
        """Make them the override; `expires` unless parameter 3 says that they wait without end."""
        override = decode(flags)
        await self._machine.set_boot(override)
        await self.keep()
        if override.enabled == "Once" and expires:
            at = self._now() + VALID_SECONDS
            await self._settings.put(DEADLINE, {"at": at, "target": override.target, "mode": override.mode})
            self._start(VALID_SECONDS)

    async def keep(self) -> None:
        """A chassis control command has come (or the flags are others): no deadline any more."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if await self._settings.get(DEADLINE) is not None:
            await self._settings.put(DEADLINE, None)

    def _start(self, seconds: float) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._expire)

    def _expire(self) -> None:
        self._timer = None
        self._task = asyncio.get_running_loop().create_task(self._clear())

    async def _clear(self) -> None:
        """Clear the flags that waited, unless somebody has set others since."""
        try:
            deadline = await self._settings.get(DEADLINE)
            if isinstance(deadline, dict):
                mode = cast("BootMode | None", deadline.get("mode"))
                waited = BootOverride(enabled="Once", target=deadline.get("target", "None"), mode=mode)
                if await self._machine.boot() == waited:
                    await self._machine.set_boot(BootOverride())
                await self._settings.put(DEADLINE, None)
        except PlacematError as error:
            log.error("clear the boot flags: %s", error)
