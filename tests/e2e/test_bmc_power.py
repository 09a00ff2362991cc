"""What a guest sees of the power actions, the watchdog and the console of its BMC, and what the BMC says afterwards.

One Linux with Debian's IPMI drivers and ipmitool. Tests leave it running; those that need it booted wait until it is.
"""

import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import ipmi_guest
import pytest
from guests import Console
from sandboxes import Box, as_root

from tests.e2e.bmc_clients import CLI, SYSTEM, Bmc, show
from tests.e2e.console import booted, entered
from tests.e2e.host import differences, json_of, snapshot

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

HERE = Path(__file__).parent / "bmc"
CLUSTER, NODE, ADDRESS = "power", "linux", "172.16.1.2"
UNIT = f"placemat-{CLUSTER}-node-{NODE}.service"
FIRMWARE = r"SeaBIOS \(version"
READY = "placemat-guest: ready"
GONE = "console disconnected"
SECONDS = 60.0

WORKING, RESTART = "S0/G0: working", "System Restart"
BUTTON, OFF = "Power Button pressed", "S4/S5: soft-off"
POWERED_OFF, CYCLED = "Power off/down", "Power cycle"
COMMAND = "chassis power control command"


@dataclass
class Lab:
    """The cluster, its node's BMC and its console."""

    box: Box
    bmc: Bmc
    guest: Console
    before: dict[str, list[str]]

    def linux(self) -> Console:
        """The console of a guest that has booted."""
        last = max((match.start() for match in re.finditer(FIRMWARE, self.guest.text)), default=0)
        return self.guest if READY in self.guest.text[last : self.guest.seen] else booted(self.guest)

    def do(self, action: str) -> None:
        """An action by its name in IPMI ("power ...") or Redfish."""
        if action.startswith("power "):
            self.bmc.ipmi(action)
        else:
            assert self.bmc.reset(action) == 204

    def cli(self, *words: str) -> str:
        return self.box.run([CLI, "--cluster", CLUSTER, *words]).stdout

    def pid(self) -> int:
        """Of QEMU; 0 where there is none, in the process table and for systemd."""
        processes = self.box.sh("pgrep -x qemu-system-x86 || true").split()
        unit = int(show(self.box, UNIT, "MainPID"))
        assert processes == ([str(unit)] if unit else [])
        return unit

    def power(self) -> str:
        """What IPMI, Redfish and the API agree on."""
        told = {
            self.bmc.power(),
            self.bmc.get(SYSTEM)["PowerState"].lower(),
            json_of(self.box.run, CLI, "--cluster", CLUSTER, "node", "show", NODE, "--json")["power"].lower(),
        }
        assert len(told) == 1, told
        return told.pop()

    def events(self) -> list[str]:
        """What the SEL says since it was cleared."""
        rows = [[cell.strip() for cell in line.split("|")] for line in self.bmc.ipmi("sel elist").splitlines()]
        assert rows[0][4] == "Log area reset/cleared"
        return [row[4] for row in rows[1:]]

    def cause(self) -> str:
        """Why the machine started, as IPMI says it."""
        return self.bmc.ipmi("chassis restart_cause").removeprefix("System restart cause: ").strip()

    def last_reset(self) -> str:
        """The same as Redfish says it."""
        return str(self.bmc.get(SYSTEM)["LastResetCause"])

    def by_command(self) -> bool:
        """Whether a command brought the power."""
        return bool(re.search(r"Last Power Event +: command", self.bmc.ipmi("chassis status")))


@pytest.fixture(scope="module")
def module_lab() -> Iterator[Lab]:
    with as_root() as box:
        folder = f"/run/{box.name}"
        box.sh(f"mkdir -p {folder} /run/placemat; cp {HERE}/power.yml {folder}")
        box.sh(f"cp {ipmi_guest.images().bios} {folder}/guest.img")
        before = snapshot(box.run)
        box.sh(f"echo PLACEMAT_FILES={folder}/power.yml > /run/placemat/{CLUSTER}.conf")
        box.run(["systemctl", "start", f"placemat@{CLUSTER}"])
        with entered(box, CLUSTER, NODE) as guest:
            yield Lab(box, Bmc(box, ADDRESS), guest, before)


