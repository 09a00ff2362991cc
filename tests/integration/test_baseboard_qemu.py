"""The baseboard with a real QEMU: what the firmware really boots from, and what a guest really gets."""

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from uuid import UUID

import boot_sector
import guests
import pytest

from placematd.baseboard.boot import BootDevices
from placematd.baseboard.identity import TCG_CPU, DiskFile, Identity, bios_version
from placematd.baseboard.machine import Baseboard
from placematd.bmc.machine import BootOverride, Disk, Firmware, FirmwareOffer, Inventory, Limits
from placematd.console import ConsoleHub
from placematd.errors import StepError
from placematd.events import Events
from placematd.nodes import Power
from placematd.qmp import QmpClient

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not shutil.which("qemu-system-x86_64"), reason="apt-get install qemu-system-x86"),
]

OVMF_CODE, OVMF_VARS = (Path(f"/usr/share/OVMF/OVMF_{part}_4M.fd") for part in ("CODE", "VARS"))
needs_ovmf = pytest.mark.skipif(not OVMF_CODE.exists(), reason="apt-get install ovmf")
needs_genisoimage = pytest.mark.skipif(not shutil.which("genisoimage"), reason="apt-get install genisoimage")

DISK_LINES, CD_LINES = 3, 5
FROM_DISK, FROM_CD = f"{boot_sector.line(DISK_LINES - 1)}\n", f"{boot_sector.line(CD_LINES - 1)}\n"
FROM_NETWORK = r"iPXE initialising|Start PXE over IPv4"
ANY = rf"L0000\n|{FROM_NETWORK}"
SECONDS = 90.0


@dataclass
class Files:
    """A disk and a CD that say on the console which of them was booted."""

    folder: Path

    @property
    def disk(self) -> Path:
        path = self.folder / "disk.img"
        boot_sector.write(path, DISK_LINES)
        os.truncate(path, 1 << 20)
        return path

    @property
    def cd(self) -> Path:
        content, path = self.folder / "content", self.folder / "cd.iso"
        content.mkdir()
        boot_sector.write(content / "boot.bin", CD_LINES)
        options = f"-quiet -o {path} -b boot.bin -no-emul-boot -boot-load-size 4"
        subprocess.run(["genisoimage", *options.split(), str(content)], check=True)
        return path


class Node:
    """See `power.Node`: a QEMU process of the test's, with the devices and the sandbox that placemat gives it."""

    def __init__(self, folder: Path, boot: list[str], identity: Identity) -> None:
        self.folder, self._boot = folder, boot
        self.power: Power = "Off"
        self.console = ConsoleHub(folder / "console")
        self.baseboard: Baseboard
        self._identity = identity
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self.monitor: QmpClient | None = None
        self.text = ""

    async def open(self) -> None:
        self.baseboard = await Baseboard.open(self.folder / "bmc" / "n.json", self, self._identity, Events())

    async def start(self) -> None:
        if self.power == "On":
            return
        firmware = self.baseboard.firmware_wanted
        argv = ["setpriv", "--pdeathsig", "KILL", "--", *self._argv(firmware)]
        self._process = await asyncio.create_subprocess_exec(*argv, stdin=asyncio.subprocess.DEVNULL)
        self._watch = asyncio.create_task(self._wait(self._process))
        self.monitor = await self.connect()
        self.console.attach()
        await self.baseboard.prepare(self.monitor, firmware)
        await self.monitor.cont()
        self.turn("On")

    async def connect(self) -> QmpClient:
        async with asyncio.timeout(SECONDS):
            while True:
                with suppress(StepError):
                    return await QmpClient.connect(self.folder / "qmp", on_event=self.on_event)
                await asyncio.sleep(0.02)

    def on_event(self, event: object) -> None:
        self.baseboard.on_qmp_event(event)  # type: ignore[arg-type]

    async def stop(self, graceful: bool, timeout_seconds: float) -> None:
        if self._process:
            self._process.terminate()
            assert self._watch
            await self._watch

    async def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def turn(self, power: Power) -> None:
        self.power = power
        self.baseboard.on_power(power)

    async def _wait(self, process: asyncio.subprocess.Process) -> None:
        await process.wait()
        if self.monitor:
            await self.monitor.close()
        await self.console.detach()
        self.monitor = self._process = None
        self.turn("Off")

    def _argv(self, firmware: Firmware) -> list[str]:
        words = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "512", "-nographic", "-monitor", "none"]
        words += ["-chardev", f"socket,id=console,path={self.folder}/console,server=on,wait=off"]
        words += ["-serial", "chardev:console", "-qmp", f"unix:{self.folder}/qmp,server=on,wait=off"]
        words += ["-netdev", "user,id=net0,restrict=on", "-device"]
        words += ["virtio-net-pci,netdev=net0,id=nic0" + (",romfile=" if firmware.boot_mode == "UEFI" else "")]
        if firmware.boot_mode == "UEFI":
            for unit, file in enumerate((f"{OVMF_CODE},readonly=on", f"{self.folder}/vars.fd")):
                words += ["-drive", f"if=pflash,unit={unit},format=raw,file={file}"]
        words += ["-device", "ide-cd,bus=ide.1,unit=0,id=cd0", *self._boot]
        words += ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny", "-S"]
        return words

    # what the tests see

    async def says(self, pattern: str) -> str:
        """Wait for a match in what the console shows after the last one."""
        return await asyncio.wait_for(self._expect(pattern), SECONDS)

    async def _expect(self, pattern: str) -> str:
        while True:
            text = self.text.replace("\r", "")
            clean = guests.ESCAPE.sub("", text)
            if match := re.search(pattern, clean):
                self.text = clean[match.end() :]
                return match[0]
            self.text += (await self._viewer.read()).decode(errors="replace")

    def look(self) -> None:
        """Begin to read the console."""
        self._viewer = self.console.view()


