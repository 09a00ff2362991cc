"""`bmc ...`: the management controllers of servers, as this machine sees them."""

import typer

from ..answers import Bmc, BmcSession, BmcState, BmcUser
from ..session import JSON_OPTION, NAME_ARGUMENT, Commands, session_of
from ..table import print_json, print_table
from .node import NODE

app = typer.Typer(
    help="BMCs of servers: list, show, event log, certificate authority.", cls=Commands, no_args_is_help=True
)

CLEAR = typer.Option(False, "--clear", help="Empty the log instead of showing it.")
HEADER = ("NODE", "ADDRESS", "SOURCE", "IPMI", "USERS", "LAST SESSION")
SEL_HEADER = ("ID", "TIME", "SEVERITY", "MESSAGE")


def bmc_row(bmc: Bmc) -> tuple[str, ...]:
    """A BMC as a row under `HEADER`."""
    users = ", ".join(map(user_text, bmc["users"]))
    address, source = bmc["address"] or "-", bmc["source"] or "-"
    return bmc["node"], address, source, ipmi_text(bmc), users or "-", session_text(bmc["last_session"])


def user_text(user: BmcUser) -> str:
    """A user, with what keeps it from logging in."""
    return user["name"] + ("" if user["enabled"] else " (disabled)")


def ipmi_text(bmc: Bmc) -> str:
    """The cipher suites of IPMI."""
    return f"suites {' '.join(map(str, bmc['cipher_suites']))}" if bmc["ipmi"] else "off"


def session_text(session: BmcSession | None) -> str:
    """Who was there last, and when."""
    if not session:
        return "-"
    return f"{session['user']} {session['protocol']} from {session['remote']} at {session['time']}"


@app.command("list")
def list_bmcs(context: typer.Context, name: str = NAME_ARGUMENT, as_json: bool = JSON_OPTION) -> None:
    """List the BMCs.

    The source of an address is the cluster file, or the guest that told it.
    """
    bmcs = session_of(context).api(name).bmcs()
    if as_json:
        print_json(bmcs)
    else:
        print_table(HEADER, [bmc_row(bmc) for bmc in bmcs])


@app.command("show")
def show(context: typer.Context, node: str = NODE, as_json: bool = JSON_OPTION) -> None:
    """Show the BMC of one server."""
    found = session_of(context).api().bmc(node)
    if as_json:
        print_json(found)
    else:
        print_table((f"BMC OF {found['node']}", ""), details(found))


def details(bmc: BmcState) -> list[tuple[str, str]]:
    """What `show` says, as names and values."""
    boot, watchdog = bmc["boot"], bmc["watchdog"]
    override = f"{boot['target']} {boot['enabled']}" + (f" ({boot['mode']})" if boot["mode"] else "")
    countdown = f"{watchdog['action']} in {watchdog['seconds_left']:g} s"
    rows = [
        (
            "address",
            f"{bmc['address']} ({'cluster file' if bmc['source'] == 'file' else 'guest'})" if bmc["address"] else "",
        ),
        ("unit", f"{bmc['unit']} {bmc['unit_state']}"),
        ("ipmi", ipmi_text(bmc)),
        ("users", "\n".join(f"{user_text(user)}  {user['role']}" for user in bmc["users"])),
        ("last session", session_text(bmc["last_session"])),
        ("power", bmc["power"]),
        ("restart cause", bmc["restart_cause"]),
        ("boot override", override if boot["enabled"] != "Disabled" else ""),
        ("watchdog", countdown if watchdog["running"] else ""),
        ("media", "\n".join(f"{item['slot']}  {item['image']}" for item in bmc["media"] if item["image"])),
        ("event log", f"{bmc['sel_entries']} {'entry' if bmc['sel_entries'] == 1 else 'entries'}"),
    ]
    return [(name, value or "-") for name, value in rows]


@app.command("sel")
def sel(context: typer.Context, node: str = NODE, clear: bool = CLEAR, as_json: bool = JSON_OPTION) -> None:
    """Show or empty the system event log of a server."""
    api = session_of(context).api()
    if clear:
        api.clear_sel(node)
        return
    entries = api.sel(node)
    if as_json:
        print_json(entries)
    else:
        rows = [(str(entry["id"]), entry["time"], entry["severity"], entry["message"]) for entry in entries]
        print_table(SEL_HEADER, rows)


@app.command("ca")
def authority(context: typer.Context, name: str = NAME_ARGUMENT, as_json: bool = JSON_OPTION) -> None:
    """Print the certificate of the CA that vouches for the BMCs (PEM), for clients to trust.

    Example: placemat-cli bmc ca > ca.pem; curl --cacert ca.pem https://172.16.1.2/redfish/v1
    """
    certificate = session_of(context).api(name).bmc_authority()
    if as_json:
        print_json({"certificate": certificate})
    else:
        typer.echo(certificate, nl=False)
