"""A hundred BMCs in one cluster, and real clients that press all of them at the same time.

The nodes are powered off, which their BMCs do not mind: a hundred guests would measure the machine and not the BMCs.
The tests come in the order of the cluster's life. PLACEMAT_LOAD_BMCS and PLACEMAT_LOAD_SECONDS for more of it.
"""

import compileall
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sandboxes import REPOSITORY, Box, as_root

from tests.e2e.bmc_clients import CLI, show
from tests.e2e.journal import follow

pytestmark = [pytest.mark.e2e]

BMCS = int(os.environ.get("PLACEMAT_LOAD_BMCS", "100"))
SECONDS = os.environ.get("PLACEMAT_LOAD_SECONDS", "8")
CLUSTER = "load"
PLACEMATD = f"placemat@{CLUSTER}.service"
CLIENT = Path(__file__).with_name("bmc_load.py")
HOSTS = [f"172.16.{1 + number // 250}.{2 + number % 250}" for number in range(BMCS)]
NODES = [f"n{number:04}" for number in range(BMCS)]
IDLE_SECONDS = 30
STALL_SECONDS = 1.0
COLD_SECONDS = 0.5 * BMCS
"""Each process of a BMC takes a core for a sixth of a second, or for twice that where others want it too."""
LIST_SECONDS = 5.0
QUICK_SECONDS, PYGHMI_SLEEPS_SECONDS = 0.1, 1.0
BMC_BYTES = 40 << 20
FDS_OF_A_BMC = 4

CLUSTER_FILE = """\
kind: Network
name: bmc0
type: bmc
use-nat: false
address: 172.16.0.1/16
"""
NODE = """\
---
kind: Node
name: {name}
cpu: 1
memory: 16M
bmc: {{address: {host}}}
"""

Figure = Callable[[str], None]


@dataclass
class Lab:
    """The cluster, whose nodes are off."""

    box: Box
    started: float
    """How long its start took, in seconds."""
    placematd: int
    fds: int = 0
    cpu: dict[str, float] = field(default_factory=dict)

    def client(self, mode: str, *words: str, hosts: Sequence[str] = HOSTS) -> Any:
        return json.loads(self.box.run([*client(mode, *words, hosts=hosts)]).stdout)

    def open_files(self) -> int:
        return int(self.box.sh(f"ls /proc/{self.placematd}/fd | wc -l"))

    def cpu_seconds(self) -> float:
        """Of placematd."""
        ticks = self.box.sh(f"cut -d' ' -f14,15 /proc/{self.placematd}/stat").split()
        return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")

    def ipmipower(self, *words: str, hosts: Sequence[str] = HOSTS) -> tuple[dict[str, str], float]:
        """What it prints of each host, and how long it took."""
        options = ["--session-timeout=60000", "--driver-type=LAN_2_0", "-u", "cybozu", "-p", "cybozu"]
        began = time.monotonic()
        said = self.box.run(["ipmipower", *words, *options, "-h", ",".join(hosts)], check=False).stdout
        return dict(line.split(": ") for line in said.splitlines()), time.monotonic() - began


def client(mode: str, *words: str, hosts: Sequence[str] = HOSTS) -> list[str | Path]:
    return [sys.executable, CLIENT, mode, *words, "--", *hosts]


def spread(times: Sequence[float]) -> str:
    """A line about many times."""
    ordered = sorted(times)
    at = {
        name: ordered[min(int(len(ordered) * part), len(ordered) - 1)] for name, part in (("p50", 0.5), ("p99", 0.99))
    }
    return ", ".join(f"{name} {1000 * value:.0f} ms" for name, value in {**at, "max": ordered[-1]}.items())


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    compileall.compile_dir(REPOSITORY / "placematd", quiet=1)  # as `make install` does: a BMC may not write it
    with as_root() as box:
        folder = f"/run/{box.name}"
        box.sh(f"mkdir -p {folder} /run/placemat")
        text = CLUSTER_FILE + "".join(
            NODE.format(name=name, host=host) for name, host in zip(NODES, HOSTS, strict=True)
        )
        box.run(["tee", f"{folder}/load.yml"], input=text)
        settings = f"PLACEMAT_FILES={folder}/load.yml\nPLACEMAT_BMC_IDLE_SECONDS={IDLE_SECONDS}\n"
        box.run(["tee", f"/run/placemat/{CLUSTER}.conf"], input=settings)
        began = time.monotonic()
        start = box.run(["systemctl", "start", PLACEMATD], check=False)
        assert start.returncode == 0, box.run(["journalctl", "--output=cat", f"--unit={PLACEMATD}"]).stdout[-4000:]
        took = time.monotonic() - began
        switch_off(box)
        yield Lab(box, took, int(show(box, PLACEMATD, "MainPID")))


