"""Reading as one step: cluster files to a valid Cluster, or everything that is wrong with them."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from .errors import NOWHERE, InvalidCluster, Mistake
from .load import load
from .models import Cluster
from .validate import validate, validate_files


def read(
    files: Sequence[Path],
    name: str,
    bridges: frozenset[str] = frozenset(),
    run_dir: Path = Path("/run/placemat"),
    *,
    check_files: bool = True,
) -> tuple[Cluster, tuple[Mistake, ...]]:
    """The cluster and its warnings, in file order. Raises InvalidCluster with all mistakes and warnings together.

    `bridges` are bridges of the host that interfaces may name. `check_files` False leaves out whether the files that
    the cluster names exist, for a cluster that will run on another machine.
    """
    if not files:
        raise InvalidCluster([Mistake(NOWHERE, "", "no cluster file to read")])
    loaded = load(files, name)
    mistakes = [*loaded.mistakes]
    mistakes += validate(loaded.cluster, bridges=bridges, run_dir=run_dir, complete=loaded.complete)
    mistakes += validate_files(loaded.cluster) if check_files else ()
    ordered = in_file_order(mistakes, files)
    if any(mistake.severity == "error" for mistake in ordered):
        raise InvalidCluster(ordered)
    return loaded.cluster, ordered


def in_file_order(mistakes: Iterable[Mistake], files: Sequence[Path]) -> tuple[Mistake, ...]:
    """Mistakes sorted as their places stand in the files, each once."""
    position = {str(file): index for index, file in enumerate(files)}
    return tuple(sorted(dict.fromkeys(mistakes), key=lambda mistake: (position.get(mistake.mark.file, -1), mistake)))
