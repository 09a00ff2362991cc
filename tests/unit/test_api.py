"""The HTTP API as a client on the Unix socket sees it."""

import asyncio
import json
from pathlib import Path

import pytest
from unit.api_backend import NODE, FakeBackend, Listener, ask, run, serving

from placematd.api import MAX_BODY_BYTES, PowerRequest, application
from placematd.errors import InvalidCluster, Mark, Mistake, NotFound, PlacematError, StepError, TimedOut, WrongState

UPGRADE = "Connection: Upgrade\r\nUpgrade: tcp\r\n"
FORWARD = {"local": "[::0]:53", "remote": "boot:[fd00::2]:53", "protocol": "udp"}


def test_what_is_asked_is_answered_as_json(tmp_path: Path) -> None:
    async def scenario() -> None:
        backend = FakeBackend(tmp_path / "console")
        async with serving(application(backend), tmp_path) as path:
            for target, expected in (
                ("/v1/cluster", {"name": "lab", "state": "running", "nodes": [NODE]}),
                ("/v1/nodes", [NODE]),
                ("/v1/nodes/worker-1", NODE),
                ("/v1/forwards", []),
            ):
                status, head, body = await ask(path, "GET", target)
                assert (status, json.loads(body)) == (200, expected)
                assert b"Content-Type: application/json; charset=utf-8" in head
                assert b"Cache-Control: no-store" in head

    run(scenario)


def test_nodes_are_switched_as_the_body_says(tmp_path: Path) -> None:
    async def scenario() -> None:
        backend = FakeBackend(tmp_path / "console")
        async with serving(application(backend), tmp_path) as path:
            status, _, body = await ask(path, "POST", "/v1/nodes/worker-1/stop")
            assert (status, json.loads(body)["power"]) == (200, "Off")
            await ask(path, "POST", "/v1/nodes/worker-1/start", b"{}")
            await ask(path, "POST", "/v1/nodes/worker-1/restart", b'{"graceful": true, "timeout_seconds": 5}')
            assert (await ask(path, "POST", "/v1/nodes/worker-1/explode"))[0] == 404
        assert backend.actions == [
            ("worker-1", "stop", PowerRequest()),
            ("worker-1", "start", PowerRequest()),
            ("worker-1", "restart", PowerRequest(graceful=True, timeout_seconds=5)),
        ]

    run(scenario)


def test_volumes_are_listed_and_those_of_a_node_that_is_off_are_reset(tmp_path: Path) -> None:
    async def scenario() -> None:
        backend = FakeBackend(tmp_path / "console")
        async with serving(application(backend), tmp_path) as path:
            status, _, body = await ask(path, "GET", "/v1/volumes")
            assert (status, json.loads(body)) == (200, [{"node": "worker-1", "name": "@tpm"}])
            assert (await ask(path, "POST", "/v1/volumes/worker-1/@tpm/reset"))[0] == 409
            backend.node["power"] = "Off"
            for volume in ("@tpm", "root", "data_1.x"):
                status, _, body = await ask(path, "POST", f"/v1/volumes/worker-1/{volume}/reset")
                assert (status, json.loads(body)) == (200, {"node": "worker-1", "name": volume})
            for strange in ("..", ".hidden", "a%2Fb", "-x"):
                assert (await ask(path, "POST", f"/v1/volumes/worker-1/{strange}/reset"))[0] == 404
            assert (await ask(path, "POST", "/v1/volumes/other/root/reset"))[0] == 404

    run(scenario)


def test_reload_and_its_dry_run(tmp_path: Path) -> None:
    async def scenario() -> None:
        backend = FakeBackend(tmp_path / "console")
        async with serving(application(backend), tmp_path) as path:
            status, _, body = await ask(path, "POST", "/v1/reload")
            assert (status, json.loads(body)["changes"][0]["resource"]) == (200, "unit x")
            await ask(path, "POST", "/v1/reload?dry_run=1")
            await ask(path, "POST", "/v1/reload?dry_run=0")
        assert backend.reloads == [False, True, False]

    run(scenario)


