"""A machine is the same whether it is asked directly or over its node's socket; placematd may go away meanwhile."""

import asyncio
import json
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from fakes.machine import INVENTORY, LIMITS, FakeMachine

from placematd.baseboard.serve import CALLS_AT_ONCE, CALLS_PER_SECOND, CONSOLES, MachineSocket, description
from placematd.bmc import wire
from placematd.bmc.machine import (
    BootOverride,
    Firmware,
    FirmwareOffer,
    Health,
    Machine,
    MachineEvent,
    Media,
    Progress,
    Watchdog,
)
from placematd.bmc.remote import Away, RemoteMachine
from placematd.errors import MissingTool, NotFound, PlacematError, StepError, TimedOut, WrongState
from placematd.varlink import Client, InvalidParameter

Pair = tuple[Machine, FakeMachine]
Check = Callable[[Machine, FakeMachine], Awaitable[None]]


@asynccontextmanager
async def directly(path: Path) -> AsyncIterator[Pair]:
    fake = FakeMachine()
    yield fake, fake


@asynccontextmanager
async def served(path: Path) -> AsyncIterator[Pair]:
    fake = FakeMachine()
    (path / "node").mkdir(exist_ok=True)
    async with MachineSocket(path / "node" / "machine", fake):
        yield RemoteMachine(path / "node" / "machine", wait_seconds=0.3), fake


@pytest.fixture(params=[directly, served])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Check], None]:
    """Runs a check over the FakeMachine itself, and over the same one on a socket."""
    pair: Callable[[Path], AbstractAsyncContextManager[Pair]] = request.param

    async def inside(check: Check) -> None:
        async with asyncio.timeout(10), pair(tmp_path) as (machine, fake):
            await check(machine, fake)

    return lambda check: asyncio.run(inside(check))


Run = Callable[[Check], None]


def test_what_the_machine_is(run: Run) -> None:
    async def check(machine: Machine, fake: FakeMachine) -> None:
        assert await machine.inventory() == INVENTORY
        assert await machine.limits() == LIMITS
        assert await machine.health() == Health(
            cpu_load_percent=0.0, memory_used_mib=0, inlet_celsius=23.0, power_watts=0.0
        )

    run(check)


def test_power(run: Run) -> None:
    async def check(machine: Machine, fake: FakeMachine) -> None:
        assert await machine.power_state() == "Off"
        await machine.power("off")
        with pytest.raises(WrongState, match="worker-1 is off"):
            await machine.power("nmi")
        await machine.power("on")
        assert await machine.power_state() == "On"
        assert await machine.restart_cause() == "chassis-control"
        await machine.power("on")
        assert len(fake.starts) == 1
        await machine.power("reset", "reset-button")
        assert len(fake.starts) == 2
        assert await machine.restart_cause() == "reset-button"
        assert await machine.power_on_hours() > 0

    run(check)


def test_the_power_button(run: Run) -> None:
    async def check(machine: Machine, fake: FakeMachine) -> None:
        await machine.power("on")
        events = machine.events()
        first = asyncio.ensure_future(anext(events))
        while not fake.listeners:
            await asyncio.sleep(0)
        await machine.power("soft-off")
        told = [await first]
        while told[-1] != MachineEvent(kind="power", value="Off"):
            told.append(await anext(events))
        assert told[0] == MachineEvent(kind="power", value="PoweringOff")
        assert await machine.power_state() == "Off"

    run(check)


def test_once_is_used_up_by_the_next_boot_whatever_caused_it(run: Run) -> None:
    async def check(machine: Machine, fake: FakeMachine) -> None:
        await machine.power("on")
        once = BootOverride(enabled="Once", target="Pxe", mode="UEFI")
        await machine.set_boot(once)
        assert await machine.boot() == once
        fake.guest_resets()
        assert fake.starts[-1] == ("Pxe", "UEFI")
        assert await machine.boot() == BootOverride()
        await machine.set_boot(BootOverride(enabled="Continuous", target="Cd"))
        await machine.power("cycle")
        assert fake.starts[-1] == ("Cd", "Legacy")
        assert (await machine.boot()).enabled == "Continuous"

    run(check)


def test_sel(run: Run) -> None:
    async def check(machine: Machine, fake: FakeMachine) -> None:
        await machine.power("on")
        automatic = await machine.sel()
        assert [entry.message for entry in automatic] == ["The machine was powered on", "System boot initiated"]
        data = bytes(range(10))
        assert await machine.add_sel(data, "Added", "Warning") == 3
        added = (await machine.sel())[-1]
        assert (added.record_id, added.data, added.message, added.severity) == (3, data, "Added", "Warning")
        assert added.time.tzinfo and added.time >= automatic[0].time
        await machine.clear_sel()
        assert list(await machine.sel()) == []

    run(check)


