"""Datagrams as IPMI over LAN puts them together: RMCP, ASF, the two session headers and the IPMI message.

Pure: bytes in, records out. A parser returns None for what is malformed; nothing here raises for any input.
"""

from dataclasses import dataclass
from enum import IntEnum

RMCP_VERSION = 0x06
NO_ACK = 0xFF
CLASS_ASF, CLASS_IPMI = 0x06, 0x07
AUTH_NONE, AUTH_RMCP_PLUS = 0x00, 0x06
NEXT_HEADER = 0x07
BMC_ADDRESS = 0x20

_HEADER = bytes((RMCP_VERSION, 0, NO_ACK, CLASS_IPMI))
_ASF_IANA = (4542).to_bytes(4, "big")
_PING, _PONG = 0x80, 0x40


class PayloadType(IntEnum):
    """Payload types of RMCP+ (IPMI 2.0 table 13-16)."""

    IPMI = 0x00
    SOL = 0x01
    OPEN_REQUEST = 0x10
    OPEN_RESPONSE = 0x11
    RAKP1 = 0x12
    RAKP2 = 0x13
    RAKP3 = 0x14
    RAKP4 = 0x15


def pong(datagram: bytes) -> bytes | None:
    """The answer to an ASF presence ping (section 13.2.4), None if it is none: IPMI is supported, ASF 1.0."""
    if len(datagram) < 12 or datagram[4:8] != _ASF_IANA or datagram[8] != _PING:
        return None
    body = _ASF_IANA + bytes(4) + bytes((0x81, 0x00)) + bytes(6)
    header = bytes((RMCP_VERSION, 0, NO_ACK, CLASS_ASF)) + _ASF_IANA + bytes((_PONG, datagram[9], 0, len(body)))
    return header + body


@dataclass(frozen=True)
class Packet:
    """An RMCP+ packet (section 13.6) as it stands on the wire; `payload` may still be encrypted."""

    payload_type: int
    encrypted: bool
    authenticated: bool
    session_id: int
    sequence: int
    payload: bytes
    signed: bytes = b""
    """What the authentication code covers: authentication type to next header."""
    signature: bytes = b""


def parse_packet(datagram: bytes) -> Packet | None:
    """Take an RMCP+ packet apart; OEM payload types are not spoken."""
    if len(datagram) < 16:
        return None
    kind = datagram[5]
    length = int.from_bytes(datagram[14:16], "little")
    payload = datagram[16 : 16 + length]
    if kind & 0x3F == 0x02 or len(payload) != length:
        return None
    packet = Packet(
        kind & 0x3F,
        bool(kind & 0x80),
        bool(kind & 0x40),
        int.from_bytes(datagram[6:10], "little"),
        int.from_bytes(datagram[10:14], "little"),
        payload,
    )
    return _with_trailer(packet, datagram, 16 + length) if packet.authenticated else packet


def _with_trailer(packet: Packet, datagram: bytes, end: int) -> Packet | None:
    """Find the integrity pad (FFh up to a multiple of 4), its length and the next header behind the payload."""
    pad = -(end - 4 + 2) % 4
    covered = end + pad + 2
    if len(datagram) <= covered or datagram[end:covered] != b"\xff" * pad + bytes((pad, NEXT_HEADER)):
        return None
    return Packet(
        packet.payload_type,
        packet.encrypted,
        True,
        packet.session_id,
        packet.sequence,
        packet.payload,
        datagram[4:covered],
        datagram[covered:],
    )


def packet_head(payload_type: int, session_id: int, sequence: int, length: int) -> bytes:
    """RMCP and session header of a packet that we send; `payload_type` with its two flag bits."""
    return b"".join(
        (
            _HEADER,
            bytes((AUTH_RMCP_PLUS, payload_type)),
            session_id.to_bytes(4, "little"),
            sequence.to_bytes(4, "little"),
            length.to_bytes(2, "little"),
        )
    )


def plain_packet(payload_type: int, payload: bytes) -> bytes:
    """A packet outside any session."""
    return packet_head(payload_type, 0, 0, len(payload)) + payload


def signed_part(unsigned: bytes) -> bytes:
    """An authenticated packet up to its authentication code, pad and next header appended."""
    pad = -(len(unsigned) - 4 + 2) % 4
    return unsigned + b"\xff" * pad + bytes((pad, NEXT_HEADER))


def parse_v15(datagram: bytes) -> bytes | None:
    """The IPMI message of an IPMI 1.5 packet outside any session (section 13.6), None for every other packet."""
    if len(datagram) < 14 or datagram[4] != AUTH_NONE or datagram[9:13] != bytes(4):
        return None
    message = datagram[14 : 14 + datagram[13]]
    return message if len(message) == datagram[13] else None


def v15_packet(message: bytes) -> bytes:
    """An IPMI 1.5 packet outside any session."""
    return _HEADER + bytes((AUTH_NONE,)) + bytes(8) + bytes((len(message),)) + message


@dataclass(frozen=True)
class Message:
    """An IPMI request message (section 13.8)."""

    netfn: int
    lun: int
    requester: int
    requester_lun: int
    sequence: int
    command: int
    data: bytes

    def reply(self, code: int, data: bytes = b"") -> bytes:
        """The response message to this request."""
        head = bytes((self.requester, (self.netfn + 1) << 2 | self.requester_lun))
        body = bytes((BMC_ADDRESS, self.sequence << 2 | self.lun, self.command, code)) + data
        return head + checksum(head) + body + checksum(body)


def checksum(data: bytes) -> bytes:
    """Two's complement of the sum, one byte."""
    return bytes((-sum(data) & 0xFF,))


def parse_message(raw: bytes) -> Message | None:
    """Read a request to the BMC; None where a checksum, the address or the network function is not a request's."""
    if len(raw) < 7 or raw[0] != BMC_ADDRESS or raw[1] & 0x04 or sum(raw[:3]) & 0xFF or sum(raw[3:]) & 0xFF:
        return None
    return Message(raw[1] >> 2, raw[1] & 3, raw[3], raw[4] & 3, raw[4] >> 2, raw[5], raw[6:-1])
