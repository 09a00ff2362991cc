"""Warnings about what strangers send: said, but never as often as they like."""

import logging
from collections.abc import Callable

log = logging.getLogger("placemat.bmc")

AT_ONCE = 5
PER_SECONDS = 60.0


class Warnings:
    """Logs `AT_ONCE` warnings every `PER_SECONDS`, and counts the others."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since = clock()
        self._said = 0

    def __call__(self, text: str) -> None:
        """Warn, if it is not one too many."""
        now = self._clock()
        if now - self._since >= PER_SECONDS:
            if self._said > AT_ONCE:
                log.warning("%d more warnings like the last ones were left out", self._said - AT_ONCE)
            self._since, self._said = now, 0
        self._said += 1
        if self._said <= AT_ONCE:
            log.warning("%s", text)
