"""The commands about payloads and Serial over LAN (IPMI 2.0 sections 24 and 26)."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Protocol

from ...errors import PlacematError
from ..accounts import Account
from ..machine import Json, Machine
from .channel import NETFN_APP, is_lan_channel, need
from .request import LAN_CHANNEL, Caller, Code, CommandError, Privilege, Reply, Request
from .rmcp import PayloadType
from .sol import CHARACTERS, HEADER_BYTES, Sol, SolTiming
from .table import Session, Sessions

SECTION = "sol"
"""Where the settings are kept with the machine."""

NETFN_TRANSPORT = 0x0C
INSTANCE = 1
PAYLOAD_BYTES = HEADER_BYTES + CHARACTERS

_ALREADY_ACTIVE = _ALREADY_INACTIVE = _NOT_ON_CHANNEL = _NOT_SUPPORTED = 0x80
_DISABLED = _SET_IN_PROGRESS = 0x81
_READ_ONLY = 0x82
_ENCRYPTION_NEEDED = 0x84
_ENCRYPTED = 0x80
_FORCED = 0xC0
"""Encryption and authentication are forced (table 26-5, parameter 2): both suites have them."""
_REVISION = 0x11
_PAYLOADS = bytes((0x03, 0, 0x3F, 0, 0, 0, 0, 0))
"""Table 24-8: IPMI messages and SOL, and the six payloads of session set-up; no OEM payload."""
_KNOWN_TYPES = frozenset(PayloadType)
_RATES = frozenset(range(6, 0x0B)) | {0}


@dataclass(frozen=True, kw_only=True)
class SolSettings:
    """What Set SOL Configuration Parameters can change, kept with the machine."""

    enabled: bool = True
    privilege: int = Privilege.USER
    """The least privilege that may have the console."""
    accumulate: int = SolTiming.accumulate
    threshold: int = SolTiming.threshold
    retries: int = SolTiming.retries
    retry_interval: int = SolTiming.retry_interval
    rate: int = 0x0A
    """Bit rate as IPMI numbers it, 115.2 kbit/s; kept, but the console of a node has no line to slow down."""
    volatile_rate: int = 0x0A
    denied: tuple[int, ...] = ()
    """Slots of the users who may not have the console."""

    @property
    def timing(self) -> SolTiming:
        """What times the packets."""
        return SolTiming(
            accumulate=self.accumulate,
            threshold=self.threshold,
            retries=self.retries,
            retry_interval=self.retry_interval,
        )


def settings_of(stored: Json) -> SolSettings:
    """Settings as they were saved; what is missing there is the default's."""
    known = {field.name: stored[field.name] for field in fields(SolSettings) if field.name in stored}
    if "denied" in known:
        known["denied"] = tuple(known["denied"])
    return SolSettings(**known)


class Slots(Protocol):
    """What payload access needs of the accounts."""

    def by_slot(self, slot: int) -> Account | None:
        """The account in a slot."""
        ...


