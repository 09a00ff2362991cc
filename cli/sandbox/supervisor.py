"""The process outside of a sandbox that makes it and removes what is left: `python -m ...supervisor SPEC FD`.

It outlives the command that started it by the time that takes: when the socket FD to that command closes, for
whatever reason, the sandbox ends. When the supervisor itself is killed, the kernel kills the sandbox's process 1
(PR_SET_PDEATHSIG), and with it the whole PID namespace.
"""

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from placematd.errors import PlacematError, StepError

from . import cgroup, checks, idmap, init, nat, registry
from .registry import Running
from .spec import Spec, enter_argv, home, real_directories
from .syscalls import adopt_orphans

CONSOLE_LINES = 30
KILL_SECONDS = 10
_CONTROL_SEQUENCES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()].|\r")


class Ended(PlacematError):
    """The command that wanted the sandbox has gone, or asked us to end."""


class Supervisor:
    """Makes one sandbox; everything made is undone by `close`, in reverse order."""

    def __init__(self, spec: Spec, control: socket.socket) -> None:
        self.spec, self.control = spec, control
        self.rootless = os.geteuid() != 0
        self.console: deque[str] = deque(maxlen=CONSOLE_LINES)
        self.stack = ExitStack()
        self.wakeup, wakeup_end = socket.socketpair()
        for end in (self.wakeup, wakeup_end):
            end.setblocking(False)
        signal.set_wakeup_fd(wakeup_end.fileno(), warn_on_full_buffer=False)
        self._wakeup_end = wakeup_end
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: None)

    def run(self) -> None:
        """Make it, say so, and wait for the end of either side."""
        adopt_orphans()
        checks.require(self.spec)
        self.listener = self.stack.enter_context(registry.claim(self.spec.name))
        self.cgroup, stale = self._make_cgroup()
        self.leader = self._start()
        if self.spec.nat:
            self.stack.callback(nat.start(self.leader).stop)
        self._wait_for_boot()
        self.running = Running(
            name=self.spec.name,
            leader_pid=self.leader,
            cgroup=str(self.cgroup),
            nat=self.spec.nat,
            since=datetime.now(UTC).isoformat(timespec="seconds"),
            stale_cgroup=stale,
        )
        socket.send_fds(self.control, [self.running.to_json().encode()], [self.pidfd])
        while not self._watch(None):
            pass

    def _make_cgroup(self) -> tuple[Path, bool]:
        parent = cgroup.own()
        assert parent is not None, "checked before"
        directory = cgroup.of(self.spec.name, parent)
        stale = cgroup.make(directory)
        self.stack.callback(cgroup.remove, directory)
        return directory, stale

    def _start(self) -> int:
        """Fork process 1, accompany it until it is systemd, and return its PID."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.notify = self.stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        first = os.fork()
        if first == 0:
            ours.close()
            _child(self.spec, self.rootless, theirs, self.notify)
        theirs.close()
        with ours:
            leader = self._lead_out(first, ours)
            os.waitpid(first, 0)
            self.pidfd = os.pidfd_open(leader)
            self.stack.callback(os.close, self.pidfd)
            self.stack.callback(_kill, leader, self.pidfd)
            ours.send(init.GO)
            fds = self._expect_console(ours)
            _receive(ours)  # it is bound to our life
            _receive(ours, end=True)  # its end of the channel closes with exec
        for fd in fds:
            self.stack.callback(os.close, fd)
        self.console_fd = fds[0]
        return leader

    def _lead_out(self, first: int, channel: socket.socket) -> int:
        cgroup.add(self.cgroup, first)
        channel.send(init.GO)
        if self.rootless:
            _receive(channel)
            idmap.write(first)
            channel.send(init.GO)
        return int(_receive(channel))

    def _expect_console(self, channel: socket.socket) -> list[int]:
        message, fds, _, _ = socket.recv_fds(channel, 1 << 16, 2)
        _raise_answer(message)
        return fds

    def _wait_for_boot(self) -> None:
        deadline = time.monotonic() + self.spec.boot_timeout_seconds
        while not self._watch(deadline, booting=True):
            pass

    def _watch(self, deadline: float | None, *, booting: bool = False) -> bool:
        """Handle what happens next; True when `booting` is over. Raises StepError or Ended when the sandbox is."""
        poll = select.poll()
        listener = None if booting else self.listener
        for source in (self.control, self.wakeup, self.pidfd, self.console_fd, self.notify, listener):
            if source is not None:
                poll.register(source, select.POLLIN)
        timeout = None if deadline is None else max(0, deadline - time.monotonic()) * 1000
        ready = {fd for fd, _ in poll.poll(timeout)}
        if self.console_fd in ready:
            self._read_console()
        if not ready:
            raise self._failure(f"it has not booted in {self.spec.boot_timeout_seconds:g} s")
        if self.control.fileno() in ready or self.wakeup.fileno() in ready:
            raise Ended("asked to end")
        if self.pidfd in ready:
            raise self._failure("its systemd has ended")
        if listener and listener.fileno() in ready:
            registry.answer(listener, self.running, self.pidfd)
        return self.notify.fileno() in ready and b"READY=1" in self.notify.recv(4096).split(b"\n") and booting

    def _read_console(self) -> None:
        with suppress(OSError):
            text = os.read(self.console_fd, 65536).decode(errors="replace")
            self.console.extend(line for line in _CONTROL_SEQUENCES.sub("", text).splitlines() if line.strip())

    def _failure(self, answer: str) -> StepError:
        said = [*self.console, *self._journal()]
        last = "".join(f"\n    {line}" for line in said[-CONSOLE_LINES:])
        return StepError(f"run sandbox {self.spec.name}", answer + (f"; its last words:{last}" if said else ""))

    def _journal(self) -> list[str]:
        """The last lines of the sandbox's journal, where it still has one."""
        if select.select([self.pidfd], [], [], 0)[0]:
            return []
        argv = enter_argv(
            self.pidfd, self.cgroup, "/", ("journalctl", "--boot", "--no-pager", "--lines=20", "--output=cat")
        )
        with suppress(OSError, subprocess.TimeoutExpired):
            result = subprocess.run(argv, pass_fds=[self.pidfd], capture_output=True, text=True, timeout=5, check=False)
            return result.stdout.splitlines() if result.returncode == 0 else []
        return []

    def close(self) -> None:
        """Kill what runs, wait for it, and remove what was made."""
        self.stack.close()


