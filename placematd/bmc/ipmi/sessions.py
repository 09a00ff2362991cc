"""Who is logged in over the LAN: the part of the session table that others may see."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from .request import LAN_CHANNEL, Privilege

MAX_SESSIONS = 32
"""How many sessions can be open at once."""


@dataclass(frozen=True, kw_only=True)
class SessionInfo:
    """One open session as it stands."""

    id: int
    """The BMC's id of the session."""
    handle: int
    """The small number (1 to MAX_SESSIONS) that Get Session Info knows the session by."""
    user_id: int
    user: str
    privilege: Privilege
    limit: Privilege
    remote: tuple[str, int]
    channel: int = LAN_CHANNEL
    suite: int
    """Cipher suite, 3 or 17."""
    started: datetime
    """UTC."""
    console: bool = False
    """Whether Serial over LAN is active in it."""


class SessionTable(Protocol):
    """The open sessions; `Sessions` in table.py is the real one, made before the server and the commands."""

    def all(self) -> Sequence[SessionInfo]:
        """Open sessions, oldest first."""
        ...

    def get(self, session_id: int) -> SessionInfo | None:
        """The open session with that id."""
        ...

    @property
    def last(self) -> SessionInfo | None:
        """The session that logged in last in the life of this process, open or not."""
        ...
