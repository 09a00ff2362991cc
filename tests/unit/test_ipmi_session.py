"""Inside a session: signatures, sequence numbers, retries, privileges, queues and the end."""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from dataclasses import replace

import pytest
from ipmi_peer import DEVICE_ID, FAILING, SLOW, Bmc, Peer, a_bmc, plain, reply_of, request, settle

from placematd.bmc.ipmi.request import SYSTEM_INTERFACE, Caller, Privilege, Request
from placematd.bmc.ipmi.table import INACTIVITY_SECONDS, QUEUE_LENGTH, REPLY_SECONDS, REVOKED_SECONDS
from placematd.errors import PlacematError

SUITE_IDS = pytest.mark.parametrize("suite", [3, 17])
GET_DEVICE_ID = request(0x06, 0x01)
POWER_OFF = request(0x00, 0x02, b"\x00")


def run(scenario: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 30))


async def logged_in(**options: object) -> tuple[Bmc, Peer]:
    bmc = await a_bmc()
    peer = Peer(bmc, **options)  # type: ignore[arg-type]
    assert peer.log_in({"admin": 0x14, "oper": 0x13, "reader": 0x12}[peer.user.decode()]) == 0
    return bmc, peer


def wrong_packets(peer: Peer) -> dict[str, bytes]:
    good = peer.seal(POWER_OFF)
    peer.sequence -= 1
    other = Peer(peer.bmc)
    other.k1, other.k2, other.session_id = bytes(20), bytes(16), peer.session_id
    return {
        "signature": good[:-1] + bytes((good[-1] ^ 1,)),
        "signature cut": good[:-1],
        "signature longer": good + b"\0",
        "no signature": peer.seal(POWER_OFF, sequence=1, flags=0x80),
        "not encrypted": peer.seal(POWER_OFF, sequence=1, flags=0x40),
        "plain": peer.seal(POWER_OFF, sequence=1, flags=0),
        "spoofed id": other.seal(POWER_OFF, sequence=1),
        "another session": good[:6] + b"\1\2\3\4" + good[10:],
        "changed sequence": good[:10] + b"\x02" + good[11:],
        "sequence 0": peer.seal(POWER_OFF, sequence=0),
        "sequence far ahead": peer.seal(POWER_OFF, sequence=17),
        "sequence at the end": peer.seal(POWER_OFF, sequence=0xFFFFFFFF),
        "pad not 1 2 3": peer.seal(POWER_OFF, sequence=1, pad=bytes(7) + b"\x07"),
        "pad too long": peer.seal(POWER_OFF[:6], sequence=1, pad=bytes(9) + b"\xff"),
        "pad length 16": peer.seal(POWER_OFF, sequence=1, pad=bytes(range(1, 24)) + b"\x10"),
        "nothing encrypted": peer.sign(plain(0xC0, b"", peer.session_id, 1)),
        "only a vector": peer.sign(plain(0xC0, bytes(16), peer.session_id, 1)),
        "half a block": peer.sign(plain(0xC0, bytes(40), peer.session_id, 1)),
        "length beyond the packet": good[:14] + b"\xff\xff" + good[16:],
        "length 0": good[:14] + b"\x00\x00" + good[16:],
        "set-up inside": peer.seal(peer.open_request(), 0x10, sequence=1),
        "RAKP 1 inside": peer.seal(peer.rakp1_request(), 0x12, sequence=2),
        "OEM payload": peer.seal(POWER_OFF, 0x02, sequence=3),
        "message sums": peer.seal(POWER_OFF[:-1] + b"\0", sequence=4),
        "message to nobody": peer.seal(b"\x30" + POWER_OFF[1:], sequence=5),
        "a reply as request": peer.seal(bytes((0x20, 0x04, 0xDC)) + POWER_OFF[3:], sequence=6),
        "empty message": peer.seal(b"", sequence=7),
    }


@SUITE_IDS
def test_wrong_packets_change_nothing(suite: int) -> None:
    async def scenario() -> None:
        bmc, peer = await logged_in(suite=suite)
        for name, packet in wrong_packets(peer).items():
            assert await peer.tell(packet) == [], name
            assert bmc.executed == [], name
        assert await bmc.machine.power_state() == "On"
        assert reply_of((await peer.tell(peer.seal(GET_DEVICE_ID, sequence=9)))[0]) == (0, DEVICE_ID)

    run(scenario)


