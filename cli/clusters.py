"""Which cluster a command is about: names, cluster files and settings, found where systemd's unit finds them."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from placematd.facts import Settings
from placematd.names import run_directory, service_unit

from . import environment_file
from .errors import BadUsage, Unreachable

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_GENERIC_STEMS = frozenset({"cluster", "cluster.example", "main", "placemat"})
"""File names that say nothing: the directory's name is the better name of the cluster."""
_OVERRIDES = (
    *("PLACEMAT_DATA_DIR", "PLACEMAT_CACHE_DIR", "PLACEMAT_LISTEN", "PLACEMAT_ACCELERATOR"),
    "PLACEMAT_BMC_IDLE_SECONDS",
)


@dataclass(frozen=True)
class Places:
    """Where clusters are configured and where they run; PLACEMAT_CONFIG_DIR and PLACEMAT_RUN_DIR move them."""

    config: Path = Path("/etc/placemat")
    run: Path = Path("/run/placemat")
    overrides: tuple[tuple[str, str], ...] = ()
    """Settings in the caller's environment, which hold for clusters that are given as files."""

    @staticmethod
    def from_environment(environ: Mapping[str, str]) -> "Places":
        """The places that the environment asks for."""
        default = Places()
        return Places(
            config=Path(environ.get("PLACEMAT_CONFIG_DIR", default.config)),
            run=Path(environ.get("PLACEMAT_RUN_DIR", default.run)),
            overrides=tuple((name, environ[name]) for name in _OVERRIDES if name in environ),
        )

    def socket(self, cluster: str) -> Path:
        """The API of a cluster's service."""
        run = environment_file.read(self.settings_files(cluster)[1]).get("PLACEMAT_RUN_DIR", self.run)
        return run_directory(Path(run), cluster) / "api.sock"

    def settings_files(self, cluster: str) -> tuple[Path, Path]:
        """The settings file of this run (written by `up`) and the permanent one, which wins."""
        instance = service_unit(cluster).removeprefix("placemat@").removesuffix(".service")
        return self.run / f"{instance}.conf", self.config / f"{instance}.conf"

    def settings(self, cluster: str) -> Settings:
        """The settings of a cluster as its unit gets them now."""
        return self._settings(cluster, environment_file.read(self.settings_files(cluster)[0]))

    def permanent_settings(self, cluster: str) -> Settings:
        """The same without what `up` wrote for this run."""
        return self._settings(cluster, {})

    def settings_for(self, cluster: str, files: Sequence[Path]) -> Settings:
        """The settings of a cluster that is given as files, whatever it runs from now."""
        return replace(self._settings(cluster, dict(self.overrides)), files=tuple(files))

    def _settings(self, cluster: str, this_run: Mapping[str, str]) -> Settings:
        permanent = self.settings_files(cluster)[1]
        environ = {**this_run, **environment_file.read(permanent)}
        try:
            return Settings.from_environment(cluster, environ)
        except ValueError as error:
            raise BadUsage(f"settings of cluster {cluster}: {error}") from error

    def files(self, cluster: str, settings: Settings) -> tuple[Path, ...]:
        """The files of a cluster: as set, NAME.yml, or NAME/*.yml; none if the cluster is not configured."""
        if settings.files:
            return settings.files
        single = self.config / f"{cluster}.yml"
        return (single,) if single.exists() else yaml_files(self.config / cluster)

    def configured(self) -> list[str]:
        """Names of the clusters that have a file, a directory of files or a settings file."""
        names = {path.stem for pattern in ("*.yml", "*.conf") for path in self.config.glob(pattern)}
        names |= {path.parent.name for path in self.config.glob("*/*.yml")}
        return sorted(names)

    def known(self) -> list[str]:
        """Names of the configured clusters, and of those that `up` was given as files."""
        given = {path.stem for path in self.run.glob("*.conf")}
        return sorted(given.union(self.configured()))

    def running(self) -> list[str]:
        """Names of the clusters that have an API socket."""
        return sorted(path.parent.name for path in self.run.glob("*/api.sock"))


