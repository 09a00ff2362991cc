"""How often something may happen, or be said, because of those who are not trusted."""

import time
from collections.abc import Callable

REPORT_SECONDS = 60.0
"""How often, at most, the same misbehaviour is reported."""

PROBLEMS = 64
"""How many different ones are remembered; who has more of them is heard of less."""


class Allowance:
    """A token bucket: `burst` at once, `per_second` in the long run; the clock counts seconds."""

    def __init__(self, burst: float, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst, self._per_second, self._clock = burst, per_second, clock
        self._left, self._then = burst, clock()

    def take(self) -> bool:
        """Whether one more is allowed now."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._then) * self._per_second)
        self._then = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Complaints:
    """Passes each problem on at most once in `REPORT_SECONDS`."""

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._clock = say, clock
        self._said: dict[str, float] = {}

    def __call__(self, problem: str) -> None:
        """Something is wrong (again)."""
        now = self._clock()
        self._said = {known: then for known, then in self._said.items() if now - then < REPORT_SECONDS}
        if problem not in self._said and len(self._said) < PROBLEMS:
            self._said[problem] = now
            self._say(problem)
