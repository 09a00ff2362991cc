"""Where a node boots from: the boot indexes of QEMU's devices, from which the firmware takes its order.

QEMU writes the order for the firmware (fw_cfg "bootorder") anew at each reset, from the indexes as they are then;
between two resets they can be changed freely, and a change counts from the next reset.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..bmc.machine import BootTarget
from ..qmp import Json


class Monitor(Protocol):
    """A QEMU's monitor, see `qmp.QmpClient`."""

    async def execute(
        self, command: str, arguments: Mapping[str, Json] | None = None, timeout_seconds: float = 10.0, fd: int = -1
    ) -> Json:
        """Run a command; raises StepError."""
        ...


@dataclass(frozen=True, kw_only=True)
class BootDevices:
    """The identifiers of a node's devices in QEMU, in the order of their kind."""

    nics: tuple[str, ...] = ()
    disks: tuple[str, ...] = ()
    cds: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """All, in the order in which a machine of its own accord tries them."""
        return (*self.disks, *self.cds, *self.nics)

    def of(self, target: BootTarget) -> tuple[str, ...]:
        """The devices that a target means."""
        return {"None": (), "Pxe": self.nics, "Hdd": self.disks, "Cd": self.cds}[target]

    def order(self, target: BootTarget) -> tuple[str, ...]:
        """The target first, then the rest: UEFI firmware forgets what is not in the list."""
        first = self.of(target)
        return (*first, *(device for device in self.all if device not in first))


async def set_order(monitor: Monitor, devices: BootDevices, order: Sequence[str]) -> None:
    """Have the firmware try devices in this order from the next reset on; () leaves it to the firmware.

    Raises StepError.
    """
    for device in devices.all:  # an index can be taken only once, so all are given up first
        await _set_index(monitor, device, -1)
    for index, device in enumerate(order):
        await _set_index(monitor, device, index)


async def _set_index(monitor: Monitor, device: str, index: int) -> None:
    where = {"path": f"/machine/peripheral/{device}", "property": "bootindex"}
    await monitor.execute("qom-set", {**where, "value": index})
