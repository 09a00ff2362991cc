"""A way out of the sandbox: a process in the machine's network that carries what the sandbox sends, as its user.

slirp4netns or pasta; neither needs privileges or changes anything of the machine's network. Connections to the
machine's own loopback addresses are refused.
"""

import contextlib
import ctypes
import ipaddress
import os
import select
import shutil
import signal
import subprocess
from dataclasses import dataclass

from placematd.errors import StepError

from .spec import NAT_LINK, NAT_NAMESERVER, NAT_SUBNET

PROGRAMS = ("slirp4netns", "pasta")
_READY_TIMEOUT_SECONDS = 10
_MTU = 1500


@dataclass
class Nat:
    """The running process; `lifeline` is the pipe whose closing ends it, even when we are killed."""

    process: "subprocess.Popen[bytes]"
    lifeline: int

    def stop(self) -> None:
        """End it and wait for it."""
        os.close(self.lifeline)
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def program() -> str | None:
    """The installed one that is preferred."""
    return next((name for name in PROGRAMS if shutil.which(name)), None)


def start(leader_pid: int) -> Nat:
    """Connect the network namespace of `leader_pid`; raises StepError where that does not come up."""
    name = program() or PROGRAMS[0]
    return _start_slirp4netns(leader_pid) if name == "slirp4netns" else _start_pasta(leader_pid)


def _start_slirp4netns(leader_pid: int) -> Nat:
    ready, ready_end = os.pipe()
    exit_end, lifeline = os.pipe()
    argv = ["slirp4netns", "--configure", f"--mtu={_MTU}", "--disable-host-loopback", f"--cidr={NAT_SUBNET}"]
    argv += [f"--ready-fd={ready_end}", f"--exit-fd={exit_end}", str(leader_pid), NAT_LINK]
    process = _spawn(argv, (ready_end, exit_end))
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
        raise _failure(nat, argv)
    return nat


def _start_pasta(leader_pid: int) -> Nat:
    """pasta goes into the background when the link is up, unless told otherwise: then a pipe tells."""
    exit_end, lifeline = os.pipe()
    os.close(exit_end)
    network = ipaddress.ip_network(NAT_SUBNET)
    argv = ["pasta", "--foreground", "--quiet", "--config-net", "--no-map-gw", "--ipv4-only"]
    argv += ["--address", str(network[100]), "--netmask", str(network.netmask), "--gateway", str(network[2])]
    argv += ["--mtu", str(_MTU), "--ns-ifname", NAT_LINK, "--dns-forward", NAT_NAMESERVER]
    argv += ["-t", "none", "-u", "none", "-T", "none", "-U", "none", str(leader_pid)]
    return Nat(_spawn(argv, ()), lifeline)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, ctypes.c_ulong(signal.SIGTERM), 0, 0, 0)


def _spawn(argv: list[str], fds: tuple[int, ...]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        argv, pass_fds=fds, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def _failure(nat: Nat, argv: list[str]) -> StepError:
    with contextlib.suppress(ProcessLookupError):
        nat.process.terminate()
    _, answer = nat.process.communicate(timeout=5)
    os.close(nat.lifeline)
    return StepError(f"run {' '.join(argv)}", answer.decode(errors="replace").strip() or "it did not come up")
