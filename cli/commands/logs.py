"""`logs`: what a cluster, a node or an app wrote, from the journal."""

import os

import typer

from placematd.names import service_unit
from placematd.run import find

from ..errors import BadUsage
from ..session import session_of

TARGET = typer.Argument("", metavar="[TARGET]", help="NODE, NETNS or NETNS/APP.", show_default=False)
FOLLOW = typer.Option(False, "--follow", "-f", help="Go on with what is written from now on.")
LINES = typer.Option("", "--lines", "-n", metavar="N", help="Only the last N lines.", show_default=False)
SINCE = typer.Option("", "--since", metavar="TIME", help='As journalctl takes it, such as "-5min".', show_default=False)
OUTPUT = typer.Option("", "--output", "-o", metavar="FORMAT", help="As journalctl takes it.", show_default=False)
DAEMON = typer.Option(False, "--daemon", help="Only what the service of the cluster wrote.")


def logs(
    context: typer.Context,
    target: str = TARGET,
    follow: bool = FOLLOW,
    lines: str = LINES,
    since: str = SINCE,
    output: str = OUTPUT,
    daemon: bool = DAEMON,
) -> None:
    """Show the journal of a cluster, node or app.

    A node's part of it is its console. Clusters that no longer run have one too: placemat-cli -c NAME logs.
    """
    if daemon and target:
        raise BadUsage(f"--daemon and {target}: the service of the cluster, or one part of it, not both")
    options = [
        *(["--follow"] if follow else []),
        *([f"--lines={lines}"] if lines else []),
        *([f"--since={since}"] if since else []),
        *([f"--output={output}"] if output else []),
    ]
    cluster = session_of(context).running()
    os.execv(find("journalctl"), ["journalctl", *options, *matches(cluster, target, daemon)])


def matches(cluster: str, target: str, daemon: bool = False) -> list[str]:
    """The journal fields to look for (journalctl(1): fields of one name are alternatives, "+" is "or").

    A word without a slash may be a node or a namespace.
    """
    ours = f"PLACEMAT_CLUSTER={cluster}"
    if daemon:
        return [f"--unit={service_unit(cluster)}"]
    if not target:
        return [ours, "+", f"UNIT={service_unit(cluster)}"]
    namespace, slash, app = target.partition("/")
    if slash:
        return [ours, f"PLACEMAT_NETNS={namespace}", f"PLACEMAT_APP={app}"]
    return [ours, f"PLACEMAT_NODE={target}", "+", ours, f"PLACEMAT_NETNS={target}"]
