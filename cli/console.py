"""`node enter`: a node's serial console in the terminal, across restarts of the service."""

import os
import sys
import time
from contextlib import nullcontext, suppress

import typer

from placematd.errors import NotFound, PlacematError, WrongState

from .client import Api, Console
from .errors import Refused, Unreachable
from .terminal import Ending, EscapeKeys, Relay, raw, waking_signals

RECONNECT_SECONDS = 10.0
_PAUSE_SECONDS = 0.2
_STEADY_SECONDS = 5.0


def enter(api: Api, node: str) -> int:
    """Connect stdin and stdout with a node's console until the person leaves; returns the exit status.

    Without a terminal on stdin every byte is sent and the end of stdin ends nothing: that is for SIGINT and SIGTERM.
    Raises NotFound and Unreachable; the terminal is restored then, too.
    """
    console = api.console(node)
    stdin, stdout = sys.stdin.fileno(), sys.stdout.fileno()
    interactive = os.isatty(stdin)
    typer.echo(f"Connected to {node}." + (" Ctrl-Q Ctrl-X leaves." if interactive else ""), err=True)
    sys.stdout.flush()
    with waking_signals() as wake:
        relay = Relay(stdin, stdout, wake, EscapeKeys() if interactive else None)
        with raw(stdin) if interactive else nullcontext():
            try:
                ending = _stay(api, node, relay, console)
            finally:
                _tidy(stdout, relay)
    if ending.reason == "signal":
        return 128 + ending.signal
    return 0


def _stay(api: Api, node: str, relay: Relay, console: Console) -> Ending:
    """Relay, connecting again when the service is restarted."""
    give_up_at = 0.0
    while True:
        began, received = time.monotonic(), relay.received_bytes
        with console.connection:
            ending = relay.run(console.connection, console.first)
        if ending.reason != "closed":
            return ending
        if relay.received_bytes > received or time.monotonic() - began > _STEADY_SECONDS or not give_up_at:
            give_up_at = time.monotonic() + RECONNECT_SECONDS
        again = _connect_again(api, node, relay, give_up_at)
        if isinstance(again, Ending):
            return again
        console = again


def _connect_again(api: Api, node: str, relay: Relay, give_up_at: float) -> Console | Ending:
    """The console again, or how the person left while waiting.

    When it takes too long: raises NotFound for a node that is no more, else Unreachable.
    """
    last: PlacematError | None = None
    while True:
        ending = relay.pause(_PAUSE_SECONDS)
        if ending:
            return ending
        if time.monotonic() > give_up_at:
            if isinstance(last, NotFound):
                raise last
            raise Unreachable(f"the console of {node} is gone: the service of cluster {api.cluster} has stopped")
        try:
            return api.console(node, timeout_seconds=RECONNECT_SECONDS / 4)
        except (Unreachable, Refused, WrongState, NotFound) as error:
            last = error  # it may be starting, or the node is made anew


def _tidy(stdout: int, relay: Relay) -> None:
    """Put the screen back, and leave the cursor at the start of a line."""
    if not os.isatty(stdout):
        return
    with suppress(OSError):  # the terminal was hung up
        os.write(stdout, relay.screen.undo() + b"\r\n")
