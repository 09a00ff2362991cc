"""The Redfish service as a client sees it: paths, methods, who may, queries, ETags, PATCH and errors."""

import asyncio
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from redfish_client import V1, Bmc

from placematd.bmc.redfish import registry
from placematd.bmc.redfish.resource import Call, Json, Resource, array_of, integer, one_of
from placematd.errors import StepError, TimedOut, WrongState

SYSTEM = f"{V1}/Systems/System.Embedded.1"
SERVICE = f"{V1}/SessionService"
ACCOUNT = f"{V1}/AccountService/Accounts/2"


def test_every_link_of_every_resource_leads_somewhere() -> None:
    async def run() -> None:
        bmc = await Bmc().start()
        waiting, seen = [f"{V1}/"], set()
        while waiting:
            uri = waiting.pop()
            if uri in seen or "#" in uri:
                continue
            seen.add(uri)
            reply = await bmc.get(uri)
            assert reply.status == 200, (uri, reply.body)
            assert reply.json["@odata.id"] == uri
            assert reply.headers["Link"].endswith("rel=describedby")
            waiting += re.findall(r'"@odata.id": "([^"]*)"', reply.body.decode())
        assert len(seen) > 60

    asyncio.run(run())


@pytest.mark.parametrize("path", ["/redfish/v1", "/redfish/v1/"])
def test_the_root_is_open_to_all(path: str) -> None:
    async def run() -> None:
        reply = await (await Bmc().start()).get(path, user=None)
        assert reply.status == 200
        assert reply.json["@odata.id"] == "/redfish/v1/"
        assert reply.headers["OData-Version"] == "4.0"
        assert reply.headers["Allow"] == "GET, HEAD"
        assert reply.headers["Cache-Control"] == "no-cache"

    asyncio.run(run())


def test_documents_are_open_to_all_and_agree_with_the_resources() -> None:
    async def run() -> None:
        bmc = await Bmc().start()
        assert (await bmc.get("/redfish", user=None)).json == {"v1": "/redfish/v1/"}
        odata = await bmc.get(f"{V1}/odata", user=None)
        for entry in odata.json["value"]:
            assert (await bmc.get(entry["url"])).status == 200
        metadata = await bmc.get(f"{V1}/$metadata", user=None)
        assert metadata.headers["Content-Type"] == "application/xml;charset=utf-8"
        tree = ElementTree.fromstring(metadata.body)
        namespaces = {element.get("Namespace") for element in tree.iter() if element.tag.endswith("}Include")}
        for uri in (f"{V1}/", SYSTEM, SERVICE, ACCOUNT):
            assert (await bmc.get(uri)).json["@odata.type"][1:].rpartition(".")[0] in namespaces
        assert (await bmc.send("DELETE", f"{V1}/$metadata")).status == 405

    asyncio.run(run())


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/redfish/v2",
        "/redfish//v1",
        "/redfish/v1//",
        f"{V1}/Systems/../AccountService",
        f"{V1}/Systems/%2e%2e/AccountService",
        f"{V1}/Systems/System%2EEmbedded%2E1",
        f"{V1}/Systems/nobody",
        f"{V1}/Systems/nobody/Actions/ComputerSystem.Reset",
        f"{SYSTEM}/Actions/Nothing",
        f"{V1}/AccountService/Accounts/02",
        f"{V1}/AccountService/Accounts/\u0662",
        V1 + "/Systems" * 200,
        "*",
        "",
    ],
)
def test_nowhere_is_404_for_those_who_are_somebody(path: str) -> None:
    async def run() -> None:
        bmc = await Bmc().start()
        assert (await bmc.post(path, {}) if "Actions" in path else await bmc.get(path)).status == 404
        assert (await bmc.get(path, user=None)).status == 401

    asyncio.run(run())


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "POST", "OPTIONS", "TRACE", "FAKE"])
def test_what_is_not_allowed_says_what_is(method: str) -> None:
    async def run() -> None:
        reply = await (await Bmc().start()).send(method, f"{V1}/", {})
        assert (reply.status, reply.headers["Allow"]) == (405, "GET, HEAD")
        assert reply.messages == ["OperationNotAllowed"]

    asyncio.run(run())


