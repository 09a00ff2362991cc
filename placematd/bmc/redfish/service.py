"""The Redfish service: a request in, an answer out; no socket in sight (DSP0266, HTTP is in server.py)."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...errors import NotFound, PlacematError, TimedOut, WrongState
from . import body, query
from .checks import Checker
from .documents import Documents
from .login import PRIVILEGES
from .messages import Message, RedfishError, annotations
from .presentation import Payload, described_by, matches, precondition, present
from .requests import Answer, Caller, Request, json_answer
from .resource import ROOT, Action, Call, Created, Privilege, Resource, Services
from .router import Found, Router
from .tasks import Task

log = logging.getLogger("placemat.bmc")

READING = ("GET", "HEAD")
_NO_AUTH_DOCUMENTS = ("/redfish", f"{ROOT}/odata", f"{ROOT}/$metadata")


class Service:
    """All resources of one BMC."""

    def __init__(self, services: Services, resources: Sequence[Resource]) -> None:
        self._services, self._login = services, services.login
        self._router = Router(resources)
        self._documents = Documents(resources)
        self._writing = asyncio.Lock()

    async def answer(self, request: Request) -> Answer:
        """Never raises; what went wrong is in the answer, and in the journal where it is our fault."""
        try:
            answer = await self._answer(request)
        except RedfishError as error:
            answer = json_answer(error.json(), error.status, error.headers)
        except PlacematError as error:
            answer = _machine_error(error)
        except Exception:
            log.exception("redfish: %s %s", request.method, ascii(request.path[:200]))
            answer = json_answer(RedfishError("InternalError").json(), 500)
        headers = {"OData-Version": "4.0", "Cache-Control": "no-cache", **answer.headers}
        return replace(answer, headers=headers, body=b"" if request.method == "HEAD" else answer.body)

    async def _answer(self, request: Request) -> Answer:
        if request.path.removesuffix("/") in _NO_AUTH_DOCUMENTS:
            return self._documents.answer(request)
        found = self._router.find(request.path)
        caller = self._caller(request, found)
        if found is None:
            raise RedfishError("ResourceMissingAtURI", request.path)
        _check_headers(request)
        if request.method not in found.allow.split(", "):
            raise RedfishError("OperationNotAllowed", headers={"Allow": found.allow})
        call = Call(
            method=request.method,
            uri=found.uri,
            parameters=found.parameters,
            services=self._services,
            account=caller.account,
            session=caller.session,
            remote=request.remote,
        )
        self._authorize(found, call)
        if request.method in READING:
            return await self._get(found, call, request)
        if request.query:
            raise RedfishError("QueryNotSupportedOnOperation")
        if found.action:
            return await self._act(found.resource, found.action, call, request)
        if request.method == "POST":
            return await self._create(found.resource, call, request)
        async with self._writing:  # nobody writes between the check of If-Match and the change
            if request.method == "PATCH":
                return await self._patch(found, call, request)
            return await self._delete(found, call, request)

    # who may

    def _caller(self, request: Request, found: Found | None) -> Caller:
        """Raises RedfishError (401) where somebody must log in and has not."""
        open_to_all = found is not None and _privilege(found, request.method) == "NoAuth"
        if open_to_all and not (request.query and request.method in READING):
            return Caller()
        account, session = self._login.authenticate(request.headers, request.remote)
        return Caller(account=account, session=session)

    def _authorize(self, found: Found, call: Call) -> None:
        """Raises RedfishError (403)."""
        if not self._may(found, call):
            raise RedfishError("InsufficientPrivilege")
        if call.account and call.account.slot in self._services.settings.values.password_change_required:
            own = f"{ROOT}/AccountService/Accounts/{call.account.slot}"
            own_session = call.session is not None and call.uri.endswith(f"/Sessions/{call.session.id}")
            if not own_session and (call.uri != own or call.method not in ("GET", "HEAD", "PATCH")):
                raise RedfishError("PasswordChangeRequired", own)

    def _may(self, found: Found, call: Call) -> bool:
        needed = _privilege(found, call.method)
        if needed == "NoAuth":
            return True
        privileges = PRIVILEGES[call.account.role] if call.account else ()
        owner = found.resource.owner
        return needed in privileges or ("ConfigureSelf" in privileges and owner is not None and owner(call))

    # reading

    async def _get(self, found: Found, call: Call, request: Request) -> Answer:
        asked = query.parse(request.query)
        headers = {"Allow": found.allow, "Link": described_by(found.resource.type)}
        if found.resource.stream and request.method == "GET":
            return Answer(headers={**headers, "Content-Type": "text/event-stream"}, stream=found.resource.stream(call))
        if found.resource.monitor:
            return await self._monitor(found.resource.monitor(call), headers)
        payload = await present(found.resource, call)
        asked.check_kind(payload)
        if asked.plain:
            headers["ETag"] = payload["@odata.etag"]
            if matches(request.headers.get("If-None-Match", ""), headers["ETag"], weakly=True):
                return Answer(status=304, headers=headers)
            return json_answer(payload, headers=headers)
        if asked.only and len(payload["Members"]) == 1:
            payload = await self._read(payload["Members"][0]["@odata.id"], call) or payload
        payload = asked.page(payload) if "Members" in payload else payload
        if asked.expand:
            payload = await query.expanded(payload, asked, lambda uri: self._read(uri, call))
        return json_answer(asked.selected(payload), headers=headers)

    async def _read(self, uri: str, call: Call) -> Payload | None:
        """The payload of another resource, as far as the caller may read it."""
        found = self._router.find(uri)
        if found is None or found.resource.stream or found.resource.monitor:
            return None
        call = replace(call, method="GET", uri=found.uri, parameters=found.parameters)
        if not self._may(found, call):
            return None
        try:
            return await present(found.resource, call)
        except (RedfishError, PlacematError):
            return None  # the link stays, and its own GET tells what is wrong

    async def _monitor(self, task: Task, headers: Mapping[str, str]) -> Answer:
        if not task.done:
            payload = await self._read(task.uri, self._internal(task.uri))
            return json_answer(payload or {}, 202, {**headers, "Location": task.monitor, "Retry-After": "1"})
        if task.error:
            return json_answer(task.error.json(), task.error.status, headers)
        return (
            json_answer(task.result, 200, headers) if task.result is not None else Answer(status=204, headers=headers)
        )

    def _internal(self, uri: str) -> Call:
        """A call of the service itself, which may read everything."""
        anybody = next((account for account in self._services.accounts.all() if account.role == "Administrator"), None)
        return Call(method="GET", uri=uri, services=self._services, account=anybody)

    # writing

    async def _patch(self, found: Found, call: Call, request: Request) -> Answer:
        resource = found.resource
        current = await present(resource, call)
        precondition(request.headers, current["@odata.etag"])
        sent = _body(request)
        if not [name for name in sent if "@" not in name]:
            raise RedfishError("NoOperation")
        checker = Checker()
        good = checker.check(resource.writable, sent, current)
        if not good:
            raise RedfishError.of(checker.messages or [Message("NoOperation")])
        if resource.patch:
            await resource.patch(replace(call, body=good))
        payload = await present(resource, call)
        headers = {"ETag": payload["@odata.etag"], "Link": described_by(resource.type)}
        return json_answer({**payload, **annotations(checker.messages, payload)}, headers=headers)

    async def _delete(self, found: Found, call: Call, request: Request) -> Answer:
        current = await present(found.resource, call)
        precondition(request.headers, current["@odata.etag"])
        if found.resource.delete:
            await found.resource.delete(call)
        return Answer(status=204)

    async def _create(self, resource: Resource, call: Call, request: Request) -> Answer:
        sent = _body(request)
        checker = Checker()
        good = checker.check(resource.creatable, sent)
        checker.require(resource.required, sent)
        if checker.messages:
            raise RedfishError.of(checker.messages)
        created = await resource.post(replace(call, body=good)) if resource.post else Created(call.uri)
        payload = await self._read(created.uri, replace(self._internal(created.uri), session=call.session)) or {}
        headers = {"Location": created.uri, "Link": described_by(payload.get("@odata.type", "#").removeprefix("#"))}
        if tag := payload.get("@odata.etag"):
            headers["ETag"] = tag
        return json_answer({**payload, **created.notes}, 201, {**headers, **created.headers})

    async def _act(self, resource: Resource, action: Action, call: Call, request: Request) -> Answer:
        if resource.parametric:
            await resource.get(call)  # a resource that is not there has no actions: 404
        sent = _body(request) if request.body.strip() else {}
        checker = Checker(action.name, await action.allowable(call) if action.allowable else {})
        good = checker.check(action.parameters, sent)
        checker.require(action.required, sent)
        if checker.messages:
            raise RedfishError.of(checker.messages)
        result = await action.run(replace(call, body=good))
        if isinstance(result, Task):
            payload = await self._read(result.uri, self._internal(result.uri))
            return json_answer(payload or {}, 202, {"Location": result.monitor, "Retry-After": "1"})
        return Answer(status=204) if result is None else json_answer(result)


def _privilege(found: Found, method: str) -> Privilege:
    resource = found.resource
    if method in READING:
        return resource.read
    if found.action and found.action.privilege:
        return found.action.privilege
    if method == "POST" and not found.action and resource.create:
        return resource.create
    return resource.write


def _check_headers(request: Request) -> None:
    """Raises RedfishError for headers that rule an answer out; who asks is known already (DSP0266 "HTTP header")."""
    if request.headers.get("OData-Version", "4.0").strip() != "4.0":
        raise RedfishError("PreconditionFailed")
    accept = request.headers.get("Accept", "*/*").lower()
    wanted = ("*/*", "application/*", "application/json", "text/event-stream")
    if accept.strip() and not any(kind in accept for kind in wanted):
        raise RedfishError("HeaderInvalid", "Accept", status=406)
    origin = request.headers.get("Origin")
    if origin and request.method not in READING and origin.partition("://")[2] != request.headers.get("Host"):
        raise RedfishError("HeaderInvalid", "Origin", status=403)  # a page of somebody else's in a browser


def _body(request: Request) -> dict[str, Any]:
    return body.parse(request.body, request.headers.get("Content-Type", ""))


_STATUSES = ((NotFound, 404), (WrongState, 409), (TimedOut, 504))


def _machine_error(error: PlacematError) -> Answer:
    status = next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)
    answer = RedfishError("MachineError", error, registry="Placemat", status=status)
    return json_answer(answer.json(), answer.status)
