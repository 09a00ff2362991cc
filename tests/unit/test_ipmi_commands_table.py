"""What holds for every IPMI command: who may send it, how long it may be, and that it always gets an answer."""

import asyncio
import logging
import subprocess
import sys

import pytest
from fakes.machine import FakeMachine
from hypothesis import given, settings
from hypothesis import strategies as st
from ipmi_bench import ADMINISTRATOR, GUEST, NOBODY, Bench, caller, on_bench

from placematd.bmc.ipmi.request import Caller, Privilege, Reply, Request
from placematd.bmc.remote import Away
from placematd.errors import PlacematError

TABLE = Bench().commands.table

APPENDIX_G = {
    Privilege.NONE: "06/37",
    Privilege.USER: "00/00 00/01 00/07 00/0f 04/10 04/20 04/21 04/22 04/23 04/25 04/27 04/29 04/2b 04/2d 04/2f "
    "06/01 06/04 06/07 06/08 06/25 06/2f 06/41 06/42 06/57 06/59 "
    "0a/10 0a/11 0a/20 0a/21 0a/22 0a/23 0a/28 0a/40 0a/41 0a/42 0a/43 0a/48 0a/5c",
    Privilege.OPERATOR: "00/02 00/04 00/06 00/08 00/09 04/02 04/13 04/24 04/26 04/28 04/2a 04/2e 06/22 06/24 06/44 "
    "06/46 0a/12 0a/29 0a/44 0a/47 0a/49 0a/5d 0c/02",
    Privilege.ADMINISTRATOR: "06/02 06/03 06/06 06/40 06/43 06/45 06/47 06/58 0c/01",
}
"""IPMI 2.0 appendix G for the commands that there are, those of the system interface aside."""

SYSTEM_INTERFACE_ONLY = "06/2e 06/30 06/31 06/33 06/35"


def test_privileges_are_those_of_appendix_g() -> None:
    expected = {name: privilege for privilege, names in APPENDIX_G.items() for name in names.split()}
    shown = {f"{row.netfn:02x}/{row.command:02x}": row.privilege for row in TABLE.values() if not row.local}
    assert shown == expected
    local = {f"{row.netfn:02x}/{row.command:02x}" for row in TABLE.values() if row.local}
    assert local == set(SYSTEM_INTERFACE_ONLY.split())


@on_bench
async def test_a_lower_privilege_is_refused_before_anything_else(bench: Bench) -> None:
    for row in TABLE.values():
        request = bytes((row.netfn, row.command)) + bytes(60)
        if row.local:
            assert await bench.ask(request, ADMINISTRATOR) == "d4"
            assert await bench.ask(request, GUEST) == "c7"
        elif row.privilege:
            assert await bench.ask(request, caller(Privilege(row.privilege - 1))) == "d4"
            assert await bench.ask(request, NOBODY) == "d4"
            assert await bench.ask(request, GUEST) != "d4"
    assert bench.machine.actions == [] and list(bench.machine.durable) == ["accounts"]


@on_bench
async def test_a_length_that_is_wrong_is_refused(bench: Bench) -> None:
    for row in TABLE.values():
        for length in {max(row.lengths) + 1, min(row.lengths) - 1} - {-1}:
            assert await bench.ask(bytes((row.netfn, row.command)) + bytes(length), GUEST) == "c7"


@on_bench
async def test_what_is_not_known_is_an_invalid_command(bench: Bench) -> None:
    for netfn in (*range(0, 0x40, 2), 0x07, 0x2D):
        assert await bench.ask(bytes((netfn, 0xFE))) == "c1"
    await bench.ask_all("2c 01 dc 01 -> c1", "2c 3e 00 -> c1", "2e 01 -> c1", "06 39 00 -> c1", "07 01 -> c1")


@on_bench
async def test_there_is_one_lun(bench: Bench) -> None:
    assert await bench.ask("06 01", lun=1) == "c2"


def test_a_machine_that_cannot_be_asked_is_an_error_once_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with Bench() as bench:
            bench.machine.failure = PlacematError("placematd does not answer")
            assert [await bench.ask("00 01") for _ in range(3)] == ["ff"] * 3
            bench.machine.failure = None
            assert (await bench.ask("00 01"))[:2] == "00"

    with caplog.at_level(logging.ERROR):
        asyncio.run(scenario())
    assert [record.getMessage() for record in caplog.records] == ["IPMI command 00/01: placematd does not answer"]