def test_an_action_takes_post_alone() -> None:
    async def run() -> None:
        reply = await (await Bmc().start()).get(f"{SYSTEM}/Actions/ComputerSystem.Reset")
        assert (reply.status, reply.headers["Allow"]) == (405, "POST")

    asyncio.run(run())


@pytest.mark.parametrize(
    ("user", "method", "uri", "body", "status"),
    [
        ("reader", "GET", SYSTEM, None, 200),
        ("reader", "POST", f"{SYSTEM}/Actions/ComputerSystem.Reset", {"ResetType": "On"}, 403),
        ("operator", "POST", f"{SYSTEM}/Actions/ComputerSystem.Reset", {"ResetType": "On"}, 204),
        ("operator", "PATCH", SERVICE, {"SessionTimeout": 60}, 403),
        ("operator", "GET", ACCOUNT, None, 403),
        ("operator", "GET", f"{V1}/AccountService/Accounts/3", None, 200),
        ("operator", "POST", f"{V1}/AccountService/Accounts", {}, 403),
        ("operator", "POST", f"{V1}/EventService/Subscriptions", {}, 403),
        ("admin", "PATCH", SERVICE, {"SessionTimeout": 60}, 200),
        (None, "GET", SYSTEM, None, 401),
        (None, "PATCH", SERVICE, {"SessionTimeout": 60}, 401),
        (None, "GET", f"{V1}/?$expand=.", None, 401),
    ],
)
def test_privileges(user: str | None, method: str, uri: str, body: object, status: int) -> None:
    async def run() -> None:
        assert (await (await Bmc().start()).send(method, uri, body, user=user)).status == status

    asyncio.run(run())


def test_expanding_shows_no_more_than_the_links_would() -> None:
    async def run() -> None:
        bmc = await Bmc().start()
        reply = await bmc.get(f"{V1}/AccountService/Accounts?$expand=.", user="operator")
        assert [len(member) > 1 for member in reply.json["Members"]] == [False, True, False]

    asyncio.run(run())


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ("$filter=Name eq 'x'", 501, "QueryParameterUnsupported"),
        ("$nothing", 501, "QueryParameterUnsupported"),
        ("$expand=everything", 400, "QueryParameterValueFormatError"),
        ("$expand=.($levels=0)", 400, "QueryParameterOutOfRange"),
        ("$expand=.($levels=99)", 400, "QueryParameterOutOfRange"),
        ("$expand", 400, "QueryParameterValueFormatError"),
        ("$select=", 400, "QueryParameterValueFormatError"),
        ("$top=-1", 400, "QueryParameterOutOfRange"),
        ("$top=many", 400, "QueryParameterValueTypeError"),
        ("$top=1&$top=2", 400, "QueryParameterValueFormatError"),
        ("only=yes", 400, "QueryParameterValueFormatError"),
        ("only&$top=1", 400, "QueryCombinationInvalid"),
    ],
)
def test_bad_queries(query: str, status: int, message: str) -> None:
    async def run() -> None:
        reply = await (await Bmc().start()).get(f"{V1}/Systems?{query}")
        assert (reply.status, reply.messages) == (status, [message])

    asyncio.run(run())


