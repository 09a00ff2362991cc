"""Judges of Redfish and IPMI, and the clients that people have, before the BMCs of a cluster with real guests.

One cluster in a sandbox, whose tests come in this order: the use-case checkers, which mostly wait, judge the machine
with SeaBIOS while all others ask the one with OVMF, which runs Linux. Afterwards the first is for those who switch it
off and on; its guest is a boot sector that answers the power button as soon as it is there.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import boot_sector
import pytest
from boot_sector import READY
from guests import Console, images
from redfish_judges import (
    REQUIREMENTS,
    Login,
    Totals,
    environment,
    protocol_validator,
    schemas,
    service_validator,
    totals,
    use_case_checkers,
)
from sandboxes import Box, as_root
from terminal import Terminal

from tests.e2e import ipmi_stories
from tests.e2e.bmc_clients import CLI, SYSTEM, show
from tests.e2e.console import entered
from tests.e2e.host import differences, json_of, snapshot
from tests.e2e.ipmi_stories import Client, Truth, seen
from tests.e2e.journal import follow, follow_on

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(map(shutil.which, ("ipmitool", "bmc-info"))), reason="apt-get install ipmitool freeipmi-tools"
    ),
]

HERE = Path(__file__).parent
CLUSTER = "conformance"
ADMIN = Login("admin", "admin-password")
ADDRESSES = {"bios": "172.16.1.2", "uefi": "172.16.1.3"}
URLS = {node: f"https://{address}" for node, address in ADDRESSES.items()}
HOST = "172.16.1.1"
UNIT = f"placemat-{CLUSTER}-node-bios.service"
IDLE_SECONDS, SLACK = 0.2, 10
DISK_BYTES = 1 << 20
BOOT_SECONDS = 600.0
OFF_SECONDS = 60.0
JUDGE_SECONDS = 800.0
SUITES = pytest.mark.parametrize("suite", [3, 17])

SUSHY_TOOLS = Totals(passed=102, warned=0, failed=43, untested=68)
"""The protocol validator 1.3.2 with sushy-tools 2.2.0."""

Figure = Callable[[str], None]


@dataclass
class Lab:
    """The cluster, what the sandbox was like before, and the use-case checkers at work on `bios`."""

    box: Box
    before: dict[str, list[str]]
    folder: Path
    checkers: "subprocess.Popen[str]"
    checkers_said: Path

    def client(self, node: str) -> Client:
        return Client(self.box, ADDRESSES[node], self.folder, ADMIN.user, ADMIN.password)

    def judged(self, argv: list[str]) -> tuple[Totals, str, float]:
        """What a judge in the sandbox's network counted, all that it said, and how many seconds it took."""
        began = time.monotonic()
        network = self.client("bios").network(argv)
        done = subprocess.run(network, env=environment(), capture_output=True, text=True, timeout=JUDGE_SECONDS)
        said = done.stdout + done.stderr
        return totals(said), said, time.monotonic() - began

    def ready_after(self, action: Callable[[], None]) -> None:
        """Do something that boots the machine with SeaBIOS, and wait for its guest."""
        with follow_on(self.box.run, self.box.popen, "PLACEMAT_NODE=bios") as journal:
            action()
            journal.wait(READY, BOOT_SECONDS)

    def wait(self, node: str, pattern: str) -> None:
        """Until the console of a node says this for the first time."""
        with follow(self.box.popen, f"PLACEMAT_NODE={node}") as journal:
            journal.wait(pattern, BOOT_SECONDS)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("clients")
    boot_sector.write_button(folder / "bios.img", DISK_BYTES)
    said = folder / "use-case-checkers"
    with as_root() as box:
        files = f"/run/{box.name}"
        box.sh(f"mkdir -p {files} /run/placemat; cp {HERE}/conformance/cluster.yml {images().uefi} {files}")
        with (folder / "bios.img").open("rb") as image:
            box.run(["sh", "-c", f"cat > {files}/bios.img"], stdin=image)
        for user in ("admin", "operator", "reader"):
            box.run(["bash", "-c", f"umask 077; cat > {files}/{user}.password"], input=f"{user}-password\n")
        before = snapshot(box.run)
        box.run(["tee", f"/run/placemat/{CLUSTER}.conf"], input=f"PLACEMAT_FILES={files}/cluster.yml\n")
        start = box.run(["systemctl", "start", f"placemat@{CLUSTER}"], check=False)
        assert start.returncode == 0, box.sh(f"journalctl --output=cat --unit=placemat@{CLUSTER}")
        argv = Client(box, "", folder).network(use_case_checkers(URLS["bios"], ADMIN, folder / "use-cases"))
        with said.open("w") as output:
            checkers = subprocess.Popen(argv, env=environment(), stdout=output, stderr=subprocess.STDOUT, text=True)
        try:
            yield Lab(box, before, folder, checkers, said)
        finally:
            checkers.kill()
            checkers.wait()