def switch_off(box: Box) -> None:
    """All nodes, over the API."""
    common = (
        f'unix-socket = "/run/placemat/{CLUSTER}/api.sock"\noutput = "/dev/null"\nrequest = "POST"\ndata = "{{}}"\n'
    )
    orders = [
        f'{common}url = "http://placemat/v1/nodes/{node}/stop"\nwrite-out = "%{{http_code}}\\n"' for node in NODES
    ]
    argv = ["curl", "--silent", "--parallel", "--parallel-max", "16", "--config", "-"]
    assert box.run(argv, input="\nnext\n".join(orders)).stdout.split() == ["200"] * BMCS


def test_the_first_packets_of_all_at_once(lab: Lab, figure: Figure) -> None:
    lab.fds, cpu = lab.open_files(), lab.cpu_seconds()
    figure(
        f"{BMCS} nodes: up in {lab.started:.1f} s, for which placematd took {cpu:.1f} s of CPU; {lab.fds} open files"
    )
    answered = lab.client("cold")["seconds"]
    warm = lab.client("cold")["seconds"]
    assert len(answered) == len(warm) == BMCS
    figure(f"{BMCS} cold BMCs asked at once: answered after {spread(answered)}")
    figure(f"{BMCS} warm BMCs asked at once: answered after {spread(warm)}")
    used = lab.client("memory")
    assert len(used["pss"]) == BMCS, "a process each"
    took = lab.cpu_seconds() - cpu
    figure(
        f"CPU of a cold start: {1000 * sum(used['cpu']) / BMCS:.0f} ms, and {1000 * took / BMCS:.1f} ms of placematd's"
    )
    assert answered[-1] < COLD_SECONDS
    assert warm[-1] < STALL_SECONDS


def test_one_ipmipower_asks_all(lab: Lab, figure: Figure) -> None:
    for number in range(2):
        said, took = lab.ipmipower("--stat")
        assert said == dict.fromkeys(HOSTS, "off")
        figure(f"ipmipower --stat of {BMCS} BMCs{', again' if number else ''}: {1000 * took:.0f} ms")


def test_ipmitool_and_redfish_side_by_side(lab: Lab, figure: Figure) -> None:
    """Sessions with all of them over Redfish, and ipmitool beside that: nobody waits for a second."""
    argv = client("redfish", SECONDS, "4")
    with lab.box.popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr.readline() == "ready\n"
        cpu = lab.cpu_seconds()
        process.stdin.write("go\n")
        process.stdin.flush()
        ipmi = lab.client("ipmitool", SECONDS, "4")
        redfish = json.loads(process.communicate()[0])
    cpu = lab.cpu_seconds() - cpu
    figure(f"first session over Redfish with each of {BMCS}, 4 at a time: {spread(redfish['first'])}")
    for name, found in ("ipmitool power status", ipmi), ("Redfish GET", redfish):
        assert found["errors"] == []
        count, took = len(found["seconds"]), found["took"]
        figure(f"{name}, 4 at a time over {BMCS}: {count / took:.0f}/s, {spread(found['seconds'])}")
        stalls = [took for took in found["seconds"] if took > STALL_SECONDS + found["witness"]]
        assert stalls == [], f"the machine itself stood still for {found['witness']:.3f} s at most"
    figure(f"placematd meanwhile: {100 * cpu / redfish['took']:.0f} % of a core")
    used = lab.client("memory")["pss"]
    figure(f"PSS of {len(used)} BMCs with IPMI and Redfish: {max(used) / 1e6:.1f} MB each, {sum(used) / 1e6:.0f} MB")
    assert max(used) < BMC_BYTES


