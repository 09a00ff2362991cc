"""Guests tell the addresses of their BMCs through /dev/virtio-ports/placemat, rightly and wrongly.

One cluster with three guests; the tests come in the order of its life.
"""

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from guests import Console, images
from sandboxes import Box, as_root

from tests.e2e.bmc_clients import CLI, SYSTEM, Bmc, addresses
from tests.e2e.console import booted, entered
from tests.e2e.host import differences, snapshot
from tests.e2e.journal import follow_on

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

HERE = Path(__file__).parent / "bmc"
CLUSTER = "addresses"
PLACEMATD = f"placemat@{CLUSTER}.service"
PORT = "/dev/virtio-ports/placemat"
EVENT_SECONDS = 120.0
FIXED = {"172.16.1.1/24", "fd00:16:1::1/64", "172.16.1.2/24"}


@dataclass
class Lab:
    """The cluster, the shells of its guests, and what the sandbox was like before it."""

    box: Box
    before: dict[str, list[str]]
    guests: dict[str, Console]

    def bmc(self, address: str) -> Bmc:
        return Bmc(self.box, address)

    def listed(self, node: str) -> tuple[str | None, str | None]:
        """Address of its BMC, and where it is from."""
        return self.list()[node]

    def list(self) -> dict[str, tuple[str | None, str | None]]:
        """The same of all nodes."""
        bmcs = json.loads(self.box.run([CLI, "--cluster", CLUSTER, "bmc", "list", "--json"]).stdout)
        return {bmc["node"]: (bmc["address"], bmc["source"]) for bmc in bmcs}

    def write(self, node: str, line: str, answer: str) -> None:
        """Have a guest tell something, and wait for what placematd says."""
        with follow_on(self.box.run, self.box.popen, f"--unit={PLACEMATD}") as journal:
            self.guests[node].run(f"echo '{line}' > {PORT}")
            journal.wait(answer, EVENT_SECONDS)

    def move(self, node: str, line: str, address: str = "") -> Bmc:
        """Have a guest tell its BMC's address, and wait until the BMC has it."""
        self.write(node, line, rf"^replace unit placemat-{CLUSTER}-bmc-{node}\.socket")
        return self.bmc(address or line)

    def addresses(self) -> set[str]:
        return addresses(self.box, "bmc0") - FIXED


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with as_root() as box, ExitStack() as stack:
        folder = f"/run/{box.name}"
        box.sh(
            f"mkdir -p {folder} /run/placemat; cp {HERE}/addresses.yml {folder}; cp {images().bios} {folder}/guest.img"
        )
        box.run(["tee", f"/run/placemat/{CLUSTER}.conf"], input=f"PLACEMAT_FILES={folder}/addresses.yml\n")
        before = snapshot(box.run)
        box.run(["systemctl", "start", PLACEMATD])
        names = ("given", "teller", "other")
        guests = {name: stack.enter_context(entered(box, CLUSTER, name)) for name in names}
        for console in guests.values():
            booted(console)
        yield Lab(box, before, guests)


def test_the_line_of_the_article_gives_the_bmc_its_address(lab: Lab) -> None:
    assert lab.listed("teller") == (None, None)
    with follow_on(lab.box.run, lab.box.popen, f"--unit={PLACEMATD}") as journal:
        lab.guests["teller"].run(f"echo 172.16.1.10 | dd of={PORT}")
        journal.wait("node teller: BMC address 172.16.1.10$", EVENT_SECONDS)
        journal.wait(f"replace unit placemat-{CLUSTER}-bmc-teller.socket", EVENT_SECONDS)
    bmc = lab.bmc("172.16.1.10")
    assert bmc.power() == "on"
    assert bmc.get(SYSTEM)["Name"] == "teller"
    assert lab.addresses() == {"172.16.1.10/24"}
    assert lab.listed("teller") == ("172.16.1.10", "guest")


def test_a_later_line_moves_it_and_the_old_address_answers_no_more(lab: Lab) -> None:
    bmc = lab.move("teller", "172.16.1.11")
    assert bmc.get(SYSTEM)["Name"] == "teller"
    assert bmc.power() == "on"
    assert lab.bmc("172.16.1.10").silent()
    assert lab.addresses() == {"172.16.1.11/24"}


