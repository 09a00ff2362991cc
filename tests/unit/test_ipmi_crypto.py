"""Keys and packets against values that `openssl dgst -mac HMAC` and `openssl enc -aes-128-cbc` computed."""

import pytest

from placematd.bmc.ipmi.suites import SUITES, Keys, Suite

PASSWORD = b"secret"
CONSOLE_ID, BMC_ID = bytes.fromhex("a4a3a2a0"), bytes.fromhex("b4b3b2b0")
CONSOLE_RANDOM, BMC_RANDOM, GUID = bytes(range(16)), bytes(range(16, 32)), bytes(range(32, 48))
IDENTITY = b"\x14\x05admin"
VECTOR = bytes(range(48, 64))
PAYLOAD = bytes.fromhex("2018c88100380146")

ANSWERS = {
    3: {
        "rakp2": "4974ac2d7fbf2cc0b0260dd1378f6bbf5beb7fa8",
        "sik": "a39ae2b160a1e5efe017ffd6ec1a4ff8eeac6f54",
        "rakp3": "f2b8ed7378ab0857e9301e06537ccf674459a8f2",
        "rakp4": "73ed952ca0e5bee02edb2e52",
        "code": "e45b704438ff76eac209ea36",
        "secret": "273a414e4e19a18f85e52cd2470a774a",
    },
    17: {
        "rakp2": "40b44370748144f1043c1400dbd577d4219a8a9d3bde79690fb42072fb3da484",
        "sik": "0c4b7464110cf18fd94ec46aa0242c66ab06157709c02ea7db1653aac04b1023",
        "rakp3": "99d823aeca7b41dd4edc23e3c14dfece8b0932ea37602d5957b3ad6978c1c23d",
        "rakp4": "7bd8ca04c0b78f5689ce4b262f6af587",
        "code": "35606b236c0d1aa5d9b24d8f8013693e",
        "secret": "cff4667446ce6ce0eb78a1bfc006ff4e",
    },
}
SUITE_IDS = pytest.mark.parametrize("suite", SUITES, ids=lambda suite: f"suite {suite.id}")


def answers(suite: Suite) -> dict[str, bytes]:
    return {name: bytes.fromhex(value) for name, value in ANSWERS[suite.id].items()}


@SUITE_IDS
def test_the_hashes_of_the_key_exchange(suite: Suite) -> None:
    known = answers(suite)
    rakp2 = CONSOLE_ID + BMC_ID + CONSOLE_RANDOM + BMC_RANDOM + GUID + IDENTITY
    assert suite.mac(PASSWORD, rakp2) == known["rakp2"]
    assert suite.mac(PASSWORD, CONSOLE_RANDOM + BMC_RANDOM + IDENTITY) == known["sik"]
    assert suite.mac(PASSWORD, BMC_RANDOM + CONSOLE_ID + IDENTITY) == known["rakp3"]
    assert suite.mac(known["sik"], CONSOLE_RANDOM + BMC_ID + GUID)[: suite.code_bytes] == known["rakp4"]


@SUITE_IDS
def test_the_codes_of_packets(suite: Suite) -> None:
    known = answers(suite)
    keys = Keys(suite, known["sik"])
    assert keys.code(b"\x06\x00") == known["code"]
    assert keys.verify(b"\x06\x00", known["code"])
    assert not keys.verify(b"\x06\x01", known["code"])
    assert not keys.verify(b"\x06\x00", known["code"][:-1])
    assert not keys.verify(b"\x06\x00", b"")


@SUITE_IDS
def test_encryption(suite: Suite) -> None:
    known = answers(suite)
    keys = Keys(suite, known["sik"])
    assert keys.decrypt(VECTOR + known["secret"]) == PAYLOAD
    assert keys.encrypt(PAYLOAD) != keys.encrypt(PAYLOAD), "every packet has a vector of its own"


@SUITE_IDS
@pytest.mark.parametrize("length", range(0, 50))
def test_what_is_encrypted_is_decrypted(suite: Suite, length: int) -> None:
    keys = Keys(suite, b"key")
    secret = keys.encrypt(bytes(length))
    assert len(secret) % 16 == 0
    assert keys.decrypt(secret) == bytes(length)


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 31, 33, 47])
def test_an_encrypted_payload_of_an_impossible_length_is_refused(length: int) -> None:
    assert Keys(SUITES[0], b"key").decrypt(bytes(length)) is None
