"""The applier with adapters that only remember: order, waves, and what is undone."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from placematd.apply import Applier, waves
from placematd.errors import StepError
from placematd.names import OwnerMark
from placematd.reconcile import Change, Changes
from placematd.resources import Bridge, CachedImage, Key, Kind, Resource, UnitResource
from placematd.unit import Unit


@dataclass
class Memory:
    """Adapters of all kinds that share one host: a set of keys, and a log of what was done to it."""

    host: dict[Key, OwnerMark] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    fail_on: str = ""
    fail_on_remove: str = ""
    on_create: Callable[[Resource], None] = lambda resource: None

    def adapter(self, kind: Kind) -> "MemoryAdapter":
        return MemoryAdapter(self, kind)


@dataclass
class MemoryAdapter:
    memory: Memory
    kind: Kind

    def observe(self, cluster: str) -> Sequence[OwnerMark]:
        return [mark for key, mark in self.memory.host.items() if key.kind == self.kind]

    def create(self, resource: Resource, cluster: str) -> None:
        self.memory.on_create(resource)
        if resource.name == self.memory.fail_on:
            raise StepError(f"create {resource.name}", "refused")
        self.memory.log.append(f"+{resource.name}")
        self.memory.host[resource.key] = resource.mark(cluster)

    def remove(self, mark: OwnerMark) -> None:
        if mark.name == self.memory.fail_on_remove:
            raise StepError(f"remove {mark.name}", "refused")
        self.memory.log.append(f"-{mark.name}")
        self.memory.host.pop(Key(mark.kind, mark.name), None)


def unit(name: str, what: str) -> UnitResource:
    return UnitResource(name=name, what=what, unit=Unit(name, ()))  # type: ignore[arg-type]


BRIDGE, OTHER = Bridge(name="net0"), Bridge(name="net1")
IMAGE = CachedImage(name="debian", path=Path("/cache/debian"), url="http://server/debian")
NODES = [unit(f"placemat-lab-node-n{number}.service", "node") for number in range(3)]
APPS = [unit(f"placemat-lab-app-ns-a{number}.service", "app") for number in range(2)]
KINDS: tuple[Kind, ...] = ("bridge", "image", "unit")


def create(*resources: Resource) -> Changes:
    return Changes(remove=(), create=tuple(Change(r.key, r, "missing") for r in resources))


def run(memory: Memory, changes: Changes, confirm: Callable[[], object] | None = None) -> None:
    async def scenario() -> None:
        applier = Applier("lab", {kind: memory.adapter(kind) for kind in KINDS}, lambda step: None)
        try:
            await applier.observe()
            await applier.apply(changes, confirm)  # type: ignore[arg-type]
        finally:
            applier.close()

    asyncio.run(scenario())


def test_waves_keep_the_order_and_put_only_independent_changes_side_by_side() -> None:
    changes = create(BRIDGE, OTHER, IMAGE, *APPS, *NODES).create
    assert [[change.key.name for change in wave] for wave in waves(changes)] == [
        ["net0"],
        ["net1"],
        ["debian"],
        ["placemat-lab-app-ns-a0.service"],
        ["placemat-lab-app-ns-a1.service"],
        [node.name for node in NODES],
    ]


def test_links_and_namespaces_are_removed_side_by_side_kind_by_kind() -> None:
    keys = [Key("tap", "t0"), Key("tap", "t1"), Key("netns", "a"), Key("netns", "b"), Key("firewall", "f")]
    keys += [Key("bridge", "net0"), Key("bridge", "net1"), Key("sysctl", "x"), Key("sysctl", "y")]
    removals = [Change(key, None, "gone") for key in keys]
    assert [[change.key.name for change in wave] for wave in waves(removals)] == [
        ["t0", "t1"],
        ["a", "b"],
        ["f"],
        ["net0", "net1"],
        ["x"],
        ["y"],
    ]


def test_nodes_start_side_by_side() -> None:
    all_here = threading.Barrier(len(NODES))
    memory = Memory(on_create=lambda resource: all_here.wait(30) and None)
    run(memory, create(*NODES))
    assert set(memory.host) == {node.key for node in NODES}


def test_a_failure_undoes_what_was_made_last_first_but_keeps_images() -> None:
    memory = Memory(fail_on=NODES[1].name)
    with pytest.raises(StepError, match="refused"):
        run(memory, create(BRIDGE, IMAGE, APPS[0], *NODES))
    assert set(memory.host) == {IMAGE.key}
    undone = [line for line in memory.log if line.startswith("-")]
    assert undone[-2:] == [f"-{APPS[0].name}", "-net0"]
    assert set(undone[:-2]) == {f"-{NODES[0].name}", f"-{NODES[2].name}"}


def test_a_failure_leaves_what_was_there_before() -> None:
    memory = Memory(host={OTHER.key: OTHER.mark("lab")}, fail_on="net0")
    with pytest.raises(StepError):
        run(memory, create(APPS[0], BRIDGE))
    assert set(memory.host) == {OTHER.key}


def test_a_confirmation_that_fails_undoes_everything() -> None:
    async def refuse() -> None:
        raise StepError("connect to the monitor", "QEMU ended at once")

    memory = Memory()
    with pytest.raises(StepError, match="QEMU ended"):
        run(memory, create(BRIDGE, *NODES), refuse)
    assert memory.host == {}


def test_cancelling_waits_for_the_running_step_and_then_undoes() -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow(resource: Resource) -> None:
        if resource.name == "net1":
            entered.set()
            assert leave.wait(30)

    memory = Memory(on_create=slow)

    async def scenario() -> None:
        applier = Applier("lab", {kind: memory.adapter(kind) for kind in KINDS}, lambda step: None)
        task = asyncio.ensure_future(applier.apply(create(BRIDGE, OTHER, IMAGE)))
        await asyncio.to_thread(entered.wait, 30)
        task.cancel()
        await asyncio.sleep(0)
        leave.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        applier.close()

    asyncio.run(scenario())
    assert memory.host == {}
    assert memory.log == ["+net0", "+net1", "-net1", "-net0"]


def test_removal_uses_the_observed_mark_and_comes_before_creation() -> None:
    old = Bridge(name="net0", mtu=1400)
    memory = Memory(host={old.key: old.mark("lab")})
    changes = Changes(remove=(Change(old.key, None, "changed"),), create=(Change(BRIDGE.key, BRIDGE, "changed"),))
    run(memory, changes)
    assert memory.log == ["-net0", "+net0"]
    assert memory.host[BRIDGE.key].digest == BRIDGE.digest
