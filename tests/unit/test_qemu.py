"""The QEMU command line: placemat v2's order (spec 5.1), with what was wrong in it corrected."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from samples import OVMF

from placematd import qemu
from placematd.models import Smbios, Smp
from placematd.names import NodePaths
from placematd.qemu import Disk, Machine, Nic, Share

MACHINE = Machine(
    qemu=Path("/usr/bin/qemu-system-x86_64"),
    name="worker-1",
    uuid="7fd3c125-f232-59f7-8dee-435420ea5a71",
    accelerator="kvm",
    smp=Smp(cpus=2),
    memory="2G",
    smbios=Smbios(serial="1234abcd"),
    nics=(Nic(tap="pmt-a", mac="52:54:00:00:00:01", mtu=1460),),
    paths=NodePaths(Path("/run/placemat/dc/node/worker-1")),
)


def options(argv: tuple[str, ...]) -> list[str]:
    """The names of all options, in order."""
    return [word for word in argv if word.startswith("-")]


def values(argv: tuple[str, ...], option: str) -> list[str]:
    """The values of one option, in order."""
    return [value for name, value in pairwise(argv) if name == option]


def test_whole_command_line_in_v2s_order() -> None:
    machine = replace(
        MACHINE,
        firmware=OVMF,
        ignition=Path("/run/credentials/u/ignition"),
        tpm=True,
        numa_nodes=1,
        vhost_net=True,
        nics=(Nic(tap="pmt-a", mac="52:54:00:00:00:01", mtu=1460, queues=4),),
        storage=(
            Disk(path=Path("/v/root.img"), format="qcow2", cache="none"),
            Share(path=Path("/srv"), tag="data", writable=False),
            Disk(path=Path("/v/seed.img"), format="raw", cache="writeback"),
        ),
    )
    run = "/run/placemat/dc"
    assert list(qemu.argv(machine)) == [
        *("/usr/bin/qemu-system-x86_64", "-enable-kvm"),
        *("-fw_cfg", "opt/com.coreos/config,file=/run/credentials/u/ignition"),
        *("-smp", "2", "-m", "2G"),
        *("-object", "memory-backend-ram,id=mem0,size=2048M", "-numa", "node,nodeid=0,cpus=0-1,memdev=mem0"),
        *("-nographic", "-monitor", "none", "-chardev"),
        f"socket,id=console,path={run}/node/worker-1/console,server=on,wait=off,logfile={run}/log/worker-1,logappend=on",
        *("-serial", "chardev:console"),
        *("-drive", f"if=pflash,unit=0,file={OVMF.code},format=raw,readonly=on"),
        *("-drive", f"if=pflash,unit=1,file={OVMF.vars},format=raw"),
        *("-smbios", "type=1,serial=1234abcd"),
        *("-netdev", "tap,id=net0,ifname=pmt-a,script=no,downscript=no,vhost=on,queues=4"),
        "-device",
        "virtio-net-pci,host_mtu=1460,netdev=net0,mac=52:54:00:00:00:01,id=nic0,mq=on,vectors=10,romfile=",
        *("-drive", "if=none,id=drive0,cache=none,aio=native,format=qcow2,file=/v/root.img"),
        *("-virtfs", "local,id=share1,path=/srv,mount_tag=data,security_model=none,readonly=on"),
        *("-drive", "if=none,id=drive1,cache=writeback,aio=threads,format=raw,file=/v/seed.img"),
        *("-device", "ide-cd,bus=ide.1,unit=0,id=cd0"),
        *("-chardev", f"socket,id=chrtpm,path={run}/tpm/worker-1", "-tpmdev", "emulator,id=tpm0,chardev=chrtpm"),
        *("-device", "tpm-tis,tpmdev=tpm0"),
        *("-boot", "reboot-timeout=30000"),
        *("-chardev", f"socket,id=char0,path={run}/node/worker-1/guest,server=on,wait=off"),
        *("-device", "virtio-serial", "-device", "virtserialport,chardev=char0,name=placemat"),
        *("-chardev", f"socket,id=ipmi0,path={run}/node/worker-1/ipmi,server=on,wait=off"),
        *("-device", "ipmi-bmc-extern,id=bmc0,chardev=ipmi0", "-device", "isa-ipmi-kcs,bmc=bmc0"),
        *("-qmp", f"unix:{run}/node/worker-1/qmp,server=on,wait=off"),
        *("-object", "rng-random,id=rng0,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng0"),
        *("-cpu", "host"),
        *("-name", "guest=worker-1,debug-threads=on", "-uuid", machine.uuid),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        *("-device", "virtio-blk-pci,drive=drive0,id=disk0", "-device", "virtio-blk-pci,drive=drive1,id=disk1"),
        "-S",
    ]


def test_only_what_was_asked_for() -> None:
    argv = qemu.argv(replace(MACHINE, memory="", smp=Smp()))
    assert {"-fw_cfg", "-smp", "-m", "-numa", "-drive", "-virtfs", "-tpmdev"}.isdisjoint(options(argv))


def test_power_off_ends_qemu() -> None:
    assert "-no-shutdown" not in qemu.argv(MACHINE)


def test_tcg() -> None:
    argv = qemu.argv(replace(MACHINE, accelerator="tcg"))
    assert argv[1:3] == ("-accel", "tcg")
    assert "-enable-kvm" not in argv
    assert values(argv, "-cpu") == ["max"]


@pytest.mark.parametrize(
    ("smp", "expected", "boot", "total"),
    [
        (Smp(cpus=3), ["3"], 3, 3),
        (Smp(cpus=2, maxcpus=8), ["2,maxcpus=8"], 2, 8),
        (Smp(cpus=8, cores=2, threads=2, dies=1, sockets=2), ["8,cores=2,threads=2,dies=1,sockets=2"], 8, 8),
        (Smp(cores=4, sockets=2), ["cores=4,sockets=2"], 8, 8),
        (Smp(maxcpus=4), ["maxcpus=4"], 4, 4),
    ],
)
def test_smp(smp: Smp, expected: list[str], boot: int, total: int) -> None:
    assert values(qemu.argv(replace(MACHINE, smp=smp)), "-smp") == expected
    assert qemu.cpu_counts(smp) == (boot, total)


# -- NUMA -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "smp", "memory", "cpus", "sizes"),
    [
        (2, Smp(cpus=4), "1G", ["cpus=0-1", "cpus=2-3"], ["512M", "512M"]),
        (2, Smp(cpus=5), "1G", ["cpus=0-2", "cpus=3-4"], ["512M", "512M"]),
        (3, Smp(cpus=3), "1G", ["cpus=0", "cpus=1", "cpus=2"], ["341M", "341M", "342M"]),
        (2, Smp(cpus=1), "", ["cpus=0", ""], ["64M", "64M"]),
        (2, Smp(cpus=2, maxcpus=4), "256", ["cpus=0,cpus=2", "cpus=1,cpus=3"], ["128M", "128M"]),
        (2, Smp(cpus=2), "3000K", ["cpus=0", "cpus=1"], ["1M", "2023424B"]),
        (2, Smp(cpus=2), "1.5G", ["cpus=0", "cpus=1"], ["768M", "768M"]),
    ],
)
def test_numa_gives_out_all_cpus_and_all_memory(
    nodes: int, smp: Smp, memory: str, cpus: list[str], sizes: list[str]
) -> None:
    argv = qemu.numa(nodes, smp, memory)
    assert values(argv, "-object") == [f"memory-backend-ram,id=mem{i},size={size}" for i, size in enumerate(sizes)]
    assert values(argv, "-numa") == [
        ",".join(["node", f"nodeid={i}", *([part] if part else []), f"memdev=mem{i}"]) for i, part in enumerate(cpus)
    ]


@pytest.mark.parametrize(
    ("text", "size"),
    [("2048", 2 << 30), ("2G", 2 << 30), ("512m", 512 << 20), ("", 128 << 20), ("1T", 1 << 40), ("4096b", 4096)],
)
def test_memory_bytes(text: str, size: int) -> None:
    assert qemu.memory_bytes(text) == size


@pytest.mark.parametrize("text", ["lots", "2 G", "-1", "2GiB", "1,5G"])
def test_memory_that_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="not an amount of memory"):
        qemu.memory_bytes(text)


# -- NICs -------------------------------------------------------------------------------------------------------------


def test_no_nic_means_none() -> None:
    argv = qemu.argv(replace(MACHINE, nics=()))
    assert values(argv, "-nic") == ["none"]
    assert "-netdev" not in argv


def test_several_nics_get_identifiers_of_their_own() -> None:
    nics = tuple(Nic(tap=f"pmt-{letter}", mac="52:54:00:00:00:01", mtu=1500) for letter in "abc")
    argv = qemu.argv(replace(MACHINE, nics=nics))
    assert [value.split(",")[1] for value in values(argv, "-netdev")] == ["id=net0", "id=net1", "id=net2"]
    devices = [value for value in values(argv, "-device") if value.startswith("virtio-net-pci")]
    assert [value.split(",")[2] for value in devices] == ["netdev=net0", "netdev=net1", "netdev=net2"]


@pytest.mark.parametrize("queues", [0, 1])
def test_one_queue_is_no_multiqueue(queues: int) -> None:
    nic = Nic(tap="pmt-a", mac="52:54:00:00:00:01", mtu=1500, queues=queues)
    words = " ".join(qemu.argv(replace(MACHINE, nics=(nic,))))
    assert "queues=" not in words
    assert "mq=on" not in words


def test_vhost_only_where_the_host_has_it() -> None:
    assert "vhost" not in " ".join(qemu.argv(MACHINE))


def test_ipxe_rom_stays_without_uefi() -> None:
    assert "romfile" not in " ".join(qemu.argv(MACHINE))


# -- volumes, SMBIOS --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cache", "aio"),
    [
        ("none", "native"),
        ("writeback", "threads"),
        ("writethrough", "threads"),
        ("directsync", "threads"),
        ("unsafe", "threads"),
    ],
)
def test_aio_follows_cache(cache: qemu.Cache, aio: str) -> None:
    argv = qemu.drive(0, Disk(path=Path("/v/a.img"), format="qcow2", cache=cache))
    assert argv == ("-drive", f"if=none,id=drive0,cache={cache},aio={aio},format=qcow2,file=/v/a.img")


def test_writable_share() -> None:
    share = qemu.share(0, Share(path=Path("/srv"), tag="data", writable=True))
    assert share == ("-virtfs", "local,id=share0,path=/srv,mount_tag=data,security_model=none")


def test_commas_are_doubled_everywhere() -> None:
    machine = replace(
        MACHINE,
        name="a,b",
        smbios=Smbios(manufacturer="Acme, Inc.", product="x,y", serial="1,2"),
        firmware=OVMF._replace(code=Path("/o,c"), vars=Path("/o,v")),
        ignition=Path("/i,g"),
        tpm=True,
        storage=(
            Disk(path=Path("/d,d"), format="raw", cache="none"),
            Share(path=Path("/s,s"), tag="t,t", writable=True),
        ),
        paths=NodePaths(Path("/run,run/c/node/n")),
    )
    words = qemu.argv(machine)
    for text in ("guest=a,,b", "manufacturer=Acme,, Inc.,product=x,,y,serial=1,,2", "file=/o,,c", "file=/o,,v"):
        assert any(text in word for word in words), text
    for text in ("file=/i,,g", "file=/d,,d", "path=/s,,s", "mount_tag=t,,t", "unix:/run,,run/c/node/n/qmp"):
        assert any(text in word for word in words), text
    for text in ("path=/run,,run/c/node/n/console", "logfile=/run,,run/c/log/n", "path=/run,,run/c/tpm/n"):
        assert any(text in word for word in words), text
    assert "run,run" not in " ".join(words)
