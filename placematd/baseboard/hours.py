"""Power-on time of a node, over all starts."""

import asyncio
import time
from collections.abc import Callable

from .store import Store

COUNT_SECONDS = 600.0
"""How often it is made durable."""


class PowerHours:
    """The counter in a node's store; `commit_soon` makes the store durable."""

    def __init__(self, store: Store, commit_soon: Callable[[], None]) -> None:
        self._store, self._commit_soon = store, commit_soon
        self._since: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def counting(self) -> bool:
        """Whether the node is on, as far as was told."""
        return bool(self._store.state.counted_at)

    @property
    def seconds(self) -> float:
        """Power-on time until now."""
        running = asyncio.get_running_loop().time() - self._since if self._since is not None else 0.0
        return self._store.state.power_on_seconds + running

    def start(self) -> None:
        """The node is on from now."""
        self.close()
        self._since = asyncio.get_running_loop().time()
        self._store.change(counted_at=time.time())
        self._timer = asyncio.get_running_loop().call_later(COUNT_SECONDS, self._count)

    def resume(self) -> None:
        """The node has been on since an earlier placematd counted; a clock that was set back counts nothing."""
        if self.counting:
            away = max(0.0, time.time() - self._store.state.counted_at)
            self._store.change(power_on_seconds=self._store.state.power_on_seconds + away)
        self.start()

    def stop(self) -> None:
        """The node is off."""
        self._store.change(power_on_seconds=self.seconds, counted_at=0.0)
        self.close()

    def close(self) -> None:
        """Let go of the timer."""
        self._since = None
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _count(self) -> None:
        self._store.change(power_on_seconds=self.seconds)
        self.start()
        self._commit_soon()
