"""`node ...`: servers of a running cluster."""

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import typer
from rich.console import Console

from ..answers import Node
from ..console import enter as enter_console
from ..session import JSON_OPTION, Commands, session_of
from ..table import print_json, print_table

Action = Literal["start", "stop", "restart"]

app = typer.Typer(help="Servers: list, show, enter the console, switch on and off.", cls=Commands, no_args_is_help=True)
action_app = typer.Typer(help="Switch a server on and off, as pmctl2 of placemat v2 spells it.", no_args_is_help=True)

NODE = typer.Argument(..., metavar="NODE", help="Name of the node.", show_default=False)
GRACEFUL = typer.Option(False, "--graceful", help="Press the power button and let the guest shut down.")
TIMEOUT = typer.Option(60.0, "--timeout", metavar="SECONDS", help="How long the guest may take to shut down.", min=1)
QUIET = typer.Option(False, "--quiet", "-q", help="Names only.")
HEADER = ("NODE", "POWER", "CPU", "MEMORY", "NETWORKS", "BMC", "UNIT")


def node_row(node: Node) -> tuple[str, ...]:
    """A node as a row under `HEADER`."""
    networks = " ".join(interface["network"] for interface in node["interfaces"])
    unit = f"{node['unit']} {node['unit_state']}"
    return (
        node["name"],
        node["power"],
        str(node["cpu"]),
        node["memory"],
        networks or "-",
        node["bmc_address"] or "-",
        unit,
    )


@app.command("list")
def list_nodes(context: typer.Context, as_json: bool = JSON_OPTION, quiet: bool = QUIET) -> None:
    """List the servers."""
    nodes = session_of(context).api().nodes()
    if as_json:
        print_json(nodes)
    elif quiet:
        typer.echo("".join(node["name"] + "\n" for node in nodes), nl=False)
    else:
        print_table(HEADER, [node_row(node) for node in nodes])


@app.command("show")
def show(context: typer.Context, node: str = NODE, as_json: bool = JSON_OPTION) -> None:
    """Show one server."""
    found = session_of(context).api().node(node)
    if as_json:
        print_json(found)
    else:
        print_table((f"NODE {found['name']}", ""), details(found))


def details(node: Node) -> list[tuple[str, str]]:
    """What `show` says, as names and values."""
    smbios = node["smbios"]
    pid = node.get("pid")
    rows = [
        ("power", node["power"]),
        ("unit", f"{node['unit']} {node['unit_state']}" + (f" (process {pid})" if pid else "")),
        ("cpu", f"{node['cpu']} ({node['accelerator']})"),
        ("memory", node["memory"]),
        ("firmware", firmware(node)),
        ("smbios", " ".join(part for part in (smbios["manufacturer"], smbios["product"]) if part)),
        ("serial", smbios["serial"]),
        ("interfaces", "\n".join(f"{nic['network']}  {nic['mac']}  {nic['tap']}" for nic in node["interfaces"])),
        ("volumes", "\n".join(node["volumes"])),
        ("bmc", node["bmc_address"] or ""),
        ("console", node["console"]),
    ]
    return [(name, value or "-") for name, value in rows]


def firmware(node: Node) -> str:
    """The firmware in words, and what comes with it."""
    parts = {"UEFI" if node["uefi"] else "BIOS": True, "Secure Boot": node["secure_boot"], "TPM 2.0": node["tpm"]}
    return ", ".join(part for part, there in parts.items() if there)


@app.command("enter")
def enter(context: typer.Context, node: str = NODE) -> None:
    """Enter the serial console of a server.

    Ctrl-Q Ctrl-X leaves it; Ctrl-Q Ctrl-Q types a Ctrl-Q. Several people can be on one console. If stdin is not a
    terminal, it is sent as it is, and the output is shown until Ctrl-C or SIGTERM.
    """
    raise typer.Exit(enter_console(session_of(context).api(), node))


@app.command("start")
@action_app.command("start")
def start(context: typer.Context, node: str = NODE) -> None:
    """Switch a server on; if it is on already, nothing happens."""
    switch(context, node, "start")


@app.command("stop")
@action_app.command("stop")
def stop(context: typer.Context, node: str = NODE, graceful: bool = GRACEFUL, timeout: float = TIMEOUT) -> None:
    """Switch a server off; if it is off already, nothing happens."""
    switch(context, node, "stop", graceful, timeout)


@app.command("restart")
@action_app.command("restart")
def restart(context: typer.Context, node: str = NODE, graceful: bool = GRACEFUL, timeout: float = TIMEOUT) -> None:
    """Reset a server, or (--graceful) shut it down and switch it on again."""
    switch(context, node, "restart", graceful, timeout)


def switch(context: typer.Context, node: str, action: Action, graceful: bool = False, timeout: float = 60) -> None:
    """Ask the service for an action and tell the result."""
    api = session_of(context).api()
    with _waiting(f"{action} {node}"):
        result = api.node_action(node, action, graceful=graceful, timeout_seconds=timeout)
    typer.echo(f"{result['name']} is {result['power']}")


def _waiting(text: str) -> AbstractContextManager[object]:
    """A spinner on a terminal, nothing otherwise."""
    return Console(stderr=True).status(text) if sys.stderr.isatty() else nullcontext()


app.add_typer(action_app, name="action")
