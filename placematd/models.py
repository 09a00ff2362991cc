"""The cluster as its author wrote it: one frozen record per resource kind, one field per key of the file.

`load` fills these records from YAML and `schema` derives the JSON Schema from them; no other module knows the keys.
The key of a field is its name with dashes (`use_nat` is `use-nat`), the sentence in `doc` explains it in the schema.
Every record keeps where its fields stand (`marks`, see `Marks`), which takes no part in comparison.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path
from typing import Any, ClassVar, Literal

from .credentials import Role
from .errors import NOWHERE, Mark

IPInterface = IPv4Interface | IPv6Interface
IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

NetworkType = Literal["internal", "external", "bmc"]
Cache = Literal["writeback", "none", "writethrough", "directsync", "unsafe"]
Compression = Literal["", "gzip", "bzip2", "xz", "zstd"]
RestartPolicy = Literal["no", "on-failure", "always"]


class Marks(dict[str, Mark]):
    """Where each field of a record stands: field name -> mark; "" is the record itself, "addresses.1" a list item."""

    broken: frozenset[str] = frozenset()
    """Fields that could not be read: what they hold is a stand-in, and the mistake is reported already."""

    def of(self, field_name: str) -> Mark:
        """The mark of a field, or of the whole record where the field was not written."""
        return self.get(field_name) or self.get("", NOWHERE)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What a field must be beyond its type: `validate` checks it and the schema states it.

    `pattern` is a regular expression in the common subset of Python and ECMA 262 that matches the whole text (of a
    mapping: each key); `expected` says it in words, to go after "expected".
    """

    expected: str = ""
    pattern: str = ""
    minimum: int | None = None
    maximum: int | None = None
    min_items: int = 0
    absolute: bool = False
    """A path that has to be written absolute; other paths are relative to the directory of their file."""
    program: bool = False
    """An argv; a first item with a slash in it is such a path too, without one it is looked up in PATH."""


def doc(text: str, rule: Rule = Rule(), **options: Any) -> Any:
    """A dataclass field with the sentence that explains it; `options` go to `dataclasses.field`."""
    return field(metadata={"doc": text, "rule": rule}, **options)


NAME = Rule(
    expected="a letter or digit, then letters, digits, dots, dashes or underscores, at most 63 in all",
    pattern="[A-Za-z0-9][A-Za-z0-9_.-]{0,62}",
)
"""Names become parts of unit names, directories, QEMU ids and host names (63 bytes: RFC 1123)."""

LINK_NAME = Rule(
    expected="a letter, digit or underscore, then letters, digits, dots, dashes or underscores, at most 15 in all",
    pattern="[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}",
)
"""Names of links: IFNAMSIZ (linux/if.h) less one. The kernel takes more; nftables and iproute2 trip on it."""

DISK_SIZE = Rule(
    expected="a size such as 512M, 20G or 1T (1024s; a plain number is bytes)",
    pattern="[0-9]+[BbKkMmGgTtPp]?|[0-9]+[.][0-9]+[KkMmGgTtPp]",
)
"""What qemu-img takes, without its hexadecimal and exbyte forms."""

CPUS = Rule(expected="1 to 255 (the limit of QEMU's i440fx machine)", minimum=1, maximum=255)
CPU_PARTS = Rule(expected="0 to 255 (the limit of QEMU's i440fx machine)", minimum=0, maximum=255)


def marks() -> Any:
    """The field that keeps where the others were written."""
    return field(default_factory=Marks, compare=False, repr=False, metadata={"internal": True})


# -- Network ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Network:
    """An L2 network: a Linux bridge of the same name."""

    name: str = doc("Name of the network and of its bridge; at most 15 bytes.", LINK_NAME)
    type: NetworkType = doc(
        "internal: no address; external: reaches the host (and the world with use-nat); bmc: BMCs live here."
    )
    use_nat: bool = doc("Masquerade what leaves an external network.", default=False)
    address: IPInterface | None = doc("Address of the bridge, as ADDRESS/PREFIX.", default=None)
    addresses: tuple[IPInterface, ...] = doc("Several addresses of the bridge, for dual stack.", default=())
    marks: Marks = marks()

    @property
    def all_addresses(self) -> tuple[IPInterface, ...]:
        """`address` and `addresses` together, in the order written."""
        return ((self.address,) if self.address else ()) + self.addresses


