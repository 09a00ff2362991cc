"""The OpenIPMI VM protocol: how QEMU's ipmi-bmc-extern device and a BMC speak over a byte stream.

Source: hw/ipmi/ipmi_bmc_extern.c of QEMU, lanserv/serial_ipmi.c of OpenIPMI. A message is sequence number, netfn/LUN,
command, data and a checksum (all bytes add up to 0), ended by A0; a control, about the interface itself, is a number
and perhaps data, ended by A1. Inside, A0, A1 and AA are written as AA and the byte with bit 4 set.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

MESSAGE_END, CONTROL_END, ESCAPE = 0xA0, 0xA1, 0xAA

MESSAGE_BYTES = 300
"""QEMU's MAX_IPMI_MSG_SIZE: netfn/LUN, command and data, without sequence number and checksum."""

REPLY_DATA_BYTES = 272 - 3
"""What a reply can hold behind its completion code: Linux reads no longer ones (IPMI_MAX_MSG_LENGTH)."""

_FRAME_BYTES = 2 * (MESSAGE_BYTES + 2)
_SHORTEST_BYTES = 4

_END = re.compile(rb"[\xa0\xa1]")
_SPECIAL = re.compile(rb"[\xa0\xa1\xaa]")
_ESCAPED = re.compile(rb"\xaa([\xb0\xb1\xba])")
_FRAME = re.compile(rb"(?:[^\xa0\xa1\xaa]|\xaa[\xb0\xb1\xba])*")


class ControlCode(IntEnum):
    """What the two sides say about the interface (VM_CMD_* in QEMU)."""

    NO_ATTENTION = 0x00
    ATTENTION = 0x01
    ATTENTION_INTERRUPT = 0x02
    POWER_OFF = 0x03
    RESET = 0x04
    ENABLE_INTERRUPT = 0x05
    DISABLE_INTERRUPT = 0x06
    SEND_NMI = 0x07
    CAPABILITIES = 0x08
    GRACEFUL_SHUTDOWN = 0x09
    VERSION = 0xFF


CAN_INTERRUPT = 0x04
"""The bit of CAPABILITIES that says that interrupts can be enabled."""


@dataclass(frozen=True)
class Message:
    """A request of the guest (even netfn), or the reply to it (odd; `data` begins with the completion code)."""

    sequence: int
    netfn: int
    lun: int
    command: int
    data: bytes = b""

    def encode(self) -> bytes:
        """The message as it goes over the stream."""
        body = bytes((self.sequence, self.netfn << 2 | self.lun, self.command)) + self.data
        return _frame(body + bytes((-sum(body) & 0xFF,)), MESSAGE_END)

    def reply(self, code: int, data: bytes = b"") -> "Message":
        """The reply to this request."""
        return Message(self.sequence, self.netfn | 1, self.lun, self.command, bytes((code,)) + data)


@dataclass(frozen=True)
class Control:
    """Something about the interface; `code` is a ControlCode where it is known."""

    code: int
    data: bytes = b""

    def encode(self) -> bytes:
        """The control as it goes over the stream."""
        return _frame(bytes((self.code,)) + self.data, CONTROL_END)


@dataclass(frozen=True)
class Fault:
    """A piece of the stream that was thrown away, and why."""

    reason: str


Item = Message | Control | Fault


def _frame(body: bytes, end: int) -> bytes:
    return _SPECIAL.sub(lambda found: bytes((ESCAPE, found[0][0] | 0x10)), body) + bytes((end,))


class Decoder:
    """Cuts a stream into messages and controls; keeps less than one frame, whatever comes."""

    def __init__(self) -> None:
        self._partial = bytearray()
        self._skipping = False

    def feed(self, data: bytes) -> Iterator[Item]:
        """What `data` completes. A frame that is too long is one Fault, when its end comes."""
        start = 0
        for found in _END.finditer(data):
            self._append(data[start : found.start()])
            start = found.end()
            yield self._take(found[0][0])
        self._append(data[start:])

    def _append(self, piece: bytes) -> None:
        if self._skipping or len(self._partial) + len(piece) > _FRAME_BYTES:
            self._skipping = True
            self._partial.clear()
        else:
            self._partial += piece

    def _take(self, end: int) -> Item:
        raw, skipped = bytes(self._partial), self._skipping
        self._partial.clear()
        self._skipping = False
        if skipped:
            return Fault("too long")
        if not _FRAME.fullmatch(raw):
            return Fault("wrong escape")
        body = _ESCAPED.sub(lambda found: bytes((found[1][0] & ~0x10,)), raw)
        return _message(body) if end == MESSAGE_END else _control(body)


def _message(body: bytes) -> Message | Fault:
    if len(body) < _SHORTEST_BYTES:
        return Fault("too short")
    if len(body) > MESSAGE_BYTES + 2:
        return Fault("too long")
    if sum(body) & 0xFF:
        return Fault("wrong checksum")
    return Message(body[0], body[1] >> 2, body[1] & 3, body[2], body[3:-1])


def _control(body: bytes) -> Control | Fault:
    return Control(body[0], body[1:]) if body else Fault("empty control")
