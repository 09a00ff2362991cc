"""What the golden error files cannot show well: limits from both sides, big clusters, the host, no noise."""

import time
from ipaddress import IPv4Interface, ip_interface
from pathlib import Path

import pytest

from placematd.errors import InvalidCluster, Mistake
from placematd.load import load
from placematd.models import (
    App,
    Cluster,
    HostPathVolume,
    Image,
    NamespaceInterface,
    Network,
    NetworkNamespace,
    Node,
    RawVolume,
    Smp,
)
from placematd.reading import in_file_order, read
from placematd.validate import validate
from placematd.validate.machines import qemu_topology, size_bytes

VALID = Path(__file__).parents[1] / "golden" / "valid"


def said(cluster: Cluster, **options: object) -> list[str]:
    return [mistake.message for mistake in validate(cluster, **options)]  # type: ignore[arg-type]


def cluster(*nodes: Node, networks: tuple[Network, ...] = (), name: str = "test") -> Cluster:
    return Cluster(name=name, nodes=nodes, networks=networks)


def node(name: str = "n", **fields: object) -> Node:
    return Node(name=name, **{"cpu": 1, **fields})  # type: ignore[arg-type]


NET0 = Network(name="net0", type="internal")


@pytest.mark.parametrize(("length", "fits"), [(1, True), (43, True), (44, False), (63, False)])
def test_cluster_name_fits_a_comment_of_nftables(length: int, fits: bool) -> None:
    messages = [message for message in said(cluster(name="c" * length)) if "nftables" in message]
    assert messages == (
        [] if fits else [f"name: expected at most 43 characters (it is part of a comment in nftables), found {length}"]
    )


@pytest.mark.parametrize("file", sorted(VALID.glob("*.yml")), ids=lambda file: file.stem)
def test_valid_files_have_neither_mistakes_nor_warnings(file: Path) -> None:
    _, warnings = read([file], "test", frozenset({"docker0"}), check_files=False)
    wanted = (
        ["its BMC and 1 more have the well-known user cybozu with password cybozu"]
        if file.stem == "v2-end-to-end"
        else []
    )
    assert [warning.message for warning in warnings] == wanted


def test_a_cluster_made_without_a_file_can_be_validated() -> None:
    assert said(cluster(node(interfaces=("net0",)), networks=(NET0,))) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: Network\nname: 1234567890123456\ntype: external\nuse-nat: false\n", "name: expected "),
        ("kind: Network\nname: invalid\ntype: invalid\nuse-nat: false\n", "type: expected "),
        ("kind: NetworkNamespace\nname:\ninterfaces: [{network: n}]\n", '"name" is empty'),
        ("kind: NetworkNamespace\nname: core\napps: [{name: a, command: [ip]}]\n", 'missing key "interfaces"'),
        ("kind: NetworkNamespace\nname: core\ninterfaces: []\n", "interfaces: expected at least one interface"),
        (
            "kind: NetworkNamespace\nname: core\ninterfaces: [{network: n}]\napps: [{name: a}]\n",
            'missing key "command"',
        ),
        ("kind: Node\nname: n\ncpu: 8\nvolumes: [{kind: hostPath, name: d, path: d}]\n", "expected an absolute path"),
        ("kind: Node\nname: n\ncpu: 1\nsmp: {cpus: 1}\n", 'both "cpu" and "smp" are written'),
        ("kind: Node\nname: n\n", 'missing key "cpu" or "smp"'),
    ],
)
def test_what_v2_refuses_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """The rejections of v2's types/cluster_test.go."""
    (tmp_path / "c.yml").write_text(text)
    with pytest.raises(InvalidCluster) as caught:
        read([tmp_path / "c.yml"], "test", frozenset({"n"}))
    assert any(message in mistake.message for mistake in caught.value.mistakes)


# -- limits, from both sides ------------------------------------------------------------------------------------------


def test_27_interfaces_and_volumes_fit_on_the_pci_bus() -> None:
    volumes = tuple(RawVolume(name=f"d{number}", size="1G") for number in range(7))
    assert said(cluster(node(interfaces=("net0",) * 20, volumes=volumes), networks=(NET0,))) == []
    (message,) = said(cluster(node(interfaces=("net0",) * 21, volumes=volumes), networks=(NET0,)))
    assert message.startswith("21 interfaces and 7 volumes, expected at most 27")


