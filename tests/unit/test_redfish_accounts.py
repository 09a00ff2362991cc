"""Redfish logins: sessions, locking out, accounts and roles."""

import asyncio

import pytest
from redfish_client import V1, Bmc

from placematd.bmc.redfish import sessions

SESSIONS = f"{V1}/SessionService/Sessions"
ACCOUNTS = f"{V1}/AccountService/Accounts"
SYSTEM = f"{V1}/Systems/System.Embedded.1"
NEW = {"UserName": "dave", "Password": "secret", "RoleId": "Operator"}


def test_a_session_from_login_to_logout() -> None:
    async def run() -> None:
        bmc = await Bmc().start()
        reply = await bmc.post(SESSIONS, {"UserName": "reader", "Password": "reader", "Context": "me"}, user=None)
        assert reply.status == 201
        assert reply.headers["Location"] == reply.json["@odata.id"]
        assert (reply.json["UserName"], reply.json["Password"], reply.json["Context"]) == ("reader", None, "me")
        token = {"X-Auth-Token": reply.headers["X-Auth-Token"]}
        assert reply.headers["Cache-Control"] == "no-store"
        assert token["X-Auth-Token"].encode() not in reply.body
        assert (await bmc.get(SYSTEM, user=None, headers=token)).status == 200
        assert (await bmc.delete(reply.headers["Location"], user=None, headers=token)).status == 204
        assert (await bmc.get(SYSTEM, user=None, headers=token)).status == 401
        assert (await bmc.get(reply.headers["Location"])).status == 404

    asyncio.run(run())


def test_sessions_of_others_are_the_administrators_to_end() -> None:
    async def run() -> None:
        bmc = await Bmc().start()
        await bmc.login("reader")
        theirs = (await bmc.get(SESSIONS)).json["Members"][0]["@odata.id"]
        assert (await bmc.delete(theirs, user="operator")).status == 403
        assert (await bmc.delete(theirs, user="admin")).status == 204

    asyncio.run(run())


def test_a_session_ends_when_nobody_uses_it() -> None:
    async def run() -> None:
        bmc = await Bmc().start()
        await bmc.patch(f"{V1}/SessionService", {"SessionTimeout": 60})
        token = await bmc.login()
        for _ in range(3):
            bmc.clock.now += 59
            assert (await bmc.get(SYSTEM, user=None, headers=token)).status == 200
        bmc.clock.now += 60
        assert (await bmc.get(SYSTEM, user=None, headers=token)).status == 401
        assert not bmc.services.sessions.all()

    asyncio.run(run())


def test_sessions_are_bounded() -> None:
    async def run() -> None:
        bmc = await Bmc().start()
        for _ in range(sessions.MOST):
            await bmc.login("reader")
        body = {"UserName": "reader", "Password": "reader"}
        reply = await bmc.post(SESSIONS, body, user=None)
        assert (reply.status, reply.messages) == (503, ["SessionLimitExceeded"])
        assert len((await bmc.get(f"{SESSIONS}/Members")).body) > 0
        bmc.clock.now += 3600
        assert (await bmc.post(f"{SESSIONS}/Members", body, user=None)).status == 201

    asyncio.run(run())


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Basic",
        "Basic !!!",
        "Basic YQ==",
        "Basic /////w==",
        "Bearer abc",
        "Basic " + "YTph" * 5000,
        "Basic \u00e9",
        "Digest username=admin",
    ],
)
def test_credentials_that_are_none(header: str) -> None:
    async def run() -> None:
        reply = await (await Bmc().start()).get(SYSTEM, user=None, headers={"Authorization": header})
        assert reply.status == 401
        assert reply.headers["WWW-Authenticate"].startswith("Basic realm=")

    asyncio.run(run())


def test_a_wrong_token_is_not_saved_by_a_right_password() -> None:
    async def run() -> None:
        reply = await (await Bmc().start()).get(SYSTEM, headers={"X-Auth-Token": "0" * 64})
        assert reply.status == 401

    asyncio.run(run())


