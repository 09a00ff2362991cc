"""`check` and `plan`: what cluster files say and would do; neither needs root or a running service."""

from collections.abc import Sequence
from dataclasses import asdict

import typer

from placematd.errors import InvalidCluster, Mistake
from placematd.facts import Host
from placematd.models import Cluster
from placematd.plan import Plan
from placematd.plan import plan as make_plan
from placematd.reading import read
from placematd.render import plan_json, render_plan

from ..answers import Change
from ..client import Api
from ..clusters import Target
from ..errors import Unreachable
from ..session import JSON_OPTION, NAME_OPTION, TARGET_ARGUMENT, Session, session_of
from ..table import print_json


def check(context: typer.Context, target: list[str] = TARGET_ARGUMENT, as_json: bool = JSON_OPTION) -> None:
    """Check cluster files; every mistake at once.

    Mistakes are shown as FILE:LINE:COLUMN and end with exit status 2; warnings alone are fine.
    """
    try:
        cluster, warnings = load(session_of(context).target(target))
    except InvalidCluster as error:
        if not as_json:
            raise
        print_json({"ok": False, "mistakes": [mistake_json(mistake) for mistake in error.mistakes]})
        raise typer.Exit(2) from error
    if as_json:
        print_json({"ok": True, "mistakes": [mistake_json(mistake) for mistake in warnings]} | counts(cluster))
        return
    show_warnings(warnings)
    typer.echo(f"ok: {summary(cluster)}")


def plan(
    context: typer.Context,
    target: list[str] = TARGET_ARGUMENT,
    name: str = NAME_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Show what a cluster would be on this host.

    That is every network, namespace, unit and QEMU command line; and, if the cluster runs, what a reload would change.
    """
    session = session_of(context)
    chosen = session.target(target, name)
    cluster, warnings = load(chosen)
    show_warnings(warnings)
    decided = make_plan(cluster, observe(chosen, cluster), chosen.settings)
    changes = changes_to_running(session, chosen)
    if as_json:
        print_json(with_changes(decided, changes))
        return
    typer.echo(render_plan(decided).rstrip("\n"))
    if changes is not None:
        typer.echo("\n" + "\n".join(change_lines(chosen.name, changes)))


def observe(target: Target, cluster: Cluster) -> Host:
    """The facts of this host that the cluster depends on."""
    from placematd.host import observe_host  # here, since it brings netlink, which most commands can do without

    return observe_host(target.settings, cluster)


def load(target: Target) -> tuple[Cluster, Sequence[Mistake]]:
    """The cluster and its warnings; raises InvalidCluster with all mistakes."""
    bridges = observe(target, Cluster(name=target.name)).bridges
    return read(target.files, target.name, bridges=bridges, run_dir=target.settings.run_dir)


def show_warnings(warnings: Sequence[Mistake]) -> None:
    """Warnings to stderr, one a line."""
    for warning in warnings:
        typer.echo(str(warning), err=True)


def changes_to_running(session: Session, target: Target) -> list[Change] | None:
    """What a reload would change; None if the cluster does not run, or runs from other files."""
    running = session.places.settings(target.name)
    if session.places.files(target.name, running) != target.files:
        return None
    try:
        return Api(target.name, session.places.socket(target.name)).reload(dry_run=True)
    except Unreachable:
        return None


def change_lines(name: str, changes: Sequence[Change]) -> list[str]:
    """Changes as text."""
    if not changes:
        return [f"Cluster {name} runs exactly so: nothing would change."]
    title = f"Cluster {name} runs; a reload would make {counted(len(changes), 'change')}:"
    return [title, *(f"  {change['action']:<8} {change['resource']}: {change['reason']}" for change in changes)]


def with_changes(decided: Plan, changes: list[Change] | None) -> object:
    """The plan as JSON, with "changes" if the cluster runs."""
    value = plan_json(decided)
    return value if changes is None else {**value, "changes": changes}


def mistake_json(mistake: Mistake) -> dict[str, object]:
    """A mistake with its place in the file as JSON."""
    return {**asdict(mistake.mark), **{key: value for key, value in asdict(mistake).items() if key != "mark"}}


def counts(cluster: Cluster) -> dict[str, int]:
    """How many of each the cluster has."""
    return {"networks": len(cluster.networks), "namespaces": len(cluster.namespaces), "nodes": len(cluster.nodes)}


def summary(cluster: Cluster) -> str:
    """How many of each, in words."""
    return ", ".join(counted(number, kind.removesuffix("s")) for kind, number in counts(cluster).items())


def counted(number: int, noun: str) -> str:
    """A number and its noun: "1 node", "2 nodes"."""
    return f"{number} {noun}" + ("" if number == 1 else "s")