def test_a_bridge_has_1023_ports() -> None:
    router = NetworkNamespace(name="r", interfaces=(NamespaceInterface(network="net0"),) * 3)

    def ports(nodes: int) -> list[str]:
        all_nodes = tuple(node(f"n{number}", interfaces=("net0",)) for number in range(nodes))
        return said(Cluster(name="c", networks=(NET0,), namespaces=(router,), nodes=all_nodes))

    assert ports(1020) == []
    assert ports(1021) == ["1024 interfaces are attached, expected at most 1023"]


def test_socket_paths_have_107_bytes() -> None:
    assert said(cluster(node("n" * 63), name="c"), run_dir=Path("/run/placemat")) == []
    long = Path("/" + "r" * (107 - len("/c/node/n/console") - 1))
    assert said(cluster(node("n"), name="c"), run_dir=long) == []
    (message,) = said(cluster(node("n"), name="c"), run_dir=Path(f"{long}r"))
    assert "/c/node/n/console has 108 bytes, at most 107" in message


def test_unit_names_have_255_bytes() -> None:
    def of(namespace: str, name: str) -> list[str]:
        app = App(name="a" * 63, command=("ls",))
        interfaces = (NamespaceInterface(network="net0"),)
        router = NetworkNamespace(name=namespace, interfaces=interfaces, apps=(app,))
        return said(Cluster(name=name, networks=(NET0,), namespaces=(router,)))

    assert of("-".join("r" * 5), "c") == []
    (message,) = of("-".join("r" * 32), "-".join("c" * 22))
    assert "unit's name" in message and "at most 255" in message


def test_a_mount_tag_has_31_bytes() -> None:
    assert said(cluster(node(volumes=(HostPathVolume(name="t" * 31, path=Path("/srv")),)))) == []
    (message,) = said(cluster(node(volumes=(HostPathVolume(name="t" * 32, path=Path("/srv")),))))
    assert message.endswith("name: expected at most 31 bytes, found 32")


@pytest.mark.parametrize("name", ["", "a/b", "..", "-c", "a b", "x" * 64, "a\n"])
def test_a_cluster_name_that_could_be_a_path(name: str) -> None:
    assert any(message.startswith("name: expected ") for message in said(Cluster(name=name)))


@pytest.mark.parametrize("name", ["a", "dc-1", "1.2_3", "x" * 43])
def test_cluster_names(name: str) -> None:
    assert said(Cluster(name=name)) == []


@pytest.mark.parametrize("name", ["net0", "_x", "s1-to-r0-1", "1", "123456789012345"])
def test_network_names_that_v2_users_have(name: str) -> None:
    assert said(cluster(networks=(Network(name=name, type="internal"),))) == []


# -- machines ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "smp",
    [
        Smp(cpus=1),
        Smp(cpus=255),
        Smp(cpus=4, cores=2, threads=2, sockets=1),
        Smp(cpus=4, cores=2, maxcpus=8),
        Smp(cpus=2, dies=2),
        Smp(cpus=3, maxcpus=4, sockets=2),
    ],
    ids=repr,
)
def test_topologies_that_qemu_takes(smp: Smp) -> None:
    assert said(cluster(node(cpu=None, smp=smp))) == []


def test_qemu_prefers_cores_over_sockets() -> None:
    assert qemu_topology(Smp(cpus=8, threads=2)) == Smp(cpus=8, threads=2, cores=4, sockets=1, dies=1, maxcpus=8)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512", 512),
        ("1k", 1024),
        ("1.5G", 3 << 29),
        ("2T", 2 << 40),
        ("10B", 10),
        ("9007199254740993", 9007199254740993),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert size_bytes(text) == size


def test_a_plain_number_of_memory_is_mebibytes() -> None:
    assert size_bytes("2048", "M") == 2 << 30


# -- networks ---------------------------------------------------------------------------------------------------------


def external(name: str, *addresses: str) -> Network:
    return Network(name=name, type="external", addresses=tuple(ip_interface(address) for address in addresses))


