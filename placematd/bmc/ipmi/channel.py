"""The commands about the LAN channel's log-in and about sessions (IPMI 2.0 sections 22.13 to 22.20)."""

import ipaddress
from collections.abc import Callable, Mapping
from uuid import UUID

from .request import LAN_CHANNEL, Code, CommandError, Privilege, Reply, Request
from .sessions import MAX_SESSIONS
from .suites import SUITES
from .table import Session, Sessions

NETFN_APP = 0x06
GET_SYSTEM_GUID, GET_AUTH_CAPABILITIES, GET_CIPHER_SUITES = 0x37, 0x38, 0x54
GET_SESSION_CHALLENGE, ACTIVATE_SESSION = 0x39, 0x3A
SET_PRIVILEGE, CLOSE_SESSION, GET_SESSION_INFO = 0x3B, 0x3C, 0x3D

OUTSIDE_SESSION = frozenset({GET_SYSTEM_GUID, GET_AUTH_CAPABILITIES, GET_CIPHER_SUITES})
"""The only commands (of the application's network function) that are run for somebody who is not logged in."""

PRESENT_CHANNEL = 0x0E
_LEVEL_NOT_AVAILABLE, _LEVEL_EXCEEDED = 0x80, 0x81
_INVALID_SESSION_ID, _INVALID_HANDLE = 0x87, 0x88
_SUITE_RECORDS_BYTES = 16


def guid_bytes(uuid: UUID) -> bytes:
    """A UUID as IPMI puts it on the wire: least significant byte first (table 20-10)."""
    return uuid.bytes[::-1]


def is_lan_channel(number: int, caller_channel: int) -> bool:
    """Whether a channel number of a request means the LAN channel."""
    return number == LAN_CHANNEL or (number == PRESENT_CHANNEL and caller_channel == LAN_CHANNEL)


