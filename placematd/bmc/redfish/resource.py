"""How a Redfish resource is written: a `Resource` in the list that a module's `routes()` returns.

    def routes() -> Sequence[Resource]:
        return [
            Resource(
                uri="/redfish/v1/Systems/{system}",
                type="ComputerSystem.v1_22_0.ComputerSystem",
                get=get_system,
                patch=patch_system,
                writable={"Boot": {"BootSourceOverrideTarget": one_of("None", "Pxe", "Hdd", "Cd")}},
                actions=(Action("ComputerSystem.Reset", reset, {"ResetType": one_of("On", "ForceOff")}),),
            )
        ]

The core does the rest. GET: `get` returns the payload without "@odata.id", "@odata.type", "@odata.etag" and without
"Actions": the core adds them (actions with their AllowableValues), computes the ETag of all but the `volatile`
properties, serves HEAD, 304, $select, $expand, only, $top and $skip. A collection's payload is
`collection(name, uris)`. A template's parameter that names nothing: `raise missing(call)`.

PATCH: the core drops annotations, checks each property against `writable`, answers for the bad ones and calls `patch`
with the good ones in `call.body`; `patch` returns nothing, the client gets a fresh GET. POST to a collection: `post`
gets the checked `call.body` (`creatable`, `required`) and returns `Created(uri)`; the client gets 201 and a fresh GET
of that URI. An action's `run` gets its checked parameters in `call.body` and returns None (204), a payload (200) or a
`Task`, from `call.start("Insert media", work)` (202 and a task monitor): `async def work(task)` says how far it is with
`task.progress(done, total)` and returns None or the payload of the task monitor.

Whatever goes wrong is a `RedfishError` with the name of a Base registry message (see messages.py):

    raise RedfishError("PropertyValueNotInList", value, "BootMode", at="Attributes/BootMode")

A `PlacematError` of the machine is answered by the core too (404, 409, 504 or 500, with its text).
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from .messages import RedfishError

if TYPE_CHECKING:
    from ..accounts import Account, Accounts
    from ..machine import Machine
    from .events import Events
    from .login import Login
    from .sessions import Session, Sessions
    from .settings import Settings
    from .tasks import Task, Tasks

Json: TypeAlias = dict[str, Any]

ROOT = "/redfish/v1"

Privilege = Literal["NoAuth", "Login", "ConfigureComponents", "ConfigureManager", "ConfigureUsers", "ConfigureSelf"]


def end_process() -> None:
    """Have this process end in good order."""
    os.kill(os.getpid(), signal.SIGTERM)


@dataclass(frozen=True, kw_only=True)
class Services:
    """What a resource can ask: the machine, the accounts, and the parts of the core itself."""

    machine: Machine
    accounts: Accounts
    login: Login
    sessions: Sessions
    tasks: Tasks
    events: Events
    settings: Settings
    restart: Callable[[], None] = end_process
    """Ends the BMC, as Manager.Reset asks for; its sockets stay with systemd, which starts it for the next client."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request, checked as far as the core can."""

    method: str
    uri: str
    """Path of the request, without a trailing slash and without the query."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """What the {names} of the resource's template stand for."""
    body: Json = field(default_factory=dict)
    """Checked properties or action parameters; {} with GET and DELETE."""
    services: Services
    account: Account | None = None
    """Who asks; None where no login is needed."""
    session: Session | None = None
    """The session of the request, None with Basic authentication."""
    remote: str = ""
    """Address of the client."""

    @property
    def machine(self) -> Machine:
        """The machine behind this BMC."""
        return self.services.machine

    def start(self, name: str, work: Callable[[Task], Awaitable[Json | None]]) -> Task:
        """Begin a long operation. Raises RedfishError where too many run."""
        owner = self.account.slot if self.account else 0
        return self.services.tasks.start(name, work, target=self.uri, owner=owner)


@dataclass(frozen=True)
class Rule:
    """What a value in a request must be: a JSON type, and the values or the range that it may have."""

    type: Literal["string", "integer", "number", "boolean", "array", "object", "any"]
    values: Sequence[str] = ()
    """All that a string may be; also told as AllowableValues."""
    minimum: float | None = None
    """Of a number's value, or of the length of a string or an array."""
    maximum: float | None = None
    """As `minimum`."""
    nullable: bool = False
    items: Rule | None = None
    """What each item of an array, or each value of an object with free keys, must be."""
    secret: bool = False
    """Whether no message may repeat the value."""


