"""Names on the host: derived, short enough, and never the same for two things."""

import re
from pathlib import Path

import pytest

from placematd import names
from placematd.names import CLUSTER_NAME_BYTES, NodePaths, OwnerMark, passage_name


def test_names_do_not_change_between_releases() -> None:
    """Guests know their MAC addresses, users their taps."""
    assert names.tap_name("dc", "worker-1", 0) == "pmt-jnp5ewxpmx"
    assert names.veth_name("dc", "boot", 0) == "pmv-tagy2rnzba"
    assert names.mac_address("dc", "node worker-1", 0) == "52:54:d5:c7:44:f8"
    assert names.node_uuid("dc", "worker-1") == "2cb4ed0a-f2b9-5287-a75a-73bbf80d23f2"


@pytest.mark.parametrize("make", [names.tap_name, names.veth_name])
def test_link_names_fit_and_differ(make) -> None:  # type: ignore[no-untyped-def]
    made = {make(cluster, owner, index) for cluster in ("a", "b") for owner in ("x", "y" * 63) for index in range(20)}
    assert len(made) == 80
    assert all(len(name.encode()) <= names.LINK_NAME_BYTES for name in made)
    assert all(re.fullmatch(r"pm[tv]-[a-z2-7]{10}", name) for name in made)


def test_boundaries_between_parts_count() -> None:
    assert names.tap_name("a", "bc", 0) != names.tap_name("ab", "c", 0)


def test_mac_addresses_are_local_and_unicast() -> None:
    made = {names.mac_address("dc", f"node n{number}", 0) for number in range(1000)}
    assert len(made) == 1000
    assert all(int(mac[:2], 16) & 0b11 == 0b10 for mac in made)
    assert all(re.fullmatch("52:54(:[0-9a-f]{2}){4}", mac) for mac in made)


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("dc", "dc"),
        ("my-dc", r"my\x2ddc"),
        ("a.b_1", "a.b_1"),
        ("a b", r"a\x20b"),
        ("é", r"\xc3\xa9"),
        ("a/b", r"a\x2fb"),
    ],
)
def test_escape(text: str, escaped: str) -> None:
    assert names.escape(text) == escaped


def test_unit_names() -> None:
    assert names.slice_unit("my-dc") == r"placemat-my\x2ddc.slice"
    assert names.service_unit("my-dc") == "placemat@my-dc.service"
    assert names.node_unit("my-dc", "worker-1") == r"placemat-my\x2ddc-node-worker-1.service"
    assert names.tpm_unit("dc", "n", "socket") == "placemat-dc-tpm-n.socket"
    assert names.console_unit("dc", "n") == "placemat-dc-console-n.service"
    assert names.init_unit("dc", "rack0-tor1") == "placemat-dc-init-rack0-tor1.service"
    assert names.app_unit("dc", "rack0-tor1", "dhcp-relay") == r"placemat-dc-app-rack0\x2dtor1-dhcp-relay.service"


def test_unit_names_are_unambiguous() -> None:
    assert names.app_unit("dc", "a-b", "c") != names.app_unit("dc", "a", "b-c")
    assert names.node_unit("a-node-b", "c") != names.node_unit("a", "b-node-c")


def test_default_serial_is_v2s() -> None:
    assert names.default_serial("worker-1") == "937f54d5530d05c64bb6db676a6b6ab6249abfeb"


def test_uuid_is_one_per_node() -> None:
    made = {names.node_uuid(cluster, node) for cluster in ("a", "b") for node in ("x", "y")}
    assert len(made) == 4


def test_files_of_a_node() -> None:
    paths = names.node_paths(Path("/run/placemat"), "dc", "worker-1")
    assert paths == NodePaths(Path("/run/placemat/dc/node/worker-1"))
    assert str(paths.console) == "/run/placemat/dc/node/worker-1/console"
    assert str(paths.qmp) == "/run/placemat/dc/node/worker-1/qmp"
    assert str(paths.guest) == "/run/placemat/dc/node/worker-1/guest"
    assert str(paths.tpm) == "/run/placemat/dc/tpm/worker-1"
    assert str(paths.log) == "/run/placemat/dc/log/worker-1"


# -- marks ------------------------------------------------------------------------------------------------------------

MARK = OwnerMark("dc", "tap", "pmt-abcdefghij", "0123456789ab")


def test_mark_as_text() -> None:
    assert str(MARK) == "placemat dc tap pmt-abcdefghij 0123456789ab"


@pytest.mark.parametrize("text", ["{}", "Node worker-1 of cluster dc [{}]", "Two [brackets] here [{}]"])
def test_mark_is_found(text: str) -> None:
    assert OwnerMark.parse(text.format(MARK)) == MARK


def test_mark_of_a_unit_with_an_escaped_name() -> None:
    mark = OwnerMark("my-dc", "unit", r"placemat-my\x2ddc-node-worker-1.service", "ab")
    assert OwnerMark.parse(f"Node [{mark}]") == mark


@pytest.mark.parametrize(
    "text",
    [
        "",
        "uplink",
        "placemat",
        "placemat dc tap pmt-a",
        "placemat dc tap pmt-a XYZ",
        "not placemat dc tap pmt-a 0123",
        "placemat dc tap pmt-a 0123 and more",
    ],
)
def test_no_mark(text: str) -> None:
    assert OwnerMark.parse(text) is None


@pytest.mark.parametrize("chain", ["FORWARD", "x" * 200, "with space", "ü"])
def test_mark_of_a_passage_fits_the_comment_of_an_nftables_rule(chain: str) -> None:
    name = passage_name("inet", "firewalld", chain)
    mark = OwnerMark("c" * CLUSTER_NAME_BYTES, "passage", name, "0" * 12)
    assert len(str(mark).encode()) <= 127
    assert OwnerMark.parse(str(mark)) == mark
    assert name != passage_name("inet", "firewalld", chain + "y")
