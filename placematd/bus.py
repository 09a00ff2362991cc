"""The message bus: the only module that knows pydbus and GLib.

pydbus blocks, and waits for ever unless told otherwise; GLib delivers signals to the thread that subscribed. So one
worker thread with a main context of its own makes every call, each with a timeout, and receives every signal.
"""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import pydbus
from gi.repository import Gio, GLib

from .errors import StepError
from .unit import SIGNATURES, Value, native

T = TypeVar("T")

NO_SYSTEMD = "systemd is not PID 1 here; use placemat-cli sandbox"
NO_BUS = "systemctl status dbus"
BOOTED = Path("/run/systemd/system")
"""There where systemd is PID 1 (sd_booted(3))."""
HINTS = {
    "org.freedesktop.DBus.Error.AccessDenied": "run as root",
    "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired": "run as root",
    "org.freedesktop.DBus.Error.ServiceUnknown": NO_SYSTEMD,
}
"""D-Bus error name -> what to do about it."""


class Refused(StepError):
    """A service or the bus answered with an error; `name` is its D-Bus name, "" where GLib itself gave up."""

    def __init__(self, attempted: str, error: GLib.Error) -> None:
        self.name: str = Gio.DBusError.get_remote_error(error) or ""
        Gio.DBusError.strip_remote_error(error)
        super().__init__(attempted, str(error.message), HINTS.get(self.name, ""))


def variant(name: str, value: Value) -> GLib.Variant:
    """A unit property's value as D-Bus has it; raises ValueError where the value does not have the property's type."""
    return GLib.Variant(SIGNATURES[name], native(SIGNATURES[name], value))


class Worker:
    """One thread with a GLib main context of its own that runs functions for other threads."""

    def __init__(self) -> None:
        self._context = GLib.MainContext()
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="bus", daemon=True)
        self._thread.start()

    def call(self, function: Callable[[], T]) -> T:
        """Run `function` in the thread and return what it returns, or raise what it raises."""
        if threading.current_thread() is self._thread:
            raise RuntimeError("a callback in the bus thread must not wait for the bus thread")
        if not self._thread.is_alive():
            raise RuntimeError("the bus thread has ended")
        future: Future[T] = Future()

        def task() -> None:
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)

        self._post(task)
        return future.result()

    def call_later(self, seconds: float, function: Callable[[], None]) -> None:
        """Run `function` in the thread after a while. To be called in the thread."""
        source = GLib.timeout_source_new(int(seconds * 1000))
        source.set_callback(lambda *_: function())  # None is false: once
        source.attach(self._context)

    def close(self) -> None:
        """End the thread after what it has been given so far; harmless when repeated."""
        self._post(None)
        self._thread.join()

    def _post(self, task: Callable[[], None] | None) -> None:
        self._tasks.put(task)
        self._context.wakeup()

    def _run(self) -> None:
        self._context.push_thread_default()
        while True:
            try:
                task = self._tasks.get_nowait()
            except queue.Empty:
                self._context.iteration(True)
                continue
            if task is None:
                return
            task()
            self._context.iteration(False)  # busy callers do not hold signals up


class Connection:
    """A connection to one service, made when it is first needed and again after it was lost. For the worker alone.

    `connected` is called with each new connection, to subscribe to signals; `lost` when the other side has closed it.
    """

    def __init__(
        self,
        service: str,
        path: str,
        interface: str,
        *,
        address: str,
        timeout_seconds: float,
        connected: Callable[["Connection"], None],
        lost: Callable[[], None],
    ) -> None:
        self._service, self._path, self._interface = service, path, interface
        self._address, self._timeout = address, timeout_seconds
        self._connected, self._lost = connected, lost
        self._bus: Any = None
        self._proxy: Any = None

    def call(self, attempted: str, method: str, *args: Any) -> Any:
        """Call a method of the service's main object; raises StepError, Refused where there was an answer."""
        self.open()
        try:
            return getattr(self._proxy, method)(*args, timeout=self._timeout)
        except GLib.Error as error:
            raise Refused(attempted, error) from error

    def get(self, attempted: str, path: str, interface: str, name: str) -> Any:
        """One property of any object, without a proxy: pydbus would introspect each object (4 ms, 400 properties)."""
        self.open()
        call = (self._service, path, "org.freedesktop.DBus.Properties", "Get", GLib.Variant("(ss)", (interface, name)))
        options = (GLib.VariantType.new("(v)"), Gio.DBusCallFlags.NONE, int(self._timeout * 1000), None)
        try:
            return self._bus.con.call_sync(*call, *options).unpack()[0]
        except GLib.Error as error:
            raise Refused(attempted, error) from error

    def on(self, interface: str, signal: str, callback: Callable[..., None]) -> None:
        """Call `callback(path, *arguments)` at each such signal of the service, as long as the connection lasts."""

        def fired(sender: str, path: str, interface: str, signal: str, arguments: tuple[Any, ...]) -> None:
            callback(path, *arguments)

        self._bus.subscribe(sender=self._service, iface=interface, signal=signal, signal_fired=fired)

    def on_change(self, interface: str, names: Sequence[str], callback: Callable[[str, dict[str, Any]], None]) -> None:
        """Call `callback(path, properties)` when those of any object changed; those in `names` that did are given.

        Not with `on`: systemd tells thirty properties with each change of a unit, and to unpack them all in Python took
        a quarter of the CPU time that the start of a hundred nodes takes.
        """

        def fired(_bus: Any, _sender: str, path: str, _interface: str, _signal: str, arguments: GLib.Variant) -> None:
            changed = arguments.get_child_value(1)
            found = {name: changed.lookup_value(name, None) for name in names}
            callback(path, {name: value.unpack() for name, value in found.items() if value is not None})

        match = (self._service, "org.freedesktop.DBus.Properties", "PropertiesChanged", None, interface)
        self._bus.con.signal_subscribe(*match, Gio.DBusSignalFlags.NONE, fired)

    def open(self) -> None:
        """Connect unless connected; raises StepError where there is no bus, or not the service on it."""
        if self._bus is not None and not self._bus.con.is_closed():
            return
        try:
            self._bus = self._connect()
            self._proxy = self._bus.get(self._service, self._path, timeout=self._timeout)[self._interface]
            self._connected(self)
        except GLib.Error as error:
            self.close()
            hint = NO_BUS if BOOTED.is_dir() else NO_SYSTEMD
            raise StepError("talk to systemd over D-Bus", Refused("", error).answer, hint) from error
        except StepError:
            self.close()
            raise

    def close(self) -> None:
        """Disconnect, if connected."""
        bus, self._bus, self._proxy = self._bus, None, None
        if bus is not None and not bus.con.is_closed():
            bus.con.close_sync(None)

    def _connect(self) -> Any:
        """A connection of our own: GLib's shared one ends the process when the bus goes away (exit-on-close)."""
        kind = Gio.DBusConnectionFlags
        cancellable = Gio.Cancellable()
        timer = threading.Timer(self._timeout, cancellable.cancel)
        timer.start()
        try:
            address = self._address or Gio.dbus_address_get_for_bus_sync(Gio.BusType.SYSTEM, cancellable)
            flags = kind.AUTHENTICATION_CLIENT | kind.MESSAGE_BUS_CONNECTION
            connection = Gio.DBusConnection.new_for_address_sync(address, flags, None, cancellable)
        finally:
            timer.cancel()
        connection.connect("closed", lambda _, vanished, error: self._lost() if vanished or error else None)
        return pydbus.bus.Bus(connection)