def test_queries() -> None:
    async def run() -> None:
        bmc = await Bmc().start()
        assert (await bmc.get(f"{V1}/Systems?other=1&excerpt")).json["Members@odata.count"] == 1
        assert (await bmc.get(f"{V1}/Systems?only")).json["@odata.id"] == SYSTEM
        assert (await bmc.get(f"{V1}/AccountService/Accounts?only")).json["Members@odata.count"] == 3
        assert (await bmc.get(f"{SYSTEM}?only")).messages == ["QueryNotSupportedOnResource"]
        page = (await bmc.get(f"{V1}/AccountService/Accounts?$skip=1&$top=1")).json
        assert page["Members"] == [{"@odata.id": f"{V1}/AccountService/Accounts/3"}]
        assert page["Members@odata.count"] == 3
        chosen = (await bmc.get(f"{SYSTEM}?$select=Name,Boot/BootSourceOverrideTarget")).json
        assert set(chosen) == {"@odata.id", "@odata.type", "@odata.etag", "Name", "Boot"}
        assert set(chosen["Boot"]) == {"BootSourceOverrideTarget", "BootSourceOverrideTarget@Redfish.AllowableValues"}
        assert (await bmc.patch(f"{SERVICE}?$select=Id", {"SessionTimeout": 60})).status == 400

    asyncio.run(run())


def test_expand_levels_and_links() -> None:
    async def run() -> None:
        bmc = await Bmc().start()
        one = (await bmc.get(f"{V1}/AccountService?$expand=.")).json
        assert set(one["Accounts"]["Members"][0]) == {"@odata.id"}
        two = (await bmc.get(f"{V1}/AccountService?$expand=.($levels=2)")).json
        assert two["Accounts"]["Members"][0]["UserName"] == "admin"
        role = f"{V1}/AccountService/Roles/Administrator"
        assert (await bmc.get(f"{ACCOUNT}?$expand=.")).json["Links"]["Role"] == {"@odata.id": role}
        assert (await bmc.get(f"{ACCOUNT}?$expand=~")).json["Links"]["Role"]["RoleId"] == "Administrator"
        everything = await bmc.get(f"{V1}/?$expand=*($levels=6)")
        assert everything.status == 200
        assert len(everything.body) < 5_000_000

    asyncio.run(run())


def test_head_is_get_without_a_body() -> None:
    async def run() -> None:
        bmc = await Bmc().start()
        head, get = await bmc.send("HEAD", SYSTEM), await bmc.get(SYSTEM)
        assert (head.status, head.body, head.headers["ETag"]) == (200, b"", get.headers["ETag"])

    asyncio.run(run())


def test_etags() -> None:
    async def run() -> None:
        bmc = await Bmc().start()
        before = await bmc.get(SERVICE)
        tag = before.headers["ETag"]
        assert before.json["@odata.etag"] == tag
        assert (await bmc.get(SERVICE, headers={"If-None-Match": f'"other", W/{tag}'})).status == 304
        refused = await bmc.patch(SERVICE, {"SessionTimeout": 60}, headers={"If-Match": '"other"'})
        assert (refused.status, refused.messages) == (412, ["PreconditionFailed"])
        assert (await bmc.get(SERVICE)).headers["ETag"] == tag
        done = await bmc.patch(SERVICE, {"SessionTimeout": 60}, headers={"If-Match": tag})
        assert (done.status, done.json["SessionTimeout"]) == (200, 60)
        assert done.headers["ETag"] != tag
        assert (await bmc.patch(SERVICE, {"SessionTimeout": 90}, headers={"If-Match": tag})).status == 412
        assert (await bmc.patch(SERVICE, {"SessionTimeout": 90}, headers={"If-Match": "*"})).status == 200
        assert (await bmc.delete(f"{V1}/AccountService/Accounts/4", headers={"If-Match": '"x"'})).status == 412

    asyncio.run(run())


def test_an_etag_does_not_change_with_the_clock() -> None:
    async def tick(call: Call) -> Json:
        nonlocal time
        time += 1
        return {"Id": "Clock", "DateTime": str(time), "Name": "Clock"}

    async def run() -> None:
        clock = Resource(uri=f"{V1}/Clock", type="Clock.v1_0_0.Clock", get=tick, volatile=frozenset({"DateTime"}))
        bmc = await Bmc(more=[clock]).start()
        first, second = await bmc.get(f"{V1}/Clock"), await bmc.get(f"{V1}/Clock")
        assert first.json["DateTime"] != second.json["DateTime"]
        assert first.headers["ETag"] == second.headers["ETag"]

    time = 0
    asyncio.run(run())


