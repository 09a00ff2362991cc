"""The cipher suites that we speak (IPMI 2.0 section 22.15.2) and what they compute (sections 13.28 to 13.32).

Suites 3 (RAKP-HMAC-SHA1, HMAC-SHA1-96, AES-CBC-128) and 17 (RAKP-HMAC-SHA256, HMAC-SHA256-128, AES-CBC-128). Every
suite without integrity, without confidentiality or with MD5 is refused.
"""

import hashlib
import hmac
import os
from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

AES_BLOCK = 16
_CONSTANT_BYTES = 20
"""Length of the constants that K1 and K2 derive from, for SHA-256 too (ipmitool, freeipmi and OpenBMC agree)."""


@dataclass(frozen=True)
class Suite:
    """One cipher suite by its algorithm numbers (tables 13-17 to 13-19)."""

    id: int
    authentication: int
    integrity: int
    confidentiality: int
    digest: str
    code_bytes: int
    """Length of the authentication code of a packet and of the integrity check value in RAKP 4."""

    @property
    def record(self) -> bytes:
        """The suite's record in Get Channel Cipher Suites (table 22-18)."""
        return bytes((0xC0, self.id, self.authentication, 0x40 | self.integrity, 0x80 | self.confidentiality))

    def mac(self, key: bytes, data: bytes) -> bytes:
        """The whole keyed hash."""
        return hmac.digest(key, data, self.digest)

    @property
    def mac_bytes(self) -> int:
        """Length of the whole keyed hash."""
        return hashlib.new(self.digest).digest_size


SUITES = (Suite(3, 1, 1, 1, "sha1", 12), Suite(17, 3, 4, 1, "sha256", 16))


class Keys:
    """The keys of a session and what they are for."""

    def __init__(self, suite: Suite, session_key: bytes) -> None:
        self.suite = suite
        self._integrity = suite.mac(session_key, b"\x01" * _CONSTANT_BYTES)
        self._cipher = algorithms.AES(suite.mac(session_key, b"\x02" * _CONSTANT_BYTES)[:16])

    def code(self, data: bytes) -> bytes:
        """The authentication code of a packet."""
        return self.suite.mac(self._integrity, data)[: self.suite.code_bytes]

    def verify(self, data: bytes, code: bytes) -> bool:
        """Whether `code` is the authentication code of `data`; in constant time."""
        return hmac.compare_digest(self.code(data), code)

    def encrypt(self, payload: bytes) -> bytes:
        """Initialisation vector and the padded payload (section 13.29)."""
        pad = -(len(payload) + 1) % AES_BLOCK
        vector = os.urandom(AES_BLOCK)
        encryptor = Cipher(self._cipher, modes.CBC(vector)).encryptor()
        return vector + encryptor.update(payload + bytes(range(1, pad + 1)) + bytes((pad,))) + encryptor.finalize()

    def decrypt(self, payload: bytes) -> bytes | None:
        """The plain payload; None where the length or the pad (01h, 02h, ...) is wrong."""
        if len(payload) < 2 * AES_BLOCK or len(payload) % AES_BLOCK:
            return None
        decryptor = Cipher(self._cipher, modes.CBC(payload[:AES_BLOCK])).decryptor()
        plain = decryptor.update(payload[AES_BLOCK:]) + decryptor.finalize()
        pad = plain[-1]
        if pad >= AES_BLOCK or plain[len(plain) - 1 - pad : -1] != bytes(range(1, pad + 1)):
            return None
        return plain[: len(plain) - 1 - pad]
