"""A node's power as placematd sees it: a unit that only says its state, a QMP server that speaks as QEMU does."""

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from samples import CLUSTER, HOST, SETTINGS

from placematd import nodes
from placematd.errors import StepError, TimedOut
from placematd.events import Events
from placematd.names import NodePaths
from placematd.nodes import NodeControl, unit_state
from placematd.plan import plan
from placematd.qmp import QmpClient, QmpEvent
from placematd.systemd import UnitState

NODE = plan(CLUSTER, HOST, SETTINGS).nodes[0]


ATTACHED = ["qmp_capabilities", "query-status", "query-status", "cont"]


class Board:
    """A baseboard that remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    async def prepare(self, monitor: QmpClient) -> None:
        assert await monitor.query_status() == "prelaunch"
        self.told.append("prepare")

    async def adopted(self, monitor: QmpClient) -> None:
        self.told.append("adopted")

    async def before_reset(self) -> None:
        self.told.append("before reset")

    def expect_off(self, reason: str) -> None:
        self.told.append(reason)

    def on_qmp_event(self, event: QmpEvent) -> None:
        self.told.append(event.name)

    def on_power(self, power: str) -> None:
        self.told.append(power)


class Machine:
    """One unit with one QEMU: `start` and `kill` are what systemd would do, `commands` what the monitor was told."""

    def __init__(self, directory: Path) -> None:
        self.plan = replace(NODE, paths=NodePaths(directory))
        self.events = Events()
        self.commands: list[str] = []
        self.told: list[str] = []
        self.starts = 0
        self.powers_off_on_button = True
        self.events.listen(lambda event: self.told.append(event["message"]))
        self.status = "prelaunch"
        self.board = Board()
        self.control = self.controlled(self.start)
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    def controlled(self, start: Callable[[], Awaitable[None]]) -> NodeControl:
        control = NodeControl(self.plan, self.events, start, self.kill, lambda node, line: None)
        control.board = self.board
        return control

    async def start(self) -> None:
        self.starts += 1
        self._server = await asyncio.start_unix_server(self._serve, self.plan.paths.qmp)
        await self.control.unit_changed("running")

    async def kill(self) -> None:
        await self.end("exited")

    async def end(self, state: str) -> None:
        if self._server:
            self._server.close()
            self.plan.paths.qmp.unlink(missing_ok=True)
        await self.control.unit_changed(state)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'{"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}}, "capabilities": []}}\n')
        while line := await reader.readline():
            request = json.loads(line)
            self.commands.append(request["execute"])
            answer = {"status": self.status} if request["execute"] == "query-status" else {}
            writer.write(json.dumps({"return": answer, "id": request["id"]}).encode() + b"\n")
            if request["execute"] == "system_powerdown" and self.powers_off_on_button:
                task = asyncio.ensure_future(self.end("exited"))
                self._clients.add(task)
        writer.close()


def run(directory: Path, scenario: Callable[[Machine], Awaitable[None]]) -> Machine:
    async def live() -> Machine:
        machine = Machine(directory)
        try:
            await scenario(machine)
        finally:
            await machine.end("inactive")
            await asyncio.sleep(0)
        return machine

    return asyncio.run(live())


@pytest.mark.parametrize(
    ("load", "active", "sub", "expected"),
    [
        ("loaded", "active", "running", "running"),
        ("loaded", "active", "exited", "exited"),
        ("loaded", "active", "listening", "active"),
        ("loaded", "failed", "failed", "failed"),
        ("loaded", "deactivating", "stop-sigterm", "deactivating"),
        ("not-found", "inactive", "dead", "inactive"),
    ],
)
def test_unit_state(load: str, active: str, sub: str, expected: str) -> None:
    assert unit_state(UnitState("u.service", "", load, active, sub, None)) == expected


def test_a_unit_that_systemd_does_not_know_is_inactive() -> None:
    assert unit_state(None) == "inactive"


def test_start_waits_for_the_monitor_and_twice_is_once(tmp_path: Path) -> None:
    async def scenario(machine: Machine) -> None:
        assert machine.control.power == "Off"
        await machine.control.start()
        await machine.control.start()
        assert machine.control.power == "On"

    machine = run(tmp_path, scenario)
    assert machine.starts == 1
    assert machine.commands == ATTACHED
    assert machine.board.told == ["On", "prepare", "Off"]


def test_a_guest_that_runs_is_adopted(tmp_path: Path) -> None:
    async def scenario(machine: Machine) -> None:
        machine.status = "running"
        await machine.start()
        await machine.control.attach()
        assert await machine.control.pid() == os.getpid()

    machine = run(tmp_path, scenario)
    assert machine.board.told == ["On", "adopted", "Off"]
    assert machine.commands == ATTACHED[:2]


def test_a_qemu_that_ends_at_once_is_an_error_with_the_way_to_its_log(tmp_path: Path) -> None:
    async def scenario(machine: Machine) -> None:
        async def fail() -> None:
            await machine.control.unit_changed("running")
            await machine.control.unit_changed("failed")

        machine.control = machine.controlled(fail)
        with pytest.raises(
            StepError, match=rf"start node {NODE.name}: QEMU ended at once .*journalctl -u '{NODE.unit}'"
        ):
            await machine.control.start()
        assert machine.control.power == "Off"

    run(tmp_path, scenario)


def test_a_socket_that_a_dead_qemu_left_is_no_monitor_and_no_obstacle(tmp_path: Path) -> None:
    async def scenario(machine: Machine) -> None:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(machine.plan.paths.qmp))
        refused = asyncio.Event()

        async def slow_start() -> None:
            await machine.control.unit_changed("running")
            asyncio.get_running_loop().call_later(0.2, refused.set)

        machine.control = machine.controlled(slow_start)
        starting = asyncio.ensure_future(machine.control.start())
        await refused.wait()
        assert not starting.done()
        await machine.start()
        await asyncio.wait_for(starting, 30)
        assert machine.control.power == "On"

    assert run(tmp_path, scenario).commands == ATTACHED


def test_a_qemu_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "MONITOR_SECONDS", 0.2)

    async def scenario(machine: Machine) -> None:
        async def hang() -> None:
            await machine.control.unit_changed("running")

        machine.control = machine.controlled(hang)
        with pytest.raises(TimedOut, match=rf"monitor of node {NODE.name}"):
            await machine.control.start()

    run(tmp_path, scenario)


def test_stop_ends_qemu_and_a_second_stop_does_nothing(tmp_path: Path) -> None:
    async def scenario(machine: Machine) -> None:
        await machine.control.start()
        await machine.control.stop(graceful=False, timeout_seconds=30)
        assert machine.control.power == "Off"
        await machine.control.stop(graceful=False, timeout_seconds=30)

    machine = run(tmp_path, scenario)
    assert machine.told.count(f"node {NODE.name}: power Off") == 1
    assert "system_powerdown" not in machine.commands
    assert machine.board.told == ["On", "prepare", "switched off through placemat", "Off"]


def test_a_graceful_stop_presses_the_power_button_and_waits(tmp_path: Path) -> None:
    async def scenario(machine: Machine) -> None:
        await machine.control.start()
        await machine.control.stop(graceful=True, timeout_seconds=30)
        assert machine.control.power == "Off"

    assert "system_powerdown" in run(tmp_path, scenario).commands


def test_a_guest_that_ignores_the_button_goes_on_running(tmp_path: Path) -> None:
    async def scenario(machine: Machine) -> None:
        machine.powers_off_on_button = False
        await machine.control.start()
        with pytest.raises(TimedOut, match=r"did not power off within 0\.05 s .*without --graceful"):
            await machine.control.stop(graceful=True, timeout_seconds=0.05)
        assert machine.control.power == "On"

    run(tmp_path, scenario)


def test_restart_resets_a_node_that_is_on_and_starts_one_that_is_off(tmp_path: Path) -> None:
    async def scenario(machine: Machine) -> None:
        await machine.control.restart(graceful=False, timeout_seconds=30)
        assert machine.starts == 1
        await machine.control.restart(graceful=False, timeout_seconds=30)
        await machine.control.restart(graceful=True, timeout_seconds=30)

    machine = run(tmp_path, scenario)
    assert machine.starts == 2
    assert machine.commands.count("system_reset") == 1
    assert machine.board.told.count("before reset") == 1
    assert machine.commands.count("system_powerdown") == 1


def test_a_guest_that_powers_itself_off_is_told_and_can_be_started(tmp_path: Path) -> None:
    async def scenario(machine: Machine) -> None:
        await machine.control.start()
        await machine.end("exited")
        assert machine.control.power == "Off"
        assert machine.told[-1] == f"node {NODE.name}: power Off"
        await machine.control.start()
        assert machine.control.power == "On"

    assert run(tmp_path, scenario).starts == 2
