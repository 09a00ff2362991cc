"""Programs on a terminal of their own, as the consoles of ipmitool and freeipmi want it."""

import contextlib
import os
import pty
import select
import shutil
import time
from collections.abc import Sequence


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, argv: Sequence[str]) -> None:
        self.output = b""
        path = shutil.which(argv[0])
        assert path, argv[0]
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execv(path, argv)

    def expect(self, text: str, seconds: float = 15) -> None:
        """Wait until the program has written `text`, and forget all up to it."""
        until = time.monotonic() + seconds
        while text.encode() not in self.output:
            ready, _, _ = select.select([self.fd], [], [], max(until - time.monotonic(), 0))
            assert ready, f"{text!r} did not come: {self.output!r}"
            self.output += self._read(text)
        self.output = self.output.partition(text.encode())[2]

    def _read(self, wanted: str) -> bytes:
        with contextlib.suppress(OSError):
            if data := os.read(self.fd, 65536):
                return data
        raise AssertionError(f"{wanted!r} did not come before the end: {self.output!r}")

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def ended(self) -> int:
        """Wait for the end; the exit status."""
        with contextlib.suppress(OSError):
            while os.read(self.fd, 65536):
                pass
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.fd)
        return status