class ChannelCommands:
    """See the module; `execute` answers None for commands that are not of this table."""

    def __init__(self, sessions: Sessions, guid: UUID) -> None:
        self._sessions = sessions
        self._guid = guid
        self._commands: Mapping[int, tuple[Privilege, Callable[[Request], Reply]]] = {
            GET_SYSTEM_GUID: (Privilege.NONE, self._system_guid),
            GET_AUTH_CAPABILITIES: (Privilege.NONE, self._authentication_capabilities),
            GET_CIPHER_SUITES: (Privilege.NONE, self._cipher_suites),
            SET_PRIVILEGE: (Privilege.CALLBACK, self._set_privilege),
            CLOSE_SESSION: (Privilege.NONE, self._close_session),
            GET_SESSION_INFO: (Privilege.USER, self._session_info),
        }

    def execute(self, request: Request) -> Reply | None:
        """Run a command of this table."""
        if request.netfn != NETFN_APP or request.command not in self._commands:
            return None
        privilege, handler = self._commands[request.command]
        try:
            if request.lun:
                raise CommandError(Code.INVALID_FOR_LUN)
            if request.caller.privilege < privilege:
                raise CommandError(Code.INSUFFICIENT_PRIVILEGE)
            return handler(request)
        except CommandError as error:
            return Reply(code=error.code)

    def _system_guid(self, request: Request) -> Reply:
        need(request, 0)
        return Reply(data=guid_bytes(self._guid))

    def _authentication_capabilities(self, request: Request) -> Reply:
        need(request, 2)
        channel, level = request.data
        if not is_lan_channel(channel & 0x0F, request.caller.channel):
            raise CommandError(Code.INVALID_FIELD)
        if not Privilege.CALLBACK <= level & 0x0F <= Privilege.ADMINISTRATOR + 1:
            raise CommandError(Code.INVALID_FIELD)
        # No authentication type of IPMI 1.5 at all; only users with names; a key for the BMC is not set.
        asks_for_v2 = bool(channel & 0x80)
        types, versions = (0x80, 0x02) if asks_for_v2 else (0x00, 0x00)
        return Reply(data=bytes((LAN_CHANNEL, types, 0x04, versions)) + bytes(4))

    def _cipher_suites(self, request: Request) -> Reply:
        need(request, 3)
        channel, payload_type, index = request.data
        if not is_lan_channel(channel & 0x0F, request.caller.channel) or payload_type & 0x3F > 1:
            raise CommandError(Code.INVALID_FIELD)
        if index & 0x80:
            records = b"".join(suite.record for suite in SUITES)
        else:
            records = bytes(sorted({byte for suite in SUITES for byte in suite.record[2:]}))
        start = (index & 0x3F) * _SUITE_RECORDS_BYTES
        return Reply(data=bytes((LAN_CHANNEL,)) + records[start : start + _SUITE_RECORDS_BYTES])

    def _set_privilege(self, request: Request) -> Reply:
        need(request, 1)
        session = self._own(request)
        level = request.data[0] & 0x0F
        if level > Privilege.ADMINISTRATOR:
            raise CommandError(_LEVEL_NOT_AVAILABLE)
        if level == Privilege.CALLBACK:
            raise CommandError(Code.INVALID_FIELD)
        if level > session.limit:
            raise CommandError(_LEVEL_EXCEEDED)
        if level:
            session.privilege = Privilege(level)
        return Reply(data=bytes((session.privilege,)))

    def _close_session(self, request: Request) -> Reply:
        if len(request.data) not in (4, 5):
            raise CommandError(Code.REQUEST_LENGTH_INVALID)
        number = int.from_bytes(request.data[:4], "little")
        if number:
            session, wrong = self._sessions.find(number), _INVALID_SESSION_ID
        elif len(request.data) == 5:
            session, wrong = self._by_handle(request.data[4]), _INVALID_HANDLE
        else:
            raise CommandError(_INVALID_SESSION_ID)
        caller = request.caller
        if (session is None or session.id != caller.session_id) and caller.privilege < Privilege.ADMINISTRATOR:
            raise CommandError(Code.INSUFFICIENT_PRIVILEGE)
        if session is None:
            raise CommandError(wrong)
        closing = session

        async def close() -> None:
            self._sessions.close(closing)

        return Reply(after=close)

    def _session_info(self, request: Request) -> Reply:
        session = self._asked_session(request.data, request.caller.session_id)
        counts = bytes((MAX_SESSIONS, len(self._sessions)))
        if session is None:
            return Reply(data=b"\x00" + counts)
        host, port = session.address[0], session.address[1]
        address = ipaddress.ip_address(host.partition("%")[0])
        # IPMI 2.0 has room for IPv4 here alone; the MAC address of a client is not known.
        number = address.packed if address.version == 4 else bytes(4)
        user = bytes((session.account.slot, session.privilege, 0x10 | LAN_CHANNEL))
        return Reply(data=bytes((session.handle,)) + counts + user + number + bytes(6) + port.to_bytes(2, "little"))

    def _asked_session(self, data: bytes, own_id: int) -> Session | None:
        if not data:
            raise CommandError(Code.REQUEST_LENGTH_INVALID)
        index, rest = data[0], data[1:]
        if len(rest) != {0xFE: 1, 0xFF: 4}.get(index, 0):
            raise CommandError(Code.REQUEST_LENGTH_INVALID)
        if index == 0xFF:
            return self._listed(int.from_bytes(rest, "little"))
        if index == 0xFE:
            return self._by_handle(rest[0])
        if index == 0:
            return self._listed(own_id)
        if index > MAX_SESSIONS:
            raise CommandError(Code.OUT_OF_RANGE)
        sessions = list(self._sessions)
        return sessions[index - 1] if index <= len(sessions) else None

    def _listed(self, session_id: int) -> Session | None:
        return next((session for session in self._sessions if session.id == session_id), None)

    def _by_handle(self, handle: int) -> Session | None:
        return next((session for session in self._sessions if session.handle == handle), None)

    def _own(self, request: Request) -> Session:
        session = self._sessions.find(request.caller.session_id)
        if session is None:
            raise CommandError(Code.NOT_IN_PRESENT_STATE)
        return session


def need(request: Request, length: int) -> None:
    """Refuse a request with more or less than `length` bytes of data."""
    if len(request.data) != length:
        raise CommandError(Code.REQUEST_LENGTH_INVALID)