@dataclass(frozen=True)
class Target:
    """A cluster to read: its name and its settings, which have at least one file, as an absolute path."""

    name: str
    settings: Settings

    @property
    def files(self) -> tuple[Path, ...]:
        """The cluster files."""
        return self.settings.files


def yaml_files(directory: Path) -> tuple[Path, ...]:
    """The cluster files of a directory."""
    return tuple(sorted(directory.glob("*.yml")))


def check_name(name: str) -> str:
    """`name` if a cluster can be called so. Raises BadUsage."""
    if not _NAME.fullmatch(name):
        raise BadUsage(f'"{name}" cannot be the name of a cluster (letters, digits, "_", "." and "-" only)')
    return name


def default_name(files: Sequence[Path]) -> str:
    """The name of a cluster that is given as files: the file's, or its directory's where that says more."""
    first = files[0]
    directory = first.parent.name
    name = first.stem if len(files) == 1 and first.stem not in _GENERIC_STEMS else directory or first.stem
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-._") or "cluster"


def find_target(arguments: Sequence[str], name: str, places: Places) -> Target:
    """The cluster that FILES... or NAME mean; no argument means `name` or the only cluster that is configured.

    A word with a slash or ending in .yml is a file or directory, any other word a name. Raises BadUsage.
    """
    paths = [Path(word) for word in arguments if _is_path(word, places)]
    if paths and len(paths) == len(arguments):
        return _from_files(paths, name, places)
    if paths or len(arguments) > 1:
        raise BadUsage(f"{' '.join(arguments)}: expected files or one name of a cluster, not both")
    return _from_name(check_name(arguments[0]) if arguments else name or _only(places.configured(), places), places)


def _is_path(word: str, places: Places) -> bool:
    if "/" in word or word.endswith((".yml", ".yaml")):
        return True
    return word not in places.configured() and Path(word).exists()


def _from_files(paths: Sequence[Path], name: str, places: Places) -> Target:
    files = [Path(os.path.normpath(file.absolute())) for path in paths for file in _expand(path)]
    if len(paths) == 1 and paths[0].is_dir():
        name = name or default_name([files[0], files[0]])
    target = check_name(name or default_name(files))
    return Target(target, places.settings_for(target, files))


def _expand(path: Path) -> tuple[Path, ...]:
    if not path.is_dir():
        return (path,)
    files = yaml_files(path)
    if not files:
        raise BadUsage(f"{path}: no *.yml in this directory")
    return files


def _from_name(name: str, places: Places) -> Target:
    permanent = places.permanent_settings(name)
    files = places.files(name, permanent)
    settings = permanent
    if name in places.running() or not files:
        settings = places.settings(name)
        files = places.files(name, settings)
    if not files:
        known = ", ".join(places.configured()) or "none"
        raise BadUsage(
            f"no cluster {name}: {places.config} has no {name}.yml, {name}/*.yml or {name}.conf (configured: {known})"
        )
    return Target(name, replace(settings, files=files))


def _only(names: Sequence[str], places: Places) -> str:
    if len(names) == 1:
        return names[0]
    if names:
        raise BadUsage(f"which cluster? {places.config} has {', '.join(names)}")
    raise BadUsage(f"which cluster? Name its files; {places.config} has none")


def find_running(name: str, places: Places) -> str:
    """`name`, or the only cluster that runs, or the only one that there could be.

    Raises BadUsage where there are several, Unreachable where there is none.
    """
    if name:
        return check_name(name)
    for names, verb in ((places.running(), "running"), (places.known(), "known")):
        if len(names) == 1:
            return names[0]
        if names:
            raise BadUsage(f"which cluster? {verb}: {', '.join(names)} (choose with --cluster NAME)")
    raise Unreachable("no cluster is running (start one: placemat-cli up FILE)")
