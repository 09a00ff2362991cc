"""What commands print to stdout: tables and JSON. Colours and width limits only where stdout is a terminal."""

import json
import sys
from collections.abc import Sequence
from itertools import zip_longest

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

GOOD = frozenset({"On", "running", "active", "exited"})
BAD = frozenset({"failed", "degraded", "dead"})
PENDING = frozenset({"PoweringOn", "PoweringOff", "starting", "stopping", "reloading", "activating", "deactivating"})


def print_json(value: object) -> None:
    """One line, as programs like it, or indented for the person in front of a terminal."""
    typer.echo(json.dumps(value, indent=2 if sys.stdout.isatty() else None, ensure_ascii=False))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table with aligned columns; a cell may have several lines."""
    if sys.stdout.isatty():
        Console().print(_rich_table(header, rows))
    else:
        typer.echo("\n".join(plain_lines([header, *rows])))


def print_state(name: str, state: str, details: str) -> None:
    """The first line about a cluster."""
    if sys.stdout.isatty():
        line = Text.assemble((name, "bold"), "  ", (state, _style(state)), (f"  {details}" if details else "", "dim"))
        Console().print(line)
    else:
        typer.echo(f"{name}  {state}" + (f"  {details}" if details else ""))


def plain_lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as aligned text, two spaces between columns, no trailing space."""
    cells = [[cell.split("\n") for cell in row] for row in rows]
    widths = [max(len(line) for row in cells for line in row[column]) for column in range(len(cells[0]))]
    lines = [line for row in cells for line in zip_longest(*row, fillvalue="")]
    return ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def _rich_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in header:
        table.add_column(Text(title), overflow="fold")
    for row in rows:
        table.add_row(*(_coloured(cell) for cell in row))
    return table


def _coloured(cell: str) -> Text:
    """A cell whose words that tell a state have its colour."""
    text = Text(cell)
    for words, style in ((GOOD, "green"), (BAD, "bold red"), (PENDING, "yellow"), ({"Off"}, "dim")):
        text.highlight_regex(rf"(?<!\S)({'|'.join(words)})(?!\S)", style)
    return text


def _style(state: str) -> str:
    if state in GOOD:
        return "bold green"
    return "bold red" if state in BAD else "bold yellow"
