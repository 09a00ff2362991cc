"""`placemat-cli`: the commands put together, and the only place that turns an error into text and exit status."""

import os
from typing import Any

import typer

from placematd import __version__
from placematd.errors import PlacematError

from .clusters import Places
from .commands import bmc, forward, image, logs, netns, node, read, status, updown, volume
from .errors import EXIT_STATUS_HELP, exit_status
from .sandbox.command import CONTEXT_SETTINGS, sandbox_command
from .session import Commands, Session


class Root(Commands):
    """The root of all commands: errors raised on purpose become text on stderr and an exit status."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for. (The type of `ctx` is click's, which newer versions of typer contain.)"""
        try:
            return super().invoke(ctx)
        except PlacematError as error:
            typer.echo(error_text(error), err=True)
            raise typer.Exit(exit_status(error)) from error
        except KeyboardInterrupt as error:
            raise typer.Exit(130) from error


def error_text(error: PlacematError) -> str:
    """The error for a person; a list of mistakes begins with their places, as editors like it."""
    return str(error) if hasattr(error, "mistakes") else f"error: {error}"


app = typer.Typer(
    cls=Root,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXIT_STATUS_HELP,
)


def show_version(wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        typer.echo(f"placemat-cli {__version__}")
        raise typer.Exit


CLUSTER = typer.Option(
    "",
    "--cluster",
    "-c",
    metavar="NAME",
    envvar="PLACEMAT_CLUSTER",
    show_default=False,
    help="The cluster; default is the only one that runs, or else the only one that is known.",
)
VERSION = typer.Option(False, "--version", is_eager=True, callback=show_version, help="Show the version.")


@app.callback()
def placemat_cli(context: typer.Context, cluster: str = CLUSTER, version: bool = VERSION) -> None:
    """A data centre on this machine: networks, namespaces and servers from one YAML file."""
    context.obj = Session(cluster, Places.from_environment(os.environ))


app.command()(read.check)
app.command()(read.plan)
app.command()(updown.up)
app.command()(updown.down)
app.command()(status.status)
app.command()(status.reload)
app.add_typer(node.app, name="node")
app.add_typer(bmc.app, name="bmc")
app.add_typer(netns.app, name="netns")
app.add_typer(volume.app, name="volume")
app.add_typer(image.app, name="image")
app.add_typer(forward.app, name="forward")
app.command()(logs.logs)
app.command("sandbox", context_settings=CONTEXT_SETTINGS)(sandbox_command)


def main() -> None:
    """Entry point; ends the process."""
    app(prog_name="placemat-cli")


if __name__ == "__main__":
    main()
