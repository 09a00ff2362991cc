"""What is concluded from a machine: made of files in a directory, records of links, and mode bits."""

import os
import tempfile
from pathlib import Path

import pytest

from placematd.facts import Ovmf, Settings
from placematd.host import (
    User,
    can_read,
    choose_accelerator,
    find_ovmf,
    foreign_bridges,
    is_private,
    may_open,
    missing_tools,
    needed_tools,
    netns_files,
    observe_host,
    path_mtu,
)
from placematd.models import Cluster, HostPathVolume, Image, LocaldsVolume, Network, NetworkNamespace, Node, RawVolume
from placematd.names import OwnerMark
from placematd.network import Link

NOBODY = User(None, frozenset())


def machine(root: Path, *, flags: str = "fpu vmx sse", kvm: int | None = 0o666) -> Path:
    """A fake root; `kvm` is the mode of /dev/kvm, None for no device."""
    (root / "proc").mkdir()
    (root / "dev").mkdir()
    (root / "proc/cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: vmx_unsafe\n\nprocessor\t: 1\n")
    if kvm is not None:
        (root / "dev/kvm").touch()
        (root / "dev/kvm").chmod(kvm)
    return root


# -- acceleration -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["vmx", "svm"])
def test_kvm_with_flag_and_device(tmp_path, flag):
    assert choose_accelerator("auto", NOBODY, machine(tmp_path, flags=f"fpu {flag}")) == ("kvm", "/dev/kvm works")


def test_device_without_cpu_flag_is_not_enough(tmp_path):
    """Nested PVM: the device opens, and guests hang."""
    accelerator, reason = choose_accelerator("auto", NOBODY, machine(tmp_path, flags="fpu hypervisor xvmx"))
    assert accelerator == "tcg"
    assert reason.startswith("TCG, which is slow: no vmx or svm flag in /proc/cpuinfo")


@pytest.mark.parametrize(
    ("kvm", "reason"),
    [
        (None, "there is no /dev/kvm (modprobe kvm_intel"),
        (0o600, "user placemat-qemu may not open /dev/kvm (chgrp kvm"),
    ],
)
def test_flag_without_usable_device(tmp_path, kvm, reason):
    accelerator, said = choose_accelerator("auto", NOBODY, machine(tmp_path, kvm=kvm))
    assert (accelerator, reason in said) == ("tcg", True)


def test_device_that_does_not_open(tmp_path):
    root = machine(tmp_path, kvm=None)
    (root / "dev/kvm").mkdir(mode=0o777)
    (root / "dev/kvm").chmod(0o777)
    assert choose_accelerator("auto", NOBODY, root) == (
        "tcg",
        "TCG, which is slow: /dev/kvm does not open: Is a directory",
    )


@pytest.mark.parametrize(("setting", "flags"), [("kvm", ""), ("tcg", "vmx")])
def test_explicit_setting_wins(tmp_path, setting, flags):
    root = machine(tmp_path, flags=flags)
    assert choose_accelerator(setting, NOBODY, root) == (setting, f"PLACEMAT_ACCELERATOR={setting}")


def test_group_kvm_opens_the_device(tmp_path):
    device = machine(tmp_path, kvm=0o660) / "dev/kvm"
    assert not may_open(device, NOBODY)
    assert may_open(device, User(None, frozenset({device.stat().st_gid})))
    assert not may_open(tmp_path / "dev/vhost-net", User(0, frozenset()))


# -- firmware ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "pair"),
    [
        ((), None),
        (("OVMF/OVMF_CODE.fd", "OVMF/OVMF_VARS.fd"), 0),
        (("OVMF/OVMF_CODE_4M.fd", "OVMF/OVMF_VARS_4M.fd"), 0),
        (("OVMF/OVMF_CODE_4M.fd", "OVMF/OVMF_VARS_4M.fd", "OVMF/OVMF_CODE.fd", "OVMF/OVMF_VARS.fd"), 0),
        (("OVMF/OVMF_CODE_4M.fd", "OVMF/OVMF_VARS.fd"), None),  # layouts that do not match
        (("OVMF/OVMF_CODE_4M.fd", "OVMF/OVMF_VARS.fd", "OVMF/OVMF_CODE.fd"), 2),
        (("edk2/ovmf/OVMF_CODE.fd", "edk2/ovmf/OVMF_VARS.fd"), 0),
        (("edk2/x64/OVMF_CODE.4m.fd", "edk2/x64/OVMF_VARS.4m.fd"), 0),
        (("qemu/ovmf-x86_64-code.bin", "qemu/ovmf-x86_64-vars.bin"), 0),
    ],
)
def test_ovmf_of_each_distribution(tmp_path, files, pair):
    """`pair` is the index of the code file expected, whose variables are the file with VARS in its place."""
    share = tmp_path / "usr/share"
    for name in files:
        (share / name).parent.mkdir(parents=True, exist_ok=True)
        (share / name).touch()
    if pair is None:
        assert find_ovmf(tmp_path) is None
    else:
        code = share / files[pair]
        variables = code.with_name(code.name.replace("CODE", "VARS").replace("code", "vars"))
        assert find_ovmf(tmp_path) == Ovmf(code, variables)


