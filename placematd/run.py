"""Running programs: always an argv, always a deadline, never a shell. Failures read like something to paste."""

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from .errors import MissingTool, StepError, TimedOut

PACKAGES: Mapping[str, str] = {
    "cloud-localds": "cloud-image-utils",
    "genisoimage": "genisoimage",
    "ip": "iproute2",
    "ip6tables-legacy-restore": "iptables",
    "iptables-legacy-restore": "iptables",
    "journalctl": "systemd",
    "modprobe": "kmod",
    "newuidmap": "uidmap",
    "nft": "nftables",
    "nsenter": "util-linux",
    "pasta": "passt",
    "qemu-img": "qemu-utils",
    "qemu-system-x86_64": "qemu-system-x86",
    "slirp4netns": "slirp4netns",
    "swtpm": "swtpm",
    "systemctl": "systemd",
    "unshare": "util-linux",
    "zstd": "zstd",
}
"""Debian package of each program that placemat runs."""

SBIN = "/usr/sbin:/sbin"
"""Where Debian keeps programs such as nft, which are not in a user's PATH."""

_STDERR_LINES = 10


def find(program: str) -> Path:
    """The program's path: `program` itself if it has a slash, else the first in PATH or, as for a user without sbin in
    PATH, in /usr/sbin and /sbin. Raises MissingTool.
    """
    path = shutil.which(program) or shutil.which(program, path=SBIN)
    if path is None:
        raise MissingTool(program, PACKAGES.get(Path(program).name, Path(program).name))
    return Path(path)


def run(
    argv: Sequence[str | Path],
    *,
    input: str | None = None,
    timeout_seconds: float = 60,
    env: Mapping[str, str] | None = None,
) -> str:
    """What the program wrote to stdout. `env` is added to our environment; messages are English (LC_ALL=C).

    Raises MissingTool, StepError on a non-zero status or a signal, and TimedOut at the deadline; then the program's
    whole process group is killed.
    """
    words = [str(word) for word in argv]
    line = shlex.join(words)
    process = _start(words, line, with_input=input is not None, env={**os.environ, "LC_ALL": "C", **(env or {})})
    try:
        output, errors = process.communicate(input, timeout=timeout_seconds)
    except subprocess.TimeoutExpired as error:
        _kill(process)
        raise TimedOut(f"run {line}", f"not finished after {timeout_seconds:g} s" + _tail(error.stderr)) from error
    except BaseException:
        _kill(process)
        raise
    if process.returncode:
        raise StepError(f"run {line}", _status(process.returncode) + _tail(errors))
    return output


def _start(words: list[str], line: str, *, with_input: bool, env: Mapping[str, str]) -> "subprocess.Popen[str]":
    try:
        return subprocess.Popen(
            [str(find(words[0])), *words[1:]],
            stdin=subprocess.PIPE if with_input else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env=env,
            process_group=0,
        )
    except OSError as error:
        raise StepError(f"run {line}", error.strerror or str(error)) from error


def _kill(process: "subprocess.Popen[str]") -> None:
    """Kill the group, so that no grandchild holds our pipes open."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def _status(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"


def _tail(errors: str | bytes | None) -> str:
    """The last lines of stderr, after a colon."""
    text = errors.decode(errors="replace") if isinstance(errors, bytes) else errors or ""
    lines = text.strip().splitlines()[-_STDERR_LINES:]
    return ": " + "\n".join(lines) if lines else ""
