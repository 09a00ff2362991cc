"""Who asks: Basic and session authentication (DSP0266 "Security details"), locking out, and what a role may do."""

import base64
import binascii
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..accounts import Account, Accounts, Role
from ..logins import Logins
from ..machine import Login as LoggedIn
from .messages import RedfishError
from .resource import Privilege
from .sessions import Session, Sessions
from .settings import Settings

log = logging.getLogger("placemat.bmc")

PRIVILEGES: Mapping[Role, tuple[Privilege, ...]] = {
    "Administrator": ("Login", "ConfigureManager", "ConfigureUsers", "ConfigureComponents", "ConfigureSelf"),
    "Operator": ("Login", "ConfigureComponents", "ConfigureSelf"),
    "ReadOnly": ("Login", "ConfigureSelf"),
}
"""DSP0266 "Roles", the standard roles."""

CHALLENGE = {"WWW-Authenticate": 'Basic realm="placemat", charset="UTF-8"'}


@dataclass
class _Failures:
    count: int = 0
    last: float = 0.0
    locked_until: float = 0.0


class Login:
    """Proves names, passwords and tokens. Raises RedfishError with 401 where they are wrong, never saying why."""

    def __init__(
        self,
        accounts: Accounts,
        sessions: Sessions,
        settings: Settings,
        logins: Logins,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._accounts, self._sessions, self._settings, self._clock = accounts, sessions, settings, clock
        self._logins = logins
        self._failures: dict[int, _Failures] = {}

    def check(self, name: str, password: str, remote: str) -> Account:
        """The account with that name and password; the machine is told who it is."""
        named = self._accounts.by_name(name)
        account = self._accounts.verify(name, password)
        if named and self.locked(named.slot):
            account = None
        elif account:
            self._failures.pop(account.slot, None)
        elif named:
            self._failed(named, remote)
        if account is None:
            raise refused()
        self._logins.note(LoggedIn(user=account.name, protocol="Redfish", remote=remote))
        return account

    def authenticate(self, headers: Mapping[str, str], remote: str) -> tuple[Account, Session | None]:
        """The account of a request's headers, and its session if it has one."""
        if token := headers.get("X-Auth-Token"):
            if found := self._sessions.find(token):
                return found[1], found[0]
            raise refused()
        return self.check(*_basic(headers.get("Authorization", "")), remote), None

    def locked(self, slot: int) -> bool:
        """Whether the account is locked out for now."""
        failures = self._failures.get(slot)
        return failures is not None and self._clock() < failures.locked_until

    def unlock(self, slot: int) -> None:
        """Forget the failures of an account."""
        self._failures.pop(slot, None)

    @property
    def any_locked(self) -> bool:
        """Whether the process must live on, because it alone knows of a lock."""
        return any(map(self.locked, self._failures))

    def _failed(self, account: Account, remote: str) -> None:
        values, now = self._settings.values, self._clock()
        failures = self._failures.setdefault(account.slot, _Failures())
        if now - failures.last >= values.lockout_reset_seconds:
            failures.count = 0
        failures.count, failures.last = failures.count + 1, now
        if 0 < values.lockout_threshold <= failures.count:
            failures.locked_until, failures.count = now + values.lockout_duration_seconds, 0
            log.warning("redfish: %s is locked after failed logins, the last from %s", ascii(account.name), remote)


def refused() -> RedfishError:
    """The 401 for whoever is nobody."""
    return RedfishError("NoValidSession", headers=CHALLENGE)


def _basic(header: str) -> tuple[str, str]:
    """Name and password of RFC 7617. Raises RedfishError."""
    scheme, _, credentials = header.partition(" ")
    if scheme.lower() != "basic":
        raise refused()
    try:
        name, colon, password = base64.b64decode(credentials.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError, ValueError) as error:
        raise refused() from error
    if not colon:
        raise refused()
    return name, password
