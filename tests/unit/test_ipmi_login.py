"""Everything before a session: presence, IPMI 1.5, what strangers may ask, and logging in."""

import asyncio
from collections.abc import Callable, Coroutine

import pytest
from ipmi_peer import GUID, Bmc, Peer, a_bmc, plain, reply_of, request, v15

from placematd.bmc.ipmi.rakp import HANDSHAKE_SECONDS, MAX_HANDSHAKES
from placematd.bmc.ipmi.sessions import MAX_SESSIONS
from placematd.bmc.ipmi.table import EVICTABLE_SECONDS

STRANGER = ("198.51.100.7", 5000)
PING = bytes.fromhex("0600ff06000011be80420000")
CAPABILITIES = (0x06, 0x38, b"\x8e\x04")


def run(scenario: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 30))


def both_versions(message: bytes) -> list[bytes]:
    return [v15(message), plain(0, message)]


def answer_to(bmc: Bmc, datagram: bytes) -> tuple[int, bytes]:
    (answer,) = bmc.send(datagram, STRANGER)
    assert answer[:5] == datagram[:5]
    return reply_of(answer[14:] if datagram[4] == 0 else answer[16:])


def test_a_presence_ping_is_answered() -> None:
    async def scenario() -> None:
        bmc = await a_bmc()
        assert bmc.send(PING, STRANGER) == [
            bytes.fromhex("0600ff06000011be4042001000000000000000008100000000000000").replace(
                bytes.fromhex("4042001000000000"), bytes.fromhex("40420010000011be")
            )
        ]

    run(scenario)


def test_what_a_stranger_may_ask() -> None:
    async def scenario() -> None:
        bmc = await a_bmc()
        for packet in both_versions(request(*CAPABILITIES)):
            assert answer_to(bmc, packet) == (0, bytes.fromhex("0180040200000000"))
        for packet in both_versions(request(0x06, 0x38, b"\x0e\x04")):
            assert answer_to(bmc, packet) == (0, bytes.fromhex("0100040000000000"))
        for packet in both_versions(request(0x06, 0x37)):
            assert answer_to(bmc, packet) == (0, GUID.bytes[::-1])
        for packet in both_versions(request(0x06, 0x54, b"\x0e\x00\x80")):
            assert answer_to(bmc, packet) == (0, bytes.fromhex("01c003014181c011034481"))
        assert answer_to(bmc, v15(request(0x06, 0x54, b"\x0e\x00\x81"))) == (0, b"\x01")
        assert answer_to(bmc, v15(request(0x06, 0x54, b"\x0e\x00\x00"))) == (0, bytes.fromhex("010103414481"))
        assert bmc.executed == []

    run(scenario)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", 0xC7),
        (b"\x8e", 0xC7),
        (b"\x8e\x04\x00", 0xC7),
        (b"\x87\x04", 0xCC),
        (b"\x8e\x00", 0xCC),
        (b"\x8e\x06", 0xCC),
    ],
)
def test_capabilities_that_are_asked_for_wrongly(data: bytes, code: int) -> None:
    async def scenario() -> None:
        assert answer_to(await a_bmc(), v15(request(0x06, 0x38, data))) == (code, b"")

    run(scenario)


@pytest.mark.parametrize(
    ("netfn", "command", "data", "code"),
    [
        (0x00, 0x02, b"\x00", 0xD4),
        (0x00, 0x01, b"", 0xD4),
        (0x06, 0x01, b"", 0xD4),
        (0x06, 0x3C, bytes(4), 0xD4),
        (0x06, 0x48, bytes(6), 0xD4),
        (0x0C, 0x22, b"\x0e\x01\x00\x00", 0xD4),
        (0x06, 0x39, b"\x00" + b"admin".ljust(16, b"\0"), 0xC1),
        (0x06, 0x3A, bytes(22), 0xC1),
    ],
)
def test_whatever_else_a_stranger_asks_is_refused_at_once(netfn: int, command: int, data: bytes, code: int) -> None:
    async def scenario() -> None:
        bmc = await a_bmc()
        for packet in both_versions(request(netfn, command, data)):
            assert answer_to(bmc, packet) == (code, b"")
        assert bmc.executed == [] and await bmc.machine.power_state() == "On"

    run(scenario)


