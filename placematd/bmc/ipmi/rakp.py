"""Logging in: Open Session and the four RAKP messages (IPMI 2.0 sections 13.17 to 13.24), as a table of handshakes.

Anybody can send these packets: the table is bounded, the oldest handshake of the host with most of them makes room,
and no answer is much larger than its question.
"""

import hmac
import logging
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

from ..accounts import NAME_BYTES, PRIVILEGE_OF, Account
from .request import Privilege
from .rmcp import PayloadType
from .suites import SUITES, Keys, Suite
from .table import Address, Sessions

log = logging.getLogger("placemat.bmc")

MAX_HANDSHAKES = 64
HANDSHAKE_SECONDS = 20.0
"""A client's retries of one step are over by then."""

_OPEN_BYTES, _RAKP1_BYTES, _RAKP3_BYTES = 32, 28, 8
_NAME_ONLY_AND_LEVEL = 0x1F
_HIGHEST_KNOWN = (3, 4, 3)
"""Highest assigned algorithm numbers of authentication, integrity and confidentiality."""


class Status(IntEnum):
    """RMCP+ and RAKP status codes (table 13-15)."""

    OK = 0x00
    INSUFFICIENT_RESOURCES = 0x01
    INVALID_SESSION_ID = 0x02
    INVALID_PAYLOAD_TYPE = 0x03
    INVALID_AUTHENTICATION = 0x04
    INVALID_INTEGRITY = 0x05
    INACTIVE_SESSION_ID = 0x08
    INVALID_ROLE = 0x09
    UNAUTHORIZED_ROLE = 0x0A
    INVALID_NAME_LENGTH = 0x0C
    UNAUTHORIZED_NAME = 0x0D
    INVALID_CHECK_VALUE = 0x0F
    INVALID_CONFIDENTIALITY = 0x10
    NO_SUITE = 0x11
    ILLEGAL_PARAMETER = 0x12


class Refused(Exception):
    """A step that is answered with a status other than OK."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.name)
        self.status = status


class Users(Protocol):
    """What logging in needs of the accounts."""

    def by_name(self, name: str) -> Account | None:
        """The account of that name."""
        ...


@dataclass
class Handshake:
    """A client that is on its way in."""

    address: Address
    session_id: int
    console_id: int
    suite: Suite
    limit: int
    started: float
    answered: dict[bytes, bytes] = field(default_factory=dict)
    """The last request of each kind and its answer, for retries: {request: answer}."""
    account: Account | None = None
    role: int = 0
    console_random: bytes = b""
    bmc_random: bytes = b""

    @property
    def identity(self) -> bytes:
        """Role, name length and name, as every hash has them."""
        name = self.account.name.encode() if self.account else b""
        return bytes((self.role, len(name))) + name

    def ids(self) -> bytes:
        """Both session ids, the console's first."""
        return _le(self.console_id) + _le(self.session_id)


