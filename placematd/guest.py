"""What guests say to placemat: lines written to /dev/virtio-ports/placemat, each the address of the node's BMC.

A guest is not trusted. It may send no line end, binary rubbish, or lines without end: memory and journal stay bounded,
and a guest that floods is read slowly.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path

from .bmc_address import address_problem
from .chardev import Chardev
from .errors import PlacematError
from .models import Cluster, IPAddress
from .pace import Allowance, Complaints

LINE_BYTES = 256
READ_BYTES = 4096
BURST_LINES = 10
LINES_PER_SECOND = 1.0
PAUSE_SECONDS = 1.0
"""How long a guest that sends too much is not read: what it writes then waits in the guest."""

log = logging.getLogger("placematd")


class Lines:
    """Cuts a stream into lines of at most `LINE_BYTES` bytes; of an overlong one nothing is kept."""

    def __init__(self) -> None:
        self._partial = bytearray()
        self._skipping = False

    @property
    def skipping(self) -> bool:
        """Whether the stream is inside a line that is too long."""
        return self._skipping

    def feed(self, data: bytes) -> Iterator[bytes | None]:
        """The lines that `data` completes, without their ends; None as soon as a line has become too long."""
        *complete, rest = data.split(b"\n")
        for piece in complete:
            yield from self._append(piece)
            if not self._skipping:
                yield bytes(self._partial.removesuffix(b"\r"))
            self._partial.clear()
            self._skipping = False
        yield from self._append(rest)

    def _append(self, piece: bytes) -> Iterator[None]:
        if self._skipping:
            return
        if len(self._partial) + len(piece) <= LINE_BYTES:
            self._partial += piece
            return
        self._skipping = True
        self._partial.clear()
        yield None


class GuestChannel:
    """The host end of a node's /dev/virtio-ports/placemat; `on_line` is called in the event loop with each line.

    `report` is called with what the guest does wrong, at most once a minute each.
    """

    def __init__(
        self,
        path: Path,
        on_line: Callable[[bytes], None],
        report: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path, self._on_line = path, on_line
        self._report = Complaints(report or self._log, clock)
        self._chardev = Chardev(path, self._on_data, lambda reason: None, READ_BYTES)
        self._lines = Lines()
        self._allowance = Allowance(BURST_LINES, LINES_PER_SECOND, clock)

    def attach(self) -> None:
        """QEMU runs: connect, in the background, unless connected."""
        self._chardev.attach()

    async def detach(self) -> None:
        """Let go of QEMU; when this returns, `on_line` is not called any more."""
        await self._chardev.detach()
        self._lines = Lines()

    async def _on_data(self, data: bytes) -> None:
        flooded = False
        for line in self._lines.feed(data):
            if line is None:
                self._report(f"the guest sent a line of more than {LINE_BYTES} bytes, which is ignored")
            elif self._allowance.take():
                self._on_line(line)
            else:
                self._report(f"the guest sends more than {LINES_PER_SECOND:g} lines a second; some are ignored")
                flooded = True
        if flooded or self._lines.skipping:
            await asyncio.sleep(PAUSE_SECONDS)

    def _log(self, problem: str) -> None:
        log.warning("%s: %s", self._path, problem)


def parse_address(line: bytes) -> IPAddress:
    """The address in a line that a guest wrote; raises ValueError with a reason that is safe to print."""
    try:
        text = line.decode("ascii").strip()
    except UnicodeDecodeError:
        raise ValueError(f"{line[:40]!r} is not ASCII text") from None
    if not text:
        raise ValueError("the line is empty")
    if "%" in text:
        raise ValueError(f"{text[:40]!r} has a zone, which means nothing outside the guest")
    try:
        return ip_address(text)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is not an IP address") from None


def check_address(address: IPAddress, cluster: Cluster, taken: Mapping[str, str], node: str = "") -> None:
    """Raise PlacematError unless the BMC of `node` can have the address; see `address_problem`."""
    if problem := address_problem(address, cluster, taken, node):
        raise PlacematError(f"{address}: {problem}")