@pytest.mark.parametrize("suite", [3, 17])
@pytest.mark.parametrize("role", [0x14, 0x04, 0x02, 0x13])
def test_logging_in(suite: int, role: int) -> None:
    async def scenario() -> None:
        bmc = await a_bmc()
        peer = Peer(bmc, suite=suite)
        assert peer.log_in(role) == 0
        assert peer.rakp2_is_right() and peer.guid == GUID.bytes[::-1]
        (info,) = bmc.server.sessions.all()
        assert (info.id, info.user, info.user_id, info.suite) == (peer.session_id, "admin", 2, suite)
        assert (info.privilege, info.limit, info.remote) == (2, role & 0xF, peer.address)
        assert await peer.ask(0x06, 0x01) == (0, bytes.fromhex("20010100 02bf 0000000000"))
        (executed,) = bmc.executed
        assert (executed.caller.user, executed.caller.session_id) == ("admin", peer.session_id)

    run(scenario)


@pytest.mark.parametrize(
    ("algorithms", "status"),
    [
        ((0, 0, 0), 0x11),
        ((1, 0, 0), 0x11),
        ((1, 1, 0), 0x11),
        ((2, 2, 1), 0x11),
        ((1, 1, 2), 0x11),
        ((3, 1, 1), 0x11),
        ((1, 4, 1), 0x11),
        ((9, 1, 1), 0x04),
        ((1, 9, 1), 0x05),
        ((1, 1, 9), 0x10),
    ],
)
def test_other_suites_are_refused(algorithms: tuple[int, int, int], status: int) -> None:
    async def scenario() -> None:
        bmc = await a_bmc()
        assert Peer(bmc).open(algorithms) == status
        assert not bmc.server.busy

    run(scenario)


def test_a_suite_that_the_client_leaves_open_is_the_strongest() -> None:
    async def scenario() -> None:
        peer = Peer(await a_bmc())
        any_suite = peer.open_request()[:8] + b"".join(bytes((number, 0, 0, 0, 0, 0, 0, 0)) for number in range(3))
        answer = peer.exchange(0x10, any_suite)
        assert answer[1:3] == b"\x00\x04"
        assert [answer[12 + 8 * number + 4] for number in range(3)] == [3, 4, 1]

    run(scenario)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda whole: whole[:31], 0x12),
        (lambda whole: whole[:8], 0x12),
        (lambda whole: whole[:1] + b"\x05" + whole[2:], 0x12),
        (lambda whole: whole[:4] + bytes(4) + whole[8:], 0x02),
        (lambda whole: whole[:8] + b"\x07" + whole[9:], 0x03),
        (lambda whole: whole[:11] + b"\x09" + whole[12:], 0x12),
    ],
)
def test_an_open_session_request_that_is_wrong(change: Callable[[bytes], bytes], status: int) -> None:
    async def scenario() -> None:
        bmc = await a_bmc()
        peer = Peer(bmc)
        request_bytes = change(peer.open_request(tag=0x55))
        answer = peer.exchange(0x10, request_bytes)
        assert answer == bytes((0x55, status, 0, 0)) + request_bytes[4:8]
        assert not bmc.server.busy

    run(scenario)


