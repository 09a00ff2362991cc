"""A way out of the sandbox: slirp4netns, a process in the machine's network that carries what the sandbox sends.

It runs as the caller, needs no privileges and changes nothing of the machine's network. Connections to the machine's
own loopback addresses are refused. See slirp4netns(1).
"""

import os
import select
import shutil
import subprocess
from dataclasses import dataclass

from placematd.errors import StepError

from .spec import NAT_LINK, NAT_SUBNET

PROGRAM = "slirp4netns"
_READY_TIMEOUT_SECONDS = 10
_MTU = 1500


@dataclass
class Nat:
    """The running process; it ends when `lifeline`, a pipe that we alone hold, closes, so also when we are killed."""

    process: "subprocess.Popen[bytes]"
    lifeline: int

    def stop(self) -> str:
        """End it and wait for it; returns what it said."""
        os.close(self.lifeline)
        try:
            _, said = self.process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            _, said = self.process.communicate()
        return said.decode(errors="replace").strip()


def available() -> bool:
    """Whether it is installed."""
    return shutil.which(PROGRAM) is not None


def start(leader_pid: int) -> Nat:
    """Connect the network namespace of `leader_pid`; raises StepError where that does not come up."""
    ready, ready_end = os.pipe()
    exit_end, lifeline = os.pipe()
    argv = [PROGRAM, "--configure", f"--mtu={_MTU}", "--disable-host-loopback", f"--cidr={NAT_SUBNET}"]
    argv += [f"--ready-fd={ready_end}", f"--exit-fd={exit_end}", str(leader_pid), NAT_LINK]
    process = subprocess.Popen(
        argv,
        pass_fds=(ready_end, exit_end),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    os.close(ready_end)
    os.close(exit_end)
    nat = Nat(process, lifeline)
    try:
        # It writes "1" when the link is up; end of file means that it has given up.
        readable, _, _ = select.select([ready], [], [], _READY_TIMEOUT_SECONDS)
        up = bool(readable) and os.read(ready, 1) == b"1"
    finally:
        os.close(ready)
    if not up:
        raise StepError(f"run {' '.join(argv)}", nat.stop() or "it did not come up")
    return nat
