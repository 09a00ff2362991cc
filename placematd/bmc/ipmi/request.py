"""What an IPMI command is asked with and how it answers, whichever way it came in (LAN session or system interface)."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import IntEnum


class Privilege(IntEnum):
    """Privilege levels (IPMI 2.0 section 6.8)."""

    NONE = 0
    CALLBACK = 1
    USER = 2
    OPERATOR = 3
    ADMINISTRATOR = 4


class Code(IntEnum):
    """Generic completion codes (IPMI 2.0 table 5-2)."""

    OK = 0x00
    NODE_BUSY = 0xC0
    INVALID_COMMAND = 0xC1
    INVALID_FOR_LUN = 0xC2
    TIMEOUT = 0xC3
    OUT_OF_SPACE = 0xC4
    RESERVATION_CANCELLED = 0xC5
    REQUEST_TRUNCATED = 0xC6
    REQUEST_LENGTH_INVALID = 0xC7
    LENGTH_LIMIT = 0xC8
    OUT_OF_RANGE = 0xC9
    CANNOT_RETURN_BYTES = 0xCA
    NOT_PRESENT = 0xCB
    INVALID_FIELD = 0xCC
    ILLEGAL_FOR_SENSOR = 0xCD
    NO_RESPONSE = 0xCE
    DESTINATION_UNAVAILABLE = 0xD3
    INSUFFICIENT_PRIVILEGE = 0xD4
    NOT_IN_PRESENT_STATE = 0xD5
    UNSPECIFIED = 0xFF


LAN_CHANNEL = 1
SYSTEM_INTERFACE = 0xF


class CommandError(Exception):
    """A completion code other than OK."""

    def __init__(self, code: int) -> None:
        super().__init__(f"completion code {code:#04x}")
        self.code = code


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who asks. A command of the system interface (the guest's) has no user and every privilege."""

    channel: int = LAN_CHANNEL
    user_id: int = 0
    user: str = ""
    privilege: Privilege = Privilege.NONE
    """The session's present privilege level."""
    limit: Privilege = Privilege.ADMINISTRATOR
    """The highest that Set Session Privilege Level may raise it to."""
    session_id: int = 0
    """The BMC's id of the session, 0 outside one."""
    remote: tuple[str, int] = ("", 0)


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request; `data` is what follows the command byte."""

    netfn: int
    command: int
    data: bytes = b""
    lun: int = 0
    caller: Caller = field(default_factory=Caller)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """`data` is what follows the completion code; `after` runs once the reply has been sent (power off, reset, ...)."""

    code: int = Code.OK
    data: bytes = b""
    after: Callable[[], Awaitable[None]] | None = None


Execute = Callable[[Request], Awaitable[Reply]]
"""The commands as the transports see them: never raises, answers unknown ones with INVALID_COMMAND."""
