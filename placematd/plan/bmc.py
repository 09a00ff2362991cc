"""The units of BMCs: sockets that systemd holds open, and a process without any right that the first packet starts.

The process sees its own code, its certificate and one socket of placematd's. It opens no socket to listen on.
"""

from collections.abc import Iterator, Mapping
from ipaddress import ip_address, ip_interface

from ..bmc_settings import effective
from ..facts import Host, Python, Settings
from ..models import Cluster, IPAddress, IPInterface, Node
from ..names import BmcFiles, bmc_files, bmc_unit, node_paths, slice_unit
from ..resources import Key, UnitResource
from ..unit import Unit, Value, command
from .apps import SECOND
from .confinement import MS_REC, STRANGE_SYSTEM_CALLS, hardened, hidden
from .console import journal_fields
from .network import bmc_network

RMCP_PORT = 623
HTTPS_PORT = 443
STOP_TIMEOUT_SECONDS = 10


LIBRARIES = "/run/placemat-python"
"""Where the process finds our code: the directory that it is really in may be one that only root enters."""

MACHINE = "/run/placemat-machine"
"""Where the process finds the directory of `NodePaths.machine`."""

CERTIFICATE, KEY = "cert.pem", "key.pem"


def bmc_addresses(cluster: Cluster, told: Mapping[str, str]) -> dict[str, IPInterface]:
    """The address of each node's BMC with the prefix of its network; nodes whose BMC has none are not in it.

    What the cluster file says goes before what guests `told`.
    """
    written = {node.name: node.bmc.address for node in cluster.nodes if node.bmc.address}
    heard = {name: ip_address(text) for name, text in told.items()}
    known = {node.name: written.get(node.name) or heard.get(node.name) for node in cluster.nodes}
    found = {name: _with_prefix(cluster, address) for name, address in known.items() if address}
    return {name: address for name, address in found.items() if address}


def _with_prefix(cluster: Cluster, address: IPAddress) -> IPInterface | None:
    network = bmc_network(cluster, address)
    own = next((own for own in network.all_addresses if address in own.network), None) if network else None
    return ip_interface(f"{address}/{own.network.prefixlen}") if own else None


def speaks_ipmi(cluster: Cluster, node: Node) -> bool:
    """Whether a node's BMC speaks IPMI, to the network and to its guest; a cluster without BMC networks has no BMCs."""
    return effective(cluster, node).ipmi and any(network.type == "bmc" for network in cluster.networks)


def bmc_units(
    cluster: Cluster, host: Host, settings: Settings, addresses: Mapping[str, IPInterface]
) -> Iterator[UnitResource]:
    """A socket unit with its service for each node whose BMC somebody can reach."""
    for node in cluster.nodes:
        if listen := tuple(_listen(cluster, node, settings, addresses.get(node.name))):
            socket = _socket(cluster, node, listen, _service(cluster, node, host, settings))
            networks = [bmc_network(cluster, address.ip) for name, address in addresses.items() if name == node.name]
            yield UnitResource(
                name=socket.name,
                owner=f"Node {node.name}",
                needs=tuple(Key("bridge", network.name) for network in networks if network),
                what="bmc",
                unit=socket,
                journal_fields=journal_fields(cluster, node),
            )


def _listen(cluster: Cluster, node: Node, settings: Settings, address: IPInterface | None) -> Iterator[tuple[str, str]]:
    """What the sockets are: the process tells them apart by family and type."""
    if address:
        host = f"[{address.ip}]" if address.version == 6 else str(address.ip)
        if speaks_ipmi(cluster, node):
            yield "Datagram", f"{host}:{RMCP_PORT}"
        yield "Stream", f"{host}:{HTTPS_PORT}"
    if speaks_ipmi(cluster, node):
        yield "Stream", str(node_paths(settings.run_dir, cluster.name, node.name).bmc_ipmi)


def _socket(cluster: Cluster, node: Node, listen: tuple[tuple[str, str], ...], service: Unit) -> Unit:
    return Unit(
        bmc_unit(cluster.name, node.name, "socket"),
        (
            ("Description", f"BMC of node {node.name} of cluster {cluster.name}"),
            ("Slice", slice_unit(cluster.name)),
            ("Listen", listen),
            ("FreeBind", True),  # an IPv6 address is no address yet while the kernel looks for duplicates
            ("SocketMode", 0o600),
            ("RemoveOnStop", True),
            ("TriggerLimitIntervalUSec", 0),  # a BMC that somebody crashes again and again answers all the same
        ),
        (service,),
    )


def _service(cluster: Cluster, node: Node, host: Host, settings: Settings) -> Unit:
    paths = node_paths(settings.run_dir, cluster.name, node.name)
    files = bmc_files(settings.data_dir, cluster.name, node.name)
    return Unit(
        bmc_unit(cluster.name, node.name),
        (
            ("Description", f"BMC of node {node.name} of cluster {cluster.name}"),
            ("Type", "notify"),
            ("ExecStart", (_program(host, settings),)),
            ("Environment", (f"PYTHONPATH={_python_path(host.python)}",)),
            ("Restart", "on-failure"),  # whoever subscribed to events is served again without sending a packet
            ("RestartUSec", SECOND),
            ("TimeoutStopUSec", STOP_TIMEOUT_SECONDS * SECOND),
            ("StartLimitIntervalUSec", 0),
            ("SyslogIdentifier", "bmc"),
            ("LoadCredential", _credentials(files)),
            hidden(settings),
            ("BindReadOnlyPaths", tuple(_python_binds(host.python))),
            ("BindPaths", ((str(paths.machine.parent), MACHINE, False, MS_REC),)),
            *hardened(cluster.name),
            ("DynamicUser", True),
            ("PrivateDevices", True),
            ("MemoryDenyWriteExecute", True),
            ("RestrictAddressFamilies", (True, ("AF_UNIX", "AF_INET", "AF_INET6"))),  # events go to those who subscribe
            ("SystemCallFilter", (False, (*STRANGE_SYSTEM_CALLS, "@privileged", "@resources"))),
        ),
    )


def _program(host: Host, settings: Settings) -> Value:
    program = (str(host.python.executable), "-P", "-s", "-m", "placematd.bmc")
    return command(*program, "--idle-seconds", str(settings.bmc_idle_seconds), f"{MACHINE}/api")


def _credentials(files: BmcFiles) -> Value:
    return ((CERTIFICATE, str(files.certificate)), (KEY, str(files.key)))


def _python_path(python: Python) -> str:
    return ":".join((LIBRARIES, *(f"{LIBRARIES}-{number}" for number in range(len(python.libraries)))))


def _python_binds(python: Python) -> Iterator[Value]:
    yield (str(python.package), f"{LIBRARIES}/placematd", False, MS_REC)
    for number, directory in enumerate(python.libraries):
        yield (str(directory), f"{LIBRARIES}-{number}", False, MS_REC)
