"""AccountService: the accounts that IPMI has too, and the standard roles (DSP0266 "Privilege model")."""

from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

from ...accounts import NAME_BYTES, PASSWORD_BYTES, Account, AccountError, Role
from ..login import PRIVILEGES
from ..messages import RedfishError
from ..resource import (
    ROOT,
    Call,
    Created,
    Json,
    Resource,
    Rule,
    array_of,
    boolean,
    collection,
    integer,
    link,
    missing,
    one_of,
    text,
)
from ..settings import Values

SERVICE = f"{ROOT}/AccountService"
ACCOUNTS = f"{SERVICE}/Accounts"
ROLES = f"{SERVICE}/Roles"
ROLE_NAMES: Sequence[Role] = get_args(Role)

_ACCOUNT = {
    "UserName": text(NAME_BYTES, 1),
    "Password": Rule("string", minimum=1, maximum=PASSWORD_BYTES, secret=True),
    "RoleId": one_of(*ROLE_NAMES),
    "Enabled": boolean(),
    "AccountTypes": array_of(one_of("Redfish", "IPMI"), 2),
    "PasswordChangeRequired": boolean(),
}
_SERVICE = {
    "AccountLockoutThreshold": integer(0, 100),
    "AccountLockoutDuration": integer(0, 86400),
    "AccountLockoutCounterResetAfter": integer(0, 86400),
}


def routes() -> Sequence[Resource]:
    """The resources of this module."""
    account = Resource(
        uri=ACCOUNTS + "/{account}",
        type="ManagerAccount.v1_12_0.ManagerAccount",
        get=_account,
        patch=_patch,
        writable={**_ACCOUNT, "Locked": boolean()},
        delete=_delete,
        read="ConfigureUsers",
        write="ConfigureUsers",
        owner=_own,
    )
    accounts = Resource(
        uri=ACCOUNTS,
        type="ManagerAccountCollection.ManagerAccountCollection",
        get=_accounts,
        post=_create,
        creatable=_ACCOUNT,
        required=("UserName", "Password", "RoleId"),
        write="ConfigureUsers",
    )
    return [
        Resource(
            uri=SERVICE,
            type="AccountService.v1_15_1.AccountService",
            get=_service,
            patch=_change,
            writable=_SERVICE,
            write="ConfigureUsers",
        ),
        accounts,
        account,
        Resource(uri=ROLES, type="RoleCollection.RoleCollection", get=_roles),
        Resource(uri=ROLES + "/{role}", type="Role.v1_3_1.Role", get=_role),
    ]


async def _service(call: Call) -> Json:
    values = call.services.settings.values
    return {
        "Id": "AccountService",
        "Name": "Account Service",
        "ServiceEnabled": True,
        "HTTPBasicAuth": "Enabled",
        "LocalAccountAuth": "Enabled",
        "MinPasswordLength": 1,
        "MaxPasswordLength": PASSWORD_BYTES,
        "AccountLockoutThreshold": values.lockout_threshold,
        "AccountLockoutDuration": values.lockout_duration_seconds,
        "AccountLockoutCounterResetAfter": values.lockout_reset_seconds,
        "AccountLockoutCounterResetEnabled": True,
        "SupportedAccountTypes": ["Redfish", "IPMI"],
        "Accounts": link(ACCOUNTS),
        "Roles": link(ROLES),
        "Status": {"State": "Enabled", "Health": "OK"},
    }


async def _change(call: Call) -> None:
    values = call.services.settings.values
    reset = call.body.get("AccountLockoutCounterResetAfter", values.lockout_reset_seconds)
    duration = call.body.get("AccountLockoutDuration", values.lockout_duration_seconds)
    if reset > duration > 0:  # as the schema says of AccountLockoutCounterResetAfter
        name = "AccountLockoutCounterResetAfter"
        raise RedfishError("PropertyValueConflict", name, "AccountLockoutDuration", at=name, status=400)
    await call.services.settings.change(
        lockout_threshold=call.body.get("AccountLockoutThreshold", values.lockout_threshold),
        lockout_duration_seconds=duration,
        lockout_reset_seconds=reset,
    )


async def _accounts(call: Call) -> Json:
    return collection("Accounts Collection", [f"{ACCOUNTS}/{account.slot}" for account in call.services.accounts.all()])


def _find(call: Call) -> Account:
    slot = call.parameters["account"]
    account = next((account for account in call.services.accounts.all() if str(account.slot) == slot), None)
    if account is None:
        raise missing(call)
    return account


