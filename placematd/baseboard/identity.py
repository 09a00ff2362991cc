"""What a node is, from the plan: the same that QEMU's command line tells its guest."""

import asyncio
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID

from ..bmc.machine import BootMode, Disk, Firmware, FirmwareOffer, Inventory, Limits, Nic
from ..facts import Accelerator, Host, Settings
from ..models import Cluster, Node, Smp
from ..plan import NodePlan
from ..plan.volumes import volume_file
from ..qemu import CD, DEFAULT_MTU, cpu_counts, disk_id, memory_bytes, nic_id
from .boot import BootDevices

SEABIOS = Path("/usr/share/seabios/bios-256k.bin")
SEABIOS_VERSION = re.compile(rb"\x00([0-9]+\.[0-9]+\.[0-9]+(?:-[\w.+~-]+)?)\x00")
UEFI_VERSION = "EDK II"
"""OVMF packs its version into a compressed volume, so all that is told is what it is."""

TCG_CPU = "QEMU TCG CPU version 2.5+"
"""What -cpu max calls itself under TCG (QEMU 7.2, target/i386/cpu.c)."""

QCOW2_MAGIC = b"QFI\xfb"


@dataclass(frozen=True)
class DiskFile:
    """A disk, and the file behind it, in whose header its size is found."""

    disk: Disk
    path: Path


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What the cluster file and the host say about a node; it changes when the cluster is reloaded."""

    inventory: Inventory
    """Without disks; boot mode, Secure Boot and TPM are those of the cluster file."""
    disks: tuple[DiskFile, ...]
    devices: BootDevices
    offer: FirmwareOffer
    tpm_possible: bool
    limits: Limits
    media_folder: Path | None = None
    """Below it lie the images that may be inserted by path."""

    @property
    def firmware(self) -> Firmware:
        """The firmware settings of the cluster file."""
        own = self.inventory
        return Firmware(boot_mode=own.boot_mode, tpm=own.tpm, secure_boot=own.secure_boot)

    async def disks_now(self) -> tuple[Disk, ...]:
        """The disks with their sizes."""
        return await asyncio.to_thread(lambda: tuple(map(_measured, self.disks)))


def identity(
    cluster: Cluster,
    node: Node,
    plan: NodePlan,
    host: Host,
    settings: Settings,
    *,
    limits: Limits,
    media_folder: Path | None = None,
    tpm_possible: bool | None = None,
) -> Identity:
    """Gather what a node is; `node` and `plan` as the cluster file has them, without what BMCs chose."""
    files = tuple(volume_file(cluster, node, volume, host, settings) for volume in node.volumes)
    disks = tuple(
        DiskFile(Disk(name=volume.name, device="virtio-blk", capacity_bytes=0, format=file.format), file.path)
        for volume, file in zip(node.volumes, files, strict=True)
        if file.form != "directory"
    )
    nics = tuple(
        Nic(name=f"eth{index}", mac=interface.mac, network=interface.network, mtu=host.mtu or DEFAULT_MTU)
        for index, interface in enumerate(plan.interfaces)
    )
    sockets, cores, threads = topology(node.topology)
    return Identity(
        inventory=Inventory(
            cluster=cluster.name,
            node=node.name,
            manufacturer=plan.smbios.manufacturer or "QEMU",
            product=plan.smbios.product or "Standard PC (i440FX + PIIX, 1996)",
            serial=plan.smbios.serial,
            uuid=UUID(plan.uuid),
            bios_version="",
            boot_mode="UEFI" if node.uefi else "Legacy",
            cpu_model=cpu_model(host.accelerator),
            cpu_sockets=sockets,
            cpu_cores=cores,
            cpu_threads=threads,
            memory_mib=memory_bytes(node.memory) >> 20,
            tpm=node.tpm,
            secure_boot=node.secure_boot,
            nics=nics,
        ),
        disks=disks,
        devices=BootDevices(
            nics=tuple(nic_id(index) for index in range(len(nics))),
            disks=tuple(disk_id(index) for index in range(len(disks))),
            cds=(CD,),
        ),
        offer=offer(host),
        tpm_possible=host.swtpm.exists() if tpm_possible is None else tpm_possible,
        limits=limits,
        media_folder=media_folder,
    )


def offer(host: Host) -> FirmwareOffer:
    """What a host has firmware for; QEMU brings its BIOS."""
    if not host.ovmf:
        return FirmwareOffer(boot_modes=("Legacy",))
    return FirmwareOffer(boot_modes=("Legacy", "UEFI"), secure_boot=host.ovmf.secure_vars is not None)


def topology(smp: Smp) -> tuple[int, int, int]:
    """(sockets, cores a socket, threads a core) as QEMU completes them (machine_parse_smp_config(), since 6.2)."""
    total = cpu_counts(smp)[1]
    dies = max(smp.dies, 1)
    if not smp.cores:
        sockets, threads = max(smp.sockets, 1), max(smp.threads, 1)
        return sockets, max(total // (sockets * threads), 1), threads
    if not smp.sockets:
        threads = max(smp.threads, 1)
        return max(total // (dies * smp.cores * threads), 1), smp.cores * dies, threads
    return smp.sockets, smp.cores * dies, smp.threads or max(total // (smp.sockets * dies * smp.cores), 1)


def cpu_model(accelerator: Accelerator, cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The CPU's name as the guest sees it: the host's under KVM (-cpu host)."""
    if accelerator == "tcg":
        return TCG_CPU
    try:
        match = re.search(r"^model name\s*: (.+)$", cpuinfo.read_text(), re.MULTILINE)
    except OSError:
        match = None
    return match[1] if match else "Virtual CPU"


def bios_version(mode: BootMode, seabios: Path = SEABIOS) -> str:
    """The version that SeaBIOS writes into the SMBIOS tables, from its ROM file."""
    if mode == "UEFI":
        return UEFI_VERSION
    try:
        match = SEABIOS_VERSION.search(seabios.read_bytes())
    except OSError:
        match = None
    return match[1].decode() if match else "SeaBIOS"


def _measured(item: DiskFile) -> Disk:
    return replace(item.disk, capacity_bytes=capacity(item.path, item.disk.format))


def capacity(path: Path, form: str) -> int:
    """The virtual size of a disk in bytes, 0 where it cannot be known; qcow2: docs/interop/qcow2.txt of QEMU."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        if form != "qcow2":
            return os.lseek(descriptor, 0, os.SEEK_END)
        header = os.pread(descriptor, 32, 0)
        return int.from_bytes(header[24:32], "big") if header.startswith(QCOW2_MAGIC) and len(header) == 32 else 0
    except OSError:
        return 0
    finally:
        os.close(descriptor)