def test_forwards_are_made_listed_and_deleted(tmp_path: Path) -> None:
    async def scenario() -> None:
        backend = FakeBackend(tmp_path / "console")
        async with serving(application(backend), tmp_path) as path:
            body = json.dumps(FORWARD).encode()
            status, _, made = await ask(path, "POST", "/v1/forwards", body)
            assert (status, json.loads(made)["local_address"], json.loads(made)["pod"]) == (200, "::", "boot")
            assert (await ask(path, "POST", "/v1/forwards", body))[0] == 409
            assert json.loads((await ask(path, "GET", "/v1/forwards"))[2]) == [json.loads(made)]
            assert (await ask(path, "DELETE", "/v1/forwards/udp-%5B%3A%3A%5D%3A53"))[::2] == (204, b"")
            assert (await ask(path, "DELETE", "/v1/forwards/udp-[::]:53"))[0] == 404

    run(scenario)


@pytest.mark.parametrize(
    ("target", "body"),
    [
        ("/v1/nodes/worker-1/stop", b"not json"),
        ("/v1/nodes/worker-1/stop", b"\xff\xfe\xfd"),
        ("/v1/nodes/worker-1/stop", b"[]"),
        ("/v1/nodes/worker-1/stop", b'{"force": true}'),
        ("/v1/nodes/worker-1/stop", b'{"graceful": 1}'),
        ("/v1/nodes/worker-1/stop", b'{"timeout_seconds": "5"}'),
        ("/v1/nodes/worker-1/stop", b'{"timeout_seconds": true}'),
        ("/v1/nodes/worker-1/stop", b'{"timeout_seconds": 0}'),
        ("/v1/nodes/worker-1/stop", b'{"timeout_seconds": NaN}'),
        ("/v1/forwards", b""),
        ("/v1/forwards", b"[]"),
        ("/v1/forwards", b'{"local": 80, "remote": "n:h:80"}'),
        ("/v1/forwards", b'{"local": "80"}'),
        ("/v1/forwards", b'{"local": "80", "remote": "n:h:80", "more": "x"}'),
        ("/v1/forwards", b'{"local": "80", "remote": "h:80"}'),
        ("/v1/forwards", b'{"local": "80", "remote": "n:h:80", "protocol": "sctp"}'),
    ],
)
def test_a_malformed_body_is_refused_and_nothing_is_done(tmp_path: Path, target: str, body: bytes) -> None:
    async def scenario() -> None:
        backend = FakeBackend(tmp_path / "console")
        async with serving(application(backend), tmp_path) as path:
            status, _, answer = await ask(path, "POST", target, body)
            assert status == 400
            assert json.loads(answer)["error"]
        assert backend.actions == []
        assert backend.forwards.made == {}

    run(scenario)


def test_a_body_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    async def scenario() -> None:
        backend = FakeBackend(tmp_path / "console")
        async with serving(application(backend), tmp_path) as path:
            length = f"Content-Length: {MAX_BODY_BYTES + 1}\r\n"
            assert (await ask(path, "PUT", "/v1/reload", headers=length))[0] == 400
            assert (await ask(path, "GET", "/v1/nodes"))[0] == 200, "others are served"
        assert backend.reloads == []

    run(scenario)


MISTAKE = Mistake(Mark("a.yml", 2, 7), "Node n", "no such network", "networks: net0")


