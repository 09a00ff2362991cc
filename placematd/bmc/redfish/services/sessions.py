"""SessionService and its sessions (DSP0266 "Redfish session login authentication")."""

from collections.abc import Sequence

from ..messages import Message
from ..resource import ROOT, Call, Created, Json, Resource, Rule, collection, integer, link, missing, text
from ..sessions import LONGEST_SECONDS, SHORTEST_SECONDS, Session

SERVICE = f"{ROOT}/SessionService"
SESSIONS = f"{SERVICE}/Sessions"


def routes() -> Sequence[Resource]:
    """The resources of this module."""
    return [
        Resource(
            uri=SERVICE,
            type="SessionService.v1_1_9.SessionService",
            get=_service,
            patch=_change,
            writable={"SessionTimeout": integer(SHORTEST_SECONDS, LONGEST_SECONDS)},
            write="ConfigureManager",
        ),
        Resource(
            uri=SESSIONS,
            type="SessionCollection.SessionCollection",
            get=_sessions,
            post=_open,
            creatable={
                "UserName": text(256),
                "Password": Rule("string", maximum=256, secret=True),
                "Context": text(128, nullable=True),
            },
            required=("UserName", "Password"),
            create="NoAuth",
            write="ConfigureManager",
        ),
        Resource(
            uri=SESSIONS + "/{session}",
            type="Session.v1_7_2.Session",
            get=_session,
            delete=_close,
            write="ConfigureManager",
            owner=_own,
        ),
    ]


async def _service(call: Call) -> Json:
    return {
        "Id": "SessionService",
        "Name": "Session Service",
        "ServiceEnabled": True,
        "SessionTimeout": call.services.settings.values.session_timeout_seconds,
        "Sessions": link(SESSIONS),
        "Status": {"State": "Enabled", "Health": "OK"},
    }


async def _change(call: Call) -> None:
    await call.services.settings.change(session_timeout_seconds=call.body["SessionTimeout"])


async def _sessions(call: Call) -> Json:
    return collection("Session Collection", [f"{SESSIONS}/{session.id}" for session in call.services.sessions.all()])


async def _open(call: Call) -> Created:
    services = call.services
    account = services.login.check(call.body["UserName"], call.body["Password"], call.remote)
    session, token = services.sessions.open(account, call.remote, call.body.get("Context"))
    headers = {"X-Auth-Token": token, "Cache-Control": "no-store"}
    notes: Json = {}
    if account.slot in services.settings.values.password_change_required:
        own = f"{ROOT}/AccountService/Accounts/{account.slot}"
        notes = {"@Message.ExtendedInfo": [Message("PasswordChangeRequired", (own,)).json()]}
    return Created(f"{SESSIONS}/{session.id}", headers, notes)


def _find(call: Call) -> Session:
    session = call.services.sessions.get(call.parameters["session"])
    if session is None:
        raise missing(call)
    return session


async def _session(call: Call) -> Json:
    session = _find(call)
    context = {} if session.context is None else {"Context": session.context}
    return {
        "Id": session.id,
        "Name": "User Session",
        "UserName": session.account.name,
        "Password": None,
        "SessionType": "Redfish",
        "ClientOriginIPAddress": session.remote,
        "CreatedTime": session.created.isoformat(),
        **context,
    }


async def _close(call: Call) -> None:
    call.services.sessions.close(_find(call))


def _own(call: Call) -> bool:
    session = call.services.sessions.get(call.parameters["session"])
    return session is not None and call.account is not None and session.account.slot == call.account.slot
