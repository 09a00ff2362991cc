"""Records that unit tests of planning start from."""

from ipaddress import ip_interface
from pathlib import Path

from placematd.facts import Host, Ovmf, Settings
from placematd.models import (
    App,
    Cluster,
    HostPathVolume,
    Image,
    ImageVolume,
    NamespaceInterface,
    Network,
    NetworkNamespace,
    Node,
    RawVolume,
)

OVMF = Ovmf(*(Path(f"/usr/share/OVMF/OVMF_{part}.fd") for part in ("CODE_4M", "VARS_4M", "VARS_4M.ms")))
HOST = Host(accelerator="kvm", accelerator_reason="/dev/kvm works", ovmf=OVMF)
SETTINGS = Settings(cluster="dc")

NET0 = Network(name="net0", type="external", use_nat=True, address=ip_interface("10.0.0.1/24"))
BOOT = NetworkNamespace(
    name="boot",
    interfaces=(NamespaceInterface(network="net0", addresses=(ip_interface("10.0.0.2/24"),)),),
    init_scripts=(Path("/etc/placemat/setup"),),
    apps=(
        App(name="dhcp", command=("dnsmasq", "--keep-in-foreground"), after=("ra",)),
        App(name="ra", command=("radvd", "-n")),
    ),
)
WORKER = Node(
    name="worker-1",
    interfaces=("net0",),
    volumes=(
        ImageVolume(name="root", image="debian", copy_on_write=True),
        RawVolume(name="data", size="1G"),
        HostPathVolume(name="share", path=Path("/srv/share")),
    ),
    cpu=2,
    memory="1G",
    tpm=True,
)
CLUSTER = Cluster(
    name="dc",
    networks=(NET0,),
    namespaces=(BOOT,),
    nodes=(WORKER, Node(name="worker-2", interfaces=("net0",), cpu=1)),
    images=(Image(name="debian", url="https://example.org/debian.qcow2"),),
)
"""A bit of everything."""
