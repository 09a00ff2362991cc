"""The adapter for transient units: what `apply` sees of systemd."""

from contextlib import suppress
from dataclasses import replace
from threading import Event

from .errors import NotOurs, StepError
from .names import OwnerMark, escape
from .resources import Kind, UnitResource
from .systemd import JOB_SECONDS, Systemd, same_owner
from .unit import Unit

MARGIN_SECONDS = 30.0


class Units:
    """The adapter for transient units."""

    kind: Kind = "unit"

    def __init__(self, systemd: Systemd, cancelled: Event | None = None) -> None:
        self._systemd, self._cancelled = systemd, cancelled

    def observe(self, cluster: str) -> list[OwnerMark]:
        """The marks of the plan's loaded units, failed ones too; port forwards are none of the plan.

        The digest is empty where a main unit is gone and its auxiliary is left: that is no longer what was made.
        """
        states = self._systemd.unit_states(f"placemat-{escape(cluster)}-*")
        marked = [(state.name, state.mark) for state in states if state.mark]
        ours = [(name, mark) for name, mark in marked if (mark.cluster, mark.kind) == (cluster, self.kind)]
        whole = {mark.name: mark for name, mark in ours if name == mark.name}
        parts = {mark.name: replace(mark, digest="") for _, mark in ours}
        return list((parts | whole).values())

    def create(self, resource: UnitResource, cluster: str) -> None:
        """Start the unit; one that fails is stopped and forgotten."""
        mark = resource.mark(cluster)
        try:
            self._systemd.start(
                resource.unit,
                mark,
                resource.journal_fields,
                timeout_seconds=_start_seconds(resource.unit),
                cancelled=self._cancelled,
            )
        except NotOurs:
            raise
        except StepError:
            with suppress(StepError):  # the first error tells more
                self.remove(mark)
            raise

    def remove(self, mark: OwnerMark) -> None:
        """Stop the unit, then its auxiliaries (same name, other suffix), and wait until systemd has forgotten them."""
        states = self._systemd.unit_states(mark.name.rpartition(".")[0] + ".*")
        names = sorted((s.name for s in states if same_owner(s.mark, mark)), key=lambda name: name != mark.name)
        for name in names:
            self._systemd.stop(name)
        for name in names:
            self._systemd.reset_failed(name)
            self._systemd.wait_unloaded(name)


def _start_seconds(unit: Unit) -> float:
    """How long to wait for a unit's start: longer than systemd itself, whose answer says why it took too long."""
    limit = unit.get("TimeoutStartUSec")
    return max(JOB_SECONDS, limit / 1e6 + MARGIN_SECONDS) if isinstance(limit, int) else JOB_SECONDS
