"""What the Redfish service remembers, in the machine's section "redfish"."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from ..machine import Json, Machine

SECTION = "redfish"


@dataclass(frozen=True, kw_only=True)
class Values:
    """The settings; whatever people may change through Redfish and no other part of the BMC knows."""

    session_timeout_seconds: int = 1800
    lockout_threshold: int = 5
    """Failed logins until an account is locked; 0 for never."""
    lockout_duration_seconds: int = 30
    lockout_reset_seconds: int = 30
    """Time without a failure after which failures are forgotten."""
    delivery_attempts: int = 3
    delivery_interval_seconds: int = 10
    password_change_required: Sequence[int] = ()
    """Slots of accounts that may do nothing but change their password."""
    subscriptions: Sequence[Json] = ()
    """Event subscriptions, as `events.Subscription.stored`."""


class Settings:
    """The values, kept durably; of what was stored, a value of the wrong type counts as never set."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.values = Values()
        self._changing = asyncio.Lock()

    async def load(self) -> None:
        """Read what was saved; to be called once before use."""
        stored = await self._machine.load(SECTION)
        default = asdict(self.values)
        known = {name: _plain(stored[name]) for name in default if name in stored}
        self.values = Values(**{k: v for k, v in known.items() if type(v) is type(_plain(default[k]))})

    async def change(self, **changes: Any) -> None:
        """Change some values; they count, and are durable, when this returns."""
        await self.update(lambda values: replace(values, **changes))

    async def update(self, changed: Callable[[Values], Values]) -> None:
        """Change values that hang on what they are now: nobody else changes them in between."""
        async with self._changing:
            values = changed(self.values)
            if values != self.values:
                await self._machine.save(SECTION, {field.name: _stored(values, field.name) for field in fields(values)})
                self.values = values


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else value


def _stored(values: Values, name: str) -> Any:
    value = getattr(values, name)
    return list(value) if isinstance(value, tuple) else value