@cache
def identity(disk: Path) -> Identity:
    inventory = Inventory(
        cluster="dc",
        node="n",
        manufacturer="QEMU",
        product="pc",
        serial="1",
        uuid=UUID(int=1),
        bios_version="",
        boot_mode="Legacy",
        cpu_model="",
        cpu_sockets=1,
        cpu_cores=1,
        cpu_threads=1,
        memory_mib=512,
        tpm=False,
    )
    return Identity(
        inventory=inventory,
        disks=(DiskFile(Disk(name="root", device="virtio-blk", capacity_bytes=0, format="raw"), disk),),
        devices=BootDevices(nics=("nic0",), disks=("disk0",), cds=("cd0",)),
        offer=FirmwareOffer(boot_modes=("Legacy", "UEFI")),
        tpm_possible=False,
        limits=Limits(),
        media_folder=disk.parent,
    )


def disk_arguments(disk: Path) -> list[str]:
    return ["-drive", f"if=none,id=drive0,format=raw,file={disk}", "-device", "virtio-blk-pci,drive=drive0,id=disk0"]


@asynccontextmanager
async def running(folder: Path, disk: Path, arguments: list[str] | None = None) -> AsyncIterator[Node]:
    """A node that is off; QEMU ends with the block."""
    node = Node(folder, disk_arguments(disk) if arguments is None else arguments, identity(disk))
    await node.open()
    node.look()
    try:
        yield node
    finally:
        await node.stop(False, 0)
        await node.baseboard.close()


async def insert(node: Node, image: Path) -> None:
    async for _ in node.baseboard.insert_media("Cd", str(image)):
        pass


def test_where_a_bios_boots_from(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, Files(tmp_path).disk) as node:
            board = node.baseboard
            # Set while off: the start uses it up, and nothing but the start.
            await board.set_boot(BootOverride(enabled="Once", target="Pxe"))
            await board.power("on")
            assert await node.says(ANY) == "iPXE initialising"
            assert await board.boot() == BootOverride()
            await board.power("reset")
            await node.says(FROM_DISK)
            assert await board.restart_cause() == "chassis-control"

            # Set while on: the next reset does, here one that placemat knows nothing of.
            await board.set_boot(BootOverride(enabled="Once", target="Pxe"))
            assert node.monitor
            await board.before_reset()
            await node.monitor.system_reset()
            assert await node.says(ANY) == "iPXE initialising"
            assert await board.boot() == BootOverride()
            assert await board.restart_cause() == "reset-button"
            await board.power("cycle")
            await node.says(FROM_DISK)

            await board.set_boot(BootOverride(enabled="Continuous", target="Pxe"))
            for action in ("reset", "cycle"):
                await board.power(action)  # type: ignore[arg-type]
                assert await node.says(ANY) == "iPXE initialising"
            await board.set_boot(BootOverride())
            await board.power("reset")
            await node.says(FROM_DISK)

    asyncio.run(main())


