"""Every field of a node, asked of the guest (kernel, firmware tables, devices) or of QEMU's monitor."""

import itertools
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from guests import Console, images
from sandboxes import Box, as_root

from tests.e2e import tpm
from tests.e2e.console import CLI, booted, entered
from tests.e2e.host import json_of, snapshot
from tests.e2e.journal import follow

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

REPOSITORY = Path(__file__).parents[2]
HERE = Path(__file__).parent / "nodes"
EXAMPLE = REPOSITORY / "examples/uefi-tpm/cluster.yml"
DMI = "/sys/class/dmi/id"
VARIABLE = "/sys/firmware/efi/efivars/PlacematTest-2b1f6a52-5c0e-4f6b-9d3a-7e0c1d8a4b61"
NON_VOLATILE = r"\x07\x00\x00\x00"  # and readable while booting and at run time (UEFI 2.10, 8.2)
SECRET = b"sealed in one run"
DATAGRAMS = 128
OFF_SECONDS = 60.0


@dataclass
class Lab:
    """Cluster `nodes`, booted, with the consoles of its nodes."""

    box: Box
    fields: Console
    alone: Console

    def node(self, name: str) -> Any:
        return json_of(self.box.run, CLI, "--cluster", "nodes", "node", "show", name, "--json")


def up(box: Box, cluster: str, file: str | Path) -> None:
    box.sh(f"mkdir -p /run/placemat; echo PLACEMAT_FILES={file} > /run/placemat/{cluster}.conf")
    box.run(["systemctl", "start", f"placemat@{cluster}"])


def down(box: Box, cluster: str) -> None:
    box.run(["systemctl", "stop", f"placemat@{cluster}"])
    box.run(["rm", f"/run/placemat/{cluster}.conf"])


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    with as_root() as box:
        yield box


@pytest.fixture(scope="module")
def lab(box: Box) -> Iterator[Lab]:
    folder = f"/run/{box.name}"
    box.sh(f"mkdir {folder}; cp {HERE}/* {folder}; cp {images().bios} {folder}/guest.img; chmod 600 {folder}/*.json")
    up(box, "nodes", f"{folder}/cluster.yml")
    with entered(box, "nodes", "fields") as fields, entered(box, "nodes", "alone") as alone:
        yield Lab(box, booted(fields), booted(alone))
    down(box, "nodes")


def numbers(text: str) -> list[int]:
    return [int(word) for word in text.split()]


# -- processors and memory --------------------------------------------------------------------------------------------


@pytest.mark.proves("Node.name", "Node.cpu", "Node.memory")
def test_processors_and_memory(lab: Lab) -> None:
    assert lab.fields.run("nproc") == "4"
    assert lab.node("fields")["name"] == "fields"
    # What firmware and the kernel's own image take is missing from MemTotal; E820 has it all.
    for guest, mebibytes in ((lab.fields, 320), (lab.alone, 256)):
        total = int(guest.run("awk '/MemTotal/ {print $2}' /proc/meminfo")) // 1024
        assert mebibytes - 64 < total < mebibytes


@pytest.mark.proves("Node.numa.nodes")
def test_numa_nodes_share_processors_and_memory(lab: Lab) -> None:
    guest = lab.fields
    assert guest.run("cat /sys/devices/system/node/online") == "0-1"
    assert guest.run("cat /sys/devices/system/node/node*/cpulist").split() == ["0-1", "2-3"]
    totals = numbers(guest.run("awk '/MemTotal/ {print $4}' /sys/devices/system/node/node*/meminfo"))
    assert len(totals) == 2
    assert all(96 << 10 < total <= 160 << 10 for total in totals)


@pytest.mark.proves(
    "Node.smp.cpus", "Node.smp.cores", "Node.smp.threads", "Node.smp.dies", "Node.smp.sockets", "Node.smp.maxcpus"
)
def test_the_topology_of_processors(lab: Lab) -> None:
    """The firmware's table has all processors; their APIC IDs have a field of bits for each part.

    Not the kernel's view: the processor that QEMU emulates without KVM tells its operating system of cores alone.
    """
    guest = lab.alone
    assert guest.run("nproc") == "4"
    assert guest.run("cat /sys/devices/system/cpu/possible") == "0-53"
    table = bytes.fromhex(guest.run("xxd -p /sys/firmware/acpi/tables/APIC | tr -d '\\n'"))
    found = local_apics(table)
    parts = itertools.product(
        range(3), range(2), range(3), range(3)
    )  # bits: 2 of socket, 1 of die, 2 of core and thread
    assert [apic for apic, _ in found] == [
        socket << 5 | die << 4 | core << 2 | thread for socket, die, core, thread in parts
    ]
    assert [usable for _, usable in found] == [True] * 4 + [False] * 50


def local_apics(table: bytes) -> list[tuple[int, bool]]:
    """APIC ID of each processor and whether it is plugged in: structures of type 0 (ACPI 6.5, 5.2.12.2)."""
    found, position = [], 44
    while position < len(table):
        kind, length = table[position], table[position + 1]
        if kind == 0:
            _, apic, flags = struct.unpack_from("<BBI", table, position + 2)
            found.append((apic, bool(flags & 1)))
        position += length
    return found


# -- identity and configuration ---------------------------------------------------------------------------------------


@pytest.mark.proves("Node.smbios.manufacturer", "Node.smbios.product", "Node.smbios.serial")
def test_system_information(lab: Lab) -> None:
    assert lab.fields.run(f"cat {DMI}/sys_vendor") == "Manu, facturer & Sons"
    assert lab.fields.run(f"cat {DMI}/product_name") == "Pro=duct $1"
    assert lab.fields.run(f"cat {DMI}/product_serial") == "SER-42"
    default = lab.alone.run(f"cat {DMI}/product_serial")
    assert re.fullmatch("[0-9a-f]{40}", default)
    assert default == lab.node("alone")["smbios"]["serial"]


