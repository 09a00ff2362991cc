"""`placematd CLUSTER`: the service that `placemat@CLUSTER.service` runs.

Exit status: 0 after an orderly stop, 1 where the cluster could not be brought up (everything is undone then), 2 where
its files or settings hold mistakes (nothing was touched then).
"""

import argparse
import asyncio
import fcntl
import grp
import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import sdnotify
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_unix_socket

from . import __version__
from .adapter import Adapter
from .adapters import make_adapters
from .api import MAX_BODY_BYTES
from .api import application as api
from .api_v2 import application as v2
from .errors import InvalidCluster, PlacematError, StepError
from .events import Event, Events
from .facts import API_GROUP, Settings
from .journal import configure
from .names import run_directory
from .resources import Kind
from .service import Service
from .systemd import Systemd

EXTEND_SECONDS = 90
"""How much longer systemd waits for a start or stop after each sign of life; TimeoutStartSec of the unit."""

log = logging.getLogger("placematd")


class Notifier:
    """Tells systemd how we are (sd_notify(3)); without systemd nothing happens."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._notifier = sdnotify.SystemdNotifier()
        watchdog_usec = int(environ.get("WATCHDOG_USEC", "0"))
        self._watched = watchdog_usec > 0
        self._interval_seconds = min(watchdog_usec / 2_000_000 or EXTEND_SECONDS, EXTEND_SECONDS / 3)
        self.busy = True
        """Whether a start or a stop is under way, which systemd shall wait for: each of its steps has its own limit."""

    def event(self, event: Event) -> None:
        """STATUS= follows the events."""
        if event["kind"] in ("step", "state", "progress"):
            self.send(f"STATUS={event['message']}")

    def send(self, *lines: str) -> None:
        """Send assignments such as READY=1."""
        self._notifier.notify("\n".join(line.replace("\n", " ") for line in lines))

    def close(self) -> None:
        """Close the socket, which sdnotify keeps open."""
        if self._notifier.socket:
            self._notifier.socket.close()

    async def show_life(self) -> None:
        """WATCHDOG=1, and more time while busy, again and again from the event loop: a loop that hangs misses it."""
        while True:
            extension = [f"EXTEND_TIMEOUT_USEC={EXTEND_SECONDS * 1_000_000}"] if self.busy else []
            watchdog = ["WATCHDOG=1"] if self._watched else []
            if extension or watchdog:
                self.send(*watchdog, *extension)
            await asyncio.sleep(self._interval_seconds)


@contextmanager
def only_one(directory: Path) -> Any:
    """Hold the cluster's lock; raises StepError where another placematd runs the cluster."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o755)
    with (directory / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StepError(f"lock {directory / 'lock'}", "another placematd runs this cluster") from None
        yield


def listen(service: Service, directory: Path) -> list[HTTPServer]:
    """Serve the API on DIRECTORY/api.sock, open to root and the group `placemat`, and v2's on TCP where asked for.

    Raises StepError where the TCP address cannot be used.
    """
    apps = (api(service, service.bmcs), v2(service))
    servers = [HTTPServer(app, max_body_size=MAX_BODY_BYTES, idle_connection_timeout=60) for app in apps]
    path = directory / "api.sock"
    servers[0].add_socket(bind_unix_socket(str(path), mode=0o660))
    with suppress(KeyError):  # no such group: root alone
        os.chown(path, -1, grp.getgrnam(API_GROUP).gr_gid)
    if address := service.settings.listen:
        host, _, port = address.rpartition(":")
        try:
            if not host:
                raise ValueError("no address (0.0.0.0 and [::] are all interfaces)")
            servers[1].listen(int(port), host.strip("[]"))
        except (OSError, ValueError) as error:
            raise StepError(f"listen on {address}", str(error), "PLACEMAT_LISTEN is HOST:PORT") from error
    return servers


def clear(directory: Path) -> None:
    """Remove our socket and lock, and the directories that have become empty; what still runs has files in others.

    A process of a BMC that still runs sees the directory where the next placematd opens its socket, empty as it is.
    """
    for name in ("api.sock", "lock"):
        (directory / name).unlink(missing_ok=True)
    ours = [path for path in directory.rglob("*") if not path.is_relative_to(directory / "bmc")]
    for path in sorted((*ours, directory), reverse=True):
        with suppress(OSError):  # not a directory, or not empty
            path.rmdir()


async def serve(service: Service, notifier: Notifier, cancelled: threading.Event) -> int:
    """Start, serve until a signal, stop; returns the exit status. `cancelled` is set where the start is given up."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    early = "not reloaded: the cluster is not up yet"
    loop.add_signal_handler(signal.SIGHUP, lambda: service.events.publish("warning", early))
    life = asyncio.create_task(notifier.show_life())
    start = asyncio.create_task(service.start())
    asked = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({start, asked}, return_when=asyncio.FIRST_COMPLETED)
        if not start.done():
            notifier.send("STOPPING=1")
            cancelled.set()
            return await give_up(service, start)
        await start
        loop.add_signal_handler(signal.SIGHUP, lambda: asyncio.ensure_future(reload(service, notifier)))
        notifier.busy = False
        notifier.send("READY=1")
        await asked
        notifier.busy = True
        notifier.send("STOPPING=1", f"EXTEND_TIMEOUT_USEC={EXTEND_SECONDS * 1_000_000}")
        cancelled.set()
        await (service.leave() if await service.job() == "restart" else service.stop())
    except PlacematError as error:
        service.fail(error)
        notifier.send(f"STATUS={error}", "ERRNO=1")
        return 2 if isinstance(error, InvalidCluster) else 1
    finally:
        life.cancel()
        asked.cancel()
    return 0


async def give_up(service: Service, start: "asyncio.Task[None]") -> int:
    """A signal came before the cluster was up: returns the exit status when what was made is undone.

    What an earlier placematd left running goes too if a stop was asked for. Otherwise it is systemd that waited too
    long, or somebody with kill(1): a start that failed.
    """
    step, job = service.step, await service.job()
    start.cancel()
    with suppress(asyncio.CancelledError):
        await start
    if job == "restart":
        return 0
    if job == "start":
        raise StepError(f"start cluster {service.settings.cluster}", f"given up, on a signal, while: {step}")
    await service.stop()
    return 0


async def reload(service: Service, notifier: Notifier) -> None:
    """SIGHUP: read the files again; what is wrong with them goes to the journal and changes nothing."""
    notifier.send("RELOADING=1")
    try:
        await service.reload()
    except PlacematError as error:
        service.events.publish("error", f"not reloaded: {error}")
    finally:
        notifier.send("READY=1")


async def run(settings: Settings, environ: Mapping[str, str]) -> int:
    """Run the service of one cluster."""
    notifier = Notifier(environ)
    events = Events()
    events.bind(asyncio.get_running_loop())
    events.listen(notifier.event)
    systemd = Systemd()
    cancelled = threading.Event()
    adapters: Mapping[Kind, Adapter[Any]] = make_adapters(settings, systemd, events, cancelled)
    service = Service(settings, systemd, adapters, events)
    directory = run_directory(settings.run_dir, settings.cluster)
    try:
        with only_one(directory):
            servers: list[HTTPServer] = []
            try:
                servers = listen(service, directory)
                return await serve(service, notifier, cancelled)
            finally:
                for server in servers:
                    server.stop()
                    await server.close_all_connections()
                clear(directory)
    except PlacematError as error:
        log.error("%s", error)
        notifier.send(f"STATUS={error}")
        return 1
    finally:
        notifier.close()
        service.close()
        systemd.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="placematd", description="The control service of one placemat cluster.")
    parser.add_argument("--version", action="version", version=f"placematd {__version__}")
    parser.add_argument("cluster", help="name of the cluster; its files are /etc/placemat/CLUSTER.yml or as set")
    arguments = parser.parse_args(argv)
    configure(arguments.cluster)
    try:
        settings = Settings.from_environment(arguments.cluster, os.environ)
    except ValueError as error:
        log.error("%s", error)
        return 2
    return asyncio.run(run(settings, os.environ))


if __name__ == "__main__":
    sys.exit(main())