def test_lockout() -> None:
    async def run() -> None:
        bmc = await Bmc().start()
        service = {"AccountLockoutThreshold": 3, "AccountLockoutDuration": 60, "AccountLockoutCounterResetAfter": 30}
        assert (await bmc.patch(f"{V1}/AccountService", service)).status == 200
        for _ in range(2):
            assert (await bmc.get(SYSTEM, user="reader", password="wrong")).status == 401
        bmc.clock.now += 30
        for _ in range(2):
            assert (await bmc.get(SYSTEM, user="reader", password="wrong")).status == 401
        assert (await bmc.get(SYSTEM, user="reader")).status == 200
        for _ in range(3):
            await bmc.get(SYSTEM, user="reader", password="wrong")
        assert (await bmc.get(SYSTEM, user="reader")).status == 401
        assert (await bmc.get(f"{ACCOUNTS}/4")).json["Locked"] is True
        assert (await bmc.get(SYSTEM, user="operator")).status == 200
        bmc.clock.now += 60
        assert (await bmc.get(SYSTEM, user="reader")).status == 200
        for _ in range(3):
            await bmc.get(SYSTEM, user="reader", password="wrong")
        assert (await bmc.patch(f"{ACCOUNTS}/4", {"Locked": True})).status == 400
        assert (await bmc.patch(f"{ACCOUNTS}/4", {"Locked": False})).json["Locked"] is False
        assert (await bmc.get(SYSTEM, user="reader")).status == 200

    asyncio.run(run())


def test_lockout_settings_must_fit_and_last() -> None:
    async def run() -> None:
        bmc = await Bmc().start()
        bad = await bmc.patch(f"{V1}/AccountService", {"AccountLockoutCounterResetAfter": 1000})
        assert (bad.status, bad.messages) == (400, ["PropertyValueConflict"])
        assert (await bmc.patch(f"{V1}/AccountService", {"AccountLockoutThreshold": 0})).status == 200
        again = await Bmc(machine=bmc.machine).start(fresh=False)
        assert (await again.get(f"{V1}/AccountService")).json["AccountLockoutThreshold"] == 0
        for _ in range(20):
            await again.get(SYSTEM, user="reader", password="wrong")
        assert (await again.get(SYSTEM, user="reader")).status == 200

    asyncio.run(run())


def test_an_account_from_first_to_last() -> None:
    async def run() -> None:
        bmc = await Bmc().start()
        made = await bmc.post(ACCOUNTS, NEW)
        assert (made.status, made.headers["Location"]) == (201, f"{ACCOUNTS}/5")
        assert made.json["Password"] is None
        assert b"secret" not in made.body
        assert made.headers["ETag"] == made.json["@odata.etag"]
        assert (await bmc.get(SYSTEM, user="dave", password="secret")).status == 200
        assert (await bmc.patch(f"{ACCOUNTS}/5", {"RoleId": "ReadOnly", "AccountTypes": ["IPMI"]})).status == 200
        assert (await bmc.get(SYSTEM, user="dave", password="secret")).status == 401
        assert bmc.services.accounts.by_slot(5).ipmi  # type: ignore[union-attr]
        assert (await bmc.delete(f"{ACCOUNTS}/5")).status == 204
        assert (await bmc.get(f"{ACCOUNTS}/5")).status == 404

    asyncio.run(run())


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"UserName": "admin"}, 409, "ResourceAlreadyExists"),
        ({"UserName": "a name of seventeen"}, 400, "PropertyValueFormatError"),
        ({"UserName": ""}, 400, "PropertyValueFormatError"),
        ({"Password": "x" * 21}, 400, "PropertyValueFormatError"),
        ({"RoleId": "King"}, 400, "PropertyValueNotInList"),
        ({"Bogus": 1}, 400, "PropertyUnknown"),
        ({"AccountTypes": []}, 400, "PropertyValueError"),
        ({"AccountTypes": ["SNMP"]}, 400, "PropertyValueNotInList"),
    ],
)
def test_accounts_that_cannot_be(change: dict[str, object], status: int, message: str) -> None:
    async def run() -> None:
        bmc = await Bmc().start()
        reply = await bmc.post(ACCOUNTS, {**NEW, **change})
        assert (reply.status, reply.messages) == (status, [message])
        assert len(bmc.services.accounts.all()) == 3
        assert b"xxxxx" not in reply.body

    asyncio.run(run())


def test_what_an_account_needs() -> None:
    async def run() -> None:
        reply = await (await Bmc().start()).post(ACCOUNTS, {"RoleId": "Operator"})
        assert (reply.status, reply.messages) == (400, ["CreateFailedMissingReqProperties"] * 2)

    asyncio.run(run())


def test_accounts_are_bounded_and_one_administrator_stays() -> None:
    async def run() -> None:
        bmc = await Bmc().start()
        for number in range(11):
            assert (await bmc.post(ACCOUNTS, {**NEW, "UserName": f"user{number}"})).status == 201
        assert (await bmc.post(ACCOUNTS, NEW)).messages == ["CreateLimitReachedForResource"]
        assert (await bmc.delete(f"{ACCOUNTS}/2")).status == 409
        assert (await bmc.patch(f"{ACCOUNTS}/2", {"Enabled": False})).status == 409
        assert (await bmc.patch(f"{ACCOUNTS}/2", {"RoleId": "ReadOnly"})).status == 409

    asyncio.run(run())


