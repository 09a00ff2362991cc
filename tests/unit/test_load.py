import time
from ipaddress import ip_address, ip_interface
from pathlib import Path

import pytest

from placematd.load import MAX_ALIASED, Loaded, load
from placematd.load.source import MAX_BYTES
from placematd.models import (
    App,
    BmcCertificate,
    BmcUser,
    Cluster,
    ClusterBmc,
    HostPathVolume,
    Image,
    ImageVolume,
    LocaldsVolume,
    NamespaceInterface,
    Network,
    NetworkNamespace,
    Node,
    NodeBmc,
    RawVolume,
    Route,
    Smbios,
)

VALID = Path(__file__).parents[1] / "golden" / "valid"


@pytest.fixture
def loads(tmp_path: Path):
    """Loads a text, or bytes, as cluster.yml in a directory of its own."""

    def load_text(content: str | bytes) -> Loaded:
        path = tmp_path / "cluster.yml"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return load([path], "test")

    return load_text


def one_node(loaded: Loaded) -> Node:
    assert loaded.mistakes == ()
    (node,) = loaded.cluster.nodes
    return node


def messages(loaded: Loaded) -> list[str]:
    return [str(mistake).partition("cluster.yml:")[2] for mistake in loaded.mistakes]


# -- whole files ------------------------------------------------------------------------------------------------------


def test_v2_parse_round_trip(loads, tmp_path: Path) -> None:
    """The resources of v2's types/cluster_test.go, field by field."""
    loaded = loads("""
kind: Network
name: internet
type: external
use-nat: true
address: 10.0.0.1/24
---
kind: Network
name: core-to-op
type: internal
use-nat: false
---
kind: NetworkNamespace
name: core
init-scripts:
  - scripts/netns.sh
apps:
  - name: link
    command: [ip, link, add, t1, type, veth, peer, name, t2]
interfaces:
- addresses:
  - 10.0.0.2/24
  network: internet
- addresses:
  - 10.0.2.0/31
  network: core-to-s1
---
kind: Node
name: boot-0
interfaces:
- r0-node1
- r0-node2
memory: 2G
cpu: 8
smbios:
  manufacturer: cybozu
  product: mk2
  serial: fb8f2417d0b4db30050719c31ce02a2e8141bbd8
ignition: my-node.ign
volumes:
- kind: image
  name: root
  image: custom-image
  size: 10G
  copy-on-write: true
  cache: writeback
- kind: localds
  name: seed
  network-config: network.yml
  user-data: seed_boot-0.yml
- kind: hostPath
  name: data
  path: /var/foo/data
uefi: false
tpm: true
---
kind: Image
name: custom-image
file: cloud.img
""")
    assert loaded.mistakes == ()
    assert loaded.cluster == Cluster(
        name="test",
        networks=(
            Network(name="internet", type="external", use_nat=True, address=ip_interface("10.0.0.1/24")),
            Network(name="core-to-op", type="internal"),
        ),
        namespaces=(
            NetworkNamespace(
                name="core",
                interfaces=(
                    NamespaceInterface(network="internet", addresses=(ip_interface("10.0.0.2/24"),)),
                    NamespaceInterface(network="core-to-s1", addresses=(ip_interface("10.0.2.0/31"),)),
                ),
                init_scripts=(tmp_path / "scripts/netns.sh",),
                apps=(App(name="link", command=("ip", "link", "add", "t1", "type", "veth", "peer", "name", "t2")),),
                directory=tmp_path,
            ),
        ),
        nodes=(
            Node(
                name="boot-0",
                interfaces=("r0-node1", "r0-node2"),
                volumes=(
                    ImageVolume(name="root", image="custom-image", size="10G", copy_on_write=True, cache="writeback"),
                    LocaldsVolume(
                        name="seed", user_data=tmp_path / "seed_boot-0.yml", network_config=tmp_path / "network.yml"
                    ),
                    HostPathVolume(name="data", path=Path("/var/foo/data")),
                ),
                ignition=tmp_path / "my-node.ign",
                cpu=8,
                memory="2G",
                tpm=True,
                smbios=Smbios(manufacturer="cybozu", product="mk2", serial="fb8f2417d0b4db30050719c31ce02a2e8141bbd8"),
            ),
        ),
        images=(Image(name="custom-image", file=tmp_path / "cloud.img"),),
    )


