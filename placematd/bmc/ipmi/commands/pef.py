"""Platform event filtering (IPMI 2.0 chapter 30): there is none, and that is what is answered."""

from collections.abc import Mapping, Sequence
from typing import Final

from ..request import CommandError, Reply, Request
from .table import NOTHING, OPERATOR, SENSOR, USER, Row, require

PEF_VERSION = 0x51
REVISION = 0x11
REVISION_ONLY = 0x80
UNSUPPORTED = 0x80

PARAMETERS: Final[Mapping[int, bytes]] = {
    0: b"\0",  # set complete
    1: b"\0",  # no filtering
    2: b"\0",  # no action
    3: b"\0",  # no delay after start
    4: b"\0",  # nor for alerts
    5: b"\0",  # no filters
    8: b"\0",  # no alert policies
    11: b"\0",  # no alert strings
}


class Pef:
    """Capabilities and configuration of nothing."""

    def rows(self) -> Sequence[Row]:
        """What tools ask before they give up."""
        return (
            Row(SENSOR, 0x10, USER, NOTHING, self.get_capabilities),
            Row(SENSOR, 0x13, OPERATOR, (3,), self.get_parameter),
        )

    async def get_capabilities(self, request: Request) -> Reply:
        """Section 30.1: no actions, no filters."""
        return Reply(data=bytes((PEF_VERSION, 0, 0)))

    async def get_parameter(self, request: Request) -> Reply:
        """Section 30.4."""
        value = PARAMETERS.get(request.data[0] & 0x7F)
        if value is None:
            raise CommandError(UNSUPPORTED)
        require(request.data[1] == 0)
        return Reply(data=bytes((REVISION,)) + (b"" if request.data[0] & REVISION_ONLY else value))
