"""What QEMU takes: CPU topology, NUMA, memory, PCI slots; what a bridge takes; images and volumes.

Measured with QEMU 7.2 and its machine type pc-i440fx.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from math import prod

from ..errors import Mistake
from ..models import CPUS, Cluster, Image, ImageVolume, Node, RawVolume, Smp, VolumeBase
from .mistakes import At, inside

PCI_SLOTS_FREE = 27
"""32 slots of the i440fx's bus, less host bridge, PIIX3, VGA, virtio-serial and virtio-rng; each NIC, disk and shared
directory takes one. With 28 QEMU 7.2 says "PCI: no slot/function available"."""

BRIDGE_PORTS = 1023
"""BR_MAX_PORTS in the kernel's net/bridge/br_private.h is 1 << 10, and port 0 is not used."""

DEFAULT_MEMORY_BYTES = 128 << 20
"""What QEMU gives a machine without -m."""

_PARTS = ("sockets", "dies", "cores", "threads")
_SUSPICIOUSLY_SMALL_BYTES = 1 << 20
_UNITS = {"B": 0, "K": 10, "M": 20, "G": 30, "T": 40, "P": 50}


def check(cluster: Cluster) -> Iterator[Mistake]:
    """Nodes and images that could not be started, networks with too many ports."""
    for node in cluster.nodes:
        yield from _cpus(node)
        yield from _numa(node)
        yield from _memory(node)
        yield from _firmware(node)
        yield from _pci(node)
        yield from _volumes(node)
    for image in cluster.images:
        yield from _image(image)
    yield from _ports(cluster)


def size_bytes(text: str, plain_unit: str = "B") -> int:
    """The bytes that a size stands for; `plain_unit` is what a plain number counts. Raises ValueError."""
    match = re.fullmatch(r"([0-9]+(?:[.][0-9]+)?)([BKMGTP]?)", text.upper())
    if not match:
        raise ValueError(f"{text}: not a size")
    number, unit = match.groups()
    factor = 1 << _UNITS[unit or plain_unit]
    return int(number) * factor if number.isdigit() else int(float(number) * factor)


def _cpus(node: Node) -> Iterator[Mistake]:
    at = At(node)
    if not at.readable("cpu", "smp"):
        return
    if node.cpu is None and node.smp is None:
        yield at.error("", 'missing key "cpu" or "smp"', "cpu: 2 gives the node two CPUs")
    elif node.cpu is not None and node.smp is not None:
        yield at.error("smp", 'both "cpu" and "smp" are written, expected one of them', "cpu is short for smp.cpus")
    elif node.smp and At(node, node.smp).readable(*vars(Smp())):
        yield from _topology(At(node, node.smp, "smp"), node.smp)


def _topology(at: At, smp: Smp) -> Iterator[Mistake]:
    if not smp.cpus:
        if "cpus" not in smp.marks:
            cpus = prod(getattr(smp, name) or 1 for name in _PARTS)
            yield at.error("", 'missing key "cpus"', f"such as cpus: {cpus}")
        return
    if any(not 0 <= getattr(smp, name) <= (CPUS.maximum or 0) for name in ("cpus", "maxcpus", *_PARTS)):
        return  # the rules of the fields report that
    full = qemu_topology(smp)
    product = prod(getattr(full, name) for name in _PARTS)
    if product != full.maxcpus:
        written = [f"{name}: {getattr(smp, name)}" for name in _PARTS if getattr(smp, name)]
        what = "maxcpus" if smp.maxcpus else "cpus"
        hint = f"{' * '.join(_PARTS)} is {what}, and what is not written is computed from it"
        yield at.error("", f"{', '.join(written)} cannot make {full.maxcpus} CPUs", hint)
    elif full.maxcpus < smp.cpus:
        yield at.error("maxcpus", f"maxcpus: expected at least as many as cpus ({smp.cpus}), found {smp.maxcpus}")