# -- the machine with OVMF, which nobody switches ---------------------------------------------------------------------


def test_protocol_validator(lab: Lab, tmp_path: Path, figure: Figure) -> None:
    """What it does not test of ours: its tests of server-sent events are switched off ("Temporarily turn off SSE tests
    since they throw exceptions", resources.py); SSDP, which is off.
    """
    counted, said, seconds = lab.judged(protocol_validator(URLS["uefi"], ADMIN, tmp_path))
    figure(f"{counted}; {seconds:.0f} s (sushy-tools: {SUSHY_TOOLS})")
    report = next(tmp_path.glob("*.tsv"), None)
    assert report, said
    assert counted.failed == 0, "\n".join(line for line in report.read_text().splitlines() if "\tFAIL\t" in line)
    assert counted.untested < SUSHY_TOOLS.untested
    assert counted.passed > 300


def test_service_validator(lab: Lab, tmp_path: Path, figure: Figure) -> None:
    validate(lab, "uefi", tmp_path, figure)


def validate(lab: Lab, node: str, folder: Path, figure: Figure) -> None:
    """Run the service validator, which sees more or less of each kind of machine."""
    csdl = schemas(folder / "schemas")
    counted, said, seconds = lab.judged(service_validator(URLS[node], ADMIN, csdl, folder / "log"))
    figure(f"{counted}; {seconds:.0f} s")
    assert counted.failed == 0, said[-6000:]
    # What is deprecated is there for clients of its time: ComputerSystem.TrustedModules, Manager.VirtualMedia and
    # EventService.EventTypesForSubscription with its values.
    assert counted.warned <= 7, said[-6000:]
    assert counted.passed > 635  # sushy-tools on libvirt's test driver, the best of the peers


@pytest.fixture(scope="module")
def truth(lab: Lab) -> Truth:
    """What the guest with OVMF sees."""
    lab.wait("uefi", READY)
    return guest_of(lab, "uefi")


def guest_of(lab: Lab, node: str) -> Truth:
    """What a guest that has booted sees of its machine."""
    with entered(lab.box, CLUSTER, node) as console:
        return seen(awake(console))


def awake(console: Console) -> Console:
    """The shell, whatever the console said before."""
    console.send("\n")
    console.run("true")
    return console


def test_what_the_guest_sees_is_what_the_cluster_file_says(truth: Truth) -> None:
    """So that comparing with it means something."""
    assert (truth.manufacturer, truth.product, truth.serial) == ("Example", "rack server", "EX-0002")
    assert (truth.memory_mib, truth.cpus, len(truth.macs), truth.disks[-1]) == (512, 2, 2, 1 << 30)


