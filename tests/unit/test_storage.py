"""The volumes of a running cluster: what is told of those that changed, and what a reset leaves."""

import os
import pwd
from dataclasses import replace
from pathlib import Path

import pytest

from placematd.errors import NotFound, StepError
from placematd.facts import Settings
from placematd.plan import Plan
from placematd.reconcile import compare
from placematd.resources import UnitResource, VolumeFile
from placematd.storage import Storage, kept_for_starting
from placematd.unit import Unit
from placematd.volume import Volumes

ME = pwd.getpwuid(os.geteuid()).pw_name


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    settings = Settings(cluster="c1", data_dir=tmp_path)
    return Storage(settings, Volumes(tmp_path))


def disk(root: Path, name: str = "n1/data", size: str = "1M", owner: str = "Node n1") -> VolumeFile:
    path = root / "c1" / "volumes" / f"{name}.img"
    return VolumeFile(name=name, form="raw", path=path, user=ME, size=size, format="raw", owner=owner)


def plan(*resources: VolumeFile | UnitResource) -> Plan:
    return Plan(cluster="c1", resources=resources)


def test_a_disk_is_told_of_until_it_is_reset(storage: Storage, tmp_path: Path) -> None:
    before, after = plan(disk(tmp_path)), plan(disk(tmp_path, size="2M"))
    storage.make([disk(tmp_path)])
    assert storage.warnings(before) == []
    storage.make([disk(tmp_path, size="2M")])
    (warning,) = storage.warnings(after)
    assert warning.startswith("volume n1/data: changed since it was made (size: 1M → 2M); it is kept")
    assert "placemat-cli volume reset n1 data" in warning
    assert storage.listed(after)[0]["changes"] == "size: 1M → 2M"
    assert disk(tmp_path).path.stat().st_size == 1 << 20

    assert storage.reset(after, "n1", "data")["changes"] == ""
    assert disk(tmp_path).path.stat().st_size == 2 << 20
    assert storage.warnings(after) == []


def test_a_volume_of_a_node_that_is_no_more_is_listed_and_not_made_again(storage: Storage, tmp_path: Path) -> None:
    storage.make([disk(tmp_path)])
    assert storage.warnings(plan()) == []
    assert [volume["path"] for volume in storage.listed(plan())] == [str(disk(tmp_path).path)]
    storage.reset(plan(), "n1", "data")
    assert not disk(tmp_path).path.exists()
    with pytest.raises(NotFound):
        storage.reset(plan(), "n1", "data")


def test_only_nodes_that_start_need_a_disk_that_they_can_use(storage: Storage, tmp_path: Path) -> None:
    storage.make([disk(tmp_path), disk(tmp_path, "n2/data", owner="Node n2")])
    moved = [
        replace(disk(tmp_path, f"{node}/data", owner=f"Node {node}"), path=tmp_path / "elsewhere" / f"{node}.img")
        for node in ("n1", "n2")
    ]
    unit = UnitResource(name="placemat-c1-node-n1.service", what="node", unit=Unit("x", ()), owner="Node n1")
    changes = compare(plan(*moved, unit), Volumes(tmp_path).observe("c1"))
    assert kept_for_starting(changes) == moved[:1]
    with pytest.raises(StepError, match=f"it is at {disk(tmp_path).path}"):
        storage.make(kept_for_starting(changes))
    running = compare(plan(*moved, unit), [*Volumes(tmp_path).observe("c1"), unit.mark("c1")])
    assert kept_for_starting(running) == []
