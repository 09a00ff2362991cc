"""The accounts of a BMC: limits, who may log in, what survives, and who cannot be removed."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from placematd.bmc.accounts import PRIVILEGE_OF, Account, AccountError, Accounts
from placematd.errors import PlacematError


class Store:
    """The part of a machine that accounts need; what is saved goes through JSON, as it does on the way to placematd."""

    def __init__(self) -> None:
        self.sections: dict[str, str] = {}
        self.broken = False

    async def load(self, section: str) -> dict[str, Any]:
        return json.loads(self.sections.get(section, "{}"))

    async def save(self, section: str, value: Mapping[str, Any]) -> None:
        if self.broken:
            raise PlacematError("the disk is full")
        text = json.dumps(value)
        await asyncio.sleep(0)
        self.sections[section] = text


async def loaded(store: Store) -> Accounts:
    accounts = Accounts(store)
    await accounts.load()
    return accounts


async def with_admin(store: Store | None = None) -> Accounts:
    accounts = await loaded(store or Store())
    await accounts.create(name="admin", password="secret", role="Administrator")
    return accounts


async def refused(change: Any) -> str:
    with pytest.raises(AccountError) as caught:
        await change
    assert "secret" not in str(caught.value)
    return caught.value.reason


def run(test: Any) -> None:
    asyncio.run(test())


def test_what_was_made_is_there_for_the_next_process() -> None:
    async def test() -> None:
        store = Store()
        store.sections["accounts"] = '{"configured": "digest"}'
        accounts = await with_admin(store)
        operator = await accounts.create(name="op", password="x" * 20, role="Operator", enabled=False)
        assert (operator.slot, accounts.by_slot(2).name, accounts.by_name("nobody")) == (3, "admin", None)
        again = await loaded(store)
        assert again.all() == accounts.all() and len(again.all()) == 2
        assert again.revision == accounts.revision == 2
        assert json.loads(store.sections["accounts"])["configured"] == "digest"

    run(test)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"name": ""}, "bad-name"),
        ({"name": "x" * 17}, "bad-name"),
        ({"name": "ü" * 9}, "bad-name"),
        ({"name": "a\nb"}, "bad-name"),
        ({"name": " a"}, "bad-name"),
        ({"name": "a:b"}, "bad-name"),
        ({"name": "a\udcffb"}, "bad-name"),
        ({"name": "admin"}, "name-taken"),
        ({"password": ""}, "bad-password"),
        ({"password": "", "enabled": False}, None),
        ({"password": "x" * 21}, "bad-password"),
        ({"password": "x" * 21, "enabled": False}, "bad-password"),
        ({"password": "ü" * 11}, "bad-password"),
        ({"password": "a\0"}, "bad-password"),
        ({"role": "Root"}, "bad-role"),
        ({"slot": 1}, "no-slot"),
        ({"slot": 16}, "no-slot"),
        ({"slot": 2}, "no-slot"),
        ({"slot": 15}, None),
        ({"name": "x" * 16, "password": "ü" * 10}, None),
    ],
)
def test_limits(fields: dict[str, Any], reason: str | None) -> None:
    async def test() -> None:
        accounts = await with_admin()
        making = accounts.create(**{"name": "new", "password": "pass", "role": "ReadOnly"} | fields)
        if reason:
            assert await refused(making) == reason
            assert len(accounts.all()) == 1
        else:
            assert accounts.by_slot((await making).slot)

    run(test)


def test_fourteen_accounts_fit() -> None:
    async def test() -> None:
        accounts = await with_admin()
        for number in range(13):
            await accounts.create(name=f"user{number}", password="pass", role="ReadOnly")
        assert [account.slot for account in accounts.all()] == list(range(2, 16))
        assert await refused(accounts.create(name="one", password="more", role="ReadOnly")) == "no-slot"
        await accounts.delete(7)
        assert (await accounts.create(name="one", password="more", role="ReadOnly")).slot == 7
        assert [account.slot for account in accounts.all()] == list(range(2, 16))

    run(test)


def test_who_may_log_in() -> None:
    async def test() -> None:
        accounts = await with_admin()
        assert accounts.verify("admin", "secret") == accounts.by_name("admin")
        assert accounts.verify("admin", "secret", "ipmi") == accounts.by_name("admin")
        for name, password in [("admin", "Secret"), ("Admin", "secret"), ("", ""), ("admin", ""), ("secret", "admin")]:
            assert accounts.verify(name, password) is None
        for password in ["secret\0", "secret" + "x" * 10_000, "\udcff"]:
            assert accounts.verify("admin", password) is None
        op = await accounts.create(name="op", password="pass", role="Operator")
        await accounts.change(op.slot, redfish=False)
        assert accounts.verify("op", "pass") is None
        assert accounts.verify("op", "pass", "ipmi")
        await accounts.change(op.slot, redfish=True, ipmi=False)
        assert accounts.verify("op", "pass", "ipmi") is None
        await accounts.change(op.slot, enabled=False)
        assert accounts.verify("op", "pass") is None
        await accounts.create(name="new", password="pass", role="Operator", redfish=False)
        assert accounts.verify("new", "pass", "ipmi") and not accounts.verify("new", "pass")

    run(test)


def test_without_a_password_nobody_logs_in_and_nobody_is_enabled() -> None:
    async def test() -> None:
        accounts = await with_admin()
        bob = await accounts.create(name="bob", password="", role="ReadOnly", enabled=False)
        assert not bob.may_log_in("ipmi")
        assert accounts.verify("bob", "") is None
        assert await refused(accounts.change(bob.slot, enabled=True)) == "bad-password"
        await accounts.change(bob.slot, password="pass")
        await accounts.change(bob.slot, enabled=True)
        assert accounts.verify("bob", "pass")
        assert await refused(accounts.change(bob.slot, password="")) == "bad-password"

    run(test)


def test_the_last_administrator_stays() -> None:
    async def test() -> None:
        accounts = await with_admin()
        await accounts.create(name="op", password="pass", role="Operator")
        assert await refused(accounts.delete(2)) == "last-administrator"
        assert await refused(accounts.change(2, enabled=False)) == "last-administrator"
        assert await refused(accounts.change(2, role="Operator")) == "last-administrator"
        await accounts.change(2, ipmi=False)
        assert await refused(accounts.change(2, redfish=False)) == "last-administrator"
        await accounts.change(3, role="Administrator")
        await accounts.delete(2)
        assert await refused(accounts.delete(3)) == "last-administrator"
        assert await refused(accounts.delete(9)) == "no-account"

    run(test)


def test_a_change_is_whole_or_nothing_and_counted_once() -> None:
    async def test() -> None:
        accounts = await with_admin()
        told: list[int] = []
        accounts.subscribe(told.append)
        assert await refused(accounts.change(2, name="root", password="x" * 21)) == "bad-password"
        assert accounts.by_slot(2).name == "admin" and accounts.revision == 1
        await accounts.change(2, name="admin", role="Administrator")
        assert accounts.revision == 1 and told == []
        await accounts.change(2, name="root", password="new")
        assert accounts.revision == 2 and told == [2]
        assert accounts.verify("root", "new") and not accounts.verify("root", "secret")

    run(test)


def test_what_could_not_be_saved_is_not_so() -> None:
    async def test() -> None:
        store = Store()
        accounts = await with_admin(store)
        store.broken = True
        with pytest.raises(PlacematError, match="disk is full"):
            await accounts.change(2, password="new")
        assert accounts.verify("admin", "secret") and not accounts.verify("admin", "new")
        store.broken = False
        await accounts.change(2, password="new")
        assert accounts.verify("admin", "new")

    run(test)


def test_changes_at_once_do_not_lose_each_other() -> None:
    async def test() -> None:
        store = Store()
        accounts = await with_admin(store)
        names = [f"user{number}" for number in range(10)]
        await asyncio.gather(*(accounts.create(name=name, password="p", role="ReadOnly") for name in names))
        assert [account.name for account in (await loaded(store)).all()] == ["admin", *names]

    run(test)


def test_loading_again_tells_what_changed_elsewhere() -> None:
    async def test() -> None:
        store = Store()
        first, told = await with_admin(store), list[int]()
        first.subscribe(told.append)
        second = await loaded(store)
        await second.create(name="op", password="pass", role="Operator")
        await first.load()
        assert told == [3] and first.revision == 2

    run(test)


def test_a_password_is_in_no_representation_and_roles_have_levels() -> None:
    account = Account(slot=2, name="admin", password="secret", role="Administrator")
    assert "secret" not in repr(account)
    assert PRIVILEGE_OF == {"ReadOnly": 2, "Operator": 3, "Administrator": 4}
