"""The QEMU command line of a node: pure functions that return pieces of argv.

Order and PCI layout are placemat v2's (i440fx; VGA in slot 2, NICs from slot 3, then 9p, virtio-serial and rng, disks
last), because users' cloud-init files name `ens3`. Options and suboptions: qemu-system-x86_64(1) of QEMU 7.2.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from .facts import Accelerator, Ovmf
from .models import Cache, Smbios, Smp
from .names import NodePaths

Argv = tuple[str, ...]

DEFAULT_MEMORY = "128M"
"""What QEMU gives a guest without -m."""

DEFAULT_MTU = 1500
"""The kernel's MTU for an Ethernet device, in bytes."""

CD = "cd0"
"""The identifier of the CD-ROM drive: the master of the second IDE channel, where QEMU puts one by default."""

_MIB = 1 << 20
_MEMORY_UNITS = {"b": 1, "k": 1 << 10, "m": _MIB, "": _MIB, "g": 1 << 30, "t": 1 << 40}


@dataclass(frozen=True, kw_only=True)
class Nic:
    """One virtio NIC on an existing tap."""

    tap: str
    mac: str
    mtu: int
    queues: int = 1


@dataclass(frozen=True, kw_only=True)
class Disk:
    """One virtio disk; `format` is always said, so that QEMU never probes what a guest has written."""

    path: Path
    format: str
    cache: Cache


@dataclass(frozen=True, kw_only=True)
class Share:
    """A directory of the host that the guest mounts over 9p by its `tag`."""

    path: Path
    tag: str
    writable: bool


@dataclass(frozen=True, kw_only=True)
class Machine:
    """All that a QEMU command line depends on."""

    qemu: Path
    name: str
    uuid: str
    accelerator: Accelerator
    smp: Smp
    memory: str = ""
    numa_nodes: int = 0
    smbios: Smbios
    """With the serial number that the guest shall see."""
    firmware: Ovmf | None = None
    """UEFI code and this node's variable store (not the template); None for the BIOS."""
    nics: tuple[Nic, ...] = ()
    vhost_net: bool = False
    storage: tuple[Disk | Share, ...] = ()
    tpm: bool = False
    ipmi: bool = True
    """Whether the guest sees its BMC."""
    ignition: Path | None = None
    paths: NodePaths

    @property
    def disks(self) -> tuple[Disk, ...]:
        """What the guest sees as vda, vdb, ..."""
        return tuple(item for item in self.storage if isinstance(item, Disk))


def argv(machine: Machine) -> Argv:
    """The whole command line. Raises ValueError where memory is not a size that QEMU takes."""
    return (
        str(machine.qemu),
        *accelerator(machine.accelerator),
        *ignition(machine.ignition),
        *smp(machine.smp),
        *(("-m", machine.memory) if machine.memory else ()),
        *numa(machine.numa_nodes, machine.smp, machine.memory),
        *console(machine.paths),
        *firmware(machine.firmware),
        *smbios(machine.smbios),
        *nics(machine),
        *volumes(machine.storage),
        *("-device", f"ide-cd,bus=ide.1,unit=0,id={CD}"),
        *(tpm(machine.paths) if machine.tpm else ()),
        *("-boot", "reboot-timeout=30000"),
        *guest_port(machine.paths),
        *(ipmi(machine.paths) if machine.ipmi else ()),
        *("-qmp", f"unix:{escape(machine.paths.qmp)},server=on,wait=off"),
        *("-object", "rng-random,id=rng0,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng0"),
        *("-cpu", "host" if machine.accelerator == "kvm" else "max"),
        *("-name", f"guest={escape(machine.name)},debug-threads=on"),
        *("-uuid", machine.uuid),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        *(word for disk in range(len(machine.disks)) for word in disk_device(disk)),
        "-S",  # placematd lets the guest run when it has set what to boot from
    )


def escape(value: object) -> str:
    """`value` as part of a key=value list: QEMU reads a doubled comma as one comma."""
    return str(value).replace(",", ",,")


