"""System info parameters (IPMI 2.0 sections 22.14a and 22.14b): strings that the system's software leaves here."""

from collections.abc import Sequence

from ...machine import Machine
from ..request import Code, CommandError, Reply, Request
from .settings import InProgress, Settings
from .table import ADMINISTRATOR, APP, USER, Row, between, require

REVISION = 0x11
UNSUPPORTED, IN_PROGRESS, READ_ONLY = 0x80, 0x81, 0x82
REVISION_ONLY = 0x80

SET_IN_PROGRESS, FIRMWARE_VERSION, SYSTEM_NAME = 0, 1, 2
STRINGS = range(FIRMWARE_VERSION, 8)
"""Firmware version, system name, primary and present OS name, OS version, URL of the BMC and of the hypervisor."""
BLOCKS, BLOCK_BYTES = 16, 16
ASCII = 0x00
KEY = "system_info"


def blocks(text: str) -> Sequence[bytes]:
    """A string as it is sent: encoding and length, then the text, in blocks of 16 bytes."""
    data = text.encode("ascii", "replace")[:253]
    data = bytes((ASCII, len(data))) + data
    return [data[at : at + BLOCK_BYTES].ljust(BLOCK_BYTES, b"\0") for at in range(0, len(data), BLOCK_BYTES)]


class SystemInfo:
    """Get and Set System Info Parameters. What nobody wrote yet says what the BMC knows itself."""

    def __init__(self, machine: Machine, settings: Settings) -> None:
        self._machine, self._settings = machine, settings
        self._progress = InProgress()

    def rows(self) -> Sequence[Row]:
        """The two commands."""
        return (
            Row(APP, 0x58, ADMINISTRATOR, between(2, 2 + BLOCK_BYTES), self.set),
            Row(APP, 0x59, USER, (4,), self.get),
        )

    async def get(self, request: Request) -> Reply:
        """[revision only, parameter, set selector, block selector]; the set selector is the string's block."""
        revision_only, parameter, block, _ = request.data
        require(parameter == SET_IN_PROGRESS or parameter in STRINGS, UNSUPPORTED)
        if revision_only & REVISION_ONLY:
            return Reply(data=bytes((REVISION,)))
        if parameter == SET_IN_PROGRESS:
            return Reply(data=bytes((REVISION, self._progress.state)))
        written = (await self._settings.get(KEY, {})).get(str(parameter), {})
        known = [] if written else blocks(await self._known(parameter))
        require(block < BLOCKS and (str(block) in written or block < len(known)), Code.OUT_OF_RANGE)
        data = bytes.fromhex(written[str(block)]) if written else known[block]
        return Reply(data=bytes((REVISION, block)) + data)

    async def _known(self, parameter: int) -> str:
        if parameter not in (FIRMWARE_VERSION, SYSTEM_NAME):
            return ""
        inventory = await self._machine.inventory()
        return inventory.bios_version if parameter == FIRMWARE_VERSION else inventory.node

    async def set(self, request: Request) -> Reply:
        """[parameter, block, up to 16 bytes]; block 0 starts the string anew."""
        parameter, first, *rest = request.data
        if parameter == SET_IN_PROGRESS:
            require(not rest, Code.REQUEST_LENGTH_INVALID)
            require(first <= 2)
            require(self._progress.take((request.caller.channel, request.caller.session_id), first), IN_PROGRESS)
            return Reply()
        if parameter not in STRINGS:
            raise CommandError(UNSUPPORTED)
        require(first < BLOCKS, Code.OUT_OF_RANGE)
        require(bool(rest), Code.REQUEST_LENGTH_INVALID)
        data = bytes(rest).ljust(BLOCK_BYTES, b"\0").hex()
        before = {} if first == 0 else (await self._settings.get(KEY, {})).get(str(parameter), {})
        await self._settings.put_item(KEY, str(parameter), {**before, str(first): data})
        return Reply()
