"""The planned command line given to a real QEMU, and QEMU asked what it made of it (TCG, in a private network)."""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from placematd import qemu
from placematd.facts import Ovmf
from placematd.models import Smbios, Smp
from placematd.names import NodePaths
from placematd.qemu import Disk, Machine, Nic, Share

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not shutil.which("qemu-system-x86_64"), reason="needs qemu-system-x86"),
]

OVMF = Ovmf(Path("/usr/share/OVMF/OVMF_CODE_4M.fd"), Path("/usr/share/OVMF/OVMF_VARS_4M.fd"))
DEADLINE_SECONDS = 30
SETUP = """
set -e
ip link set lo up
ip tuntap add pmt-a mode tap vnet_hdr
ip tuntap add pmt-b mode tap vnet_hdr
ip tuntap add pmt-q mode tap multi_queue vnet_hdr
for tap in pmt-a pmt-b pmt-q; do ip link set $tap up; done
echo ready
exec sleep infinity
"""


class Qemu:
    """A running QEMU and its monitor."""

    def __init__(self, process: subprocess.Popen[bytes], path: Path) -> None:
        self.process = process
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(DEADLINE_SECONDS)
        self._lines = self._socket.makefile("rw")
        try:
            self._connect(path)
            self._lines.readline()
            self.ask("qmp_capabilities")
        except BaseException:
            self.close()
            raise

    def _connect(self, path: Path) -> None:
        """QEMU makes its sockets before it answers on any; while there is none, it must at least be running."""
        while True:
            try:
                self._socket.connect(str(path))
                return
            except (FileNotFoundError, ConnectionRefusedError):
                with pytest.raises(subprocess.TimeoutExpired):
                    self.process.wait(0.05)

    def ask(self, command: str, **arguments: object) -> Any:
        """The answer to a QMP command."""
        self._lines.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._lines.flush()
        while "return" not in (answer := json.loads(self._lines.readline())):
            assert "error" not in answer, answer
        return answer["return"]

    def info(self, topic: str) -> str:
        """What `info TOPIC` prints on the human monitor."""
        return str(self.ask("human-monitor-command", **{"command-line": f"info {topic}"}))

    def pci(self) -> list[tuple[int, str]]:
        """(slot, PCI id) of the devices on bus 0, without the chipset in slots 0 and 1."""
        (bus,) = self.ask("query-pci")
        ids = [(item["slot"], f"{item['id']['vendor']:04x}:{item['id']['device']:04x}") for item in bus["devices"]]
        return [item for item in ids if item[0] > 1]

    def close(self) -> None:
        """End it."""
        self._lines.close()
        self._socket.close()
        self.process.terminate()
        self.process.wait(DEADLINE_SECONDS)


Boot = Callable[..., Qemu]


@pytest.fixture(scope="module")
def network() -> Iterator[int]:
    """The process that holds a private network with three taps."""
    argv = ["unshare", "--net", "--mount", "sh", "-c", SETUP]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        try:
            assert holder.stdout.readline() == b"ready\n"
            yield holder.pid
        finally:
            holder.kill()


@pytest.fixture
def boot(network: int) -> Iterator[Boot]:
    """Start QEMU in the private network; its CPUs are stopped."""
    with ExitStack() as stack:

        def start(machine: Machine, *options: str) -> Qemu:
            argv = ["nsenter", f"--net=/proc/{network}/ns/net", "--", *qemu.argv(machine), *options]
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
            stack.callback(process.kill)
            running = Qemu(process, machine.paths.qmp)
            stack.callback(running.close)
            return running

        yield start


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A small machine with the directories it needs, in a path with a comma in it."""
    paths = NodePaths(tmp_path / "a,b" / "node" / "n")
    for directory in (paths.directory, paths.log.parent, paths.tpm.parent):
        directory.mkdir(parents=True)
    os.mkfifo(paths.log)
    return Machine(
        qemu=Path("/usr/bin/qemu-system-x86_64"),
        name="worker-1",
        uuid="7fd3c125-f232-59f7-8dee-435420ea5a71",
        accelerator="tcg",
        smp=Smp(cpus=1),
        smbios=Smbios(serial="s"),
        paths=paths,
    )


@pytest.fixture
def log(machine: Machine) -> Iterator[int]:
    """The console's FIFO, held open as systemd does it."""
    descriptor = os.open(machine.paths.log, os.O_RDWR | os.O_NONBLOCK)
    os.set_blocking(descriptor, True)
    yield descriptor
    os.close(descriptor)


def disk(path: Path, image_format: str) -> Disk:
    path.parent.mkdir(exist_ok=True)
    subprocess.run(["qemu-img", "create", "-q", "-f", image_format, path, "1M"], check=True)
    return Disk(path=path, format=image_format, cache="writeback")


VGA, NIC, SHARE, SERIAL, RNG, DISK = "1234:1111", "1af4:1000", "1af4:1009", "1af4:1003", "1af4:1005", "1af4:1001"