def test_every_field_is_read() -> None:
    """No field of any record in every-field.yml is left at its default, other than what cannot be in one file."""
    loaded = load([VALID / "every-field.yml"], "test")
    assert loaded.mistakes == ()
    namespace, node = loaded.cluster.namespaces[0], loaded.cluster.nodes[0]
    bird, relay = namespace.apps
    assert namespace.routes == (
        Route(to="default", via=ip_address("10.0.0.1")),
        Route(to="default", via=ip_address("fd00::1")),
        Route(to="10.9.0.0/16", via=ip_address("10.0.2.1")),
    )
    assert namespace.sysctls == (
        ("net.ipv4.fib_multipath_hash_policy", "1"),
        ("net.ipv6.conf.all.forwarding", "yes"),
    )
    assert relay.command == (str(VALID / "relay"), "8000", "yes", "1.10", "0x10", "2020-01-01")
    assert relay.environment == (("PORT", "08000"), ("DEBUG", "on"), ("EMPTY", ""))
    assert (relay.restart, relay.user, relay.after, relay.working_directory) == (
        "no",
        "nobody",
        ("bird",),
        VALID / "run",
    )
    assert (bird.command, bird.restart) == (("bird", "-f", "-c", "bird.conf"), "always")
    assert vars(node.smp or object()).keys() >= {"cpus", "maxcpus"}
    assert (node.topology.cpus, node.topology.maxcpus, node.numa.nodes, node.network_device_queue) == (4, 8, 2, 2)
    assert (node.smbios.product, node.smbios.serial, node.memory) == ("1.10", "0123", "1.5G")
    second = NodeBmc(address=ip_address("fd00:3::2"))
    assert loaded.cluster.nodes[1] == Node(name="123", cpu=2, memory="2048", bmc=second)
    assert loaded.cluster.bmc == ClusterBmc(
        users=(
            BmcUser(name="admin", role="Administrator", password_file=VALID / "secrets" / "admin"),
            BmcUser(name="watcher", role="ReadOnly", password_credential="bmc-watcher"),
        ),
        ipmi=False,
        media_directory=Path("/srv/iso"),
        certificate=BmcCertificate(certificate=VALID / "bmc.pem", key=VALID / "bmc.key"),
    )
    assert node.bmc == NodeBmc(
        address=ip_address("10.0.3.2"),
        ipmi=True,
        users=(
            BmcUser(name="007", role="Operator", password_file=Path("/etc/secret")),
            BmcUser(name="root", role="Administrator", password_credential="root"),
        ),
    )


def test_yaml_features() -> None:
    """Directives, empty documents, anchors across a document, merge keys, tags and explicit nulls."""
    loaded = load([VALID / "yaml-features.yml"], "test")
    assert loaded.mistakes == ()
    assert loaded.cluster.nodes == (
        Node(
            name="worker-1",
            cpu=2,
            volumes=(
                RawVolume(name="data", size="10G"),
                RawVolume(name="more", size="10G"),
                RawVolume(name="raw", size="10G", format="raw"),
            ),
        ),
        Node(name="worker-2", cpu=2, memory="2048", uefi=True),
    )
    assert loaded.cluster.networks == (Network(name="net0", type="internal"),)


def test_several_files_keep_their_order_and_their_directories(tmp_path: Path) -> None:
    files = [tmp_path / "b" / "one.yml", tmp_path / "a" / "two.yml"]
    for number, file in enumerate(files):
        file.parent.mkdir()
        file.write_text(
            f"kind: Node\nname: n{number}\ncpu: 1\nignition: ../x/./n.ign\n---\nkind: Image\nname: i{number}\nfile: i\n"
        )
    loaded = load(files, "test")
    assert [node.name for node in loaded.cluster.nodes] == ["n0", "n1"]
    assert [image.file for image in loaded.cluster.images] == [tmp_path / "b" / "i", tmp_path / "a" / "i"]
    assert loaded.cluster.nodes[0].ignition == tmp_path / "x" / "n.ign"


def test_relative_paths_are_those_of_the_file_given_not_of_what_it_links_to(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "c.yml").write_text("kind: Image\nname: i\nfile: disk.img\n")
    (tmp_path / "c.yml").symlink_to(tmp_path / "real" / "c.yml")
    assert load([tmp_path / "c.yml"], "test").cluster.images[0].file == tmp_path / "disk.img"


