"""`up` and `down`: a cluster started and stopped through systemd, with its events as they happen."""

import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from signal import SIGHUP, SIGTERM, signal
from subprocess import Popen

import typer

from placematd.names import service_unit, slice_unit

from .. import environment_file, systemctl
from ..answers import Event
from ..client import Api
from ..clusters import Places, Target
from ..errors import BadUsage, CommandFailed, Unreachable
from ..follow import Follower, follow_job, now
from ..progress import Display, PlainDisplay, display
from ..session import NAME_ARGUMENT, NAME_OPTION, TARGET_ARGUMENT, session_of
from ..systemctl import Service
from .read import load, show_warnings, summary
from .status import show

DOWN_SECONDS = 180.0

NO_WAIT = typer.Option(False, "--no-wait", help="Return as soon as systemd has the job.")
ATTACH = typer.Option(False, "--attach", help="Stay and show what happens; Ctrl-C takes the cluster down.")
TIMEOUT = typer.Option(DOWN_SECONDS, "--timeout", metavar="SECONDS", help="How long to wait until it is down.", min=1)


def up(
    context: typer.Context,
    target: list[str] = TARGET_ARGUMENT,
    name: str = NAME_OPTION,
    no_wait: bool = NO_WAIT,
    attach: bool = ATTACH,
) -> None:
    """Bring a cluster up and show the progress.

    Its files are checked first. If they are given as FILES, the cluster is called as --name says, or else after the
    file or its directory.
    """
    if no_wait and attach:
        raise BadUsage("--no-wait and --attach: either return at once or stay")
    session = session_of(context)
    chosen = session.target(target, name)
    cluster, warnings = load(chosen)
    show_warnings(warnings)
    require_systemd(target or [])
    starts = prepare(chosen, session.places)
    if not starts:
        typer.echo(f"{chosen.name} is up already; after editing its files: placemat-cli reload {chosen.name}")
    if no_wait:
        start_only(chosen.name)
    elif attach:
        attached(chosen.name, session.places, summary(cluster), starts)
    elif starts:
        waited(chosen.name, session.places, summary(cluster))


def start_only(name: str) -> None:
    """Hand the start to systemd."""
    with systemctl.job("start", "--no-block", service_unit(name)) as job:
        complaint = finish(job)
    if job.returncode:
        raise CommandFailed(f"start {service_unit(name)}: {complaint}")
    typer.echo(f"{name} is starting: placemat-cli status {name}")


def waited(name: str, places: Places, what: str) -> None:
    """Start and wait until it is up; Ctrl-C ends the waiting, not the start."""
    began = time.monotonic()
    try:
        with display(f"starting {name}") as screen, Follower(Api(name, places.socket(name))) as follower:
            bring_up(name, follower, screen)
    except KeyboardInterrupt:
        typer.echo(f"\n{name} goes on starting; placemat-cli down {name} takes it down", err=True)
        raise
    typer.echo(f"{name} is up: {what} ({time.monotonic() - began:.1f} s)")


def attached(name: str, places: Places, what: str, starts: bool) -> None:
    """Start, stay and show what happens; Ctrl-C, SIGTERM and SIGHUP take the cluster down."""
    began = time.monotonic()
    api = Api(name, places.socket(name))
    with ended_by_signals():
        try:
            with Follower(api, since="" if starts else now()) as follower:
                if starts:
                    with display(f"starting {name}") as screen:
                        bring_up(name, follower, screen)
                    typer.echo(f"{name} is up: {what} ({time.monotonic() - began:.1f} s)")
                show(api.status())
                typer.echo("\nCtrl-C takes it down.", err=True)
                with PlainDisplay() as screen:
                    wait_in_foreground(name, follower, screen)
        except KeyboardInterrupt:
            typer.echo("", err=True)
            take_down(name, places, DOWN_SECONDS)
    typer.echo(f"{name} is down")


def require_systemd(arguments: list[str]) -> None:
    """Raise CommandFailed where systemd is not PID 1."""
    if not systemctl.booted():
        again = shlex.join(["placemat-cli", "up", *arguments])
        raise CommandFailed(f"systemd is not PID 1 here; run it in a sandbox: placemat-cli sandbox -- {again}")


def prepare(target: Target, places: Places) -> bool:
    """Have the unit read the target's files; False if the cluster is up with them already.

    Raises BadUsage where a cluster of that name runs, or is configured, with other files.
    """
    state = systemctl.service(target.name)
    if state.load == "not-found":
        raise CommandFailed(f"systemd has no unit {state.unit} (make install)")
    if state.is_up or state.is_changing:
        if places.files(target.name, places.settings(target.name)) != target.files:
            raise BadUsage(f"a cluster {target.name} is running from other files (choose another with --name)")
        return not state.is_up
    permanent = places.permanent_settings(target.name).files
    if permanent and permanent != target.files:
        settings_file = places.settings_files(target.name)[1]
        raise BadUsage(f"{settings_file} sets other files for cluster {target.name} (choose another with --name)")
    write_settings(target, places)
    systemctl.reset_failed(state.unit)
    return True