@SUITES
def test_ipmi_commands(lab: Lab, truth: Truth, suite: int, figure: Figure) -> None:
    link = json_of(lab.box.run, "ip", "-json", "link", "show", "bmc")[0]
    stories = {
        "the BMC": ipmi_stories.the_bmc(truth, "uefi"),
        "sensors": ipmi_stories.sensors(),
        "inventory": ipmi_stories.inventory(truth),
        "event log": ipmi_stories.event_log(),
        "users": ipmi_stories.users(),
        "LAN and channels": ipmi_stories.lan_and_channels(ADDRESSES["uefi"], link["address"]),
        "boot flags": ipmi_stories.boot_flags(),
        "chassis": ipmi_stories.chassis(),
        "watchdog": ipmi_stories.watchdog(),
    }
    began = time.monotonic()
    for story in stories.values():
        lab.client("uefi").tell(story, suite)
    lines = sum(map(len, stories.values()))
    figure(f"{lines} runs of ipmitool and freeipmi in {time.monotonic() - began:.0f} s")


def test_pings(lab: Lab) -> None:
    """RMCP's presence ping and IPMI's own, as freeipmi sends them."""
    client = lab.client("uefi")
    for program in ("rmcpping", "ipmiping"):
        argv = client.network([program, "-c", "2", client.address])
        said = subprocess.run(argv, capture_output=True, text=True, timeout=60).stdout
        assert re.search(r"\b2 \w+ transmitted, 2 \w+ received in time, 0\.0% packet loss", said), said


@SUITES
@pytest.mark.parametrize(
    ("line", "begins", "leave", "end"),
    [
        ("ipmitool sol activate", "SOL Session operational", "\r~.", "terminated ipmitool"),
        ("ipmiconsole", "[SOL established]", "&.", "closing the connection"),
    ],
    ids=["ipmitool", "ipmiconsole"],
)
def test_the_serial_console(lab: Lab, truth: Truth, suite: int, line: str, begins: str, leave: str, end: str) -> None:
    """A command for the guest's shell and its answer, which only the shell can compute."""
    console = Terminal(lab.client("uefi").argv(line, suite))
    console.expect(begins)
    console.type("\r")
    console.expect("~# ", 60)
    console.type(f"echo $((6 * {suite}))-$(cat /sys/class/dmi/id/product_serial)\r")
    console.expect(f"{6 * suite}-{truth.serial}", 60)
    console.type(leave)
    console.expect(end)
    assert console.ended() == 0


PYGHMI = """
import json, sys
from pyghmi.ipmi.command import Command
client = Command(bmc=sys.argv[1], userid="admin", password="admin-password")
client.set_bootdev("network", uefiboot=True)
said = {
    "power": client.get_power(),
    "boot": client.get_bootdev(),
    "boot undone": client.set_bootdev("default") and client.get_bootdev(),
    "sensors": [reading.name for reading in client.get_sensor_data() if reading.value is not None],
    "users": {user["name"]: user["access"]["privilege_level"] for user in client.get_users().values()},
    "inventory": dict(client.get_inventory())["System"],
    "net": client.get_net_configuration(),
    "events": [event["component_type"] for event in client.get_event_log()],
    "identify": client.set_identify(False),
}
json.dump(said, sys.stdout, default=str)
"""


def test_pyghmi(lab: Lab, truth: Truth) -> None:
    argv = lab.client("uefi").network([sys.executable, "-W", "ignore", "-c", PYGHMI, ADDRESSES["uefi"]])
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["power"] == {"powerstate": "on"}
    assert said["boot"] == {"bootdev": "network", "persistent": False, "uefimode": True}
    assert said["boot undone"]["bootdev"] == "default"
    assert {"Inlet Temp", "CPU Load", "Power"} <= set(said["sensors"])
    assert said["users"]["operator"] == "operator" and said["users"]["reader"] == "user"
    assert said["inventory"]["Serial Number"] == truth.serial
    assert said["inventory"]["Manufacturer"] == truth.manufacturer
    assert said["net"]["ipv4_address"] == f"{ADDRESSES['uefi']}/24"


# -- the machine with SeaBIOS -----------------------------------------------------------------------------------------


def test_use_case_checkers(lab: Lab, figure: Figure) -> None:
    began = time.monotonic()
    lab.checkers.wait(JUDGE_SECONDS)
    said = lab.checkers_said.read_text()
    counted = totals(said)
    figure(f"{counted} (waited for it {time.monotonic() - began:.0f} s)")
    assert counted.failed == 0 and counted.warned == 0, said[-6000:]
    assert counted.passed > 60


