"""The units that carry a node's serial console to the journal.

QEMU writes the console to a FIFO as well. A socket unit holds the FIFO open, so nothing is lost or blocked while nobody
reads, and starts a filter with the first byte. Neither needs placematd.
"""

from ..facts import QEMU_USER, Settings
from ..models import Cluster, Node
from ..names import console_unit, node_paths, slice_unit
from ..resources import UnitResource
from ..unit import Unit, command
from .confinement import hidden, unprivileged

PLAIN_TEXT = (
    r"s#\x1b\[[0-9\x3b]*[Hf]#\n#g",  # the cursor goes to another place: another line
    r"s#\x1b\[[0-?]*[ -/]*[@-~]##g",  # other control sequences: colours, erasing (ECMA-48 5.4)
    r"s#\x1b[]PX^_][^\x07\x1b]*(\x07|\x1b\\)?##g",  # control strings: window titles
    r"s#\x1b[ -/]*[0-~]?##g",  # other escape sequences
    r"s#[ \t\r\x08]+\'##",  # \' is the end
    r"s#[\r\x08]( *[\r\x08])*#\n#g",  # a line that is overwritten becomes several
    r"s#[\x00-\x08\x0b-\x1f\x7f]##g",
)
"""Expressions of sed(1) (-E, in the C locale) that turn what a terminal understands into lines of a log.

Without dollar signs and semicolons: see `apps.FRAGILE`.
"""


def console_unit_of(cluster: Cluster, node: Node, settings: Settings) -> UnitResource:
    """The socket unit of a node's console with its service."""
    log = node_paths(settings.run_dir, cluster.name, node.name).log
    socket = Unit(
        console_unit(cluster.name, node.name, "socket"),
        (
            ("Description", f"Console log of node {node.name} of cluster {cluster.name}"),
            ("Slice", slice_unit(cluster.name)),
            ("Listen", (("FIFO", str(log)),)),
            ("SocketUser", QEMU_USER),
            ("SocketMode", 0o600),
            ("RemoveOnStop", True),
        ),
        (_filter(cluster, node, settings),),
    )
    return UnitResource(
        name=socket.name,
        owner=f"Node {node.name}",
        what="console",
        unit=socket,
        journal_fields=journal_fields(cluster, node),
    )


def _filter(cluster: Cluster, node: Node, settings: Settings) -> Unit:
    expressions = (f"--expression={expression}" for expression in PLAIN_TEXT)
    return Unit(
        console_unit(cluster.name, node.name),
        (
            ("Description", f"Console of node {node.name} of cluster {cluster.name}"),
            ("Type", "exec"),
            ("ExecStart", (command("/usr/bin/sed", "--unbuffered", "--regexp-extended", *expressions),)),
            ("Environment", ("LC_ALL=C",)),
            ("StandardInput", "socket"),
            ("StartLimitIntervalUSec", 0),  # a node that is restarted often starts it as often
            ("SyslogIdentifier", node.name),
            ("LogRateLimitIntervalUSec", 0),
            ("PrivateDevices", True),
            ("PrivateNetwork", True),
            hidden(settings),
            *unprivileged(cluster.name),
        ),
    )


def journal_fields(cluster: Cluster, node: Node) -> tuple[tuple[str, str], ...]:
    """The fields by which journalctl(1) finds all that a node's units say."""
    return (("PLACEMAT_CLUSTER", cluster.name), ("PLACEMAT_NODE", node.name))