def accelerator(name: Accelerator) -> Argv:
    """KVM as placemat v2 asks for it, or QEMU's own translator."""
    return ("-enable-kvm",) if name == "kvm" else ("-accel", "tcg")


def ignition(path: Path | None) -> Argv:
    """The fw_cfg item that Ignition reads."""
    return ("-fw_cfg", f"opt/com.coreos/config,file={escape(path)}") if path else ()


def smp(topology: Smp) -> Argv:
    """CPU topology; parts that are 0 are left to QEMU."""
    parts = ("cores", "threads", "dies", "sockets", "maxcpus")
    words = [str(topology.cpus)] if topology.cpus else []
    words += [f"{part}={getattr(topology, part)}" for part in parts if getattr(topology, part)]
    return ("-smp", ",".join(words)) if words else ()


def cpu_counts(topology: Smp) -> tuple[int, int]:
    """(CPUs at boot, CPUs including pluggable ones), completed as QEMU does it (machine_parse_smp_config())."""
    product = 1
    for part in (topology.cores, topology.threads, topology.dies, topology.sockets):
        product *= max(part, 1)
    total = topology.maxcpus or topology.cpus or product
    return topology.cpus or total, total


def memory_bytes(text: str) -> int:
    """The size that -m takes: a number and an optional unit, MiB where there is none. Raises ValueError."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([bkmgt]?)", (text or DEFAULT_MEMORY).lower())
    if not match:
        raise ValueError(f"{text}: not an amount of memory such as 2048, 512M or 2G")
    return int(float(match[1]) * _MEMORY_UNITS[match[2]])


def numa(nodes: int, topology: Smp, memory: str) -> Argv:
    """NUMA nodes with their CPUs and memory; all memory must be given to nodes since QEMU 5.2."""
    boot, total = cpu_counts(topology)
    words: list[str] = []
    for node in range(nodes):
        cpus = (*_share(range(boot), node, nodes), *_share(range(boot, total), node, nodes))
        words += ["-object", f"memory-backend-ram,id=mem{node},size={_memory_share(memory, node, nodes)}"]
        words += ["-numa", ",".join([f"node,nodeid={node}", *cpus, f"memdev=mem{node}"])]
    return tuple(words)


def _share(cpus: range, node: int, nodes: int) -> Argv:
    """Node number `node`'s part of `cpus`, as "cpus=0-3": contiguous, the first nodes one longer, nothing dropped."""
    each, rest = divmod(len(cpus), nodes)
    first = node * each + min(node, rest)
    part = cpus[first : first + each + (node < rest)]
    if len(part) < 2:
        return tuple(f"cpus={cpu}" for cpu in part)
    return (f"cpus={part[0]}-{part[-1]}",)


def _memory_share(memory: str, node: int, nodes: int) -> str:
    """Node number `node`'s part of the memory: whole MiB for all, and what is left over for the last."""
    total = memory_bytes(memory)
    each = total // nodes // _MIB * _MIB
    size = each if node < nodes - 1 else total - each * (nodes - 1)
    return f"{size // _MIB}M" if size % _MIB == 0 else f"{size}B"


def console(paths: NodePaths) -> Argv:
    """The serial console: a socket for people, and a copy of the output to the FIFO that leads to the journal.

    No monitor: with -nographic QEMU would put one on its standard input and output.
    """
    chardev = f"socket,id=console,path={escape(paths.console)},server=on,wait=off"
    log = f"logfile={escape(paths.log)},logappend=on"
    return ("-nographic", "-monitor", "none", "-chardev", f"{chardev},{log}", "-serial", "chardev:console")


def firmware(ovmf: Ovmf | None) -> Argv:
    """UEFI firmware in flash unit 0 and the node's own variable store in unit 1."""
    if not ovmf:
        return ()
    return (
        *("-drive", f"if=pflash,unit=0,file={escape(ovmf.code)},format=raw,readonly=on"),
        *("-drive", f"if=pflash,unit=1,file={escape(ovmf.vars)},format=raw"),
    )


