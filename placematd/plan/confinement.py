"""What the processes of a node may see and do: nothing but their own files, sockets and devices (systemd.exec(5)).

QEMU runs what a guest wants, and all nodes have the same user; so each sees its own volumes and sockets only.
"""

from pathlib import Path

from ..facts import QEMU_USER, Host, Settings
from ..names import slice_unit
from ..resources import VolumeFile
from ..unit import Property, Value

MS_REC = 1 << 14  # linux/mount.h: bind what is mounted below, too

CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER, CAP_FSETID = (1 << bit for bit in range(5))
"""linux/capability.h"""

READ_ANY = CAP_DAC_READ_SEARCH
WRITE_ANY = CAP_CHOWN | CAP_DAC_OVERRIDE | CAP_DAC_READ_SEARCH | CAP_FOWNER | CAP_FSETID

CONFIGURATION = (Path("/boot"), Path("/etc"), Path("/var"))
"""Where a host keeps what not everybody may read, besides home directories."""

STRANGE_SYSTEM_CALLS = (
    "@clock",
    "@cpu-emulation",
    "@debug",
    "@module",
    "@mount",
    "@obsolete",
    "@raw-io",
    "@reboot",
    "@swap",
)
"""Groups of systemd-analyze(1) `syscall-filter` that neither QEMU nor swtpm nor sed has a use for."""


def bind(path: Path) -> Value:
    """An element of BindPaths= and BindReadOnlyPaths=: source, destination, whether it may be missing, flags."""
    return (str(path), str(path), False, MS_REC)


def hardened(cluster: str, capabilities: int = 0) -> tuple[Property, ...]:
    """For every process that runs for a node: the slice, a file system to read, no capability but these."""
    return (
        ("Slice", slice_unit(cluster)),
        ("UMask", 0o077),
        ("NoNewPrivileges", True),
        ("CapabilityBoundingSet", capabilities),
        *((("AmbientCapabilities", capabilities),) if capabilities else ()),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "tmpfs"),
        ("PrivateTmp", True),
        ("ProtectProc", "invisible"),
        ("ProtectClock", True),
        ("ProtectControlGroups", True),
        ("ProtectHostname", True),
        ("ProtectKernelLogs", True),
        ("ProtectKernelModules", True),
        ("ProtectKernelTunables", True),
        ("LockPersonality", True),
        ("RestrictNamespaces", 0),
        ("RestrictRealtime", True),
        ("RestrictSUIDSGID", True),
        ("SystemCallArchitectures", ("native",)),
        ("StandardOutput", "journal"),
        ("StandardError", "journal"),
        ("KillMode", "control-group"),
    )


def unprivileged(cluster: str, capabilities: int = 0) -> tuple[Property, ...]:
    """For QEMU and what serves it: the user that all nodes share, and no way to a network."""
    return (
        *hardened(cluster, capabilities),
        ("User", QEMU_USER),
        ("Group", QEMU_USER),
        ("RestrictAddressFamilies", (True, ("AF_UNIX",))),
        ("SystemCallFilter", (False, STRANGE_SYSTEM_CALLS)),
    )


def hidden(settings: Settings, *others: Path) -> Property:
    """Empty directories where the files and sockets of other nodes are."""
    paths = sorted({settings.data_dir, settings.run_dir, *others})
    return ("TemporaryFileSystem", tuple((str(path), "ro") for path in paths))


def visible(writable: set[Path], readable: set[Path]) -> tuple[Property, ...]:
    """The files and directories that are seen nevertheless."""
    bound = (("BindPaths", writable), ("BindReadOnlyPaths", readable - writable))
    return tuple((name, tuple(bind(path) for path in sorted(paths))) for name, paths in bound if paths)


def volumes_view(volumes: tuple[VolumeFile, ...]) -> tuple[set[Path], set[Path]]:
    """What QEMU writes, and what it only reads, of a node's volumes (bases of copy-on-write volumes, shares)."""
    shares = [volume for volume in volumes if volume.form == "directory"]
    files = [volume for volume in volumes if volume.form not in ("directory", "state")]
    writable = {volume.path.parent for volume in files} | {share.path for share in shares if share.writable}
    bases = {volume.base for volume in files if volume.form == "cow" and volume.base}
    return writable, bases | {share.path for share in shares if not share.writable}


def share_capabilities(volumes: tuple[VolumeFile, ...]) -> int:
    """What QEMU needs so that a guest's root is root in a shared directory, as when placemat v2 ran QEMU as root.

    With it, QEMU must not see CONFIGURATION.
    """
    writable = {volume.writable for volume in volumes if volume.form == "directory"}
    return WRITE_ANY if True in writable else READ_ANY if writable else 0


def volume_roots(volumes: tuple[VolumeFile, ...]) -> set[Path]:
    """Directories with the volumes of all clusters (ROOT/CLUSTER/volumes/NODE): data directory and device classes."""
    roots = {volume.path.parents[3] for volume in volumes if volume.form not in ("directory", "state")}
    return roots - {Path("/")}


def devices(host: Host) -> tuple[Property, ...]:
    """The devices that QEMU opens, beyond those without risk (null, random, ...)."""
    accelerators = [device for device, used in _kvm_devices(host) if used]
    paths = ["/dev/net/tun", *accelerators]
    groups: tuple[Property, ...] = (("SupplementaryGroups", ("kvm",)),) if accelerators else ()
    return (("DevicePolicy", "closed"), ("DeviceAllow", tuple((path, "rw") for path in paths)), *groups)


def _kvm_devices(host: Host) -> tuple[tuple[str, bool], ...]:
    """Devices of group kvm (systemd's 50-udev-default.rules), and whether the host has QEMU use them."""
    return (("/dev/kvm", host.accelerator == "kvm"), ("/dev/vhost-net", host.vhost_net))
