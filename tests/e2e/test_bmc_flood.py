"""Strangers who send nonsense to the BMC of a node, as fast as they can: who has a right to it hardly notices.

PLACEMAT_FLOOD_SECONDS for a long run, PLACEMAT_FLOOD_SEED for another one.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sandboxes import Box, as_root

from tests.e2e.bmc_clients import ACCOUNTS, CLI, SYSTEM, Bmc, show, write

pytestmark = [pytest.mark.e2e]

HERE = Path(__file__).parent
CLUSTER, PASSWORD = "flood", "admin-secret"
PLACEMATD = f"placemat@{CLUSTER}.service"
SECONDS = float(os.environ.get("PLACEMAT_FLOOD_SECONDS", "8"))
SEED = os.environ.get("PLACEMAT_FLOOD_SEED", "4")
RATE = 2000
STRANGER = "172.16.1.200"
MOST_BYTES, GROWTH_BYTES = 64 << 20, 16 << 20
HALT = bytes.fromhex("faf4ebfd").ljust(510, b"\0") + b"\x55\xaa"
"""A boot sector (cli; hlt): a guest that found nothing to boot would start again and again by itself."""

LINES = 40
"""What may be said of a flood in the journal."""
CHANGES_BY_ITSELF = ("power_on_seconds", "counted_at", "sections")

PATHS = ":".join(map(str, (HERE.parents[1], HERE.parent, HERE.parent / "unit")))

Figure = Callable[[str], None]


@dataclass
class Lab:
    """A cluster with two BMCs."""

    box: Box
    victim: Bmc
    neighbour: Bmc

    @property
    def placematd(self) -> int:
        return int(show(self.box, PLACEMATD, "MainPID"))

    def unit(self, name: str) -> str:
        return show(self.box, f"placemat-{CLUSTER}-bmc-victim.service", name)

    def bytes(self, pid: int) -> int:
        """What is resident."""
        return int(self.box.sh(f"cut -d' ' -f2 /proc/{pid}/statm")) * os.sysconf("SC_PAGE_SIZE")

    def remembered(self) -> dict[str, Any]:
        """What placematd stored of the victim, and its QEMU: all that a request could change."""
        state = json.loads(self.box.sh(f"cat /var/lib/placemat/{CLUSTER}/bmc/victim.json"))
        kept = {name: value for name, value in state.items() if name not in CHANGES_BY_ITSELF}
        qemu = show(self.box, f"placemat-{CLUSTER}-node-victim.service", "MainPID")
        return {**kept, "accounts": state["sections"]["accounts"], "qemu": qemu}

    def lines(self) -> int:
        """Of the journal."""
        return int(self.box.sh("journalctl --quiet --output=cat | wc -l"))


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with as_root() as box:
        folder = f"/run/{box.name}"
        box.sh(f"mkdir -p {folder} /run/placemat; cp {HERE}/bmc/flood.yml {folder}")
        write(box, f"{folder}/admin.password", PASSWORD)
        box.run(["tee", f"{folder}/halt.img"], input=HALT.decode("latin-1"), encoding="latin-1")
        box.run(["truncate", "--size=1M", f"{folder}/halt.img"])
        box.run(["tee", f"/run/placemat/{CLUSTER}.conf"], input=f"PLACEMAT_FILES={folder}/flood.yml\n")
        start = box.run(["systemctl", "start", PLACEMATD], check=False)
        assert start.returncode == 0, box.run(["journalctl", "--output=cat", f"--unit={PLACEMATD}"]).stdout
        box.sh(f"ip address add {STRANGER}/32 dev bmc0")
        victim, neighbour = (Bmc(box, f"172.16.1.{host}", "admin", PASSWORD) for host in (2, 3))
        for bmc in (victim, neighbour):
            assert (bmc.power(), bmc.get(SYSTEM)["PowerState"]) == ("on", "On")
        yield Lab(box, victim, neighbour)


@contextmanager
def flood(lab: Lab, mode: str, target: str, *source: str, rate: int = 0) -> Iterator[dict[str, Any]]:
    """Strangers at work; what they say of it is in the dict afterwards."""
    python = ["env", f"PYTHONPATH={PATHS}", sys.executable]
    argv = [*python, HERE / "bmc_flood.py", mode, str(SECONDS), str(rate), SEED, target, *source]
    said: dict[str, Any] = {}
    with lab.box.popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield said
        except BaseException:
            process.kill()
            raise
        said |= json.loads(process.communicate()[0])


@contextmanager
def unharmed(lab: Lab, figure: Figure) -> Iterator[None]:
    """Whatever happens meanwhile: nothing ends, nothing is changed, nothing grows."""
    pid, placematd, before = int(lab.unit("MainPID")), lab.placematd, lab.remembered()
    sizes, lines = {who: lab.bytes(who) for who in (pid, placematd)}, lab.lines()
    yield
    assert (int(lab.unit("MainPID")), lab.unit("NRestarts")) == (pid, "0")
    assert lab.placematd == placematd
    assert lab.remembered() == before
    for who, size in sizes.items():
        grown = lab.bytes(who) - size
        figure(f"{'placematd' if who == placematd else 'the BMC'}: {size / 1e6:.1f} MB before, {grown / 1e6:+.1f} MB")
        assert grown < GROWTH_BYTES
    assert lab.bytes(pid) < MOST_BYTES
    said = lab.lines() - lines
    figure(f"{said} lines in the journal")
    assert said < LINES


def questions(lab: Lab, ask: Callable[[], object], figure: Figure, name: str) -> None:
    """Ask again and again until shortly before the flood ends."""
    times, ends = [], time.monotonic() + SECONDS - 3
    while not times or time.monotonic() < ends:
        began = time.monotonic()
        ask()
        times.append(time.monotonic() - began)
    figure(f"meanwhile {name}: {len(times)} times, {1000 * max(times):.0f} ms at most")


def patient(bmc: Bmc) -> None:
    """`ipmitool power status` of a client that sends again what is lost."""
    options = f"-I lanplus -C 17 -N 1 -R 20 -H {bmc.address} -U {bmc.user}"
    said = bmc.box.run(["bash", "-c", f"IPMITOOL_PASSWORD={PASSWORD} ipmitool {options} -E power status"]).stdout
    assert said == "Chassis Power is on\n"


def test_mutated_packets(lab: Lab, figure: Figure) -> None:
    """Two thousand a second, and all the while somebody logs in and is answered."""
    with unharmed(lab, figure):
        with flood(lab, "packets", lab.victim.address, STRANGER, rate=RATE) as sent:
            questions(lab, lambda: patient(lab.victim), figure, "ipmitool power status")
        figure(f"{sent['sent'] / sent['took']:.0f} packets/s, {sent['answers'] / sent['took']:.0f} answers/s")
        assert sent["answers"] > sent["sent"] // 20, "they were looked at"
        assert lab.victim.get(SYSTEM)["PowerState"] == "On"


def test_as_many_packets_as_can_be(lab: Lab, figure: Figure) -> None:
    """More than one BMC can read: those beside it and placematd go on, and afterwards it is as before."""
    with unharmed(lab, figure):
        with flood(lab, "packets", lab.victim.address, STRANGER) as sent:
            questions(lab, lambda: patient(lab.neighbour), figure, "ipmitool power status of the neighbour")
        figure(f"{sent['sent'] / sent['took']:.0f} packets/s, {sent['answers'] / sent['took']:.0f} answers/s")
        patient(lab.victim)


def test_what_is_neither_tls_nor_http(lab: Lab, figure: Figure) -> None:
    with unharmed(lab, figure):
        with flood(lab, "web", lab.victim.address, STRANGER) as sent:
            questions(lab, lambda: lab.victim.get(SYSTEM), figure, "curl of a resource")
            patient(lab.victim)
        figure(f"{sent['sent'] / sent['took']:.0f} connections/s, {sent['answers']} answers")
        assert sent["answers"] > 0
        assert len(lab.victim.get(ACCOUNTS)["Members"]) == 1


def test_a_process_that_was_taken_over_tells_placematd_nonsense(lab: Lab, figure: Figure) -> None:
    """It has one socket, on which placematd believes it nothing."""
    with unharmed(lab, figure):
        with flood(lab, "machine", f"/run/placemat/{CLUSTER}/bmc/victim/pub/api") as sent:
            questions(lab, lambda: patient(lab.neighbour), figure, "ipmitool power status of the neighbour")
            assert json.loads(lab.box.run([CLI, "--cluster", CLUSTER, "status", "--json"]).stdout)["state"] == "running"
        figure(f"{sent['sent'] / sent['took']:.0f} calls/s")
        patient(lab.victim)