class Handshakes:
    """All clients that are on their way in; `answer` is the whole protocol."""

    def __init__(
        self, users: Users, guid: bytes, sessions: Sessions, warn: Callable[[str], None] = log.warning
    ) -> None:
        self._users = users
        self._guid = guid
        self._sessions = sessions
        self._warn = warn
        self._pending: dict[int, Handshake] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def answer(self, kind: int, request: bytes, address: Address) -> tuple[PayloadType, bytes] | None:
        """Answer a payload of session set-up; None for one that is too short to be answered or none of ours."""
        if len(request) < 8:
            return None
        if kind == PayloadType.OPEN_REQUEST:
            return PayloadType.OPEN_RESPONSE, self._answer_open(request, address)
        if kind == PayloadType.RAKP1:
            return PayloadType.RAKP2, self._answer_step(self._rakp1, request, address)
        if kind == PayloadType.RAKP3 and request[1] == Status.OK:
            return PayloadType.RAKP4, self._answer_step(self._rakp3, request, address)
        if kind == PayloadType.RAKP3:
            self._abandon(request, address)
        return None

    def expire(self) -> None:
        """Forget the handshakes that nobody goes on with."""
        now = self._sessions.clock()
        for handshake in list(self._pending.values()):
            if now - handshake.started > HANDSHAKE_SECONDS:
                del self._pending[handshake.session_id]

    def _answer_open(self, request: bytes, address: Address) -> bytes:
        for handshake in self._pending.values():
            if handshake.address == address and request in handshake.answered:
                return handshake.answered[request]
        try:
            return self._open(request, address)
        except Refused as refused:
            return bytes((request[0], refused.status, 0, 0)) + request[4:8]

    def _open(self, request: bytes, address: Address) -> bytes:
        if len(request) < _OPEN_BYTES or request[1] & 0x0F > Privilege.ADMINISTRATOR:
            raise Refused(Status.ILLEGAL_PARAMETER)
        console_id = int.from_bytes(request[4:8], "little")
        if not console_id:
            raise Refused(Status.INVALID_SESSION_ID)
        suite = _suite(request[8:_OPEN_BYTES])
        if not self._sessions.has_room():
            raise Refused(Status.INSUFFICIENT_RESOURCES)
        self._make_room()
        limit = request[1] & 0x0F or Privilege.ADMINISTRATOR
        session_id = self._sessions.new_id(self._pending.__contains__)
        handshake = Handshake(address, session_id, console_id, suite, limit, self._sessions.clock())
        self._pending[session_id] = handshake
        reply = bytes((request[0], Status.OK, limit, 0)) + handshake.ids() + _proposal(suite)
        handshake.answered = {request: reply}
        return reply

    def _make_room(self) -> None:
        self.expire()
        if len(self._pending) >= MAX_HANDSHAKES:
            hosts = Counter(handshake.address[0] for handshake in self._pending.values())
            worst = min(self._pending.values(), key=lambda h: (-hosts[h.address[0]], h.started))
            del self._pending[worst.session_id]

    def _answer_step(self, step: Callable[[Handshake, bytes], bytes], request: bytes, address: Address) -> bytes:
        session_id = int.from_bytes(request[4:8], "little")
        session = self._sessions.find(session_id)
        if session and session.handshake and session.handshake[0] == request and session.address == address:
            return session.handshake[1]
        handshake = self._pending.get(session_id)
        if handshake is None or handshake.address != address:
            return bytes((request[0], Status.INVALID_SESSION_ID, 0, 0)) + bytes(4)
        if request in handshake.answered:
            return handshake.answered[request]
        try:
            reply = step(handshake, request)
        except Refused as refused:
            reply = bytes((request[0], refused.status, 0, 0)) + _le(handshake.console_id)
        handshake.answered = {request: reply}
        return reply

    def _rakp1(self, handshake: Handshake, request: bytes) -> bytes:
        handshake.account = None
        if len(request) < _RAKP1_BYTES:
            raise Refused(Status.ILLEGAL_PARAMETER)
        role, length = request[24], request[27]
        level = role & 0x0F
        if role & ~_NAME_ONLY_AND_LEVEL or not Privilege.CALLBACK <= level <= Privilege.ADMINISTRATOR:
            raise Refused(Status.INVALID_ROLE)
        if length > NAME_BYTES or len(request) < _RAKP1_BYTES + length:
            raise Refused(Status.INVALID_NAME_LENGTH)
        account = self._account(request[_RAKP1_BYTES : _RAKP1_BYTES + length], handshake)
        # Names are unique here, so that a look-up by name and privilege finds what a look-up by name finds.
        if level > min(PRIVILEGE_OF[account.role], handshake.limit):
            self._warn(f"log-in of {account.name} from {handshake.address[0]} as level {level} refused")
            raise Refused(Status.UNAUTHORIZED_ROLE)
        handshake.account, handshake.role = account, role
        handshake.console_random, handshake.bmc_random = request[8:24], os.urandom(16)
        code = handshake.suite.mac(
            account.password.encode(),
            handshake.ids() + handshake.console_random + handshake.bmc_random + self._guid + handshake.identity,
        )
        head = bytes((request[0], Status.OK, 0, 0)) + _le(handshake.console_id)
        return head + handshake.bmc_random + self._guid + code

    def _account(self, name: bytes, handshake: Handshake) -> Account:
        try:
            account = self._users.by_name(name.decode()) if name else None
        except UnicodeDecodeError:
            account = None
        if account is None or not account.may_log_in("ipmi"):
            self._warn(f"log-in from {handshake.address[0]} refused: no user {name!r}")
            raise Refused(Status.UNAUTHORIZED_NAME)
        return account

    def _rakp3(self, handshake: Handshake, request: bytes) -> bytes:
        account = handshake.account
        if account is None:
            raise Refused(Status.INACTIVE_SESSION_ID)
        handshake.account = None
        suite, password = handshake.suite, account.password.encode()
        identity = bytes((handshake.role, len(account.name.encode()))) + account.name.encode()
        expected = suite.mac(password, handshake.bmc_random + _le(handshake.console_id) + identity)
        if not hmac.compare_digest(expected, request[_RAKP3_BYTES:]):
            self._warn(f"log-in of {account.name} from {handshake.address[0]} refused: wrong password")
            raise Refused(Status.INVALID_CHECK_VALUE)
        if self._users.by_name(account.name) != account:
            raise Refused(Status.UNAUTHORIZED_NAME)
        session_key = suite.mac(password, handshake.console_random + handshake.bmc_random + identity)
        session = self._sessions.add(
            handshake.session_id,
            handshake.console_id,
            Keys(suite, session_key),
            account,
            Privilege(handshake.role & 0x0F),
            handshake.address,
        )
        if session is None:
            raise Refused(Status.INSUFFICIENT_RESOURCES)
        del self._pending[handshake.session_id]
        check = suite.mac(session_key, handshake.console_random + _le(handshake.session_id) + self._guid)
        head = bytes((request[0], Status.OK, 0, 0)) + _le(handshake.console_id)
        reply = head + check[: suite.code_bytes]
        session.handshake = (request, reply)
        return reply

    def _abandon(self, request: bytes, address: Address) -> None:
        """RAKP 3 with a status: the client gave up, and is not answered."""
        handshake = self._pending.get(int.from_bytes(request[4:8], "little"))
        if handshake and handshake.address == address:
            del self._pending[handshake.session_id]


