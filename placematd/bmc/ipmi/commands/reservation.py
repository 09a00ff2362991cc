"""Reservations of a repository (IPMI 2.0 sections 31.4 and 33.11)."""

import os
from collections import deque

from ..request import Code
from .table import require


class Reservations:
    """The reservation ids that hold.

    IPMI lets the latest one hold alone; here the latest few do, so that two consoles reading the same list do not
    keep disturbing each other. What changes the list ends them all. Ids start at random: one of an earlier process
    must not hold.
    """

    def __init__(self, most: int = 32) -> None:
        self._held: deque[int] = deque(maxlen=most)
        self._last = int.from_bytes(os.urandom(2), "little")

    def take(self) -> bytes:
        """A new reservation id, never 0, as it is sent."""
        self._last = self._last % 0xFFFF + 1
        self._held.append(self._last)
        return self._last.to_bytes(2, "little")

    def check(self, reservation: int) -> None:
        """Raises CommandError for an id that does not hold."""
        require(reservation in self._held, Code.RESERVATION_CANCELLED)

    def cancel(self) -> None:
        """The list has changed."""
        self._held.clear()

    def cancel_others(self, reservation: int) -> None:
        """The list has changed by order of the one with that reservation."""
        self._held.clear()
        self._held.append(reservation)
