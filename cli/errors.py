"""What can go wrong in the CLI beyond `placematd.errors`, and the exit status of each error."""

from collections.abc import Sequence

from placematd.errors import InvalidCluster, NotFound, PlacematError, WrongState


class BadUsage(PlacematError):
    """The command line asks for something that does not fit; nothing was done."""


class Unreachable(PlacematError):
    """The cluster is not running, or its service does not answer."""


class Refused(PlacematError):
    """The service answered with an error; the text is the service's own."""


class CommandFailed(PlacematError):
    """A command did not do what it was asked to; the text says what the host answered."""


# The first match counts.
EXIT_STATUSES: Sequence[tuple[type[PlacematError], int]] = (
    (InvalidCluster, 2),
    (BadUsage, 2),
    (Unreachable, 3),
    (NotFound, 4),
    (WrongState, 1),
    (PlacematError, 1),
)

EXIT_STATUS_HELP = (
    "Exit status: 0 done; 1 failed at run time; 2 bad input or usage; 3 the cluster is not running, or its service "
    "does not answer; 4 no such node, namespace or app; 130 Ctrl-C."
)


def exit_status(error: PlacematError) -> int:
    """The exit status that an error ends the command with."""
    return next(status for kind, status in EXIT_STATUSES if isinstance(error, kind))