class PayloadCommands:
    """See the module; `execute` answers None for commands that are not of this table.

    `port` tells the UDP port that the payloads are carried on.
    """

    def __init__(self, machine: Machine, slots: Slots, sessions: Sessions, sol: Sol, port: Callable[[], int]) -> None:
        self._machine = machine
        self._slots = slots
        self._sessions = sessions
        self._sol = sol
        self._port = port
        self._kept: SolSettings | None = None
        self._setting = False
        user, admin = Privilege.USER, Privilege.ADMINISTRATOR
        self._commands: Mapping[tuple[int, int], tuple[Privilege, Callable[[Request], Awaitable[Reply]]]] = {
            (NETFN_APP, 0x48): (user, self._activate),
            (NETFN_APP, 0x49): (user, self._deactivate),
            (NETFN_APP, 0x4A): (user, self._activation_status),
            (NETFN_APP, 0x4B): (user, self._instance_info),
            (NETFN_APP, 0x4C): (admin, self._set_user_access),
            (NETFN_APP, 0x4D): (Privilege.OPERATOR, self._user_access),
            (NETFN_APP, 0x4E): (user, self._channel_support),
            (NETFN_APP, 0x4F): (user, self._channel_version),
            (NETFN_TRANSPORT, 0x21): (admin, self._set_configuration),
            (NETFN_TRANSPORT, 0x22): (user, self._configuration),
        }

    async def execute(self, request: Request) -> Reply | None:
        """Run a command of this table."""
        entry = self._commands.get((request.netfn, request.command))
        if entry is None:
            return None
        privilege, handler = entry
        try:
            if request.lun:
                raise CommandError(Code.INVALID_FOR_LUN)
            if request.caller.privilege < privilege:
                raise CommandError(Code.INSUFFICIENT_PRIVILEGE)
            return await handler(request)
        except CommandError as error:
            return Reply(code=error.code)
        except PlacematError:
            return Reply(code=Code.UNSPECIFIED)

    async def _settings(self) -> SolSettings:
        if self._kept is None:
            self._kept = settings_of(await self._machine.load(SECTION))
        return self._kept

    async def _save(self, settings: SolSettings) -> None:
        await self._machine.save(SECTION, {**asdict(settings), "denied": list(settings.denied)})
        self._kept = settings

    # payloads

    async def _activate(self, request: Request) -> Reply:
        need(request, 6)
        _sol_instance(request.data)
        session = self._sessions.find(request.caller.session_id)
        if session is None:
            raise CommandError(Code.NOT_IN_PRESENT_STATE)
        settings = await self._settings()
        if not settings.enabled:
            raise CommandError(_DISABLED)
        _check_right(settings, request.caller)
        if not request.data[2] & _ENCRYPTED:
            raise CommandError(_ENCRYPTION_NEEDED)
        if self._sol.session is not None:
            raise CommandError(_ALREADY_ACTIVE)
        await self._sol.activate(session, settings.timing)
        size, port = PAYLOAD_BYTES.to_bytes(2, "little"), self._port().to_bytes(2, "little")
        owner = session

        async def start() -> None:
            self._sol.start(owner)

        return Reply(data=bytes(4) + size + size + port + b"\xff\xff", after=start)

    async def _deactivate(self, request: Request) -> Reply:
        need(request, 6)
        _sol_instance(request.data)
        _check_right(await self._settings(), request.caller)
        if self._sol.session is None:
            raise CommandError(_ALREADY_INACTIVE)
        owner, by = self._sol.session, self._sessions.find(request.caller.session_id)

        async def deactivate() -> None:
            if self._sol.session is owner:
                self._sol.deactivate(by)

        return Reply(after=deactivate)

    async def _activation_status(self, request: Request) -> Reply:
        need(request, 1)
        if request.data[0] & 0x3F != PayloadType.SOL:
            raise CommandError(Code.INVALID_FIELD)
        return Reply(data=bytes((1, int(self._sol.session is not None), 0)))

    async def _instance_info(self, request: Request) -> Reply:
        need(request, 2)
        _sol_instance(request.data)
        session: Session | None = self._sol.session
        return Reply(data=(session.id if session else 0).to_bytes(4, "little") + b"\x01" + bytes(7))

    async def _channel_support(self, request: Request) -> Reply:
        need(request, 1)
        _lan(request, request.data[0])
        return Reply(data=_PAYLOADS)

    async def _channel_version(self, request: Request) -> Reply:
        need(request, 2)
        _lan(request, request.data[0])
        if request.data[1] & 0x3F not in _KNOWN_TYPES:
            raise CommandError(_NOT_ON_CHANNEL)
        return Reply(data=b"\x10")

    # who may have the console

    async def _user_access(self, request: Request) -> Reply:
        need(request, 2)
        slot = self._slot(request)
        denied = (await self._settings()).denied
        return Reply(data=bytes((0 if slot in denied else 1 << PayloadType.SOL, 0, 0, 0)))

    async def _set_user_access(self, request: Request) -> Reply:
        need(request, 6)
        slot = self._slot(request)
        operation, standard, others = request.data[1] >> 6, request.data[2], request.data[3:]
        if operation > 1 or standard & ~(1 << PayloadType.SOL) or any(others):
            raise CommandError(Code.INVALID_FIELD)
        if standard:
            settings = await self._settings()
            denied = {*settings.denied} - {slot} if operation == 0 else {*settings.denied, slot}
            await self._save(replace(settings, denied=tuple(sorted(denied))))
        return Reply()

    def _slot(self, request: Request) -> int:
        _lan(request, request.data[0])
        slot = request.data[1] & 0x3F
        if self._slots.by_slot(slot) is None:
            raise CommandError(Code.INVALID_FIELD)
        return slot

    # SOL configuration parameters (table 26-5)

    async def _configuration(self, request: Request) -> Reply:
        need(request, 4)
        channel, parameter = request.data[:2]
        _lan(request, channel)
        if channel & 0x80:
            return Reply(data=bytes((_REVISION,)))
        settings = await self._settings()
        values = {
            0: bytes((self._setting,)),
            1: bytes((settings.enabled,)),
            2: bytes((_FORCED | settings.privilege,)),
            3: bytes((settings.accumulate, settings.threshold)),
            4: bytes((settings.retries, settings.retry_interval)),
            5: bytes((settings.rate,)),
            6: bytes((settings.volatile_rate,)),
            7: bytes((LAN_CHANNEL,)),
            8: self._port().to_bytes(2, "little"),
        }
        if parameter not in values:
            raise CommandError(_NOT_SUPPORTED)
        return Reply(data=bytes((_REVISION,)) + values[parameter])

    async def _set_configuration(self, request: Request) -> Reply:
        if len(request.data) < 3:
            raise CommandError(Code.REQUEST_LENGTH_INVALID)
        channel, parameter, value = request.data[0], request.data[1], request.data[2:]
        _lan(request, channel)
        if parameter in (7, 8):
            raise CommandError(_READ_ONLY)
        if parameter > 8:
            raise CommandError(_NOT_SUPPORTED)
        if len(value) != (2 if parameter in (3, 4) else 1):
            raise CommandError(Code.REQUEST_LENGTH_INVALID)
        if parameter == 0:
            self._set_in_progress(value[0] & 0x03)
        else:
            await self._save(_changed(await self._settings(), parameter, value))
        return Reply()

    def _set_in_progress(self, state: int) -> None:
        if state > 1:
            raise CommandError(Code.INVALID_FIELD)
        if state and self._setting:
            raise CommandError(_SET_IN_PROGRESS)
        self._setting = bool(state)