@pytest.mark.parametrize(
    ("error", "status", "answer"),
    [
        (InvalidCluster([MISTAKE]), 400, {"error": str(MISTAKE), "hint": "", "mistakes": [str(MISTAKE)]}),
        (NotFound("no node x"), 404, {"error": "no node x", "hint": "", "mistakes": []}),
        (WrongState("starting"), 409, {"error": "starting", "hint": "", "mistakes": []}),
        (TimedOut("stop n", "no answer", "look"), 504, {"error": "stop n: no answer (look)", "hint": "look"}),
        (StepError("start n", "failed", "look"), 500, {"error": "start n: failed (look)", "hint": "look"}),
        (PlacematError("other"), 500, {"error": "other", "hint": ""}),
        (RuntimeError("secret"), 500, {"error": "Internal Server Error", "hint": ""}),
    ],
)
def test_an_error_is_a_status_and_json(
    tmp_path: Path, error: Exception, status: int, answer: dict[str, object]
) -> None:
    async def scenario() -> None:
        backend = FakeBackend(tmp_path / "console")
        backend.error = error
        async with serving(application(backend), tmp_path) as path:
            for method, target in (("GET", "/v1/cluster"), ("POST", "/v1/reload")):
                found, _, body = await ask(path, method, target)
                assert (found, json.loads(body)) == (status, {"mistakes": []} | answer)

    run(scenario)


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1/nodes/../../etc/passwd", 404),
        ("GET", "/v1/nodes/nobody", 404),
        ("POST", "/v1/nodes/nobody/start", 404),
        ("POST", "/v1/nodes", 405),
        ("GET", "/v1/reload", 405),
        ("POST", "/v1/nodes/worker-1/console", 426),
    ],
)
def test_what_does_not_exist_is_json_too(tmp_path: Path, method: str, target: str, status: int) -> None:
    async def scenario() -> None:
        async with serving(application(FakeBackend(tmp_path / "console")), tmp_path) as path:
            found, _, body = await ask(path, method, target)
            assert found == status
            assert set(json.loads(body)) == {"error", "hint", "mistakes"}

    run(scenario)


def test_events_are_a_stream_that_begins_with_the_past(tmp_path: Path) -> None:
    async def scenario() -> None:
        backend = FakeBackend(tmp_path / "console")
        backend.events.publish("step", "before")
        async with serving(application(backend), tmp_path) as path:
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"application/x-ndjson" in head
            event = await next_event(reader)
            assert (event["kind"], event["message"]) == ("step", "before")
            backend.events.publish("progress", "image a: 50%", item="image a", done=5, total=10)
            backend.events.publish("node", "worker-1 is Off", node="worker-1", power="Off")
            event = await next_event(reader)
            assert {"kind": "progress", "item": "image a", "done": 5, "total": 10}.items() <= event.items()
            assert (await next_event(reader))["power"] == "Off"
            writer.close()
            await writer.wait_closed()
            while backend.events._subscriptions:  # the one who left is forgotten
                await asyncio.sleep(0.01)

    run(scenario)


async def next_event(reader: asyncio.StreamReader) -> dict[str, object]:
    """One event; each is a chunk."""
    size = int(await reader.readline(), 16)
    line = await reader.readexactly(size + 2)
    event = json.loads(line)
    assert line.count(b"\n") == 2 and "time" in event
    return dict(event)


def test_a_console_is_a_stream_of_bytes_both_ways(tmp_path: Path) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        qemu = Listener(tmp_path / "console")
        backend = FakeBackend(tmp_path / "console")
        backend.hub.attach()
        guest = await qemu.accept()
        async with serving(application(backend), tmp_path) as path:
            reader, writer = await enter(path)
            await loop.sock_sendall(guest, b"login: \xff\x00")
            assert await reader.readexactly(9) == b"login: \xff\x00"
            writer.write(b"root\r")
            assert await loop.sock_recv(guest, 100) == b"root\r"
            await backend.hub.close()
            assert await reader.read() == b""
            writer.close()
        guest.close()
        qemu.close()

    run(scenario)


def test_a_client_that_leaves_is_noticed_while_the_guest_does_not_read(tmp_path: Path) -> None:
    async def scenario() -> None:
        qemu = Listener(tmp_path / "console")
        backend = FakeBackend(tmp_path / "console")
        backend.hub.attach()
        guest = await qemu.accept()
        async with serving(application(backend), tmp_path) as path:
            _, writer = await enter(path)
            writer.write(b"y" * 300_000)
            for _ in range(20):  # until what the guest does not take has filled the way to it
                await asyncio.sleep(0.01)
            writer.transport.abort()
            while backend.hub._viewers:
                await asyncio.sleep(0.01)
        await backend.hub.close()
        guest.close()
        qemu.close()

    run(scenario)


async def enter(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """The console's stream, once the protocol was switched."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(f"POST /v1/nodes/worker-1/console HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n{UPGRADE}\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ") and b"Upgrade: tcp" in head
    return reader, writer
