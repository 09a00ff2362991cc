"""The few files in /etc that a sandbox has its own of; `etc` is the new root's, writable and not the machine's."""

import uuid
from pathlib import Path

from placematd.facts import API_GROUP, QEMU_USER

from .spec import NAT_NAMESERVER, Spec

SYSTEM_IDS = range(999, 99, -1)


def write(etc: Path, spec: Spec) -> None:
    """Accounts, machine identity, host name, name servers, and no file systems to mount at boot."""
    host_name = f"placemat-{spec.name}"
    _add_accounts(etc)
    _replace(etc / "machine-id", uuid.uuid4().hex + "\n")
    _replace(etc / "hostname", host_name + "\n")
    _replace(etc / "fstab", "")
    _replace(etc / "resolv.conf", f"nameserver {NAT_NAMESERVER}\n" if spec.nat else "# sandbox without --nat\n")
    hosts = _read(etc / "hosts") or "127.0.0.1 localhost\n::1 localhost\n"
    _replace(etc / "hosts", f"{hosts.rstrip()}\n127.0.1.1 {host_name}\n")


def _read(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


def _replace(path: Path, text: str, mode: int = 0o644) -> None:
    """Anew, since it may be a link to somewhere that the sandbox has not."""
    path.unlink(missing_ok=True)
    path.write_text(text)
    path.chmod(mode)


def _ids(table: str) -> dict[str, int]:
    """Name to number, of passwd(5) and group(5)."""
    rows = [line.split(":") for line in table.splitlines()]
    return {row[0]: int(row[2]) for row in rows if len(row) > 2 and row[2].isdigit()}


def _free(*tables: dict[str, int]) -> int:
    taken = {number for table in tables for number in table.values()}
    return next(number for number in SYSTEM_IDS if number not in taken)


def _add_accounts(etc: Path) -> None:
    """QEMU's user and group, and the API's group, as `make install` makes them; systemd-journal for journalctl."""
    passwd, group, shadow = (_read(etc / name).rstrip("\n") + "\n" for name in ("passwd", "group", "shadow"))
    for name in (QEMU_USER, API_GROUP, "systemd-journal"):
        if name not in _ids(group):
            group += f"{name}:x:{_free(_ids(group), _ids(passwd))}:\n"
    if QEMU_USER not in _ids(passwd):
        gid = _ids(group)[QEMU_USER]
        uid = gid if gid not in _ids(passwd).values() else _free(_ids(group), _ids(passwd))
        passwd += f"{QEMU_USER}:x:{uid}:{gid}:placemat's virtual machines:/nonexistent:/usr/sbin/nologin\n"
    known = {line.split(":")[0] for line in shadow.splitlines()}
    shadow += "".join(f"{name}:*:20000:0:99999:7:::\n" for name in _ids(passwd) if name not in known)
    _replace(etc / "passwd", passwd)
    _replace(etc / "group", group)
    _replace(etc / "shadow", shadow.lstrip("\n"), mode=0o600)
