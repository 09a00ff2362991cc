"""User access, names and passwords (IPMI 2.0 sections 22.26 to 22.30), kept as accounts."""

from collections.abc import Awaitable, Mapping, Sequence
from hmac import compare_digest
from typing import Final

from ...accounts import (
    LAST_SLOT,
    NAME_BYTES,
    PASSWORD_BYTES,
    PRIVILEGE_OF,
    Account,
    AccountError,
    Accounts,
    Role,
)
from ..request import Code, CommandError, Reply, Request
from .channels import channel_of
from .table import ADMINISTRATOR, APP, OPERATOR, Row, between, require

ROLES: Final[Mapping[int, Role]] = {privilege: role for role, privilege in PRIVILEGE_OF.items()}
NO_ACCESS = 0x0F
"""Privilege limit of a user who may not log in over IPMI."""

CHANGE, MESSAGING = 0x80, 0x10
NAMELESS = 1
"""Slot of the user without a name, who does not exist; its name is fixed."""
ENABLED, DISABLED = 0x40, 0x80

DISABLE, ENABLE, SET, TEST = range(4)
SHORT_PASSWORD = 16
LONG = 0x80
WRONG_PASSWORD, WRONG_SIZE = 0x80, 0x81
"""Completion codes of the password test."""


class Users:
    """The slots 1 to 15. A slot without a name has no account: it can be named, and nothing else."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    def rows(self) -> Sequence[Row]:
        """The five commands."""
        lengths = (2, 2 + SHORT_PASSWORD, 2 + PASSWORD_BYTES)
        return (
            Row(APP, 0x43, ADMINISTRATOR, between(3, 4), self.set_access),
            Row(APP, 0x44, OPERATOR, (2,), self.get_access),
            Row(APP, 0x45, ADMINISTRATOR, (1 + NAME_BYTES,), self.set_name),
            Row(APP, 0x46, OPERATOR, (1,), self.get_name),
            Row(APP, 0x47, ADMINISTRATOR, lengths, self.set_password),
        )

    async def get_access(self, request: Request) -> Reply:
        """Section 22.27."""
        channel_of(request.caller, request.data[0])
        account = self._account(request.data[1])
        enabled = sum(each.enabled for each in self._accounts.all())
        state = ENABLED if account and account.enabled else DISABLED
        access = (MESSAGING if account.ipmi else 0) | PRIVILEGE_OF[account.role] if account else NO_ACCESS
        return Reply(data=bytes((LAST_SLOT, state | enabled, NAMELESS, access)))

    async def set_access(self, request: Request) -> Reply:
        """Section 22.26: [change messaging + messaging + channel, user, privilege limit, session limit].

        There is no callback and no link authentication, and no limit of sessions per user.
        """
        flags, user, limit, *sessions = request.data
        channel_of(request.caller, flags)
        role = ROLES.get(limit & 0x0F)
        require(role is not None or limit & 0x0F == NO_ACCESS)
        require(not any(sessions))
        if self._account(user) is None:
            require(limit & 0x0F == NO_ACCESS and not (flags & CHANGE and flags & MESSAGING))
            return Reply()
        ipmi = bool(flags & MESSAGING) if flags & CHANGE else None
        await _try(self._accounts.change(user & 0x3F, role=role, ipmi=ipmi if role else False))
        return Reply()

    async def get_name(self, request: Request) -> Reply:
        """Section 22.29: NULs for a slot without an account."""
        account = self._account(request.data[0])
        return Reply(data=(account.name.encode() if account else b"").ljust(NAME_BYTES, b"\0"))

    async def set_name(self, request: Request) -> Reply:
        """Section 22.28: a name makes an account, which is disabled and has no password yet; no name removes it."""
        user, name = request.data[0] & 0x3F, _text(request.data[1:])
        account = self._account(user)
        if account is None and name:
            require(user != NAMELESS)
            await _try(self._accounts.create(name=name, password="", role="ReadOnly", enabled=False, slot=user))
        elif account and not name:
            await _try(self._accounts.delete(user))
        elif account:
            await _try(self._accounts.change(user, name=name))
        return Reply()

    async def set_password(self, request: Request) -> Reply:
        """Section 22.30: [20-byte form + user, operation, password]; disable and enable need no password."""
        operation, data = request.data[1] & 0x03, request.data[2:]
        account = self._account(request.data[0])
        if operation in (DISABLE, ENABLE):
            if account:
                await _try(self._accounts.change(account.slot, enabled=operation == ENABLE))
            require(account is not None or operation == DISABLE)
            return Reply()
        length = PASSWORD_BYTES if request.data[0] & LONG else SHORT_PASSWORD
        require(len(data) == length, Code.REQUEST_LENGTH_INVALID)
        if account is None:
            raise CommandError(Code.INVALID_FIELD)
        if operation == SET:
            await _try(self._accounts.change(account.slot, password=_text(data)))
            return Reply()
        return Reply(code=_test(account.password.encode(), data))

    def _account(self, user: int) -> Account | None:
        slot = user & 0x3F
        require(NAMELESS <= slot <= LAST_SLOT)
        return self._accounts.by_slot(slot)


async def _try(change: Awaitable[object]) -> None:
    """Change accounts; raises CommandError where that is refused."""
    try:
        await change
    except AccountError as error:
        codes = {"last-administrator": Code.NOT_IN_PRESENT_STATE, "no-slot": Code.OUT_OF_SPACE}
        raise CommandError(codes.get(error.reason, Code.INVALID_FIELD)) from error


def _test(password: bytes, data: bytes) -> int:
    """Completion code of the password test. A password that fits both forms passes in either."""
    if len(password) > len(data):
        return WRONG_SIZE
    return Code.OK if compare_digest(password.ljust(len(data), b"\0"), data) else WRONG_PASSWORD


def _text(data: bytes) -> str:
    """A name or password padded with NULs; raises CommandError for what no account can have."""
    try:
        text = data.rstrip(b"\0").decode()
    except UnicodeDecodeError as error:
        raise CommandError(Code.INVALID_FIELD) from error
    require("\0" not in text)
    return text