def smbios(table: Smbios) -> Argv:
    """System information (SMBIOS type 1)."""
    fields = (("manufacturer", table.manufacturer), ("product", table.product), ("serial", table.serial))
    return ("-smbios", ",".join(["type=1", *(f"{key}={escape(value)}" for key, value in fields if value)]))


def nics(machine: Machine) -> Argv:
    """All NICs, or an explicit none: QEMU would add one of its own, with a way out through the host."""
    if not machine.nics:
        return ("-nic", "none")
    uefi = machine.firmware is not None
    return tuple(word for index, item in enumerate(machine.nics) for word in nic(index, item, machine.vhost_net, uefi))


def nic(index: int, item: Nic, vhost_net: bool, uefi: bool) -> Argv:
    """One NIC. Its identifier is its number, so any network name is fine and may come twice."""
    netdev = f"tap,id=net{index},ifname={escape(item.tap)},script=no,downscript=no"
    device = f"virtio-net-pci,host_mtu={item.mtu},netdev=net{index},mac={item.mac},id={nic_id(index)}"
    if vhost_net:
        netdev += ",vhost=on"
    if item.queues > 1:
        netdev += f",queues={item.queues}"
        device += f",mq=on,vectors={2 * item.queues + 2}"  # an interrupt per queue and direction, control, config
    if uefi:
        device += ",romfile="  # OVMF brings its own network boot
    return ("-netdev", netdev, "-device", device)


def nic_id(index: int) -> str:
    """The identifier of a NIC, below /machine/peripheral in QEMU's object model."""
    return f"nic{index}"


def disk_id(index: int) -> str:
    """The identifier of a disk, below /machine/peripheral in QEMU's object model."""
    return f"disk{index}"


def volumes(items: tuple[Disk | Share, ...]) -> Argv:
    """What disks and shares consist of; the devices of the disks come last (`disk_device`)."""
    disks = 0
    words: list[str] = []
    for index, item in enumerate(items):
        if isinstance(item, Share):
            words += share(index, item)
        else:
            words += drive(disks, item)
            disks += 1
    return tuple(words)


def share(index: int, item: Share) -> Argv:
    """A 9p share, whose tag is free text and so no identifier."""
    text = f"local,id=share{index},path={escape(item.path)},mount_tag={escape(item.tag)},security_model=none"
    return ("-virtfs", text if item.writable else f"{text},readonly=on")


def drive(index: int, item: Disk) -> Argv:
    """The file behind a disk."""
    aio = "native" if item.cache == "none" else "threads"  # native needs O_DIRECT
    how = f"cache={item.cache},aio={aio},format={item.format}"
    return ("-drive", f"if=none,id=drive{index},{how},file={escape(item.path)}")


def disk_device(index: int) -> Argv:
    """A virtio disk: vda, vdb, ... in order."""
    return ("-device", f"virtio-blk-pci,drive=drive{index},id={disk_id(index)}")


def tpm(paths: NodePaths) -> Argv:
    """A TPM 2.0 that swtpm emulates."""
    return (
        *("-chardev", f"socket,id=chrtpm,path={escape(paths.tpm)}"),
        *("-tpmdev", "emulator,id=tpm0,chardev=chrtpm", "-device", "tpm-tis,tpmdev=tpm0"),
    )


def guest_port(paths: NodePaths) -> Argv:
    """The port /dev/virtio-ports/placemat, over which a guest tells its BMC's address."""
    return (
        *("-chardev", f"socket,id=char0,path={escape(paths.guest)},server=on,wait=off"),
        *("-device", "virtio-serial", "-device", "virtserialport,chardev=char0,name=placemat"),
    )


def ipmi(paths: NodePaths) -> Argv:
    """The node's BMC as the guest sees it: a KCS interface (/dev/ipmi0), spoken over QEMU's link to a BMC outside."""
    return (
        *("-chardev", f"socket,id=ipmi0,path={escape(paths.ipmi)},server=on,wait=off"),
        *("-device", "ipmi-bmc-extern,id=bmc0,chardev=ipmi0", "-device", "isa-ipmi-kcs,bmc=bmc0"),
    )