def write_settings(target: Target, places: Places) -> None:
    """Tell the unit which files to read, unless it finds them by itself."""
    path = places.settings_files(target.name)[0]
    try:
        if target.files == places.files(target.name, places.permanent_settings(target.name)):
            path.unlink(missing_ok=True)
            return
        odd = next((file for file in target.files if ":" in str(file)), None)
        if odd:
            raise BadUsage(f"{odd}: a colon in the path of a cluster file separates files (rename it)")
        files = ":".join(map(str, target.files))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(environment_file.render(dict(places.overrides) | {"PLACEMAT_FILES": files}))
    except OSError as error:
        hint = " (be root, or use placemat-cli sandbox)" if isinstance(error, PermissionError) else ""
        raise CommandFailed(f"write {path}: {error.strerror}{hint}") from error


def bring_up(name: str, follower: Follower, screen: Display) -> None:
    """Start the service and show its events until the cluster is up. Raises CommandFailed with the reason."""
    shown: list[str] = []

    def note(event: Event) -> None:
        shown.append(event["message"])
        screen.show(event)

    with systemctl.job("start", service_unit(name)) as job:
        status = follow_job(job, follower, note)
        complaint = finish(job)
    if status:
        raise failure(f"cluster {name} did not come up", systemctl.service(name), complaint, shown)


def failure(what: str, state: Service, complaint: str, shown: Sequence[str] = ()) -> CommandFailed:
    """Why a start or stop failed: the service's own status, and the journal's last lines that were not shown."""
    words = [line for line in systemctl.last_words(state) if line not in shown and line != state.status_text]
    reason = state.status_text or f"{state.unit}: {state.active} ({state.result}, exit status {state.exit_status})"
    if not words and not state.status_text:
        reason = complaint or reason
    lines = [f"{what}: {reason}", *(f"  {line}" for line in words)]
    return CommandFailed("\n".join([*lines, f"more: journalctl -u {state.unit}"]))


def finish(job: "Popen[str]") -> str:
    """What an ended systemctl wrote to stderr."""
    return job.communicate()[1].strip()


def wait_in_foreground(name: str, follower: Follower, screen: Display) -> None:
    """Show events until the cluster is no more, which someone else decided. Raises CommandFailed if it failed."""
    while True:
        event = follower.next(0.25)
        if event:
            screen.show(event)
        elif not follower.connected:
            state = systemctl.service(name)
            if state.active == "failed":
                raise failure(f"cluster {name} failed", state, "")
            if not state.is_up and not state.is_changing:
                return


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does."""

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    previous = {number: signal(number, end) for number in (SIGTERM, SIGHUP)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal(number, handler)


def take_down(name: str, places: Places, timeout_seconds: float) -> bool:
    """Stop the cluster and wait; False if there was nothing to stop. Raises CommandFailed."""
    unit = service_unit(name)
    state = systemctl.service(name)
    deadline = time.monotonic() + timeout_seconds
    followed = Follower(Api(name, places.socket(name)), since=now())
    with display(f"stopping {name}") as screen, followed as follower:
        if not state.is_up and not state.is_changing:
            if not systemctl.units(name):
                forget(name, places)
                return False
            screen.note(f"{unit} does not run, but units of the cluster do: starting it to clean up")
            adopt(name, follower, screen)
        try:
            with systemctl.job("stop", unit) as job:
                status = follow_job(job, follower, screen.show, deadline - time.monotonic())
                complaint = finish(job)
        except TimeoutError:
            raise CommandFailed(
                f"{name} is still stopping after {timeout_seconds:g} s (systemctl status {unit})"
            ) from None
    state = systemctl.service(name)
    if status or state.active == "failed":
        raise failure(f"cluster {name} did not stop as it should", state, complaint)
    forget(name, places)
    return True


def adopt(name: str, follower: Follower, screen: Display) -> None:
    """Start a service whose cluster outlived it, since it knows how to take the cluster away."""
    try:
        bring_up(name, follower, screen)
    except CommandFailed as error:
        raise CommandFailed(f"{error}\nend the units alone: systemctl stop '{slice_unit(name)}'") from error


def forget(name: str, places: Places) -> None:
    """Remove what `up` wrote for this run, and the mark that it failed."""
    systemctl.reset_failed(service_unit(name))
    with suppress(PermissionError):  # someone else's run
        places.settings_files(name)[0].unlink(missing_ok=True)


def down(context: typer.Context, name: str = NAME_ARGUMENT, timeout: float = TIMEOUT) -> None:
    """Take a cluster down.

    Everything that it made on this host goes; volumes and downloaded images stay. A cluster that is not running is down
    already.
    """
    session = session_of(context)
    try:
        cluster = session.running(name)
    except Unreachable as error:
        typer.echo(str(error))
        return
    if not systemctl.booted():
        raise CommandFailed("systemd is not PID 1 here, so no cluster runs (in a sandbox? placemat-cli sandbox --list)")
    was_up = take_down(cluster, session.places, timeout)
    typer.echo(f"{cluster} is down" if was_up else f"{cluster} is not running")
