"""`Sandbox`: the programming interface, used by `placemat-cli sandbox` and by tests."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TypedDict, Union, Unpack

from placematd.errors import PlacematError, StepError

from . import cgroup, registry
from .checks import Missing, NotReady
from .registry import Running
from .spec import BOOT_TIMEOUT_SECONDS, DEFAULT_NAME, Spec, check_name, enter_argv, placematd, units

Stream = Union[int, IO[bytes], IO[str], None]

_OF_THE_SESSION_OUTSIDE = (
    "DBUS_SESSION_BUS_ADDRESS",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "LISTEN_FDS",
    "LISTEN_PID",
    "NOTIFY_SOCKET",
    "TMPDIR",
    "XDG_RUNTIME_DIR",
    "XDG_SESSION_ID",
)


CLEAN_UP_SECONDS = 10.0


class PopenOptions(TypedDict, total=False):
    """Options of subprocess.Popen that mean the same for a command in a sandbox."""

    stdin: Stream
    stdout: Stream
    stderr: Stream
    text: bool
    encoding: str
    errors: str
    bufsize: int


class RunOptions(PopenOptions, total=False):
    """Options of subprocess.run likewise."""

    input: str | bytes
    capture_output: bool
    timeout: float
    check: bool


class Entrance:
    """A running sandbox that commands can be run in. `launcher` is put before the command that enters it."""

    def __init__(self, running: Running, pidfd: int, launcher: Sequence[str] = ()) -> None:
        self.running, self.pidfd, self.launcher = running, pidfd, tuple(launcher)

    def _argv(self, argv: Sequence[str | Path], cwd: str | Path | None) -> list[str]:
        words = tuple(map(str, argv))
        return [*self.launcher, *enter_argv(self.pidfd, self.running.cgroup, str(cwd or Path.cwd()), words)]

    def popen(
        self,
        argv: Sequence[str | Path],
        *,
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        foreground: bool = False,
        **options: Unpack[PopenOptions],
    ) -> "subprocess.Popen[str]":
        """Start a command; `cwd` is a directory inside, the caller's unless given. A terminal is passed through.

        Signals sent to the returned process reach the command; its exit status is the command's (128 + N for signal N).
        `foreground` leaves it in the caller's process group, which a terminal takes.
        """
        return subprocess.Popen(
            self._argv(argv, cwd),
            env=self.environment(env),
            pass_fds=[self.pidfd],
            start_new_session=not foreground,
            **options,  # type: ignore[call-overload, unused-ignore]
        )

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        **options: Unpack[RunOptions],
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end, as subprocess.run does (with text=True unless told otherwise)."""
        options.setdefault("text", True)
        if "input" not in options:
            options.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run(  # type: ignore[call-overload, no-any-return, unused-ignore]
            self._argv(argv, cwd),
            env=self.environment(env),
            pass_fds=[self.pidfd],
            start_new_session=True,
            **options,
        )

    def environment(self, env: Mapping[str, str] | None = None) -> dict[str, str]:
        """The caller's environment without what points to the session outside; `env` replaces the caller's."""
        base = dict(os.environ if env is None else env)
        for name in _OF_THE_SESSION_OUTSIDE:
            base.pop(name, None)
        paths = base.get("PATH", "").split(":")
        base["PATH"] = ":".join([*paths, *(path for path in ("/usr/sbin", "/sbin") if path not in paths)])
        return {**base, "PLACEMAT_SANDBOX": self.running.name, "container": "placemat"}

    def close(self) -> None:
        """Let go of it; it runs on."""
        os.close(self.pidfd)


def join(name: str = DEFAULT_NAME, *, uid: int | None = None, launcher: Sequence[str] = ()) -> Entrance:
    """The running sandbox of that name; raises NotFound."""
    running, pidfd = registry.find(check_name(name), uid)
    return Entrance(running, pidfd, launcher)


def _has_ended(pidfd: int, timeout_seconds: float) -> bool:
    return bool(select.select([pidfd], [], [], timeout_seconds)[0])