@pytest.fixture
def lab(module_lab: Lab) -> Lab:
    """With an empty event log."""
    module_lab.bmc.ipmi("sel clear")
    return module_lab


# -- power ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("button", "switch", "cause", "last_reset"),
    [
        ("power soft", "power on", COMMAND, "ManagementCommand"),
        ("GracefulShutdown", "On", COMMAND, "ManagementCommand"),
        ("PushPowerButton", "PushPowerButton", "power-up via pushbutton", "PowerButtonPress"),
    ],
)
def test_a_guest_that_sees_the_power_button_powers_off(
    lab: Lab, button: str, switch: str, cause: str, last_reset: str
) -> None:
    before, guest = lab.pid(), lab.linux()
    lab.do(button)
    guest.expect("^placemat-guest: power button$", SECONDS)
    lab.guest.expect(GONE, SECONDS)
    assert lab.pid() == 0
    assert lab.power() == "off"
    assert lab.events() == [BUTTON, OFF]

    lab.do(switch)
    guest.expect(FIRMWARE, SECONDS)
    assert lab.pid() not in (0, before)
    assert lab.power() == "on"
    assert (lab.cause(), lab.last_reset(), lab.by_command()) == (cause, last_reset, cause == COMMAND)
    assert lab.events() == [BUTTON, OFF, WORKING, RESTART]


@pytest.mark.parametrize(("off", "on"), [("power off", "ForceOn"), ("ForceOff", "power on")])
def test_off_is_at_once_and_asks_nobody(lab: Lab, off: str, on: str) -> None:
    lab.do(off)
    assert lab.pid() == 0, "when the answer comes, it is off"
    lab.guest.expect(GONE, SECONDS)
    assert lab.power() == "off"
    lab.do(off)
    lab.do(on)
    lab.guest.expect(FIRMWARE, SECONDS)
    lab.do(on)
    assert lab.power() == "on"
    assert lab.events() == [OFF, POWERED_OFF, WORKING, RESTART], "what is so already is no event"


@pytest.mark.parametrize("action", ["power reset", "ForceRestart"])
def test_a_reset_is_one_of_the_machine_that_runs(lab: Lab, action: str) -> None:
    before = lab.pid()
    lab.do(action)
    lab.guest.expect(FIRMWARE, SECONDS)
    assert lab.pid() == before
    assert (lab.power(), lab.cause(), lab.events()) == ("on", COMMAND, [RESTART])


@pytest.mark.parametrize("action", ["power cycle", "PowerCycle"])
def test_a_power_cycle_is_another_machine(lab: Lab, action: str) -> None:
    before = lab.pid()
    lab.do(action)
    lab.guest.expect(GONE, SECONDS)
    lab.guest.expect(FIRMWARE, SECONDS)
    assert lab.pid() not in (0, before)
    assert (lab.power(), lab.cause()) == ("on", COMMAND)
    assert lab.events() == [OFF, CYCLED, WORKING, RESTART]


def test_a_graceful_restart_goes_through_the_guest(lab: Lab) -> None:
    before, guest = lab.pid(), lab.linux()
    lab.do("GracefulRestart")
    guest.expect("^placemat-guest: power button$", SECONDS)
    guest.expect(GONE, SECONDS)
    guest.expect(FIRMWARE, SECONDS)
    assert lab.pid() not in (0, before)
    assert (lab.power(), lab.cause()) == ("on", COMMAND)
    assert lab.events() == [BUTTON, OFF, WORKING, RESTART]


