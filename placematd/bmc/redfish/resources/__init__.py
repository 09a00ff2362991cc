"""The resources of the machine: systems, chassis, managers and what belongs to them."""

from collections.abc import Sequence

from ..resource import Resource


def routes() -> Sequence[Resource]:
    """All resources of this package, for the core's router."""
    return []