class Sandbox:
    """A systemd of one's own as a context manager: made on entry, gone without a trace on exit.

    Raises NotReady (with all that the machine lacks) or StepError on entry.
    """

    def __init__(
        self,
        name: str = DEFAULT_NAME,
        *,
        nat: bool = False,
        keep_data: bool = False,
        binds: Sequence[Path] = (),
        boot_timeout_seconds: float = BOOT_TIMEOUT_SECONDS,
        launcher: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        """`binds` are directories that are the machine's own inside, besides the working and home directory."""
        self.spec = Spec(
            name=check_name(name),
            nat=nat,
            keep_data=keep_data,
            writable=tuple(map(str, binds)),
            placematd=str(placematd()),
            units=str(units()),
            boot_timeout_seconds=boot_timeout_seconds,
        )
        self.launcher = tuple(launcher)
        self.env = dict(os.environ if env is None else env)
        self.control: socket.socket | None = None
        self.entrance: Entrance | None = None

    def __enter__(self) -> "Sandbox":
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        argv = [*self.launcher, sys.executable, "-P", "-m", f"{__package__}.supervisor", self.spec.to_json()]
        with theirs:
            self.supervisor = subprocess.Popen(
                [*argv, str(theirs.fileno())],
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        try:
            running, pidfd = self._receive()
        except BaseException:
            self.close()
            raise
        self.entrance = Entrance(running, pidfd, self.launcher)
        return self

    def _receive(self) -> tuple[Running, int]:
        assert self.control is not None
        message, fds, _, _ = socket.recv_fds(self.control, 1 << 20, 1)
        answer = json.loads(message) if message else {}
        if "missing" in answer:
            raise NotReady(tuple(Missing(**item) for item in answer["missing"]))
        if not fds:
            raise self._error(message)
        return Running(**answer), fds[0]

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it and wait until all is gone; harmless when repeated."""
        if self.control is not None:
            self.control.close()
            self.control = None
            if self.supervisor.wait() < 0:
                self._clean_up()
        if self.entrance is not None:
            self.entrance.close()
            self.entrance = None

    def _clean_up(self) -> None:
        """In place of a supervisor that was killed, with which the kernel ends the sandbox."""
        if self.entrance is not None:
            _has_ended(self.entrance.pidfd, CLEAN_UP_SECONDS)
            cgroup.remove(Path(self.entrance.running.cgroup), CLEAN_UP_SECONDS)

    def error(self, status: int = 0) -> StepError | None:
        """Why the sandbox ended by itself, once it has; `status` is a command's that may have been killed with it."""
        if self.control is None:
            return None
        # The kernel kills the commands a moment before their process 1 is gone.
        if _has_ended(self.inside.pidfd, 0.2 if status == 128 + signal.SIGKILL else 0):
            select.select([self.control], [], [], CLEAN_UP_SECONDS)
        try:
            message = self.control.recv(1 << 20, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        return self._error(message)

    def _error(self, message: bytes) -> StepError:
        if not message:
            return StepError(f"run sandbox {self.spec.name}", "its supervisor has ended")
        return StepError(**json.loads(message)["error"])

    @property
    def inside(self) -> Entrance:
        """Where commands run; raises PlacematError outside of the context."""
        if self.entrance is None:
            raise PlacematError(f"sandbox {self.spec.name} is not running")
        return self.entrance

    @property
    def leader_pid(self) -> int:
        """The sandbox's systemd, as the machine numbers it."""
        return self.inside.running.leader_pid

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        **options: Unpack[RunOptions],
    ) -> "subprocess.CompletedProcess[str]":
        """As `Entrance.run`."""
        return self.inside.run(argv, cwd=cwd, env=self.env if env is None else env, **options)

    def popen(
        self,
        argv: Sequence[str | Path],
        *,
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        foreground: bool = False,
        **options: Unpack[PopenOptions],
    ) -> "subprocess.Popen[str]":
        """As `Entrance.popen`."""
        environment = self.env if env is None else env
        return self.inside.popen(argv, cwd=cwd, env=environment, foreground=foreground, **options)

    def kill(self) -> None:
        """Kill its systemd, as a crash inside would: for tests."""
        signal.pidfd_send_signal(self.inside.pidfd, signal.SIGKILL)
