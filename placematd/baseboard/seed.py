"""The accounts that a BMC begins with: those that the cluster file names.

What people change later through IPMI or Redfish stays, until the users of the cluster file (or their passwords) change:
then these are the accounts again. A salted digest beside the accounts tells whether they have changed.
"""

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ..bmc.accounts import Account
from ..bmc.machine import Json
from ..bmc_settings import DEFAULT_NAME, DEFAULT_PASSWORD
from ..credentials import FIRST_SLOT, PASSWORD_FILE_BYTES, Role, password_in
from ..errors import StepError
from ..models import BmcUser


class Login(NamedTuple):
    """A user of the cluster file with the password that was read for it."""

    name: str
    role: Role
    password: str


@dataclass(frozen=True)
class Seeded:
    """The section "accounts" as it has to be saved, and what to say about it (no password)."""

    section: Json = field(repr=False)
    message: str


def credentials_directory(environ: Mapping[str, str]) -> Path | None:
    """Where systemd put the credentials of placematd's unit (systemd.exec(5)); None where it has none."""
    directory = environ.get("CREDENTIALS_DIRECTORY")
    return Path(directory) if directory else None


def seed(stored: Mapping[str, Any], users: Sequence[BmcUser], credentials: Path | None) -> Seeded | None:
    """What to save in place of the `stored` section ({} where there is none), or None: it is right as it is.

    `users` are those of `bmc_settings.effective`; none means the well-known one. Raises StepError where a password
    cannot be read. Blocks: call it in a thread.
    """
    logins = [Login(user.name, user.role, read_password(user, credentials)) for user in users]
    logins = logins or [Login(DEFAULT_NAME, "Administrator", DEFAULT_PASSWORD)]
    configured = stored.get("configured")
    if (
        configured
        and "accounts" in stored
        and hmac.compare_digest(_digest(configured["salt"], logins), configured["digest"])
    ):
        return None
    salt = secrets.token_hex(16)
    accounts = [
        Account(slot=slot, name=login.name, role=login.role, password=login.password)
        for slot, login in enumerate(logins, FIRST_SLOT)
    ]
    section = {
        **stored,
        "revision": stored.get("revision", 0) + 1,
        "accounts": [asdict(account) for account in accounts],
        "configured": {"salt": salt, "digest": _digest(salt, logins)},
    }
    return Seeded(section, _message(logins, bool(users), "accounts" in stored))


def read_password(user: BmcUser, credentials: Path | None) -> str:
    """The password of a user, from its file or systemd credential. Raises StepError, which does not show it."""
    attempted = f"read the password of BMC user {user.name}"
    if user.password_file:
        path, hint = user.password_file, ""
    elif credentials is None:
        raise StepError(attempted, "placematd has no systemd credentials", _load_credential(user))
    else:
        path, hint = credentials / user.password_credential, _load_credential(user)
    try:
        return password_in(_read(path))
    except ValueError as error:
        raise StepError(attempted, f"{path}: {error}") from None
    except OSError as error:
        raise StepError(attempted, f"{path}: {error.strerror}", hint) from error


def _read(path: Path) -> bytes:
    """A FIFO in the file's place must not keep us waiting."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123 (a descriptor)
        return file.read(PASSWORD_FILE_BYTES) or b""


def _load_credential(user: BmcUser) -> str:
    name = user.password_credential
    return f"systemctl edit placemat@.service, and there [Service] LoadCredential={name}:/path/to/{name}"


def _digest(salt: str, logins: Sequence[Login]) -> str:
    return hmac.new(bytes.fromhex(salt), json.dumps(logins).encode(), hashlib.sha256).hexdigest()


def _message(logins: Sequence[Login], configured: bool, again: bool) -> str:
    if not configured:
        who = f"the well-known user {DEFAULT_NAME}"
    else:
        who = "the users of the cluster file: " + ", ".join(f"{login.name} ({login.role})" for login in logins)
    return f"its BMC has {who}" + ("; those it had before are gone, since the cluster file changed" if again else "")