@pytest.mark.parametrize(
    "networks",
    [
        (external("a", "10.0.0.1/24"), external("b", "10.0.1.1/24")),
        (external("a", "10.0.0.1/24", "10.0.0.2/24"),),
        (external("a", "10.0.0.0/31"), external("b", "10.0.0.2/31")),
        (external("a", "10.0.0.1/24", "fe80::1/64"), external("b", "10.0.1.1/24", "fe80::1/64")),
        (external("a", "10.0.0.1/32"), external("b", "10.0.0.2/32")),
        (external("a", "fd00::/127"), external("b", "fd00::2/127")),
    ],
)
def test_networks_side_by_side(networks: tuple[Network, ...]) -> None:
    assert said(cluster(networks=networks)) == []


def test_overlaps_are_found_whatever_the_order() -> None:
    wide, narrow, apart = external("w", "10.0.0.1/8"), external("n", "10.9.0.1/16"), external("a", "11.0.0.1/8")
    for networks in ((wide, narrow, apart), (narrow, apart, wide), (apart, narrow, wide)):
        (message,) = said(cluster(networks=networks))
        assert "overlaps with" in message


def test_host_addresses_may_be_anycast() -> None:
    def router(name: str, network: str, address: str) -> NetworkNamespace:
        interface = NamespaceInterface(network=network, addresses=(IPv4Interface(address),))
        return NetworkNamespace(name=name, interfaces=(interface,))

    networks = (NET0, Network(name="net1", type="internal"))
    for address, expected in (("10.9.9.9/32", []), ("10.9.9.9/24", ["warning"])):
        namespaces = (router("a", "net0", address), router("b", "net1", address))
        mistakes = validate(Cluster(name="c", networks=networks, namespaces=namespaces))
        assert [mistake.severity for mistake in mistakes] == expected


def test_bridges_of_the_host_can_be_named() -> None:
    docker = cluster(node(interfaces=("docker0",)))
    assert said(docker) == ['interfaces: no Network or bridge of the host is called "docker0"']
    assert said(docker, bridges=frozenset({"docker0"})) == []


# -- no noise ---------------------------------------------------------------------------------------------------------


def load_text(tmp_path: Path, text: str) -> tuple[Cluster, tuple[Mistake, ...], bool]:
    (tmp_path / "c.yml").write_text(text)
    loaded = load([tmp_path / "c.yml"], "test")
    return loaded.cluster, loaded.mistakes, loaded.complete


@pytest.mark.parametrize(
    "text",
    [
        "kind: Network\nname: n\ntype: extrenal\naddress: 10.0.0.1/24\nuse-nat: true\n",
        "kind: Network\nname: n\ntype: external\naddress: 10.0.0.1\n",
        "kind: Network\nnaem: net0\ntype: internal\n---\nkind: Node\nname: n\ncpu: 1\ninterfaces: [net0]\n",
        "kind: Network\nname: [net0]\ntype: internal\n---\nkind: Node\nname: n\ncpu: 1\ninterfaces: [net0]\n",
        "kind: Node\nname: n\ncpu: two\nnuma: {nodes: 2}\n",
        "kind: Node\nname: n\nsmp: {cpus: two, cores: 2}\n",
        "kind: Node\nname: n\ncpu: 1\nvolumes:\n- {kind: image, name: a, image: [x]}\n",
        "kind: Image\nname: i\nurl: [x]\n",
        "kind: DeviceClass\nname: d\npath: relative\n",
        "kind: Netwrok\nname: net0\ntype: internal\n---\nkind: Node\nname: n\ncpu: 1\ninterfaces: [net0]\n",
    ],
)
def test_a_field_that_could_not_be_read_is_reported_once(tmp_path: Path, text: str) -> None:
    read_cluster, mistakes, complete = load_text(tmp_path, text)
    assert len(mistakes) == 1
    assert validate(read_cluster, complete=complete) == ()


