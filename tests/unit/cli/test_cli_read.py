"""`check` and `plan` of real cluster files."""

import json
from pathlib import Path

import pytest

GOOD = """kind: Network
name: net0
type: internal
---
kind: NetworkNamespace
name: boot
interfaces:
- network: net0
---
kind: Node
name: worker-1
interfaces: [net0]
cpu: 1
memory: 1G
---
kind: Node
name: worker-2
interfaces: [net0]
cpu: 1
memory: 1G
"""
BAD = """kind: Network
name: net0
type: exernal
---
kind: Node
name: worker-1
interfaces: [net1]
cpu: 1
memory: 1G
"""


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "lab.yml"
    path.write_text(GOOD)
    return path


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "bad.yml"
    path.write_text(BAD)
    return path


def test_check_counts_what_it_read(cli, good):
    result = cli("check", str(good))
    assert (result.status, result.out, result.err) == (0, "ok: 1 network, 1 namespace, 2 nodes\n", "")
    assert json.loads(cli("check", str(good), "--json").out) == {
        "ok": True,
        "mistakes": [],
        "networks": 1,
        "namespaces": 1,
        "nodes": 2,
    }


def test_check_shows_every_mistake_with_its_place(cli, bad):
    result = cli("check", str(bad))
    assert (result.status, result.out) == (2, "")
    places = [line.split(": ")[0] for line in result.err.splitlines()]
    assert f"{bad}:3:7" in places
    assert any(place.startswith(f"{bad}:7:") for place in places)


def test_check_shows_mistakes_as_json(cli, bad):
    result = cli("check", str(bad), "--json")
    assert (result.status, result.err) == (2, "")
    answer = json.loads(result.out)
    assert answer["ok"] is False
    first = answer["mistakes"][0]
    assert (first["file"], first["line"], first["column"], first["severity"]) == (str(bad), 3, 7, "error")
    assert first["subject"] == "Network net0"


def test_warnings_are_shown_and_are_no_failure(cli, good):
    good.write_text(GOOD.replace("cpu: 1\n", "cpu: 1\nUEFI: false\n", 1))
    result = cli("check", str(good))
    assert (result.status, result.out) == (0, "ok: 1 network, 1 namespace, 2 nodes\n")
    assert f"{good}:14:1: warning: " in result.err
    [warning] = json.loads(cli("check", str(good), "--json").out)["mistakes"]
    assert (warning["severity"], warning["line"]) == ("warning", 14)


def test_check_of_a_file_that_is_not_there(cli, tmp_path):
    result = cli("check", str(tmp_path / "none.yml"))
    assert result.status == 2
    assert "none.yml" in result.err


def test_check_of_a_directory_and_of_a_name(cli, places, good, tmp_path):
    assert cli("check", str(tmp_path)).out.startswith("ok: 1 network")
    (places.config / "lab.yml").write_text(GOOD)
    assert cli("check", "lab").out.startswith("ok: 1 network")
    result = cli("check", "other")
    assert result.status == 2
    assert "no cluster other" in result.err


def test_plan_shows_what_would_be_made(cli, good):
    result = cli("plan", str(good))
    assert result.status == 0
    for text in (
        "cluster lab:",
        "bridge net0",
        "netns boot",
        "placemat-lab-node-worker-1.service",
        "qemu-system-x86_64",
    ):
        assert text in result.out


def test_plan_as_json(cli, good):
    plan = json.loads(cli("plan", str(good), "--json", "--name", "racks").out)
    assert plan["cluster"] == "racks"
    assert {"bridge", "netns", "tap", "unit"} <= {resource["kind"] for resource in plan["resources"]}
    assert "changes" not in plan


def test_plan_of_bad_files_is_their_mistakes(cli, bad):
    assert cli("plan", str(bad)).status == 2


def test_plan_of_a_running_cluster_shows_what_a_reload_would_change(cli, places, api):
    (places.config / "lab.yml").write_text(GOOD)
    api.changes = [{"action": "replace", "resource": "unit x.service", "reason": "memory changed"}]
    result = cli("plan", "lab")
    assert result.out.splitlines()[-2:] == [
        "Cluster lab runs; a reload would make 1 change:",
        "  replace  unit x.service: memory changed",
    ]
    assert json.loads(cli("plan", "lab", "--json").out)["changes"] == api.changes
    assert {path for _, path, _ in api.requests} == {"/v1/reload?dry_run=1"}
    api.changes = []
    assert cli("plan", "lab").out.splitlines()[-1] == "Cluster lab runs exactly so: nothing would change."


def test_plan_of_other_files_is_not_compared_with_what_runs(cli, places, api, good):
    (places.config / "lab.yml").write_text(GOOD)
    assert cli("plan", str(good)).status == 0
    assert api.requests == []
