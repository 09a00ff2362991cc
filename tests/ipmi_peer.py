"""An IPMI 2.0 client over a wire in memory, written from the specification without a line of placematd's.

bmc = await a_bmc()
peer = Peer(bmc)
assert peer.log_in() == 0
assert await peer.ask(0x06, 0x01) == (0x00, device_id)
"""

import asyncio
import hashlib
import hmac
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from fakes.machine import FakeMachine

from placematd.bmc.accounts import Accounts
from placematd.bmc.ipmi.request import Code, Reply, Request
from placematd.bmc.ipmi.server import IpmiServer

GUID = UUID("d1f5a1f0-5b3c-4c1e-9d3a-0123456789ab")
ALGORITHMS = {3: (1, 1, 1), 17: (3, 4, 1)}
DEVICE_ID = bytes((0x20, 0x01, 0x01, 0x00, 0x02, 0xBF, 0, 0, 0, 0, 0))
SLOW, FAILING = 0x70, 0x71
"""Commands of network function 30h that this BMC has for tests: one waits for `Bmc.gate`, the other raises."""


class Wire:
    """The transport that the server sends on."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, tuple[str, int]]] = []

    def sendto(self, data: bytes, address: tuple[str, int]) -> None:
        self.sent.append((data, address))

    def get_extra_info(self, name: str) -> object:
        return {"sockname": ("127.0.0.1", 623), "socket": self}[name]

    def dup(self) -> "Wire":
        return self

    def close(self) -> None:
        pass


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Bmc:
    """A server on a FakeMachine, with what it executed."""

    machine: FakeMachine
    accounts: Accounts
    clock: Clock
    wire: Wire = field(default_factory=Wire)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    executed: list[Request] = field(default_factory=list)
    server: IpmiServer = field(init=False)

    def __post_init__(self) -> None:
        self.server = IpmiServer(self.machine, self.accounts, self.execute, GUID, clock=self.clock)
        self.server.connection_made(self.wire)  # type: ignore[arg-type]

    async def execute(self, request: Request) -> Reply:
        self.executed.append(request)
        if (request.netfn, request.command) == (0x06, 0x01):
            return Reply(data=DEVICE_ID)
        if (request.netfn, request.command) == (0x00, 0x02):
            return Reply(after=lambda: self.machine.power("off"))
        if (request.netfn, request.command) == (0x30, SLOW):
            await self.gate.wait()
            return Reply(data=request.data)
        if (request.netfn, request.command) == (0x30, FAILING):
            raise RuntimeError("a mistake")
        return Reply(code=Code.INVALID_COMMAND)

    def send(self, datagram: bytes, address: tuple[str, int]) -> list[bytes]:
        """What is answered at once."""
        self.wire.sent.clear()
        self.server.datagram_received(datagram, address)
        assert all(to == address for _, to in self.wire.sent)
        sent, self.wire.sent = self.wire.sent, []
        return [data for data, _ in sent]


async def a_bmc(machine: FakeMachine | None = None) -> Bmc:
    """Users: admin (Administrator, slot 2), oper (Operator, 3), reader (ReadOnly, 4); "-secret" makes the password."""
    machine = machine or FakeMachine("On")
    accounts = Accounts(machine)
    await accounts.load()
    await accounts.create(name="admin", password="admin-secret", role="Administrator")
    await accounts.create(name="oper", password="oper-secret", role="Operator")
    await accounts.create(name="reader", password="reader-secret", role="ReadOnly")
    return Bmc(machine, accounts, Clock())


def plain(kind: int, payload: bytes, session_id: int = 0, sequence: int = 0) -> bytes:
    """An RMCP+ packet without signature."""
    return b"\x06\x00\xff\x07\x06" + struct.pack("<BIIH", kind, session_id, sequence, len(payload)) + payload


def v15(message: bytes) -> bytes:
    return b"\x06\x00\xff\x07\x00" + bytes(8) + bytes((len(message),)) + message


def request(netfn: int, command: int, data: bytes = b"", sequence: int = 1, lun: int = 0) -> bytes:
    head, body = bytes((0x20, netfn << 2 | lun)), bytes((0x81, sequence << 2, command)) + data
    return head + bytes((-sum(head) & 0xFF,)) + body + bytes((-sum(body) & 0xFF,))


def reply_of(message: bytes) -> tuple[int, bytes]:
    """Completion code and data of a response message, whose check sums are checked."""
    assert sum(message[:3]) & 0xFF == 0 and sum(message[3:]) & 0xFF == 0 and message[1] & 0x04
    return message[6], message[7:-1]


class Peer:
    """A client; every step can be made wrong."""

    def __init__(
        self, bmc: Bmc, *, suite: int = 17, user: str = "admin", password: str = "", port: int = 40000
    ) -> None:
        self.bmc = bmc
        self.suite = suite
        self.hash: Callable[..., hashlib._Hash] = hashlib.sha1 if suite == 3 else hashlib.sha256
        self.code_bytes = 12 if suite == 3 else 16
        self.user = user.encode()
        self.password = (password or f"{user}-secret").encode()
        self.address = ("192.0.2.1", port)
        self.console_id = 0xA0A2A3A4
        self.session_id = 0
        self.random = bytes(range(16))
        self.sequence = 0
        self.number = 0

    def mac(self, key: bytes, data: bytes) -> bytes:
        return hmac.new(key, data, self.hash).digest()

    def exchange(self, kind: int, payload: bytes) -> bytes:
        """The payload that answers one of session set-up, b"" for silence."""
        answers = self.bmc.send(plain(kind, payload), self.address)
        if not answers:
            return b""
        (answer,) = answers
        assert answer[:6] == b"\x06\x00\xff\x07\x06" + bytes((kind + 1,)) and answer[6:14] == bytes(8)
        assert int.from_bytes(answer[14:16], "little") == len(answer) - 16
        return answer[16:]

    def open_request(self, algorithms: tuple[int, int, int] | None = None, level: int = 0, tag: int = 1) -> bytes:
        records = b"".join(bytes((n, 0, 0, 8, a, 0, 0, 0)) for n, a in enumerate(algorithms or ALGORITHMS[self.suite]))
        return bytes((tag, level, 0, 0)) + struct.pack("<I", self.console_id) + records

    def open(self, algorithms: tuple[int, int, int] | None = None, level: int = 0) -> int:
        answer = self.exchange(0x10, self.open_request(algorithms, level))
        if answer[1] == 0:
            self.session_id = int.from_bytes(answer[8:12], "little")
        return answer[1]

    def rakp1_request(self, role: int = 0x14, name: bytes | None = None) -> bytes:
        self.role, name = role, self.user if name is None else name
        head = b"\x02\0\0\0" + struct.pack("<I", self.session_id) + self.random
        return head + bytes((role, 0, 0, len(name))) + name

    def rakp1(self, role: int = 0x14, name: bytes | None = None) -> int:
        answer = self.exchange(0x12, self.rakp1_request(role, name))
        if answer[1] == 0:
            self.bmc_random, self.guid, self.proof = answer[8:24], answer[24:40], answer[40:]
        return answer[1]

    @property
    def identity(self) -> bytes:
        return bytes((self.role, len(self.user))) + self.user

    def rakp2_is_right(self) -> bool:
        ids = struct.pack("<II", self.console_id, self.session_id)
        return self.proof == self.mac(self.password, ids + self.random + self.bmc_random + self.guid + self.identity)

    def rakp3_request(self, status: int = 0) -> bytes:
        proof = self.mac(self.password, self.bmc_random + struct.pack("<I", self.console_id) + self.identity)
        return bytes((3, status, 0, 0)) + struct.pack("<I", self.session_id) + proof

    def rakp3(self) -> int:
        answer = self.exchange(0x14, self.rakp3_request())
        key = self.mac(self.password, self.random + self.bmc_random + self.identity)
        self.k1, self.k2 = self.mac(key, b"\x01" * 20), self.mac(key, b"\x02" * 20)[:16]
        if answer[1] == 0:
            check = self.mac(key, self.random + struct.pack("<I", self.session_id) + self.guid)
            assert answer[8:] == check[: self.code_bytes]
        return answer[1]

    def log_in(self, role: int = 0x14) -> int:
        """Status of the step that failed, 0 after success."""
        return self.open() or self.rakp1(role) or self.rakp3()

    def cipher(self, vector: bytes) -> "Cipher[modes.CBC]":
        return Cipher(algorithms.AES(self.k2), modes.CBC(vector))

    def seal(
        self, payload: bytes, kind: int = 0, *, sequence: int | None = None, pad: bytes | None = None, flags: int = 0xC0
    ) -> bytes:
        """A packet of the session; `pad` replaces the confidentiality pad and its length byte."""
        if sequence is None:
            self.sequence += 1
            sequence = self.sequence
        if pad is None:
            count = -(len(payload) + 1) % 16
            pad = bytes(range(1, count + 1)) + bytes((count,))
        vector = bytes(range(48, 64))
        encryptor = self.cipher(vector).encryptor()
        secret = vector + encryptor.update(payload + pad) + encryptor.finalize() if flags & 0x80 else payload
        return (
            self.sign(plain(flags | kind, secret, self.session_id, sequence))
            if flags & 0x40
            else plain(flags | kind, secret, self.session_id, sequence)
        )

    def sign(self, packet: bytes) -> bytes:
        count = -(len(packet) - 4 + 2) % 4
        packet += b"\xff" * count + bytes((count, 7))
        return packet + self.mac(self.k1, packet[4:])[: self.code_bytes]

    def unseal(self, datagram: bytes) -> tuple[int, bytes]:
        """Type and payload of a packet to us; the signature is checked."""
        assert datagram[:5] == b"\x06\x00\xff\x07\x06" and datagram[5] & 0xC0 == 0xC0
        assert datagram[6:10] == struct.pack("<I", self.console_id)
        assert self.mac(self.k1, datagram[4 : -self.code_bytes])[: self.code_bytes] == datagram[-self.code_bytes :]
        length = int.from_bytes(datagram[14:16], "little")
        secret = datagram[16 : 16 + length]
        decryptor = self.cipher(secret[:16]).decryptor()
        clear = decryptor.update(secret[16:]) + decryptor.finalize()
        return datagram[5] & 0x3F, clear[: len(clear) - 1 - clear[-1]]

    def received(self, kind: int = 0) -> list[bytes]:
        """Payloads of that type that the BMC has sent to us since the last time."""
        mine = [self.unseal(data) for data, to in self.bmc.wire.sent if to == self.address]
        self.bmc.wire.sent = [(data, to) for data, to in self.bmc.wire.sent if to != self.address]
        return [payload for found, payload in mine if found == kind]

    async def tell(self, datagram: bytes) -> list[bytes]:
        """Send a packet of the session, let everything happen, and return the IPMI messages that came back."""
        self.bmc.server.datagram_received(datagram, self.address)
        await settle()
        return self.received()

    async def ask(self, netfn: int, command: int, data: bytes = b"") -> tuple[int, bytes]:
        self.number = self.number % 63 + 1
        (message,) = await self.tell(self.seal(request(netfn, command, data, self.number)))
        assert message[1] >> 2 == netfn + 1 and message[4] >> 2 == self.number and message[5] == command
        return reply_of(message)


async def settle() -> None:
    """Let every task run until it waits for something from outside."""
    for _ in range(20):
        await asyncio.sleep(0)