# -- NetworkNamespace -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class NamespaceInterface:
    """One interface of a network namespace; they are called eth0, eth1, ... in the order written."""

    network: str = doc("The Network (or an existing bridge of the host) that the interface is attached to.")
    addresses: tuple[IPInterface, ...] = doc("Addresses of the interface, as ADDRESS/PREFIX.", default=())
    marks: Marks = marks()


@dataclass(frozen=True, kw_only=True)
class Route:
    """One route inside a network namespace."""

    to: str = doc('Destination as ADDRESS/PREFIX, or "default".')
    via: IPAddress = doc("The gateway.")
    marks: Marks = marks()


@dataclass(frozen=True, kw_only=True)
class App:
    """A program that runs inside a network namespace as long as the cluster is up."""

    name: str = doc("Name of the app, used in its unit's name.", NAME)
    command: tuple[str, ...] = doc(
        "Program and arguments; no shell is involved.",
        Rule(expected="a program and its arguments", min_items=1, program=True),
    )
    after: tuple[str, ...] = doc("Apps of the same namespace that are started first.", default=())
    restart: RestartPolicy = doc("When systemd starts the app again.", default="on-failure")
    user: str = doc(
        "User that the app runs as.",
        Rule(expected="a user name or number", pattern="[A-Za-z0-9_][A-Za-z0-9_.-]{0,30}"),
        default="root",
    )
    environment: tuple[tuple[str, str], ...] = doc(
        "Environment variables.",
        Rule(expected="a name of letters, digits and underscores", pattern="[A-Za-z_][A-Za-z0-9_]*"),
        default=(),
    )
    working_directory: Path | None = doc("Working directory; default is the directory of the file.", default=None)
    marks: Marks = marks()


@dataclass(frozen=True, kw_only=True)
class NetworkNamespace:
    """A network namespace: a router, or a host that runs real services."""

    name: str = doc("Name of the namespace, as ip-netns(8) shows it.", NAME)
    interfaces: tuple[NamespaceInterface, ...] = doc(
        "At least one interface.", Rule(expected="at least one interface", min_items=1)
    )
    init_scripts: tuple[Path, ...] = doc("Executables run in order inside the namespace before its apps.", default=())
    apps: tuple[App, ...] = doc("Programs that run inside the namespace.", default=())
    routes: tuple[Route, ...] = doc("Routes inside the namespace.", default=())
    sysctls: tuple[tuple[str, str], ...] = doc(
        "Kernel parameters set inside the namespace (net.* only).",
        Rule(expected="a parameter below net, such as net.ipv4.ip_forward", pattern="net([./][A-Za-z0-9_-]+)+"),
        default=(),
    )
    directory: Path = field(default=Path("/"), metadata={"internal": True})
    marks: Marks = marks()


# -- Image, DeviceClass -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Image:
    """A disk image that volumes start from: a local file or a URL, exactly one of them."""

    name: str = doc("Name that volumes refer to.", NAME)
    url: str = doc(
        "An http(s) URL.", Rule(expected="an http or https URL", pattern="https?://[^\\s/]+(/\\S*)?"), default=""
    )
    file: Path | None = doc("A local file.", default=None)
    compression: Compression = doc("How the file or download is compressed.", default="")
    sha256: str = doc(
        "Expected SHA-256 of the file or download as it is served (hexadecimal).",
        Rule(expected="64 hexadecimal digits", pattern="[0-9A-Fa-f]{64}"),
        default="",
    )
    marks: Marks = marks()


@dataclass(frozen=True, kw_only=True)
class DeviceClass:
    """A place for volumes, such as a fast disk."""

    name: str = doc("Name that volumes refer to.", NAME)
    path: Path = doc("Absolute path of a directory.", Rule(absolute=True))
    marks: Marks = marks()


