"""Events as people see them: progress bars and a line for the step at a terminal, plain lines otherwise. On stderr."""

import sys
import time
from types import TracebackType
from typing import Protocol

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column
from rich.text import Text

from .answers import Event

PLAIN_INTERVAL_SECONDS = 5.0
_LOUD = frozenset({"warning", "error"})
_STYLES = {"warning": "yellow", "error": "bold red", "bmc": "cyan"}


class Display(Protocol):
    """Shows events while it is entered."""

    def __enter__(self) -> "Display":
        """Begin."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End; what was drawn for the moment is erased."""
        ...

    def show(self, event: Event) -> None:
        """Show one event."""
        ...

    def note(self, text: str) -> None:
        """Show a line that stays."""
        ...


def display(title: str) -> Display:
    """The display that fits stderr; `title` says what is waited for."""
    return LiveDisplay(title) if sys.stderr.isatty() else PlainDisplay()


class PlainDisplay:
    """A line an event; of a download only every few seconds and its end."""

    def __init__(self) -> None:
        self._shown: dict[str, float] = {}

    def __enter__(self) -> "PlainDisplay":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def show(self, event: Event) -> None:
        """Print the event, if it is news."""
        if event["kind"] != "progress":
            self.note(f"{event['kind']}: {event['message']}" if event["kind"] in _LOUD else event["message"])
            return
        item, done, total = event["item"], event["done"], event.get("total")
        now = time.monotonic()
        if done == total or now - self._shown.get(item, -PLAIN_INTERVAL_SECONDS) >= PLAIN_INTERVAL_SECONDS:
            self._shown[item] = now
            self.note(f"{item}: {amount(done, total)}")

    def note(self, text: str) -> None:
        """Print a line."""
        typer.echo(text, err=True)


def amount(done: int, total: int | None) -> str:
    """Bytes of a download as text: "1.5 of 3.0 MiB (50%)"."""
    mebibyte = 1024 * 1024
    if not total:
        return f"{done / mebibyte:.1f} MiB"
    return f"{done / mebibyte:.1f} of {total / mebibyte:.1f} MiB ({100 * done // total}%)"


class LiveDisplay:
    """A spinner with the running step and a bar for each download below it; lines that matter stay above."""

    def __init__(self, title: str, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._steps = Progress(
            SpinnerColumn(),
            TextColumn("[bold]{task.fields[title]}[/bold]"),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, ratio=1)),
            expand=True,
        )
        self._downloads = Progress(
            TextColumn("  {task.description}", markup=False),
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        self._step = self._steps.add_task("", total=None, title=escape(title))
        self._items: dict[str, TaskID] = {}
        self._live = Live(Group(self._steps, self._downloads), console=self._console, transient=True)

    def __enter__(self) -> "LiveDisplay":
        self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, event: Event) -> None:
        """Draw the event: a step or power state replaces the one before, a download moves its bar, the rest stays."""
        if event["kind"] == "progress":
            self._download(event["item"], event["done"], event.get("total"))
        elif event["kind"] in ("step", "node") or "state" in event:
            self._steps.update(self._step, description=event["message"])
        else:
            label = f"{event['kind']}: " if event["kind"] in _LOUD else ""
            self._console.print(Text(label + event["message"], style=_STYLES.get(event["kind"], "")))

    def note(self, text: str) -> None:
        """Print a line above what moves."""
        self._console.print(Text(text))

    def _download(self, item: str, done: int, total: int | None) -> None:
        if item not in self._items:
            self._items[item] = self._downloads.add_task(item, total=total)
        self._downloads.update(self._items[item], completed=done, total=total)
        if total and done >= total:
            self._downloads.remove_task(self._items.pop(item))
            self.note(f"{item}: {amount(done, total)}")