def qemu_topology(smp: Smp) -> Smp:
    """The parts that QEMU fills in (machine_parse_smp_config in its hw/core/machine-smp.c, since 6.2)."""
    full = replace(smp, dies=smp.dies or 1, maxcpus=smp.maxcpus or smp.cpus)
    if not full.cores:
        full = replace(full, sockets=full.sockets or 1, threads=full.threads or 1)
        full = replace(full, cores=full.maxcpus // (full.sockets * full.dies * full.threads))
    elif not full.sockets:
        full = replace(full, threads=full.threads or 1)
        full = replace(full, sockets=full.maxcpus // (full.dies * full.cores * full.threads))
    if not full.threads:
        full = replace(full, threads=full.maxcpus // (full.sockets * full.dies * full.cores))
    return full


def _numa(node: Node) -> Iterator[Mistake]:
    at, nodes = At(node, node.numa, "numa"), node.numa.nodes
    if not At(node).readable("cpu", "smp", "memory") or nodes <= 1:
        return
    cpus = node.topology.cpus
    if 0 < cpus < nodes:
        yield at.error("nodes", f"nodes: expected at most {cpus}, one for each CPU, found {nodes}")
    try:
        memory = size_bytes(node.memory, "M") if node.memory else DEFAULT_MEMORY_BYTES
    except ValueError:
        return  # the rule of the field reports that
    if memory < nodes << 20:
        found = node.memory or "QEMU's default, 128 MiB"
        yield at.error("nodes", f"nodes: expected at least 1 MiB of memory for each of {nodes}, found {found}")


def _memory(node: Node) -> Iterator[Mistake]:
    if re.fullmatch("[0.]+[A-Za-z]?", node.memory):
        yield At(node).error("memory", "memory: expected more than 0", "leave the key out for QEMU's default, 128 MiB")


def _firmware(node: Node) -> Iterator[Mistake]:
    at = At(node)
    if at.readable("uefi", "secure_boot") and node.secure_boot and not node.uefi:
        yield at.error("secure_boot", "secure-boot: only UEFI firmware has it", "write uefi: true too")


def _pci(node: Node) -> Iterator[Mistake]:
    nics, volumes = len(node.interfaces), len(node.volumes)
    if nics + volumes > PCI_SLOTS_FREE:
        message = f"{nics} interfaces and {volumes} volumes, expected at most {PCI_SLOTS_FREE} together"
        yield At(node).error("volumes" if volumes > nics else "interfaces", message, "each takes a slot of the PCI bus")


def _volumes(node: Node) -> Iterator[Mistake]:
    for at, volume in inside(node, VolumeBase):
        if isinstance(volume, RawVolume | ImageVolume) and volume.size:
            try:
                size = size_bytes(volume.size)
            except ValueError:
                continue  # the rule of the field reports that
            if size == 0 or size >= 1 << 63:
                yield at.error("size", f"size: expected more than 0 and less than 8 exbibytes, found {volume.size}")
            elif size < _SUSPICIOUSLY_SMALL_BYTES:
                hint = f'did you mean "{volume.size}G"?' if volume.size.isdigit() else ""
                yield at.warning("size", f"size: {volume.size} is only {size} bytes", hint)


def _image(image: Image) -> Iterator[Mistake]:
    at = At(image)
    if not at.readable("url", "file"):
        return
    if image.url and image.file:
        yield at.error("file", 'both "url" and "file" are written, expected one of them')
    elif not image.url and not image.file and "url" not in image.marks:
        yield at.error("", 'missing key "url" or "file"', "where the image comes from")


def _ports(cluster: Cluster) -> Iterator[Mistake]:
    ports = Counter(name for node in cluster.nodes for name in node.interfaces)
    ports.update(interface.network for namespace in cluster.namespaces for interface in namespace.interfaces)
    for network in cluster.networks:
        if ports[network.name] > BRIDGE_PORTS:
            message = f"{ports[network.name]} interfaces are attached, expected at most {BRIDGE_PORTS}"
            yield At(network).error("name", message, "a Linux bridge has no more ports; split the network in two")