@on_bench
async def test_who_asks_while_placematd_is_restarted_may_try_again(bench: Bench) -> None:
    bench.machine.failure = Away("no connection")
    assert await bench.ask("00 01") == "c0"


def test_an_error_in_a_command_is_an_answer_too(caplog: pytest.LogCaptureFixture) -> None:
    """Somebody (or a later version) left something in the store that nobody can read."""

    async def scenario() -> None:
        machine = FakeMachine("On")
        machine.durable["ipmi"] = {"boot_initiator": "no hex"}
        async with Bench(machine) as bench:
            assert await bench.ask("00 09 06 00 00") == "ff"
            assert (await bench.ask("06 01"))[:2] == "00"

    with caplog.at_level(logging.ERROR):
        asyncio.run(scenario())
    assert "IPMI command 00/09" in caplog.text


WHAT_IPMITOOL_ASKS_IN_A_GUEST = {
    "mc info": "06 01",
    "mc guid": "06 08",
    "lan print": "0c 02 01 03 00 00",
    "user list 1": "06 44 01 02",
    "user list 1, names": "06 46 02",
    "channel info": "06 42 0e",
    "channel info 1": "06 41 01 40",
    "sel list": "0a 40",
    "sdr": "0a 20",
    "sdr, first record": "0a 23 00 00 00 00 00 05",
    "fru": "0a 10 00",
    "chassis status": "00 01",
    "chassis power cycle": "00 02 02",
}


@on_bench
async def test_a_guest_needs_no_user_and_no_session(bench: Bench) -> None:
    for what, request in WHAT_IPMITOOL_ASKS_IN_A_GUEST.items():
        assert (await bench.ask(request, GUEST))[:2] == "00", what
    assert bench.machine.actions == [("power", "cycle", "chassis-control")]


def test_nothing_heavy_is_imported() -> None:
    """The first packet starts the process."""
    script = "import sys, placematd.bmc.ipmi.commands; print(*sys.modules)"
    done = subprocess.run((sys.executable, "-c", script), capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "asyncio" in loaded and not loaded & {"tornado", "pyghmi", "yaml", "pydbus", "gi", "typer", "secrets"}


CALLERS = st.sampled_from([ADMINISTRATOR, GUEST, NOBODY, *(caller(level) for level in Privilege)])
KNOWN = st.sampled_from(sorted(TABLE))
ANY = st.tuples(st.integers(0, 255), st.integers(0, 255))


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """Mostly commands that there are, with data of a right length."""
    netfn, command = draw(st.one_of(KNOWN, KNOWN, KNOWN, ANY))
    row = TABLE.get((netfn, command))
    right = st.sampled_from(sorted(row.lengths)) if row else st.integers(0, 40)
    length = draw(st.one_of(right, right, st.integers(0, 300)))
    byte = st.one_of(st.integers(0, 15), st.integers(0, 255), st.sampled_from([0x40, 0x80, 0xC0, 0xFF]))
    data = bytes(draw(st.lists(byte, min_size=length, max_size=length)))
    by: Caller = draw(CALLERS)
    return Request(netfn=netfn, command=command, data=data, lun=draw(st.sampled_from([0, 0, 0, 3])), caller=by)


@settings(max_examples=100, deadline=None)
@given(st.lists(requests(), min_size=1, max_size=12), st.sampled_from(["On", "Off"]))
def test_no_request_ever_raises(many: list[Request], power: str) -> None:
    async def scenario() -> None:
        async with Bench(FakeMachine(power)) as bench:
            for request in many:
                reply = await bench.commands.execute(request)
                assert isinstance(reply, Reply) and isinstance(reply.data, bytes)
                assert 0 <= reply.code <= 0xFF and reply.code != 0xFF, "an error of ours"
                assert reply.code == 0 or reply.data == b"", "an error has no data"
                assert len(reply.data) <= 257
                if reply.after:
                    await reply.after()
            assert any(account.role == "Administrator" and account.enabled for account in bench.accounts.all())

    asyncio.run(scenario())
