"""`status` and `reload`: what runs, and the edited files applied to it."""

import typer

from placematd.errors import StepError

from .. import systemctl
from ..answers import Cluster, Network
from ..errors import Unreachable
from ..session import JSON_OPTION, NAME_ARGUMENT, session_of
from ..table import print_json, print_state, print_table
from . import netns, node
from .read import counted

DRY_RUN = typer.Option(False, "--dry-run", help="Only tell what would change.")


def status(context: typer.Context, name: str = NAME_ARGUMENT, as_json: bool = JSON_OPTION) -> None:
    """Show the state of a cluster.

    That is its networks, namespaces with apps, and servers. If its service does not answer, what systemd knows of it,
    and exit status 3.
    """
    session = session_of(context)
    cluster = session.running(name)
    try:
        found = session.api(cluster).status()
    except Unreachable as error:
        show_without_service(cluster, error, as_json)
        raise typer.Exit(3) from error
    if as_json:
        print_json(found)
    else:
        show(found)


def show(cluster: Cluster) -> None:
    """The cluster as tables."""
    on = sum(node["power"] == "On" for node in cluster["nodes"])
    busy = cluster["state"] in ("starting", "reloading", "stopping")
    parts = [
        cluster["step"] if busy else f"{on} of {counted(len(cluster['nodes']), 'node')} on",
        *([cluster["accelerator"]] if cluster["accelerator"] and cluster["nodes"] else []),
    ]
    print_state(cluster["name"], cluster["state"], ", ".join(parts))
    troubles = [
        *([f"error: {cluster['error']}"] if cluster["error"] else []),
        *(f"failed: {unit}" for unit in cluster.get("failed_units", [])),
        *(f"warning: {warning}" for warning in cluster["warnings"]),
    ]
    for line in troubles:
        typer.echo(line)
    if cluster["networks"]:
        typer.echo("")
        print_table(("NETWORK", "TYPE", "ADDRESSES"), [network_row(network) for network in cluster["networks"]])
    if cluster["namespaces"]:
        typer.echo("")
        print_table(netns.HEADER, [netns.namespace_row(namespace) for namespace in cluster["namespaces"]])
    if cluster["nodes"]:
        typer.echo("")
        print_table(node.HEADER, [node.node_row(found) for found in cluster["nodes"]])


def network_row(network: Network) -> tuple[str, ...]:
    """A network as a row."""
    return network["name"], network["type"], " ".join(network["addresses"]) or "-"


def show_without_service(cluster: str, error: Unreachable, as_json: bool) -> None:
    """What systemd knows of a cluster whose service does not answer."""
    try:
        service, units = systemctl.service(cluster), systemctl.units(cluster)
    except StepError:
        raise error from None  # no systemd to ask: the first error says it all
    known = [{"unit": unit.name, "active": unit.active, "sub": unit.sub} for unit in units]
    if as_json:
        print_json({"name": cluster, "state": service.active, "error": service.status_text, "units": known})
        return
    print_state(cluster, service.active, service.result if service.active == "failed" else "")
    if service.status_text:
        typer.echo(f"last status: {service.status_text}")
    if units:
        typer.echo("")
        print_table(("UNIT STILL THERE", "STATE"), [(unit.name, f"{unit.active} {unit.sub}") for unit in units])
    typer.echo(f"error: {error}", err=True)


def reload(
    context: typer.Context, name: str = NAME_ARGUMENT, dry_run: bool = DRY_RUN, as_json: bool = JSON_OPTION
) -> None:
    """Apply edited files to a running cluster.

    Only what differs is touched; if the files have mistakes, nothing is.
    """
    api = session_of(context).api(name)
    changes = api.reload(dry_run=dry_run)
    if as_json:
        print_json({"changes": changes})
        return
    for change in changes:
        typer.echo(f"{change['action']:<8} {change['resource']}: {change['reason']}")
    verb = "would change" if dry_run else "changed"
    typer.echo(
        f"{api.cluster}: {counted(len(changes), 'resource')} {verb}" if changes else f"{api.cluster}: nothing {verb}"
    )
