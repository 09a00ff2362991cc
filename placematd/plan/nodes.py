"""What a node needs to run: its taps, and the units of its TPM and its QEMU."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from .. import qemu
from ..errors import PlacematError
from ..facts import QEMU_USER, Accelerator, Host, Ovmf, Settings
from ..models import Cluster, HostPathVolume, Node, Smbios, Volume
from ..names import NodePaths, console_unit, default_serial, mac_address, node_paths, node_uuid, slice_unit, tap_name
from ..names import node_unit as node_unit_name
from ..names import tpm_unit as tpm_unit_name
from ..resources import Key, Tap, UnitResource, VolumeFile
from ..unit import Property, Unit, command
from .apps import SECOND
from .bmc import speaks_ipmi
from .confinement import (
    CONFIGURATION,
    devices,
    hidden,
    share_capabilities,
    unprivileged,
    visible,
    volume_roots,
    volumes_view,
)
from .console import journal_fields
from .network import bridge_keys
from .volumes import efivars, firmware, node_volumes, tpm_state, volume_file

RUN = Path("/run")
CREDENTIALS = RUN / "credentials"
"""Where a unit finds what LoadCredential= brings, below its own name (systemd.exec(5))."""

IGNITION = "ignition"
STOP_TIMEOUT_SECONDS = 30
OPEN_FILES = 65536


@dataclass(frozen=True, kw_only=True)
class NodeInterface:
    """A NIC of a node as status shows it."""

    network: str
    tap: str
    mac: str


@dataclass(frozen=True, kw_only=True)
class NodePlan:
    """A node as decided, for those who watch and switch it; `smbios` is with the serial number that the guest sees."""

    name: str
    unit: str
    interfaces: tuple[NodeInterface, ...]
    volumes: tuple[str, ...]
    cpus: int
    memory: str
    uefi: bool
    secure_boot: bool
    tpm: bool
    ipmi: bool
    """Whether its guest sees its BMC."""
    smbios: Smbios
    uuid: str
    accelerator: Accelerator
    paths: NodePaths


def node_plan(cluster: Cluster, node: Node, host: Host, settings: Settings) -> NodePlan:
    """The summary of a node."""
    return NodePlan(
        name=node.name,
        unit=node_unit_name(cluster.name, node.name),
        interfaces=tuple(
            NodeInterface(network=network, tap=tap_name(cluster.name, node.name, index), mac=_mac(cluster, node, index))
            for index, network in enumerate(node.interfaces)
        ),
        volumes=tuple(volume.name for volume in node.volumes),
        cpus=qemu.cpu_counts(node.topology)[0],
        memory=node.memory or qemu.DEFAULT_MEMORY,
        uefi=node.uefi,
        secure_boot=node.secure_boot,
        tpm=node.tpm,
        ipmi=speaks_ipmi(cluster, node),
        smbios=_smbios(node),
        uuid=node_uuid(cluster.name, node.name),
        accelerator=host.accelerator,
        paths=node_paths(settings.run_dir, cluster.name, node.name),
    )


# -- taps -------------------------------------------------------------------------------------------------------------


def taps(cluster: Cluster, host: Host) -> Iterator[Tap]:
    """A tap per NIC."""
    for node in cluster.nodes:
        for index, network in enumerate(node.interfaces):
            yield Tap(
                name=tap_name(cluster.name, node.name, index),
                owner=_owner(node),
                needs=bridge_keys(cluster, (network,)),
                bridge=network,
                mtu=host.mtu,
                queues=_queues(node),
                user=QEMU_USER,
            )


def _queues(node: Node) -> int:
    return max(node.network_device_queue, 1)


def _mac(cluster: Cluster, node: Node, index: int) -> str:
    return mac_address(cluster.name, f"node {node.name}", index)


# -- TPM --------------------------------------------------------------------------------------------------------------


def tpm_unit(cluster: Cluster, node: Node, host: Host, settings: Settings) -> UnitResource:
    """The control socket of a node's TPM, held by systemd so that QEMU can always connect, and then swtpm comes."""
    state = tpm_state(cluster, node, settings)
    socket = Unit(
        tpm_unit_name(cluster.name, node.name, "socket"),
        (
            ("Description", f"TPM socket of node {node.name} of cluster {cluster.name}"),
            ("Slice", slice_unit(cluster.name)),
            ("Listen", (("Stream", str(_paths(cluster, node, settings).tpm)),)),
            ("SocketUser", QEMU_USER),
            ("SocketMode", 0o600),
            ("RemoveOnStop", True),
        ),
        (_swtpm(cluster, node, host, settings, state.path),),
    )
    return UnitResource(
        name=socket.name,
        owner=_owner(node),
        needs=(state.key,),
        what="tpm",
        unit=socket,
        journal_fields=journal_fields(cluster, node),
    )


def _swtpm(cluster: Cluster, node: Node, host: Host, settings: Settings, state: Path) -> Unit:
    argv = (
        str(host.swtpm),
        "socket",
        "--tpm2",
        "--tpmstate",
        f"dir={state}",
        "--ctrl",
        "type=unixio,fd=3",
        "--terminate",
    )
    return Unit(
        tpm_unit_name(cluster.name, node.name),
        (
            ("Description", f"TPM of node {node.name} of cluster {cluster.name}"),
            ("Type", "exec"),
            ("ExecStart", (command(*argv),)),
            ("TimeoutStopUSec", STOP_TIMEOUT_SECONDS * SECOND),
            ("SyslogIdentifier", "swtpm"),
            ("PrivateDevices", True),
            ("PrivateNetwork", True),
            hidden(settings),
            *visible({state}, set()),
            *unprivileged(cluster.name),
        ),
    )


