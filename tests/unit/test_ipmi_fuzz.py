"""Mutated packets: nothing raises, nothing is executed, nothing grows.

PLACEMAT_FUZZ_PACKETS=2000000 for a long run, PLACEMAT_FUZZ_SEED to repeat one.
"""

import asyncio
import logging
import os
import random
import time
import tracemalloc
from pathlib import Path

import pytest
from ipmi_peer import Bmc, Peer, a_bmc, plain, request, v15

from placematd.bmc.ipmi.rakp import MAX_HANDSHAKES
from placematd.bmc.ipmi.sessions import MAX_SESSIONS

PACKETS = int(os.environ.get("PLACEMAT_FUZZ_PACKETS", "25000"))
SEED = int(os.environ.get("PLACEMAT_FUZZ_SEED", "4"))
BATCH = 1000
MOST_BYTES, MOST_RESIDENT_BYTES = 512 * 1024, 16 << 20
POWER_OFF = request(0x00, 0x02, b"\x00")


def seeds(peer: Peer) -> list[bytes]:
    """A packet of every kind, those of a session too far from a right signature for chance to find it."""
    fresh = Peer(peer.bmc, port=41000)
    assert (fresh.open(), fresh.rakp1()) == (0, 0)
    rakp3 = fresh.rakp3_request()
    return [
        bytes.fromhex("0600ff06000011be80420000"),
        v15(request(0x06, 0x38, b"\x8e\x04")),
        v15(POWER_OFF),
        plain(0, POWER_OFF),
        plain(0x10, fresh.open_request()),
        plain(0x12, fresh.rakp1_request()),
        plain(0x14, rakp3[:8] + bytes(len(rakp3) - 8)),
        peer.seal(POWER_OFF, sequence=5)[:-6] + b"forged",
        peer.seal(b"\x01\0\0\0halt\n", 1, sequence=6)[:-6] + b"forged",
        plain(0, POWER_OFF, peer.session_id, 7),
        plain(1, b"\x01\0\0\0halt\n", peer.session_id, 8),
    ]


def mutated(packet: bytes, chance: random.Random) -> bytes:
    data = bytearray(packet)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        at = chance.randrange(len(data)) if data else 0
        what = chance.randrange(6)
        if what == 0 and data:
            data[at] = chance.randrange(256)
        elif what == 1 and data:
            data[at] ^= 1 << chance.randrange(8)
        elif what == 2:
            del data[at:]
        elif what == 3:
            data[at:at] = chance.randbytes(chance.randrange(1, 40))
        elif what == 4 and data:
            del data[at : at + chance.randrange(1, 9)]
        elif data:
            data[at] = chance.choice((0x00, 0x01, 0x10, 0x12, 0x14, 0x7F, 0x80, 0xC0, 0xFF))
    return bytes(data)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def storm(bmc: Bmc, packets: list[bytes], count: int, chance: random.Random) -> int:
    """Send so many mutated packets; how many were answered."""
    answers = 0
    for number in range(count):
        address = (f"198.51.100.{chance.randrange(8)}", 1024 + chance.randrange(64))
        bmc.server.datagram_received(mutated(packets[number % len(packets)], chance), address)
        if number % BATCH == BATCH - 1:
            answers += len(bmc.wire.sent)
            bmc.wire.sent.clear()
            bmc.clock.now += 50 * BATCH / count
            await asyncio.sleep(0)
    return answers


def test_strangers_do_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        bmc = await a_bmc()
        peer = Peer(bmc)
        assert peer.log_in() == 0
        before = (await bmc.machine.power_state(), dict(bmc.machine.durable), bmc.accounts.revision)
        chance, packets = random.Random(SEED), seeds(peer)
        await storm(bmc, packets, 5 * BATCH, chance)
        assert (await peer.ask(0x06, 0x37))[0] == 0
        measured = PACKETS <= 100_000
        if measured:
            tracemalloc.start()
        began = time.perf_counter()
        resident, answers = resident_bytes(), 0
        for _ in range(max(PACKETS // 100_000, 1)):
            answers += await storm(bmc, packets, min(PACKETS, 100_000), chance)
            assert (await peer.ask(0x06, 0x37))[0] == 0
            packets = seeds(peer)
        seconds = time.perf_counter() - began
        if measured:
            grown = tracemalloc.get_traced_memory()[0]
            tracemalloc.stop()
            assert grown < MOST_BYTES
        print(f"{PACKETS} packets, {1e6 * seconds / PACKETS:.1f} us each, {answers} answered, seed {SEED}")
        assert answers > PACKETS // 10, "most mutations must not be so wild that nothing looks at them"
        assert resident_bytes() - resident < MOST_RESIDENT_BYTES
        assert bmc.executed == [] and bmc.machine.typed == b""
        assert (await bmc.machine.power_state(), dict(bmc.machine.durable), bmc.accounts.revision) == before
        assert bmc.server.active_sessions == 1 <= MAX_SESSIONS
        assert len(bmc.server._handshakes) <= MAX_HANDSHAKES
        assert len(caplog.messages) <= 20 + PACKETS // 10_000
        assert not [text for text in caplog.messages if "dropped" in text], "a parser raised"
        bmc.wire.sent.clear()
        assert (await peer.ask(0x06, 0x01))[0] == 0
        assert Peer(bmc, suite=3, port=42000).log_in() == 0
        bmc.server.close()

    with caplog.at_level(logging.WARNING):
        asyncio.run(scenario())


def test_a_client_that_is_logged_in_does_no_harm_either(caplog: pytest.LogCaptureFixture) -> None:
    """Well-signed nonsense of somebody who knows the password of a user without rights."""

    async def scenario() -> None:
        bmc = await a_bmc()
        peer = Peer(bmc, user="reader")
        assert peer.log_in(0x12) == 0
        chance = random.Random(SEED)
        for number in range(PACKETS // 10):
            command = chance.choice((0x37, 0x38, 0x3B, 0x3D, 0x48, 0x49, 0x4A, 0x4B, 0x4C, 0x4D, 0x4E, 0x4F, 0x54))
            data = chance.randbytes(chance.randrange(8))
            message = request(chance.choice((0x06, 0x06, 0x0C)), command, data, number % 64)
            whole = message if chance.randrange(2) else mutated(message, chance)
            packet = peer.seal(whole, chance.choice((0, 0, 1)))
            bmc.server.datagram_received(packet, peer.address)
            bmc.wire.sent.clear()
            if number % 20 == 0:
                await asyncio.sleep(0)
                await asyncio.sleep(0)
        assert not caplog.messages
        assert {request.caller.privilege for request in bmc.executed} <= {2}
        assert bmc.machine.durable.keys() <= {"accounts"}
        bmc.server.close()
        await asyncio.sleep(0)

    asyncio.run(scenario())