def test_own_password_and_nothing_else() -> None:
    async def run() -> None:
        bmc = await Bmc().start()
        token, other = await bmc.login("reader"), await bmc.login("reader")
        own = f"{ACCOUNTS}/4"
        assert (await bmc.patch(own, {"RoleId": "Administrator"}, user=None, headers=token)).status == 403
        both = {"Password": "changed", "RoleId": "Administrator"}
        assert (await bmc.patch(own, both, user=None, headers=token)).status == 403
        assert (await bmc.delete(own, user=None, headers=token)).status == 403
        assert (await bmc.patch(f"{ACCOUNTS}/3", {"Password": "changed"}, user=None, headers=token)).status == 403
        assert (await bmc.patch(own, {"Password": "changed"}, user=None, headers=token)).status == 200
        assert (await bmc.get(SYSTEM, user=None, headers=token)).status == 200, "the session that changed it stays"
        assert (await bmc.get(SYSTEM, user=None, headers=other)).status == 401, "others end"
        assert (await bmc.get(SYSTEM, user="reader", password="changed")).status == 200

    asyncio.run(run())


@pytest.mark.parametrize("change", [{"Enabled": False}, {"Password": "other"}, {"UserName": "other"}, None])
def test_sessions_end_with_what_they_stand_on(change: dict[str, object] | None) -> None:
    async def run() -> None:
        bmc = await Bmc().start()
        token = await bmc.login("operator")
        await (bmc.patch(f"{ACCOUNTS}/3", change) if change else bmc.delete(f"{ACCOUNTS}/3"))
        assert (await bmc.get(SYSTEM, user=None, headers=token)).status == 401

    asyncio.run(run())


def test_a_new_role_counts_at_once() -> None:
    async def run() -> None:
        bmc = await Bmc().start()
        token = await bmc.login("operator")
        await bmc.patch(f"{ACCOUNTS}/3", {"RoleId": "ReadOnly"})
        reset = f"{SYSTEM}/Actions/ComputerSystem.Reset"
        assert (await bmc.post(reset, {"ResetType": "On"}, user=None, headers=token)).status == 403

    asyncio.run(run())


def test_a_password_that_must_be_changed() -> None:
    async def run() -> None:
        bmc = await Bmc().start()
        await bmc.post(ACCOUNTS, {**NEW, "PasswordChangeRequired": True})
        bmc = await Bmc(machine=bmc.machine).start(fresh=False)
        reply = await bmc.post(SESSIONS, {"UserName": "dave", "Password": "secret"}, user=None)
        assert (reply.status, reply.messages) == (201, ["PasswordChangeRequired"])
        token = {"X-Auth-Token": reply.headers["X-Auth-Token"]}
        refused = await bmc.get(SYSTEM, user=None, headers=token)
        assert (refused.status, refused.messages) == (403, ["PasswordChangeRequired"])
        assert (await bmc.get(f"{ACCOUNTS}/5", user=None, headers=token)).status == 200
        changed = await bmc.patch(f"{ACCOUNTS}/5", {"Password": "mine"}, user=None, headers=token)
        assert (changed.status, changed.json["PasswordChangeRequired"]) == (200, False)
        assert (await bmc.get(SYSTEM, user=None, headers=token)).status == 200

    asyncio.run(run())


def test_roles_are_the_standard_ones() -> None:
    async def run() -> None:
        bmc = await Bmc().start()
        role = await bmc.get(f"{V1}/AccountService/Roles/Operator")
        assert role.json["AssignedPrivileges"] == ["Login", "ConfigureComponents", "ConfigureSelf"]
        assert role.headers["Allow"] == "GET, HEAD"
        assert (await bmc.patch(f"{V1}/AccountService/Roles/Operator", {"Name": "x"})).status == 405
        assert (await bmc.get(f"{V1}/AccountService/Roles/King")).status == 404

    asyncio.run(run())


def test_no_password_in_the_journal(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        bmc = await Bmc().start()
        for _ in range(6):
            await bmc.post(SESSIONS, {"UserName": "reader", "Password": "hunter2"}, user=None)
        await bmc.post(ACCOUNTS, {**NEW, "Password": "hunter2", "RoleId": "King"})

    caplog.set_level("DEBUG")
    asyncio.run(run())
    assert "is locked" in caplog.text
    assert "hunter2" not in caplog.text