def test_names_in_documents_that_could_not_be_read_do_not_dangle(tmp_path: Path) -> None:
    text = "kind: Network\nname: net0\n type: internal\n---\nkind: Node\nname: n\ncpu: 1\ninterfaces: [net0]\n"
    read_cluster, mistakes, complete = load_text(tmp_path, text)
    assert (len(mistakes), complete) == (1, False)
    assert validate(read_cluster, complete=complete) == ()


# -- reading ----------------------------------------------------------------------------------------------------------


def test_everything_is_said_together_in_file_order(tmp_path: Path) -> None:
    second, first = tmp_path / "a.yml", tmp_path / "b.yml"
    first.write_text("kind: Node\nname: n\ncpu: two\ninterfaces: [x]\n---\nkind: Node\nname: n\ncpu: 1\n")
    second.write_text("kind: Node\nname: m\nCPU: 1\nignition: missing.ign\n")
    with pytest.raises(InvalidCluster) as caught:
        read([first, second], "test")
    places = [(Path(mistake.mark.file).name, mistake.mark.line) for mistake in caught.value.mistakes]
    assert places == [("b.yml", 3), ("b.yml", 4), ("b.yml", 7), ("a.yml", 3), ("a.yml", 4)]
    assert str(caught.value).splitlines() == [str(mistake) for mistake in caught.value.mistakes]


def test_a_mistake_is_said_once_also_where_an_alias_repeats_it(tmp_path: Path) -> None:
    file = tmp_path / "c.yml"
    file.write_text(
        "kind: Node\nname: n\ncpu: 1\nvolumes:\n- &v {kind: raw, name: d, size: 1G, sise: 1}\n- {<<: *v, name: e}\n"
    )
    with pytest.raises(InvalidCluster) as caught:
        read([file], "test")
    assert [mistake.message for mistake in caught.value.mistakes] == [
        'volume d: unknown key "sise"',
        'volume e: unknown key "sise"',
    ]


def test_no_file_at_all() -> None:
    with pytest.raises(InvalidCluster, match="no cluster file"):
        read([], "test")


def test_warnings_do_not_refuse(tmp_path: Path) -> None:
    file = tmp_path / "c.yml"
    file.write_text("kind: Node\nname: n\nCPU: 1\n")
    read_cluster, warnings = read([file], "test")
    assert read_cluster.nodes[0].cpu == 1
    assert [warning.severity for warning in warnings] == ["warning"]


def test_existing_files_are_fine(tmp_path: Path) -> None:
    for name, mode in (("script", 0o755), ("user-data", 0o644), ("disk.img", 0o644)):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(mode)
    file = tmp_path / "c.yml"
    file.write_text(f"""kind: Network
name: net0
type: internal
---
kind: NetworkNamespace
name: r
interfaces: [{{network: net0}}]
init-scripts: [script, {tmp_path}/script]
apps: [{{name: a, command: [./script], working-directory: .}}, {{name: b, command: [sh]}}]
---
kind: Image
name: i
file: disk.img
---
kind: DeviceClass
name: d
path: {tmp_path}/made-when-needed
---
kind: Node
name: n
cpu: 1
volumes:
- {{kind: localds, name: seed, user-data: user-data}}
- {{kind: hostPath, name: share, path: {tmp_path}/made-when-needed}}
""")
    read_cluster, warnings = read([file], "test")
    assert warnings == ()
    assert read_cluster.images == (Image(name="i", file=tmp_path / "disk.img"),)


def test_in_file_order_puts_the_cluster_itself_first() -> None:
    with pytest.raises(InvalidCluster) as caught:
        read([VALID / "every-field.yml"], "a/b", check_files=False)
    assert caught.value.mistakes[0].subject == "Cluster"
    assert in_file_order(reversed(caught.value.mistakes), [VALID / "every-field.yml"]) == caught.value.mistakes


def test_a_big_cluster_is_validated_in_a_second() -> None:
    nodes = tuple(
        node(f"n{number}", interfaces=(f"net{number}",), volumes=(RawVolume(name="d", size="1G"),) * 1)
        for number in range(500)
    )
    networks = tuple(external(f"net{number}", f"10.{number // 256}.{number % 256}.1/24") for number in range(500))
    start = time.process_time()
    assert said(cluster(*nodes, networks=networks)) == []
    assert time.process_time() - start < 1
