"""The service of a cluster on a host that only remembers: what it says of itself, and what it leaves behind."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

import pytest
from test_apply import Memory

from placematd.errors import InvalidCluster, StepError, WrongState
from placematd.events import Events
from placematd.facts import Settings
from placematd.names import OwnerMark
from placematd.resources import Kind, Resource, key_of
from placematd.service import Service
from placematd.systemd import Systemd, UnitState

NETWORK = "kind: Network\nname: {}\ntype: internal\nuse-nat: false\n"
APP = "placemat-lab-app-ns-web.service"


@dataclass
class FakeSystemd:
    """Units that a test sets and tells of."""

    units: dict[str, tuple[str, str]] = field(default_factory=dict)
    stopped: list[str] = field(default_factory=list)
    tell: Callable[[UnitState], None] = lambda state: None

    def subscribe(self, callback: Callable[[UnitState], None]) -> None:
        self.tell = callback

    def unit_states(self, *patterns: str) -> list[UnitState]:
        return [self.state(name) for name in self.units]

    def state(self, name: str) -> UnitState:
        active, sub = self.units[name]
        mark = OwnerMark("lab", "unit", name, "abc")
        return UnitState(name, "", "loaded", active, sub, mark)

    def stop(self, name: str) -> None:
        self.stopped.append(name)

    def becomes(self, name: str, active: str, sub: str) -> None:
        self.units[name] = (active, sub)
        self.tell(self.state(name))


class Lab:
    """A service with its file and its host."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "lab.yml"
        self.write("net0", "net1")
        self.memory, self.systemd, self.events = Memory(), FakeSystemd(), Events()
        self.states: list[tuple[str, str]] = []
        self.events.listen(
            lambda event: self.states.append((event.get("state", ""), event["message"])) if "state" in event else None
        )
        settings = Settings(
            cluster="lab",
            files=(self.file,),
            data_dir=directory / "data",
            cache_dir=directory / "cache",
            run_dir=directory / "run",
        )
        adapters: dict[Kind, Any] = {kind: self.memory.adapter(kind) for kind in get_args(Kind)}
        self.service = Service(settings, cast(Systemd, self.systemd), adapters, self.events)

    def write(self, *networks: str) -> None:
        self.file.write_text("---\n".join(map(NETWORK.format, networks)))

    def bridges(self) -> set[str]:
        return {key.name for key in self.memory.host if key.kind == "bridge"}

    async def state(self) -> tuple[str, str]:
        status = await self.service.cluster_status()
        return status["state"], status["error"]

    async def reaches(self, state: str) -> None:
        """Wait until the service says so by itself."""
        subscription = self.events.subscribe()
        async with asyncio.timeout(30):
            while self.states[-1][0] != state:
                await subscription.get()


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def run(lab: Lab, scenario: Callable[[], Awaitable[None]]) -> None:
    async def live() -> None:
        lab.events.bind(asyncio.get_running_loop())
        try:
            await scenario()
        finally:
            await lab.service.leave()
            lab.service.close()

    asyncio.run(live())


def test_start_and_stop_leave_nothing(lab: Lab) -> None:
    async def scenario() -> None:
        await lab.service.start()
        assert await lab.state() == ("running", "")
        assert lab.bridges() == {"net0", "net1"}
        await lab.service.stop()

    run(lab, scenario)
    assert lab.memory.host == {}
    assert lab.systemd.stopped == ["placemat-lab.slice"]


def test_mistakes_in_a_reload_change_nothing(lab: Lab) -> None:
    async def scenario() -> None:
        await lab.service.start()
        lab.file.write_text("kind: Nod\n---\nkind: Netwrk\n")
        with pytest.raises(InvalidCluster) as caught:
            await lab.service.reload()
        assert len(caught.value.mistakes) >= 2
        assert await lab.state() == ("running", "")
        assert lab.bridges() == {"net0", "net1"}

    run(lab, scenario)