def _le(number: int) -> bytes:
    return number.to_bytes(4, "little")


def _suite(proposal: bytes) -> Suite:
    """The suite that three algorithm records of 8 bytes ask for, the strongest where they leave it open."""
    asked: list[int | None] = []
    unknown = (Status.INVALID_AUTHENTICATION, Status.INVALID_INTEGRITY, Status.INVALID_CONFIDENTIALITY)
    for number in range(3):
        record = proposal[8 * number : 8 * number + 8]
        if record[0] != number:
            raise Refused(Status.INVALID_PAYLOAD_TYPE)
        if record[3] not in (0, 8):
            raise Refused(Status.ILLEGAL_PARAMETER)
        algorithm = record[4] & 0x3F if record[3] else None
        if algorithm is not None and algorithm > _HIGHEST_KNOWN[number]:
            raise Refused(unknown[number])
        asked.append(algorithm)
    for suite in reversed(SUITES):
        offer = (suite.authentication, suite.integrity, suite.confidentiality)
        if all(want in (None, have) for want, have in zip(asked, offer, strict=True)):
            return suite
    raise Refused(Status.NO_SUITE)


def _proposal(suite: Suite) -> bytes:
    algorithms = (suite.authentication, suite.integrity, suite.confidentiality)
    return b"".join(bytes((number, 0, 0, 8, algorithm, 0, 0, 0)) for number, algorithm in enumerate(algorithms))
