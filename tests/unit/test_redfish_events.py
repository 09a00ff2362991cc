"""Redfish events and tasks: subscriptions, deliveries, server-sent events, long operations."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from fakes.machine import FakeMachine
from redfish_client import V1, Bmc
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders, HTTPServerRequest, ResponseStartLine
from tornado.testing import bind_unused_port

from placematd.bmc.redfish import events, tasks
from placematd.bmc.redfish.delivery import Delivery
from placematd.bmc.redfish.messages import RedfishError
from placematd.bmc.redfish.resource import Action, Call, Json, Resource
from placematd.bmc.redfish.tasks import Task
from placematd.errors import PlacematError

SERVICE = f"{V1}/EventService"
SUBSCRIPTIONS = f"{SERVICE}/Subscriptions"
TEST = f"{SERVICE}/Actions/EventService.SubmitTestEvent"
SYSTEM = f"{V1}/Systems/System.Embedded.1"


class Receiver:
    """Somebody who takes events; `statuses` are its next answers, 204 after them."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.got: asyncio.Queue[tuple[dict[str, str], Any]] = asyncio.Queue()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        sock, port = bind_unused_port()
        server = HTTPServer(self._take)
        server.add_socket(sock)
        yield f"http://127.0.0.1:{port}/events"
        server.stop()
        await server.close_all_connections()

    def _take(self, request: HTTPServerRequest) -> None:
        self.got.put_nowait((dict(request.headers), json.loads(request.body)))
        status = self.statuses.pop(0) if self.statuses else 204
        assert request.connection
        request.connection.write_headers(
            ResponseStartLine("HTTP/1.1", status, "-"), HTTPHeaders({"Content-Length": "0"})
        )
        request.connection.finish()

    async def next(self) -> tuple[dict[str, str], Any]:
        async with asyncio.timeout(5):
            return await self.got.get()


@contextlib.asynccontextmanager
async def delivering(bmc: Bmc) -> AsyncIterator[Bmc]:
    delivery = Delivery(bmc.services.events, bmc.services.settings)
    bmc.services.events.open(delivery.start)
    await asyncio.sleep(0)
    yield bmc
    await bmc.services.events.close()
    delivery.close()


def test_a_subscriber_gets_what_happens() -> None:
    async def run() -> None:
        receiver = Receiver()
        async with receiver.serving() as url, delivering(await Bmc().start()) as bmc:
            body = {"Destination": url, "Protocol": "Redfish", "Context": "mine", "HttpHeaders": [{"X-Key": "open"}]}
            made = await bmc.post(SUBSCRIPTIONS, body)
            assert (made.status, made.headers["Location"]) == (201, made.json["@odata.id"])
            assert made.json["HttpHeaders"] == []
            await bmc.machine.power("on")
            headers, event = await receiver.next()
            assert headers["X-Key"] == "open"
            assert event["Context"] == "mine"
            record = event["Events"][0]
            assert record["MessageId"].startswith("Placemat.1.0.")
            assert record["OriginOfCondition"]["@odata.id"].startswith(SYSTEM)
            assert (await bmc.get(record["OriginOfCondition"]["@odata.id"])).status == 200

    asyncio.run(run())


def test_filters() -> None:
    async def run() -> None:
        receiver = Receiver()
        async with receiver.serving() as url, delivering(await Bmc().start()) as bmc:
            body = {"Destination": url, "Protocol": "Redfish", "MessageIds": ["Placemat.1.0.PowerStateChanged"]}
            await bmc.post(SUBSCRIPTIONS, body)
            assert (await bmc.post(TEST, {"Message": "not this"})).status == 204
            await bmc.machine.power("on")
            _, event = await receiver.next()
            assert event["Events"][0]["MessageId"] == "Placemat.1.0.PowerStateChanged"

    asyncio.run(run())


def test_a_test_event_is_what_it_was_asked_to_be() -> None:
    async def run() -> None:
        receiver = Receiver()
        async with receiver.serving() as url, delivering(await Bmc().start()) as bmc:
            await bmc.post(SUBSCRIPTIONS, {"Destination": url, "Protocol": "Redfish"})
            await bmc.post(TEST, {"EventId": "77", "MessageId": "Mine.1.0.Boo", "OriginOfCondition": SYSTEM})
            _, event = await receiver.next()
            record = event["Events"][0]
            assert (record["EventId"], record["MessageId"]) == ("77", "Mine.1.0.Boo")
            assert record["OriginOfCondition"] == {"@odata.id": SYSTEM}

    asyncio.run(run())


