"""The client of the HTTP API against a real server on a Unix socket."""

import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.api import FakeApi
from placemat_cli.client import Api
from placemat_cli.errors import BadUsage, Refused, Unreachable
from placemat_cli.follow import Follower

from placematd.errors import NotFound, PlacematError, WrongState


@pytest.fixture
def client(api: FakeApi) -> Api:
    return Api("lab", api.path)


@pytest.fixture
def answer(tmp_path: Path):
    """A server that answers each connection with the given bytes and closes it."""
    servers = []

    def serve(data: bytes | None) -> Api:
        path = tmp_path / "odd.sock"
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(path))
        server.listen()

        def run() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                if data is None:
                    connection.recv(1)  # never answers; waits for the client to leave
                else:
                    connection.sendall(data)

        thread = threading.Thread(target=run)
        thread.start()
        servers.append((server, thread))
        return Api("lab", path)

    yield serve
    for server, thread in servers:
        thread.join()
        server.close()


def test_requests_carry_what_was_asked_for(client: Api, api: FakeApi):
    client.node("worker-1")
    client.node_action("worker-1", "stop", graceful=True, timeout_seconds=7)
    client.reload(dry_run=True)
    assert api.requests == [
        ("GET", "/v1/nodes/worker-1", None),
        ("POST", "/v1/nodes/worker-1/stop", {"graceful": True, "timeout_seconds": 7}),
        ("POST", "/v1/reload?dry_run=1", {}),
    ]


def test_a_node_name_cannot_reach_another_path(client: Api, api: FakeApi):
    with pytest.raises(NotFound):
        client.node("../cluster?x=#")
    assert api.requests == [("GET", "/v1/nodes/..%2Fcluster%3Fx%3D%23", None)]


@pytest.mark.parametrize(
    ("status", "kind"), [(400, BadUsage), (404, NotFound), (409, WrongState), (500, Refused), (504, Refused)]
)
def test_errors_have_the_text_and_hint_of_the_service(
    client: Api, api: FakeApi, status: int, kind: type[PlacematError]
):
    api.fail("/v1/nodes", status, "stop node worker-1: no answer", "force it")
    with pytest.raises(kind) as caught:
        client.nodes()
    assert type(caught.value) is kind
    assert str(caught.value) == "stop node worker-1: no answer (force it)"


def test_a_hint_that_is_in_the_text_is_not_said_twice(client: Api, api: FakeApi):
    api.fail("/v1/nodes", 500, "it failed (force it)", "force it")
    with pytest.raises(Refused, match=r"^it failed \(force it\)$"):
        client.nodes()


def test_mistakes_are_all_shown(client: Api, api: FakeApi):
    api.fail("/v1/reload", 400, "bad", mistakes=("a.yml:1:1: one", "a.yml:2:1: two"))
    with pytest.raises(BadUsage, match=r"^a.yml:1:1: one\na.yml:2:1: two$"):
        client.reload()


def test_an_error_that_is_not_json_is_still_an_error(client: Api, api: FakeApi):
    api.errors["/v1/nodes"] = (502, b"<html>")
    with pytest.raises(Refused, match="the service answered with status 502"):
        client.nodes()


CALLS: list[Callable[[Api], object]] = [Api.nodes, Api.events, lambda api: api.console("worker-1")]


@pytest.mark.parametrize("call", CALLS)
def test_no_socket_and_a_dead_socket_mean_not_running(tmp_path: Path, call: Callable[[Api], object]):
    path = tmp_path / "api.sock"
    with pytest.raises(Unreachable, match="cluster lab is not running"):
        call(Api("lab", path))
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.close()
    with pytest.raises(Unreachable, match="cluster lab is not running"):
        call(Api("lab", path))


@pytest.mark.parametrize(
    ("call", "data"),
    [(call, data) for call in CALLS for data in (b"", b"220 smtp ready\r\n\r\n")]
    + [(call, b"HTTP/1.1 200 OK\r\nContent-Le") for call in CALLS if call is not Api.events],
)
def test_an_answer_that_is_cut_off_or_not_http(answer, call: Callable[[Api], object], data: bytes):
    with pytest.raises(Unreachable, match="the service of cluster lab does not answer"):
        call(answer(data))


def test_a_service_that_hangs_is_given_up(answer, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(Unreachable, match="no answer in time"):
        answer(None).console("worker-1", timeout_seconds=0.1)


def test_console_errors_are_the_services(client: Api, api: FakeApi):
    api.fail("/v1/nodes/worker-1/console", 409, "worker-1 has no console now")
    with pytest.raises(WrongState, match="worker-1 has no console now"):
        client.console("worker-1")


def test_the_first_bytes_of_a_console_are_not_lost(client: Api):
    console = client.console("worker-1")
    with console.connection:
        data = console.first
        while len(data) < len(b"login: "):
            data += console.connection.recv(100)
        assert data == b"login: "


def test_events_begin_with_the_recent_ones_and_end_with_the_service(client: Api, api: FakeApi):
    api.publish("step", "one")
    stream = iter(client.events())
    assert next(stream)["message"] == "one"
    api.publish("node", "two", node="worker-1", power="Off")
    event = next(stream)
    assert (event["kind"], event["message"], event["node"], event["power"]) == ("node", "two", "worker-1", "Off")
    api.stop()
    assert list(stream) == []


def test_a_follower_sees_each_event_once_across_a_restart_of_the_service(client: Api, api: FakeApi):
    with Follower(client) as follower:
        api.publish("step", "one")
        api.publish("step", "two")  # perhaps in the same millisecond
        assert [follower.next(10)["message"] for _ in range(2)] == ["one", "two"]
        api.stop()
        api.start()
        api.publish("step", "three")
        assert follower.next(10)["message"] == "three"
        assert follower.next(0) is None


def test_a_follower_that_nobody_serves_ends_at_once(tmp_path: Path):
    with Follower(Api("lab", tmp_path / "none")) as follower:
        assert follower.next(0.05) is None
        assert not follower.connected
