"""`python3 -m placematd.bmc MACHINE`: the process of one BMC, started by systemd with the BMC's sockets.

$LISTEN_FDS: a UDP socket is for IPMI, a TCP socket for Redfish, a Unix stream socket for the guest's system interface.
$CREDENTIALS_DIRECTORY: cert.pem and key.pem for Redfish. Exit status: 0 when idle, told to end or reset, 1 after a
failure, 2 when started wrongly.
"""

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import MutableMapping, Sequence
from pathlib import Path

from .process import IDLE_SECONDS, Certificate, Process, kind_of
from .remote import RemoteMachine

FIRST_FD = 3
"""SD_LISTEN_FDS_START of sd_listen_fds(3)."""

FAILURE_SECONDS = 1.0
"""What a failure takes at least: the packet that was not served starts the next process at once."""

PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}

log = logging.getLogger("placemat.bmc")


class JournalFormatter(logging.Formatter):
    """Lines with their priority in front, as sd-daemon(3) has it."""

    def format(self, record: logging.LogRecord) -> str:
        """A traceback is several lines."""
        priority = f"<{PRIORITIES.get(record.levelno, 6)}>"
        return "\n".join(priority + line for line in super().format(record).splitlines())


def inherited_sockets(environ: MutableMapping[str, str]) -> list[socket.socket]:
    """The sockets that systemd passed; the variables are removed. Raises ValueError where there are none for us."""
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdecimal() or count == "0":
        raise ValueError("no sockets: this is to be started by systemd (LISTEN_FDS)")
    sockets = [socket.socket(fileno=fd) for fd in range(FIRST_FD, FIRST_FD + int(count))]
    for sock in sockets:
        sock.set_inheritable(False)
        kind_of(sock)
    return sockets


def notify(environ: MutableMapping[str, str], state: str) -> None:
    """Tell systemd (sd_notify(3)), if there is one that wants to know."""
    path = environ.get("NOTIFY_SOCKET", "")
    if path:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.sendto(state.encode(), "\0" + path[1:] if path.startswith("@") else path)


def certificate(environ: MutableMapping[str, str]) -> Certificate | None:
    """The credentials of the unit, None where it has no certificate."""
    directory = Path(environ.get("CREDENTIALS_DIRECTORY", "/nonexistent"))
    files = Certificate(certificate=directory / "cert.pem", key=directory / "key.pem")
    return files if files.certificate.exists() else None


async def serve(arguments: argparse.Namespace, sockets: Sequence[socket.socket]) -> None:
    """Serve until idle or told to end."""
    machine = RemoteMachine(arguments.machine)
    process = Process(machine, certificate(os.environ), idle_seconds=arguments.idle_seconds)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, process.stop)
    await process.run(sockets, lambda: notify(os.environ, "READY=1"))
    notify(os.environ, "STOPPING=1")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="placematd.bmc", description="The BMC of one node.")
    parser.add_argument("machine", type=Path, help="socket on which placematd serves the node")
    parser.add_argument("--idle-seconds", type=float, default=IDLE_SECONDS, help="end after so long without use")
    arguments = parser.parse_args(argv)
    handler = logging.StreamHandler()
    handler.setFormatter(JournalFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    try:
        sockets = inherited_sockets(os.environ)
    except (ValueError, OSError) as error:
        log.error("%s", error)
        return 2
    try:
        asyncio.run(serve(arguments, sockets))
    except Exception:
        log.exception("the BMC failed")
        time.sleep(FAILURE_SECONDS)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
