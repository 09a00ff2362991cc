"""What a sandbox is asked to be, and what the processes that make it tell each other."""

import json
import os
import pwd
import re
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

DEFAULT_NAME = "default"
BOOT_TIMEOUT_SECONDS = 60.0

NAT_SUBNET = "198.19.255.0/24"
"""Addresses on the way out; from the range for benchmarks (RFC 2544), which no cluster file has a reason to use."""
NAT_NAMESERVER = "198.19.255.3"
NAT_LINK = "uplink"


def check_name(name: str) -> str:
    """`name`, or ValueError where it is unfit for a host name and a cgroup."""
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9-]{0,38}[A-Za-z0-9])?", name):
        raise ValueError(f"{name!r}: a sandbox's name has 1 to 40 letters, digits and dashes, no dash at the ends")
    return name


@dataclass(frozen=True, kw_only=True)
class Spec:
    """One sandbox; `writable` are the machine's directories that are the real ones inside, at the same path."""

    name: str
    nat: bool = False
    keep_data: bool = False
    writable: tuple[str, ...] = ()
    placematd: str = ""
    units: str = ""
    boot_timeout_seconds: float = BOOT_TIMEOUT_SECONDS

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> "Spec":
        """The inverse of `to_json`."""
        fields = json.loads(text)
        return Spec(**{**fields, "writable": tuple(fields["writable"])})


def placematd() -> Path:
    """The service that belongs to the running command: beside it, beside its interpreter, or wherever PATH has it."""
    folders = (Path(sys.argv[0]).parent, Path(sys.executable).parent)
    candidates = [folder.absolute() / "placematd" for folder in folders]
    found = shutil.which("placematd")
    return next((path for path in candidates if path.is_file()), Path(found or "/usr/bin/placematd"))


def units() -> Path:
    """The unit files of the clone that this runs from; nothing is there when placemat is installed."""
    return Path(__file__).resolve().parent.parent.parent / "units"


def home() -> Path:
    """The caller's home directory."""
    return Path(os.environ.get("HOME") or pwd.getpwuid(os.geteuid()).pw_dir)


_NEVER_WHOLE = {"/", "/home", "/run", "/tmp", "/var", "/var/cache", "/var/lib", "/var/log", "/var/tmp"}
_NEVER_BELOW = ("bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "sbin", "sys", "usr")


def real_directories(wanted: tuple[Path, ...]) -> tuple[str, ...]:
    """Those of `wanted` that exist and may be written from inside, outermost first and none twice.

    Directories of the system never are: a sandbox sees a throw-away copy of them.
    """
    chosen: list[Path] = []
    for path in sorted({path.resolve() for path in wanted}):
        system = str(path) in _NEVER_WHOLE or (len(path.parts) > 1 and path.parts[1] in _NEVER_BELOW)
        if path.is_dir() and not system and not any(path.is_relative_to(outer) for outer in chosen):
            chosen.append(path)
    return tuple(map(str, chosen))


def enter_argv(pidfd: int, cgroup_directory: Path | str, directory: str, argv: tuple[str, ...]) -> list[str]:
    """The command that runs `argv` inside; the pidfd must be inherited."""
    module = f"{__package__}.enter"
    return [sys.executable, "-P", "-m", module, str(pidfd), str(cgroup_directory), directory, *argv]