@SUITE_IDS
def test_a_packet_counts_once(suite: int) -> None:
    async def scenario() -> None:
        bmc, peer = await logged_in(suite=suite)
        packet = peer.seal(POWER_OFF)
        assert len(await peer.tell(packet)) == 1
        await bmc.machine.power("on")
        assert await peer.tell(packet) == []
        assert await bmc.machine.power_state() == "On" and len(bmc.executed) == 1

    run(scenario)


def test_the_window_of_sequence_numbers() -> None:
    async def scenario() -> None:
        _, peer = await logged_in()
        number = 0

        async def is_taken(sequence: int) -> bool:
            nonlocal number
            number = number % 63 + 1
            return len(await peer.tell(peer.seal(request(0x06, 0x01, b"", number), sequence=sequence))) == 1

        expected = [
            (15, True), (16, True), (32, False), (31, True), (31, False), (15, False), (16, False), (17, True),
            (17, False), (30, True), (30, False), (46, True), (30, False), (29, False), (32, True), (61, True),
            (77, False),
        ]  # fmt: skip
        assert [(sequence, await is_taken(sequence)) for sequence, _ in expected] == expected

    run(scenario)


@SUITE_IDS
def test_retries_are_answered_and_not_run_again(suite: int) -> None:
    async def scenario() -> None:
        bmc, peer = await logged_in(suite=suite)
        first = await peer.tell(peer.seal(POWER_OFF))
        await bmc.machine.power("on")
        assert await peer.tell(peer.seal(POWER_OFF)) == first
        assert await bmc.machine.power_state() == "On" and len(bmc.executed) == 1
        bmc.clock.now += REPLY_SECONDS
        assert await peer.tell(peer.seal(POWER_OFF)) == first
        assert await bmc.machine.power_state() == "Off", "by now it is another request with the same number"

    run(scenario)


def test_another_request_with_the_same_number_is_no_retry() -> None:
    async def scenario() -> None:
        bmc, peer = await logged_in()
        await peer.tell(peer.seal(request(0x06, 0x01)))
        await peer.tell(peer.seal(request(0x06, 0x02)))
        assert [executed.command for executed in bmc.executed] == [1, 2]

    run(scenario)


def test_a_retry_while_the_request_is_running_is_not_run() -> None:
    async def scenario() -> None:
        bmc, peer = await logged_in()
        slow = request(0x30, SLOW, b"x")
        assert await peer.tell(peer.seal(slow)) == []
        assert await peer.tell(peer.seal(slow)) == []
        assert bmc.server.busy
        bmc.gate.set()
        await settle()
        assert [reply_of(message) for message in peer.received()] == [(0, b"x")]
        assert len(bmc.executed) == 1 and not bmc.server.busy

    run(scenario)


def test_a_slow_command_keeps_only_its_own_session_waiting() -> None:
    async def scenario() -> None:
        bmc, peer = await logged_in()
        other = Peer(bmc, port=40001)
        assert other.log_in() == 0
        for number in range(QUEUE_LENGTH + 1):
            assert await peer.tell(peer.seal(request(0x30, SLOW, bytes((number,)), number))) == []
        (busy,) = await peer.tell(peer.seal(request(0x30, SLOW, b"\xff", 40)))
        assert reply_of(busy) == (0xC0, b"")
        assert await other.ask(0x06, 0x01) == (0, DEVICE_ID)
        bmc.gate.set()
        await settle()
        assert [reply_of(message)[1][0] for message in peer.received()] == list(range(QUEUE_LENGTH + 1))

    run(scenario)


def test_the_answer_comes_before_the_act() -> None:
    async def scenario() -> None:
        bmc, peer = await logged_in()
        sent: list[str] = []
        power = bmc.machine.power

        async def observed(action: str) -> None:
            sent.append(f"{len(bmc.wire.sent)} sent before {action}")
            await power(action)  # type: ignore[arg-type]

        bmc.machine.power = observed  # type: ignore[assignment, method-assign]
        await peer.tell(peer.seal(POWER_OFF))
        assert sent == ["1 sent before off"]

    run(scenario)


