"""What systemd and the journal say, asked through systemctl and journalctl as a person would."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from placematd.errors import StepError
from placematd.names import service_unit, slice_unit
from placematd.run import find, run

QUICK_SECONDS = 20.0
_PROPERTIES = ("LoadState", "ActiveState", "SubState", "Result", "StatusText", "ExecMainStatus", "InvocationID")


@dataclass(frozen=True)
class Service:
    """The state of a cluster's service, in systemd's words; see systemctl(1)."""

    unit: str
    load: str
    active: str
    sub: str
    result: str
    status_text: str
    exit_status: int
    invocation: str

    @property
    def is_up(self) -> bool:
        """The cluster is up, being reloaded included."""
        return self.active in ("active", "reloading")

    @property
    def is_changing(self) -> bool:
        """It is starting or stopping."""
        return self.active in ("activating", "deactivating")


@dataclass(frozen=True)
class UnitLine:
    """One of the cluster's units."""

    name: str
    active: str
    sub: str


def booted() -> bool:
    """Whether systemd is PID 1: it knows, since it is asked and not a file ("offline", systemctl(1))."""
    answer = subprocess.run(
        [find("systemctl"), "is-system-running"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=QUICK_SECONDS,
        check=False,
    )
    return answer.stdout.strip() not in ("offline", "")


def service(cluster: str) -> Service:
    """The state of placemat@CLUSTER.service. Raises StepError where systemd does not answer."""
    unit = service_unit(cluster)
    text = run(["systemctl", "show", unit, f"--property={','.join(_PROPERTIES)}"], timeout_seconds=QUICK_SECONDS)
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    return Service(
        unit=unit,
        load=values.get("LoadState", ""),
        active=values.get("ActiveState", "unknown"),
        sub=values.get("SubState", ""),
        result=values.get("Result", ""),
        status_text=values.get("StatusText", ""),
        exit_status=int(values.get("ExecMainStatus") or 0),
        invocation=values.get("InvocationID", ""),
    )


def units(cluster: str) -> list[UnitLine]:
    """The transient units of a cluster that systemd still knows, the slice left out."""
    prefix = slice_unit(cluster).removesuffix(".slice")
    text = run(
        ["systemctl", "list-units", "--all", "--plain", "--no-legend", "--no-pager", "--full", f"{prefix}-*"],
        timeout_seconds=QUICK_SECONDS,
    )
    rows = [line.split(maxsplit=4) for line in text.splitlines()]
    return [UnitLine(row[0], row[2], row[3]) for row in rows if len(row) >= 4 and not row[0].endswith(".slice")]


@contextmanager
def job(*arguments: str) -> "Iterator[subprocess.Popen[str]]":
    """A systemctl command that takes as long as the cluster does; stderr is a pipe.

    Ctrl-C does not reach it. If it is still running at the end it is killed; what systemd was asked for goes on.
    """
    process = subprocess.Popen(
        [find("systemctl"), "--no-ask-password", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def reset_failed(unit: str) -> None:
    """Forget that a unit failed; that it did not is no error."""
    subprocess.run(
        [find("systemctl"), "reset-failed", unit],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=QUICK_SECONDS,
        check=False,
    )


def last_words(service: Service, lines: int = 10) -> Sequence[str]:
    """The last journal lines of the service's last run; empty where there is no journal."""
    match = f"_SYSTEMD_INVOCATION_ID={service.invocation}" if service.invocation else f"_SYSTEMD_UNIT={service.unit}"
    argv = ["journalctl", "--quiet", "--no-pager", "--output=cat", f"--lines={lines}", match]
    try:
        return run(argv, timeout_seconds=QUICK_SECONDS).splitlines()
    except StepError:
        return ()