@pytest.mark.parametrize(
    ("body", "messages"),
    [
        ({}, ["NoOperation"]),
        ({"@odata.id": "x", "SessionTimeout@Message.ExtendedInfo": []}, ["NoOperation"]),
        ({"Bogus": 1}, ["PropertyUnknown"]),
        ({"Name": "mine", "Bogus": 1}, ["PropertyNotWritable", "PropertyUnknown"]),
        ({"SessionTimeout": "60"}, ["PropertyValueTypeError"]),
        ({"SessionTimeout": True}, ["PropertyValueTypeError"]),
        ({"SessionTimeout": None}, ["PropertyValueTypeError"]),
        ({"SessionTimeout": 60.5}, ["PropertyValueTypeError"]),
        ({"SessionTimeout": 1}, ["PropertyValueOutOfRange"]),
        ({"SessionTimeout": 10**30}, ["PropertyValueOutOfRange"]),
    ],
)
def test_a_patch_that_changes_nothing(body: object, messages: list[str]) -> None:
    async def run() -> None:
        bmc = await Bmc().start()
        reply = await bmc.patch(SERVICE, body)
        assert (reply.status, reply.messages) == (400, messages)
        assert "redfish" not in bmc.machine.durable

    asyncio.run(run())


def test_a_patch_in_part_says_which_part() -> None:
    async def run() -> None:
        bmc = await Bmc().start()
        reply = await bmc.patch(SERVICE, {"SessionTimeout": 60, "Name": "mine", "Bogus": 1})
        assert (reply.status, reply.json["SessionTimeout"]) == (200, 60)
        assert reply.messages == ["PropertyNotWritable", "PropertyUnknown"]
        assert reply.json["Name@Message.ExtendedInfo"][0]["RelatedProperties"] == ["/Name"]

    asyncio.run(run())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b'{"SessionTimeout": NaN}',
        b'{"SessionTimeout": 60, "SessionTimeout": 90}',
        b'{"Context": "\xff"}',
        b'{"Context": "\\ud800"}',
        b'{"a":' * 17 + b"1" + b"}" * 17,
        b"[" * 60000,
        b'{"SessionTimeout": ' + b"9" * 5000 + b"}",
    ],
)
def test_bodies_that_are_no_json_object(body: bytes) -> None:
    async def run() -> None:
        reply = await (await Bmc().start()).patch(SERVICE, body)
        assert (reply.status, reply.messages) == (400, ["MalformedJSON"])

    asyncio.run(run())


def test_bodies_of_another_kind_or_size() -> None:
    async def run() -> None:
        bmc = await Bmc().start()
        body = {"SessionTimeout": 60}
        assert (await bmc.patch(SERVICE, body, headers={"Content-Type": "text/xml"})).status == 415
        curl = {"Content-Type": "application/x-www-form-urlencoded"}
        assert (await bmc.patch(SERVICE, body, headers=curl)).status == 200
        assert (await bmc.patch(SERVICE, b" " * 70000)).status == 413

    asyncio.run(run())


def test_headers_that_rule_an_answer_out() -> None:
    async def run() -> None:
        bmc = await Bmc().start()
        assert (await bmc.get(SERVICE, headers={"OData-Version": "3.0"})).status == 412
        assert (await bmc.get(SERVICE, headers={"OData-Version": "3.0"}, user=None)).status == 401
        assert (await bmc.get(SERVICE, headers={"Accept": "image/png"})).status == 406
        foreign = {"Origin": "https://evil.example", "Host": "172.16.1.2"}
        assert (await bmc.patch(SERVICE, {"SessionTimeout": 60}, headers=foreign)).status == 403
        own = {"Origin": "https://172.16.1.2", "Host": "172.16.1.2"}
        assert (await bmc.patch(SERVICE, {"SessionTimeout": 60}, headers=own)).status == 200

    asyncio.run(run())