@needs_genisoimage
def test_a_disc_is_booted_survives_power_cycles_and_comes_out(tmp_path: Path) -> None:
    files = Files(tmp_path)
    disk, cd = files.disk, files.cd

    async def main() -> None:
        async with running(tmp_path, disk) as node:
            board = node.baseboard
            await board.power("on")
            await node.says(FROM_DISK)
            await insert(node, cd)
            await board.set_boot(BootOverride(enabled="Continuous", target="Cd"))
            for action in ("reset", "cycle"):
                await board.power(action)  # type: ignore[arg-type]
                await node.says(FROM_CD)

            # The next placematd finds it inserted, and may take it out.
            assert node.monitor
            await board.close()
            await node.monitor.close()
            await node.open()
            node.monitor = await node.connect()
            await node.baseboard.adopted(node.monitor)
            (medium,) = await node.baseboard.media()
            assert medium.inserted
            await node.baseboard.power("reset")
            await node.says(FROM_CD)
            await node.baseboard.eject_media("Cd")
            assert await node.monitor.execute("query-fdsets") == []
            await node.baseboard.power("reset")
            await node.says(FROM_DISK)
            await insert(node, cd)
            await node.baseboard.power("reset")
            await node.says(FROM_CD)

    asyncio.run(main())


@needs_ovmf
def test_uefi_boots_once_from_the_network_and_then_from_its_disk_again(tmp_path: Path) -> None:
    """OVMF keeps the order in its variables, so that leaving it alone afterwards would boot from the network again."""
    disk, booted = tmp_path / "uefi.img", r"BdsDxe: starting Boot|Start PXE over IPv4"
    shutil.copy(guests.images().uefi, disk)
    shutil.copy(OVMF_VARS, tmp_path / "vars.fd")

    async def main() -> None:
        async with running(tmp_path, disk) as node:
            board = node.baseboard
            await board.set_firmware(Firmware(boot_mode="UEFI", tpm=False))
            await board.power("on")
            await node.says("BdsDxe: starting Boot")
            await board.set_boot(BootOverride(enabled="Once", target="Pxe"))
            for expected in ("Start PXE over IPv4", "BdsDxe: starting Boot", "BdsDxe: starting Boot"):
                await board.power("reset")
                assert await node.says(booted) == expected
            await board.set_boot(BootOverride(enabled="Once", target="Pxe"))
            await board.power("cycle")
            assert await node.says(booted) == "Start PXE over IPv4"
            await board.power("cycle")
            assert await node.says(booted) == "BdsDxe: starting Boot"

            # Once with the other firmware: off and on at the guest's reset, and back at the one after.
            await board.set_boot(BootOverride(enabled="Once", target="Pxe", mode="Legacy"))
            assert node.monitor
            await node.monitor.system_reset()
            await node.says("iPXE initialising")
            assert (await board.inventory()).bios_version == bios_version("Legacy")
            await board.power("reset")
            await node.says("BdsDxe: starting Boot")
            assert (await board.inventory()).boot_mode == "UEFI"

    asyncio.run(main())


def test_what_a_linux_guest_sees(tmp_path: Path) -> None:
    images = guests.images()

    async def main() -> None:
        async with running(tmp_path, Files(tmp_path).disk, images.direct()) as node:
            board = node.baseboard
            node.baseboard.identity = replace(identity(tmp_path / "disk.img"), devices=BootDevices(cds=("cd0",)))
            await board.power("on")
            await node.says("placemat-guest: ready\n")
            health = await board.health()
            assert health.memory_used_mib > 50

            await node.console.write(b"\n grep '^model name' /proc/cpuinfo\n")
            await node.says(re.escape(TCG_CPU))
            await node.console.write(b"dmesg -n 7; echo visible\n")
            await node.says("\nvisible\n")
            await board.power("nmi")
            await node.says("(?i)nmi")

            await node.console.write(b"reboot -f\n")
            await node.says("placemat-guest: ready\n")
            assert await board.restart_cause() == "soft-reset"

            await board.power("soft-reset", "soft-reset")
            await node.says("placemat-guest: ready\n")
            await board.power("soft-off")
            async for event in board.events():
                if (event.kind, event.value) == ("power", "Off"):
                    break
            assert (await board.sel())[-1].message == "Power off (by its operating system)"

    asyncio.run(main())


def test_seabios_tells_the_guest_the_version_that_we_tell(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, Files(tmp_path).disk) as node:
            await node.baseboard.power("on")
            await node.says(re.escape(f"SeaBIOS (version {bios_version('Legacy')})"))

    asyncio.run(main())