def test_subscriptions_last() -> None:
    async def run() -> None:
        receiver = Receiver()
        async with receiver.serving() as url:
            async with delivering(await Bmc().start()) as bmc:
                await bmc.post(SUBSCRIPTIONS, {"Destination": url, "Protocol": "Redfish", "Context": "kept"})
            async with delivering(await Bmc(machine=bmc.machine).start(fresh=False)) as again:
                await again.post(TEST, {})
                assert (await receiver.next())[1]["Context"] == "kept"
                mine = (await again.get(SUBSCRIPTIONS)).json["Members"][0]["@odata.id"]
                assert (await again.patch(mine, {"Context": "other"})).json["Context"] == "other"
                assert (await again.delete(mine)).status == 204
            third = await Bmc(machine=bmc.machine).start(fresh=False)
            assert third.services.settings.values.subscriptions == ()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("policy", "left", "state"), [("TerminateAfterRetries", 0, ""), ("SuspendRetries", 1, "Disabled")]
)
def test_somebody_who_never_listens(policy: str, left: int, state: str) -> None:
    async def run() -> None:
        receiver = Receiver(500, 500)
        async with receiver.serving() as url, delivering(await Bmc().start()) as bmc:
            await bmc.services.settings.change(delivery_attempts=1, delivery_interval_seconds=0)
            await bmc.post(SUBSCRIPTIONS, {"Destination": url, "Protocol": "Redfish", "DeliveryRetryPolicy": policy})
            await bmc.post(TEST, {})
            first, second = await receiver.next(), await receiver.next()
            assert first[1] == second[1]
            async with asyncio.timeout(5):
                while len(bmc.services.events.all()) != left or any(
                    not one.suspended for one in bmc.services.events.all()
                ):
                    await asyncio.sleep(0.01)
            members = (await bmc.get(SUBSCRIPTIONS)).json["Members"]
            assert [(await bmc.get(one["@odata.id"])).json["Status"]["State"] for one in members] == [state] * left
            assert len(bmc.services.settings.values.subscriptions) == left

    asyncio.run(run())


@pytest.mark.parametrize(
    "change",
    [
        {"Destination": "ftp://192.0.2.1/"},
        {"Destination": "https://"},
        {"Destination": "https://user:word@192.0.2.1/"},
        {"Destination": "http://192.0.2.1:99999/"},
        {"Destination": "http://0.0.0.0/"},
        {"Destination": "http://192.0.2.1/a b"},
        {"Destination": "http://[::1/"},
        {"Protocol": "SMTP"},
        {"EventTypes": ["Everything"]},
        {"HttpHeaders": [{"Host": "elsewhere"}]},
        {"HttpHeaders": [{"X-A": "b\r\nX-C: d"}]},
        {"HttpHeaders": [{"X-A": 1}]},
        {"HttpHeaders": "X-A: b"},
        {"DeliveryRetryPolicy": "Never"},
    ],
)
def test_subscriptions_that_cannot_be(change: dict[str, object]) -> None:
    async def run() -> None:
        bmc = await Bmc().start()
        body = {"Destination": "http://192.0.2.1/", "Protocol": "Redfish", **change}
        assert (await bmc.post(SUBSCRIPTIONS, body)).status == 400
        assert not bmc.services.events.all()

    asyncio.run(run())


class Disk(FakeMachine):
    """Takes its time to save, as a disk does."""

    async def save(self, section: str, value: Mapping[str, Any]) -> None:
        await asyncio.sleep(0.001)
        await super().save(section, value)


def test_two_at_once_are_both_kept() -> None:
    async def run() -> None:
        bmc = await Bmc(machine=Disk()).start()
        body = {"Destination": "http://192.0.2.1/", "Protocol": "Redfish"}
        subscribing = [bmc.post(SUBSCRIPTIONS, body) for _ in range(5)]
        changing = bmc.patch(SERVICE, {"DeliveryRetryAttempts": 7})
        assert [reply.status for reply in await asyncio.gather(*subscribing, changing)] == [201] * 5 + [200]
        again = await Bmc(machine=bmc.machine).start(fresh=False)
        assert len(again.services.settings.values.subscriptions) == 5
        assert again.services.settings.values.delivery_attempts == 7

    asyncio.run(run())


def test_subscriptions_are_bounded() -> None:
    async def run() -> None:
        bmc = await Bmc().start()
        body = {"Destination": "http://192.0.2.1/", "Protocol": "Redfish"}
        for _ in range(events.MOST_SUBSCRIPTIONS):
            assert (await bmc.post(SUBSCRIPTIONS, body)).status == 201
        assert (await bmc.post(SUBSCRIPTIONS, body)).messages == ["EventSubscriptionLimitExceeded"]

    asyncio.run(run())


def test_a_stream_of_events() -> None:
    async def run() -> None:
        bmc = await Bmc().start()
        assert (await bmc.get(f"{SERVICE}/SSE", user=None)).status == 401
        reply = await bmc.get(f"{SERVICE}/SSE")
        assert (reply.status, reply.headers["Content-Type"]) == (200, "text/event-stream")
        stream = reply.answer.stream
        assert stream
        assert await anext(stream) == b": open\n\n"
        mine = (await bmc.get(SUBSCRIPTIONS)).json["Members"][0]["@odata.id"]
        assert (await bmc.get(mine)).json["SubscriptionType"] == "SSE"
        await bmc.post(TEST, {})
        first = (await anext(stream)).decode().split("\n")
        assert first[0].startswith("id: ")
        assert json.loads(first[1].removeprefix("data: "))["Context"] == (await bmc.get(mine)).json["Context"]
        assert first[2:] == ["", ""]
        assert bmc.services.settings.values.subscriptions == ()
        assert (await bmc.delete(mine)).status == 204
        assert [chunk async for chunk in stream] == []

    asyncio.run(run())