def _child(spec: Spec, rootless: bool, channel: socket.socket, notify: socket.socket) -> None:
    """In the fork; never returns. What goes wrong is told as "!" and a message."""
    try:
        leader = init.enter_namespaces(rootless, channel)
        if leader:
            channel.send(str(leader).encode())
            os._exit(0)
        init.become_systemd(spec, rootless, channel, notify)
    except (OSError, PlacematError, ValueError) as error:
        with suppress(OSError):
            channel.send(f"!{error}".encode())
    finally:
        os._exit(1)


def _receive(channel: socket.socket, *, end: bool = False) -> bytes:
    message = channel.recv(1 << 16)
    _raise_answer(message, end=end)
    return message


def _raise_answer(message: bytes, *, end: bool = False) -> None:
    if message.startswith(b"!"):
        raise StepError("make the sandbox's namespaces", message[1:].decode(), checks.CONTAINER_HINT)
    if not message and not end:
        raise StepError("make the sandbox's namespaces", "the process that does it has ended")


def _kill(leader: int, pidfd: int) -> None:
    """End the PID namespace: the kernel kills all in it and lets go of process 1 when they are gone."""
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    # It stays where a command that was run in it has ended, and the machine's own init has not taken note.
    if select.select([pidfd], [], [], KILL_SECONDS)[0]:
        with suppress(ChildProcessError):
            os.waitpid(leader, 0)


def _report(control: socket.socket, error: Exception) -> None:
    step = error if isinstance(error, StepError) else StepError("make the sandbox", str(error))
    fields = {"attempted": step.attempted, "answer": step.answer, "hint": step.hint}
    message = {"missing": error.to_fields()} if isinstance(error, checks.NotReady) else {"error": fields}
    with suppress(OSError):
        control.send(json.dumps(message).encode())


def main(argv: list[str]) -> int:
    """Entry point: the spec as JSON, and the descriptor of the socket to the command that wants the sandbox."""
    control = socket.socket(fileno=int(argv[1]))
    spec = Spec.from_json(argv[0])
    wanted = (Path.cwd(), home(), *map(Path, spec.writable))
    supervisor = Supervisor(replace(spec, writable=real_directories(wanted)), control)
    try:
        supervisor.run()
    except Ended:
        return 0
    except (PlacematError, OSError) as error:
        _report(control, error)
        return 1
    finally:
        supervisor.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
