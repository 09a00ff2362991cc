"""Chassis commands (IPMI 2.0 chapter 28) except the boot options."""

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

from ....errors import PlacematError
from ...machine import Machine, PowerAction
from ...sensors import RESTART_CAUSE_CODES
from ..request import Code, CommandError, Reply, Request
from .settings import Settings
from .table import CHASSIS, NOTHING, OPERATOR, USER, Row, between, require

log = logging.getLogger("placemat.bmc")

ACTIONS: Final[dict[int, PowerAction]] = {0: "off", 1: "on", 2: "cycle", 3: "reset", 4: "nmi", 5: "soft-off"}
"""Chassis Control's values (table 28-4)."""
ALSO_WHILE_OFF = ("off", "on")

DIAGNOSTIC_INTERRUPT = 0x04
"""The one capability (table 28-2): NMI."""
BMC_ADDRESS = 0x20

POLICIES = ("always-off", "previous", "always-on")
"""What happens when power returns (table 28-8), by IPMI's numbers; 3 is "no change"."""
NO_CHANGE = 3
POLICY = "power_restore_policy"
"""Key in the settings; one of POLICIES."""
DEFAULT_POLICY = "always-on"
"""placemat starts its nodes."""

LAST_ON_BY_COMMAND = 0x10
IDENTIFY_SUPPORTED = 0x40
IDENTIFY_TIMED, IDENTIFY_ON = 0x10, 0x20
IDENTIFY_SECONDS = 15
"""How long Chassis Identify lights the LED when it does not say."""

MINUTES_PER_COUNT = 60


class Chassis:
    """Power, status, identify; `on_control` is told that a chassis control command has come."""

    def __init__(self, machine: Machine, settings: Settings, on_control: Callable[[], Awaitable[None]]) -> None:
        self._machine, self._settings, self._on_control = machine, settings, on_control
        self._control_channel = 0
        self._identify_until = 0.0

    def rows(self) -> Sequence[Row]:
        """Capabilities, status, control and what belongs to them."""
        return (
            Row(CHASSIS, 0x00, USER, NOTHING, self.get_capabilities),
            Row(CHASSIS, 0x01, USER, NOTHING, self.get_status),
            Row(CHASSIS, 0x02, OPERATOR, (1,), self.control),
            Row(CHASSIS, 0x04, OPERATOR, between(0, 2), self.identify),
            Row(CHASSIS, 0x06, OPERATOR, (1,), self.set_policy),
            Row(CHASSIS, 0x07, USER, NOTHING, self.get_restart_cause),
            Row(CHASSIS, 0x0F, USER, NOTHING, self.get_power_on_hours),
        )

    async def get_capabilities(self, request: Request) -> Reply:
        """Section 28.1: everything is at the BMC's own address."""
        return Reply(data=bytes((DIAGNOSTIC_INTERRUPT, *[BMC_ADDRESS] * 5)))

    async def get_status(self, request: Request) -> Reply:
        """Section 28.2. Faults do not happen; the front panel has no button that could be locked."""
        is_on = await self._machine.power_state() != "Off"
        policy = await self._settings.text(POLICY) or DEFAULT_POLICY
        by_command = is_on and await self._machine.restart_cause() == "chassis-control"
        power = POLICIES.index(policy) << 5 | is_on
        last = LAST_ON_BY_COMMAND if by_command else 0
        return Reply(data=bytes((power, last, await self._identify_state(), 0x00)))

    async def _identify_state(self) -> int:
        if not await self._machine.identifying():
            return IDENTIFY_SUPPORTED
        timed = time.monotonic() < self._identify_until
        return IDENTIFY_SUPPORTED | (IDENTIFY_TIMED if timed else IDENTIFY_ON)

    async def control(self, request: Request) -> Reply:
        """Section 28.3: refused at once where it cannot be, else done after the answer."""
        action = ACTIONS.get(request.data[0] & 0x0F)
        if action is None or request.data[0] & 0xF0:
            raise CommandError(Code.INVALID_FIELD)
        if action not in ALSO_WHILE_OFF:
            require(await self._machine.power_state() != "Off", Code.NOT_IN_PRESENT_STATE)
        await self._on_control()
        self._control_channel = request.caller.channel
        return Reply(after=partial(self._switch, action))

    async def _switch(self, action: PowerAction) -> None:
        try:
            await self._machine.power(action, "chassis-control")
        except PlacematError as error:
            log.error("power %s: %s", action, error)

    async def identify(self, request: Request) -> Reply:
        """Section 28.5: [seconds, force on]; 0 seconds turn it off."""
        wanted = request.data[0] if request.data else IDENTIFY_SECONDS
        for_ever = len(request.data) == 2 and bool(request.data[1] & 0x01)
        await self._machine.identify(None if for_ever else wanted)
        self._identify_until = 0.0 if for_ever else time.monotonic() + wanted
        return Reply()

    async def set_policy(self, request: Request) -> Reply:
        """Section 28.8: answers which policies there are (all)."""
        policy = request.data[0] & 0x07
        require(policy <= NO_CHANGE)
        if policy != NO_CHANGE:
            await self._settings.put(POLICY, POLICIES[policy])
        return Reply(data=bytes(((1 << len(POLICIES)) - 1,)))

    async def get_restart_cause(self, request: Request) -> Reply:
        """Section 28.11; the channel is told for chassis control where this process still knows it."""
        cause = await self._machine.restart_cause()
        channel = self._control_channel if cause == "chassis-control" else 0
        return Reply(data=bytes((RESTART_CAUSE_CODES[cause], channel)))

    async def get_power_on_hours(self, request: Request) -> Reply:
        """Section 28.14."""
        hours = int(await self._machine.power_on_hours())
        return Reply(data=bytes((MINUTES_PER_COUNT,)) + min(hours, 0xFFFFFFFF).to_bytes(4, "little"))
