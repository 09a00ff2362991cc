"""Run a command in a running sandbox, and exit as it does: `python -m ...enter PIDFD CGROUP DIRECTORY COMMAND...`.

The command has a session of its own; where standard input is a terminal, also a terminal of the sandbox's own. It is
killed when this process is.
"""

import os
import shutil
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

from . import terminal
from .devices import unlock
from .syscalls import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    die_with_parent,
    give_up_machine_wide_powers,
    setns,
)
from .units import COMMANDS

FAILED, NOT_EXECUTABLE, NOT_FOUND = 125, 126, 127
"""Exit statuses as docker-run(1) and env(1) have them: the sandbox's own failure, and the command's."""

_ALL = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWCGROUP


def pid_of(pidfd: int) -> int:
    """The PID that a pidfd is about; raises ProcessLookupError where it has ended (pidfd_open(2))."""
    text = Path(f"/proc/self/fdinfo/{pidfd}").read_text()
    pid = next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pid:"))
    if pid <= 0:
        raise ProcessLookupError("the sandbox has ended")
    return pid


def enter(pidfd: int) -> None:
    """Enter all namespaces of the sandbox; what is forked from now on is in its PID namespace."""
    other = Path(f"/proc/{pid_of(pidfd)}/ns/user").stat().st_ino
    rootless = Path("/proc/self/ns/user").stat().st_ino != other
    setns(pidfd, _ALL | (CLONE_NEWUSER if rootless else 0))


def commands_cgroup(cgroup: str) -> int | None:
    """Open the list of processes of the unit that commands belong to; None where we may not move a process there.

    That is so for an ordinary user in another session than the sandbox's: the command stays in the cgroup it is in.
    """
    with suppress(OSError):
        return os.open(Path(cgroup, "system.slice", COMMANDS, "cgroup.procs"), os.O_WRONLY | os.O_CLOEXEC)
    return None


def new_terminal() -> tuple[int, str]:
    """A pseudo-terminal of the sandbox: its master, and its slave's path."""
    master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    return master, f"/dev/pts/{unlock(master)}"


def execute(go: socket.socket, slave: str | None, directory: str, argv: list[str]) -> None:
    """In the child; never returns."""
    status = FAILED
    try:
        if not go.recv(1):
            os._exit(FAILED)
        os.setsid()
        if slave is not None:
            _use_terminal(slave)
        os.chdir(directory)
        give_up_machine_wide_powers()
        for number in (*terminal.FORWARDED, signal.SIGWINCH, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        die_with_parent(signal.SIGKILL)
        go.send(b".")  # fails where the parent ended before the line above
        status = NOT_FOUND
        # Not execvp(): a directory of PATH that we may not read would count as found.
        path = argv[0] if "/" in argv[0] else shutil.which(argv[0])
        os.execv(path or argv[0], argv)
    except FileNotFoundError as error:
        _say(f"{error.filename or argv[0]}: not found in the sandbox")
    except OSError as error:
        _say(f"{argv[0]}: {error}")
        status = NOT_EXECUTABLE if status == NOT_FOUND else FAILED
    finally:
        os._exit(status)


def _say(message: str) -> None:
    os.write(2, f"placemat-cli sandbox: {message}\n".encode())


def _use_terminal(slave: str) -> None:
    """Make it the controlling terminal, and what it replaces: those of the standard descriptors that are terminals."""
    fd = os.open(slave, os.O_RDWR | os.O_CLOEXEC)  # the first one a session leader opens
    for standard in (0, 1, 2):
        if os.isatty(standard):
            os.dup2(fd, standard)


def run(pidfd: int, cgroup: str, directory: str, argv: list[str]) -> int:
    """Run the command and return its wait status; raises OSError where the sandbox cannot be entered."""
    parent = os.pidfd_open(os.getppid())
    arrived = terminal.signals((*terminal.FORWARDED, signal.SIGWINCH))
    processes = commands_cgroup(cgroup)
    enter(pidfd)
    master, slave = new_terminal() if os.isatty(0) else (None, None)
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        execute(theirs, slave, directory, argv)
    theirs.close()
    if processes is not None:
        with suppress(OSError):
            os.write(processes, str(pid).encode())
    ours.send(b".")
    if master is None:
        return terminal.wait(pid, arrived, parent)
    output = next(fd for fd in (1, 2, 0) if os.isatty(fd))
    return terminal.attach(pid, arrived, parent, master, 0, output)


def main(argv: list[str]) -> int:
    """Entry point."""
    try:
        status = run(int(argv[0]), argv[1], argv[2], argv[3:])
    except OSError as error:
        _say(f"cannot enter the sandbox: {error}")
        return FAILED
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
