"""`volume ...`: disks and other storage of servers, listed and reset.

The cluster's service is asked, since it knows what runs. Of a cluster that is down, root reads and resets the files.
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import cast

import typer

from placematd.errors import NotFound
from placematd.facts import Settings

from ..answers import Volume
from ..errors import BadUsage, Unreachable
from ..progress import amount
from ..session import JSON_OPTION, Commands, Session, session_of
from ..table import print_json, print_table

app = typer.Typer(help="Disks of servers: list, reset.", cls=Commands, no_args_is_help=True)

NODE = typer.Argument(..., metavar="NODE", help="Name of the node.", show_default=False)
VOLUME = typer.Argument("", metavar="[VOLUME]", help="Name of the volume; default is all of the node.")
YES = typer.Option(False, "--yes", "-y", help="Do not ask.")
HEADER = ("NODE", "VOLUME", "KIND", "STORED", "STATE", "PATH")
KINDS = {"copy": "image", "cow": "image (copy-on-write)", "seed": "localds", "directory": "hostPath"}
"""The kinds of the cluster file; raw is called raw, and @efivars and @tpm say what they are by their names."""


def volume_row(volume: Volume) -> tuple[str, ...]:
    """A volume as a row under `HEADER`."""
    kind = "-" if volume["name"].startswith("@") else KINDS.get(volume["form"], volume["form"])
    state = ("changed" if volume["changes"] else "ok") if volume["exists"] else "missing"
    stored = "-" if volume["form"] == "directory" else amount(volume["stored_bytes"], None)
    return volume["node"], volume["name"], kind, stored, state, volume["path"]


@app.command("list")
def list_volumes(context: typer.Context, as_json: bool = JSON_OPTION) -> None:
    """List what is stored for servers, also for those that are no longer in the cluster file.

    The state "changed" means that a volume was made from something else than the cluster file says now.
    """
    volumes = found_volumes(session_of(context))
    if as_json:
        print_json(volumes)
        return
    print_table(HEADER, [volume_row(volume) for volume in volumes])
    for volume in volumes:
        if volume["changes"]:
            typer.echo(f"{volume['node']}/{volume['name']} changed: {volume['changes']}")


@app.command("reset")
def reset(context: typer.Context, node: str = NODE, volume: str = VOLUME, yes: bool = YES) -> None:
    """Delete a volume, or all volumes of a server, with what the server wrote; they are made anew.

    The server must be off. Shared directories (hostPath) are never deleted.
    """
    session = session_of(context)
    volumes = [found for found in found_volumes(session) if found["node"] == node and volume in ("", found["name"])]
    if not volumes:
        raise NotFound(f"no volume {volume} of node {node}" if volume else f"no volumes of node {node}")
    chosen = [found for found in volumes if found["form"] != "directory"]
    if not chosen:
        raise BadUsage(f"the volumes of node {node} are directories of this host: nothing is deleted")
    if not yes:
        confirm(node, chosen)
    for found in chosen:
        reset_one(session, node, found["name"])
        typer.echo(f"{node}/{found['name']}: reset")


def confirm(node: str, volumes: Sequence[Volume]) -> None:
    """Ask the person at the terminal; raises BadUsage where there is none, and typer.Abort on a no."""
    names = ", ".join(volume["name"] for volume in volumes)
    if not sys.stdin.isatty():
        raise BadUsage(f"this would delete {names} of {node}: confirm with --yes")
    typer.confirm(f"Delete {names} of {node} with all that is on it?", abort=True)


def found_volumes(session: Session) -> list[Volume]:
    """All volumes, from the cluster's service or, where it does not run, from the disk."""
    cluster = session.running()
    try:
        return session.api(cluster).volumes()
    except Unreachable:
        from placematd.volume import list_volumes as stored  # here, since most commands can do without

        listed = [asdict(volume) for volume in stored(settings_of(session, cluster).data_dir, cluster)]
        return [cast(Volume, volume | {"path": str(volume["path"])}) for volume in listed]


def reset_one(session: Session, node: str, volume: str) -> None:
    """Reset a volume through the service, or on the disk; one that a QEMU has open is refused there, too."""
    cluster = session.running()
    try:
        session.api(cluster).reset_volume(node, volume)
    except Unreachable:
        from placematd.volume import reset_volume

        reset_volume(settings_of(session, cluster).data_dir, cluster, node, volume)


def settings_of(session: Session, cluster: str) -> Settings:
    """The settings of a cluster that may be down: those of a cluster given as files come from the environment then."""
    places = session.places
    return places.settings(cluster) if cluster in places.known() else places.settings_for(cluster, list[Path]())
