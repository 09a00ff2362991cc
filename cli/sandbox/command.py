"""`placemat-cli sandbox`: the command line of the sandbox.

Register it with `CONTEXT_SETTINGS`, so that options after the first word belong to COMMAND.
"""

import json
import os
import signal
import subprocess
import sys
import termios
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import FrameType

import typer

from placematd.errors import NotFound, PlacematError

from . import registry
from .enter import FAILED
from .session import Entrance, Sandbox, join
from .spec import DEFAULT_NAME

CONTEXT_SETTINGS = {"allow_interspersed_args": False}
GRACE_SECONDS = 10
"""What a command has to end after SIGTERM or SIGHUP, which are sent on to it."""


class Interrupted(Exception):
    """A signal ends us now."""

    def __init__(self, number: int) -> None:
        self.number = number


class Signals:
    """Ctrl-C and the like belong to the command while one runs, and end the sandbox otherwise."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None
        self.ending = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGALRM):
            signal.signal(number, self._arrived)

    def _arrived(self, number: int, _frame: FrameType | None) -> None:
        if self.ending:
            return
        if self.process is None or number == signal.SIGALRM:
            self.ending = True
            raise Interrupted(signal.SIGTERM if number == signal.SIGALRM else number)
        with suppress(ProcessLookupError):
            self.process.send_signal(number)
        if number in (signal.SIGTERM, signal.SIGHUP):
            signal.alarm(GRACE_SECONDS)

    def run(self, entrance: Entrance, argv: Sequence[str]) -> int:
        """Run a command with our terminal or standard streams; returns its exit status."""
        terminal = os.isatty(0)
        before = termios.tcgetattr(0) if terminal else None
        self.process = entrance.popen(argv, foreground=terminal)
        status = self.process.wait()
        self.ending = True
        signal.alarm(0)
        if before is not None and status < 0:  # it could not put the terminal back itself
            signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            termios.tcsetattr(0, termios.TCSAFLUSH, before)
        return status if status >= 0 else 128 - status


COMMAND = typer.Argument(None, metavar="[COMMAND]...", help="What to run inside; $SHELL unless given.")
NAME = typer.Option(DEFAULT_NAME, "--name", help="Name of the sandbox.")
NAT = typer.Option(False, "--nat", help="Give it a way out into the machine's network (slirp4netns).")
JOIN = typer.Option("", "--join", metavar="NAME", help="Run COMMAND in a sandbox that is running.", show_default=False)
LIST = typer.Option(False, "--list", help="Show your running sandboxes.")
JSON = typer.Option(False, "--json", help="With --list: as JSON.")
KEEP_DATA = typer.Option(False, "--keep-data", help="Use the machine's /var/lib/placemat and /var/cache/placemat.")
BIND = typer.Option([], "--bind", metavar="DIR", help="A directory that is the real one inside.", show_default=False)


def sandbox_command(
    command: list[str] = COMMAND,
    name: str = NAME,
    nat: bool = NAT,
    join_name: str = JOIN,
    list_all: bool = LIST,
    as_json: bool = JSON,
    keep_data: bool = KEEP_DATA,
    bind: list[Path] = BIND,
) -> None:
    """Run COMMAND beside a private systemd and network, all of which is gone afterwards.

    Inside, the working and home directory are the real ones; everything else is a throw-away copy or read-only.
    The exit status is COMMAND's; 125 where the sandbox itself fails.
    """
    if list_all:
        _list(as_json)
        return
    argv = command or [os.environ.get("SHELL") or "/bin/bash"]
    signals = Signals()
    try:
        if join_name:
            status = _join(signals, join_name, argv)
        else:
            status = _run(signals, Sandbox(name, nat=nat, keep_data=keep_data, binds=tuple(bind)), argv)
    except Interrupted as interrupt:
        status = 128 + interrupt.number
    except (PlacematError, ValueError) as error:
        typer.echo(f"placemat-cli sandbox: {error}", err=True)
        status = FAILED
    raise typer.Exit(status)


def _join(signals: Signals, name: str, argv: Sequence[str]) -> int:
    entrance = join(name)
    try:
        return signals.run(entrance, argv)
    finally:
        entrance.close()


def _run(signals: Signals, sandbox: Sandbox, argv: Sequence[str]) -> int:
    with sandbox:
        if sandbox.inside.running.stale_cgroup:
            typer.echo("placemat-cli sandbox: removed the cgroup of an earlier sandbox that was killed", err=True)
        status = signals.run(sandbox.inside, argv)
        if error := sandbox.error(status):
            raise error
        return status


def _list(as_json: bool) -> None:
    running = []
    for name in registry.names():
        with suppress(NotFound):
            found, pidfd = registry.find(name)
            os.close(pidfd)
            running.append(found)
    if as_json:
        json.dump([asdict(item) for item in running], sys.stdout, indent=2)
        typer.echo()
        return
    rows = [("NAME", "PID", "NAT", "SINCE")]
    rows += [(item.name, str(item.leader_pid), "yes" if item.nat else "no", item.since) for item in running]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