@pytest.mark.parametrize(
    ("role", "name", "status"),
    [
        (0x14, b"nobody", 0x0D),
        (0x14, b"", 0x0D),
        (0x14, b"\xff\xfe\x00", 0x0D),
        (0x14, b"Admin", 0x0D),
        (0x14, b"a" * 17, 0x0C),
        (0x14, b"a" * 255, 0x0C),
        (0x10, b"admin", 0x09),
        (0x15, b"admin", 0x09),
        (0xF4, b"admin", 0x09),
        (0x14, b"reader", 0x0A),
        (0x04, b"reader", 0x0A),
        (0x13, b"reader", 0x0A),
        (0x14, b"oper", 0x0A),
        (0x13, b"oper", 0x00),
        (0x12, b"reader", 0x00),
        (0x11, b"reader", 0x00),
    ],
)
def test_who_may_log_in_as_what(role: int, name: bytes, status: int) -> None:
    async def scenario() -> None:
        bmc = await a_bmc()
        peer = Peer(bmc)
        assert peer.open() == 0
        assert peer.rakp1(role, name) == status
        assert bmc.server.active_sessions == 0

    run(scenario)


def test_a_level_above_that_of_the_open_session_request_is_refused() -> None:
    async def scenario() -> None:
        peer = Peer(await a_bmc())
        assert (peer.open(level=2), peer.rakp1(0x14), peer.rakp1(0x12), peer.rakp3()) == (0, 0x0A, 0, 0)

    run(scenario)


def test_an_account_that_is_disabled_cannot_log_in() -> None:
    async def scenario() -> None:
        bmc = await a_bmc()
        await bmc.accounts.change(3, enabled=False)
        await bmc.accounts.change(4, ipmi=False)
        assert Peer(bmc, user="oper").log_in(0x13) == 0x0D
        assert Peer(bmc, user="reader").log_in(0x12) == 0x0D

    run(scenario)


@pytest.mark.parametrize("suite", [3, 17])
def test_a_wrong_password(suite: int) -> None:
    async def scenario() -> None:
        bmc = await a_bmc()
        peer = Peer(bmc, suite=suite, password="wrong")
        assert (peer.open(), peer.rakp1()) == (0, 0)
        assert not peer.rakp2_is_right()
        assert peer.rakp3() == 0x0F
        assert peer.rakp3() == 0x0F, "a retry is answered the same"
        peer.password = b"admin-secret"
        assert peer.rakp3() == 0x08, "one guess for each RAKP 1"
        assert bmc.server.active_sessions == 0

    run(scenario)


def test_a_password_that_changes_during_log_in() -> None:
    async def scenario() -> None:
        bmc = await a_bmc()
        peer = Peer(bmc)
        assert (peer.open(), peer.rakp1()) == (0, 0)
        await bmc.accounts.change(2, password="new-secret")
        assert peer.rakp3() == 0x0D
        assert bmc.server.active_sessions == 0

    run(scenario)


def test_steps_out_of_order() -> None:
    async def scenario() -> None:
        bmc = await a_bmc()
        peer = Peer(bmc)
        peer.session_id, peer.role, peer.bmc_random, peer.guid = 0x12345678, 0x14, bytes(16), bytes(16)
        assert (peer.rakp1(), peer.rakp3()) == (0x02, 0x02), "nobody opened it"
        assert peer.open() == 0
        assert peer.rakp3() == 0x08, "RAKP 3 first"
        assert peer.rakp1() == 0
        elsewhere = Peer(bmc, port=40001)
        elsewhere.session_id = peer.session_id
        assert elsewhere.rakp1() == 0x02, "somebody else's handshake"
        assert peer.rakp3() == 0
        assert peer.rakp1() == 0x02, "it is over"

    run(scenario)


def test_truncated_steps() -> None:
    async def scenario() -> None:
        bmc = await a_bmc()
        peer = Peer(bmc)
        assert peer.open() == 0
        whole = peer.rakp1_request()
        for length in range(len(whole)):
            answer = peer.exchange(0x12, whole[:length])
            expected = b"" if length < 8 else bytes((0x12,)) if length < 28 else bytes((0x0C,))
            assert answer[1:2] == expected, length
        assert peer.rakp1() == 0
        whole = peer.rakp3_request()
        assert peer.exchange(0x14, whole[:-1])[1] == 0x0F
        assert bmc.server.active_sessions == 0

    run(scenario)


