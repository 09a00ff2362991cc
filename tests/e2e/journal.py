"""Reading the journal of a sandbox as it grows, and waiting for a line in it."""

import json
import os
import re
import selectors
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Popen = Callable[..., "subprocess.Popen[bytes]"]


class Follower:
    """`journalctl --follow` of some fields; lines that were read stay in `seen`."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self._rest = b""
        self.seen: list[str] = []

    def wait(self, pattern: str, timeout_seconds: float) -> "re.Match[str]":
        """The first line, old or new, that the pattern is found in; fails with what was read instead."""
        deadline = time.monotonic() + timeout_seconds
        position = 0
        while True:
            for line in self.seen[position:]:
                if match := re.search(pattern, line):
                    return match
            position = len(self.seen)
            if not self._read(deadline - time.monotonic()):
                tail = "\n".join(self.seen[-60:])
                raise AssertionError(f"no line with {pattern!r} within {timeout_seconds:g} s; the last lines:\n{tail}")

    def _read(self, seconds: float) -> bool:
        """Read what is there; False at the end of the time or of the journal."""
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if seconds <= 0 or not selector.select(seconds):
                return False
        data = os.read(self._process.stdout.fileno(), 65536)
        *lines, self._rest = (self._rest + data).split(b"\n")
        self.seen += [text(json.loads(line)["MESSAGE"]) for line in lines if line]
        return bool(data)


def text(message: Any) -> str:
    """journalctl -o json gives what is no plain text as a list of bytes."""
    return message if isinstance(message, str) else bytes(message or b"").decode(errors="replace")


@contextmanager
def follow(popen: Popen, *matches: str) -> Iterator[Follower]:
    """Follow the journal from its beginning; `matches` as journalctl(1) takes them."""
    argv = ["journalctl", "--follow", "--no-tail", "--output=json", "--output-fields=MESSAGE", *matches]
    process = popen(argv, stdout=subprocess.PIPE)
    try:
        yield Follower(process)
    finally:
        process.terminate()
        process.wait(30)
        if process.stdout:
            process.stdout.close()


@contextmanager
def follow_on(
    run: Callable[..., "subprocess.CompletedProcess[str]"], popen: Popen, *matches: str
) -> Iterator[Follower]:
    """Follow the journal from now on; `matches` as journalctl(1) takes them."""
    run(["journalctl", "--sync"])
    # The cursor of a line that matches: after one that does not, journalctl of systemd 252 skips the first that does.
    shown = str(run(["journalctl", "--quiet", "--show-cursor", "--lines=0", *matches]).stdout)
    found = re.search(r"^-- cursor: (\S+)$", shown, re.MULTILINE)
    with follow(popen, *([f"--after-cursor={found[1]}"] if found else []), *matches) as follower:
        yield follower
