"""The life of BMCs: addresses of the cluster file, processes that come and go, and what none of it may lose.

Real clients in the sandbox of one cluster, whose nodes have nothing to boot. The tests come in the order of its life.
"""

import json
import re
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sandboxes import Box, as_root

from tests.e2e.bmc_clients import CLI, SYSTEM, Bmc, addresses, show
from tests.e2e.host import differences, json_of, snapshot
from tests.e2e.journal import Follower, follow_on

pytestmark = [pytest.mark.e2e]

HERE = Path(__file__).parent / "bmc"
CLUSTER = "life"
PLACEMATD = f"placemat@{CLUSTER}.service"
IDLE_SECONDS = 4
FIRST_ANSWER_SECONDS = 0.5
SLACK = 10
EVENT_SECONDS = 120.0
OWN = {"172.16.1.1/24", "fd00:16:1::1/64"}


@dataclass
class Lab:
    """The cluster, and what the sandbox was like before it."""

    box: Box
    before: dict[str, list[str]]
    file: str

    def bmc(self, address: str = "172.16.1.2") -> Bmc:
        return Bmc(self.box, address)

    def cli(self, *words: str) -> str:
        return self.box.run([CLI, "--cluster", CLUSTER, *words]).stdout

    def listed(self, node: str) -> Any:
        return next(bmc for bmc in json.loads(self.cli("bmc", "list", "--json")) if bmc["node"] == node)

    def pid(self, node: str) -> int:
        """Of the process of a BMC; 0 where there is none."""
        return int(show(self.box, f"placemat-{CLUSTER}-bmc-{node}.service", "MainPID"))

    def qemus(self) -> set[str]:
        """The nodes that have a QEMU."""
        return set(re.findall(r"-name (?:guest=)?(\w+)", self.box.sh("ps -C qemu-system-x86_64 -o args= || true")))

    def rewrite(self, *changes: tuple[str, str]) -> str:
        """Change the cluster file and reload; what `reload` prints."""
        text = (HERE / "life.yml").read_text()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        self.box.run(["tee", self.file], input=text)
        return self.cli("reload")

    def journal(self) -> AbstractContextManager[Follower]:
        """What placematd and the unit of BMC `one` say from here on."""
        units = (PLACEMATD, f"placemat-{CLUSTER}-bmc-one.service")
        return follow_on(self.box.run, self.box.popen, *(f"--unit={unit}" for unit in units))


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with as_root() as box:
        folder = f"/run/{box.name}"
        box.sh(f"mkdir -p {folder} /run/placemat; cp {HERE}/life.yml {folder}")
        settings = f"PLACEMAT_FILES={folder}/life.yml\nPLACEMAT_BMC_IDLE_SECONDS={IDLE_SECONDS}\n"
        box.run(["tee", f"/run/placemat/{CLUSTER}.conf"], input=settings)
        before = snapshot(box.run)
        start = box.run(["systemctl", "start", PLACEMATD], check=False)
        assert start.returncode == 0, box.run(["journalctl", "--output=cat", f"--unit={PLACEMATD}"]).stdout
        yield Lab(box, before, f"{folder}/life.yml")


def test_a_node_that_never_booted_is_powered_on_over_ipmi_and_redfish(lab: Lab) -> None:
    """It has nothing to boot, and nobody in it who could tell an address: that is in the cluster file."""
    bmc = lab.bmc()
    for power_on in (lambda: bmc.ipmi("power on"), lambda: bmc.reset("On")):
        lab.cli("node", "stop", "one")
        assert "one" not in lab.qemus()
        assert (bmc.power(), bmc.get(SYSTEM)["PowerState"]) == ("off", "Off"), "it answers while its node is off"
        power_on()
        assert (bmc.power(), bmc.get(SYSTEM)["PowerState"]) == ("on", "On")
        assert "one" in lab.qemus()


def test_over_ipv6_too(lab: Lab) -> None:
    bmc = lab.bmc("fd00:16:1::3")
    bmc.ipmi("power off")
    assert (bmc.power(), bmc.get(SYSTEM)["PowerState"]) == ("off", "Off")
    assert bmc.reset("On") == 204
    assert bmc.power() == "on"


def test_the_lines_of_the_article_work_as_printed(lab: Lab) -> None:
    box = lab.box
    assert box.sh("ipmipower --stat -u cybozu -p cybozu -h 172.16.1.2 -D LAN_2_0") == "172.16.1.2: on\n"
    system = "https://172.16.1.2/redfish/v1/Systems/System.Embedded.1"
    assert box.sh(f"curl -sku cybozu:cybozu {system} | jq .PowerState") == '"On"\n'
    before = show(box, f"placemat-{CLUSTER}-node-one.service", "MainPID")
    restart = """curl -X POST -H "Content-Type: application/json" -d '{"ResetType":"ForceRestart"}'"""
    with lab.journal() as journal:
        assert box.sh(f"{restart} -sku cybozu:cybozu {system}/Actions/ComputerSystem.Reset") == ""
        journal.wait(r"node one: BMC: reset", EVENT_SECONDS)
    assert "ystem restart" in lab.cli("bmc", "sel", "one").splitlines()[-1]
    assert show(box, f"placemat-{CLUSTER}-node-one.service", "MainPID") == before, "a reset, not another QEMU"