@pytest.mark.parametrize("action", ["power diag", "Nmi"])
def test_an_nmi_reaches_the_guest(lab: Lab, action: str) -> None:
    before, guest = lab.pid(), lab.linux()
    lab.do(action)
    guest.expect("Uhhuh. NMI received", SECONDS)
    guest.send("\n")
    guest.run("true")
    assert lab.pid() == before
    assert lab.events() == ["NMI/Diag Interrupt"]


def test_a_machine_without_power_refuses_what_it_could_not_do(lab: Lab) -> None:
    """And a guest that powered itself off is started again like any other."""
    lab.linux().send("poweroff\n")
    lab.guest.expect(GONE, SECONDS)
    assert lab.power() == "off"
    assert lab.events() == [OFF]
    for command in ("diag", "reset", "cycle", "soft"):
        status, _, said = lab.bmc.try_ipmi(f"power {command}")
        assert status != 0 and "not supported in present state" in said, command
    assert lab.bmc.reset("Nmi") == 409
    assert lab.bmc.reset("GracefulShutdown") == 204, "what is off is off already"
    assert (lab.pid(), lab.events()) == (0, [OFF])
    lab.do("PowerCycle")
    lab.guest.expect(FIRMWARE, SECONDS)
    assert lab.power() == "on"


def test_what_the_guest_and_the_cli_do_is_no_secret_to_the_bmc(lab: Lab) -> None:
    before = lab.pid()
    lab.linux().send("reboot -f\n")
    lab.guest.expect(FIRMWARE, SECONDS)
    assert (lab.pid(), lab.cause(), lab.last_reset()) == (before, "soft reset", "OSSoftRestart")

    lab.cli("node", "stop", NODE)
    assert (lab.power(), lab.pid()) == ("off", 0)
    lab.cli("node", "start", NODE)
    assert lab.power() == "on"
    assert not lab.by_command()
    lab.guest.expect(FIRMWARE, SECONDS)
    lab.cli("node", "restart", NODE)
    lab.guest.expect(FIRMWARE, SECONDS)
    assert (lab.cause(), lab.last_reset()) == ("reset via pushbutton", "PowerButtonPress")
    assert lab.events() == [RESTART, OFF, WORKING, RESTART, RESTART]


# -- in-band ----------------------------------------------------------------------------------------------------------


def test_the_guest_talks_to_the_same_bmc(lab: Lab) -> None:
    guest = lab.linux()

    def ipmitool(words: str) -> str:
        return ipmi_guest.ipmitool(guest, words)

    def same(words: str) -> None:
        assert ipmitool(words).split() == lab.bmc.ipmi(words).split(), words

    for words in ("mc info", "mc guid", "lan print 1", "fru print", "user list 1", "chassis bootparam get 5"):
        same(words)
    assert f"IP Address              : {ADDRESS}" in ipmitool("lan print 1")
    assert "4711" in ipmitool("fru print")
    assert ipmitool("chassis power status") == "Chassis Power is on"
    same("sel list")

    before = lab.pid()
    guest.send("ipmitool chassis power cycle\n")
    guest.expect(GONE, SECONDS)
    guest.expect(FIRMWARE, SECONDS)
    assert lab.pid() not in (0, before)
    assert lab.events() == [OFF, CYCLED, WORKING, RESTART]


# -- the watchdog -----------------------------------------------------------------------------------------------------


def hard(action: int, seconds: int, *, nmi_before: int = 0) -> str:
    """Arguments of ipmitool that set the watchdog for the operating system (IPMI 2.0, 27.6), without starting it."""
    pre_timeout = 0x20 if nmi_before else 0
    return f"raw 6 0x24 4 {action | pre_timeout:#x} {nmi_before} 0x3e {seconds * 10} 0"


def test_a_watchdog_that_the_guest_sets_resets_it(lab: Lab) -> None:
    before, guest = lab.pid(), lab.linux()
    ipmi_guest.ipmitool(guest, hard(1, 2))
    guest.send("ipmitool mc watchdog reset\n")
    guest.expect(FIRMWARE, SECONDS)
    assert lab.pid() == before
    assert lab.events() == ["Hard reset", RESTART]
    assert (lab.cause(), lab.last_reset()) == ("watchdog expired", "WatchdogExpiration")