def test_an_ipv6_address_and_its_certificate(lab: Lab) -> None:
    bmc, ca = lab.move("other", "fd00:16:1:0:0::10", "fd00:16:1::10"), f"/run/{lab.box.name}/ca.pem"
    assert bmc.power() == "on"
    lab.box.sh(f"{CLI} --cluster {CLUSTER} bmc ca > {ca}")
    assert bmc.get(SYSTEM, ca=ca)["Name"] == "other"
    assert lab.bmc("172.16.1.11").get(SYSTEM, ca=ca)["Name"] == "teller"
    assert lab.listed("other") == ("fd00:16:1::10", "guest")


# Five refusals of a node are told at once, later ones one a minute.
@pytest.mark.parametrize(
    ("node", "line", "reason"),
    [
        ("teller", "192.0.2.7", "192.0.2.7: not in a network of type bmc"),
        ("teller", "172.16.1.1", "172.16.1.1: used by the bridge of network bmc0"),
        ("teller", "fd00:16:1::1", "fd00:16:1::1: used by the bridge of network bmc0"),
        ("teller", "172.16.1.2", "172.16.1.2: used by the BMC of node given"),
        ("teller", "172.16.1.255", "172.16.1.255: this is the broadcast address"),
        ("other", "172.16.1.11", "172.16.1.11: used by the BMC of node teller"),
        ("other", "172.16.1.11/24", "'172.16.1.11/24' is not an IP address"),
        ("other", "rubbish $(reboot) \\x1b[31m", "is not an IP address"),
        ("other", "", "the line is empty"),
        ("given", "172.16.1.50", "172.16.1.50: the cluster file gives it 172.16.1.2"),
    ],
)
def test_a_wrong_address_is_refused_and_changes_nothing(lab: Lab, node: str, line: str, reason: str) -> None:
    before = lab.addresses(), lab.list()
    lab.write(node, line, rf"node {node}: refused BMC address: .*{re.escape(reason)}")
    assert (lab.addresses(), lab.list()) == before
    for address in ("172.16.1.2", "172.16.1.11", "fd00:16:1::10"):
        lab.bmc(address).first_answer()


def test_a_node_that_is_off_keeps_the_address_that_its_guest_told(lab: Lab) -> None:
    bmc = lab.bmc("172.16.1.11")
    bmc.ipmi("power off")
    assert bmc.power() == "off"
    assert lab.listed("teller") == ("172.16.1.11", "guest")
    bmc.ipmi("power on")
    assert bmc.power() == "on"
    booted(lab.guests["teller"])


@pytest.mark.parametrize("how", ["kill --kill-whom=main --signal=KILL", "restart"])
def test_the_next_placematd_knows_the_addresses(lab: Lab, how: str) -> None:
    with follow_on(lab.box.run, lab.box.popen, f"--unit={PLACEMATD}") as journal:
        lab.box.sh(f"systemctl {how} {PLACEMATD}")
        journal.wait(f"cluster {CLUSTER} is up", EVENT_SECONDS)
    assert lab.addresses() == {"172.16.1.11/24", "fd00:16:1::10/64"}
    assert lab.bmc("172.16.1.11").power() == "on"
    assert lab.bmc("fd00:16:1::10").power() == "on"
    assert lab.listed("teller") == ("172.16.1.11", "guest")
    assert lab.move("teller", "172.16.1.12").power() == "on"
    assert lab.move("teller", "172.16.1.11").power() == "on"


def test_a_flood_of_lines_is_bounded_and_nobody_else_suffers(lab: Lab) -> None:
    flood = "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo 192.0.2.$((i % 250)); done"
    with follow_on(lab.box.run, lab.box.popen, f"--unit={PLACEMATD}") as journal:
        lab.guests["other"].send(f"({flood}) > {PORT} &\n")
        journal.wait("node other: the guest sends more than 1 lines a second", EVENT_SECONDS)
    assert lab.bmc("172.16.1.2").power() == "on"
    assert lab.bmc("fd00:16:1::10").power() == "on"
    lab.guests["given"].run("true")
    said = lab.box.sh(f"journalctl --output=cat --unit={PLACEMATD} | grep -c 'node other: refused' || true")
    assert int(said) < 12
    lab.guests["other"].run("kill %1 2>/dev/null || true")


def test_addresses_that_guests_told_end_with_the_cluster(lab: Lab) -> None:
    box = lab.box
    box.run(["systemctl", "stop", PLACEMATD])
    assert differences(lab.before, snapshot(box.run)) == {}
    box.run(["systemctl", "start", PLACEMATD])
    assert lab.listed("teller") == (None, None)
    assert lab.listed("given") == ("172.16.1.2", "file")
    box.run(["systemctl", "stop", PLACEMATD])