def test_watchdog(run: Run) -> None:
    async def check(machine: Machine, fake: FakeMachine) -> None:
        await machine.power("on")
        await machine.set_watchdog(Watchdog(running=True, use=3, action="reset", initial=600, present=600))
        assert 590 <= (await machine.watchdog()).present <= 600
        events = machine.events()
        expiry = asyncio.ensure_future(anext(events))
        while not fake.listeners:
            await asyncio.sleep(0)
        await machine.set_watchdog(Watchdog(running=True, use=3, action="reset", initial=600, present=1))
        assert (await expiry).kind == "sel"
        watchdog = await machine.watchdog()
        assert (watchdog.running, watchdog.flags) == (False, 1 << 3)
        assert await machine.restart_cause() == "watchdog"
        assert "watchdog" in [entry.message for entry in await machine.sel()][-2]

    run(check)


def test_firmware_counts_from_the_next_start(run: Run) -> None:
    async def check(machine: Machine, fake: FakeMachine) -> None:
        await machine.power("on")
        before, wanted = Firmware(boot_mode="Legacy", tpm=True), Firmware(boot_mode="UEFI", tpm=False, secure_boot=True)
        offer = FirmwareOffer(boot_modes=("Legacy", "UEFI"), secure_boot=True)
        await machine.set_firmware(wanted)
        assert await machine.firmware() == (before, wanted, offer)
        await machine.power("reset")
        assert await machine.firmware() == (wanted, wanted, offer)
        inventory = await machine.inventory()
        assert (inventory.boot_mode, inventory.tpm, inventory.secure_boot) == ("UEFI", False, True)

    run(check)


def test_identify(run: Run) -> None:
    async def check(machine: Machine, fake: FakeMachine) -> None:
        assert not await machine.identifying()
        for seconds, lit in ((15, True), (0, False), (None, True)):
            await machine.identify(seconds)
            assert await machine.identifying() is lit

    run(check)


def test_console_is_shared(run: Run) -> None:
    async def check(machine: Machine, fake: FakeMachine) -> None:
        one, other = await machine.console(), await machine.console()
        fake.guest_prints(b"login: \xff\x00")
        assert await one.read() == await other.read() == b"login: \xff\x00"
        await one.write(b"root\r")
        assert await other.read() == await one.read() == b"root\r"
        await one.close()
        while len(fake.viewers) > 1:
            await asyncio.sleep(0)
        fake.end_consoles()
        assert await other.read() == b""
        await other.close()

    run(check)


def test_media(run: Run) -> None:
    async def check(machine: Machine, fake: FakeMachine) -> None:
        steps = [step async for step in machine.insert_media("Cd", "http://boot/a.iso", write_protected=False)]
        assert steps[0] == Progress(done=0, total=4 << 20) and steps[-1] == Progress(done=4 << 20, total=4 << 20)
        assert list(await machine.media()) == [
            Media(slot="Cd", image="http://boot/a.iso", inserted=True, write_protected=False)
        ]
        with pytest.raises(WrongState, match="eject it first"):
            _ = [step async for step in machine.insert_media("Cd", "http://boot/b.iso")]
        await machine.eject_media("Cd")
        await machine.eject_media("Cd")
        assert list(await machine.media()) == [Media(slot="Cd")]
        with pytest.raises(NotFound, match="404 Not Found"):
            _ = [step async for step in machine.insert_media("Cd", "http://boot/missing.iso")]

    run(check)


def test_settings_are_kept(run: Run) -> None:
    async def check(machine: Machine, fake: FakeMachine) -> None:
        value = {"users": [{"name": "admin", "slot": 2, "enabled": True, "note": None, "ratio": 0.5, "text": "ü"}]}
        assert await machine.load("accounts") == {}
        await machine.save("accounts", value)
        assert await machine.load("accounts") == value == fake.durable["accounts"]

    run(check)