def _changed(settings: SolSettings, parameter: int, value: bytes) -> SolSettings:
    """The settings with one parameter (1 to 6) changed; what the console cannot do is refused."""
    first = value[0]
    if parameter == 1:
        return replace(settings, enabled=bool(first & 0x01))
    if parameter == 2 and first & _FORCED == _FORCED and Privilege.USER <= first & 0x0F <= Privilege.ADMINISTRATOR:
        return replace(settings, privilege=first & 0x0F)
    if parameter == 3 and first and value[1]:
        return replace(settings, accumulate=first, threshold=min(value[1], CHARACTERS))
    if parameter == 4:
        return replace(settings, retries=first & 0x07, retry_interval=value[1])
    if parameter == 5 and first & 0x0F in _RATES:
        return replace(settings, rate=first & 0x0F)
    if parameter == 6 and first & 0x0F in _RATES:
        return replace(settings, volatile_rate=first & 0x0F)
    raise CommandError(Code.INVALID_FIELD)


def _lan(request: Request, channel: int) -> None:
    if not is_lan_channel(channel & 0x0F, request.caller.channel):
        raise CommandError(Code.INVALID_FIELD)


def _sol_instance(data: bytes) -> None:
    if data[0] & 0x3F != PayloadType.SOL or data[1] & 0x0F != INSTANCE:
        raise CommandError(Code.INVALID_FIELD)


def _check_right(settings: SolSettings, caller: Caller) -> None:
    if caller.privilege < settings.privilege or caller.user_id in settings.denied:
        raise CommandError(Code.INSUFFICIENT_PRIVILEGE)