def test_pyghmi_has_one_socket_for_all(lab: Lab, figure: Figure) -> None:
    """Its server took 18 seconds for each question when many addresses had the same port.

    Every few dozen questions the client sleeps for up to a second while the answer, which comes in a millisecond, lies
    in its socket: seen on the wire, where no question is sent twice and none waits.
    """
    found = lab.client("pyghmi")
    figure(
        f"pyghmi's client, {BMCS} BMCs, one process: log in {spread(found['logins'])}, power {spread(found['seconds'])}"
    )
    for times in found["logins"], found["seconds"]:
        assert statistics.median(times) < QUICK_SECONDS
        assert max(times) < PYGHMI_SLEEPS_SECONDS + STALL_SECONDS + found["witness"]


def test_all_of_them_listed(lab: Lab, figure: Figure) -> None:
    began = time.monotonic()
    listed = json.loads(lab.box.run([CLI, "--cluster", CLUSTER, "bmc", "list", "--json"]).stdout)
    took = time.monotonic() - began
    assert [bmc["address"] for bmc in listed] == HOSTS
    figure(f"placemat-cli bmc list of {BMCS}: {1000 * took:.0f} ms")
    assert took < LIST_SECONDS


def test_nodes_go_on_and_off_while_others_are_asked(lab: Lab, figure: Figure) -> None:
    """Ten starts of QEMU and their ends, ordered by one client; another asks the rest meanwhile."""
    some, others = HOSTS[:10], HOSTS[10:]
    before = lab.cpu_seconds()
    with lab.box.popen(client("ipmitool", "4", "1", hosts=others), stdout=subprocess.PIPE, text=True) as asking:
        said, took = lab.ipmipower("--on", "--wait-until-on", hosts=some)
        assert said == dict.fromkeys(some, "ok")
        meanwhile = json.loads(asking.communicate()[0])
    said, off = lab.ipmipower("--off", "--wait-until-off", hosts=some)
    assert said == dict.fromkeys(some, "ok")
    assert lab.ipmipower("--stat")[0] == dict.fromkeys(HOSTS, "off")
    figure(
        f"10 of {BMCS} nodes on: {took:.1f} s, off: {off:.1f} s, others asked meanwhile: {spread(meanwhile['seconds'])}"
    )
    figure(f"placematd for that: {lab.cpu_seconds() - before:.1f} s of CPU")
    assert meanwhile["errors"] == []
    assert [took for took in meanwhile["seconds"] if took > STALL_SECONDS + meanwhile["witness"]] == []


def test_who_is_not_needed_ends(lab: Lab, figure: Figure) -> None:
    """The processes are gone, nothing of them stays with placematd, and every BMC can be asked again."""
    with follow(lab.box.popen, "_PID=1") as journal:
        for node in NODES:
            unit = f"placemat-{CLUSTER}-bmc-{node}.service"
            journal.wait(re.escape(f"{unit}: Deactivated successfully."), IDLE_SECONDS * 2 + 30)
    assert lab.client("memory")["pss"] == []
    after = lab.open_files()
    figure(f"placematd's open files: {lab.fds} before, {after} after")
    assert after <= lab.fds + FDS_OF_A_BMC
    failed = lab.box.sh("systemctl list-units --state=failed --plain --no-legend 'placemat*'")
    assert failed == ""
    assert len(lab.client("cold", hosts=HOSTS[:4])["seconds"]) == 4


def test_the_journal_has_no_line_for_each_question(lab: Lab, figure: Figure) -> None:
    lines = lab.box.sh("journalctl --quiet --output=cat SYSLOG_IDENTIFIER=bmc").splitlines()
    figure(f"{len(lines)} lines of the BMCs in the journal")
    assert lines == []
