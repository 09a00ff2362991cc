"""The files that a cluster names: whether they are there and fit for what they are used for."""

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from ..credentials import PASSWORD_FILE_BYTES, password_in
from ..describe import resources
from ..errors import Mistake
from ..models import (
    App,
    BmcCertificate,
    BmcUser,
    Cluster,
    ClusterBmc,
    ClusterSettings,
    HostPathVolume,
    LocaldsVolume,
    NetworkNamespace,
    Node,
)
from .mistakes import At, inside

SYSTEMD_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where systemd looks for a program without a slash (systemd.exec(5))."""


def validate_files(cluster: Cluster) -> tuple[Mistake, ...]:
    """Files that are missing or of the wrong type. Reads the file system, changes nothing, never raises.

    What need not exist yet, or not on this machine, is a warning: the programs of apps.
    """
    mistakes: list[Mistake] = []
    for namespace in cluster.namespaces:
        mistakes += _namespace(namespace)
    for node in cluster.nodes:
        mistakes += _node(node)
    for image in cluster.images:
        mistakes += _regular(At(image), "file", image.file)
    for device_class in cluster.device_classes:
        mistakes += _directory_if_any(At(device_class), device_class.path)
    for resource in resources(cluster):
        for at, user in inside(resource, BmcUser):
            mistakes += _password(at, user)
    for settings in cluster.settings:
        mistakes += _bmc(settings)
    return tuple(mistakes)


def _namespace(namespace: NetworkNamespace) -> Iterator[Mistake]:
    for index, script in enumerate(namespace.init_scripts):
        yield from _executable(At(namespace), f"init_scripts.{index}", script)
    for at, app in inside(namespace, App):
        yield from _app(at, app)


def _app(at: At, app: App) -> Iterator[Mistake]:
    if app.command and not shutil.which(app.command[0], path=SYSTEMD_PATH):
        yield at.warning("command.0", f"command: no program {app.command[0]} on this machine")
    if app.working_directory and not app.working_directory.is_dir():
        yield at.error("working_directory", f"working-directory: {app.working_directory} is no directory")


def _node(node: Node) -> Iterator[Mistake]:
    yield from _regular(At(node), "ignition", node.ignition)
    for at, seed in inside(node, LocaldsVolume):
        yield from _regular(at, "user_data", seed.user_data)
        yield from _regular(at, "network_config", seed.network_config)
    for at, shared in inside(node, HostPathVolume):
        yield from _directory_if_any(at, shared.path)


def _bmc(settings: ClusterSettings) -> Iterator[Mistake]:
    for at, bmc in inside(settings, ClusterBmc):
        media = bmc.media_directory
        if media and at.readable("media_directory") and not _out_of_sight(media) and not media.is_dir():
            yield at.error("media_directory", f"media-directory: {media} is no directory")
    for at, certificate in inside(settings, BmcCertificate):
        yield from _regular(at, "certificate", certificate.certificate)
        yield from _secret(at, "key", certificate.key)


def _password(at: At, user: BmcUser) -> Iterator[Mistake]:
    """A password file; its content is never shown."""
    path = user.password_file
    yield from _secret(at, "password_file", path)
    if path and at.readable("password_file") and os.access(path, os.R_OK) and path.is_file():
        try:
            with path.open("rb") as file:
                password_in(file.read(PASSWORD_FILE_BYTES))
        except ValueError as error:
            yield at.error("password_file", f"password-file: {path}: {error}")


def _secret(at: At, field_name: str, path: Path | None) -> Iterator[Mistake]:
    """A file that root reads and others had better not; whoever is not root cannot tell much about it."""
    if not path or not at.readable(field_name):
        return
    reason = _why_not(path, os.R_OK if os.geteuid() == 0 else os.F_OK)
    key = field_name.replace("_", "-")
    if reason and not _out_of_sight(path):
        yield at.error(field_name, f"{key}: {path}: {reason}")
    elif not reason and path.stat().st_mode & stat.S_IROTH:
        yield at.warning(field_name, f"{key}: {path} can be read by everybody", f"chmod 600 {path}")


def _out_of_sight(path: Path) -> bool:
    """Whether it stands in a directory that we may not enter."""
    try:
        path.stat()
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def _regular(at: At, field_name: str, path: Path | None) -> Iterator[Mistake]:
    if path and at.readable(field_name):
        reason = _why_not(path, os.R_OK)
        if reason:
            yield at.error(field_name, f"{field_name.replace('_', '-')}: {path}: {reason}")


def _executable(at: At, field_name: str, path: Path) -> Iterator[Mistake]:
    reason = _why_not(path, os.X_OK)
    if reason:
        hint = f"chmod +x {path}" if reason == "not executable" else ""
        yield at.error(field_name, f"init-scripts: {path}: {reason}", hint)


def _why_not(path: Path, mode: int) -> str:
    """Why a file cannot be used, "" if it can."""
    if not os.path.exists(path):  # noqa: PTH110 (Path.exists raises where a directory may not be entered)
        return "no such file"
    if not path.is_file():
        return "not a regular file"
    if not os.access(path, mode):
        return "not executable" if mode == os.X_OK else "not readable"
    return ""


def _directory_if_any(at: At, path: Path) -> Iterator[Mistake]:
    """A directory that is made if it is missing."""
    if at.readable("path") and path.exists() and not path.is_dir():
        yield at.error("path", f"path: {path} is no directory")
