"""Which sandboxes run: each supervisor listens on an abstract Unix socket named after its user and sandbox.

The name is taken exactly as long as the supervisor lives (unix(7)): no file can be left behind or be wrong. It is
seen in the same network namespace only.
"""

import errno
import json
import os
import socket
import struct
from dataclasses import asdict, dataclass
from pathlib import Path

from placematd.errors import NotFound, StepError

_PREFIX = "placemat-sandbox"
_TIMEOUT_SECONDS = 10


@dataclass(frozen=True, kw_only=True)
class Running:
    """A sandbox that is up."""

    name: str
    leader_pid: int
    """Its systemd, as the machine numbers it."""
    cgroup: str
    nat: bool
    since: str
    """ISO 8601."""
    stale_cgroup: bool = False
    """Whether a killed sandbox's empty cgroup was found and replaced."""

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))


def address(name: str, uid: int) -> str:
    """The abstract address of a user's sandbox."""
    return f"\0{_PREFIX}/{uid}/{name}"


def claim(name: str) -> socket.socket:
    """Listen under the name; raises StepError where a sandbox of the caller has it already."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(address(name, os.geteuid()))
    except OSError as error:
        listener.close()
        if error.errno != errno.EADDRINUSE:
            raise
        hint = f"placemat-cli sandbox --join {name}, or another --name"
        raise StepError(f"start sandbox {name}", "a sandbox of that name is running", hint) from error
    listener.listen()
    return listener


def peer_uid(connection: socket.socket) -> int:
    """Who is at the other end (SO_PEERCRED)."""
    size = struct.calcsize("3i")
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return int(uid)


def answer(listener: socket.socket, running: Running, pidfd: int) -> None:
    """Tell one caller, if it is the same user or root, what runs; hands over a pidfd of the leader."""
    connection, _ = listener.accept()
    with connection:
        if peer_uid(connection) in (os.geteuid(), 0):
            socket.send_fds(connection, [running.to_json().encode()], [pidfd])


def find(name: str, uid: int | None = None) -> tuple[Running, int]:
    """The running sandbox of that name and a pidfd of its leader; raises NotFound."""
    owner = os.geteuid() if uid is None else uid
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_TIMEOUT_SECONDS)
        try:
            connection.connect(address(name, owner))
        except ConnectionRefusedError as error:
            raise NotFound(
                f"no sandbox {name} is running (placemat-cli sandbox --list shows those that are)"
            ) from error
        if peer_uid(connection) != owner:
            raise NotFound(f"no sandbox {name} of yours is running: the name is taken by another user")
        message, fds, _, _ = socket.recv_fds(connection, 1 << 16, 1)
    if not fds:
        raise NotFound(f"sandbox {name} is ending")
    return Running(**json.loads(message)), fds[0]


def names(uid: int | None = None) -> tuple[str, ...]:
    """Names of the caller's running sandboxes."""
    prefix = f"@{_PREFIX}/{os.geteuid() if uid is None else uid}/"
    rows = Path("/proc/net/unix").read_text().splitlines()
    paths = {row.split()[-1] for row in rows}
    return tuple(sorted(path.removeprefix(prefix) for path in paths if path.startswith(prefix)))