# -- BMC --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class BmcUser:
    """An account that a BMC has at first; IPMI and Redfish can change it and add others."""

    key_hints: ClassVar[Mapping[str, str]] = {
        "password": "no place for secrets: write it to a file that root alone reads, and name that with password-file",
    }

    name: str = doc("Name of the user: at most 16 bytes, which is all that IPMI has, and no colon.")
    role: Role = doc("What the user may do: IPMI's privilege levels are ADMINISTRATOR, OPERATOR and USER.")
    password_file: Path | None = doc(
        "File that holds the password (at most 20 bytes); root alone reads it.", default=None
    )
    password_credential: str = doc("Systemd credential of placematd's unit that holds the password.", NAME, default="")
    marks: Marks = marks()


@dataclass(frozen=True, kw_only=True)
class BmcCertificate:
    """A certificate of one's own for HTTPS."""

    certificate: Path = doc("PEM file with the certificate and those that lead to its CA.")
    key: Path = doc("PEM file with the private key.")
    marks: Marks = marks()


@dataclass(frozen=True, kw_only=True)
class ClusterBmc:
    """What all BMCs of a cluster have in common."""

    users: tuple[BmcUser, ...] = doc("Accounts of each BMC; without any it is cybozu with password cybozu.", default=())
    ipmi: bool = doc("Speak IPMI besides Redfish, over the network and to the guest.", default=True)
    media_directory: Path | None = doc(
        "Directory of the host whose images BMCs may insert as virtual media; without it only URLs can be named.",
        default=None,
    )
    certificate: BmcCertificate | None = doc(
        "Certificate for HTTPS instead of one from the cluster's own CA.", default=None
    )
    marks: Marks = marks()


@dataclass(frozen=True, kw_only=True)
class NodeBmc:
    """The BMC of one node, as far as it differs from the others."""

    address: IPAddress | None = doc(
        "Address in a network of type bmc; without it the guest has to tell one before the BMC can be reached.",
        default=None,
    )
    users: tuple[BmcUser, ...] = doc("Accounts of this BMC, instead of those of kind Cluster.", default=())
    ipmi: bool | None = doc("Speak IPMI; default is what kind Cluster says.", default=None)
    marks: Marks = marks()


# -- Node -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Smp:
    """CPU topology, as QEMU's -smp option takes it; 0 leaves a part to QEMU."""

    cpus: int = doc("Number of CPUs.", CPUS, default=0)
    cores: int = doc("Cores per die.", CPU_PARTS, default=0)
    threads: int = doc("Threads per core.", CPU_PARTS, default=0)
    dies: int = doc("Dies per socket.", CPU_PARTS, default=0)
    sockets: int = doc("Sockets.", CPU_PARTS, default=0)
    maxcpus: int = doc("Number of CPUs including those that can be plugged in later.", CPU_PARTS, default=0)
    marks: Marks = marks()


@dataclass(frozen=True, kw_only=True)
class Numa:
    """NUMA topology."""

    nodes: int = doc(
        "Number of NUMA nodes that CPUs and memory are spread over.",
        Rule(expected="0 to 128 (QEMU's limit)", minimum=0, maximum=128),
        default=0,
    )
    marks: Marks = marks()


@dataclass(frozen=True, kw_only=True)
class Smbios:
    """System information (SMBIOS type 1) that the guest sees."""

    manufacturer: str = doc("System manufacturer.", default="")
    product: str = doc("Product name.", default="")
    serial: str = doc("Serial number; derived from the node's name where not written.", default="")
    marks: Marks = marks()


@dataclass(frozen=True, kw_only=True)
class VolumeBase:
    """What all kinds of volumes share."""

    name: str = doc("Name of the volume, unique in its node.", NAME)
    cache: Cache = doc("Cache mode of the drive.", default="none")
    device_class: str = doc("The DeviceClass that the volume is stored on.", default="")
    marks: Marks = marks()


@dataclass(frozen=True, kw_only=True)
class ImageVolume(VolumeBase):
    """A disk that starts as a copy of an Image."""

    kind: Literal["image"] = "image"
    image: str = doc("The Image to start from.")
    copy_on_write: bool = doc("Store only what differs from the image.", default=False)
    size: str = doc("Grow the disk to this size, such as 20G.", DISK_SIZE, default="")


@dataclass(frozen=True, kw_only=True)
class LocaldsVolume(VolumeBase):
    """A cloud-init NoCloud seed."""

    kind: Literal["localds"] = "localds"
    user_data: Path = doc("cloud-init user-data file.")
    network_config: Path | None = doc("cloud-init network-config file.", default=None)


