"""Telling placematd who logs in, for `placemat-cli bmc list`. Nobody waits for that, and nothing fails without it."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from ..errors import PlacematError
from .machine import Login, Machine

AGAIN_SECONDS = 10.0
"""A client that logs in with each request (HTTP Basic) is told of once in so long."""


class Logins:
    """Tells a machine of logins, one at a time: while it is being told, only the last one after that is kept."""

    def __init__(self, machine: Machine, clock: Callable[[], float] = time.monotonic) -> None:
        self._machine, self._clock = machine, clock
        self._told: Login | None = None
        self._at = 0.0
        self._next: Login | None = None
        self._task: asyncio.Task[None] | None = None

    def note(self, login: Login) -> None:
        """Somebody logged in; to be called in the event loop."""
        if login == self._told and self._clock() - self._at < AGAIN_SECONDS:
            return
        self._told, self._at, self._next = login, self._clock(), login
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._tell(), name="tell of logins")

    async def _tell(self) -> None:
        while self._next:
            login, self._next = self._next, None
            with suppress(PlacematError):  # placematd is away, and has no use for it when it is back
                await self._machine.logged_in(login)
