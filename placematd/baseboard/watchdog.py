"""The watchdog timer of a node (IPMI 2.0 section 27), run by placematd's event loop."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

from ..bmc.machine import Watchdog
from .store import Store

TENTHS = 10
"""IPMI counts in 100 ms."""

GRACE_SECONDS = 10.0
"""What is left, at least, of a timer that ran while placematd was away: its guest could not restart it meanwhile."""


class WatchdogTimer:
    """The timer: `on_warning` is called when the pre-timeout interval begins, `on_expiry` at the end.

    Both get the watchdog as it was set; at the end, the timer has stopped and its expiration flag is set.
    """

    def __init__(
        self, store: Store, on_warning: Callable[[Watchdog], None], on_expiry: Callable[[Watchdog], None]
    ) -> None:
        self._store = store
        self._on_warning, self._on_expiry = on_warning, on_expiry
        self._ends = 0.0
        self._timers: tuple[asyncio.TimerHandle, ...] = ()

    @property
    def present(self) -> Watchdog:
        """The watchdog with its countdown as it is now."""
        watchdog = self._store.state.watchdog
        if not self._timers:
            return replace(watchdog, running=False)
        left = max(0.0, self._ends - asyncio.get_running_loop().time())
        return replace(watchdog, present=round(left * TENTHS))

    def set(self, watchdog: Watchdog) -> None:
        """Take the settings; one that runs counts down from `present`."""
        self._run(watchdog, watchdog.present / TENTHS)

    def resume(self) -> None:
        """Go on with what an earlier placematd left, whatever the clock did meanwhile."""
        state = self._store.state
        if state.watchdog.running and not self._timers:
            whole = max(state.watchdog.initial / TENTHS, 1 / TENTHS)
            left = min(max(state.watchdog_ends - time.time(), GRACE_SECONDS), whole)
            self._run(state.watchdog, left)

    def stop(self) -> None:
        """Stop counting; the settings stay."""
        if self._store.state.watchdog.running:
            self._run(replace(self.present, running=False), 0)

    def close(self) -> None:
        """Let go of the timers, and leave what is stored as it is."""
        for timer in self._timers:
            timer.cancel()
        self._timers = ()

    def _run(self, watchdog: Watchdog, seconds: float) -> None:
        self.close()
        self._store.change(watchdog=watchdog, watchdog_ends=time.time() + seconds if watchdog.running else 0.0)
        if watchdog.running:
            loop = asyncio.get_running_loop()
            self._ends = loop.time() + seconds
            timers = [loop.call_at(self._ends, self._expire)]
            if watchdog.pre_timeout_action != "none" and watchdog.pre_timeout_seconds < seconds:
                begins = self._ends - watchdog.pre_timeout_seconds
                timers.append(loop.call_at(begins, self._on_warning, watchdog))
            self._timers = tuple(timers)

    def _expire(self) -> None:
        expired = self._store.state.watchdog
        flags = expired.flags | 1 << (expired.use & 7)
        # "Don't log" holds for one run only (IPMI 2.0 table 27-3, timer use).
        self._run(replace(expired, running=False, present=0, flags=flags, dont_log=False), 0)
        self._on_expiry(expired)
