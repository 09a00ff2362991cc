"""Open sessions: their keys, sequence numbers and rights, and the bounded table they are kept in."""

import os
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

from ..accounts import Account
from .request import LAN_CHANNEL, Caller, Privilege
from .rmcp import Packet, packet_head, signed_part
from .sessions import MAX_SESSIONS, SessionInfo
from .suites import Keys

Address = tuple[str, int] | tuple[str, int, int, int]
"""A socket address of either family, as the event loop gives and takes it."""

INACTIVITY_SECONDS = 60.0
"""Section 6.12.15: a session ends after 60 s (plus or minus 3 s) without a valid packet."""
REVOKED_SECONDS = 5.0
"""How long a session of a changed account is still told so before it is forgotten."""
EVICTABLE_SECONDS = 10.0
"""How long a session must have been silent before it makes room for another."""

WINDOW_AHEAD, WINDOW_BEHIND = 15, 16
REPLIES_KEPT = 8
REPLY_SECONDS = 5.0
"""A retry comes with the next few packets; 64 sequence numbers later the same number is a request of its own."""
QUEUE_LENGTH = 32


class Session:
    """One logged-in client. Nothing here sends; what arrives is judged, what leaves is sealed."""

    def __init__(
        self,
        session_id: int,
        handle: int,
        console_id: int,
        keys: Keys,
        account: Account,
        limit: Privilege,
        address: Address,
        now: float,
    ) -> None:
        self.id = session_id
        self.handle = handle
        self.keys = keys
        self.account = account
        self.limit = limit
        self.privilege = min(Privilege.USER, limit)
        self.address = address
        self.started = datetime.now(UTC)
        self.active = now
        self.console = False
        self.revoked: float | None = None
        self.handshake: tuple[bytes, bytes] | None = None
        """RAKP 3 that opened the session and the answer to it, until the first packet of the session came."""
        self.queue: deque[bytes] = deque(maxlen=QUEUE_LENGTH)
        self.running: bytes | None = None
        """The message that is being executed."""
        self._console_id = console_id
        self._highest = 0
        self._seen = 1
        self._sent = 0
        self._replies: OrderedDict[bytes, tuple[float, bytes]] = OrderedDict()

    @property
    def caller(self) -> Caller:
        """Who a request of this session comes from."""
        return Caller(
            channel=LAN_CHANNEL,
            user_id=self.account.slot,
            user=self.account.name,
            privilege=Privilege.NONE if self.revoked is not None else self.privilege,
            limit=self.limit,
            session_id=self.id,
            remote=(self.address[0], self.address[1]),
        )

    @property
    def info(self) -> SessionInfo:
        """The session as others see it."""
        return SessionInfo(
            id=self.id,
            handle=self.handle,
            user_id=self.account.slot,
            user=self.account.name,
            privilege=self.privilege,
            limit=self.limit,
            remote=(self.address[0], self.address[1]),
            suite=self.keys.suite.id,
            started=self.started,
            console=self.console,
        )

    def unseal(self, packet: Packet, now: float) -> bytes | None:
        """The payload of a packet of this session; None, and nothing changed, where it is not the client's or a replay.

        Both suites sign and encrypt, so that a packet that is not signed or not encrypted cannot be the client's.
        """
        if not (packet.authenticated and packet.encrypted and self.keys.verify(packet.signed, packet.signature)):
            return None
        payload = self.keys.decrypt(packet.payload)
        if payload is None or not self._is_fresh(packet.sequence):
            return None
        self.active = now
        self.handshake = None
        return payload

    def _is_fresh(self, sequence: int) -> bool:
        """Keep the window of sequence numbers (section 6.12.13): 15 ahead, 16 behind, each one once; 0 is none."""
        ahead = sequence - self._highest
        if sequence == 0 or ahead > WINDOW_AHEAD or ahead <= -WINDOW_BEHIND:
            return False
        if ahead > 0:
            self._highest = sequence
            self._seen = (self._seen << ahead | 1) & ((1 << WINDOW_BEHIND) - 1)
            return True
        if self._seen >> -ahead & 1:
            return False
        self._seen |= 1 << -ahead
        return True

    def seal(self, payload_type: int, payload: bytes) -> bytes:
        """A packet to the client, encrypted and signed."""
        self._sent += 1
        secret = self.keys.encrypt(payload)
        head = packet_head(0xC0 | payload_type, self._console_id, self._sent, len(secret))
        whole = signed_part(head + secret)
        return whole + self.keys.code(whole[4:])

    def replied(self, message: bytes, now: float) -> bytes | None:
        """What a message that came before, a retry, was answered."""
        kept = self._replies.get(message)
        return kept[1] if kept and now - kept[0] < REPLY_SECONDS else None

    def remember(self, message: bytes, reply: bytes, now: float) -> None:
        """Keep a reply for retries."""
        self._replies[message] = (now, reply)
        self._replies.move_to_end(message)
        while len(self._replies) > REPLIES_KEPT:
            self._replies.popitem(last=False)


