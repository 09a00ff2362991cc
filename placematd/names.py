"""Names of what placemat makes on the host, all derived from cluster and resource: same input, same names.

Link names are at most 15 bytes (IFNAMSIZ in linux/if.h), unit names follow systemd.unit(5).
"""

import hashlib
import re
import uuid
from base64 import b32encode
from dataclasses import dataclass
from pathlib import Path

LINK_NAME_BYTES = 15
CLUSTER_NAME_BYTES = 43
"""So that a mark, which may hold the cluster's name twice, fits the 127 bytes of a comment in nftables."""
PASSAGE_NAME_BYTES = 50


def _hash(*parts: str) -> bytes:
    return hashlib.sha256("\0".join(parts).encode()).digest()


def _link_name(prefix: str, *parts: str) -> str:
    return prefix + b32encode(_hash(*parts)).decode().lower()[:10]


def tap_name(cluster: str, node: str, index: int) -> str:
    """The tap of a node's NIC number `index` (from 0)."""
    return _link_name("pmt-", cluster, "node", node, str(index))


def veth_name(cluster: str, namespace: str, index: int) -> str:
    """The host end of a namespace's interface number `index` (from 0)."""
    return _link_name("pmv-", cluster, "netns", namespace, str(index))


def mac_address(cluster: str, owner: str, index: int) -> str:
    """A locally administered unicast address (IEEE 802 bit 1 of the first octet), the same at every start.

    Begins 52:54 as QEMU's do; the other 32 bits are derived, so that two of 1,000 NICs collide once in 10,000 clusters.
    """
    return ":".join(f"{byte:02x}" for byte in b"\x52\x54" + _hash(cluster, owner, str(index))[:4])


def escape(text: str) -> str:
    r"""`text` as one part of a unit name: what is not a letter, digit, "_" or "." becomes \xNN, "-" included.

    A dash separates the parts of our unit names and nests slices (systemd.unit(5), systemd.slice(5)).
    """
    return re.sub(r"[^A-Za-z0-9_.]", lambda match: "".join(f"\\x{byte:02x}" for byte in match[0].encode()), text)


def service_unit(cluster: str) -> str:
    """The static unit that runs placematd for a cluster; a cluster's name needs no escaping in an instance name."""
    return f"placemat@{cluster}.service"


def slice_unit(cluster: str) -> str:
    """The slice that holds all units of a cluster."""
    return f"placemat-{escape(cluster)}.slice"


def _unit_stem(cluster: str, kind: str, *parts: str) -> str:
    """Only the last part keeps its dashes: that stays unambiguous, and worker-1 stays readable."""
    *first, last = parts
    return "-".join(["placemat", escape(cluster), kind, *map(escape, first), re.sub(r"\\x2d", "-", escape(last))])


def unit_part(name: str) -> str:
    """The part of a cluster that one of our units serves: "node", "app", "bmc", ...; "" where there is none."""
    parts = name.split("-")  # placemat-CLUSTER-PART-...: the escaped cluster has no dash
    return parts[2] if len(parts) > 3 else ""


def node_unit(cluster: str, node: str) -> str:
    """The unit that runs a node's QEMU."""
    return _unit_stem(cluster, "node", node) + ".service"


def tpm_unit(cluster: str, node: str, suffix: str = "service") -> str:
    """The unit that runs a node's swtpm (service), started by the first connection to its control socket (socket)."""
    return _unit_stem(cluster, "tpm", node) + "." + suffix


def bmc_unit(cluster: str, node: str, suffix: str = "service") -> str:
    """The unit that runs a node's BMC (service), started by the first packet to its address (socket)."""
    return _unit_stem(cluster, "bmc", node) + "." + suffix


def console_unit(cluster: str, node: str, suffix: str = "service") -> str:
    """The unit (service or socket) that carries a node's console to the journal."""
    return _unit_stem(cluster, "console", node) + "." + suffix


def app_unit(cluster: str, namespace: str, app: str) -> str:
    """The unit that runs one app of a network namespace."""
    return _unit_stem(cluster, "app", namespace, app) + ".service"


def init_unit(cluster: str, namespace: str) -> str:
    """The oneshot unit that runs the init scripts of a network namespace."""
    return _unit_stem(cluster, "init", namespace) + ".service"


def table_name(cluster: str) -> str:
    """The cluster's nftables table (family inet)."""
    return "placemat-" + cluster


