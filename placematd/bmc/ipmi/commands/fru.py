"""FRU inventory (IPMI 2.0 chapter 34; contents: Platform Management FRU Information Storage Definition 1.0)."""

from collections.abc import Iterable, Sequence

from ...machine import Inventory, Machine
from ..request import Code, CommandError, Reply, Request
from .table import OPERATOR, STORAGE, USER, Row, between, number, require

FORMAT = 0x01
ENGLISH = 25
RACK_MOUNT = 0x17
"""Chassis type, as SMBIOS numbers them."""
END = 0xC1
LATIN_1 = 0xC0
LONGEST = 63
UNKNOWN_DATE = bytes(3)
BYTE_ADDRESSED = 0x00
WRITE_PROTECTED = 0x80
"""Completion code of Write FRU Data."""
MOST_BYTES = 255


def field(text: str) -> bytes:
    """A string with its type/length byte (section 13 of the definition): 8-bit ASCII and Latin 1.

    What Latin 1 does not have becomes a question mark. One character alone would look like the end of the list, so
    that it gets a NUL.
    """
    data = text.encode("latin-1", "replace")[:LONGEST]
    if len(data) == 1:
        data += b"\0"
    return bytes((LATIN_1 | len(data),)) + data


def area(head: Iterable[int], fields: Iterable[str]) -> bytes:
    """An area: format, length in 8 bytes, `head`, the fields, the end mark, padding and checksum."""
    body = bytes(head) + b"".join(field(text) for text in fields) + bytes((END,))
    length = -(-(len(body) + 3) // 8)
    data = bytes((FORMAT, length)) + body
    data = data.ljust(length * 8 - 1, b"\0")
    return data + bytes((-sum(data) & 0xFF,))


def contents(inventory: Inventory) -> bytes:
    """The whole FRU: what SMBIOS shows the guest, as chassis, board and product."""
    maker, product, serial = inventory.manufacturer, inventory.product, inventory.serial
    part, version, asset, file_id = "", "", "", ""
    chassis = area((RACK_MOUNT,), (part, serial))
    board = area((ENGLISH, *UNKNOWN_DATE), (maker, product, serial, part, file_id))
    goods = area((ENGLISH,), (maker, product, part, version, serial, asset, file_id))
    offsets = (0, 8, 8 + len(chassis), 8 + len(chassis) + len(board), 0)
    header = bytes((FORMAT, *(offset // 8 for offset in offsets), 0))
    return header + bytes((-sum(header) & 0xFF,)) + chassis + board + goods


class Fru:
    """The one FRU, number 0; it is made of the inventory each time, and cannot be written."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def rows(self) -> Sequence[Row]:
        """Area info, read, write."""
        return (
            Row(STORAGE, 0x10, USER, (1,), self.get_info),
            Row(STORAGE, 0x11, USER, (4,), self.read),
            Row(STORAGE, 0x12, OPERATOR, between(3, 255), self.write),
        )

    async def get_info(self, request: Request) -> Reply:
        """Section 34.1."""
        data = await self._contents(request)
        return Reply(data=len(data).to_bytes(2, "little") + bytes((BYTE_ADDRESSED,)))

    async def read(self, request: Request) -> Reply:
        """Section 34.2: [FRU id, offset 2, bytes]; answers how many bytes, and them."""
        data = await self._contents(request)
        offset, count = number(request.data[1:3]), request.data[3]
        require(offset < len(data), Code.OUT_OF_RANGE)
        part = data[offset : offset + min(count, MOST_BYTES)]
        return Reply(data=bytes((len(part),)) + part)

    async def write(self, request: Request) -> Reply:
        """Section 34.3."""
        await self._contents(request)
        raise CommandError(WRITE_PROTECTED)

    async def _contents(self, request: Request) -> bytes:
        require(request.data[0] == 0, Code.NOT_PRESENT)
        return contents(await self._machine.inventory())
