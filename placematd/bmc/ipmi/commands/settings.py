"""What the commands keep durably with the node besides accounts."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from ...machine import Machine

SECTION = "ipmi"
"""Section of the machine's store that belongs to the IPMI commands."""

Now = Callable[[], float]
"""Seconds since 1970."""


class Settings:
    """The section "ipmi", a flat mapping; nothing is cached, because a process may die or others may write."""

    def __init__(self, machine: Machine, section: str = SECTION) -> None:
        self._machine, self._section = machine, section
        self._writing = asyncio.Lock()

    async def get(self, key: str, default: Any = None) -> Any:
        """The value of `key`."""
        return (await self._machine.load(self._section)).get(key, default)

    async def text(self, key: str) -> str:
        """The string that is kept as `key`, "" where none is."""
        value = await self.get(key, "")
        return value if isinstance(value, str) else ""

    async def integer(self, key: str, default: int = 0) -> int:
        """The number that is kept as `key`."""
        value = await self.get(key, default)
        return value if isinstance(value, int) else default

    async def put(self, key: str, value: Any) -> None:
        """Keep `value`; None forgets it."""
        async with self._writing:
            before = await self._machine.load(self._section)
            after = {**before, key: value}
            if value is None:
                del after[key]
            if after != before:
                await self._machine.save(self._section, after)

    async def put_item(self, key: str, item: str, value: Any) -> None:
        """Keep one item of the mapping `key`."""
        async with self._writing:
            before = await self._machine.load(self._section)
            await self._machine.save(self._section, {**before, key: {**before.get(key, {}), item: value}})


class Clock:
    """The BMC's clock as IPMI tells it: the host's, plus what Set SEL Time moved it by (kept durably)."""

    def __init__(self, settings: Settings, now: Now = time.time) -> None:
        self._settings, self.now = settings, now

    async def offset(self) -> int:
        """Seconds that IPMI's clock is ahead of the host's."""
        return await self._settings.integer("clock_offset")

    async def time(self) -> float:
        """What time it is for IPMI."""
        return self.now() + await self.offset()

    async def set(self, moment: int) -> None:
        """Make it that time now. All time stamps of the log move along: the log itself is kept in UTC."""
        await self._settings.put("clock_offset", moment - int(self.now()))


class InProgress:
    """A "set in progress" parameter: a marker that two consoles do not configure at once.

    It belongs to the session that set it and is forgotten after a minute: a console that died blocks nobody.
    """

    SECONDS = 60

    def __init__(self) -> None:
        self._owner: tuple[int, int] | None = None
        self._until = 0.0

    @property
    def state(self) -> int:
        """0 for set complete, 1 for set in progress."""
        return 1 if self._owner and time.monotonic() < self._until else 0

    def take(self, owner: tuple[int, int], value: int) -> bool:
        """Set the state (2, commit, changes nothing); whether it was `owner`'s (channel and session) to set."""
        if self.state and self._owner != owner:
            return value == 0 and self._release()
        if value == 1:
            self._owner, self._until = owner, time.monotonic() + self.SECONDS
        return value != 0 or self._release()

    def _release(self) -> bool:
        self._owner = None
        return True