def passage_name(family: str, table: str, chain: str) -> str:
    """The rules of a cluster in a chain of somebody else's; short enough for their comment, which holds the mark."""
    name = ":".join((family, table, chain))
    fits = len(name) <= PASSAGE_NAME_BYTES and re.fullmatch(r"[!-~]+", name)
    return name if fits else f"{family}:{_hash(name).hex()[:16]}"


def node_uuid(cluster: str, node: str) -> str:
    """The UUID of a node, which its guest sees as system UUID: the same at every start."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"placemat:{cluster}/{node}"))


def default_serial(node: str) -> str:
    """The SMBIOS serial number of a node whose file has none: hex SHA-1 of its name, as in placemat v2."""
    return hashlib.sha1(node.encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class NodePaths:
    """Files of one running node below the run directory; sockets must stay under 108 bytes (unix(7)).

    `directory` (.../node/NODE) is made and removed by the node's unit; log and tpm outlive it, beside each other in
    .../log and .../tpm.
    """

    directory: Path

    @property
    def console(self) -> Path:
        """Serial console: a Unix stream socket of QEMU's that serves one client (placematd)."""
        return self.directory / "console"

    @property
    def qmp(self) -> Path:
        """QEMU Machine Protocol: a Unix stream socket that serves one client (placematd)."""
        return self.directory / "qmp"

    @property
    def guest(self) -> Path:
        """The host end of /dev/virtio-ports/placemat in the guest."""
        return self.directory / "guest"

    @property
    def ipmi(self) -> Path:
        """The host end of the guest's IPMI system interface: a Unix stream socket of QEMU's."""
        return self.directory / "ipmi"

    @property
    def tpm(self) -> Path:
        """swtpm's control socket; held open by a socket unit."""
        return self.directory.parent.with_name("tpm") / self.directory.name

    @property
    def bmc(self) -> Path:
        """What a BMC and placematd share, in a directory that only root enters."""
        return self.directory.parent.with_name("bmc") / self.directory.name

    @property
    def machine(self) -> Path:
        """Where placematd answers a node's BMC; the directory is all that the BMC sees of ours."""
        return self.bmc / "pub" / "api"

    @property
    def bmc_ipmi(self) -> Path:
        """Where the BMC answers its own guest."""
        return self.bmc / "ipmi"

    @property
    def log(self) -> Path:
        """A FIFO that QEMU writes the console to and the console unit reads; held open by a socket unit."""
        return self.directory.parent.with_name("log") / self.directory.name


@dataclass(frozen=True)
class BmcFiles:
    """What outlives the BMC of a node and placematd, below the data directory; `directory` is CLUSTER/bmc."""

    directory: Path
    node: str

    @property
    def state(self) -> Path:
        """Boot order, event log, accounts, ..."""
        return self.directory / f"{self.node}.json"

    @property
    def certificate(self) -> Path:
        """The BMC's certificate, PEM, with those that vouch for it."""
        return self.directory / f"{self.node}.crt"

    @property
    def key(self) -> Path:
        """The certificate's key, PEM."""
        return self.directory / f"{self.node}.key"


def bmc_files(data_dir: Path, cluster: str, node: str) -> BmcFiles:
    """Where a BMC's files are."""
    return BmcFiles(data_dir / cluster / "bmc", node)


def run_directory(run: Path, cluster: str) -> Path:
    """The cluster's run directory (`run` is /run/placemat unless set otherwise)."""
    return run / cluster


def namespace_sysfs(run: Path, namespace: str) -> Path:
    """Where the sysfs of a network namespace is mounted; no cluster's directory, whose names begin with no dot."""
    return run / ".sysfs" / namespace


def node_paths(run: Path, cluster: str, node: str) -> NodePaths:
    """Where a node's sockets are."""
    return NodePaths(run_directory(run, cluster) / "node" / node)


@dataclass(frozen=True)
class OwnerMark:
    """The mark on everything placemat makes: who made it, what it is, and the digest of its inputs.

    Its text form ("placemat CLUSTER KIND NAME DIGEST") stands in the ifalias of links, in the comment of the nftables
    table and in brackets at the end of a unit's description. No part can hold a space.
    """

    cluster: str
    kind: str
    name: str
    digest: str

    def __str__(self) -> str:
        return f"placemat {self.cluster} {self.kind} {self.name} {self.digest}"

    @staticmethod
    def parse(text: str) -> "OwnerMark | None":
        """The mark in an ifalias, comment or unit description; None where there is none: then it is not ours."""
        match = re.search(r"(?:^|\[)placemat (\S+) (\S+) (\S+) ([0-9a-f]+)\]?$", text)
        return OwnerMark(*match.groups()) if match else None