def test_streams_are_bounded_and_forget_those_who_leave() -> None:
    async def run() -> None:
        bmc = await Bmc().start()
        streams = []
        for _ in range(events.MOST_STREAMS):
            stream = (await bmc.get(f"{SERVICE}/SSE")).answer.stream
            assert stream
            await anext(stream)
            streams.append(stream)
        assert (await bmc.get(f"{SERVICE}/SSE")).status == 503
        for number in range(events.MOST_WAITING * 2):
            await bmc.post(TEST, {"EventId": str(number)})
        assert bmc.services.events.all()[0].waiting.qsize() == events.MOST_WAITING
        for stream in streams:
            await stream.aclose()  # type: ignore[attr-defined]
        assert not bmc.services.events.all()

    asyncio.run(run())


def slow(work: Any) -> Resource:
    async def get(call: Call) -> Json:
        return {"Id": "Slow", "Name": "Slow"}

    async def begin(call: Call) -> Task:
        return call.start("Something slow", work)

    return Resource(uri=f"{V1}/Slow", type="Slow.v1_0_0.Slow", get=get, actions=[Action("Slow.Begin", begin)])


def test_a_task_from_begin_to_end() -> None:
    async def run() -> None:
        going, end = asyncio.Event(), asyncio.Event()

        async def work(task: Task) -> None:
            task.progress(25, 100)
            going.set()
            await end.wait()

        bmc = await Bmc(more=[slow(work)]).start()
        reply = await bmc.post(f"{V1}/Slow/Actions/Slow.Begin", {}, user="operator")
        assert (reply.status, reply.json["TaskState"]) == (202, "Running")
        await going.wait()
        monitor, task = reply.headers["Location"], reply.json["@odata.id"]
        assert (await bmc.get(task)).json["PercentComplete"] == 25
        waiting = await bmc.get(monitor)
        assert (waiting.status, waiting.headers["Location"]) == (202, monitor)
        assert bmc.services.tasks.running == 1
        end.set()
        await asyncio.sleep(0.01)
        assert (await bmc.get(monitor)).status == 204
        done = (await bmc.get(task)).json
        assert (done["TaskState"], done["PercentComplete"]) == ("Completed", 100)
        assert done["Messages"][0]["MessageId"].endswith(".Success")
        assert (await bmc.delete(task, user="reader")).status == 403
        assert (await bmc.delete(task, user="operator")).status == 204
        assert (await bmc.get(monitor)).status == 404

    asyncio.run(run())


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (PlacematError("no such image"), 500, "MachineError"),
        (RedfishError("ResourceAtUriInUnknownFormat", "http://x"), 400, "ResourceAtUriInUnknownFormat"),
        (ZeroDivisionError("secret"), 500, "InternalError"),
    ],
)
def test_a_task_that_fails(error: Exception, status: int, message: str) -> None:
    async def run() -> None:
        async def work(task: Task) -> None:
            raise error

        bmc = await Bmc(more=[slow(work)]).start()
        reply = await bmc.post(f"{V1}/Slow/Actions/Slow.Begin", {})
        await asyncio.sleep(0.01)
        end = await bmc.get(reply.headers["Location"])
        assert (end.status, end.messages) == (status, [message])
        task = (await bmc.get(reply.json["@odata.id"])).json
        assert (task["TaskState"], task["TaskStatus"]) == ("Exception", "Warning")
        assert "secret" not in str(task)

    asyncio.run(run())


def test_tasks_are_bounded_and_can_be_cancelled() -> None:
    async def run() -> None:
        async def work(task: Task) -> None:
            await asyncio.Event().wait()

        bmc = await Bmc(more=[slow(work)]).start()
        begin = f"{V1}/Slow/Actions/Slow.Begin"
        first = await bmc.post(begin, {})
        for _ in range(tasks.MOST - 1):
            assert (await bmc.post(begin, {})).status == 202
        full = await bmc.post(begin, {})
        assert (full.status, full.headers["Retry-After"]) == (503, "30")
        await asyncio.sleep(0)
        assert (await bmc.delete(first.json["@odata.id"])).status == 204
        assert (await bmc.post(begin, {})).status == 202
        await bmc.services.tasks.close()
        assert bmc.services.tasks.running == 0
        assert (await bmc.post(begin, {})).status == 202, "ended ones make room"
        await bmc.services.tasks.close()

    asyncio.run(run())
