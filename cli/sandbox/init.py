"""From a fork of the supervisor to systemd: the namespaces, the root file system, exec.

Two processes. The first (`enter_namespaces`) leaves the machine's namespaces and forks, since a process
never changes its own PID namespace; the second (`become_systemd`) is process 1.
"""

import os
import signal
import socket

from . import devices, etc, root, units
from .spec import Spec
from .syscalls import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    MS_REC,
    MS_SHARED,
    die_with_parent,
    give_up_machine_wide_powers,
    mount,
    pivot_root,
    unshare,
)

NAMESPACES = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWCGROUP
NOTIFY_SOCKET = "/run/placemat-sandbox/notify"
GO = b"."


def wait_for_go(channel: socket.socket) -> None:
    """Wait for the other side; ends this process where that has ended."""
    if channel.recv(1) != GO:
        os._exit(1)


def enter_namespaces(rootless: bool, channel: socket.socket) -> int:
    """Leave the machine's namespaces; returns the PID of process 1, or 0 in process 1 itself.

    The supervisor puts us in the cgroup before (the root of a cgroup namespace is where its maker is), and
    writes the ID maps after the user namespace is there.
    """
    wait_for_go(channel)
    if rootless:
        unshare(CLONE_NEWUSER)
        channel.send(GO)
        wait_for_go(channel)
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        os.setgroups([])
    unshare(NAMESPACES)
    return os.fork()


def become_systemd(spec: Spec, rootless: bool, channel: socket.socket, notify: socket.socket) -> None:
    """Build the root and exec systemd; sends the master of its console through `channel`. Raises OSError."""
    wait_for_go(channel)
    give_up_machine_wide_powers()
    tree = root.build(spec, rootless=rootless)
    etc.write(tree / "etc", spec)
    units.write(tree, spec)
    master, console = devices.console(tree / "dev")
    socket.send_fds(channel, [GO], [master, console])
    pivot_root(str(tree))
    # As systemd does it on a machine: credentials of a unit are mounted in a process beside it (LoadCredential=).
    mount("none", "/", flags=MS_REC | MS_SHARED)
    socket.sethostname(f"placemat-{spec.name}")
    # Bound in here, read by the supervisor, which shares the socket: systemd says READY=1 when it has booted.
    notify.bind(NOTIFY_SOCKET)
    os.umask(0o022)
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    for fd, source in ((0, null), (1, console), (2, console)):
        os.dup2(source, fd)
    _default_signals()
    die_with_parent(signal.SIGKILL)
    channel.send(GO)  # fails where the supervisor ended before the line above
    argv = [units.systemd() or "", "--system", f"--unit={units.TARGET}", "--log-target=journal-or-kmsg"]
    os.execve(argv[0], argv, _environment(spec))


def _environment(spec: Spec) -> dict[str, str]:
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "container": "placemat",
        "NOTIFY_SOCKET": NOTIFY_SOCKET,
        "PLACEMAT_SANDBOX": spec.name,
    }


def _default_signals() -> None:
    """What Python ignores and systemd would inherit."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