def test_the_default_account_is_warned_of(lab: Lab) -> None:
    (warning,) = json.loads(lab.cli("status", "--json"))["warnings"]
    assert "well-known user cybozu with password cybozu" in warning
    assert "life.yml" in warning


def test_an_idle_bmc_is_no_process_and_its_first_packet_is_answered_at_once(lab: Lab) -> None:
    """The figures depend on what else the machine does; the limit is for what is slow by design."""
    bmc = lab.bmc()
    waited = []
    for _ in range(2):
        with lab.journal() as journal:
            bmc.first_answer()
            journal.wait("placemat-life-bmc-one.service: Deactivated successfully", EVENT_SECONDS)
        assert lab.pid("one") == 0
        assert show(lab.box, f"placemat-{CLUSTER}-bmc-one.socket", "SubState") == "listening"
        assert lab.listed("one")["unit_state"] == "listening"
        waited.append(bmc.first_answer())
        assert lab.pid("one") != 0
        assert lab.listed("one")["unit_state"] == "running"
    print(f"first packet of an idle BMC answered after {', '.join(f'{seconds:.2f}' for seconds in waited)} s")
    assert min(waited) < FIRST_ANSWER_SECONDS * SLACK


def test_a_bmc_that_serves_somebody_is_not_idle(lab: Lab) -> None:
    """A session is left alone for longer than the idle time."""
    bmc = lab.bmc()
    process = lab.box.popen(
        ["bash", "-c", f"{shell_of(bmc)} < <(sleep {IDLE_SECONDS * 2}; echo power status; echo exit)"], stdout=-1
    )
    said, _ = process.communicate(timeout=EVENT_SECONDS)
    assert b"Chassis Power is on" in said


def shell_of(bmc: Bmc) -> str:
    return f"ipmitool -I lanplus -H {bmc.address} -U {bmc.user} -P {bmc.password} shell"


def test_a_bmc_that_is_killed_loses_nothing_and_answers_the_next_packet(lab: Lab) -> None:
    bmc = lab.bmc()
    bmc.ipmi("chassis bootdev pxe options=efiboot,persistent")
    bmc.ipmi("user set name 7 seventh")
    bmc.ipmi("raw 0x06 0x24 0x04 0x00 0x00 0x00 0x58 0x1b")  # SMS/OS, no action, 700 s
    bmc.ipmi("mc watchdog reset")
    bmc.ipmi("event 1")
    before = told(bmc)
    pid = lab.pid("one")
    lab.box.run(["kill", "-9", str(pid)])
    begin = time.monotonic()
    assert bmc.power() == "on"
    print(f"power status after kill -9 of the BMC: {time.monotonic() - begin:.2f} s")
    assert lab.pid("one") not in (0, pid)
    after = told(bmc)
    assert after["boot"] == before["boot"]
    assert "Force PXE" in after["boot"] and "apply to all future boots" in after["boot"]
    assert "seventh" in after["users"] and after["users"] == before["users"]
    assert after["sel"] == before["sel"] and "Temperature" in after["sel"]
    left = [int(re.search(r"Present Countdown:\s+(\d+)", state["watchdog"])[1]) for state in (before, after)]
    assert "Started/Running" in after["watchdog"]
    assert 0 < left[1] <= left[0] <= 700


def told(bmc: Bmc) -> dict[str, str]:
    commands = {
        "boot": "chassis bootparam get 5",
        "users": "user list 1",
        "sel": "sel elist",
        "watchdog": "mc watchdog get",
    }
    return {name: bmc.ipmi(command) for name, command in commands.items()}