class Sessions:
    """The table of open sessions; a `SessionTable` for those who only look.

    `clock` counts seconds (monotonic). `closed` callbacks hear of every session that has ended, whatever ended it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.last: SessionInfo | None = None
        self._open: dict[int, Session] = {}
        self._opened: list[Callable[[SessionInfo], None]] = []
        self._closed: list[Callable[[Session], None]] = []

    def __len__(self) -> int:
        return sum(1 for session in self._open.values() if session.revoked is None)

    def __iter__(self) -> Iterator[Session]:
        return iter([session for session in self._open.values() if session.revoked is None])

    @property
    def has_revoked(self) -> bool:
        """Whether there are sessions that only wait to be forgotten."""
        return any(session.revoked is not None for session in self._open.values())

    def all(self) -> Sequence[SessionInfo]:
        """Open sessions, oldest first."""
        return tuple(session.info for session in self)

    def get(self, session_id: int) -> SessionInfo | None:
        """The open session with that id."""
        session = self._open.get(session_id)
        return session.info if session and session.revoked is None else None

    def find(self, session_id: int) -> Session | None:
        """The session itself, a revoked one too."""
        return self._open.get(session_id)

    def on_open(self, callback: Callable[[SessionInfo], None]) -> None:
        """Hear of every log-in."""
        self._opened.append(callback)

    def on_close(self, callback: Callable[[Session], None]) -> None:
        """Hear of the end of sessions."""
        self._closed.append(callback)

    def new_id(self, taken: Callable[[int], bool]) -> int:
        """An id that nobody can guess and nothing has; 0 means outside any session."""
        while True:
            number = int.from_bytes(os.urandom(4), "little")
            if number and number not in self._open and not taken(number):
                return number

    def has_room(self) -> bool:
        """Whether one more session fits, perhaps in place of one that has been silent."""
        return len(self._open) < MAX_SESSIONS or self._victim() is not None

    def add(
        self, session_id: int, console_id: int, keys: Keys, account: Account, limit: Privilege, address: Address
    ) -> Session | None:
        """Open a session; None where there is no room."""
        if len(self._open) >= MAX_SESSIONS:
            victim = self._victim()
            if victim is None:
                return None
            self.close(victim)
        taken = {session.handle for session in self._open.values()}
        handle = next(number for number in range(1, MAX_SESSIONS + 1) if number not in taken)
        session = Session(session_id, handle, console_id, keys, account, limit, address, self.clock())
        self._open[session_id] = session
        self.last = session.info
        for callback in self._opened:
            callback(self.last)
        return session

    def close(self, session: Session) -> None:
        """End a session; one that has ended already is no error."""
        if self._open.pop(session.id, None) is not None:
            session.queue.clear()
            for callback in self._closed:
                callback(session)

    def revoke(self, session: Session) -> None:
        """Take every right from a session; its client learns it from the next answer, instead of by silence."""
        session.revoked = self.clock()
        for callback in self._closed:
            callback(session)

    def expire(self) -> None:
        """End the sessions whose time is over."""
        now = self.clock()
        for session in list(self._open.values()):
            if session.running is not None and session.revoked is None:
                continue
            since, limit = (
                (session.active, INACTIVITY_SECONDS) if session.revoked is None else (session.revoked, REVOKED_SECONDS)
            )
            if now - since > limit:
                self.close(session)

    def _victim(self) -> Session | None:
        """The longest silent session without a console, of the host that has most sessions."""
        now = self.clock()
        hosts = Counter(session.address[0] for session in self._open.values())
        idle = [s for s in self._open.values() if not s.console and now - s.active >= EVICTABLE_SECONDS]
        return min(idle, key=lambda session: (-hosts[session.address[0]], session.active), default=None)
