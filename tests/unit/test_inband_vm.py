"""The OpenIPMI VM protocol: framing against bytes that QEMU 7.2 sent and takes, and against streams of anything."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from placematd.bmc.ipmi.vm import MESSAGE_BYTES, Control, ControlCode, Decoder, Fault, Message

HELLO = bytes.fromhex("ff01a1 083fa1")
"""What QEMU 7.2 says first: version 1, and all capabilities."""

FRAMES = [
    # Get Device ID as the first request of a guest, and a reply
    ("00 18 01 e7 a0", Message(0, 0x06, 0, 0x01)),
    ("01 1c 01 00 20 c2 a0", Message(1, 0x07, 0, 0x01, b"\x00\x20")),
    # all three special bytes as data; the checksum is one as well
    ("05 18 2e aab0 aab1 aaba ca a0", Message(5, 0x06, 0, 0x2E, b"\xa0\xa1\xaa")),
    ("3e 18 0a aab0 a0", Message(0x3E, 0x06, 0, 0x0A)),
    # a sequence number that has to be escaped, a LUN
    ("aaba 2a 3c f0 a0", Message(0xAA, 0x0A, 2, 0x3C)),
    ("05 a1", Control(ControlCode.ENABLE_INTERRUPT)),
    ("ff 01 a1", Control(ControlCode.VERSION, b"\x01")),
]

FAULTS = [
    ("a0", "too short"),
    ("00 18 e8 a0", "too short"),
    ("00 18 01 e8 a0", "wrong checksum"),
    ("00 18 01 e7 aa a0", "wrong escape"),
    ("00 18 01 aa20 e7 a0", "wrong escape"),
    ("00 18 aaaa b0 a0", "wrong escape"),
    ("a1", "empty control"),
    ("aa a1", "wrong escape"),
    ("00" * (MESSAGE_BYTES + 3) + "a0", "too long"),
    ("aab0" * (MESSAGE_BYTES + 3) + "a1", "too long"),
]

OK = Message(9, 6, 0, 1)


@pytest.mark.parametrize(("text", "item"), FRAMES)
def test_frames(text: str, item: Message | Control) -> None:
    assert item.encode() == bytes.fromhex(text)
    assert list(Decoder().feed(bytes.fromhex(text))) == [item]


@pytest.mark.parametrize(("text", "reason"), FAULTS)
def test_faults_and_the_message_after_them(text: str, reason: str) -> None:
    assert list(Decoder().feed(bytes.fromhex(text) + OK.encode())) == [Fault(reason), OK]


def test_hello() -> None:
    assert list(Decoder().feed(HELLO)) == [
        Control(ControlCode.VERSION, b"\1"),
        Control(ControlCode.CAPABILITIES, b"\x3f"),
    ]


def test_reply_repeats_sequence_lun_and_command() -> None:
    assert Message(7, 0x0A, 3, 0x43, b"x").reply(0xC1, b"y") == Message(7, 0x0B, 3, 0x43, b"\xc1y")


BYTE = st.integers(0, 255)
MESSAGES = st.builds(Message, BYTE, st.integers(0, 63), st.integers(0, 3), BYTE, st.binary(max_size=MESSAGE_BYTES - 2))
ITEMS = MESSAGES | st.builds(Control, BYTE, st.binary(max_size=20))


def fed(stream: bytes, sizes: list[int]) -> list[object]:
    decoder, items = Decoder(), []
    while stream:
        size = sizes.pop() if sizes else len(stream)
        items += decoder.feed(stream[:size])
        stream = stream[size:]
    return items


@given(st.lists(ITEMS, max_size=8), st.lists(st.integers(1, 50)))
def test_round_trip_in_any_pieces(items: list[Message | Control], sizes: list[int]) -> None:
    assert fed(b"".join(item.encode() for item in items), sizes) == items


NASTY = st.lists(st.sampled_from([b"\xa0", b"\xa1", b"\xaa", b"\xb0", b"\x00", b"\x18", b"x" * 700]) | st.binary()).map(
    b"".join
)


@given(NASTY, st.lists(st.integers(1, 50)))
def test_any_stream_is_cut_the_same_in_any_pieces_and_leaves_nothing(stream: bytes, sizes: list[int]) -> None:
    items = fed(stream, sizes)
    assert items == list(Decoder().feed(stream))
    assert len(items) == stream.count(b"\xa0") + stream.count(b"\xa1")
    decoder = Decoder()
    list(decoder.feed(stream + b"\xa0"))
    assert list(decoder.feed(OK.encode())) == [OK]


@given(NASTY)
def test_what_was_understood_is_what_would_be_sent(stream: bytes) -> None:
    for item in Decoder().feed(stream):
        if not isinstance(item, Fault):
            assert item.encode() in stream


def test_endless_frame_is_not_kept() -> None:
    decoder = Decoder()
    for _ in range(1000):
        assert list(decoder.feed(b"x" * 4096)) == []
    assert len(decoder._partial) == 0
    assert list(decoder.feed(b"\xa0" + OK.encode())) == [Fault("too long"), OK]