@pytest.mark.parametrize("how", ["killed", "restarted"])
def test_bmcs_work_on_through_an_end_of_placematd(lab: Lab, how: str) -> None:
    """The process of BMC `one` runs on, that of `two` does not run, and a request is made meanwhile."""
    box, bmc = lab.box, lab.bmc()
    bmc.first_answer()
    pid, was, qemus = lab.pid("one"), addresses(box, "bmc0"), lab.qemus()
    begin = time.monotonic()
    with lab.journal() as journal:
        if how == "killed":
            box.run(["systemctl", "kill", "--kill-whom=main", "--signal=KILL", PLACEMATD])
        else:
            box.run(["systemctl", "restart", "--no-block", PLACEMATD])
        status, power, _ = bmc.try_ipmi("power status")
        print(f"placematd {how}: power status after {time.monotonic() - begin:.2f} s: {power.strip() or status}")
        assert "off" not in power, "a BMC that does not know must not say that its node is off"
        journal.wait(rf"cluster {CLUSTER} is up", EVENT_SECONDS)
    assert bmc.power() == "on"
    assert lab.pid("one") == pid, "the same process"
    assert lab.bmc("fd00:16:1::3").power() == "on"
    assert bmc.get(SYSTEM)["PowerState"] == "On"
    assert addresses(box, "bmc0") == was
    assert lab.qemus() == qemus
    bmc.ipmi("power off")
    assert "one" not in lab.qemus()
    bmc.ipmi("power on")


def test_a_bmc_without_ipmi_speaks_redfish_only(lab: Lab) -> None:
    quiet, box = lab.bmc("172.16.1.4"), lab.box
    assert quiet.get(SYSTEM)["PowerState"] == "On"
    listeners = box.sh("ss -Hlntu src 172.16.1.4 | awk '{print $1, $5}'").splitlines()
    assert listeners == ["tcp 172.16.1.4:443"]
    argv = box.sh(f"tr '\\0' ' ' < /proc/{show(box, f'placemat-{CLUSTER}-node-quiet.service', 'MainPID')}/cmdline")
    assert "ipmi" not in argv
    other = box.sh(f"tr '\\0' ' ' < /proc/{show(box, f'placemat-{CLUSTER}-node-one.service', 'MainPID')}/cmdline")
    assert "isa-ipmi-kcs" in other
    assert (lab.listed("quiet")["ipmi"], lab.listed("quiet")["cipher_suites"]) == (False, [])
    protocols = quiet.get("/redfish/v1/Managers")["Members"][0]["@odata.id"] + "/NetworkProtocol"
    assert quiet.get(protocols)["IPMI"]["ProtocolEnabled"] is False


def test_what_the_cli_tells_of_bmcs(lab: Lab) -> None:
    lab.bmc().ipmi("sel clear")
    lab.bmc("172.16.1.4").get(SYSTEM)
    rows = {line.split()[0]: re.split(r"\s{2,}", line) for line in lab.cli("bmc", "list").splitlines()}
    assert rows["NODE"] == ["NODE", "ADDRESS", "SOURCE", "IPMI", "USERS", "LAST SESSION"]
    assert rows["one"][:5] == ["one", "172.16.1.2", "file", "suites 3 17", "cybozu, seventh (disabled)"]
    assert re.fullmatch(r"cybozu IPMI from 172\.16\.1\.1 at \d{4}-\d\d-\d\dT.*", rows["one"][5])
    assert rows["two"][1:3] == ["fd00:16:1::3", "file"]
    assert rows["quiet"][3] == "off"
    assert rows["quiet"][5].startswith("cybozu Redfish from 172.16.1.1 at ")
    assert rows["mute"][1:3] == ["-", "-"]

    lab.bmc().power()
    shown = lab.cli("bmc", "show", "one")
    assert "172.16.1.2 (cluster file)" in shown
    assert re.search(r"boot override +Pxe Continuous \(UEFI\)", shown)
    assert re.search(r"last session +cybozu IPMI from 172\.16\.1\.1 ", shown)

    assert json.loads(lab.cli("bmc", "sel", "one", "--json"))[-1]["message"]
    lab.cli("bmc", "sel", "one", "--clear")
    assert lab.bmc().ipmi("sel info").count("Entries          : 1") == 1, "that it was cleared, and nothing else"


def test_https_is_vouched_for_by_the_ca_of_the_cluster(lab: Lab) -> None:
    box, ca = lab.box, f"/run/{lab.box.name}/ca.pem"
    box.sh(f"{CLI} --cluster {CLUSTER} bmc ca > {ca}")
    for address in ("172.16.1.2", "fd00:16:1::3", "172.16.1.4"):
        assert lab.bmc(address).get(SYSTEM, ca=ca)["PowerState"] == "On"
    assert "EC" in box.sh(f"openssl x509 -in {ca} -noout -text | grep 'Public Key Algorithm'").upper()
    assert lab.bmc().ask(SYSTEM, ca="/etc/ssl/certs/ca-certificates.crt")[0] == 0, "nobody else vouches for it"


