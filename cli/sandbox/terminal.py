"""A terminal of the sandbox's own, joined to the caller's: what is typed goes in, what is printed comes out."""

import errno
import fcntl
import os
import select
import signal
import socket
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_TO_GROUP = {signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}
"""What a terminal sends to all processes of the foreground job."""
_CHUNK = 1 << 16


@contextmanager
def raw(fd: int) -> Iterator[None]:
    """Pass every key on as it is typed; the terminal is as before afterwards."""
    before = termios.tcgetattr(fd)
    tty.setraw(fd)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSAFLUSH, before)


def copy_size(source: int, target: int) -> None:
    """Give `target` the window size of `source` (ioctl_tty(2))."""
    with suppress(OSError):
        fcntl.ioctl(target, termios.TIOCSWINSZ, fcntl.ioctl(source, termios.TIOCGWINSZ, b"\0" * 8))


def signals(numbers: tuple[signal.Signals, ...]) -> socket.socket:
    """A socket from which the numbers of arriving signals can be read, a byte each."""
    reading, writing = socket.socketpair()
    reading.setblocking(False)
    writing.setblocking(False)
    signal.set_wakeup_fd(writing.detach(), warn_on_full_buffer=False)
    for number in numbers:
        signal.signal(number, lambda *_: None)
    return reading


def wait(pid: int, arrived: socket.socket, parent: int) -> int:
    """Wait for the child, sending signals on to it; returns its wait status.

    `parent` is a pidfd: when that process has ended, the child is told to end (SIGTERM).
    """
    return _Relay(pid, arrived, parent).run()


def attach(pid: int, arrived: socket.socket, parent: int, master: int, stdin: int, output: int) -> int:
    """As `wait`, with a terminal (`stdin`, `output`) joined to the pseudo-terminal `master` until the child ends."""
    copy_size(stdin, master)
    os.set_blocking(master, False)
    with raw(stdin):
        return _Relay(pid, arrived, parent, master, stdin, output).run()


class _Relay:
    """The loop between a terminal, a pseudo-terminal and a child; without terminals, between signals and a child."""

    def __init__(
        self,
        pid: int,
        arrived: socket.socket,
        parent: int,
        master: int | None = None,
        stdin: int | None = None,
        output: int = 1,
    ) -> None:
        self.pid, self.arrived, self.parent = pid, arrived, parent
        self.terminal = stdin
        self.output = output
        self.typed = b""
        self.pidfd = os.pidfd_open(pid)
        self.actions: dict[int, Callable[[], None]] = {arrived.fileno(): self._signals, parent: self._orphaned}
        self.master = master
        if master is not None and stdin is not None:
            self.actions |= {master: self._printed, stdin: self._keys}

    def run(self) -> int:
        """Until the child ends; returns its wait status."""
        while True:
            sources = [fd for fd in self.actions if fd != self.terminal or len(self.typed) < _CHUNK]
            targets = [self.master] if self.typed and self.master is not None else []
            ready, writable, _ = select.select([*sources, self.pidfd], targets, [])
            for fd in ready:
                if fd in self.actions:
                    self.actions[fd]()
            if writable and self.master is not None:
                with suppress(BlockingIOError):
                    self.typed = self.typed[os.write(self.master, self.typed) :]
            if self.pidfd in ready:
                return self._ended()

    def _ended(self) -> int:
        os.close(self.pidfd)
        while self.master is not None and select.select([self.master], [], [], 0)[0]:
            self._printed()
        return os.waitpid(self.pid, 0)[1]

    def _send(self, number: int) -> None:
        with suppress(ProcessLookupError):
            (os.killpg if number in _TO_GROUP else os.kill)(self.pid, number)

    def _signals(self) -> None:
        for number in self.arrived.recv(64):
            if number != signal.SIGWINCH:
                self._send(number)
            elif self.master is not None and self.terminal is not None:
                copy_size(self.terminal, self.master)

    def _orphaned(self) -> None:
        del self.actions[self.parent]
        self._send(signal.SIGTERM)

    def _keys(self) -> None:
        assert self.terminal is not None, "registered with it"
        keys = _read(self.terminal)
        if not keys:  # the terminal has gone
            del self.actions[self.terminal]
            self._send(signal.SIGHUP)
        self.typed += keys

    def _printed(self) -> None:
        assert self.master is not None, "registered with it"
        try:
            data = os.read(self.master, _CHUNK)
        except BlockingIOError:
            return
        except OSError:  # all of the command's processes have closed it
            data = b""
        if not data:
            del self.actions[self.master]
            self.master = None
        while data:
            data = data[os.write(self.output, data) :]


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, _CHUNK)
    except OSError as error:
        if error.errno == errno.EIO:
            return b""
        raise
