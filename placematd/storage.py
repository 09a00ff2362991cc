"""The volumes of a running cluster, for the service and its API: made, compared with the cluster file, reset.

A volume whose inputs changed is kept and reported: in the journal when the cluster starts or is reloaded, and in its
status as long as it is so. Where a node could not run with it, what would start the node is refused.
"""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .adapter import Adapter
from .facts import Settings
from .plan import Plan
from .reconcile import Changes
from .resources import UnitResource, VolumeFile
from .status import Json
from .volume import VolumeInfo, list_volumes, reset_volume

KEPT_FORMS = frozenset({"copy", "cow", "raw"})
"""Disks that hold what a guest wrote. A seed is made anew instead, and UEFI variables are the guest's alone."""


class Storage:
    """The volumes of one cluster; everything here blocks."""

    def __init__(self, settings: Settings, volumes: Adapter[Any]) -> None:
        self._data_dir, self._cluster, self._volumes = settings.data_dir, settings.cluster, volumes

    def listed(self, plan: Plan) -> list[Json]:
        """All volumes as JSON, those of removed nodes too. Raises StepError."""
        return [volume_json(volume) for volume in self._list(plan)]

    def warnings(self, plan: Plan) -> list[str]:
        """A line for each disk that is not what the plan would make. Raises StepError."""
        planned = {volume.name for volume in volumes_of(plan) if volume.form in KEPT_FORMS}
        changed = [volume for volume in self._list(plan) if volume.changes and volume.exists]
        return [changed_warning(volume) for volume in changed if f"{volume.node}/{volume.name}" in planned]

    def make(self, volumes: Iterable[VolumeFile]) -> None:
        """Make what is missing. Raises StepError where a disk cannot be made or used."""
        for volume in volumes:
            self._volumes.create(volume, self._cluster)

    def reset(self, plan: Plan, node: str, name: str) -> Json:
        """Delete a volume, and make it anew where the plan has it; returns what it was.

        Raises NotFound, WrongState, StepError.
        """
        volume = reset_volume(self._data_dir, self._cluster, node, name)
        self.make(planned for planned in volumes_of(plan) if planned.name == f"{node}/{name}")
        return volume_json(volume)

    def _list(self, plan: Plan) -> list[VolumeInfo]:
        return list_volumes(self._data_dir, self._cluster, volumes_of(plan))


def volumes_of(plan: Plan, owner: str = "") -> list[VolumeFile]:
    """The volumes of a plan, or of one owner ("Node worker-1") in it."""
    volumes = [resource for resource in plan.resources if isinstance(resource, VolumeFile)]
    return [volume for volume in volumes if owner in ("", volume.owner)]


def kept_for_starting(changes: Changes) -> list[VolumeFile]:
    """The volumes that have changed and stay, of those nodes that the changes start."""
    starting = {step.resource.owner for step in changes.create if isinstance(step.resource, UnitResource)}
    kept = [step.resource for step in changes.keep if isinstance(step.resource, VolumeFile)]
    return [volume for volume in kept if volume.owner in starting]


def volume_json(volume: VolumeInfo) -> Json:
    """A volume for the API."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(volume).items()}


def changed_warning(volume: VolumeInfo) -> str:
    """What people are told of a disk whose inputs have changed."""
    danger = "; its guest may read damaged data" if volume.form == "cow" and "image content" in volume.changes else ""
    reset = f"placemat-cli volume reset {volume.node} {volume.name}"
    changed = f"volume {volume.node}/{volume.name}: changed since it was made ({volume.changes}){danger}"
    return f"{changed}; it is kept because it holds data ({reset} makes it anew)"
