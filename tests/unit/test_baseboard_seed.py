"""The accounts that a BMC begins with, and what becomes of them when the cluster file changes."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from placematd.baseboard.seed import credentials_directory, seed
from placematd.bmc.accounts import Accounts
from placematd.errors import StepError
from placematd.models import BmcUser


class Store:
    """The part of a machine that accounts need."""

    def __init__(self, section: dict[str, Any]) -> None:
        self.section = section

    async def load(self, section: str) -> dict[str, Any]:
        return json.loads(json.dumps(self.section))

    async def save(self, section: str, value: Any) -> None:
        self.section = json.loads(json.dumps(value))


def loaded(section: dict[str, Any]) -> tuple[Store, Accounts]:
    store = Store(section)
    accounts = Accounts(store)
    asyncio.run(accounts.load())
    return store, accounts


def admin(path: Path) -> BmcUser:
    return BmcUser(name="admin", role="Administrator", password_file=path)


OPERATOR = BmcUser(name="op", role="Operator", password_credential="bmc-op")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "admin"
    path.write_text("secret\n")
    return path


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    (tmp_path / "bmc-op").write_text("passw0rd")
    return tmp_path


@pytest.mark.proves("Cluster.bmc.users.password-file", "Cluster.bmc.users.password-credential")
@pytest.mark.proves("Node.bmc.users.password-file", "Node.bmc.users.password-credential")
def test_users_of_the_cluster_file_log_in(secret: Path, credentials: Path) -> None:
    seeded = seed({}, [admin(secret), OPERATOR], credentials)
    _, accounts = loaded(seeded.section)
    assert [(account.slot, account.name, account.role) for account in accounts.all()] == [
        (2, "admin", "Administrator"),
        (3, "op", "Operator"),
    ]
    assert accounts.verify("admin", "secret") and accounts.verify("op", "passw0rd", "ipmi")
    assert seeded.message == "its BMC has the users of the cluster file: admin (Administrator), op (Operator)"


def test_without_users_there_is_the_well_known_one() -> None:
    seeded = seed({}, [], None)
    _, accounts = loaded(seeded.section)
    assert accounts.verify("cybozu", "cybozu").role == "Administrator"
    assert seeded.message == "its BMC has the well-known user cybozu"
    assert seed(seeded.section, [], None) is None


def test_what_was_changed_at_run_time_stays(secret: Path, credentials: Path) -> None:
    users = [admin(secret), OPERATOR]
    store, accounts = loaded(seed({}, users, credentials).section)
    asyncio.run(accounts.change(2, password="changed"))
    asyncio.run(accounts.delete(3))
    assert seed(store.section, users, credentials) is None
    assert loaded(store.section)[1].verify("admin", "changed")


@pytest.mark.parametrize("change", ["password", "role", "name", "fewer", "none"])
def test_a_change_of_the_cluster_file_makes_the_accounts_anew(secret: Path, credentials: Path, change: str) -> None:
    users = [admin(secret), OPERATOR]
    store, accounts = loaded({"other": "kept"} | seed({}, users, credentials).section)
    asyncio.run(accounts.change(2, password="changed"))
    if change == "password":
        secret.write_text("newer")
    changed = {
        "password": users,
        "role": [BmcUser(name="admin", role="ReadOnly", password_file=secret), OPERATOR],
        "name": [BmcUser(name="root", role="Administrator", password_file=secret), OPERATOR],
        "fewer": users[:1],
        "none": [],
    }[change]
    seeded = seed(store.section, changed, credentials)
    names = [account["name"] for account in seeded.section["accounts"]]
    assert names == ([user.name for user in changed] or ["cybozu"])
    assert seeded.section["revision"] == accounts.revision + 1
    assert seeded.section["other"] == "kept"
    assert "those it had before are gone" in seeded.message
    assert not loaded(seeded.section)[1].verify("admin", "changed")


def test_neither_messages_nor_digest_tell_a_password(secret: Path) -> None:
    first, second = seed({}, [admin(secret)], None), seed({}, [admin(secret)], None)
    assert "secret" not in first.message + repr(first)
    assert "secret" not in json.dumps(first.section["configured"])
    assert first.section["configured"]["digest"] != second.section["configured"]["digest"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [("", "is empty"), ("secret" * 4, "longer than 20 bytes"), ("secret\nmore", "control characters")],
)
def test_a_file_that_holds_no_password(secret: Path, content: str, problem: str) -> None:
    secret.write_text(content)
    with pytest.raises(StepError, match=problem) as caught:
        seed({}, [admin(secret)], None)
    assert "secret" not in str(caught.value)
    assert str(caught.value).startswith(f"read the password of BMC user admin: {secret}: what it holds ")


def test_files_and_credentials_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(StepError, match="none: No such file or directory"):
        seed({}, [admin(tmp_path / "none")], None)
    with pytest.raises(StepError, match=r"bmc-op: No such file or directory .*LoadCredential=bmc-op:"):
        seed({}, [OPERATOR], tmp_path)
    with pytest.raises(StepError, match=r"placematd has no systemd credentials .*LoadCredential=bmc-op:"):
        seed({}, [OPERATOR], None)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(StepError, match="is empty"):
        seed({}, [admin(tmp_path / "fifo")], None)


def test_where_credentials_are() -> None:
    assert credentials_directory({}) is None
    assert credentials_directory({"CREDENTIALS_DIRECTORY": "/run/credentials/x"}) == Path("/run/credentials/x")
