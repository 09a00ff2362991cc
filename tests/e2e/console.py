"""The console of a node of a cluster in a sandbox, entered through placemat-cli."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from guests import Console
from sandboxes import Box

CLI = str(Path(__file__).parents[2] / ".venv/bin/placemat-cli")


@contextmanager
def entered(box: Box, cluster: str, node: str) -> Iterator[Console]:
    """`placemat-cli node enter`: what the console said before comes first. It stays while the node is off."""
    ours, theirs = socket.socketpair()
    argv = [CLI, "--cluster", cluster, "node", "enter", node]
    process = box.popen(argv, stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL)
    theirs.close()
    console = Console(ours)
    try:
        yield console
    finally:
        console.close()
        process.terminate()
        process.wait(30)


def booted(console: Console) -> Console:
    """Wait for the shell of a guest that starts."""
    console.expect(r"placemat-guest: ready")
    console.expect(r"~# ")
    return console
