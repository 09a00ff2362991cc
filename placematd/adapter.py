"""What every adapter to the host can do: the small face that `apply` sees of systemd, netlink, nftables and files."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from .names import OwnerMark
from .resources import Kind, Resource

R_contra = TypeVar("R_contra", bound=Resource, contravariant=True)


class Adapter(Protocol[R_contra]):
    """One kind of resource on the host. All calls block and are made from a worker thread."""

    kind: Kind

    def observe(self, cluster: str) -> Sequence[OwnerMark]:
        """The marks of all that exists of this kind and belongs to the cluster."""
        ...

    def create(self, resource: R_contra, cluster: str) -> None:
        """Make it, with its mark.

        Raises NotOurs where something without our mark is in the way, StepError where the system refuses; what was made
        until then is undone.
        """
        ...

    def remove(self, mark: OwnerMark) -> None:
        """Take it away; that it is gone already is no error. Raises StepError where the system refuses."""
        ...
