"""A Redfish service on a machine in memory, asked without sockets: `await bmc.get("/redfish/v1/Systems")`."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fakes.machine import FakeMachine
from tornado.httputil import HTTPHeaders

from placematd.bmc.accounts import Accounts
from placematd.bmc.logins import Logins
from placematd.bmc.redfish.events import Events
from placematd.bmc.redfish.login import Login
from placematd.bmc.redfish.requests import Answer, Request
from placematd.bmc.redfish.resource import Resource, Services
from placematd.bmc.redfish.resources import routes as machine_routes
from placematd.bmc.redfish.service import Service
from placematd.bmc.redfish.services import routes as own_routes
from placematd.bmc.redfish.sessions import Sessions
from placematd.bmc.redfish.settings import Settings
from placematd.bmc.redfish.tasks import Tasks

V1 = "/redfish/v1"
PASSWORDS = {"admin": "password", "operator": "operator", "reader": "reader"}
ROLES = {"admin": "Administrator", "operator": "Operator", "reader": "ReadOnly"}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes
    answer: Answer

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def messages(self) -> list[str]:
        """Names of the messages of an error or of a PATCH in part."""
        infos = self.json.get("error", self.json)["@Message.ExtendedInfo"]
        return [info["MessageId"].rpartition(".")[2] for info in infos]


@dataclass
class Bmc:
    machine: FakeMachine = field(default_factory=FakeMachine)
    clock: Clock = field(default_factory=Clock)
    more: list[Resource] = field(default_factory=list)
    services: Services = field(init=False)
    service: Service = field(init=False)

    async def start(self, *, fresh: bool = True) -> "Bmc":
        accounts = Accounts(self.machine)
        await accounts.load()
        if fresh:
            for name, password in PASSWORDS.items():
                await accounts.create(name=name, password=password, role=ROLES[name])
        settings = Settings(self.machine)
        await settings.load()
        sessions = Sessions(accounts.by_slot, lambda: settings.values.session_timeout_seconds, self.clock)
        self.services = Services(
            machine=self.machine,
            accounts=accounts,
            login=Login(accounts, sessions, settings, Logins(self.machine, self.clock), self.clock),
            sessions=sessions,
            tasks=Tasks(),
            events=Events(self.machine, settings),
            settings=settings,
        )
        machine = [*machine_routes(), *self.more]
        self.service = Service(self.services, [*machine, *own_routes(machine)])
        return self

    async def send(
        self,
        method: str,
        uri: str,
        body: object = None,
        *,
        user: str | None = "admin",
        password: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        path, _, query = uri.partition("?")
        sent = HTTPHeaders(headers or {})
        if user is not None:
            pair = f"{user}:{PASSWORDS.get(user, '') if password is None else password}"
            sent["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        request = Request(method=method, path=path, query=query, headers=sent, body=raw, remote="192.0.2.1")
        answer = await self.service.answer(request)
        return Reply(answer.status, HTTPHeaders(answer.headers), answer.body, answer)

    async def get(self, uri: str, **more: Any) -> Reply:
        return await self.send("GET", uri, **more)

    async def post(self, uri: str, body: object, **more: Any) -> Reply:
        return await self.send("POST", uri, body, **more)

    async def patch(self, uri: str, body: object, **more: Any) -> Reply:
        return await self.send("PATCH", uri, body, **more)

    async def delete(self, uri: str, **more: Any) -> Reply:
        return await self.send("DELETE", uri, **more)

    async def login(self, user: str = "admin", password: str | None = None) -> dict[str, str]:
        """The header of a new session."""
        body = {"UserName": user, "Password": PASSWORDS.get(user, "") if password is None else password}
        reply = await self.post(f"{V1}/SessionService/Sessions", body, user=None)
        assert reply.status == 201, reply.body
        return {"X-Auth-Token": reply.headers["X-Auth-Token"]}