async def _account(call: Call) -> Json:
    account = _find(call)
    types = [name for name, may in (("Redfish", account.redfish), ("IPMI", account.ipmi)) if may]
    return {
        "Id": str(account.slot),
        "Name": "User Account",
        "UserName": account.name,
        "Password": None,
        "RoleId": account.role,
        "Enabled": account.enabled,
        "Locked": call.services.login.locked(account.slot),
        "PasswordChangeRequired": account.slot in call.services.settings.values.password_change_required,
        "AccountTypes": types,
        "Links": {"Role": link(f"{ROLES}/{account.role}")},
    }


async def _create(call: Call) -> Created:
    body = call.body
    if body.get("AccountTypes") == []:
        raise RedfishError("PropertyValueError", "AccountTypes", at="AccountTypes")
    try:
        account = await call.services.accounts.create(
            name=body["UserName"], password=body["Password"], role=body["RoleId"], enabled=body.get("Enabled", True)
        )
    except AccountError as error:
        raise _refused(error, body) from error
    if "AccountTypes" in body:
        await _set_types(call, account.slot, body["AccountTypes"])
    await _require_change(call, account.slot, body.get("PasswordChangeRequired", False))
    return Created(f"{ACCOUNTS}/{account.slot}")


async def _set_types(call: Call, slot: int, types: Sequence[str]) -> None:
    await call.services.accounts.change(slot, redfish="Redfish" in types, ipmi="IPMI" in types)


async def _patch(call: Call) -> None:
    account, body, services = _find(call), call.body, call.services
    if not _manages(call):
        others = sorted(body.keys() - {"Password"})
        if others:
            raise RedfishError("InsufficientPrivilege", at=others[0])
    if body.get("Locked"):
        raise RedfishError("PropertyValueNotInList", "true", "Locked", at="Locked")
    if body.get("AccountTypes") == []:
        raise RedfishError("PropertyValueError", "AccountTypes", at="AccountTypes")
    types = body.get("AccountTypes")
    try:
        changed = await services.accounts.change(
            account.slot,
            name=body.get("UserName"),
            password=body.get("Password"),
            role=body.get("RoleId"),
            enabled=body.get("Enabled"),
            redfish=None if types is None else "Redfish" in types,
            ipmi=None if types is None else "IPMI" in types,
        )
    except AccountError as error:
        raise _refused(error, body) from error
    if call.session and call.session.account.slot == account.slot:
        call.session.account = changed  # who changes the own password stays logged in; other sessions end
    if "Locked" in body or "Password" in body:
        services.login.unlock(account.slot)
    still = account.slot in services.settings.values.password_change_required and "Password" not in body
    await _require_change(call, account.slot, body.get("PasswordChangeRequired", still))


async def _delete(call: Call) -> None:
    account = _find(call)
    if not _manages(call):
        raise RedfishError("InsufficientPrivilege")
    try:
        await call.services.accounts.delete(account.slot)
    except AccountError as error:
        raise _refused(error, {}) from error
    await _require_change(call, account.slot, False)


async def _require_change(call: Call, slot: int, required: bool) -> None:
    def changed(values: Values) -> Values:
        slots = set(values.password_change_required) - {slot} | ({slot} if required else set())
        return replace(values, password_change_required=tuple(sorted(slots)))

    await call.services.settings.update(changed)


def _manages(call: Call) -> bool:
    return call.account is not None and "ConfigureUsers" in PRIVILEGES[call.account.role]


def _own(call: Call) -> bool:
    return call.account is not None and call.parameters["account"] == str(call.account.slot)


def _refused(error: AccountError, body: Json) -> RedfishError:
    """What the accounts refused, in the words of the registry."""
    if error.reason == "name-taken":
        return RedfishError("ResourceAlreadyExists", "ManagerAccount", "UserName", body.get("UserName"), at="UserName")
    if error.reason == "no-slot":
        return RedfishError("CreateLimitReachedForResource")
    if error.reason == "bad-name":
        return RedfishError("PropertyValueFormatError", body.get("UserName"), "UserName", at="UserName")
    if error.reason == "bad-password":
        return RedfishError("PropertyValueFormatError", "******", "Password", at="Password")
    return RedfishError("MachineError", error, registry="Placemat", status=409)


async def _roles(call: Call) -> Json:
    return collection("Roles Collection", [f"{ROLES}/{role}" for role in ROLE_NAMES])


async def _role(call: Call) -> Json:
    role = next((role for role in ROLE_NAMES if role == call.parameters["role"]), None)
    if role is None:
        raise missing(call)
    return {
        "Id": role,
        "Name": f"{role} Role",
        "RoleId": role,
        "IsPredefined": True,
        "AssignedPrivileges": list(PRIVILEGES[role]),
    }
