"""Facts of this machine that a plan depends on. Everything here only looks, and works without root.

`root` is where /proc, /dev and /usr are looked for; tests pass a directory.
"""

import errno
import grp
import importlib.util
import os
import pwd
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .errors import MissingTool, StepError
from .facts import QEMU_USER, Accelerator, AcceleratorSetting, Host, HostChain, Ovmf, Python, Settings
from .models import Cluster, HostPathVolume, LocaldsVolume
from .network import Link, Netlink, attempt
from .passage import REFUSED, observe_closed_chains
from .run import SBIN, find

KVM_GROUP = "kvm"
"""Owns /dev/kvm and /dev/vhost-net (udev's 50-udev-default.rules); QEMU's unit has it as a supplementary group."""

WORLD = ("192.0.0.10", "2000::1")
"""Addresses that are nowhere near: what leads to them leads to the world (the first one as in placemat v2)."""

LARGEST_ETHERNET_MTU = 9216
"""Above this an uplink is no Ethernet but a tunnel to a process (pasta: 65520), and says nothing about the world."""

BMC_LIBRARIES = ("tornado", "cryptography")
"""What the process of a BMC imports."""

OVMF_PAIRS = (
    ("OVMF/OVMF_CODE_4M.fd", "OVMF/OVMF_VARS_4M.fd"),  # Debian 12 and later, Ubuntu 22.04 and later
    ("OVMF/OVMF_CODE.fd", "OVMF/OVMF_VARS.fd"),  # Debian and Ubuntu before
    ("edk2/ovmf/OVMF_CODE.fd", "edk2/ovmf/OVMF_VARS.fd"),  # Fedora
    ("edk2/x64/OVMF_CODE.4m.fd", "edk2/x64/OVMF_VARS.4m.fd"),  # Arch
    ("edk2-ovmf/x64/OVMF_CODE.fd", "edk2-ovmf/x64/OVMF_VARS.fd"),  # Arch before
    ("qemu/ovmf-x86_64-code.bin", "qemu/ovmf-x86_64-vars.bin"),  # openSUSE
)
"""Firmware without SMM below /usr/share, best first. Code and variables of one pair have one layout, of 2 or 4 MiB, and
must not be mixed."""

SECURE_VARS = {
    "OVMF/OVMF_CODE_4M.fd": "OVMF/OVMF_VARS_4M.ms.fd",
    "OVMF/OVMF_CODE.fd": "OVMF/OVMF_VARS.ms.fd",
}
"""Variables with Microsoft's keys for code that enforces Secure Boot without SMM, which QEMU's i440fx machine lacks:
"so it is less secure" (README.Debian of package ovmf)."""


def observe_host(settings: Settings, cluster: Cluster, root: Path = Path("/")) -> Host:
    """Look at the machine. Raises StepError where netlink refuses to tell."""
    user = user_of(QEMU_USER)
    accelerator, reason = choose_accelerator(settings.accelerator, user, root)
    with attempt("list the host's links"), Netlink() as netlink:
        links = netlink.links()
        mtu = path_mtu((netlink.route_link(address) for address in WORLD), links)
    return Host(
        accelerator=accelerator,
        accelerator_reason=reason,
        qemu=_program("qemu-system-x86_64"),
        swtpm=_program("swtpm"),
        ovmf=find_ovmf(root),
        vhost_net=may_open(root / "dev/vhost-net", user),
        mtu=mtu,
        bridges=foreign_bridges(links, settings.cluster),
        netns_files=netns_files(cluster, root),
        private_files=frozenset(image.file for image in cluster.images if image.file and is_private(image.file, user)),
        closed_chains=forward_chains(cluster),
        python=own_python(),
    )


def own_python() -> Python:
    """The interpreter that runs us, and where our code and its libraries are."""
    package = Path(__file__).resolve().parent
    specs = [importlib.util.find_spec(library) for library in BMC_LIBRARIES]
    places = {Path(spec.origin).resolve().parents[1] for spec in specs if spec and spec.origin}
    libraries = sorted(place for place in places if not place.is_relative_to("/usr"))
    return Python(Path(sys.executable).resolve(), package, tuple(libraries))


# -- programs and firmware --------------------------------------------------------------------------------------------


def _program(name: str) -> Path:
    """Where it is, or where Debian would put it: `missing_tools` tells that it is not there."""
    return Path(shutil.which(name) or shutil.which(name, path=SBIN) or Path("/usr/bin", name))


def missing_tools(cluster: Cluster) -> tuple[MissingTool, ...]:
    """The programs that this cluster needs and this machine lacks, with their packages."""
    missing = []
    for program in needed_tools(cluster):
        try:
            find(program)
        except MissingTool as error:
            missing.append(error)
    return tuple(missing)


def needed_tools(cluster: Cluster) -> Iterator[str]:
    """The programs that this cluster needs, besides systemd."""
    volumes = [volume for node in cluster.nodes for volume in node.volumes]
    if any(network.type != "bmc" for network in cluster.networks):
        yield "nft"
    if cluster.nodes:
        yield "qemu-system-x86_64"
    if any(not isinstance(volume, HostPathVolume) for volume in volumes):
        yield "qemu-img"
    if any(isinstance(volume, LocaldsVolume) for volume in volumes):
        yield "cloud-localds"
    if any(node.tpm for node in cluster.nodes):
        yield "swtpm"
    if any(image.compression == "zstd" for image in cluster.images):
        yield "zstd"


def find_ovmf(root: Path = Path("/")) -> Ovmf | None:
    """The first pair of UEFI firmware that is complete."""
    share = root / "usr/share"
    for code, variables in OVMF_PAIRS:
        if (share / code).exists() and (share / variables).exists():
            secure = share / SECURE_VARS[code] if code in SECURE_VARS else None
            return Ovmf(share / code, share / variables, secure if secure and secure.exists() else None)
    return None