@pytest.mark.parametrize(
    ("directory", "code", "variables", "secure", "possible"),
    [
        ("OVMF", "OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd", "OVMF_VARS_4M.ms.fd", True),
        ("OVMF", "OVMF_CODE.fd", "OVMF_VARS.fd", "OVMF_VARS.ms.fd", True),
        ("OVMF", "OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd", "OVMF_VARS.ms.fd", False),  # layouts that do not match
        ("edk2/ovmf", "OVMF_CODE.fd", "OVMF_VARS.fd", "OVMF_VARS.ms.fd", False),  # may have no Secure Boot
    ],
)
def test_variables_with_keys(tmp_path, directory, code, variables, secure, possible):
    share = tmp_path / "usr/share" / directory
    share.mkdir(parents=True)
    for name in (code, variables, secure):
        (share / name).touch()
    assert find_ovmf(tmp_path) == Ovmf(share / code, share / variables, share / secure if possible else None)


# -- network ----------------------------------------------------------------------------------------------------------


def link(name, kind="", *, mtu=1500, up=True, alias=""):
    return Link(index=2, name=name, kind=kind, alias=alias, mac="", mtu=mtu, up=up, master=0)


LO = link("lo", mtu=65536)


@pytest.mark.parametrize(
    ("uplinks", "links", "mtu"),
    [
        ([link("eth0", mtu=1460), None], [LO, link("eth1", mtu=1400)], 1460),
        ([None, link("wg0", "wireguard", mtu=1420)], [LO], 1420),
        ([None, None], [LO, link("eth0", mtu=9000), link("eth1", mtu=1400, up=False), link("eth2", mtu=1800)], 1800),
        ([None, None], [LO, link("br0", "bridge", mtu=1280)], None),
        ([None, None], [LO], None),
        ([link("tap0", "tun", mtu=65520)], [LO], None),
    ],
)
def test_mtu_of_the_path_to_the_world(uplinks, links, mtu):
    assert path_mtu(uplinks, links) == mtu


def test_bridges_that_are_not_the_clusters_own():
    mine, theirs = OwnerMark("c", "bridge", "net0", "0123"), OwnerMark("d", "bridge", "net1", "0123")
    links = [
        link("net0", "bridge", alias=str(mine)),
        link("net1", "bridge", alias=str(theirs)),
        link("docker0", "bridge", alias="somebody's"),
        link("veth0", "veth"),
    ]
    assert foreign_bridges(links, "c") == {"net1", "docker0"}


# -- permissions ------------------------------------------------------------------------------------------------------


def stats(**modes):
    """A stat for a tree: path with "/" written "_" -> (mode, uid, gid)."""
    table = {Path("/" + name.replace("_", "/").lstrip("/")): value for name, value in modes.items()}

    def stat(path):
        mode, uid, gid = table[path]
        return os.stat_result((mode, 0, 0, 0, uid, gid, 0, 0, 0, 0))

    return stat


ROOT = (0o755, 0, 0)
QEMU = User(111, frozenset({222}))


