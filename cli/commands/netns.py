"""`netns ...`: network namespaces of a cluster."""

import os

import typer

from placematd.errors import NotFound
from placematd.run import find

from ..answers import Namespace
from ..errors import BadUsage, Unreachable
from ..session import JSON_OPTION, Commands, Session, session_of
from ..table import print_json, print_table

app = typer.Typer(help="Network namespaces: list, run a command inside.", cls=Commands, no_args_is_help=True)

NAMESPACE = typer.Argument(..., metavar="NETNS", help="Name of the namespace.", show_default=False)
COMMAND = typer.Argument(..., metavar="COMMAND...", help="Program and arguments.", show_default=False)
HEADER = ("NETNS", "INTERFACES", "APPS")


def namespace_row(namespace: Namespace) -> tuple[str, ...]:
    """A namespace as a row under `HEADER`: a line for each interface and each app."""
    interfaces = "\n".join(
        " ".join((nic["name"], nic["network"], *nic["addresses"])) for nic in namespace["interfaces"]
    )
    apps = "\n".join(f"{app['name']} {app['state']}" for app in namespace["apps"])
    return namespace["name"], interfaces or "-", apps or "-"


@app.command("list")
def list_namespaces(context: typer.Context, as_json: bool = JSON_OPTION) -> None:
    """List the network namespaces with their interfaces and apps."""
    namespaces = session_of(context).api().status()["namespaces"]
    if as_json:
        print_json(namespaces)
    else:
        print_table(HEADER, [namespace_row(namespace) for namespace in namespaces])


@app.command("exec", context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True})
def execute(context: typer.Context, namespace: str = NAMESPACE, command: list[str] = COMMAND) -> None:
    """Run a command inside a network namespace; its exit status is ours.

    The namespace's /etc/netns files and /sys are in place, as with ip-netns(8).
    """
    check_namespace(session_of(context), namespace)
    if command[0] == "--":  # ip(8) would take it for the command
        command = command[1:]
    os.execv(find("ip"), ["ip", "netns", "exec", namespace, *command])


def check_namespace(session: Session, namespace: str) -> None:
    """Raise NotFound if a cluster runs that has no such namespace; if none can be asked, ip(8) has the last word."""
    try:
        namespaces = session.api().status()["namespaces"]
    except (Unreachable, BadUsage):
        return
    known = [found["name"] for found in namespaces]
    if namespace not in known:
        raise NotFound(f"no network namespace {namespace} (there is {', '.join(known) or 'none'})")
