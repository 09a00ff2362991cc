"""User and group IDs of an ordinary user's sandbox: root inside is the user, the others come from /etc/subuid.

See subuid(5), newuidmap(1) and user_namespaces(7).
"""

import os
import pwd
import subprocess
from pathlib import Path

from placematd.errors import StepError

NEEDED = 65535
"""IDs besides root's: up to nobody's, 65534, and one for good measure, as useradd hands them out."""


def user_name() -> str:
    """The caller's name; the number where there is none."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def ranges(table: Path) -> tuple[tuple[int, int], ...]:
    """The caller's (first, count) in /etc/subuid or /etc/subgid."""
    if not table.is_file():
        return ()
    rows = [line.split(":") for line in table.read_text().splitlines()]
    owners = {user_name(), str(os.geteuid())}
    return tuple((int(row[1]), int(row[2])) for row in rows if len(row) == 3 and row[0] in owners)


def write(pid: int) -> None:
    """Write both maps of the user namespace of `pid`; raises StepError with newuidmap's answer."""
    for program, own, table in (("newuidmap", os.geteuid(), "/etc/subuid"), ("newgidmap", os.getegid(), "/etc/subgid")):
        argv = [program, str(pid), "0", str(own), "1"]
        inside = 1
        for first, count in ranges(Path(table)):
            argv += [str(inside), str(first), str(count)]
            inside += count
        result = subprocess.run(argv, capture_output=True, text=True, check=False)
        if result.returncode:
            raise StepError(f"run {' '.join(argv)}", result.stderr.strip())
