"""What every command gets from the options before its name."""

from dataclasses import dataclass

import typer
from typer.core import TyperGroup

from .client import Api
from .clusters import Places, Target, find_running, find_target

JSON_OPTION = typer.Option(False, "--json", help="Print JSON instead of a table.")
NAME_ARGUMENT = typer.Argument("", metavar="[NAME]", help="The cluster; default as for --cluster.", show_default=False)
TARGET_ARGUMENT = typer.Argument(
    None,
    metavar="[FILES...|NAME]",
    help="Cluster files, a directory of them (*.yml), or the name of a cluster in /etc/placemat.",
    show_default=False,
)
NAME_OPTION = typer.Option("", "--name", help="Name of the cluster that the files make.", show_default=False)


class Commands(TyperGroup):
    """A group whose help lists the commands in the order of a cluster's life, not of the alphabet."""

    def list_commands(self, ctx: object) -> list[str]:
        """Names of the commands, as they were added."""
        return list(self.commands)


@dataclass(frozen=True)
class Session:
    """The cluster that was chosen ("" for none) and where clusters are."""

    cluster: str
    places: Places

    def running(self, name: str = "") -> str:
        """The cluster that a command on a running cluster is about."""
        return find_running(name or self.cluster, self.places)

    def api(self, name: str = "") -> Api:
        """The API of that cluster; nothing is asked yet."""
        cluster = self.running(name)
        return Api(cluster, self.places.socket(cluster))

    def target(self, arguments: list[str] | None, name: str = "") -> Target:
        """The cluster files that a command reads."""
        return find_target(arguments or [], name or self.cluster, self.places)


def session_of(context: typer.Context) -> Session:
    """The session that the options before the command made."""
    session: Session = context.obj
    return session
