"""placemat v2's own API, in the shapes and statuses of its pkg/placemat/server.go."""

import json
from pathlib import Path

import pytest
from unit.api_backend import FakeBackend, ask, run, serving

from placematd.api_v2 import application, is_local
from placematd.errors import StepError

V2_NODE = {
    "name": "worker-1",
    "taps": {"net0": "pmt-1", "net1": "pmt-3"},
    "volumes": ["root"],
    "cpu": 6,
    "memory": "2G",
    "uefi": False,
    "tpm": True,
    "smbios": {"manufacturer": "cybozu", "product": "mk2", "serial": "1234abcd"},
    "power_status": "On",
    "socket_path": "/run/placemat/lab/node/worker-1/console",
}


def test_nodes_have_v2s_shape(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(application(FakeBackend(tmp_path / "console")), tmp_path) as path:
            status, head, body = await ask(path, "GET", "/nodes")
            assert (status, json.loads(body)) == (200, [V2_NODE])
            assert b"application/json; charset=utf-8" in head
            status, _, body = await ask(path, "GET", "/nodes/worker-1")
            assert (status, json.loads(body)) == (200, V2_NODE)

    run(scenario)


@pytest.mark.parametrize(
    ("power", "v2"), [("On", "On"), ("Off", "Off"), ("PoweringOn", "Unknown"), ("Unknown", "Unknown")]
)
def test_power_is_one_of_v2s_words(tmp_path: Path, power: str, v2: str) -> None:
    async def scenario() -> None:
        backend = FakeBackend(tmp_path / "console")
        backend.node["power"] = power
        async with serving(application(backend), tmp_path) as path:
            assert json.loads((await ask(path, "GET", "/nodes/worker-1"))[2])["power_status"] == v2

    run(scenario)


def test_actions_answer_null(tmp_path: Path) -> None:
    async def scenario() -> None:
        backend = FakeBackend(tmp_path / "console")
        async with serving(application(backend), tmp_path) as path:
            for action in ("stop", "start", "restart"):
                assert (await ask(path, "POST", f"/nodes/worker-1/{action}"))[::2] == (200, b"null")
        assert [action for _, action, _ in backend.actions] == ["stop", "start", "restart"]

    run(scenario)


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/nodes/nobody", 404),
        ("POST", "/nodes/nobody/start", 404),
        ("POST", "/nodes/nobody/explode", 404),
        ("POST", "/nodes/worker-1/explode", 400),
        ("GET", "/v1/nodes", 404),
        ("GET", "/", 404),
    ],
)
def test_errors_are_a_status_and_null(tmp_path: Path, method: str, target: str, status: int) -> None:
    async def scenario() -> None:
        async with serving(application(FakeBackend(tmp_path / "console")), tmp_path) as path:
            assert (await ask(path, method, target))[::2] == (status, b"null")

    run(scenario)


def test_a_failure_is_500(tmp_path: Path) -> None:
    async def scenario() -> None:
        backend = FakeBackend(tmp_path / "console")
        backend.error = StepError("ask the monitor", "no answer")
        async with serving(application(backend), tmp_path) as path:
            assert (await ask(path, "POST", "/nodes/worker-1/start"))[::2] == (500, b"null")

    run(scenario)


@pytest.mark.parametrize(
    "headers",
    [
        "Host: evil.example\r\n",
        "Host: evil.example:10808\r\n",
        "Host: localhost.evil.example\r\n",
        "Host: localhost\r\nOrigin: http://localhost:10808\r\n",
        "Host: localhost\r\nOrigin: null\r\n",
    ],
)
def test_what_a_browser_sends_for_another_site_is_refused(tmp_path: Path, headers: str) -> None:
    async def scenario() -> None:
        backend = FakeBackend(tmp_path / "console")
        async with serving(application(backend), tmp_path) as path:
            assert (await ask(path, "GET", "/nodes", headers=headers))[::2] == (403, b"null")
            assert (await ask(path, "POST", "/nodes/worker-1/stop", headers=headers))[0] == 403
        assert backend.actions == []

    run(scenario)


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True),
        ("localhost:10808", True),
        ("127.0.0.1:10808", True),
        ("192.0.2.1", True),
        ("[::1]:10808", True),
        ("", False),
        ("placemat.example", False),
        ("127.0.0.1.example", False),
    ],
)
def test_addresses_and_localhost_are_this_machine(host: str, local: bool) -> None:
    assert is_local(host) is local
