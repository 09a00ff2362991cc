"""The rules of validation about QEMU, against QEMU: what one refuses, so does the other."""

import random
import shutil
import subprocess
from itertools import product

import pytest

from placematd.models import Cluster, Network, Node, Smp
from placematd.validate import validate
from placematd.validate.machines import PCI_SLOTS_FREE

QEMU = "qemu-system-x86_64"
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not shutil.which(QEMU), reason=f"{QEMU} is missing: apt-get install qemu-system-x86"),
]

TOPOLOGIES = random.Random(20260401).sample(
    list(product((1, 2, 4, 6, 8), (0, 1, 2, 3), (0, 1, 2), (0, 1, 2), (0, 1, 2), (0, 4, 8))), 40
)
DEVICES = (
    "-device",
    "virtio-serial",
    "-object",
    "rng-random,id=r,filename=/dev/urandom",
    "-device",
    "virtio-rng-pci,rng=r",
)


def qemu_takes(*arguments: str) -> bool:
    """Whether QEMU starts with these arguments; it is told to quit at once."""
    argv = [QEMU, "-accel", "tcg", "-S", "-nographic", "-serial", "null", "-monitor", "stdio", *arguments]
    result = subprocess.run(argv, input="quit\n", text=True, capture_output=True, timeout=60, check=False)
    return result.returncode == 0


def placemat_takes(**fields: object) -> bool:
    node = Node(name="n", **fields)  # type: ignore[arg-type]
    return validate(Cluster(name="c", networks=(Network(name="net0", type="internal"),), nodes=(node,))) == ()


@pytest.mark.parametrize("parts", TOPOLOGIES, ids=str)
def test_cpu_topologies(parts: tuple[int, ...]) -> None:
    smp = Smp(**dict(zip(("cpus", "cores", "threads", "dies", "sockets", "maxcpus"), parts, strict=True)))
    written = [f"{key}={value}" for key, value in vars(smp).items() if isinstance(value, int) and value]
    assert placemat_takes(smp=smp) == qemu_takes("-m", "64", "-smp", ",".join(written))


@pytest.mark.parametrize("cpus", [255, 256])
def test_the_number_of_cpus(cpus: int) -> None:
    assert placemat_takes(cpu=cpus) == qemu_takes("-m", "64", "-smp", str(cpus)) == (cpus == 255)


@pytest.mark.parametrize(
    "memory", ["128", "64M", "0.125G", "70000K", "2GB", "2GiB", "64.5", "lots", "1e3", "-1", "64m"]
)
def test_amounts_of_memory(memory: str) -> None:
    assert placemat_takes(cpu=1, memory=memory) == qemu_takes("-m", memory)


@pytest.mark.parametrize("nics", [PCI_SLOTS_FREE, PCI_SLOTS_FREE + 1])
def test_the_number_of_pci_slots(nics: int) -> None:
    devices = (("-netdev", f"user,id=n{nic}", "-device", f"virtio-net-pci,netdev=n{nic}") for nic in range(nics))
    taken = qemu_takes("-m", "64", *(word for device in devices for word in device), *DEVICES)
    assert placemat_takes(cpu=1, interfaces=("net0",) * nics) == taken == (nics == PCI_SLOTS_FREE)


@pytest.mark.parametrize("tag", ["t" * 31, "t" * 32])
def test_the_length_of_a_mount_tag(tag: str, tmp_path: object) -> None:
    taken = qemu_takes("-m", "64", "-virtfs", f"local,path={tmp_path},mount_tag={tag},security_model=none")
    assert taken == (len(tag) == 31)
