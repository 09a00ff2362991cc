"""The watchdog timer's commands (IPMI 2.0 chapter 27); the timer itself runs on the machine's side."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Literal

from ...machine import Machine, Watchdog
from ..request import Reply, Request
from .table import APP, NOTHING, OPERATOR, USER, Row, number, require

NOT_INITIALISED = 0x80
"""Completion code of Reset Watchdog Timer before the first Set."""

USES = range(1, 6)
ACTIONS: Final[tuple[Literal["none", "reset", "off", "cycle"], ...]] = ("none", "reset", "off", "cycle")
PRE_TIMEOUTS: Final[dict[int, Literal["none", "nmi"]]] = {0: "none", 2: "nmi"}
"""What can happen before the timeout; SMI and messaging interrupt are not offered."""

DONT_LOG, DONT_STOP, RUNNING = 0x80, 0x40, 0x40


class WatchdogTimer:
    """Reset, Set and Get Watchdog Timer."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def rows(self) -> Sequence[Row]:
        """The three commands."""
        return (
            Row(APP, 0x22, OPERATOR, NOTHING, self.reset),
            Row(APP, 0x24, OPERATOR, (6,), self.set),
            Row(APP, 0x25, USER, NOTHING, self.get),
        )

    async def reset(self, request: Request) -> Reply:
        """Section 27.5: start, or start again, from the initial countdown."""
        timer = await self._machine.watchdog()
        require(timer.use in USES, NOT_INITIALISED)
        await self._machine.set_watchdog(replace(timer, running=True, present=timer.initial))
        return Reply()

    async def set(self, request: Request) -> Reply:
        """Section 27.6: the timer stops unless "don't stop" is asked for."""
        use, actions, pre_timeout, clear, *_ = request.data
        initial = number(request.data[4:6])
        require(use & 0x07 in USES and not use & 0x38)
        require(actions & 0x88 == 0 and actions & 0x07 < len(ACTIONS) and actions >> 4 in PRE_TIMEOUTS)
        require(actions >> 4 == 0 or pre_timeout * 10 <= initial)
        before = await self._machine.watchdog()
        timer = Watchdog(
            running=before.running and bool(use & DONT_STOP),
            use=use & 0x07,
            dont_log=bool(use & DONT_LOG),
            action=ACTIONS[actions & 0x07],
            pre_timeout_seconds=pre_timeout,
            pre_timeout_action=PRE_TIMEOUTS[actions >> 4],
            initial=initial,
            present=initial,
            flags=before.flags & ~clear,
        )
        await self._machine.set_watchdog(timer)
        return Reply()

    async def get(self, request: Request) -> Reply:
        """Section 27.7."""
        timer = await self._machine.watchdog()
        use = timer.use | (DONT_LOG if timer.dont_log else 0) | (RUNNING if timer.running else 0)
        pre_timeout = 2 if timer.pre_timeout_action == "nmi" else 0
        head = bytes((use, pre_timeout << 4 | ACTIONS.index(timer.action), timer.pre_timeout_seconds, timer.flags))
        return Reply(data=head + timer.initial.to_bytes(2, "little") + timer.present.to_bytes(2, "little"))