def test_a_reload_adds_moves_and_removes_addresses(lab: Lab) -> None:
    box = lab.box
    qemus = box.sh("pgrep -x qemu-system-x86").split()

    lab.rewrite(
        ("address: 172.16.1.2}", "address: 172.16.1.20}"), ("name: mute\n", "name: mute\nbmc: {address: 172.16.1.5}\n")
    )
    assert addresses(box, "bmc0") == OWN | {"172.16.1.20/24", "fd00:16:1::3/64", "172.16.1.4/24", "172.16.1.5/24"}
    assert lab.bmc().silent()
    assert lab.bmc("172.16.1.20").power() == "on"
    assert lab.bmc("172.16.1.5").power() == "on"
    ca = f"/run/{box.name}/ca.pem"
    assert lab.bmc("172.16.1.20").get(SYSTEM, ca=ca)["PowerState"] == "On", "the certificate has the new address"
    assert "seventh" in lab.bmc("172.16.1.20").ipmi("user list 1"), "what is remembered goes along"

    lab.rewrite(("bmc: {address: 172.16.1.2}\n", ""))
    assert addresses(box, "bmc0") == OWN | {"fd00:16:1::3/64", "172.16.1.4/24"}
    assert lab.bmc("172.16.1.20").silent() and lab.bmc("172.16.1.5").silent()
    assert lab.listed("one")["address"] is None

    assert "nothing changed" in lab.cli("reload")
    lab.rewrite()
    assert lab.bmc().power() == "on"
    assert box.sh("pgrep -x qemu-system-x86").split() == qemus, "no node was touched"


def test_a_reload_leaves_a_node_off_and_it_starts_as_the_file_says(lab: Lab) -> None:
    lab.cli("node", "stop", "mute")
    others = lab.qemus()
    told = lab.rewrite(("name: mute\ncpu: 1\nmemory: 128M\n", "name: mute\ncpu: 1\nmemory: 192M\n"))
    assert "it is off, and starts with what is new" in told
    assert lab.qemus() == others and "mute" not in others
    node = json.loads(lab.cli("node", "show", "mute", "--json"))
    assert (node["power"], node["memory"]) == ("Off", "192M")
    lab.cli("node", "start", "mute")
    assert "-m 192M" in lab.box.sh("ps -C qemu-system-x86_64 -o args= | grep guest=mute")
    lab.rewrite()


def test_who_subscribed_to_events_is_told_when_the_cluster_starts_anew(lab: Lab) -> None:
    """Without a packet to the BMC, which nobody sends who waits for an event."""
    box, unit = lab.box, f"placemat-{CLUSTER}-bmc-one.service"
    subscription = {"Destination": "http://172.16.1.1:9/", "Protocol": "Redfish"}
    status, made = lab.bmc().ask("/redfish/v1/EventService/Subscriptions", subscription)
    assert status == 201
    box.run(["systemctl", "stop", PLACEMATD])
    box.run(["systemctl", "start", PLACEMATD])
    assert show(box, unit, "ActiveState") == "active"
    assert show(box, f"placemat-{CLUSTER}-bmc-two.service", "ActiveState") == "inactive"
    assert lab.bmc().ask(made["@odata.id"], method="DELETE")[0] in (200, 204)


def test_stop_leaves_nothing(lab: Lab) -> None:
    """A session and an idle BMC among it."""
    lab.bmc().first_answer()
    lab.box.run(["systemctl", "stop", PLACEMATD])
    assert lab.bmc().silent(0.5)
    assert differences(lab.before, snapshot(lab.box.run)) == {}


def test_stop_after_a_kill_and_another_file_leaves_nothing(lab: Lab) -> None:
    """What an earlier placematd left of nodes that are no more is nobody's."""
    box = lab.box
    box.run(["systemctl", "start", PLACEMATD])
    lab.bmc().first_answer()
    with lab.journal() as journal:
        only_one = (HERE / "life.yml").read_text().split("---")[:3]
        box.run(["tee", lab.file], input="---".join(only_one))
        box.run(["systemctl", "kill", "--kill-whom=main", "--signal=KILL", PLACEMATD])
        journal.wait(rf"cluster {CLUSTER} is up", EVENT_SECONDS)
    assert lab.qemus() == {"one"}
    box.run(["systemctl", "stop", PLACEMATD])
    assert differences(lab.before, snapshot(box.run)) == {}


def test_as_an_ordinary_user(user_sandbox: Box) -> None:
    box = user_sandbox
    box.sh(f"mkdir -p /tmp/life; cp {HERE}/life.yml /tmp/life")
    before = snapshot(box.run)
    box.run([CLI, "up", "/tmp/life/life.yml"])
    bmc = Bmc(box, "172.16.1.2")
    bmc.ipmi("power off")
    assert bmc.get(SYSTEM)["PowerState"] == "Off"
    assert bmc.reset("On") == 204
    assert json_of(box.run, CLI, "bmc", "list", "--json")[0]["address"] == "172.16.1.2"
    box.run([CLI, "down", "life"])
    assert differences(before, snapshot(box.run)) == {}
