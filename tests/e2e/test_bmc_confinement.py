"""What the process of a BMC, which talks to everybody, can see and do: as good as nothing.

Looked at from outside (systemd-analyze, /proc, ss) and from inside: as the user of one BMC, in its mount namespace.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sandboxes import Box, as_root

from tests.e2e.bmc_clients import Bmc, show

pytestmark = [pytest.mark.e2e]

HERE = Path(__file__).parent / "bmc"
CLUSTER = "life"
WORST_EXPOSURE = 4.0
MACHINE = "/run/placemat-machine/api"
REFUSED = ("FileNotFoundError", "PermissionError")

CONNECT = """\
import socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
    try:
        client.connect(sys.argv[1])
        print("connected")
    except OSError as error:
        print(type(error).__name__)
"""


@dataclass
class Lab:
    """A cluster with two BMCs whose processes run."""

    box: Box

    def unit(self, node: str) -> str:
        return f"placemat-{CLUSTER}-bmc-{node}.service"

    def pid(self, node: str) -> str:
        return show(self.box, self.unit(node), "MainPID")

    def status(self, node: str) -> dict[str, str]:
        """/proc/PID/status of the process of a BMC."""
        lines = self.box.sh(f"cat /proc/{self.pid(node)}/status").splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def connects(self, node: str, path: str, *, inside: bool = True) -> str:
        """What the user of a BMC gets who connects to a socket, in the BMC's file system or that of the host."""
        uid = self.status(node)["Uid"].split()[0]
        user = [
            "setpriv",
            f"--reuid={uid}",
            f"--regid={uid}",
            "--clear-groups",
            "--inh-caps=-all",
            "--bounding-set=-all",
        ]
        into = ["nsenter", "--mount", f"--target={self.pid(node)}"] if inside else []
        return self.box.run([*into, *user, "/usr/bin/python3", "-c", CONNECT, path]).stdout.strip()


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with as_root() as box:
        box.sh(f"mkdir -p /run/placemat; echo PLACEMAT_FILES={HERE}/life.yml > /run/placemat/{CLUSTER}.conf")
        box.run(["systemctl", "start", f"placemat@{CLUSTER}"])
        for address in ("172.16.1.2", "fd00:16:1::3"):
            Bmc(box, address).first_answer()
            assert Bmc(box, address).ask("/redfish/v1")[0] == 200
        yield Lab(box)
        box.run(["systemctl", "stop", f"placemat@{CLUSTER}"])


def test_systemd_thinks_well_of_it(lab: Lab) -> None:
    said = lab.box.sh(f"systemd-analyze security --no-pager {lab.unit('one')}")
    (score,) = re.findall(r"Overall exposure level for \S+: ([\d.]+)", said)
    print(f"systemd-analyze security: exposure level {score} of 10")
    assert float(score) <= WORST_EXPOSURE


def test_it_has_no_capability_and_a_user_that_is_nobody_else(lab: Lab) -> None:
    one, two = lab.status("one"), lab.status("two")
    for status in (one, two):
        assert {int(status[f"Cap{name}"], 16) for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {0}
        assert (status["NoNewPrivs"], status["Seccomp"], status["Groups"].split()) == (
            "1",
            "2",
            status["Groups"].split()[:1],
        )
        (uid,) = set(status["Uid"].split())
        assert 61184 <= int(uid) <= 65519, "systemd's range for DynamicUser="
        assert lab.box.run(["grep", f":{uid}:", "/etc/passwd"], check=False).stdout == ""
    assert one["Uid"] != two["Uid"]


def test_it_listens_on_its_address_and_nowhere_else(lab: Lab) -> None:
    """Every listener of the host is a BMC's, on the two ports."""
    found = {(line.split()[0], line.split()[4]) for line in lab.box.sh("ss -Hlntu").splitlines()}
    assert found == {
        ("udp", "172.16.1.2:623"),
        ("tcp", "172.16.1.2:443"),
        ("udp", "[fd00:16:1::3]:623"),
        ("tcp", "[fd00:16:1::3]:443"),
        ("tcp", "172.16.1.4:443"),
    }
    unix = lab.box.sh(f"ss -Hlxp | grep 'pid={lab.pid('one')},' | awk '{{print $5}}'").split()
    assert unix == [f"/run/placemat/{CLUSTER}/bmc/one/ipmi"]


def test_it_reaches_its_own_machine_and_no_other(lab: Lab) -> None:
    run = f"/run/placemat/{CLUSTER}"
    assert lab.connects("one", MACHINE) == "connected"
    there = [f"{run}/bmc/{node}/pub/api" for node in ("one", "two")]
    others = [*there, f"{run}/bmc/two/ipmi", f"{run}/api.sock", f"{run}/node/one/qmp", f"{run}/node/two/qmp"]
    for inside in (True, False):
        answers = {path: lab.connects("one", path, inside=inside) for path in others}
        assert set(answers.values()) <= set(REFUSED), answers
    assert lab.box.sh(f"test -S {there[0]} -a -S {there[1]} && echo there") == "there\n"


def test_it_sees_no_secret_of_others(lab: Lab) -> None:
    pid = lab.pid("one")
    uid = lab.status("one")["Uid"].split()[0]
    look = "cat /run/credentials/*/* /var/lib/placemat/*/bmc/* /etc/shadow /proc/[0-9]*/environ 2>/dev/null"
    user = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    mounts = ["nsenter", "--mount", f"--target={pid}"]
    found = lab.box.run([*mounts, *user, "sh", "-c", look], check=False).stdout
    keys = lab.box.sh(f"cat /var/lib/placemat/{CLUSTER}/bmc/*.key").splitlines()
    own = set(lab.box.sh(f"cat /var/lib/placemat/{CLUSTER}/bmc/one.key").splitlines())
    assert [line for line in keys if line not in own and line in found] == []
    assert own & set(found.splitlines()), "its own key it does see"
    assert "cybozu" not in found and "root:" not in found
