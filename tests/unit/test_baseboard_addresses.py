"""BMC addresses: taken, refused, kept for the next placematd, and forgotten."""

from dataclasses import replace
from ipaddress import ip_address, ip_interface
from pathlib import Path

import pytest

from placematd.baseboard.addresses import REFUSALS_AT_ONCE, BmcAddresses
from placematd.events import Event, Events
from placematd.models import Cluster, Network, Node, NodeBmc

CLUSTER = Cluster(
    name="lab",
    networks=(Network(name="bmc", type="bmc", use_nat=False, address=ip_interface("172.16.1.1/24")),),
    nodes=(Node(name="n1"), Node(name="n2")),
)


class Desk:
    """One placematd's addresses over a directory, and what it told."""

    def __init__(self, directory: Path) -> None:
        self.told: list[Event] = []
        events = Events()
        events.listen(self.told.append)
        self.addresses = BmcAddresses(directory / "address", "lab", events)

    def hear(self, node: str, line: bytes) -> None:
        self.addresses.hear(CLUSTER, node, line)

    def kinds(self) -> list[str]:
        return [event["kind"] for event in self.told]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_an_address_is_told_with_cluster_and_node(desk: Desk) -> None:
    desk.hear("n1", b"172.16.1.2\r")
    assert desk.addresses.of == {"n1": "172.16.1.2"}
    assert desk.told[0] | {"time": ""} == {
        "time": "",
        "kind": "bmc",
        "message": "cluster lab: node n1: BMC address 172.16.1.2",
        "node": "n1",
        "address": "172.16.1.2",
    }


def test_the_next_placematd_knows_it_and_tells_it_again(desk: Desk, tmp_path: Path) -> None:
    desk.hear("n1", b"172.16.1.2")
    successor = Desk(tmp_path)
    successor.addresses.adopt(CLUSTER, ["n1", "n2"])
    assert successor.addresses.of == {"n1": "172.16.1.2"}
    assert successor.kinds() == ["bmc"]


def test_the_cluster_file_goes_before_what_a_guest_says(desk: Desk) -> None:
    desk.hear("n1", b"172.16.1.2")
    written = replace(CLUSTER, nodes=(Node(name="n1", bmc=NodeBmc(address=ip_address("172.16.1.9"))), Node(name="n2")))
    desk.addresses.adopt(written, ["n1", "n2"])
    assert desk.addresses.of == {}
    assert not desk.addresses.hear(written, "n1", b"172.16.1.9"), "the guest says the same"
    assert not desk.addresses.hear(written, "n1", b"172.16.1.2")
    assert not desk.addresses.hear(written, "n2", b"172.16.1.9")
    assert desk.addresses.of == {}
    refused = [event["message"] for event in desk.told if event["kind"] == "warning"]
    assert refused == [
        "node n1: refused BMC address: 172.16.1.2: the cluster file gives it 172.16.1.9",
        "node n2: refused BMC address: 172.16.1.9: used by the BMC of node n1 already",
    ]


def test_a_later_line_moves_the_bmc(desk: Desk) -> None:
    assert desk.addresses.hear(CLUSTER, "n1", b"172.16.1.2")
    assert not desk.addresses.hear(CLUSTER, "n1", b"172.16.1.2")
    assert desk.addresses.hear(CLUSTER, "n1", b"172.16.1.3")
    assert desk.addresses.of == {"n1": "172.16.1.3"}


@pytest.mark.parametrize("kept", [b"10.0.0.1\n", b"\xff\xfe", b"", b"172.16.1.1\n"])
def test_what_is_kept_is_checked_like_what_a_guest_says(kept: bytes, tmp_path: Path) -> None:
    (tmp_path / "address").mkdir()
    (tmp_path / "address" / "n1").write_bytes(kept)
    desk = Desk(tmp_path)
    desk.addresses.adopt(CLUSTER, ["n1"])
    assert desk.addresses.of == {}
    assert desk.kinds() == ["warning"]
    assert list((tmp_path / "address").iterdir()) == []


def test_a_reload_keeps_what_still_fits_silently_and_drops_the_rest(desk: Desk) -> None:
    desk.hear("n1", b"172.16.1.2")
    desk.hear("n2", b"172.16.1.3")
    desk.told.clear()
    desk.addresses.adopt(CLUSTER, ["n1"])
    assert desk.addresses.of == {"n1": "172.16.1.2"}
    assert desk.told == []
    desk.addresses.adopt(Cluster(name="lab"), ["n1"])
    assert desk.addresses.of == {}
    assert desk.kinds() == ["warning"]


def test_an_address_belongs_to_one_node(desk: Desk) -> None:
    desk.hear("n1", b"172.16.1.2")
    desk.hear("n2", b"172.16.1.2")
    desk.hear("n1", b"172.16.1.2")
    assert desk.addresses.of == {"n1": "172.16.1.2"}
    assert desk.kinds() == ["bmc", "warning", "bmc"]
    assert "used by the BMC of node n1 already" in desk.told[1]["message"]


def test_rubbish_does_not_flood_the_journal(desk: Desk) -> None:
    for number in range(1000):
        desk.hear("n1", b"rubbish %d" % number)
    assert len(desk.told) == REFUSALS_AT_ONCE
    desk.hear("n1", b"172.16.1.2")
    assert desk.addresses.of == {"n1": "172.16.1.2"}


def test_clear_leaves_no_directory(desk: Desk, tmp_path: Path) -> None:
    desk.addresses.clear()
    desk.hear("n1", b"172.16.1.2")
    desk.addresses.clear()
    assert desk.addresses.of == {}
    assert list(tmp_path.iterdir()) == []


def test_an_address_that_cannot_be_kept_is_known_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "address").write_text("a file in the way")
    desk = Desk(tmp_path)
    desk.hear("n1", b"172.16.1.2")
    assert desk.addresses.of == {"n1": "172.16.1.2"}
    assert desk.kinds() == ["warning", "bmc"]