@pytest.mark.parametrize(
    "error",
    [
        PlacematError("plain"),
        WrongState("now now"),
        NotFound("no such thing"),
        StepError("open door", "locked", "find the key"),
        TimedOut("wait", "too long"),
        MissingTool("swtpm", "swtpm"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_arrive_as_they_were_raised(run: Run, error: PlacematError) -> None:
    async def check(machine: Machine, fake: FakeMachine) -> None:
        fake.failure = error
        with pytest.raises(PlacematError) as caught:
            await machine.power("on")
        assert type(caught.value) is type(error) and str(caught.value) == str(error)
        assert vars(caught.value) == vars(error)
        with pytest.raises(type(error)):
            await machine.console()
        with pytest.raises(type(error)):
            _ = [step async for step in machine.insert_media("Cd", "/a.iso")]

    run(check)


def test_an_event_stream_that_nobody_reads_any_more_ends(run: Run) -> None:
    async def check(machine: Machine, fake: FakeMachine) -> None:
        async def listen() -> None:
            async for _ in machine.events():
                pass

        task = asyncio.create_task(listen())
        while not fake.listeners:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while fake.listeners:
            await asyncio.sleep(0.001)

    run(check)


# over the socket alone


def remotely(tmp_path: Path, check: Check) -> None:
    async def inside() -> None:
        async with asyncio.timeout(10), served(tmp_path) as (machine, fake):
            await check(machine, fake)

    asyncio.run(inside())


def test_whoever_enters_the_directory_may_connect(tmp_path: Path) -> None:
    async def check(machine: Machine, fake: FakeMachine) -> None:
        path = tmp_path / "node" / "machine"
        assert stat.S_IMODE(path.stat().st_mode) == 0o666
        assert [child.name for child in path.parent.iterdir()] == ["machine"]

    remotely(tmp_path, check)
    assert (tmp_path / "node").is_dir() and not (tmp_path / "node" / "machine").exists()


def test_a_socket_that_a_crash_left_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        (tmp_path / "node").mkdir()
        left.bind(str(tmp_path / "node" / "machine"))

    async def check(machine: Machine, fake: FakeMachine) -> None:
        assert await machine.power_state() == "Off"

    remotely(tmp_path, check)


def test_every_method_of_the_protocol_is_served_and_described() -> None:
    names = {method.python for method in (*wire.METHODS, wire.INSERT_MEDIA, wire.EVENTS, wire.CONSOLE)}
    assert names == {name for name in vars(Machine) if not name.startswith("_")}
    text = description()
    for method in (*wire.METHODS, wire.INSERT_MEDIA, wire.EVENTS, wire.CONSOLE):
        line = next(line for line in text.splitlines() if line.startswith(f"method {method.name}("))
        arguments = line[line.index("(") + 1 : line.index(")")]
        assert [part.split(":")[0].strip() for part in arguments.split(",") if part] == list(method.arguments)
        assert all(f"{name}:" in line.partition("->")[2] for name in method.returns)


@pytest.mark.parametrize(
    ("method", "parameters", "culprit"),
    [
        ("Power", {"action": "explode", "cause": "unknown"}, "action"),
        ("Power", {"action": ["on"], "cause": "unknown"}, "action"),
        ("Power", {"action": "on"}, "cause"),
        ("Power", {"action": "on", "cause": "unknown", "node": "worker-2"}, "node"),
        ("GetInventory", {"node": "worker-2"}, "node"),
        ("SetBoot", {"override": {"enabled": "Once", "target": "Usb", "mode": None}}, "override"),
        ("SetBoot", {"override": None}, "override"),
        ("AddSel", {"data": "AAAA", "message": "short", "severity": "OK"}, "data"),
        ("AddSel", {"data": "?", "message": "no base64", "severity": "OK"}, "data"),
        ("AddSel", {"data": "AAAAAAAAAAAAAA==", "message": "m" * 257, "severity": "OK"}, "message"),
        ("AddSel", {"data": "AAAAAAAAAAAAAA==", "message": "a\nb", "severity": "OK"}, "message"),
        ("AddSel", {"data": "AAAAAAAAAAAAAA==", "message": "m", "severity": "Fine"}, "severity"),
        ("SetWatchdog", {"watchdog": wire.encode(replace(Watchdog(), use=8))}, "watchdog"),
        ("SetWatchdog", {"watchdog": wire.encode(replace(Watchdog(), present=1 << 16))}, "watchdog"),
        ("SetWatchdog", {"watchdog": wire.encode(Watchdog()) | {"running": 1}}, "watchdog"),  # type: ignore[operator]
        ("Identify", {"seconds": -1}, "seconds"),
        ("Identify", {"seconds": True}, "seconds"),
        ("EjectMedia", {"slot": ""}, "slot"),
        ("Load", {"section": "../../etc/shadow"}, "section"),
        ("Load", {"section": "a" * 33}, "section"),
        ("Save", {"section": "lan", "value": []}, "value"),
        ("Save", {"section": "lan", "value": {"x": "y" * (300 << 10)}}, "value"),
        ("SetFirmware", {"firmware": {"boot_mode": "UEFI"}}, "firmware"),
    ],
)
def test_arguments_that_cannot_be_are_refused(
    tmp_path: Path, method: str, parameters: dict[str, object], culprit: str
) -> None:
    async def check(machine: Machine, fake: FakeMachine) -> None:
        client = await Client.connect(tmp_path / "node" / "machine")
        with pytest.raises(InvalidParameter) as caught:
            await client.call(f"{wire.INTERFACE}.{method}", parameters)
        assert caught.value.parameters == {"parameter": culprit}
        client.close()
        assert fake.actions == [] and fake.durable == {}

    remotely(tmp_path, check)


@pytest.mark.parametrize("image", ["", "http://x/\n", "x" * 2049])
def test_an_image_that_cannot_be_is_refused(tmp_path: Path, image: str) -> None:
    async def check(machine: Machine, fake: FakeMachine) -> None:
        with pytest.raises(InvalidParameter):
            _ = [step async for step in machine.insert_media("Cd", image)]
        assert fake.actions == []

    remotely(tmp_path, check)


def test_consoles_are_bounded_and_given_back(tmp_path: Path) -> None:
    async def check(machine: Machine, fake: FakeMachine) -> None:
        consoles = [await machine.console() for _ in range(CONSOLES)]
        with pytest.raises(WrongState, match="too many viewers"):
            await machine.console()
        await consoles[0].close()
        while len(fake.viewers) == CONSOLES:
            await asyncio.sleep(0.001)
        await (await machine.console()).close()
        for console in consoles[1:]:
            await console.close()

    remotely(tmp_path, check)


def test_a_bmc_gone_mad_is_slowed_down(tmp_path: Path) -> None:
    async def check(machine: Machine, fake: FakeMachine) -> None:
        client = await Client.connect(tmp_path / "node" / "machine")
        loop = asyncio.get_running_loop()
        started = loop.time()
        for _ in range(CALLS_AT_ONCE + CALLS_PER_SECOND // 2):
            await client.call(f"{wire.INTERFACE}.GetPowerState", {})
        assert loop.time() - started > 0.45
        client.close()

    remotely(tmp_path, check)


def test_a_load_that_the_bmc_gives_up_ends(tmp_path: Path) -> None:
    async def check(machine: Machine, fake: FakeMachine) -> None:
        fake.media_seconds = 0.05
        steps = machine.insert_media("Cd", "http://boot/a.iso")
        await anext(steps)
        await steps.aclose()  # type: ignore[attr-defined]
        await asyncio.sleep(0.4)
        assert not (await machine.media())[0].inserted

    remotely(tmp_path, check)


def test_a_restart_of_placematd_is_waited_for(tmp_path: Path) -> None:
    async def inside() -> None:
        fake, path = FakeMachine("On"), tmp_path / "machine"
        machine = RemoteMachine(path, wait_seconds=5)
        asking = asyncio.create_task(machine.power_state())
        await asyncio.sleep(0.15)
        assert not asking.done()
        async with MachineSocket(path, fake):
            assert await asking == "On"
            console = await machine.console()
        assert await console.read() == b""
        with pytest.raises(Away):
            await console.write(b"lost")
            await console.write(b"lost")
        await console.close()

    asyncio.run(asyncio.wait_for(inside(), 10))


def test_it_says_so_when_placematd_is_away(tmp_path: Path) -> None:
    async def inside() -> None:
        machine = RemoteMachine(tmp_path / "machine", wait_seconds=0.2)
        with pytest.raises(Away, match="ask placematd: it is away: No such file"):
            await machine.power("on")

    asyncio.run(asyncio.wait_for(inside(), 10))


def test_a_call_cut_off_is_made_again_only_where_that_does_no_harm(tmp_path: Path) -> None:
    """The first placematd dies over each call; the second answers."""
    calls: list[str] = []

    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        calls.append(json.loads((await reader.readuntil(b"\0"))[:-1])["method"].rpartition(".")[2])
        writer.transport.abort()

    async def inside() -> None:
        machine = RemoteMachine(tmp_path / "machine", wait_seconds=0.2)
        async with await asyncio.start_unix_server(die, tmp_path / "machine"):
            with pytest.raises(Away, match="nobody knows whether it was done"):
                await machine.power("cycle")
            with pytest.raises(Away, match="no answer to GetPowerState"):
                await machine.power_state()
        assert calls == ["Power", "GetPowerState", "GetPowerState"]

    asyncio.run(asyncio.wait_for(inside(), 10))


def test_event_streams_go_on_after_a_restart_and_tell_what_was_missed(tmp_path: Path) -> None:
    async def inside() -> None:
        fake, path = FakeMachine("Off"), tmp_path / "machine"
        events = RemoteMachine(path, wait_seconds=5).events()
        first = asyncio.ensure_future(anext(events))
        async with MachineSocket(path, fake):
            while not fake.listeners:
                await asyncio.sleep(0.001)
            await fake.eject_media("Cd")
            fake.tell("media", "Cd")
            assert await first == MachineEvent(kind="media", value="Cd")
        await fake.power("on")
        missed = asyncio.ensure_future(anext(events))
        async with MachineSocket(path, fake):
            assert await missed == MachineEvent(kind="power", value="On")
        await events.aclose()  # type: ignore[attr-defined]

    asyncio.run(asyncio.wait_for(inside(), 10))
