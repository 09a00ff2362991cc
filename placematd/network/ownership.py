"""Whose a link is: the checks before anything is changed or deleted."""

from ..errors import NotOurs
from ..names import OwnerMark
from .netlink import Link

UNFINISHED = "0" * 12
"""Digest in the mark of a thing that is being made: after a crash it is ours, and never looks up to date."""


def unfinished(mark: OwnerMark) -> OwnerMark:
    """The mark to put on first, replaced by the real one when all is done."""
    return OwnerMark(mark.cluster, mark.kind, mark.name, UNFINISHED)


def same_owner(found: OwnerMark | None, mark: OwnerMark) -> bool:
    """Whether both marks belong to one resource, of whatever digest."""
    return found is not None and (found.cluster, found.kind, found.name) == (mark.cluster, mark.kind, mark.name)


def owner_of(found: OwnerMark | None) -> str:
    """Whose it is, in words."""
    if found is None:
        return "placemat did not make it"
    return f"it is {found.kind} {found.name} of placemat cluster {found.cluster}"


def not_ours(mark: OwnerMark, what: str, found: OwnerMark | None, hint: str) -> NotOurs:
    """`what` ("a link of this name") is in the way of what `mark` stands for."""
    return NotOurs(f"create {mark.kind} {mark.name}", f"{what} exists and {owner_of(found)}", hint)


def check_link(link: Link | None, mark: OwnerMark) -> None:
    """Raise NotOurs where the link that is there is not the one that `mark` stands for."""
    if link is not None and not same_owner(link.mark, mark):
        raise not_ours(mark, f"a link named {link.name}", link.mark, _link_hint(link, mark))


def _link_hint(link: Link, mark: OwnerMark) -> str:
    if link.mark and link.mark.cluster != mark.cluster:
        return f"rename it here, or stop the other: systemctl stop placemat@{link.mark.cluster}"
    return f"choose another name, or remove it: ip link delete {link.name}"