def test_a_relative_file_name_gives_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "c.yml").write_text("kind: Image\nname: i\nfile: disk.img\n")
    monkeypatch.chdir(tmp_path)
    loaded = load([Path("c.yml")], "test")
    assert loaded.cluster.images[0].file == tmp_path / "disk.img"
    assert loaded.cluster.images[0].marks[""].file == "c.yml"


# -- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("0123", "0123"),
        ("2048", "2048"),
        ("1.10", "1.10"),
        ("1e10", "1e10"),
        ("yes", "yes"),
        ("0x1F", "0x1F"),
        ("2020-01-01", "2020-01-01"),
        ("12:30:45", "12:30:45"),
        ("'null'", "null"),
        ('""', ""),
        ("1_000", "1_000"),
        ("!!str 012", "012"),
        ("|-\n  two\n  lines", "two\nlines"),
    ],
)
def test_text_is_taken_as_written(loads, written: str, text: str) -> None:
    assert one_node(loads(f"kind: Node\nname: n\nmemory: {written}\n")).memory == text


@pytest.mark.parametrize(
    ("written", "number"), [("2", 2), ("+2", 2), ("-2", -2), ("0x10", 16), ("0b11", 3), ("1_000", 1000), ("0o17", 15)]
)
def test_whole_numbers(loads, written: str, number: int) -> None:
    assert one_node(loads(f"kind: Node\nname: n\ncpu: {written}\n")).cpu == number


@pytest.mark.parametrize("written", ["two", '"2"', "2.0", "1:30", "08", "0x", "[2]", "yes", "2 3", "\u0662", "_"])
def test_what_is_no_whole_number(loads, written: str) -> None:
    (mistake,) = loads(f"kind: Node\nname: n\ncpu: {written}\n").mistakes
    assert mistake.message.startswith("cpu: expected a whole number, found ")


@pytest.mark.parametrize("written", ["yes", "Yes", "YES", "true", "True", "on", "ON", "y"])
def test_yes(loads, written: str) -> None:
    assert one_node(loads(f"kind: Node\nname: n\nuefi: {written}\n")).uefi is True


@pytest.mark.parametrize("written", ["no", "No", "false", "FALSE", "off", "n"])
def test_no(loads, written: str) -> None:
    assert one_node(loads(f"kind: Node\nname: n\nuefi: {written}\n")).uefi is False


@pytest.mark.parametrize("written", ["1", "yEs", '"yes"', "enabled", "[]", "tRUE"])
def test_neither_yes_nor_no(loads, written: str) -> None:
    (mistake,) = loads(f"kind: Node\nname: n\nuefi: {written}\n").mistakes
    assert mistake.message.startswith("uefi: expected true or false, found ")


@pytest.mark.parametrize("empty", ["", "~", "null", '""'])
def test_an_empty_optional_value_is_the_default(loads, empty: str) -> None:
    """As Go's zero values did in v2: a path that is "" is no path, a cache that is "" is the default."""
    text = f"""kind: Node
name: n
ignition: {empty}
volumes:
- kind: raw
  name: d
  size: 1G
  cache: {empty}
  format: {empty}
"""
    node = one_node(loads(text))
    assert node.ignition is None
    assert node.volumes == (RawVolume(name="d", size="1G"),)


@pytest.mark.parametrize("empty", ["", "~", "null"])
def test_an_empty_mapping_list_number_or_bool_is_the_default(loads, empty: str) -> None:
    keys = "".join(f"{key}: {empty}\n" for key in ("cpu", "smp", "numa", "smbios", "volumes", "interfaces", "uefi"))
    assert one_node(loads(f"kind: Node\nname: n\n{keys}")) == Node(name="n")


# -- marks ------------------------------------------------------------------------------------------------------------


def test_marks_stand_at_the_values(loads) -> None:
    node = one_node(loads("# é\nkind: Node\nname: 'n'\ninterfaces:\n- a\n-   b\nsmp: {cpus: 2}\n"))
    places = {name: (mark.line, mark.column) for name, mark in node.marks.items()}
    assert places == {
        "": (2, 1),
        "name": (3, 7),
        "interfaces": (5, 1),
        "interfaces.0": (5, 3),
        "interfaces.1": (6, 5),
        "smp": (7, 6),
    }
    assert node.smp and (node.smp.marks["cpus"].line, node.smp.marks["cpus"].column) == (7, 13)
    assert node.marks.of("memory") == node.marks[""]