@dataclass(frozen=True, kw_only=True)
class RawVolume(VolumeBase):
    """An empty disk."""

    kind: Literal["raw"] = "raw"
    size: str = doc("Size of the disk, such as 10G.", DISK_SIZE)
    format: Literal["qcow2", "raw"] = doc("Format of the file that holds it.", default="qcow2")


@dataclass(frozen=True, kw_only=True)
class HostPathVolume(VolumeBase):
    """A directory of the host, shared over 9p; the volume's name is the mount tag."""

    kind: Literal["hostPath"] = "hostPath"
    path: Path = doc("Absolute path of the directory; made if it is missing.", Rule(absolute=True))
    writable: bool = doc("Let the guest write to it.", default=False)


Volume = ImageVolume | LocaldsVolume | RawVolume | HostPathVolume


@dataclass(frozen=True, kw_only=True)
class Node:
    """A virtual machine."""

    name: str = doc("Name of the node.", NAME)
    interfaces: tuple[str, ...] = doc(
        "Networks (or existing bridges) that its NICs are attached to, in order.", default=()
    )
    volumes: tuple[Volume, ...] = doc("Disks and shared directories, in order.", default=())
    ignition: Path | None = doc("Ignition file handed to the guest by fw_cfg.", default=None)
    cpu: int | None = doc("Number of CPUs; the short form of smp.", CPUS, default=None)
    smp: Smp | None = doc("CPU topology; either this or cpu.", default=None)
    memory: str = doc(
        "Memory as QEMU's -m option takes it, such as 2G; a plain number is MiB.",
        Rule(
            expected="an amount such as 2G, 1.5G or 2048M (1024s; a plain number is MiB)",
            pattern="[0-9]+[BbKkMmGgTt]?|[0-9]+[.][0-9]+[KkMmGgTt]",
        ),
        default="",
    )
    numa: Numa = doc("NUMA topology.", default=Numa())
    network_device_queue: int = doc(
        "Queues per NIC; more than 1 enables multiqueue.",
        Rule(expected="0 to 256 (the limit of a tap, MAX_TAP_QUEUES)", minimum=0, maximum=256),
        default=0,
    )
    uefi: bool = doc("Boot with UEFI firmware instead of a BIOS.", default=False)
    secure_boot: bool = doc(
        "Start signed boot loaders only: UEFI Secure Boot with Microsoft's keys, in a variable store of its own.",
        default=False,
    )
    tpm: bool = doc("Give the node a TPM 2.0.", default=False)
    smbios: Smbios = doc("System information that the guest sees.", default=Smbios())
    bmc: NodeBmc = doc("The node's BMC.", default=NodeBmc())
    marks: Marks = marks()

    @property
    def topology(self) -> Smp:
        """`smp`, or what `cpu` is short for; all 0 if the file had neither, which `validate` reports."""
        return self.smp or Smp(cpus=self.cpu or 0)


# -- Cluster ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ClusterSettings:
    """Settings of the whole cluster; at most one document of this kind. A cluster has its name from its instance."""

    key_hints: ClassVar[Mapping[str, str]] = {
        "name": "a cluster is called as its file is, or as --name and placemat@NAME.service say",
    }

    bmc: ClusterBmc = doc("What all BMCs have in common.", default=ClusterBmc())
    marks: Marks = marks()

    @property
    def name(self) -> str:
        """ "", as all resources have one."""
        return ""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """All resources of a cluster, in the order written within each kind.

    `name` is not in the file: it is the instance name of `placemat@NAME.service`.
    """

    name: str
    networks: tuple[Network, ...] = ()
    namespaces: tuple[NetworkNamespace, ...] = ()
    nodes: tuple[Node, ...] = ()
    images: tuple[Image, ...] = ()
    device_classes: tuple[DeviceClass, ...] = ()
    settings: tuple[ClusterSettings, ...] = ()
    """The documents of kind Cluster; `validate` sees to it that there is one at most."""

    @property
    def bmc(self) -> ClusterBmc:
        """What all BMCs have in common."""
        return self.settings[0].bmc if self.settings else ClusterBmc()
