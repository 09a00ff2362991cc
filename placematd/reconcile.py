"""Plan and host compared: what to remove, what to create, and why.

Pure: `observed` are the marks that the adapters found. What carries no mark is not in it, so it is never touched.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from .names import OwnerMark, unit_part
from .plan import Plan
from .resources import Key, Kind, Resource, VolumeFile, key_of

UPDATED_IN_PLACE: frozenset[Kind] = frozenset({"sysctl", "bridge", "firewall", "passage", "image"})
"""Kinds whose adapter's `create` makes an older one of ours what it should be; others are removed first."""

KEPT: frozenset[Kind] = frozenset({"image", "volume"})
"""What outlives the cluster and is never removed."""

REMOVED: tuple[Kind, ...] = ("unit", "tap", "netns", "passage", "firewall", "bridge", "sysctl")
"""The order in which kinds are removed: users before what they use."""

UNITS_REMOVED = ("bmc", "node", "app", "init", "tpm", "console")
"""The same for units, by the part of their name."""

Action = Literal["create", "update", "replace", "remove", "keep"]


@dataclass(frozen=True)
class Change:
    """One step: the resource to create (None where it is only removed), and the reason in words.

    A replacement is two changes, one in `Changes.remove` and one in `Changes.create`.
    """

    key: Key
    resource: Resource | None
    reason: str
    action: Action = "create"


@dataclass(frozen=True)
class Changes:
    """All steps: first `remove`, then `create`, each in order; `keep` is what differs and yet stays (volumes)."""

    remove: tuple[Change, ...] = ()
    create: tuple[Change, ...] = ()
    keep: tuple[Change, ...] = ()

    def of(self, keys: Callable[[Key], bool]) -> "Changes":
        """Those changes that concern `keys`."""
        parts = (tuple(change for change in part if keys(change.key)) for part in (self.remove, self.create, self.keep))
        return Changes(*parts)


def compare(
    plan: Plan,
    observed: Iterable[OwnerMark],
    *,
    adopt: bool = False,
    off: Collection[str] = (),
    gone: str = "no longer in the cluster file",
) -> Changes:
    """What makes the host equal to the plan; `gone` is why something that is not in the plan is removed.

    `off` are units of nodes that somebody powered off: what changed there counts when they are powered on, so that a
    reload starts nothing.

    With `adopt`, what runs is left as it is even where its digest differs, and reported in `keep`: so a new version of
    placemat, or a host with another uplink, does not restart guests. What is missing or no longer wanted changes
    anyway.
    """
    marks = {key_of(mark): mark for mark in observed if mark.cluster == plan.cluster}
    steps = _steps(plan, marks, adopt, off)
    return Changes(
        remove=_removals(plan, marks, steps, gone),
        create=tuple(step for step in steps if step.action != "keep"),
        keep=tuple(step for step in steps if step.action == "keep"),
    )


def _steps(plan: Plan, marks: Mapping[Key, OwnerMark], adopt: bool, off: Collection[str]) -> list[Change]:
    """What happens to each resource of the plan that is not as it should be, in the plan's order.

    That order has what a resource needs before it, so one pass finds all that must be made anew with it.
    """
    steps: list[Change] = []
    anew: set[Key] = set()
    for resource in plan.resources:
        needed = next((need for need in resource.needs if need in anew), None)
        step = _step(resource, marks, needed, adopt)
        if step and step.action == "replace" and resource.name in off:
            step = Change(step.key, resource, f"{step.reason}; it is off, and starts with what is new", "keep")
        if step:
            steps.append(step)
            if step.action in ("create", "replace"):
                anew.add(resource.key)
    return steps


def _step(resource: Resource, marks: Mapping[Key, OwnerMark], needed: Key | None, adopt: bool) -> Change | None:
    """What happens to one resource; `needed` is something it stands on that is made anew."""
    key = resource.key
    mark = marks.get(key)
    if mark is None:
        return Change(key, resource, "missing", "create")
    if needed:
        return Change(key, resource, f"{needed} is made anew", "replace")
    if mark.digest == resource.digest:
        return None
    if isinstance(resource, VolumeFile):
        return _changed_volume(resource)
    if adopt:
        return Change(key, resource, "changed, and left as it is until the next reload", "keep")
    return Change(key, resource, "changed", "update" if key.kind in UPDATED_IN_PLACE else "replace")


def _changed_volume(volume: VolumeFile) -> Change:
    """A volume holds what a guest wrote, so it is reported and left; a shared directory or seed holds none of that."""
    if volume.form in ("directory", "seed"):
        return Change(volume.key, volume, "changed", "update")
    hint = f"placemat-cli volume reset {volume.name.replace('/', ' ', 1)}"
    return Change(volume.key, volume, f"changed, and kept because it holds data ({hint} makes it anew)", "keep")


def _removals(plan: Plan, marks: Mapping[Key, OwnerMark], steps: list[Change], reason: str) -> tuple[Change, ...]:
    """What is replaced, and what carries our mark and is no longer in the plan; users before what they use."""
    position = {resource.key: index for index, resource in enumerate(plan.resources)}
    gone = [key for key in marks if key not in position and key.kind not in KEPT]
    removals = [Change(key, None, reason, "remove") for key in gone]
    removals += [Change(step.key, None, step.reason, "replace") for step in steps if step.action == "replace"]
    removals.sort(key=lambda change: (*_rank(change.key), -position.get(change.key, len(position)), change.key.name))
    return tuple(removals)


def _rank(key: Key) -> tuple[int, int]:
    """The place of a kind in the order of removal; among units, nodes end before the apps that serve them."""
    part = unit_part(key.name) if key.kind == "unit" else ""
    units = UNITS_REMOVED.index(part) if part in UNITS_REMOVED else len(UNITS_REMOVED)
    return REMOVED.index(key.kind), units
