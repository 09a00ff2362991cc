"""The person's terminal while it is a node's console: raw, and afterwards exactly as it was.

Signals only wake the loop, they raise nothing: so there is no moment at which one could keep the terminal from being
restored.
"""

import os
import re
import select
import signal
import socket
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal

CTRL_Q = 0x11
CTRL_X = 0x18
_CHUNK_BYTES = 4096  # PIPE_BUF: what a writable pipe takes at once (pipe(7))
_MAX_PENDING_BYTES = 64 * 1024
_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)

# What a guest may have left on: colours, a hidden cursor, no line wrap (SeaBIOS, iPXE), line drawing characters, a
# scrolling region, application keys, mouse reports, bracketed paste (xterm's ctlseqs.txt).
_RESET = (
    b"\x1b[0m\x1b[?25h\x1b[?7h\x1b(B\x0f\x1b7\x1b[r\x1b8\x1b[?1l\x1b>"
    b"\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l"
)
_LEAVE_ALTERNATE_SCREEN = b"\x1b[?1049l"
_ALTERNATE_SCREEN = re.compile(rb"\x1b\[\?(?:47|1047|1049)([hl])")

Reason = Literal["left", "closed", "signal"]


@dataclass(frozen=True)
class Ending:
    """Why a relay ended: the person left, the other end closed it, or a signal came."""

    reason: Reason
    signal: int = 0


class EscapeKeys:
    """Finds Ctrl-Q Ctrl-X among typed bytes. Ctrl-Q Ctrl-Q is one Ctrl-Q; before any other key Ctrl-Q is itself."""

    def __init__(self) -> None:
        self._armed = False

    def feed(self, typed: bytes) -> tuple[bytes, bool]:
        """The bytes to send, and whether the person leaves; what is typed after that is dropped."""
        send = bytearray()
        for byte in typed:
            if self._armed:
                self._armed = False
                if byte == CTRL_X:
                    return bytes(send), True
                send += bytes([CTRL_Q]) if byte == CTRL_Q else bytes([CTRL_Q, byte])
            elif byte == CTRL_Q:
                self._armed = True
            else:
                send.append(byte)
        return bytes(send), False


class Screen:
    """Follows what the guest does to the screen, as far as it must be undone."""

    def __init__(self) -> None:
        self._tail = b""
        self._alternate = False

    def feed(self, shown: bytes) -> None:
        """Note what was printed; sequences may be cut anywhere."""
        data = self._tail + shown
        for match in _ALTERNATE_SCREEN.finditer(data):
            self._alternate = match[1] == b"h"
        self._tail = data[-7:]

    def undo(self) -> bytes:
        """What puts the screen back."""
        return (_LEAVE_ALTERNATE_SCREEN if self._alternate else b"") + _RESET


@contextmanager
def raw(terminal: int) -> Iterator[None]:
    """Make a terminal raw; afterwards it has the attributes that it had, and what was typed ahead is kept."""
    before = termios.tcgetattr(terminal)
    tty.setraw(terminal, termios.TCSANOW)
    try:
        yield
    finally:
        with suppress(termios.error):  # hung up: there is nothing left to restore
            termios.tcsetattr(terminal, termios.TCSANOW, before)


@contextmanager
def waking_signals() -> Iterator[int]:
    """A descriptor that becomes readable, with the signal's number, instead of SIGTERM, SIGHUP and SIGINT acting."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    previous_fd = signal.set_wakeup_fd(writer.fileno())
    previous = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
    try:
        yield reader.fileno()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(previous_fd)
        reader.close()
        writer.close()


class Relay:
    """Carries bytes between the person (descriptors 0 and 1) and one connection after another.

    `keys` is None where stdin is no terminal: then every byte is sent, and the end of stdin ends nothing.
    """

    def __init__(self, stdin: int, stdout: int, wake: int, keys: EscapeKeys | None) -> None:
        self._stdin, self._stdout, self._wake = stdin, stdout, wake
        self._keys = keys
        self._stdin_open = True
        self._to_guest = bytearray()
        self._to_person = bytearray()
        self.screen = Screen()
        self.received_bytes = 0

    def run(self, connection: socket.socket, first: bytes = b"") -> Ending:
        """Carry until the person leaves, the connection ends, or a signal comes. `first` is shown first."""
        connection.setblocking(False)
        self._receive(first)
        peer = connection.fileno()
        closed = False
        while not (closed and not self._to_person):
            readable, writable = self._wait(peer, closed)
            if self._wake in readable:
                return Ending("signal", os.read(self._wake, 1)[0])
            if self._stdin in readable and self._type():
                return Ending("left")
            if self._stdout in writable:
                del self._to_person[: os.write(self._stdout, self._to_person[:_CHUNK_BYTES])]
            if peer in writable:
                closed = not self._send(connection)
            if peer in readable:
                closed = not self._read(connection)
        return Ending("closed")

    def pause(self, seconds: float) -> Ending | None:
        """Wait between two connections; the person may leave meanwhile."""
        while True:
            readable, _, _ = select.select([self._wake, *(self._inputs() if self._keys else ())], [], [], seconds)
            if self._wake in readable:
                return Ending("signal", os.read(self._wake, 1)[0])
            if not readable:
                return None
            if self._type():
                return Ending("left")

    def _inputs(self) -> list[int]:
        return [self._stdin] if self._stdin_open and len(self._to_guest) < _MAX_PENDING_BYTES else []

    def _wait(self, peer: int, closed: bool) -> tuple[list[int], list[int]]:
        """Descriptors that can be read and written; a guest is read when the person has seen what came before."""
        reading = [self._wake, *self._inputs()]
        if not self._to_person and not closed:
            reading.append(peer)
        writing = ([self._stdout] if self._to_person else []) + ([peer] if self._to_guest and not closed else [])
        readable, writable, _ = select.select(reading, writing, [])
        return readable, writable

    def _type(self) -> bool:
        """Take what was typed; True if the person leaves."""
        try:
            typed = os.read(self._stdin, _CHUNK_BYTES)
        except OSError:  # EIO: the terminal was hung up
            typed = b""
        if not typed:
            self._stdin_open = False
            return self._keys is not None
        if self._keys is None:
            self._to_guest += typed
            return False
        send, left = self._keys.feed(typed)
        self._to_guest += send
        return left

    def _send(self, connection: socket.socket) -> bool:
        """Send what is pending; False if the other end is gone."""
        try:
            del self._to_guest[: connection.send(self._to_guest)]
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True

    def _read(self, connection: socket.socket) -> bool:
        """Take what came; False if the other end is gone."""
        try:
            data = connection.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._receive(data)
        return bool(data)

    def _receive(self, data: bytes) -> None:
        self._to_person += data
        self.screen.feed(data)
        self.received_bytes += len(data)
