"""What makes a cluster that could be read impossible or doubtful: pure checks, from records to mistakes.

`validate` never raises and never edits. It looks at the cluster alone; `validate_files` looks at the files it names.
"""

from itertools import chain
from pathlib import Path

from ..errors import Mistake
from ..models import Cluster
from . import addresses, bmc, machines, namespaces, references, rules
from .files import validate_files

__all__ = ["validate", "validate_files"]


def validate(
    cluster: Cluster,
    *,
    bridges: frozenset[str] = frozenset(),
    run_dir: Path = Path("/run/placemat"),
    complete: bool = True,
) -> tuple[Mistake, ...]:
    """All mistakes and warnings, in no particular order.

    `bridges` are bridges of the host that interfaces may name besides the cluster's networks. With `complete` False
    (documents could not be read) names that nothing has are not reported: what has them may be in there.
    """
    return tuple(
        chain(
            rules.check(cluster),
            rules.check_names(cluster, run_dir),
            references.check_duplicates(cluster),
            references.check_references(cluster, bridges) if complete else (),
            addresses.check(cluster),
            namespaces.check(cluster),
            machines.check(cluster),
            bmc.check(cluster, complete),
        )
    )
