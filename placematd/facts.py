"""What deciding needs to know besides the cluster: the host as it is, and the settings of the instance.

`host` (layer 3) observes a `Host`; `plan` takes it as an argument, so that planning stays pure and tests can pass any.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, cast, get_args

Accelerator = Literal["kvm", "tcg"]
AcceleratorSetting = Literal["auto", "kvm", "tcg"]

QEMU_USER = "placemat-qemu"
"""User and group that QEMU and swtpm run as (made by `make install` and in the sandbox)."""

API_GROUP = "placemat"
"""Group whose members may use the API socket."""


LONGEST_IDLE_SECONDS = 7 * 24 * 3600


class Ovmf(NamedTuple):
    """UEFI firmware: code (read-only) and the template of a node's variable store."""

    code: Path
    vars: Path
    secure_vars: Path | None = None
    """The template with keys, which has this code enforce Secure Boot; None where it has none."""


class HostChain(NamedTuple):
    """A chain of somebody else's firewall.

    `family` is one of nftables (ip, ip6, inet), or the program: iptables-legacy, ip6tables-legacy. What comes through
    the `hook` "prerouting" has not been routed yet, so that its outgoing interface is not known.
    """

    family: str
    table: str
    chain: str
    hook: Literal["forward", "prerouting"] = "forward"


class Python(NamedTuple):
    """How a unit that may see nothing else runs our own code."""

    executable: Path
    package: Path
    """The directory of package placematd, which a user without rights may not be able to reach."""
    libraries: tuple[Path, ...] = ()
    """Directories with libraries, of which the same is true (a virtual environment's)."""


class FirmwareChoice(NamedTuple):
    """What a node's firmware settings say instead of the cluster file; changed through its BMC."""

    uefi: bool
    tpm: bool
    secure_boot: bool = False


@dataclass(frozen=True)
class Learned:
    """What placematd learned about nodes since they were made, by name."""

    addresses: Mapping[str, str] = field(default_factory=dict)
    """Addresses of BMCs, as guests told them."""
    firmware: Mapping[str, FirmwareChoice] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Host:
    """Facts of the machine that a plan depends on."""

    accelerator: Accelerator
    accelerator_reason: str
    """Why this accelerator, for the log: "/dev/kvm works", or "TCG: no vmx or svm flag in /proc/cpuinfo (...)"."""
    qemu: Path = Path("/usr/bin/qemu-system-x86_64")
    swtpm: Path = Path("/usr/bin/swtpm")
    ovmf: Ovmf | None = None
    vhost_net: bool = False
    mtu: int | None = None
    """MTU of the path to the world, in bytes; None leaves the kernel's default (1500)."""
    bridges: frozenset[str] = frozenset()
    """Bridges of the host that are not ours, which interfaces may name too."""
    netns_files: frozenset[Path] = frozenset()
    """Files /etc/netns/NAMESPACE/FILE of the cluster's namespaces that take the place of a file /etc/FILE that exists
    (ip-netns(8))."""
    private_files: frozenset[Path] = frozenset()
    """Image files of the cluster that `QEMU_USER` cannot read where they are."""
    closed_chains: tuple[HostChain, ...] = ()
    """Where what the cluster forwards must be accepted, or somebody else's firewall may drop it."""
    python: Python = Python(Path("/usr/bin/python3"), Path("/usr/lib/python3/dist-packages/placematd"))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of one instance, from the environment that `placemat@.service` reads from /etc/placemat/NAME.conf."""

    cluster: str
    files: tuple[Path, ...] = ()
    """Cluster files; empty means /etc/placemat/NAME.yml or /etc/placemat/NAME/*.yml."""
    data_dir: Path = Path("/var/lib/placemat")
    cache_dir: Path = Path("/var/cache/placemat")
    run_dir: Path = Path("/run/placemat")
    listen: str = ""
    """HOST:PORT of the optional TCP listener; empty for none."""
    accelerator: AcceleratorSetting = "auto"
    bmc_idle_seconds: int = 300
    """How long the process of a BMC stays when nobody needs it."""

    @staticmethod
    def from_environment(cluster: str, environ: Mapping[str, str]) -> "Settings":
        """Settings from PLACEMAT_FILES (colon separated), PLACEMAT_DATA_DIR, PLACEMAT_CACHE_DIR, PLACEMAT_RUN_DIR,
        PLACEMAT_LISTEN, PLACEMAT_ACCELERATOR and PLACEMAT_BMC_IDLE_SECONDS.

        Raises ValueError on an accelerator that is none of auto, kvm, tcg, and on a time that is none.
        """
        accelerator = environ.get("PLACEMAT_ACCELERATOR", "auto")
        if accelerator not in get_args(AcceleratorSetting):
            raise ValueError(f"PLACEMAT_ACCELERATOR={accelerator}: expected auto, kvm or tcg")
        return Settings(
            cluster=cluster,
            files=tuple(Path(name) for name in environ.get("PLACEMAT_FILES", "").split(":") if name),
            data_dir=Path(environ.get("PLACEMAT_DATA_DIR", "/var/lib/placemat")),
            cache_dir=Path(environ.get("PLACEMAT_CACHE_DIR", "/var/cache/placemat")),
            run_dir=Path(environ.get("PLACEMAT_RUN_DIR", "/run/placemat")),
            listen=environ.get("PLACEMAT_LISTEN", ""),
            accelerator=cast(AcceleratorSetting, accelerator),
            bmc_idle_seconds=_idle_seconds(environ.get("PLACEMAT_BMC_IDLE_SECONDS", "300")),
        )


def _idle_seconds(text: str) -> int:
    """A decimal number, since the unit of a BMC gets it as an argument; raises ValueError."""
    if not (text.isascii() and text.isdecimal() and 0 < int(text) <= LONGEST_IDLE_SECONDS):
        raise ValueError(f"PLACEMAT_BMC_IDLE_SECONDS={text}: expected whole seconds, 1 to {LONGEST_IDLE_SECONDS}")
    return int(text)
