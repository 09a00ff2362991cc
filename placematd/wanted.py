"""What the files of a cluster ask for, decided for this host: the left half of the arrow, for the service."""

from dataclasses import dataclass
from pathlib import Path

from .errors import Mistake, PlacematError
from .facts import Host, Settings
from .host import missing_tools, observe_host
from .models import Cluster
from .plan import Plan
from .reading import read


@dataclass(frozen=True)
class Wanted:
    """A cluster as it is written, the facts of the host, and the plan that follows from both."""

    cluster: Cluster
    warnings: tuple[Mistake, ...]
    host: Host
    plan: Plan


def cluster_files(settings: Settings) -> tuple[Path, ...]:
    """The cluster's files: from the settings, or /etc/placemat/NAME.yml, or /etc/placemat/NAME/*.yml."""
    if settings.files:
        return settings.files
    single = Path("/etc/placemat") / f"{settings.cluster}.yml"
    several = tuple(sorted((Path("/etc/placemat") / settings.cluster).glob("*.yml")))
    return several if several and not single.exists() else (single,)


def read_cluster(settings: Settings) -> tuple[Cluster, tuple[Mistake, ...], Host]:
    """Read the files, and look at the host.

    Raises InvalidCluster with all mistakes, and PlacematError that names all programs that are missing.
    """
    bridges = observe_host(settings, Cluster(name=settings.cluster)).bridges
    cluster, warnings = read(cluster_files(settings), settings.cluster, bridges=bridges, run_dir=settings.run_dir)
    if missing := missing_tools(cluster):
        raise PlacematError("\n".join(map(str, missing)))
    return cluster, warnings, observe_host(settings, cluster)
