"""Channels (IPMI 2.0 sections 22.13 to 22.24): the LAN and the guest's system interface."""

from collections.abc import Sequence

from ..request import LAN_CHANNEL, SYSTEM_INTERFACE, Caller, Reply, Request
from ..sessions import SessionTable
from .table import ADMINISTRATOR, APP, PRESENT_CHANNEL, USER, Row, require

LAN_MEDIUM, SYSTEM_MEDIUM = 0x04, 0x0C
IPMB_PROTOCOL, KCS_PROTOCOL = 0x01, 0x05
MULTI_SESSION = 0x80
IPMI_FORUM = bytes((0xF2, 0x1B, 0x00))
NO_INTERRUPTS = bytes((0xFF, 0xFF))

SESSIONLESS = 0x82
"""Completion code of Get and Set Channel Access: not supported for the selected channel."""
ACCESS = bytes((0x22, 0x04))
"""Always available, no alerts, up to Administrator (table 22-29)."""
NO_CHANGE, PRESENT_VALUES = 0x00, (0x40, 0x80)


def channel_of(caller: Caller, value: int) -> int:
    """The channel that a number names; raises CommandError where there is none."""
    channel = caller.channel if value & 0x0F == PRESENT_CHANNEL else value & 0x0F
    require(channel in (LAN_CHANNEL, SYSTEM_INTERFACE))
    return channel


class Channels:
    """Information and access."""

    def __init__(self, sessions: SessionTable) -> None:
        self._sessions = sessions

    def rows(self) -> Sequence[Row]:
        """The three commands."""
        return (
            Row(APP, 0x40, ADMINISTRATOR, (3,), self.set_access),
            Row(APP, 0x41, USER, (2,), self.get_access),
            Row(APP, 0x42, USER, (1,), self.get_info),
        )

    async def set_access(self, request: Request) -> Reply:
        """Section 22.22: the LAN is as it is; setting what is set already succeeds."""
        require(channel_of(request.caller, request.data[0]) == LAN_CHANNEL, SESSIONLESS)
        for value, present in zip(request.data[1:], ACCESS, strict=True):
            kept = value & 0xC0 == NO_CHANGE or (value & 0xC0 in PRESENT_VALUES and value & 0x3F == present)
            require(kept)
        return Reply()

    async def get_access(self, request: Request) -> Reply:
        """Section 22.23: [channel, 40h for the stored or 80h for the present settings]."""
        require(channel_of(request.caller, request.data[0]) == LAN_CHANNEL, SESSIONLESS)
        require(request.data[1] & 0xC0 in PRESENT_VALUES)
        return Reply(data=ACCESS)

    async def get_info(self, request: Request) -> Reply:
        """Section 22.24."""
        channel = channel_of(request.caller, request.data[0])
        if channel == SYSTEM_INTERFACE:
            return Reply(data=bytes((channel, SYSTEM_MEDIUM, KCS_PROTOCOL, 0)) + IPMI_FORUM + NO_INTERRUPTS)
        active = MULTI_SESSION | min(len(self._sessions.all()), 0x3F)
        return Reply(data=bytes((channel, LAN_MEDIUM, IPMB_PROTOCOL, active)) + IPMI_FORUM + bytes(2))