def test_pci_layout_is_v2s(boot: Boot, machine: Machine, log: int, tmp_path: Path) -> None:
    """Cloud-init files name ens3, the NIC in slot 3."""
    nics = (
        Nic(tap="pmt-a", mac="52:54:00:00:00:0a", mtu=1460),
        Nic(tap="pmt-b", mac="52:54:00:00:00:0b", mtu=1500),
        Nic(tap="pmt-q", mac="52:54:00:00:00:0c", mtu=1500, queues=4),
    )
    storage = (
        disk(tmp_path / "v,v" / "root.img", "qcow2"),
        Share(path=tmp_path, tag="0 odd, tag", writable=False),
        disk(tmp_path / "v,v" / "raw.img", "raw"),
    )
    guest = boot(replace(machine, nics=nics, storage=storage))
    assert guest.pci() == [
        *((2, VGA), (3, NIC), (4, NIC), (5, NIC)),
        *((6, SHARE), (7, SERIAL), (8, RNG), (9, DISK), (10, DISK)),
    ]
    network = guest.info("network")
    for number, nic in enumerate(nics):
        assert f"net{number}: index=0,type=tap,ifname={nic.tap}" in network
        assert f"macaddr={nic.mac}" in network
    assert "net2: index=3,type=tap" in network
    blocks = [item["inserted"] for item in guest.ask("query-block") if "inserted" in item]
    assert [(Path(item["file"]).name, item["drv"]) for item in blocks] == [("root.img", "qcow2"), ("raw.img", "raw")]


def test_no_nic_is_none(boot: Boot, machine: Machine, log: int) -> None:
    guest = boot(machine)
    assert guest.pci() == [(2, VGA), (3, SERIAL), (4, RNG)]
    assert guest.info("network") == ""


@pytest.mark.parametrize(
    ("smp", "memory", "nodes", "expected"),
    [
        (Smp(cpus=3), "257M", 2, {"node 0 cpus: 0 1", "node 0 size: 128 MB", "node 1 cpus: 2", "node 1 size: 129 MB"}),
        (Smp(cpus=2, maxcpus=4), "", 2, {"node 0 cpus: 0", "node 1 cpus: 1", "node 1 size: 64 MB"}),
        (Smp(cpus=1), "128", 2, {"node 0 cpus: 0", "node 1 cpus:", "node 1 size: 64 MB"}),
        (Smp(cores=2, sockets=2), "64M", 2, {"node 0 cpus: 0 1", "node 1 cpus: 2 3"}),
    ],
)
def test_numa(boot: Boot, machine: Machine, log: int, smp: Smp, memory: str, nodes: int, expected: set[str]) -> None:
    """QEMU since 5.2 refuses what placemat v2 gave it: NUMA nodes without memory."""
    guest = boot(replace(machine, smp=smp, memory=memory, numa_nodes=nodes))
    assert expected <= {line.rstrip() for line in guest.info("numa").splitlines()}
    assert len(guest.ask("query-cpus-fast")) == qemu.cpu_counts(smp)[0]


def test_identity(boot: Boot, machine: Machine, log: int) -> None:
    guest = boot(replace(machine, name="a,b"))
    assert guest.ask("query-name") == {"name": "a,b"}
    assert guest.ask("query-uuid") == {"UUID": machine.uuid}


def test_sockets(boot: Boot, machine: Machine, log: int) -> None:
    """No monitor on standard input and output, and every socket where the paths say."""
    chardevs = {item["label"]: item["filename"] for item in boot(machine).ask("query-chardev")}
    assert set(chardevs) == {"console", "char0", "ipmi0", "compat_monitor0", "parallel0"}
    assert str(machine.paths.console) in chardevs["console"]
    assert str(machine.paths.guest) in chardevs["char0"]


def test_console_goes_to_the_fifo_and_to_people(boot: Boot, machine: Machine, log: int) -> None:
    boot(machine).ask("cont")
    text = b""
    while b"SeaBIOS" not in text or machine.uuid.encode() not in text:
        chunk = os.read(log, 4096)
        assert chunk
        text += chunk


def test_uefi(boot: Boot, machine: Machine, log: int, tmp_path: Path) -> None:
    if not OVMF.code.exists():
        pytest.skip("needs ovmf")
    firmware = OVMF._replace(vars=tmp_path / "efivars.fd")
    shutil.copy(OVMF.vars, firmware.vars)
    nics = (Nic(tap="pmt-a", mac="52:54:00:00:00:0a", mtu=1500),)
    guest = boot(replace(machine, firmware=firmware, nics=nics))
    flash = {
        item["device"]: item["inserted"] for item in guest.ask("query-block") if item["device"].startswith("pflash")
    }
    assert (flash["pflash0"]["file"], flash["pflash0"]["ro"]) == (str(OVMF.code), True)
    assert (flash["pflash1"]["file"], flash["pflash1"]["ro"]) == (str(firmware.vars), False)
    assert guest.pci()[:2] == [(2, VGA), (3, NIC)]


def test_tpm(boot: Boot, machine: Machine, log: int, tmp_path: Path) -> None:
    """swtpm gets its socket as systemd hands it over: listening already, as descriptor 3."""
    if not shutil.which("swtpm"):
        pytest.skip("needs swtpm")
    swtpm = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={tmp_path}", "--ctrl", "type=unixio,fd=3", "--terminate"]
    argv = ["systemd-socket-activate", f"--listen={machine.paths.tpm}", *swtpm]
    with subprocess.Popen(argv, stderr=subprocess.PIPE) as activated:
        assert activated.stderr
        assert b"Listening on" in activated.stderr.readline()
        try:
            guest = boot(replace(machine, tpm=True))
            (tpm,) = guest.ask("query-tpm")
            assert (tpm["model"], tpm["options"]["type"]) == ("tpm-tis", "emulator")
            guest.ask("quit")
            assert activated.wait(DEADLINE_SECONDS) == 0, "swtpm ends with its QEMU"
        finally:
            activated.kill()


def test_ignition(boot: Boot, machine: Machine, log: int, tmp_path: Path) -> None:
    ignition = tmp_path / "a,b.ign"
    ignition.write_text("{}")
    assert boot(replace(machine, ignition=ignition)).ask("query-status")["running"] is False