# -- QEMU -------------------------------------------------------------------------------------------------------------


def node_unit(cluster: Cluster, node: Node, host: Host, settings: Settings) -> UnitResource:
    """The unit that runs a node's QEMU.

    Raises PlacematError where the run directory is not below /run, the only place where systemd makes one for a unit.
    """
    volumes = node_volumes(cluster, node, host, settings)
    tpm = (tpm_unit_name(cluster.name, node.name, "socket"),) if node.tpm else ()
    console = console_unit(cluster.name, node.name, "socket")
    machine = _machine(cluster, node, host, settings)
    unit = Unit(
        node_unit_name(cluster.name, node.name),
        (
            ("Description", f"Node {node.name} of cluster {cluster.name}"),
            ("After", (console, *tpm)),
            ("Requires", (console, *tpm)),
            ("Type", "exec"),
            ("ExecStart", (command(*qemu.argv(machine)),)),
            ("Restart", "no"),
            ("RemainAfterExit", True),  # a node that was powered off is remembered as "active (exited)"
            ("TimeoutStopUSec", STOP_TIMEOUT_SECONDS * SECOND),
            ("SyslogIdentifier", "qemu"),
            ("LimitNOFILE", OPEN_FILES),
            *_credentials(node),
            *_view(machine.paths, volumes, settings),
            *devices(host),
            *unprivileged(cluster.name, share_capabilities(volumes)),
        ),
    )
    return UnitResource(
        name=unit.name,
        owner=_owner(node),
        needs=(
            *(Key("tap", tap_name(cluster.name, node.name, index)) for index in range(len(node.interfaces))),
            *(volume.key for volume in volumes if volume.form != "directory"),
            *(Key("unit", name) for name in (console, *tpm)),
        ),
        what="node",
        unit=unit,
        journal_fields=journal_fields(cluster, node),
    )


def _machine(cluster: Cluster, node: Node, host: Host, settings: Settings) -> qemu.Machine:
    unit = node_unit_name(cluster.name, node.name)
    return qemu.Machine(
        qemu=host.qemu,
        name=node.name,
        uuid=node_uuid(cluster.name, node.name),
        accelerator=host.accelerator,
        smp=node.topology,
        memory=node.memory,
        numa_nodes=node.numa.nodes,
        smbios=_smbios(node),
        firmware=_firmware(cluster, node, host, settings),
        nics=tuple(
            qemu.Nic(
                tap=tap_name(cluster.name, node.name, index),
                mac=_mac(cluster, node, index),
                mtu=host.mtu or qemu.DEFAULT_MTU,
                queues=_queues(node),
            )
            for index in range(len(node.interfaces))
        ),
        vhost_net=host.vhost_net,
        storage=tuple(_storage(volume, volume_file(cluster, node, volume, host, settings)) for volume in node.volumes),
        tpm=node.tpm,
        ipmi=speaks_ipmi(cluster, node),
        ignition=CREDENTIALS / unit / IGNITION if node.ignition else None,
        paths=_paths(cluster, node, settings),
    )


def _storage(volume: Volume, file: VolumeFile) -> qemu.Disk | qemu.Share:
    if isinstance(volume, HostPathVolume):
        return qemu.Share(path=file.path, tag=volume.name, writable=volume.writable)
    return qemu.Disk(path=file.path, format=file.format, cache=volume.cache)


def _firmware(cluster: Cluster, node: Node, host: Host, settings: Settings) -> Ovmf | None:
    if not node.uefi:
        return None
    return Ovmf(code=firmware(host, node).code, vars=efivars(cluster, node, host, settings).path)


def _credentials(node: Node) -> tuple[Property, ...]:
    """Files that only root may read, handed to QEMU by systemd."""
    return (("LoadCredential", ((IGNITION, str(node.ignition)),)),) if node.ignition else ()


def _view(paths: NodePaths, volumes: tuple[VolumeFile, ...], settings: Settings) -> tuple[Property, ...]:
    writable, readable = volumes_view(volumes)
    writable |= {paths.directory, paths.log}
    if any(volume.form == "state" for volume in volumes):
        writable.add(paths.tpm)
    return (
        ("RuntimeDirectory", (_below_run(paths.directory),)),
        ("RuntimeDirectoryMode", 0o700),
        hidden(settings, *volume_roots(volumes), *(CONFIGURATION if share_capabilities(volumes) else ())),
        *visible(writable, readable),
    )


def _below_run(directory: Path) -> str:
    if not directory.is_relative_to(RUN):
        raise PlacematError(f"run directory {directory}: must lie below /run (PLACEMAT_RUN_DIR)")
    return str(directory.relative_to(RUN))


def _paths(cluster: Cluster, node: Node, settings: Settings) -> NodePaths:
    return node_paths(settings.run_dir, cluster.name, node.name)


def _smbios(node: Node) -> Smbios:
    return replace(node.smbios, serial=node.smbios.serial or default_serial(node.name))


def _owner(node: Node) -> str:
    return f"Node {node.name}"