def test_a_command_that_fails_by_mistake_is_answered(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        _, peer = await logged_in()
        assert await peer.ask(0x30, FAILING) == (0xFF, b"")
        assert await peer.ask(0x06, 0x01) == (0, DEVICE_ID)
        assert caplog.messages == ["command 0x30/0x71 failed: RuntimeError('a mistake')"]

    run(scenario)


def test_an_act_that_fails_after_its_answer_is_said(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        bmc, peer = await logged_in()
        bmc.machine.failure = PlacematError("node worker-1 has no host")
        assert await peer.ask(0x00, 0x02, b"\x00") == (0, b"")
        assert caplog.messages == ["a command that was answered failed: node worker-1 has no host"]
        assert await peer.ask(0x06, 0x01) == (0, DEVICE_ID)

    run(scenario)


def test_answers_that_the_kernel_does_not_take_are_dropped() -> None:
    async def scenario() -> None:
        bmc, peer = await logged_in()
        bmc.server.pause_writing()
        assert await peer.tell(peer.seal(GET_DEVICE_ID)) == []
        bmc.server.resume_writing()
        assert len(await peer.tell(peer.seal(GET_DEVICE_ID))) == 1
        assert len(bmc.executed) == 1, "the retry is answered from memory"

    run(scenario)


@pytest.mark.parametrize(
    ("user", "level", "answer"),
    [
        ("admin", 0, (0, b"\x02")),
        ("admin", 4, (0, b"\x04")),
        ("admin", 1, (0xCC, b"")),
        ("admin", 5, (0x80, b"")),
        ("oper", 3, (0, b"\x03")),
        ("oper", 4, (0x81, b"")),
        ("reader", 2, (0, b"\x02")),
        ("reader", 3, (0x81, b"")),
    ],
)
def test_privilege_levels(user: str, level: int, answer: tuple[int, bytes]) -> None:
    async def scenario() -> None:
        bmc, peer = await logged_in(user=user)
        assert await peer.ask(0x06, 0x3B, bytes((level,))) == answer
        await peer.ask(0x06, 0x01)
        assert bmc.executed[0].caller.privilege == (answer[1][0] if answer[1] else Privilege.USER)

    run(scenario)


@pytest.mark.parametrize("data", [b"", b"\x04\x04"])
def test_set_privilege_with_a_wrong_length(data: bytes) -> None:
    async def scenario() -> None:
        _, peer = await logged_in()
        assert await peer.ask(0x06, 0x3B, data) == (0xC7, b"")

    run(scenario)


def test_session_info() -> None:
    async def scenario() -> None:
        bmc, peer = await logged_in()
        other = Peer(bmc, user="reader", port=40001)
        assert other.log_in(0x12) == 0
        mine, its = peer.session_id.to_bytes(4, "little"), other.session_id.to_bytes(4, "little")
        first = bytes.fromhex("01 20 02 02 02 11 c0000201 000000000000 409c")
        second = bytes.fromhex("02 20 02 04 02 11 c0000201 000000000000 419c")
        for data in (b"\x00", b"\x01", b"\xfe\x01", b"\xff" + mine):
            assert await peer.ask(0x06, 0x3D, data) == (0, first), data
        for data in (b"\x02", b"\xfe\x02", b"\xff" + its):
            assert await peer.ask(0x06, 0x3D, data) == (0, second), data
        assert await peer.ask(0x06, 0x3D, b"\x03") == (0, bytes.fromhex("002002"))
        for data, code in ((b"", 0xC7), (b"\xff\x01", 0xC7), (b"\x01\x01", 0xC7), (b"\x40", 0xC9)):
            assert await peer.ask(0x06, 0x3D, data) == (code, b""), data

    run(scenario)


def test_closing_a_session() -> None:
    async def scenario() -> None:
        bmc, peer = await logged_in()
        other = Peer(bmc, user="reader", port=40001)
        assert other.log_in(0x12) == 0
        mine, its = peer.session_id.to_bytes(4, "little"), other.session_id.to_bytes(4, "little")
        assert await other.ask(0x06, 0x3C, mine) == (0xD4, b"")
        assert await peer.ask(0x06, 0x3C, its) == (0xD4, b""), "the level was not raised yet"
        await peer.ask(0x06, 0x3B, b"\x04")
        assert await peer.ask(0x06, 0x3C, b"\x01\x02\x03\x04") == (0x87, b"")
        assert await peer.ask(0x06, 0x3C, bytes(4) + b"\x09") == (0x88, b"")
        assert await peer.ask(0x06, 0x3C, bytes(4)) == (0x87, b"")
        assert await peer.ask(0x06, 0x3C, b"") == (0xC7, b"")
        assert await peer.ask(0x06, 0x3C, its) == (0, b"")
        assert await other.tell(other.seal(GET_DEVICE_ID)) == []
        assert await peer.ask(0x06, 0x3C, mine) == (0, b"")
        assert await peer.tell(peer.seal(GET_DEVICE_ID)) == []
        assert bmc.server.active_sessions == 0
        assert bmc.server.sessions.last is not None and bmc.server.sessions.last.user == "reader"

    run(scenario)


def test_a_silent_session_ends() -> None:
    async def scenario() -> None:
        bmc, peer = await logged_in()
        bmc.clock.now += INACTIVITY_SECONDS - 1
        bmc.server.sweep()
        assert await peer.ask(0x06, 0x01) == (0, DEVICE_ID)
        bmc.clock.now += INACTIVITY_SECONDS - 1
        await peer.tell(wrong_packets(peer)["signature"])
        bmc.clock.now += 2
        bmc.server.sweep()
        assert bmc.server.active_sessions == 0, "a stranger does not keep a session alive"
        assert await peer.tell(peer.seal(GET_DEVICE_ID)) == []

    run(scenario)


@pytest.mark.parametrize(
    ("change", "ends"),
    [
        ({"password": "new-secret"}, True),
        ({"name": "boss"}, True),
        ({"enabled": False}, True),
        ({"ipmi": False}, True),
        ({"role": "ReadOnly"}, True),
        ({"role": "Administrator"}, False),
        ({"redfish": False}, False),
    ],
)
def test_a_session_ends_with_the_right_to_it(change: dict[str, object], ends: bool) -> None:
    async def scenario() -> None:
        bmc, peer = await logged_in(user="oper")
        await bmc.accounts.change(3, **change)  # type: ignore[arg-type]
        assert bmc.server.active_sessions == (0 if ends else 1)
        if ends:
            assert await peer.ask(0x06, 0x01) == (0xD4, b"")
            assert await peer.ask(0x06, 0x37) == (0xD4, b"")
            assert bmc.executed == []
            bmc.clock.now += REVOKED_SECONDS + 1
            bmc.server.sweep()
            assert await peer.tell(peer.seal(GET_DEVICE_ID)) == []
        else:
            assert await peer.ask(0x06, 0x01) == (0, DEVICE_ID)

    run(scenario)


def test_the_session_of_a_deleted_account_can_still_be_closed_properly() -> None:
    async def scenario() -> None:
        bmc, peer = await logged_in(user="oper")
        await bmc.accounts.delete(3)
        assert await peer.ask(0x06, 0x3C, peer.session_id.to_bytes(4, "little")) == (0, b"")
        assert await peer.tell(peer.seal(GET_DEVICE_ID)) == []

    run(scenario)


def test_the_system_interface_has_the_commands_too() -> None:
    async def scenario() -> None:
        bmc, _ = await logged_in()
        guest = Caller(channel=SYSTEM_INTERFACE, privilege=Privilege.ADMINISTRATOR)
        asked = Request(netfn=0x06, command=0x3D, data=b"\x01", caller=guest)
        assert (await bmc.server.execute(asked)).data[:4] == bytes((1, 32, 1, 2))
        assert (await bmc.server.execute(replace(asked, data=b"\x00"))).data == bytes((0, 32, 1))
        assert (await bmc.server.execute(replace(asked, command=0x3B, data=b"\x04"))).code == 0xD5
        assert (await bmc.server.execute(replace(asked, lun=1))).code == 0xC2
        assert (await bmc.server.execute(replace(asked, netfn=0x2C))).code == 0xC1

    run(scenario)


def bound() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)
    return sock


def test_a_server_on_a_real_socket() -> None:
    async def scenario() -> None:
        bmc = await a_bmc()
        with bound() as client:
            served = bound()
            client.sendto(bytes.fromhex("0600ff06000011be80420000"), served.getsockname())
            await bmc.server.attach(served)
            answer, address = await asyncio.get_running_loop().sock_recvfrom(client, 100)
            assert answer[8] == 0x40 and address == served.getsockname()
            bmc.server.close()
            await bmc.server.finish()
            await settle()

    run(scenario)


def test_what_is_running_when_the_server_closes_is_answered() -> None:
    async def scenario() -> None:
        bmc, peer = await logged_in()
        with bound() as client, bound() as kept:
            address = kept.getsockname()
            await bmc.server.attach(kept.dup())
            loop = asyncio.get_running_loop()
            client.sendto(peer.seal(request(0x30, SLOW, b"late")), address)
            while not bmc.executed:
                await asyncio.sleep(0)
            bmc.server.close()
            client.sendto(peer.seal(GET_DEVICE_ID), address)
            await settle()
            bmc.gate.set()
            await bmc.server.finish()
            _, payload = peer.unseal((await loop.sock_recvfrom(client, 1000))[0])
            assert reply_of(payload) == (0, b"late")
            assert (await loop.sock_recvfrom(kept, 1000))[1] == client.getsockname(), "left for the next process"
            assert not bmc.server.busy

    run(scenario)