@pytest.mark.proves("Node.ignition")
def test_ignition_reaches_the_guest_and_nobody_else(lab: Lab) -> None:
    guest, item = lab.fields, "/sys/firmware/qemu_fw_cfg/by_name/opt/com.coreos/config"
    expected = (HERE / "ignition.json").read_bytes()
    assert bytes.fromhex(guest.run(f"xxd -p {item}/raw | tr -d '\\n'")) == expected
    assert lab.alone.run("ls /sys/firmware/qemu_fw_cfg/by_name/opt 2>/dev/null | wc -l") == "0"


# -- NICs -------------------------------------------------------------------------------------------------------------


@pytest.mark.proves("Node.interfaces")
def test_two_nics_on_one_network_both_work(lab: Lab) -> None:
    guest, box = lab.fields, lab.box
    guest.run("killall udhcpc; sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.rp_filter=0")
    macs = [guest.run(f"cat /sys/class/net/{link}/address") for link in ("ens3", "ens4")]
    assert macs == [interface["mac"] for interface in lab.node("fields")["interfaces"]]
    assert len(set(macs)) == 2
    for number, (link, mac) in enumerate(zip(("ens3", "ens4"), macs, strict=True)):
        guest.run(f"ip address add 10.0.{number}.2/24 dev {link}")
        guest.run(f"ping -c 1 -W 10 -I {link} 10.0.{number}.1")
        box.run(["ping", "-c", "1", "-W", "10", f"10.0.{number}.2"])
        assert box.sh(f"ip neighbour show 10.0.{number}.2").split()[4] == mac


@pytest.mark.proves("Node.interfaces")
def test_a_node_without_interfaces_has_no_nic_at_all(lab: Lab) -> None:
    assert lab.alone.run("ls /sys/class/net") == "lo"
    assert "0x020000" not in lab.alone.run("cat /sys/bus/pci/devices/*/class")


@pytest.mark.proves("Node.network-device-queue")
def test_every_queue_of_a_nic_is_alive(lab: Lab) -> None:
    """Flows are spread over queues by a hash: were one of four dead, a quarter of the flows would be lost."""
    guest, box = lab.fields, lab.box
    queues = guest.run("ls /sys/class/net/ens3/queues").split()
    assert sorted(queues) == [f"{way}-{number}" for way in ("rx", "tx") for number in range(4)]
    sent = (
        "import socket\n"
        f"for _ in range({DATAGRAMS}):\n"
        "    flow = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "    flow.sendto(b'x', ('10.0.0.2', 9))\n"
    )
    before = no_ports(guest)
    box.run(["python3", "-W", "ignore", "-c", sent])
    box.run(["ping", "-c", "1", "-W", "10", "10.0.0.2"])
    assert no_ports(guest) - before == DATAGRAMS
    used = guest.run("grep -E 'virtio0-input' /proc/interrupts | awk '{print $2 + $3 + $4 + $5}'")
    assert all(count > 0 for count in numbers(used)), used
    assert len(numbers(used)) == 4


def no_ports(guest: Console) -> int:
    """Datagrams that arrived at a port on which nobody listens."""
    return int(guest.run("awk '/^Udp: [0-9]/ {print $3}' /proc/net/snmp"))


# -- power ------------------------------------------------------------------------------------------------------------


def test_a_guest_that_powers_itself_off_leaves_a_node_to_start_again(lab: Lab) -> None:
    lab.fields.send("poweroff\n")
    lab.fields.expect("console disconnected")
    with follow(lab.box.popen, "_SYSTEMD_UNIT=placemat@nodes.service") as cluster:
        cluster.wait("node fields: power Off", OFF_SECONDS)
    assert lab.node("fields")["power"] == "Off"
    lab.box.run([CLI, "--cluster", "nodes", "node", "start", "fields"])
    booted(lab.fields)
    assert lab.node("fields")["power"] == "On"


# -- UEFI and TPM -----------------------------------------------------------------------------------------------------


@pytest.mark.proves("Node.uefi", "Node.tpm")
def test_uefi_variables_and_what_the_tpm_keeps_outlive_the_node_and_the_cluster(box: Box) -> None:
    images()
    before = snapshot(box.run)
    up(box, "uefi-tpm", EXAMPLE)
    with entered(box, "uefi-tpm", "server") as guest:
        booted(guest)
        guest.run(f"printf '{NON_VOLATILE}kept' > {VARIABLE}")
        tpm.answers(guest.run(tpm.shell(tpm.seal(SECRET), tpm.keep())))
        remembers(guest)

        box.run([CLI, "--cluster", "uefi-tpm", "node", "stop", "server"])
        box.run([CLI, "--cluster", "uefi-tpm", "node", "start", "server"])
        remembers(booted(guest))
    down(box, "uefi-tpm")
    assert snapshot(box.run) == before

    up(box, "uefi-tpm", EXAMPLE)
    with entered(box, "uefi-tpm", "server") as guest:
        remembers(booted(guest))
        assert guest.run(f"cat {DMI}/product_name") == "UEFI and TPM example"
    down(box, "uefi-tpm")


def remembers(guest: Console) -> None:
    assert guest.run("cat /sys/firmware/efi/fw_platform_size") == "64"
    assert guest.run(f"tail -c 4 {VARIABLE}") == "kept"
    assert guest.run("cat /sys/class/tpm/tpm0/tpm_version_major") == "2"
    (answer,) = tpm.answers(guest.run(tpm.shell(tpm.unseal())))
    assert tpm.unsealed(answer) == SECRET
