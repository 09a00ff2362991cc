"""Application commands about the BMC itself (IPMI 2.0 chapters 20 and 22)."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from .... import __version__
from ...machine import Machine
from ..channel import guid_bytes
from ..request import Code, CommandError, Privilege, Reply, Request
from .settings import Settings
from .table import ADMINISTRATOR, ANYBODY, APP, NOTHING, USER, Row, between, require

DEVICE_ID = 0x20
DEVICE_REVISION = 0x01
PROVIDES_DEVICE_SDRS = 0x80
IPMI_VERSION = 0x02
"""2.0, in BCD with the nibbles swapped (IPMI 2.0 table 20-2)."""
DEVICE_SUPPORT = 0x8F
"""Chassis, FRU inventory, SEL, SDR repository and sensor device; no IPMB, no bridge."""
SELF_TEST_PASSED = bytes((0x55, 0x00))

S0, SOFT_OFF, SET_STATE = 0x00, 0x05, 0x80
"""ACPI system power states (IPMI 2.0 table 20-6)."""
D0 = 0x00

RECEIVE_INTERRUPT, EVENT_LOGGING = 0x01, 0x08
"""Bits of the BMC global enables (IPMI 2.0 table 22-2)."""

NO_MESSAGE = 0x80
"""Completion code of Get Message and Read Event Message Buffer: data not available."""

KCS = 0x01
KCS_INPUT_BYTES = 0xFF

OnReset = Callable[[bool], Awaitable[None]]
"""Ends sessions and whatever else a reset ends; told whether the reset is a cold one."""


def bcd(value: int) -> int:
    """A number below 100 in BCD."""
    return value // 10 << 4 | value % 10


def device_id() -> bytes:
    """The answer to Get Device ID (table 20-2), with our version as that of the firmware."""
    major, minor = (int(part) for part in __version__.split(".")[:2])
    manufacturer, product, auxiliary = bytes(3), bytes(2), bytes(4)
    head = (DEVICE_ID, PROVIDES_DEVICE_SDRS | DEVICE_REVISION, major & 0x7F, bcd(minor % 100), IPMI_VERSION)
    return bytes((*head, DEVICE_SUPPORT)) + manufacturer + product + auxiliary


class App:
    """Device id, GUIDs, self test, resets, power state, enables and message flags."""

    def __init__(self, machine: Machine, settings: Settings, on_reset: OnReset | None) -> None:
        self._machine, self._settings, self._on_reset = machine, settings, on_reset

    def rows(self) -> Sequence[Row]:
        """Commands that say what the BMC is, and those of the system interface."""
        return (
            Row(APP, 0x01, USER, NOTHING, self.get_device_id),
            Row(APP, 0x02, ADMINISTRATOR, NOTHING, self.cold_reset),
            Row(APP, 0x03, ADMINISTRATOR, NOTHING, self.warm_reset),
            Row(APP, 0x04, USER, NOTHING, self.get_self_test),
            Row(APP, 0x06, ADMINISTRATOR, (2,), self.set_acpi_state),
            Row(APP, 0x07, USER, NOTHING, self.get_acpi_state),
            Row(APP, 0x08, USER, NOTHING, self.get_guid),
            Row(APP, 0x37, ANYBODY, NOTHING, self.get_guid),
            Row(APP, 0x2E, Privilege.NONE, (1,), self.set_enables, local=True),
            Row(APP, 0x2F, USER, NOTHING, self.get_enables),
            Row(APP, 0x30, Privilege.NONE, (1,), self.clear_flags, local=True),
            Row(APP, 0x31, Privilege.NONE, NOTHING, self.get_flags, local=True),
            Row(APP, 0x33, Privilege.NONE, NOTHING, self.no_message, local=True),
            Row(APP, 0x35, Privilege.NONE, NOTHING, self.no_message, local=True),
            Row(APP, 0x57, USER, between(1, 2), self.get_interface),
        )

    async def get_device_id(self, request: Request) -> Reply:
        """Section 20.1."""
        return Reply(data=device_id())

    async def cold_reset(self, request: Request) -> Reply:
        """Section 20.2; the BMC starts anew once it has answered."""
        return self._reset(True)

    async def warm_reset(self, request: Request) -> Reply:
        """Section 20.3."""
        return self._reset(False)

    def _reset(self, cold: bool) -> Reply:
        if self._on_reset is None:
            raise CommandError(Code.NOT_IN_PRESENT_STATE)
        return Reply(after=partial(self._on_reset, cold))

    async def get_self_test(self, request: Request) -> Reply:
        """Section 20.4."""
        return Reply(data=SELF_TEST_PASSED)

    async def set_acpi_state(self, request: Request) -> Reply:
        """Section 20.6. The state is what it is: only what is true already (or no change) can be set."""
        system, device = request.data
        is_on = await self._machine.power_state() != "Off"
        require(not system & SET_STATE or system & 0x7F == (S0 if is_on else SOFT_OFF))
        require(not device & SET_STATE or device & 0x7F == D0)
        return Reply()

    async def get_acpi_state(self, request: Request) -> Reply:
        """Section 20.7."""
        off = await self._machine.power_state() == "Off"
        return Reply(data=bytes((SOFT_OFF if off else S0, D0)))

    async def get_guid(self, request: Request) -> Reply:
        """Sections 20.8 and 22.14: the BMC and its system share the UUID that SMBIOS shows."""
        return Reply(data=guid_bytes((await self._machine.inventory()).uuid))

    async def set_enables(self, request: Request) -> Reply:
        """Section 22.1. There is no event message buffer, and events are always logged."""
        enables = request.data[0]
        require(enables & ~RECEIVE_INTERRUPT == EVENT_LOGGING)
        await self._settings.put("enables", enables)
        return Reply()

    async def get_enables(self, request: Request) -> Reply:
        """Section 22.2."""
        return Reply(data=bytes((await self._settings.integer("enables", EVENT_LOGGING) & 0xFF,)))

    async def clear_flags(self, request: Request) -> Reply:
        """Section 22.3; none is ever set."""
        return Reply()

    async def get_flags(self, request: Request) -> Reply:
        """Section 22.4."""
        return Reply(data=bytes(1))

    async def no_message(self, request: Request) -> Reply:
        """Sections 22.6 and 22.8: nothing is ever waiting."""
        return Reply(code=NO_MESSAGE)

    async def get_interface(self, request: Request) -> Reply:
        """Section 22.9."""
        require(request.data[0] & 0x0F == KCS)
        return Reply(data=bytes((0x00, 0x00, KCS_INPUT_BYTES)))
