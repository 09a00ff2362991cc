"""Get and Set System Boot Options (IPMI 2.0 sections 28.12 and 28.13)."""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from ..request import Code, CommandError, Reply, Request
from .bootflags import BootFlags
from .settings import InProgress, Settings
from .table import CHASSIS, OPERATOR, Row, between, require

VERSION = 0x01
UNSUPPORTED, IN_PROGRESS = 0x80, 0x81
"""Completion codes: parameter not supported; set in progress by somebody else."""

MAILBOX_BLOCKS, MAILBOX_BYTES = 5, 16
"""Blocks 0 to 4 of 16 bytes (parameter 7)."""
DONT_EXPIRE = 0x08
"""Bit of parameter 3: flags stay valid without a chassis control command."""

Getter = Callable[[Request], Awaitable[bytes]]
Setter = Callable[[Request, bytes], Awaitable[None]]


class BootOptions:
    """The parameters 0 to 7. Those that nobody but the system's software reads are kept as they were written."""

    def __init__(self, settings: Settings, flags: BootFlags) -> None:
        self._settings, self._flags = settings, flags
        self._progress = InProgress()
        self._parameters: Mapping[int, tuple[Getter, Setter]] = {
            0: (self._get_progress, self._set_progress),
            1: (self._get_nothing, self._set_nothing),
            2: (self._get_nothing, self._set_nothing),
            3: (self._get_clearing, self._set_clearing),
            4: (self._get_acknowledge, self._set_acknowledge),
            5: (self._get_flags, self._set_flags),
            6: (self._get_initiator, self._set_initiator),
            7: (self._get_mailbox, self._set_mailbox),
        }

    def rows(self) -> Sequence[Row]:
        """The two commands."""
        return (
            Row(CHASSIS, 0x08, OPERATOR, between(1, 18), self.set),
            Row(CHASSIS, 0x09, OPERATOR, (3,), self.get),
        )

    async def set(self, request: Request) -> Reply:
        """[parameter, data...]; the bit that marks a parameter invalid is refused, for a valid one means nothing."""
        _, setter = self._parameter(request.data[0] & 0x7F)
        require(not request.data[0] & 0x80)
        if len(request.data) > 1:
            await setter(request, request.data[1:])
        return Reply()

    async def get(self, request: Request) -> Reply:
        """[parameter, set selector, block selector]."""
        selector = request.data[0] & 0x7F
        getter, _ = self._parameter(selector)
        return Reply(data=bytes((VERSION, selector)) + await getter(request))

    def _parameter(self, selector: int) -> tuple[Getter, Setter]:
        found = self._parameters.get(selector)
        if found is None:
            raise CommandError(UNSUPPORTED)
        return found

    async def _get_progress(self, request: Request) -> bytes:
        return bytes((self._progress.state,))

    async def _set_progress(self, request: Request, data: bytes) -> None:
        _length(data, 1)
        require(data[0] <= 2)
        owner = (request.caller.channel, request.caller.session_id)
        require(self._progress.take(owner, data[0]), IN_PROGRESS)

    async def _get_nothing(self, request: Request) -> bytes:
        return bytes(1)

    async def _set_nothing(self, request: Request, data: bytes) -> None:
        """There is no service partition."""
        _length(data, 1)
        require(data[0] == 0)

    async def _get_clearing(self, request: Request) -> bytes:
        return bytes((await self._settings.integer("boot_clearing"),))

    async def _set_clearing(self, request: Request, data: bytes) -> None:
        """A reset never clears flags before the boot that uses them, so that the other four bits are granted too."""
        _length(data, 1)
        require(data[0] <= 0x1F)
        await self._settings.put("boot_clearing", data[0])
        if data[0] & DONT_EXPIRE:
            await self._flags.keep()

    async def _get_acknowledge(self, request: Request) -> bytes:
        return bytes((0, await self._settings.integer("boot_acknowledge")))

    async def _set_acknowledge(self, request: Request, data: bytes) -> None:
        """[write mask, value]."""
        _length(data, 2)
        mask, value = data
        require(mask <= 0x1F and value <= 0x1F)
        before = await self._settings.integer("boot_acknowledge")
        await self._settings.put("boot_acknowledge", (before & ~mask) | (value & mask))

    async def _get_flags(self, request: Request) -> bytes:
        return await self._flags.get()

    async def _set_flags(self, request: Request, data: bytes) -> None:
        clearing = await self._settings.integer("boot_clearing")
        await self._flags.set(data, expires=not clearing & DONT_EXPIRE)

    async def _get_initiator(self, request: Request) -> bytes:
        return bytes.fromhex(await self._settings.text("boot_initiator") or bytes(9).hex())

    async def _set_initiator(self, request: Request, data: bytes) -> None:
        _length(data, 9)
        await self._settings.put("boot_initiator", data.hex())

    async def _get_mailbox(self, request: Request) -> bytes:
        block = request.data[1]
        require(block < MAILBOX_BLOCKS, Code.OUT_OF_RANGE)
        kept = (await self._settings.get("boot_mailbox", {})).get(str(block), "")
        return bytes((block,)) + bytes.fromhex(kept).ljust(MAILBOX_BYTES, b"\0")

    async def _set_mailbox(self, request: Request, data: bytes) -> None:
        require(data[0] < MAILBOX_BLOCKS, Code.OUT_OF_RANGE)
        await self._settings.put_item("boot_mailbox", str(data[0]), data[1:].hex())


def _length(data: bytes, length: int) -> None:
    require(len(data) == length, Code.REQUEST_LENGTH_INVALID)
