"""The BMCs in the HTTP API, as a client on the Unix socket sees them."""

import json
from pathlib import Path
from typing import Any

from unit.api_backend import FakeBackend, ask, run, serving

from placematd.api import application
from placematd.errors import NotFound, StepError

BMC = {"node": "worker-1", "address": "172.16.1.2"}
ENTRY = {"id": 1, "message": "Power on"}


class FakeBmcs:
    """One BMC with one event."""

    def __init__(self) -> None:
        self.entries = [ENTRY]

    def _check(self, node: str) -> None:
        if node != "worker-1":
            raise NotFound(f"no node {node} in cluster lab")

    async def statuses(self) -> list[dict[str, Any]]:
        return [BMC]

    async def status(self, node: str) -> dict[str, Any]:
        self._check(node)
        return BMC | {"power": "On"}

    async def sel(self, node: str) -> list[dict[str, Any]]:
        self._check(node)
        return self.entries

    async def clear_sel(self, node: str) -> None:
        self._check(node)
        self.entries = []

    async def authority(self) -> str:
        raise StepError("CA of cluster lab", "No space left on device")


def test_bmcs_are_shown(tmp_path: Path) -> None:
    async def scenario() -> None:
        app = application(FakeBackend(tmp_path / "console"), FakeBmcs())
        async with serving(app, tmp_path) as path:
            for target, expected in (
                ("/v1/bmcs", {"bmcs": [BMC]}),
                ("/v1/bmcs/worker-1", BMC | {"power": "On"}),
                ("/v1/bmcs/worker-1/sel", {"entries": [ENTRY]}),
            ):
                status, head, body = await ask(path, "GET", target)
                assert (status, json.loads(body)) == (200, expected)
                assert b"Content-Type: application/json; charset=utf-8" in head

    run(scenario)


def test_an_event_log_is_emptied(tmp_path: Path) -> None:
    async def scenario() -> None:
        bmcs = FakeBmcs()
        async with serving(application(FakeBackend(tmp_path / "console"), bmcs), tmp_path) as path:
            assert (await ask(path, "DELETE", "/v1/bmcs/none/sel"))[0] == 404
            assert bmcs.entries == [ENTRY]
            status, _, body = await ask(path, "DELETE", "/v1/bmcs/worker-1/sel")
            assert (status, body, bmcs.entries) == (204, b"", [])

    run(scenario)


def test_what_goes_wrong_is_said(tmp_path: Path) -> None:
    async def scenario() -> None:
        app = application(FakeBackend(tmp_path / "console"), FakeBmcs())
        async with serving(app, tmp_path) as path:
            for target in (
                "/v1/bmcs/none",
                "/v1/bmcs/none/sel",
                "/v1/bmcs/..",
                "/v1/bmcs/a%2Fb",
                "/v1/bmcs/worker-1/x",
            ):
                assert (await ask(path, "GET", target))[0] == 404
            assert (await ask(path, "POST", "/v1/bmcs"))[0] == 405
            status, _, body = await ask(path, "GET", "/v1/bmc-ca")
            assert (status, json.loads(body)["error"]) == (500, "CA of cluster lab: No space left on device")

    run(scenario)


def test_without_bmcs_there_are_no_routes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(application(FakeBackend(tmp_path / "console")), tmp_path) as path:
            assert (await ask(path, "GET", "/v1/bmcs"))[0] == 404

    run(scenario)
