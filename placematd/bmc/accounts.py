"""The accounts of a BMC: the same for IPMI and Redfish, kept durably with the node.

IPMI's key exchange needs the password itself (IPMI 2.0 section 13.31), so that no hash can be kept: the store is
readable by root alone. Limits are IPMI's (`credentials`): 16 bytes for a name, 20 for a password, slots 2 to 15. Slot 1
is the nameless user, which does not exist. An enabled account always has a password.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hmac import compare_digest
from typing import Any, Final, Literal, get_args

from ..credentials import FIRST_SLOT, LAST_SLOT, NAME_BYTES, PASSWORD_BYTES, Role, name_problem, password_problem
from ..errors import PlacematError
from .machine import Json, Machine

__all__ = [
    "FIRST_SLOT",
    "LAST_SLOT",
    "NAME_BYTES",
    "PASSWORD_BYTES",
    "PRIVILEGE_OF",
    "Account",
    "AccountError",
    "Accounts",
    "Role",
]

SECTION: Final = "accounts"
"""{"revision": int, "accounts": [{field of Account: value}, ...], ...}; other keys belong to placematd and stay."""

PRIVILEGE_OF: Mapping[Role, int] = {"ReadOnly": 2, "Operator": 3, "Administrator": 4}
"""Roles as IPMI privilege levels (IPMI 2.0 section 6.8)."""

Over = Literal["ipmi", "redfish"]
Reason = Literal["name-taken", "no-slot", "no-account", "bad-name", "bad-password", "bad-role", "last-administrator"]


@dataclass(frozen=True, kw_only=True)
class Account:
    """One user; `slot` is the IPMI user id and the Redfish id."""

    slot: int
    name: str
    password: str = field(repr=False)
    """ "" where IPMI named the user and gave it no password yet; it cannot log in and cannot be enabled."""
    role: Role
    enabled: bool = True
    ipmi: bool = True
    """Whether the user may log in over IPMI."""
    redfish: bool = True
    """Whether the user may log in over Redfish."""

    def may_log_in(self, over: Over) -> bool:
        """Whether the right password would let the user in."""
        return self.enabled and bool(self.password) and (self.ipmi if over == "ipmi" else self.redfish)


class AccountError(PlacematError):
    """A change of accounts that is refused; `reason` for the protocol, the text for a person."""

    def __init__(self, reason: Reason, text: str) -> None:
        self.reason = reason
        super().__init__(text)


class Accounts:
    """The accounts of one machine. To be used in one event loop; changes are durable when they return."""

    def __init__(self, machine: Machine) -> None:
        self.revision = 0
        """Counts up with each change, also over restarts of the process."""
        self._machine = machine
        self._stored: Json = {}
        self._accounts: dict[int, Account] = {}
        self._callbacks: list[Callable[[int], None]] = []
        self._changing = asyncio.Lock()

    async def load(self) -> None:
        """Read the accounts; to be called before use, and again where they may have been changed elsewhere."""
        async with self._changing:
            stored = await self._machine.load(SECTION)
            self._take(stored, accounts_of(stored))

    def all(self) -> Sequence[Account]:
        """All accounts, by slot."""
        return tuple(self._accounts.values())

    def by_name(self, name: str) -> Account | None:
        """The account of that name; names are case-sensitive."""
        return next((account for account in self._accounts.values() if account.name == name), None)

    def by_slot(self, slot: int) -> Account | None:
        """The account in that slot."""
        return self._accounts.get(slot)

    def verify(self, name: str, password: str, over: Over = "redfish") -> Account | None:
        """The account that name and password belong to; None where they are wrong or it may not log in that way.

        Takes the same time for a wrong name, a wrong password and a disabled account.
        """
        found = None
        for account in self._accounts.values():
            named = compare_digest(_padded(account.name), _padded(name))
            proved = compare_digest(_padded(account.password), _padded(password))
            if named & proved & account.may_log_in(over):
                found = account
        return found

    async def create(
        self,
        *,
        name: str,
        password: str,
        role: Role,
        enabled: bool = True,
        slot: int | None = None,
        ipmi: bool = True,
        redfish: bool = True,
    ) -> Account:
        """Make an account, in the first free slot unless one is given. Raises AccountError.

        IPMI names a user before it gives it a password: `password` may be "" if `enabled` is False.
        """
        async with self._changing:
            free = [number for number in range(FIRST_SLOT, LAST_SLOT + 1) if number not in self._accounts]
            if not free or (slot is not None and slot not in free):
                text = f"slot {slot} is not free" if free else f"all slots ({FIRST_SLOT} to {LAST_SLOT}) are taken"
                raise AccountError("no-slot", text)
            account = Account(
                slot=slot or free[0],
                name=name,
                password=password,
                role=role,
                enabled=enabled,
                ipmi=ipmi,
                redfish=redfish,
            )
            self._check(account)
            await self._save({**self._accounts, account.slot: account})
            return account

    async def change(
        self,
        slot: int,
        *,
        name: str | None = None,
        password: str | None = None,
        role: Role | None = None,
        enabled: bool | None = None,
        ipmi: bool | None = None,
        redfish: bool | None = None,
    ) -> Account:
        """Change what is not None, all of it or (AccountError) nothing; what is the same already is no change."""
        wanted: dict[str, Any] = {"name": name, "password": password, "role": role}
        wanted |= {"enabled": enabled, "ipmi": ipmi, "redfish": redfish}
        async with self._changing:
            before = self._existing(slot)
            after = replace(before, **{key: value for key, value in wanted.items() if value is not None})
            if after != before:
                self._check(after)
                await self._save({**self._accounts, slot: after})
            return after

    async def delete(self, slot: int) -> None:
        """Remove an account. Raises AccountError."""
        async with self._changing:
            self._existing(slot)
            await self._save({number: account for number, account in self._accounts.items() if number != slot})

    def subscribe(self, callback: Callable[[int], None]) -> None:
        """Have `callback` told the slot of each account that was made, changed or removed."""
        self._callbacks.append(callback)

    def _existing(self, slot: int) -> Account:
        account = self._accounts.get(slot)
        if account is None:
            raise AccountError("no-account", f"there is no account in slot {slot}")
        return account

    def _check(self, account: Account) -> None:
        if problem := name_problem(account.name):
            raise AccountError("bad-name", f"the user name {problem}")
        if (problem := password_problem(account.password)) and (account.password or account.enabled):
            raise AccountError("bad-password", f"the password {problem}")
        if account.role not in get_args(Role):
            raise AccountError("bad-role", f"no role of that name; there are {', '.join(get_args(Role))}")
        other = self.by_name(account.name)
        if other and other.slot != account.slot:
            raise AccountError("name-taken", f"the user name {account.name} is taken already")

    async def _save(self, accounts: Mapping[int, Account]) -> None:
        """Make them the accounts; only when that is durable do they count."""
        if has_administrator(self._accounts.values()) and not has_administrator(accounts.values()):
            raise AccountError("last-administrator", "the last enabled Administrator has to stay")
        ordered = [accounts[slot] for slot in sorted(accounts)]
        stored = {**self._stored, "revision": self.revision + 1, "accounts": [asdict(account) for account in ordered]}
        await self._machine.save(SECTION, stored)
        self._take(stored, ordered)

    def _take(self, stored: Json, accounts: Iterable[Account]) -> None:
        before, self._accounts = self._accounts, {account.slot: account for account in accounts}
        self._stored, self.revision = stored, stored.get("revision", 0)
        slots = sorted(before.keys() | self._accounts.keys())
        for slot in slots:
            if before.get(slot) != self._accounts.get(slot):
                for callback in tuple(self._callbacks):
                    callback(slot)


def accounts_of(stored: Mapping[str, Any]) -> list[Account]:
    """The accounts in a stored section, by slot; raises TypeError on what this module did not write."""
    return sorted((Account(**fields) for fields in stored.get("accounts", ())), key=lambda account: account.slot)


def has_administrator(accounts: Iterable[Account]) -> bool:
    """Whether an Administrator can log in at all."""
    return any(
        account.role == "Administrator" and (account.may_log_in("ipmi") or account.may_log_in("redfish"))
        for account in accounts
    )


def _padded(text: str) -> bytes:
    """Text in bytes of one length for everything that a name or password can be; ends in a byte that shows it is whole.

    `compare_digest` hides the contents but not the length.
    """
    data = text.encode(errors="surrogatepass")
    return data.ljust(PASSWORD_BYTES, b"\0") + len(data).to_bytes(8, "big")
