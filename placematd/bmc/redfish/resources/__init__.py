"""The resources of the machine: systems, chassis, managers and what belongs to them."""

from collections.abc import Sequence

from ..resource import Resource
from . import bios, chassis, ethernet, logs, managers, media, processors, secure_boot, storage, systems, update


def routes() -> Sequence[Resource]:
    """All resources of this package, for the core's router."""
    parts = (systems, processors, ethernet, storage, bios, secure_boot, media, logs, chassis, managers, update)
    return [resource for part in parts for resource in part.routes()]
