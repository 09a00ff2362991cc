"""`forward ...`: ports of this machine that lead into network namespaces."""

import typer

from placematd.forward import Protocol, forward_name, parse, parse_local

from ..answers import Forward
from ..errors import BadUsage
from ..session import JSON_OPTION, Commands, session_of
from ..table import print_json, print_table

app = typer.Typer(help="Port forwards into network namespaces: add, list, delete.", cls=Commands, no_args_is_help=True)

LOCAL = typer.Argument(
    ...,
    metavar="LOCAL",
    help="PORT (on the loopback addresses only) or ADDRESS:PORT; an IPv6 address in brackets.",
    show_default=False,
)
REMOTE = typer.Argument(
    ...,
    metavar="NETNS:HOST:PORT",
    help="Where it leads to, as seen from the namespace; an IPv6 address in brackets.",
    show_default=False,
)
UDP = typer.Option(False, "--udp", help="Forward UDP instead of TCP.")
HEADER = ("LOCAL", "PROTOCOL", "NETNS", "REMOTE")


def local_of(forward: Forward) -> str:
    """The local end as it is written on the command line, where `localhost` is left out."""
    address, port = forward["local_address"], forward["local_port"]
    return str(port) if address == "localhost" else _joined(address, port)


def forward_row(forward: Forward) -> tuple[str, ...]:
    """A forward as a row under `HEADER`."""
    remote = _joined(forward["remote_host"], forward["remote_port"])
    return local_of(forward), forward["protocol"], forward["netns"], remote


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _protocol(udp: bool) -> Protocol:
    return "udp" if udp else "tcp"


@app.command("add")
def add(context: typer.Context, local: str = LOCAL, remote: str = REMOTE, udp: bool = UDP) -> None:
    """Make a port of this machine lead to an address that a network namespace reaches.

    It stays until it is deleted or the cluster goes down. Example: placemat-cli forward add 8080 boot:172.16.1.2:80;
    with 0.0.0.0:8080 or [::]:8080 as LOCAL other machines reach it too.
    """
    try:
        wanted = parse(local, remote, _protocol(udp))
    except ValueError as error:
        raise BadUsage(str(error)) from error
    made = session_of(context).api().add_forward(wanted.local, wanted.remote, wanted.protocol)
    typer.echo(f"{made['protocol']} port {wanted.local} leads to {wanted.remote}")


@app.command("list")
def list_forwards(context: typer.Context, as_json: bool = JSON_OPTION) -> None:
    """List the port forwards."""
    forwards = session_of(context).api().forwards()
    if as_json:
        print_json(forwards)
    else:
        print_table(HEADER, [forward_row(forward) for forward in forwards])


@app.command("delete")
def delete(context: typer.Context, local: str = LOCAL, udp: bool = UDP) -> None:
    """Take a port forward away and end its connections."""
    try:
        address, port = parse_local(local)
    except ValueError as error:
        raise BadUsage(str(error)) from error
    session_of(context).api().delete_forward(forward_name(_protocol(udp), address, port))