def test_a_watchdog_of_the_kernel_that_nobody_feeds_cycles_the_power(lab: Lab) -> None:
    before, guest = lab.pid(), lab.linux()
    guest.send("insmod /lib/modules/ipmi/ipmi_watchdog.ko timeout=3 action=power_cycle start_now=1\n")
    lab.guest.expect(GONE, SECONDS)
    lab.guest.expect(FIRMWARE, SECONDS)
    assert lab.pid() not in (0, before)
    assert lab.events() == ["Power cycle", OFF, CYCLED, WORKING, RESTART]
    assert lab.cause() == "watchdog expired"


def test_a_watchdog_that_is_set_over_the_network_warns_and_ends_the_guest(lab: Lab) -> None:
    lab.linux()
    lab.bmc.ipmi(hard(2, 4, nmi_before=2))
    lab.bmc.ipmi("mc watchdog reset")
    assert lab.bmc.get(SYSTEM)["HostWatchdogTimer"]["FunctionEnabled"] is True
    lab.guest.expect("Uhhuh. NMI received", SECONDS)
    lab.guest.expect(GONE, SECONDS)
    assert lab.power() == "off"
    assert lab.events() == ["Timer interrupt", "NMI/Diag Interrupt", "Power down", OFF, POWERED_OFF]
    assert "Stopped" in lab.bmc.ipmi("mc watchdog get")
    lab.do("power on")
    lab.guest.expect(FIRMWARE, SECONDS)


# -- the console ------------------------------------------------------------------------------------------------------


@contextmanager
def terminal(box: Box, line: str) -> Iterator[Console]:
    """A program with a terminal of its own."""
    ours, theirs = socket.socketpair()
    process = box.popen(["script", "-qfec", line, "/dev/null"], stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL)
    theirs.close()
    console = Console(ours)
    try:
        yield console
    finally:
        console.close()
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize(
    ("command", "established", "leave", "left"),
    [
        (f"ipmitool -I lanplus -H {ADDRESS} -U cybozu -P cybozu sol activate", "SOL Session op", "\r~.", "terminated"),
        (f"/usr/sbin/ipmiconsole -h {ADDRESS} -u cybozu -p cybozu", r"\[SOL established\]", "&.", "closing"),
    ],
    ids=["ipmitool", "ipmiconsole"],
)
def test_serial_over_lan_is_the_console_that_others_have_entered(
    lab: Lab, command: str, established: str, leave: str, left: str
) -> None:
    lab.linux()
    with terminal(lab.box, command) as remote:
        remote.expect(established, SECONDS)
        remote.send("\r")
        heard(remote, lab.guest)
        heard(lab.guest, remote)
        lab.do("power cycle")
        for console in (lab.guest, remote):
            console.expect(FIRMWARE, SECONDS)
            booted(console)
        heard(remote, lab.guest)
        remote.send(leave)
        remote.expect(left, SECONDS)
    lab.guest.send("\n")
    lab.guest.run("true")


NUMBERS = count(1)


def heard(typing: Console, reading: Console) -> None:
    """What is typed at one end is shown at both; a console that is entered shows the past first."""
    number = next(NUMBERS)
    typing.send(f"echo number $(({number} * 7919))\n")
    for console in (typing, reading):
        console.expect(f"^number {number * 7919}$", SECONDS)


# -- the end ----------------------------------------------------------------------------------------------------------


def test_stop_leaves_nothing(lab: Lab) -> None:
    lab.box.run(["systemctl", "stop", f"placemat@{CLUSTER}"])
    lab.box.run(["rm", f"/run/placemat/{CLUSTER}.conf"])
    assert differences(lab.before, snapshot(lab.box.run)) == {}