def test_retries_of_each_step_get_the_same_answer() -> None:
    async def scenario() -> None:
        bmc = await a_bmc()
        peer = Peer(bmc)
        first = [peer.exchange(0x10, peer.open_request()) for _ in range(3)]
        assert first[0] == first[1] == first[2]
        peer.open()
        second = [peer.exchange(0x12, peer.rakp1_request()) for _ in range(3)]
        assert second[0] == second[1] == second[2] and second[0][1] == 0
        peer.rakp1()
        assert (peer.rakp3(), peer.rakp3()) == (0, 0)
        assert bmc.server.active_sessions == 1
        await peer.ask(0x06, 0x01)
        assert peer.rakp3() == 0x02

    run(scenario)


def test_a_client_that_gives_up_is_forgotten_without_an_answer() -> None:
    async def scenario() -> None:
        bmc = await a_bmc()
        peer = Peer(bmc)
        assert (peer.open(), peer.rakp1()) == (0, 0)
        assert peer.exchange(0x14, peer.rakp3_request(status=0x0F)) == b""
        assert not bmc.server.busy

    run(scenario)


def test_handshakes_are_bounded_and_a_flood_does_not_lock_others_out() -> None:
    async def scenario() -> None:
        bmc = await a_bmc()
        honest = Peer(bmc)
        honest.address = ("203.0.113.9", 40000)
        assert honest.open() == 0
        for port in range(3 * MAX_HANDSHAKES):
            assert Peer(bmc, port=1024 + port).open() == 0
            assert len(bmc.server._handshakes) <= MAX_HANDSHAKES
        assert (honest.rakp1(), honest.rakp3()) == (0, 0)
        bmc.clock.now += HANDSHAKE_SECONDS + 1
        bmc.server.sweep()
        assert not bmc.server.busy
        bmc.server.close()

    run(scenario)


def test_sessions_are_bounded_and_silent_ones_make_room() -> None:
    async def scenario() -> None:
        bmc = await a_bmc()
        peers = [Peer(bmc, port=1024 + port) for port in range(MAX_SESSIONS)]
        assert [peer.log_in() for peer in peers] == [0] * MAX_SESSIONS
        assert Peer(bmc).log_in() == 0x01
        bmc.clock.now += EVICTABLE_SECONDS
        for peer in peers[:7] + peers[8:]:
            await peer.ask(0x06, 0x01)
        assert Peer(bmc).log_in() == 0
        assert bmc.server.active_sessions == MAX_SESSIONS
        assert bmc.server.sessions.get(peers[7].session_id) is None
        assert sorted(info.handle for info in bmc.server.sessions.all()) == list(range(1, MAX_SESSIONS + 1))

    run(scenario)


def test_the_last_place_may_be_taken_during_log_in() -> None:
    async def scenario() -> None:
        bmc = await a_bmc()
        late = Peer(bmc)
        assert (late.open(), late.rakp1()) == (0, 0)
        for port in range(MAX_SESSIONS):
            assert Peer(bmc, port=1024 + port).log_in() == 0
        assert late.rakp3() == 0x01

    run(scenario)


def test_refused_log_ins_are_said_but_not_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        bmc = await a_bmc()
        for number in range(100):
            assert Peer(bmc, user=f"nobody\n{number}", port=1024 + number).log_in() == 0x0D
        assert len(caplog.messages) == 5
        assert caplog.messages[0] == r"log-in from 192.0.2.1 refused: no user b'nobody\n0'"
        bmc.clock.now += 61
        Peer(bmc, password="wrong").log_in()
        assert caplog.messages[5:] == [
            "95 more warnings like the last ones were left out",
            "log-in of admin from 192.0.2.1 refused: wrong password",
        ]

    run(scenario)