Fields: TypeAlias = Mapping[str, "Rule | Fields"]
"""Properties by name; a nested mapping is an embedded object."""


def one_of(*values: str, nullable: bool = False) -> Rule:
    """A string out of `values`."""
    return Rule("string", values=values, nullable=nullable)


def text(maximum: int = 256, minimum: int = 0, *, nullable: bool = False) -> Rule:
    """A string of so many characters."""
    return Rule("string", minimum=minimum, maximum=maximum, nullable=nullable)


def integer(minimum: int, maximum: int, *, nullable: bool = False) -> Rule:
    """A whole number in a range, ends included."""
    return Rule("integer", minimum=minimum, maximum=maximum, nullable=nullable)


def boolean(*, nullable: bool = False) -> Rule:
    """True or false."""
    return Rule("boolean", nullable=nullable)


def array_of(items: Rule, maximum: int = 64, *, nullable: bool = False) -> Rule:
    """An array of at most so many items."""
    return Rule("array", items=items, maximum=maximum, nullable=nullable)


def object_of(items: Rule, maximum: int = 64) -> Rule:
    """An object whose keys only the handler knows (Bios Attributes)."""
    return Rule("object", items=items, maximum=maximum)


Get: TypeAlias = Callable[[Call], Awaitable[Json]]
Change: TypeAlias = Callable[[Call], Awaitable[None]]


@dataclass(frozen=True)
class Created:
    """What a POST to a collection made; `headers` and `notes` (annotations of the payload) go with the answer."""

    uri: str
    headers: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Action:
    """An action; its URI is that of its resource + "/Actions/" + `name` ("ComputerSystem.Reset")."""

    name: str
    run: Callable[[Call], Awaitable[Json | Task | None]]
    parameters: Fields = field(default_factory=dict)
    required: Sequence[str] = ()
    privilege: Privilege | None = None
    """None for that of writing the resource."""
    allowable: Callable[[Call], Awaitable[Mapping[str, Sequence[str]]]] | None = None
    """AllowableValues that change while the BMC runs, by parameter; the core checks against them too."""


@dataclass(frozen=True, kw_only=True)
class Resource:
    """A URI template and all that can be done there; the methods allowed are those that are given."""

    uri: str
    type: str
    """"ComputerSystem.v1_22_0.ComputerSystem", of a collection "ComputerSystemCollection.ComputerSystemCollection"."""
    get: Get
    patch: Change | None = None
    writable: Fields = field(default_factory=dict)
    post: Callable[[Call], Awaitable[Created]] | None = None
    creatable: Fields = field(default_factory=dict)
    required: Sequence[str] = ()
    """Properties without which nothing can be created."""
    delete: Change | None = None
    actions: Sequence[Action] = ()
    read: Privilege = "Login"
    write: Privilege = "ConfigureComponents"
    create: Privilege | None = None
    """Privilege of `post`; None for that of `write`."""
    owner: Callable[[Call], bool] | None = None
    """Whether the resource is the caller's own, who then needs ConfigureSelf alone to read and to write it."""
    volatile: frozenset[str] = frozenset()
    """Properties at the top level that change all the time, like DateTime: no part of the ETag."""
    stream: Callable[[Call], AsyncIterator[bytes]] | None = None
    """A GET is answered with this, as text/event-stream, instead of the payload."""
    monitor: Callable[[Call], Task] | None = None
    """A GET is answered with what became of this task instead of the payload."""

    @property
    def parametric(self) -> bool:
        """Whether the template stands for resources that may not be there."""
        return "{" in self.uri


def link(uri: str) -> dict[str, str]:
    """A reference to another resource."""
    return {"@odata.id": uri}


def collection(name: str, uris: Sequence[str]) -> Json:
    """The payload of a collection with these members."""
    return {"Name": name, "Members": [link(uri) for uri in uris], "Members@odata.count": len(uris)}


def missing(call: Call) -> RedfishError:
    """The 404 of a URI that names nothing."""
    return RedfishError("ResourceMissingAtURI", call.uri)
