"""A node without QEMU, and a monitor that answers as QEMU 7.2 does, for tests of the baseboard."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from uuid import UUID

from placematd.baseboard.boot import BootDevices
from placematd.baseboard.identity import Identity
from placematd.baseboard.machine import Baseboard
from placematd.bmc.machine import Firmware, FirmwareOffer, Inventory, Limits, MachineEvent
from placematd.console import ConsoleHub
from placematd.errors import StepError
from placematd.events import Events
from placematd.nodes import Power
from placematd.qmp import Json, QmpError, QmpEvent

INVENTORY = Inventory(
    cluster="dc",
    node="worker-1",
    manufacturer="QEMU",
    product="pc",
    serial="1234abcd",
    uuid=UUID(int=1),
    bios_version="",
    boot_mode="Legacy",
    cpu_model="cpu",
    cpu_sockets=1,
    cpu_cores=2,
    cpu_threads=1,
    memory_mib=512,
    tpm=False,
)
IDENTITY = Identity(
    inventory=INVENTORY,
    disks=(),
    devices=BootDevices(nics=("nic0", "nic1"), disks=("disk0",), cds=("cd0",)),
    offer=FirmwareOffer(boot_modes=("Legacy", "UEFI"), secure_boot=True),
    tpm_possible=True,
    limits=Limits(address="172.16.1.2"),
)


class FakeMonitor:
    """QEMU: boot indexes, the order that the firmware was told at the last reset, and one CD drive."""

    def __init__(self, node: "FakeNode") -> None:
        self._node = node
        self.indexes = dict.fromkeys(IDENTITY.devices.all, -1)
        self.told: tuple[str, ...] = ()
        self.commands: list[str] = []
        self.medium: str | None = None
        self.content = b""
        self._fds: dict[str, bytes] = {}
        self.refuses = ""

    def regenerate(self) -> None:
        chosen = sorted((index, device) for device, index in self.indexes.items() if index >= 0)
        self.told = tuple(device for _, device in chosen)

    async def execute(
        self, command: str, arguments: Mapping[str, Json] | None = None, timeout_seconds: float = 10.0, fd: int = -1
    ) -> Json:
        await asyncio.sleep(0)
        words = dict(arguments or {})
        if command == self.refuses:
            raise QmpError(command, "GenericError", "refused by the test")
        if command == "qom-set":
            self._set_index(str(words["path"]).rpartition("/")[2], words["value"])
            return {}
        if command == "query-block":
            drive: dict[str, Json] = {"qdev": "cd0", "device": ""}
            return [drive | ({"inserted": {"node-name": self.medium}} if self.medium else {})]
        self.commands.append(command)
        if command == "add-fd":
            number = len(self._fds)
            self._fds[f"media{number}"] = os.pread(fd, 1 << 20, 0)
            return {"fdset-id": number, "fd": 20}
        if command == "blockdev-insert-medium":
            assert self.medium is None
            self.medium = str(words["node-name"])
            self.content = self._fds[self.medium]
        if command == "blockdev-remove-medium":
            self.medium = None
        if command == "system_reset":
            self._node.reset(guest=False)
        return {}

    def _set_index(self, device: str, value: Json) -> None:
        assert isinstance(value, int)
        assert value < 0 or value not in self.indexes.values(), "QEMU refuses an index that is taken"
        self.indexes[device] = value


class FakeNode:
    """See `power.Node`. `boots` is what each boot was told to boot from, and with which firmware."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.power: Power = "Off"
        self.console = ConsoleHub(path.parent / "console")
        self.baseboard: Baseboard
        self.monitor = FakeMonitor(self)
        self.boots: list[tuple[tuple[str, ...], Firmware]] = []
        self.firmware = IDENTITY.firmware
        self.fails = False
        self.hold: Callable[[], Awaitable[None]] | None = None
        self.now = 1e10

    async def start(self) -> None:
        if self.power == "On":
            return
        if self.hold:
            await self.hold()
        if self.fails:
            raise StepError("start node worker-1", "QEMU ended at once")
        self.turn("PoweringOn")
        self.monitor = FakeMonitor(self)
        self.firmware = self.baseboard.firmware_wanted
        self._paused = True
        await self.baseboard.prepare(self.monitor, self.firmware)
        self._paused = False
        self.boots.append((self.monitor.told, self.firmware))
        self.turn("On")

    async def stop(self, graceful: bool, timeout_seconds: float) -> None:
        assert not graceful
        self.turn("Off")

    async def pid(self) -> int | None:
        return os.getpid() if self.power == "On" else None

    def turn(self, power: Power) -> None:
        if power != self.power:
            self.power = power
            self.baseboard.on_power(power)

    _paused = False

    def reset(self, guest: bool) -> None:
        self.monitor.regenerate()
        if not self._paused:
            self.boots.append((self.monitor.told, self.firmware))
        self.event("RESET", guest=guest)

    def guest_powers_off(self) -> None:
        self.event("SHUTDOWN", guest=True, reason="guest-shutdown")
        self.turn("Off")

    def event(self, name: str, timestamp: float | None = None, **data: Json) -> None:
        self.now += 1
        self.baseboard.on_qmp_event(QmpEvent(name, data, self.now if timestamp is None else timestamp))


async def new_node(directory: Path, identity: Identity = IDENTITY) -> FakeNode:
    """A node that is off, with its baseboard, whose store may be there already."""
    node = FakeNode(directory / "bmc" / "worker-1.json")
    node.baseboard = await Baseboard.open(node.path, node, identity, Events())
    return node


async def settled(node: FakeNode) -> None:
    """Wait until the baseboard has done what it does by itself."""
    board = node.baseboard
    while board._tasks or board._switch._tasks - {board._switch._soft_reset} or board._boot._settling:
        await asyncio.sleep(0.001)


async def next_event(node: FakeNode, kind: str) -> MachineEvent:
    async for event in node.baseboard.events():
        if event.kind == kind:
            return event
    raise AssertionError("events ended")
