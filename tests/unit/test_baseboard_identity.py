"""What a BMC says that its node is: the same as QEMU's command line tells the guest."""

import asyncio
import json
import subprocess
from dataclasses import replace
from pathlib import Path
from shutil import which

import pytest
from samples import CLUSTER, HOST, OVMF, SETTINGS, WORKER

from placematd.baseboard import health
from placematd.baseboard.health import Readings
from placematd.baseboard.identity import Identity, bios_version, capacity, cpu_model, identity, offer, topology
from placematd.bmc.machine import Firmware, FirmwareOffer, Limits
from placematd.models import Smbios, Smp
from placematd.plan import plan


def identify(node: object = WORKER) -> Identity:
    assert isinstance(node, type(WORKER))
    cluster = replace(CLUSTER, nodes=(node,))
    summary = plan(cluster, HOST, SETTINGS).nodes[0]
    return identity(cluster, node, summary, HOST, SETTINGS, limits=Limits(), tpm_possible=True)


def qemu_words(node: object = WORKER) -> str:
    assert isinstance(node, type(WORKER))
    unit = plan(replace(CLUSTER, nodes=(node,)), HOST, SETTINGS).resources[-1]
    return repr(unit)


def test_what_the_guest_sees_is_what_the_bmc_tells() -> None:
    node = replace(WORKER, smbios=Smbios(manufacturer="cybozu", product="mk2", serial="s-1"))
    found, words = identify(node).inventory, qemu_words(node)
    assert (found.manufacturer, found.product, found.serial) == ("cybozu", "mk2", "s-1")
    assert "manufacturer=cybozu,product=mk2,serial=s-1" in words
    assert str(found.uuid) in words
    assert [nic.network for nic in found.nics] == ["net0"]
    assert all(f"mac={nic.mac}" in words for nic in found.nics)
    assert found.memory_mib == 1024
    assert identify(node).firmware == Firmware(boot_mode="Legacy", tpm=True)
    secure = replace(node, uefi=True, secure_boot=True)
    assert identify(secure).firmware == Firmware(boot_mode="UEFI", tpm=True, secure_boot=True)


def test_devices_and_disks_are_those_of_qemu() -> None:
    found, words = identify(), qemu_words()
    assert [item.disk.name for item in found.disks] == ["root", "data"]  # the shared directory is no disk
    assert found.devices.disks == ("disk0", "disk1")
    assert all(f"id={device}" in words for device in found.devices.all)
    assert all(str(item.path) in words for item in found.disks)
    assert found.offer == FirmwareOffer(boot_modes=("Legacy", "UEFI"), secure_boot=True)


def test_firmware_that_other_hosts_have() -> None:
    assert offer(replace(HOST, ovmf=None)) == FirmwareOffer(boot_modes=("Legacy",))
    assert offer(replace(HOST, ovmf=OVMF._replace(secure_vars=None))) == FirmwareOffer(boot_modes=("Legacy", "UEFI"))


@pytest.mark.parametrize(
    ("smp", "expected"),
    [
        (Smp(cpus=1), (1, 1, 1)),
        (Smp(cpus=8), (1, 8, 1)),
        (Smp(cpus=8, threads=2), (1, 4, 2)),
        (Smp(cpus=8, cores=2), (4, 2, 1)),
        (Smp(cpus=8, cores=2, sockets=2), (2, 2, 2)),
        (Smp(cpus=2, maxcpus=4), (1, 4, 1)),
        (Smp(cores=2, sockets=2, threads=2), (2, 2, 2)),
        (Smp(cpus=8, dies=2, cores=2, sockets=1), (1, 4, 2)),
    ],
)
@pytest.mark.skipif(not which("qemu-system-x86_64"), reason="apt-get install qemu-system-x86")
def test_topology_is_qemus(smp: Smp, expected: tuple[int, int, int]) -> None:
    assert topology(smp) == expected
    parts = {"cores": smp.cores, "threads": smp.threads, "dies": smp.dies, "sockets": smp.sockets}
    words = [str(smp.cpus)] if smp.cpus else []
    words += [f"{name}={value}" for name, value in (parts | {"maxcpus": smp.maxcpus}).items() if value]
    argv = ["qemu-system-x86_64", "-S", "-display", "none", "-accel", "tcg", "-nodefaults", "-smp", ",".join(words)]
    commands = '{"execute":"qmp_capabilities"}{"execute":"query-hotpluggable-cpus"}{"execute":"quit"}'
    done = subprocess.run([*argv, "-qmp", "stdio"], input=commands, text=True, capture_output=True, timeout=60)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    slots = next(answer["return"] for answer in answers if isinstance(answer.get("return"), list))
    places = [slot["props"] for slot in slots]
    sockets = {place["socket-id"] for place in places}
    cores = {(place.get("die-id"), place["core-id"]) for place in places}
    threads = {place["thread-id"] for place in places}
    assert (len(sockets), len(cores), len(threads)) == expected


def test_versions_and_names(tmp_path: Path) -> None:
    rom = tmp_path / "bios.bin"
    rom.write_bytes(b"\x00\x012.3\x00rel-1\x001.16.2-debian-1.16.2-1\x00\x00")
    assert bios_version("Legacy", rom) == "1.16.2-debian-1.16.2-1"
    assert bios_version("Legacy", tmp_path / "none") == "SeaBIOS"
    assert bios_version("UEFI") == "EDK II"
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: AMD EPYC 7B13\nmodel name\t: other\n")
    assert cpu_model("kvm", info) == "AMD EPYC 7B13"
    assert cpu_model("kvm", tmp_path / "none") == "Virtual CPU"


@pytest.mark.skipif(not which("qemu-img"), reason="apt-get install qemu-utils")
def test_capacity_is_the_virtual_size(tmp_path: Path) -> None:
    for form in ("qcow2", "raw"):
        path = tmp_path / form
        subprocess.run(["qemu-img", "create", "-q", "-f", form, str(path), "3G"], check=True)
        assert capacity(path, form) == 3 << 30
    assert capacity(tmp_path / "raw", "qcow2") == 0
    assert capacity(tmp_path / "none", "raw") == 0


def test_load_is_that_of_all_cpus_over_the_last_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.setattr(health, "TICKS", 100)
    monkeypatch.setattr(health, "BETWEEN_SECONDS", 0.0)
    process = tmp_path / "42"
    process.mkdir()
    (process / "statm").write_text("100000 65536 0 0 0 0 0\n")

    def used(ticks: int) -> None:
        fields = ["S", *["0"] * 10, str(ticks), str(ticks), *["0"] * 30]
        (process / "stat").write_text(f"42 (CPU 0) x (KVM)) {' '.join(fields)}\n")

    async def main() -> None:
        readings = Readings("n", cpus=2, memory_mib=128, proc=tmp_path)
        used(0)
        first = await readings.read(42)
        assert (first.cpu_load_percent, first.memory_used_mib) == (0, 128)  # never more than there is
        used(10_000)
        busy = await readings.read(42)
        assert busy.cpu_load_percent == 100
        assert busy.inlet_celsius > first.inlet_celsius
        assert busy.power_watts > first.power_watts
        gone = await readings.read(43)
        assert (gone.cpu_load_percent, gone.memory_used_mib, gone.power_watts) == (0, 0, 0)

    asyncio.run(main())