@pytest.mark.parametrize(
    ("body", "messages"),
    [
        ({}, ["ActionParameterMissing"]),
        (None, ["ActionParameterMissing"]),
        ({"ResetType": "Explode"}, ["ActionParameterValueNotInList"]),
        ({"ResetType": 1}, ["ActionParameterValueTypeError"]),
        ({"ResetType": "On", "Hard": True}, ["ActionParameterUnknown"]),
    ],
)
def test_action_parameters(body: object, messages: list[str]) -> None:
    async def run() -> None:
        bmc = await Bmc().start()
        reply = await bmc.post(f"{SYSTEM}/Actions/ComputerSystem.Reset", body)
        assert (reply.status, reply.messages) == (400, messages)
        assert not [action for action in bmc.machine.actions if action[0] == "power"]

    asyncio.run(run())


def test_actions_are_told_with_what_they_take() -> None:
    async def run() -> None:
        bmc = await Bmc().start()
        action = (await bmc.get(SYSTEM)).json["Actions"]["#ComputerSystem.Reset"]
        assert action["target"] == f"{SYSTEM}/Actions/ComputerSystem.Reset"
        assert "ForceOff" in action["ResetType@Redfish.AllowableValues"]

    asyncio.run(run())


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (WrongState("node worker-1 is off"), 409),
        (TimedOut("stop worker-1", "no answer"), 504),
        (StepError("start worker-1", "no such unit"), 500),
    ],
)
def test_what_the_machine_says_reaches_the_client(error: Exception, status: int) -> None:
    async def run() -> None:
        bmc = await Bmc().start()
        bmc.machine.failure = error  # type: ignore[assignment]
        reply = await bmc.get(SYSTEM)
        assert (reply.status, reply.messages) == (status, ["MachineError"])
        assert reply.json["error"]["message"] == str(error)

    asyncio.run(run())


def test_our_own_mistake_tells_the_journal_and_not_the_client(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(call: Call) -> Json:
        raise ZeroDivisionError("secret")

    async def run() -> None:
        bmc = await Bmc(more=[Resource(uri=f"{V1}/Broken", type="Broken.v1_0_0.Broken", get=broken)]).start()
        reply = await bmc.get(f"{V1}/Broken")
        assert (reply.status, reply.messages) == (500, ["InternalError"])
        assert b"secret" not in reply.body

    asyncio.run(run())
    assert "ZeroDivisionError" in caplog.text


def test_array_elements_in_a_patch() -> None:
    async def get(call: Call) -> Json:
        return {"Id": "Lists", "Name": "Lists", "Order": list(order), "Inner": {"Size": 1}}

    async def patch(call: Call) -> None:
        order[:] = call.body["Order"]

    async def run() -> None:
        lists = Resource(
            uri=f"{V1}/Lists",
            type="Lists.v1_0_0.Lists",
            get=get,
            patch=patch,
            writable={"Order": array_of(one_of("a", "b", "c")), "Inner": {"Size": integer(0, 9)}},
        )
        bmc = await Bmc(more=[lists]).start()
        reply = await bmc.patch(f"{V1}/Lists", {"Order": [{}, None, "c", "a"]})
        assert (reply.status, order) == (200, ["a", "c", "a"])
        reply = await bmc.patch(f"{V1}/Lists", {"Order": ["z"]})
        assert reply.json["error"]["@Message.ExtendedInfo"][0]["RelatedProperties"] == ["/Order/0"]
        assert (await bmc.patch(f"{V1}/Lists", {"Order": ["b"]})).json["Order"] == ["b"]
        assert (await bmc.patch(f"{V1}/Lists", {"Inner": 5})).messages == ["PropertyValueTypeError"]

    order = ["a", "b"]
    asyncio.run(run())


def test_the_registries_have_every_message_that_the_code_names() -> None:
    source = Path(registry.__file__).parent
    known = {name for _, messages in registry.REGISTRIES.values() for name in messages}
    for path in source.rglob("*.py"):
        named = set(re.findall(r'(?:RedfishError|Message)\(\s*"(\w+)"', path.read_text()))
        assert named <= known, path