def test_columns_count_characters_and_lines_count_newlines(loads) -> None:
    """U+2028 is a line break for YAML 1.1, but not for an editor."""
    loaded = loads("kind: Node # \U0001f600 \u2028\nname: n\nsmbios: {serial: '\U0001f600\u2028', cpu: 1}\n")
    assert messages(loaded) == ['3:24: Node n: smbios: unknown key "cpu"']


def test_windows_line_ends_and_a_byte_order_mark(loads) -> None:
    assert messages(loads(b"\xef\xbb\xbfkind: Node\r\nname: n\r\ncpu: two\r\n")) == [
        '3:6: Node n: cpu: expected a whole number, found text "two"'
    ]


# -- what is broken ---------------------------------------------------------------------------------------------------


def test_a_broken_field_has_a_stand_in_and_says_so(loads) -> None:
    (network,) = loads("kind: Network\nname: net0\ntype: extranal\naddress: 10.0.0.1\n").cluster.networks
    assert (network.type, network.address) == ("internal", None)
    assert network.marks.broken == {"type", "address"}


def test_items_that_cannot_be_read_leave_the_others_and_their_marks(loads) -> None:
    (node,) = loads("kind: Node\nname: n\ninterfaces: [a, [b], c]\n").cluster.nodes
    assert node.interfaces == ("a", "c")
    assert (node.marks["interfaces.1"].column, node.marks.broken) == (22, {"interfaces"})


def test_a_misspelt_key_counts_as_the_one_that_was_meant(loads) -> None:
    (node,) = loads("kind: Node\nname: n\nintrefaces: [a]\n").cluster.nodes
    assert node.interfaces == ("a",)


@pytest.mark.parametrize("content", ["kind: Node\nname: [n", "kind: Noooo\nname: n", "- a", "name: n"])
def test_a_document_that_cannot_be_read_leaves_the_cluster_incomplete(loads, content: str) -> None:
    loaded = loads(f"{content}\n---\nkind: Node\nname: last\n")
    assert not loaded.complete
    assert [node.name for node in loaded.cluster.nodes] == ["last"]
    assert len(loaded.mistakes) == 1


def test_tags_construct_nothing(loads, tmp_path: Path) -> None:
    proof = tmp_path / "pwned"
    loaded = loads(f"kind: Node\nname: !!python/object/apply:os.mkdir [{proof}]\ncpu: !!python/name:os.system\n")
    assert len(loaded.mistakes) >= 2
    assert not proof.exists()


@pytest.mark.parametrize("opening", ["[", "- ", "{a: ", "? "])
def test_deep_nesting_is_a_mistake_not_a_crash(loads, opening: str) -> None:
    assert len(loads(f"{opening * 50_000}\n---\nkind: Node\nname: n\n").mistakes) == 1


def test_aliases_cannot_stand_for_more_than_fits(loads) -> None:
    loaded = loads("a: &a [" + ", ".join("x" * 1000) + "]\nb: [" + ", ".join(["*a"] * 2000) + "]\n")
    assert f"{MAX_ALIASED:,}" in loaded.mistakes[0].message


# -- files that cannot be read ----------------------------------------------------------------------------------------


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    huge = tmp_path / "huge.yml"
    with huge.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    loaded = load([tmp_path / "missing.yml", tmp_path, huge, tmp_path / "nul\0.yml"], "test")
    assert [str(mistake).removeprefix(str(tmp_path)) for mistake in loaded.mistakes] == [
        "/missing.yml:1:1: cannot read the file: No such file or directory",
        ":1:1: cannot read the file: Is a directory",
        "/huge.yml:1:1: the file is larger than 16 MiB (split it into several files)",
        "/nul\0.yml:1:1: cannot read the file: embedded null byte",
    ]
    assert not loaded.complete


@pytest.mark.parametrize("content", ["", "\n", "# nothing\n", "---\n", "---\n---\n# nothing\n---\n", "~\n"])
def test_files_with_nothing_in_them(loads, content: str) -> None:
    assert loads(content) == Loaded(Cluster(name="test"), ())


def test_500_nodes_in_a_second(loads) -> None:
    document = (VALID / "v2-end-to-end.yml").read_text().split("---\n")[3]
    text = "---\n".join(document.replace("node1", f"node{number}") for number in range(500))
    start = time.process_time()
    loaded = loads(text)
    assert time.process_time() - start < 1
    assert len(loaded.cluster.nodes) == 500
