"""The command table: one row per command, and what every command is checked for before its handler runs."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from ..request import SYSTEM_INTERFACE, Code, CommandError, Privilege, Reply, Request

CHASSIS, SENSOR, APP, STORAGE, TRANSPORT = 0x00, 0x04, 0x06, 0x0A, 0x0C
"""Network functions (IPMI 2.0 table 5-1)."""

USER, OPERATOR, ADMINISTRATOR = Privilege.USER, Privilege.OPERATOR, Privilege.ADMINISTRATOR
ANYBODY = Privilege.NONE

PRESENT_CHANNEL: Final = 0xE
"""Channel number for "the one that this request came over" (IPMI 2.0 table 6-1)."""

Handler = Callable[[Request], Awaitable[Reply]]


@dataclass(frozen=True)
class Row:
    """One command. `lengths` are the numbers of data bytes that a request may have.

    `privilege` is the least that appendix G of IPMI 2.0 asks for; `local` marks the commands that it gives to the
    system interface alone.
    """

    netfn: int
    command: int
    privilege: Privilege
    lengths: Collection[int]
    handler: Handler
    local: bool = False

    def check(self, request: Request) -> None:
        """Raise CommandError unless this caller may send such a request."""
        inside = request.caller.channel == SYSTEM_INTERFACE
        if not inside and (self.local or request.caller.privilege < self.privilege):
            raise CommandError(Code.INSUFFICIENT_PRIVILEGE)
        if len(request.data) not in self.lengths:
            raise CommandError(Code.REQUEST_LENGTH_INVALID)


class Area(Protocol):
    """The commands of one subject."""

    def rows(self) -> Sequence[Row]:
        """Its part of the table."""
        ...


def between(least: int, most: int) -> range:
    """Lengths from `least` to `most`."""
    return range(least, most + 1)


NOTHING = (0,)
"""Lengths of a command without data."""


def require(condition: bool, code: int = Code.INVALID_FIELD) -> None:
    """Refuse the request with `code` unless the condition holds."""
    if not condition:
        raise CommandError(code)


def number(data: bytes) -> int:
    """An unsigned number; IPMI sends the least significant byte first."""
    return int.from_bytes(data, "little")


def seconds(moment: float) -> bytes:
    """A time stamp (IPMI 2.0 section 37): seconds since 1970."""
    return min(max(int(moment), 0), 0xFFFFFFFE).to_bytes(4, "little")
