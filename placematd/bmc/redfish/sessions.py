"""Sessions: in memory, bounded, and gone with the process, which must not end for idleness while there are any."""

import hashlib
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ..accounts import Account
from .messages import RedfishError

MOST = 64
SHORTEST_SECONDS, LONGEST_SECONDS = 30, 86400


@dataclass
class Session:
    """A login; `account` is that of the login, to be compared with what has become of it."""

    id: str
    account: Account
    remote: str
    created: datetime
    used: float
    """When it was used last, on the monotonic clock."""
    context: str | None = None
    _digest: bytes = field(default=b"", repr=False)


class Sessions:
    """The table of sessions; tokens are kept as digests alone."""

    def __init__(
        self,
        account_of: Callable[[int], Account | None],
        timeout_seconds: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._account_of, self._timeout_seconds, self._clock = account_of, timeout_seconds, clock
        self._by_digest: dict[bytes, Session] = {}

    def open(self, account: Account, remote: str, context: str | None = None) -> tuple[Session, str]:
        """A new session and its token. Raises RedfishError where there are too many."""
        if len(self.all()) >= MOST:
            raise RedfishError("SessionLimitExceeded")
        token = secrets.token_hex(32)
        digest = _digest(token)
        session = Session(
            secrets.token_hex(6),
            account,
            remote,
            datetime.now(UTC).replace(microsecond=0),
            self._clock(),
            context,
            digest,
        )
        self._by_digest[digest] = session
        return session, token

    def find(self, token: str) -> tuple[Session, Account] | None:
        """The session of a token with its account as it is now; that is a use of the session."""
        session = self._by_digest.get(_digest(token))
        if session is None:
            return None
        account = self._alive(session)
        if account is None:
            self.close(session)
            return None
        session.used = self._clock()
        return session, account

    def all(self) -> Sequence[Session]:
        """Those that are alive, oldest first; the others are dropped."""
        for session in [session for session in self._by_digest.values() if self._alive(session) is None]:
            self.close(session)
        return tuple(self._by_digest.values())

    def get(self, session_id: str) -> Session | None:
        """By the id in the URI."""
        return next((session for session in self.all() if session.id == session_id), None)

    def close(self, session: Session) -> None:
        """End a session; one that has ended is no error."""
        self._by_digest.pop(session._digest, None)

    def _alive(self, session: Session) -> Account | None:
        """The account, unless the session was unused for too long or its user has another name or password now."""
        account = self._account_of(session.account.slot)
        before = session.account
        same = account is not None and (account.name, account.password) == (before.name, before.password)
        fresh = self._clock() - session.used < self._timeout_seconds()
        return account if account and same and fresh and account.may_log_in("redfish") else None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()