def test_service_validator_with_seabios(lab: Lab, tmp_path: Path, figure: Figure) -> None:
    """The machine is off, and has been through all that the use-case checkers do."""
    lab.client("bios").tell([("ipmipower --off --wait-until-off", "ok")], 17)
    validate(lab, "bios", tmp_path, figure)


def test_sushy(lab: Lab, figure: Figure) -> None:
    """What Ironic does, with a session. What is true: the command line of QEMU, from which the guest has it."""
    pytest.importorskip("sushy", reason=REQUIREMENTS)
    box, image = lab.box, f"http://{HOST}:8000/bios.img"
    lab.client("bios").tell([("ipmipower --on --wait-until-on", "ok")], 17)
    with server(lab, f"/run/{box.name}", image):
        told = {"url": URLS["bios"], **asdict(ADMIN), "node": "bios", "truth": {**of_qemu(lab), "image": image}}
        argv = [sys.executable, "-W", "ignore", HERE / "inside_sushy.py"]
        done = box.run(argv, input=json.dumps(told), env=environment(), check=False, timeout=JUDGE_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    done_steps = re.findall(r"^ok (\w+)", done.stdout, re.MULTILINE)
    assert f"\n{len(done_steps)} steps\n" in done.stdout, done.stdout
    figure(f"{len(done_steps)} steps of OpenStack's client: {', '.join(done_steps)}")


def of_qemu(lab: Lab) -> dict[str, object]:
    """Of the node with SeaBIOS."""
    argv = lab.box.run(["cat", f"/proc/{main_pid(lab)}/cmdline"]).stdout.replace("\0", " ")
    (serial,), (uuid,) = re.findall(r"serial=(\w+)", argv), re.findall(r"-uuid (\S+)", argv)
    return {
        "serial": serial,
        "uuid": uuid,
        "manufacturer": "cybozu",
        "product": "mk2",
        "memory_gib": 1,
        "cpus": 1,
        "macs": re.findall(r"mac=([0-9a-f:]+)", argv),
        "disks": [DISK_BYTES, 10 << 30],
    }


@contextmanager
def server(lab: Lab, folder: str, url: str) -> Iterator[None]:
    """A web server on the network of the BMCs."""
    process = lab.box.popen(
        ["python3", "-m", "http.server", "--bind", HOST, "--directory", folder, "8000"], stderr=subprocess.DEVNULL
    )
    try:
        retry = "--retry 60 --retry-connrefused --retry-delay 1"
        lab.box.sh(f"curl --silent --fail {retry} --head {url}")
        yield
    finally:
        process.terminate()
        process.wait(30)


@SUITES
def test_power_over_ipmi(lab: Lab, suite: int) -> None:
    """What a guest sees of it is for others; this is what clients are told, and that QEMU comes and goes."""
    client = lab.client("bios")
    refused = "not supported in present state"
    client.tell([("ipmipower --off --wait-until-off", "ok")], suite)
    assert main_pid(lab) == "0"
    client.tell([("ipmitool power status", "is off"), ("ipmitool power off", "Down/Off")], suite)
    client.tell([(f"! ipmitool power {action}", refused) for action in ("cycle", "reset", "diag", "soft")], suite)
    client.tell([("ipmitool sdr elist full", "CPU Load | 11h | ns | 3.1 | No Reading", "Inlet Temp | 10h | ok")], suite)
    lab.ready_after(lambda: client.tell([("ipmipower --on --wait-until-on", "ok")], suite))
    client.tell([("ipmitool power status", "is on"), ("ipmitool power diag", "Diag")], suite)
    client.tell([("ipmi-chassis --get-status", "Last Power Event : power on via ipmi command")], suite)
    lab.ready_after(lambda: client.tell([("ipmitool power reset", "Reset")], suite))
    client.tell([("ipmitool chassis restart_cause", "chassis power control command")], suite)
    lab.ready_after(lambda: client.tell([("ipmitool power cycle", "Cycle")], suite))
    client.tell([("ipmipower --on --wait-until-on", "ok")], suite)
    with follow_on(lab.box.run, lab.box.popen, f"--unit=placemat@{CLUSTER}") as journal:
        client.tell([("ipmipower --soft", "ok")], suite)  # which does not wait, whatever it is told
        journal.wait("^node bios: power Off$", OFF_SECONDS)
    assert main_pid(lab) == "0"


def main_pid(lab: Lab) -> str:
    """Of the QEMU of the node with SeaBIOS."""
    return show(lab.box, UNIT, "MainPID")


# -- what people try first --------------------------------------------------------------------------------------------


def test_programs_that_verify_the_certificate(lab: Lab) -> None:
    """curl, openssl and a session of the library redfish: they trust the CA of the cluster, and nothing without it."""
    box, address, url = lab.box, ADDRESSES["bios"], URLS["bios"]
    ca = f"/run/{box.name}/ca.pem"
    box.sh(f"{CLI} --cluster {CLUSTER} bmc ca > {ca}")
    resource = f"{url}{SYSTEM}"
    fetched = box.sh(f"curl --silent --show-error --fail --cacert {ca} -u reader:reader-password {resource}")
    assert json.loads(fetched)["SerialNumber"] == "1234abcd"
    refused = box.run(["curl", "--silent", "--show-error", "-u", "reader:reader-password", resource], check=False)
    assert refused.returncode == 60, refused.stderr  # peer certificate cannot be authenticated

    tls = f"openssl s_client -verify_return_error -connect {address}:443 -CAfile {ca}"
    shown = box.sh(f"{tls} -verify_ip {address} < /dev/null 2>&1")
    assert "Verify return code: 0 (ok)" in shown and re.search(r"New, TLSv1\.[23]", shown), shown
    for wrong, why in ((f"-verify_ip {HOST}", "IP address mismatch"), ("-tls1_1", "alert protocol version")):
        done = box.run(["sh", "-c", f"{tls} {wrong} < /dev/null 2>&1"], check=False)
        assert done.returncode != 0 and why in done.stdout, done.stdout

    argv = [sys.executable, "-W", "ignore", "-c", REDFISH_LIBRARY, url, SYSTEM, ca]
    assert json.loads(box.run(argv, env=environment()).stdout) == [200, "1234abcd", 200]


REDFISH_LIBRARY = """
import json, sys, redfish
url, system, ca = sys.argv[1:]
client = redfish.redfish_client(url, "admin", "admin-password", cafile=ca)
client.login(auth="session")
answer = client.get(system)
client.logout()
basic = redfish.redfish_client(url, "admin", "admin-password", cafile=ca)
basic.login(auth="basic")
print(json.dumps([answer.status, answer.dict["SerialNumber"], basic.get(system).status]))
"""


# -- the end ----------------------------------------------------------------------------------------------------------


def test_power_status_is_quick(lab: Lab, figure: Figure) -> None:
    """Both machines are off, so that none keeps the processors busy. The limit is for what is slow by design."""
    client = lab.client("uefi")
    client.tell([("ipmipower --off --wait-until-off", "ok")], 17)
    argv, waited = client.argv("ipmitool power status", 17), []
    for _ in range(20):
        began = time.monotonic()
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
        waited.append(time.monotonic() - began)
        assert done.stdout == "Chassis Power is off\n"
    load = os.getloadavg()[0]
    figure(f"{1000 * median(waited):.0f} ms median, {1000 * max(waited):.0f} ms at most of 20, load {load:.1f}")
    assert median(waited) < IDLE_SECONDS * SLACK


def test_stop_leaves_nothing(lab: Lab) -> None:
    lab.box.run(["systemctl", "stop", f"placemat@{CLUSTER}"])
    lab.box.run(["rm", f"/run/placemat/{CLUSTER}.conf"])
    assert differences(lab.before, snapshot(lab.box.run)) == {}
