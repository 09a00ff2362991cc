"""What must exist on the host, one frozen record per thing: the elements of a Plan.

A resource has a `key` (kind and name, unique in its cluster) and a `digest` of all its inputs. Equal digests mean that
nothing has to be done. Records hold plain values only, so that a digest is the same in every process and version.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path
from typing import Literal, NamedTuple, cast

from .names import OwnerMark
from .unit import Unit

Kind = Literal["sysctl", "bridge", "firewall", "passage", "netns", "image", "volume", "tap", "unit"]


class Key(NamedTuple):
    """Identity of a resource in its cluster."""

    kind: Kind
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, kw_only=True)
class Resource:
    """The base of all: `name` is the name on the host, `owner` the cluster file's resource ("Node worker-1").

    `needs` are resources of the same plan that this one is built on: when one of them is made anew, so is this one.
    """

    name: str
    owner: str = ""
    needs: tuple[Key, ...] = ()

    @property
    def kind(self) -> Kind:
        """The kind, from the class name."""
        kind: Kind = KINDS[type(self)]
        return kind

    @property
    def key(self) -> Key:
        """Identity of the resource."""
        return Key(self.kind, self.name)

    @property
    def digest(self) -> str:
        """12 hexadecimal digits over all inputs."""
        text = json.dumps([self.kind, asdict(self)], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def mark(self, cluster: str) -> OwnerMark:
        """The mark that the thing on the host carries."""
        return OwnerMark(cluster, self.kind, self.name, self.digest)


@dataclass(frozen=True, kw_only=True)
class Sysctl(Resource):
    """A kernel parameter of the host, such as net.ipv4.ip_forward; its old value is recorded and restored."""

    value: str


@dataclass(frozen=True, kw_only=True)
class Bridge(Resource):
    """A Linux bridge, up, with addresses; `mtu` in bytes, None for the kernel's default."""

    addresses: tuple[IPv4Interface | IPv6Interface, ...] = ()
    mtu: int | None = None


@dataclass(frozen=True, kw_only=True)
class Firewall(Resource):
    """The cluster's nftables table (family inet); `rules` is the text inside its braces."""

    rules: str


@dataclass(frozen=True, kw_only=True)
class Passage(Resource):
    """Rules at the head of a chain of somebody else's firewall that accept what comes from or goes to `interfaces`."""

    family: str
    table: str
    chain: str
    hook: Literal["forward", "prerouting"] = "forward"
    interfaces: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Veth:
    """A veth pair: `inside` the namespace, `outside` on the host and attached to `bridge`."""

    inside: str
    outside: str
    bridge: str
    mac: str
    addresses: tuple[IPv4Interface | IPv6Interface, ...] = ()
    mtu: int | None = None


@dataclass(frozen=True, kw_only=True)
class Netns(Resource):
    """A named network namespace (/run/netns/NAME) with its interfaces; lo is up and carries the mark as ifalias.

    `init_scripts` only counts for the digest: the init unit runs them, and another list of them needs a new namespace.
    """

    interfaces: tuple[Veth, ...]
    init_scripts: tuple[Path, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    routes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Tap(Resource):
    """A persistent tap attached to `bridge`, which only `user` may open; `queues` above 1 makes it multiqueue."""

    bridge: str
    mtu: int | None = None
    queues: int = 1
    user: str


@dataclass(frozen=True, kw_only=True)
class CachedImage(Resource):
    """An image in the cache at `path`, whole and decompressed, from `url` or from `file`."""

    path: Path
    url: str = ""
    file: Path | None = None
    compression: str = ""
    sha256: str = ""


@dataclass(frozen=True, kw_only=True)
class VolumeFile(Resource):
    """A disk of a node at `path`, readable by `user` alone; kept when the cluster stops. `name` is NODE/VOLUME.

    form  inputs
    ----  ------
    copy  qcow2, a full copy of `base`, grown to `size`; converted, or a reflink or sparse copy where the base is a
          qcow2 that stands alone
    cow   qcow2 over `base`, grown to `size`
    raw   empty, `size`, `format`
    seed  NoCloud seed (qcow2) from `user_data`, `network_config` and `instance_id`
    vars  UEFI variable store copied from `base`
    directory  a directory of the host that the guest shares; made if missing, never changed or deleted otherwise
    state  a private directory of `user`'s for the state of the TPM

    `format` is what QEMU is told and always what the file is: qcow2, or for `raw` the one asked for, or raw for `vars`.
    Names that no volume of a cluster file can have: NODE/@efivars and NODE/@efivars-secure (vars), NODE/@tpm (state).
    """

    form: Literal["copy", "cow", "raw", "seed", "vars", "directory", "state"]
    path: Path
    user: str
    base: Path | None = None
    size: str = ""
    format: str = ""
    user_data: Path | None = None
    network_config: Path | None = None
    writable: bool = True


@dataclass(frozen=True, kw_only=True)
class UnitResource(Resource):
    """A transient unit. `name` is the unit's name; `what` the part of the cluster it serves ("node", "app", ...)."""

    what: Literal["node", "tpm", "console", "init", "app", "bmc"]
    unit: Unit
    journal_fields: tuple[tuple[str, str], ...] = ()


def key_of(mark: OwnerMark) -> Key:
    """The key of what carries the mark; its kind is one of ours, because we wrote it."""
    return Key(cast(Kind, mark.kind), mark.name)


KINDS: Mapping[type, Kind] = {
    Sysctl: "sysctl",
    Bridge: "bridge",
    Firewall: "firewall",
    Passage: "passage",
    Netns: "netns",
    CachedImage: "image",
    VolumeFile: "volume",
    Tap: "tap",
    UnitResource: "unit",
}