@pytest.mark.parametrize(
    ("home", "image", "user", "readable"),
    [
        (ROOT, (0o644, 0, 0), QEMU, True),
        (ROOT, (0o600, 0, 0), QEMU, False),
        (ROOT, (0o640, 0, 222), QEMU, True),
        (ROOT, (0o604, 0, 222), QEMU, False),  # the group's bits count, not the others'
        (ROOT, (0o400, 111, 0), QEMU, True),
        (ROOT, (0o044, 111, 222), QEMU, False),  # the owner's bits count
        ((0o700, 1000, 1000), (0o644, 0, 0), QEMU, False),
        ((0o711, 1000, 1000), (0o644, 0, 0), QEMU, True),  # searchable is enough
        ((0o744, 1000, 1000), (0o644, 0, 0), QEMU, False),  # readable is not
        ((0o750, 1000, 222), (0o644, 0, 0), QEMU, True),
        ((0o700, 1000, 1000), (0o600, 0, 0), User(0, frozenset()), True),
        (ROOT, (0o640, 0, 0), NOBODY, False),
        (ROOT, (0o644, 0, 0), NOBODY, True),
    ],
)
def test_what_a_user_can_read(home, image, user, readable):
    stat = stats(**{"": ROOT, "home": home, "home_image": image})
    assert can_read(Path("/home/image"), user, stat) is readable


@pytest.fixture
def public_directory():
    """Unlike tmp_path, one that everybody can search."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_private_files_behind_links_and_missing_ones(public_directory):
    private = public_directory / "private"
    private.mkdir()
    for file in (private / "image", public_directory / "open"):
        file.touch()
        file.chmod(0o644)
    (public_directory / "link").symlink_to(private / "image")
    someone = User(os.getuid() + 1, frozenset())
    assert not any(is_private(public_directory / name, someone) for name in ("link", "open", "missing"))
    private.chmod(0o700)
    assert is_private(public_directory / "link", someone)
    assert not is_private(public_directory / "open", someone)


# -- programs ---------------------------------------------------------------------------------------------------------


def test_tools_follow_from_the_cluster():
    nodes = (
        Node(name="a", tpm=True, volumes=(RawVolume(name="v", size="1G"),)),
        Node(
            name="b", volumes=(LocaldsVolume(name="s", user_data=Path("u")), HostPathVolume(name="h", path=Path("/h")))
        ),
    )
    cluster = Cluster(
        name="c",
        nodes=nodes,
        networks=(Network(name="n", type="internal"),),
        images=(Image(name="i", file=Path("/i"), compression="zstd"),),
    )
    assert list(needed_tools(cluster)) == ["nft", "qemu-system-x86_64", "qemu-img", "cloud-localds", "swtpm", "zstd"]


def test_nothing_is_needed_for_nothing():
    cluster = Cluster(name="c", networks=(Network(name="n", type="bmc"),))
    assert list(needed_tools(cluster)) == []
    shares = Cluster(name="c", nodes=(Node(name="a", volumes=(HostPathVolume(name="h", path=Path("/h")),)),))
    assert list(needed_tools(shares)) == ["qemu-system-x86_64"]


def test_missing_tools_name_their_packages(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "qemu-img").write_text("#!/bin/sh\n")
    (tmp_path / "qemu-img").chmod(0o755)
    cluster = Cluster(name="c", nodes=(Node(name="a", tpm=True, volumes=(RawVolume(name="v", size="1G"),)),))
    missing = missing_tools(cluster)
    assert [(error.program, error.package) for error in missing] == [
        ("qemu-system-x86_64", "qemu-system-x86"),
        ("swtpm", "swtpm"),
    ]


# -- all together -----------------------------------------------------------------------------------------------------


def test_this_machine_is_observed_without_root(tmp_path):
    image = tmp_path / "image"
    image.touch(mode=0o600)
    cluster = Cluster(name="c", images=(Image(name="i", file=image), Image(name="u", url="http://x/")))
    settings = Settings(cluster="c", accelerator="tcg")
    host = observe_host(settings, cluster, machine(tmp_path))
    assert (host.accelerator, host.ovmf, host.vhost_net) == ("tcg", None, False)
    assert host.private_files == {image}
    assert host.mtu is None or 0 < host.mtu <= 9216


def test_files_of_namespaces_are_those_with_a_counterpart_in_etc(tmp_path: Path) -> None:
    for name in ("etc/hosts", "etc/netns/r1/hosts", "etc/netns/r1/unheard-of", "etc/netns/stranger/hosts"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    cluster = Cluster(name="c", namespaces=tuple(NetworkNamespace(name=name, interfaces=()) for name in ("r1", "r2")))
    assert netns_files(cluster, tmp_path) == {tmp_path / "etc/netns/r1/hosts"}
