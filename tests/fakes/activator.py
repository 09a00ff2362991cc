"""Socket activation without systemd."""

import asyncio
import ctypes
import fcntl
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress

PR_SET_PDEATHSIG = 1
"""prctl(2)"""


class Activator:
    """What systemd does for a socket unit: holds the sockets and runs the process whenever something is on one."""

    def __init__(self, sockets: Sequence[socket.socket], argv: Sequence[str], environment: dict[str, str]) -> None:
        self._sockets, self._argv, self._environment = sockets, argv, environment
        self.exits: list[int] = []
        """How each process ended."""
        self.process: asyncio.subprocess.Process | None = None
        """The one that runs."""
        self.log = b""
        """What they wrote to their standard error."""

    async def run(self) -> None:
        """Until cancelled; the process that runs then is killed."""
        try:
            await self._run()
        finally:
            if self.process:
                with suppress(ProcessLookupError):
                    self.process.kill()
                await self.process.wait()

    async def _run(self) -> None:
        while True:
            await self._readable()
            self.process = await asyncio.create_subprocess_exec(
                *self._argv, preexec_fn=self._pass_sockets, close_fds=False, stderr=asyncio.subprocess.PIPE
            )
            assert self.process.stderr
            async for line in self.process.stderr:
                self.log += line
                sys.stderr.buffer.write(line)
                sys.stderr.buffer.flush()
            self.exits.append(await self.process.wait())
            self.process = None

    async def _readable(self) -> None:
        loop, some = asyncio.get_running_loop(), asyncio.Event()
        for sock in self._sockets:
            loop.add_reader(sock, some.set)
        try:
            await some.wait()
        finally:
            for sock in self._sockets:
                loop.remove_reader(sock)

    def _pass_sockets(self) -> None:
        """In the child: the sockets as file descriptors 3, 4, ... (sd_listen_fds(3)); it does not outlive us."""
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        copies = [fcntl.fcntl(sock, fcntl.F_DUPFD_CLOEXEC, 100) for sock in self._sockets]
        for number, copy in enumerate(copies, start=3):
            os.dup2(copy, number)
        os.environ |= self._environment | {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(copies))}