# -- acceleration -----------------------------------------------------------------------------------------------------


def choose_accelerator(setting: AcceleratorSetting, user: "User", root: Path = Path("/")) -> tuple[Accelerator, str]:
    """The accelerator and why: an explicit setting wins, else KVM where it works.

    The rule is kvm-ok's (package cpu-checker): the CPU flag counts and not the device alone. Without the flag (PVM,
    some nested set-ups) /dev/kvm opens and guests then hang.
    """
    if setting != "auto":
        return setting, f"PLACEMAT_ACCELERATOR={setting}"
    obstacle = kvm_obstacle(user, root)
    return ("tcg", f"TCG, which is slow: {obstacle}") if obstacle else ("kvm", "/dev/kvm works")


def kvm_obstacle(user: "User", root: Path = Path("/")) -> str:
    """Why KVM does not work; "" where it does."""
    if not cpu_flags(root) & {"vmx", "svm"}:
        return "no vmx or svm flag in /proc/cpuinfo (no virtualisation, off in the firmware, or not nested)"
    device = root / "dev/kvm"
    if not device.exists():
        return "there is no /dev/kvm (modprobe kvm_intel or kvm_amd; in a container, pass the device)"
    if not may_open(device, user):
        return f"user {QEMU_USER} may not open /dev/kvm (chgrp {KVM_GROUP} /dev/kvm && chmod 0660 /dev/kvm)"
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        if error.errno != errno.EACCES:  # EACCES: we are no root, and it is QEMU's user that counts
            return f"/dev/kvm does not open: {error.strerror}"
    return ""


def cpu_flags(root: Path = Path("/")) -> set[str]:
    """The flags of the first CPU in /proc/cpuinfo."""
    try:
        lines = (root / "proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())


# -- network ----------------------------------------------------------------------------------------------------------


def path_mtu(uplinks: Iterable[Link | None], links: Iterable[Link]) -> int | None:
    """MTU of the first uplink there is, else the smallest of all hardware links that are up, else None."""
    uplink = next((link for link in uplinks if link), None)
    hardware = [link.mtu for link in links if link.kind == "" and link.up and link.name != "lo"]
    mtu = uplink.mtu if uplink else min(hardware, default=0)
    return mtu if 0 < mtu <= LARGEST_ETHERNET_MTU else None


def forward_chains(cluster: Cluster) -> tuple[HostChain, ...]:
    """Where a firewall of the host may drop what the cluster forwards; only root is told. Raises StepError."""
    if os.geteuid() != 0 or not any(network.type != "bmc" for network in cluster.networks):
        return ()
    try:
        return observe_closed_chains()
    except MissingTool:
        return ()  # `missing_tools` says so
    except StepError as error:
        if REFUSED not in error.answer:
            raise
        return ()  # root in name only (user_namespaces(7)): the start will say so


def foreign_bridges(links: Iterable[Link], cluster: str) -> frozenset[str]:
    """Bridges that do not carry the cluster's mark."""
    bridges = [link for link in links if link.kind == "bridge"]
    return frozenset(link.name for link in bridges if not (link.mark and link.mark.cluster == cluster))


def netns_files(cluster: Cluster, root: Path = Path("/")) -> frozenset[Path]:
    """What /etc/netns holds for the cluster's namespaces.

    As with `ip netns exec`, a file without a counterpart in /etc changes nothing: there is nothing to bind it over.
    """
    etc = root / "etc"
    directories = [etc / "netns" / namespace.name for namespace in cluster.namespaces]
    files = [file for directory in directories if directory.is_dir() for file in directory.iterdir()]
    return frozenset(file for file in files if (etc / file.name).exists())


# -- what QEMU's user may read ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class User:
    """A user as the kernel sees it; `uid` None for one that does not exist here (yet): then only others' bits count."""

    uid: int | None
    groups: frozenset[int]


READ, WRITE, SEARCH = 4, 2, 1


def user_of(name: str) -> User:
    """The user with its groups, and the kvm group which its units have."""
    kvm = _group_id(KVM_GROUP)
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return User(None, kvm)
    return User(entry.pw_uid, kvm | frozenset(os.getgrouplist(name, entry.pw_gid)))


def _group_id(name: str) -> frozenset[int]:
    try:
        return frozenset({grp.getgrnam(name).gr_gid})
    except KeyError:
        return frozenset()


def allows(stat: os.stat_result, user: User, wanted: int) -> bool:
    """Whether the mode bits grant it (path_resolution(7), without access control lists)."""
    if user.uid == 0:
        return True
    shift = 6 if stat.st_uid == user.uid else 3 if stat.st_gid in user.groups else 0
    return stat.st_mode >> shift & wanted == wanted


def can_read(path: Path, user: User, stat: Callable[[Path], os.stat_result] = os.stat) -> bool:
    """Whether the user may read a file: every directory above it must be searchable. Raises OSError as `stat` does."""
    return all(allows(stat(parent), user, SEARCH) for parent in path.parents) and allows(stat(path), user, READ)


def is_private(path: Path, user: User) -> bool:
    """Whether a file is there that the user cannot read; one that we cannot even look at is private too."""
    try:
        return not all(can_read(place, user) for place in {path, path.resolve()})
    except PermissionError:
        return True
    except OSError:
        return False  # not there: validation says so


def may_open(device: Path, user: User) -> bool:
    """Whether the user may open a device for reading and writing."""
    try:
        return allows(device.stat(), user, READ | WRITE)
    except OSError:
        return False