def test_a_reload_that_fails_half_way_is_told_until_one_succeeds(lab: Lab) -> None:
    async def scenario() -> None:
        await lab.service.start()
        lab.write("net0", "net2")
        lab.memory.fail_on = "net2"
        with pytest.raises(StepError, match="create net2: refused"):
            await lab.service.reload()
        assert lab.bridges() == {"net0"}
        assert await lab.state() == ("degraded", "the last reload failed: create net2: refused")
        assert lab.states[-1][0] == "degraded"
        assert "create net2: refused" in lab.states[-1][1]

        lab.memory.fail_on = ""
        assert "bridge net2" in [change["resource"] for change in await lab.service.reload()]
        assert await lab.state() == ("running", "")
        assert lab.bridges() == {"net0", "net2"}

    run(lab, scenario)


def test_who_comes_during_a_start_is_told_so_at_once(lab: Lab) -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow(resource: Resource) -> None:
        entered.set()
        assert leave.wait(30)

    lab.memory.on_create = slow

    async def scenario() -> None:
        start = asyncio.ensure_future(lab.service.start())
        await asyncio.to_thread(entered.wait, 30)
        try:
            with pytest.raises(WrongState, match="starting"):
                await asyncio.wait_for(lab.service.reload(), 10)
        finally:
            leave.set()
            await start

    run(lab, scenario)


def test_a_stop_does_not_wait_for_a_reload(lab: Lab) -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow(resource: Resource) -> None:
        if resource.name == "net2":
            entered.set()
            assert leave.wait(30)

    lab.memory.on_create = slow

    async def scenario() -> None:
        await lab.service.start()
        lab.write("net2", "net3")
        reload = asyncio.ensure_future(lab.service.reload())
        await asyncio.to_thread(entered.wait, 30)
        stop = asyncio.ensure_future(lab.service.stop())
        await asyncio.sleep(0)
        leave.set()
        with pytest.raises(WrongState, match="stopping; the reload was given up"):
            await reload
        await stop

    run(lab, scenario)
    assert lab.memory.host == {}
    assert "+net3" not in lab.memory.log


def test_a_failed_start_takes_away_what_a_killed_one_left(lab: Lab) -> None:
    async def scenario() -> None:
        left = OwnerMark("lab", "bridge", "net0", "abc")
        lab.memory.host[key_of(left)] = left
        lab.memory.fail_on = "net1"
        with pytest.raises(StepError):
            await lab.service.start()

    run(lab, scenario)
    assert lab.memory.host == {}


def test_a_failed_start_leaves_alone_what_runs(lab: Lab) -> None:
    async def scenario() -> None:
        left = OwnerMark("lab", "bridge", "net0", "abc")
        lab.memory.host[key_of(left)] = left
        lab.systemd.units[APP] = ("active", "running")
        lab.memory.fail_on = "net1"
        with pytest.raises(StepError):
            await lab.service.start()
        assert lab.bridges() == {"net0"}

    run(lab, scenario)


@pytest.mark.parametrize(("active", "sub"), [("failed", "failed"), ("activating", "auto-restart")])
def test_an_app_that_fails_degrades_the_cluster_until_it_runs(active: str, sub: str, lab: Lab) -> None:
    async def scenario() -> None:
        await lab.service.start()
        lab.systemd.becomes(APP, active, sub)
        await lab.reaches("degraded")
        assert APP in lab.states[-1][1]
        assert (await lab.service.cluster_status())["failed_units"] == [APP]
        lab.systemd.becomes(APP, "active", "running")
        await lab.reaches("running")
        assert await lab.state() == ("running", "")

    run(lab, scenario)


def test_a_failure_that_is_over_at_once_is_not_told(lab: Lab) -> None:
    async def scenario() -> None:
        await lab.service.start()
        lab.systemd.becomes(APP, "failed", "failed")
        lab.systemd.becomes(APP, "active", "running")
        before = list(lab.states)
        await asyncio.sleep(1.2)
        assert lab.states == before

    run(lab, scenario)


def test_a_stop_takes_away_what_it_can(lab: Lab) -> None:
    async def scenario() -> None:
        await lab.service.start()
        lab.memory.fail_on_remove = "net1"
        with pytest.raises(StepError, match="remove net1"):
            await lab.service.stop()
        assert lab.bridges() == {"net1"}

    run(lab, scenario)
