"""The system event log of a node: bounded, durable, and told to those who listen.

When it is full, the oldest entries make room for new ones, and one entry says that this has begun: of a node that is
watched, the latest events matter most. (IPMI leaves the choice; many BMCs refuse new events instead.)
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal, cast, get_args

from ..bmc import sensors
from ..bmc.machine import SelEntry
from ..bmc.sensors import Sensor, event
from ..errors import PlacematError
from .store import EVENT_SIZES, Store

Severity = Literal["OK", "Warning", "Critical"]

ENTRIES = 1024
"""The file is written anew with each entry, so this bounds what one costs: about 150 kB."""

LAST_RECORD_ID = 0xFFFE
"""0 and FFFFh mean first and last (IPMI 2.0 section 31.5)."""

MESSAGE_CHARACTERS = 256


class EventLog:
    """The log in a node's store; `tell` is called with the record id of each new entry."""

    def __init__(self, store: Store, tell: Callable[[int], None]) -> None:
        self._store, self._tell = store, tell

    def note(self, sensor: Sensor, offset: int, message: str, severity: Severity = "OK", **data: int) -> int:
        """Append an event of our own; `data` are data2 and data3 of `sensors.event`."""
        return self._append(event(sensor, offset, **data), message, severity)

    def add(self, data: bytes, message: str, severity: str) -> int:
        """Append an event from outside; returns its record id. Raises PlacematError on what is none."""
        if len(data) not in EVENT_SIZES:
            raise PlacematError(f"an event of {len(data)} bytes: expected {' or '.join(map(str, EVENT_SIZES))}")
        if severity not in get_args(Severity):
            raise PlacematError(f"severity {severity[:40]!r}: expected one of {', '.join(get_args(Severity))}")
        return self._append(data, message, cast(Severity, severity))

    def clear(self) -> None:
        """Empty the log, but for the entry that says so."""
        self._store.change(sel=(), sel_last=0, sel_full=False)
        self.note(sensors.SEL, sensors.SEL_CLEARED, "The system event log was cleared")

    def _append(self, data: bytes, message: str, severity: Severity) -> int:
        state = self._store.state
        if len(state.sel) >= ENTRIES and not state.sel_full:
            self._store.change(sel_full=True)
            note = "The system event log is full; its oldest entries are dropped from now on"
            self.note(sensors.SEL, sensors.SEL_FULL, note, "Warning")
            state = self._store.state
        entry = SelEntry(
            record_id=state.sel_last % LAST_RECORD_ID + 1,
            time=datetime.now(UTC),
            data=data,
            message=message[:MESSAGE_CHARACTERS],
            severity=severity,
        )
        self._store.change(sel=(*state.sel, entry)[-ENTRIES:], sel_last=entry.record_id)
        self._tell(entry.record_id)
        return entry.record_id
