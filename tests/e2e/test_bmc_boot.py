"""Where a machine really boots from when its BMC is told to: override, virtual media and BIOS attributes.

Node `tiny` has a disk, and CDs, that say so on the console within a second; the network has dnsmasq and an iPXE script.
"""

import re
import shutil
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import boot_sector
import pytest
from guests import Console, images
from sandboxes import Box, as_root

from tests.e2e.bmc_clients import CLI, SYSTEM, Bmc, show
from tests.e2e.console import booted, entered
from tests.e2e.host import differences, snapshot
from tests.e2e.journal import follow

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("genisoimage"), reason="apt-get install genisoimage"),
    pytest.mark.skipif(not Path("/usr/share/OVMF/OVMF_CODE_4M.fd").exists(), reason="apt-get install ovmf"),
]

HERE = Path(__file__).parent / "bmc"
CLUSTER = "boot"
PLACEMATD = f"placemat@{CLUSTER}.service"
SECONDS = 120.0

DISK_LINES, CD_LINES, LOCAL_CD_LINES = 3, 5, 7
DISK, CD, NETWORK, UEFI_NETWORK = "disk", "CD", "network", "UEFI network"
SAYS = {
    DISK: rf"Booting from Hard Disk\.*\s*(L\d+\n)*{boot_sector.line(DISK_LINES - 1)}\n",
    CD: rf"Booting from DVD/CD\.*\s*(L\d+\n)*{boot_sector.line(CD_LINES - 1)}\n",
    NETWORK: "iPXE initialising devices",
    UEFI_NETWORK: "Start PXE over IPv4",
}
GONE = "console disconnected"
FIRMWARE = r"SeaBIOS \(version"
MEDIA = f"{SYSTEM}/VirtualMedia/Cd"
INSERT, EJECT = (f"{MEDIA}/Actions/VirtualMedia.{action}Media" for action in ("Insert", "Eject"))
SETTINGS = f"{SYSTEM}/Bios/Settings"


@dataclass
class Machine:
    """A node: its console, and what its BMC says of the next boot."""

    box: Box
    name: str
    bmc: Bmc
    entries: ExitStack
    console: Console = field(init=False)

    def enter(self) -> None:
        """Enter its console, anew where the placematd that served it is gone."""
        self.entries.close()
        self.console = self.entries.enter_context(entered(self.box, CLUSTER, self.name))

    def boots(self) -> str:
        """Wait for the next boot; where it goes."""
        places = "|".join(f"(?P<{name.replace(' ', '_')}>{said})" for name, said in SAYS.items())
        found = self.console.expect(places, SECONDS).lastgroup
        assert found
        return found.replace("_", " ")

    def is_served(self) -> None:
        """Wait until it has its script from the network."""
        self.console.expect(rf"^{self.name}-serial was told by boot\.ipxe$", SECONDS)

    def pid(self) -> int:
        """Of QEMU, 0 where there is none."""
        return int(show(self.box, f"placemat-{CLUSTER}-node-{self.name}.service", "MainPID"))

    def override(self, **properties: str) -> None:
        """Set it over Redfish, without the prefix."""
        body = {"Boot": {f"BootSourceOverride{name}": value for name, value in properties.items()}}
        status, said = self.bmc.ask(SYSTEM, body, method="PATCH")
        assert status in (200, 204), said

    def redfish(self) -> tuple[str, str, str]:
        """Enabled, target and mode as Redfish tells them."""
        boot = self.bmc.get(SYSTEM)["Boot"]
        enabled, target, mode = (boot[f"BootSourceOverride{name}"] for name in ("Enabled", "Target", "Mode"))
        return enabled, target, mode

    def ipmi(self) -> list[str]:
        """The boot flags as ipmitool tells them: whether they count, for how long, with what, and from where."""
        lines = re.findall(r"^   - (.*)", self.bmc.ipmi("chassis bootparam get 5"), re.MULTILINE)[:4]
        return [line.removeprefix("Boot Device Selector : ").strip() for line in lines]

    def task(self, path: str) -> tuple[str, int]:
        """State and percentage of a task."""
        task = self.bmc.get(path)
        return task["TaskState"], task["PercentComplete"]

    def insert(self, image: str) -> str:
        """Begin to insert; the path of the task."""
        status, task = self.bmc.ask(INSERT, {"Image": image})
        assert status == 202, task
        return str(task["@odata.id"])

    def until(self, path: str, *expected: tuple[str, int]) -> None:
        """Wait for a state of a task: each question comes when the one before is answered."""
        for _ in range(200):
            if self.task(path) in expected:
                return
        raise AssertionError(self.bmc.get(path))


ONE_LEGACY = ["Boot Flag Valid", "Options apply to only next boot", "BIOS PC Compatible (legacy) boot"]
NOTHING = ["Boot Flag Invalid", "Options apply to only next boot", "BIOS PC Compatible (legacy) boot", "No override"]
DISABLED = ("Disabled", "None", "Legacy")


@dataclass
class Lab:
    """The cluster, and what the sandbox was like before."""

    box: Box
    tiny: Machine
    server: Machine
    folder: str
    before: dict[str, list[str]]

    def cli(self, *words: str) -> str:
        return self.box.run([CLI, "--cluster", CLUSTER, *words]).stdout

    def kill(self) -> None:
        """End placematd without a word, and wait for the next."""
        with follow(self.box.popen, f"--unit={PLACEMATD}", "--since=now") as journal:
            self.box.run(["systemctl", "kill", "--kill-whom=main", "--signal=KILL", PLACEMATD])
            journal.wait("Started placemat@", SECONDS)
        for machine in (self.tiny, self.server):
            machine.enter()


def make_files(box: Box, folder: str) -> None:
    """Everything that boot.yml names."""
    files = " ".join(f"{HERE}/{name}" for name in ("boot.yml", "boot.ipxe", "boot-dnsmasq.conf", "media_server.py"))
    box.sh(f"mkdir -p {folder}/media; cp {files} {images().uefi} {folder}")
    for lines in (DISK_LINES, CD_LINES, LOCAL_CD_LINES):
        with TemporaryDirectory() as scratch:
            boot_sector.write(Path(scratch, "boot"), lines)
            sector = b64encode(Path(scratch, "boot").read_bytes()).decode()
        box.sh(f"mkdir {folder}/{lines}; base64 -d > {folder}/{lines}/boot.bin", input=sector)
    box.sh(f"cp {folder}/{DISK_LINES}/boot.bin {folder}/tiny.img; truncate -s 1M {folder}/tiny.img")
    for image, lines in (("cd.iso", CD_LINES), ("media/local.iso", LOCAL_CD_LINES)):
        options = "-quiet -b boot.bin -no-emul-boot -boot-load-size 4"
        box.sh(f"genisoimage {options} -o {folder}/{image} {folder}/{lines}")
    box.sh(f"ln -s {folder}/cd.iso {folder}/media/link.iso")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with as_root() as box:
        folder = f"/run/{box.name}"
        make_files(box, folder)
        before = snapshot(box.run)
        box.sh(f"mkdir -p /run/placemat; echo PLACEMAT_FILES={folder}/boot.yml > /run/placemat/{CLUSTER}.conf")
        box.run(["systemctl", "start", PLACEMATD])
        with ExitStack() as one, ExitStack() as other:
            tiny = Machine(box, "tiny", Bmc(box, "172.16.1.2"), one)
            server = Machine(box, "server", Bmc(box, "172.16.1.3"), other)
            for machine in (tiny, server):
                machine.enter()
            yield Lab(box, tiny, server, folder, before)


@pytest.fixture
def tiny(lab: Lab) -> Machine:
    """The machine, which boots from its disk."""
    lab.tiny.bmc.ipmi("power cycle")
    lab.tiny.console.expect(GONE, SECONDS)
    assert lab.tiny.boots() == DISK
    return lab.tiny


# -- the override -----------------------------------------------------------------------------------------------------


def test_once_from_the_network_set_while_on_over_ipmi(tiny: Machine) -> None:
    tiny.bmc.ipmi("sel clear")
    tiny.bmc.ipmi("chassis bootdev pxe")
    assert tiny.ipmi() == [*ONE_LEGACY, "Force PXE"]
    assert tiny.redfish() == ("Once", "Pxe", "Legacy")
    before = tiny.pid()
    tiny.bmc.ipmi("power reset")
    assert tiny.boots() == NETWORK
    tiny.is_served()
    assert (tiny.ipmi(), tiny.redfish()) == (NOTHING, DISABLED)
    assert "User requested PXE boot" in tiny.bmc.ipmi("sel elist")
    tiny.bmc.ipmi("power reset")
    assert tiny.boots() == DISK
    assert tiny.pid() == before


def test_once_from_the_network_set_while_off_over_redfish(tiny: Machine) -> None:
    tiny.bmc.ipmi("power off")
    tiny.override(Enabled="Once", Target="Pxe")
    assert tiny.ipmi() == [*ONE_LEGACY, "Force PXE"]
    assert tiny.redfish() == ("Once", "Pxe", "Legacy")
    tiny.bmc.ipmi("power on")
    assert tiny.boots() == NETWORK
    tiny.is_served()
    assert (tiny.ipmi(), tiny.redfish()) == (NOTHING, DISABLED)
    tiny.bmc.ipmi("power cycle")
    assert tiny.boots() == DISK


def test_once_is_used_up_by_a_reset_that_the_cli_asks_for(lab: Lab, tiny: Machine) -> None:
    tiny.override(Enabled="Once", Target="Pxe")
    lab.cli("node", "restart", "tiny")
    assert tiny.boots() == NETWORK
    assert tiny.redfish() == DISABLED
    lab.cli("node", "stop", "tiny")
    lab.cli("node", "start", "tiny")
    assert tiny.boots() == DISK


def test_continuous_lasts_until_it_is_disabled_and_outlives_placematd(lab: Lab, tiny: Machine) -> None:
    tiny.bmc.ipmi("chassis bootdev pxe options=persistent")
    told = ["Boot Flag Valid", "Options apply to all future boots", ONE_LEGACY[2], "Force PXE"]
    for action in ("power reset", "power cycle"):
        tiny.bmc.ipmi(action)
        assert tiny.boots() == NETWORK
        assert (tiny.ipmi(), tiny.redfish()) == (told, ("Continuous", "Pxe", "Legacy"))
    before = tiny.pid()
    lab.kill()
    assert (tiny.ipmi(), tiny.pid()) == (told, before)
    tiny.bmc.ipmi("power reset")
    assert tiny.boots() == NETWORK
    tiny.bmc.ipmi("chassis bootdev none")
    assert (tiny.ipmi(), tiny.redfish()) == (NOTHING, DISABLED)
    tiny.bmc.ipmi("power reset")
    assert tiny.boots() == DISK


@pytest.mark.parametrize("action", ["power reset", "power cycle"])
def test_an_order_for_once_outlives_placematd_but_not_the_boot(lab: Lab, tiny: Machine, action: str) -> None:
    tiny.override(Enabled="Once", Target="Pxe")
    lab.kill()
    assert tiny.redfish() == ("Once", "Pxe", "Legacy")
    tiny.bmc.ipmi(action)
    assert tiny.boots() == NETWORK
    assert tiny.redfish() == DISABLED
    lab.kill()
    tiny.bmc.ipmi(action)
    assert tiny.boots() == DISK


def test_a_legacy_machine_boots_once_with_uefi(lab: Lab, tiny: Machine) -> None:
    """Over IPMI's EFI bit; another firmware is another QEMU, and a reload of the file does not undo it."""
    tiny.bmc.ipmi("chassis bootdev pxe options=efiboot")
    assert tiny.ipmi() == ["Boot Flag Valid", ONE_LEGACY[1], "BIOS EFI boot", "Force PXE"]
    assert tiny.redfish() == ("Once", "Pxe", "UEFI")
    before = tiny.pid()
    tiny.bmc.ipmi("power reset")
    assert tiny.boots() == UEFI_NETWORK
    running = tiny.pid()
    assert running not in (0, before)
    assert tiny.ipmi() == NOTHING
    assert tiny.bmc.get(SYSTEM)["BiosVersion"] == "EDK II"
    assert "nothing changed" in lab.cli("reload")
    assert tiny.pid() == running
    tiny.bmc.ipmi("power reset")
    tiny.console.expect(FIRMWARE, SECONDS)
    assert tiny.boots() == DISK
    assert tiny.redfish() == DISABLED


# -- virtual media ----------------------------------------------------------------------------------------------------


def test_a_disc_from_a_server_is_booted_once_and_stays_until_it_is_ejected(lab: Lab, tiny: Machine) -> None:
    task = tiny.insert("http://172.16.1.254/cd.iso")
    tiny.until(task, ("Running", 50))
    assert tiny.bmc.get(MEDIA)["Inserted"] is False
    assert tiny.bmc.ask(INSERT, {"Image": "http://172.16.1.254/cd.iso"})[0] == 409, "the slot is taken"
    lab.box.run(["curl", "--silent", "http://172.16.1.254/go"])
    tiny.until(task, ("Completed", 100))
    medium = tiny.bmc.get(MEDIA)
    assert (medium["Inserted"], medium["ImageName"], medium["ConnectedVia"]) == (True, "cd.iso", "URI")

    tiny.override(Enabled="Once", Target="Cd")
    assert tiny.ipmi() == [*ONE_LEGACY, "Force Boot from CD/DVD"]
    tiny.bmc.ipmi("power reset")
    assert tiny.boots() == CD
    tiny.bmc.ipmi("power cycle")
    assert tiny.boots() == DISK, "a disc alone does not go before the disk"

    assert tiny.bmc.get(MEDIA)["Inserted"] is True
    tiny.bmc.ipmi("power off")
    lab.kill()
    tiny.bmc.ipmi("chassis bootdev cdrom")
    tiny.bmc.ipmi("power on")
    assert tiny.boots() == CD

    assert tiny.bmc.ask(EJECT, {})[0] == 204
    assert tiny.bmc.get(MEDIA)["Inserted"] is False
    tiny.override(Enabled="Once", Target="Cd")
    tiny.bmc.ipmi("power reset")
    assert tiny.boots() == DISK, "an empty drive boots nothing"


def test_a_disc_from_the_allowed_folder_and_from_nowhere_else(lab: Lab, tiny: Machine) -> None:
    for outside in ("cd.iso", "media/../cd.iso", "media/link.iso", "media/missing.iso", "media"):
        task = tiny.insert(f"{lab.folder}/{outside}")
        tiny.until(task, ("Exception", 0))
        assert f"no such image below {lab.folder}/media" in str(tiny.bmc.get(task)["Messages"]), outside
        assert tiny.bmc.get(MEDIA)["Inserted"] is False

    tiny.until(tiny.insert(f"{lab.folder}/media/local.iso"), ("Completed", 100))
    tiny.override(Enabled="Continuous", Target="Cd")
    for action in ("power reset", "power cycle"):
        tiny.bmc.ipmi(action)
        assert tiny.boots() == CD
        tiny.console.expect(f"^{boot_sector.line(LOCAL_CD_LINES - 1)}$", SECONDS)
    tiny.override(Enabled="Disabled")
    assert tiny.bmc.ask(EJECT, {})[0] == 204
    tiny.bmc.ipmi("power reset")
    assert tiny.boots() == DISK


# -- BIOS attributes --------------------------------------------------------------------------------------------------


def test_bios_attributes_count_from_the_next_start_on(lab: Lab) -> None:
    server = lab.server

    def attributes() -> tuple[dict[str, str], dict[str, str]]:
        """Those in force, and those to come."""
        found = (server.bmc.get(path)["Attributes"] for path in (f"{SYSTEM}/Bios", SETTINGS))
        return next(found), next(found)

    old = {"BootMode": "Legacy", "Tpm": "Disabled"}
    new = {"BootMode": "Uefi", "Tpm": "Enabled"}
    assert attributes() == (old, old)
    status, said = server.bmc.ask(SETTINGS, {"Attributes": new}, method="PATCH")
    assert status in (200, 204), said
    assert attributes() == (old, new)
    before = server.pid()
    assert "nothing changed" in lab.cli("reload")
    assert server.pid() == before

    server.bmc.ipmi("power cycle")
    server.console.expect(GONE, SECONDS)
    server.console.expect("BdsDxe: starting Boot", SECONDS)
    assert attributes() == (new, new)
    booted(server.console)
    assert server.console.run("cat /sys/firmware/efi/fw_platform_size /sys/class/tpm/tpm0/tpm_version_major") == "64\n2"
    server.console.run("test -c /dev/tpm0")
    assert server.redfish() == ("Disabled", "None", "UEFI")
    assert server.bmc.get(SYSTEM)["TrustedModules"][0]["InterfaceType"] == "TPM2_0"

    running = server.pid()
    assert "nothing changed" in lab.cli("reload")
    lab.kill()
    assert "nothing changed" in lab.cli("reload")
    assert server.pid() == running
    assert attributes() == (new, new)

    assert server.bmc.ask(f"{SYSTEM}/Bios/Actions/Bios.ResetBios", {})[0] == 204
    assert attributes() == (new, old)
    server.bmc.ipmi("power cycle")
    server.console.expect(FIRMWARE, SECONDS)
    assert attributes() == (old, old)


# -- the end ----------------------------------------------------------------------------------------------------------


def test_stop_leaves_nothing(lab: Lab) -> None:
    lab.box.run(["systemctl", "stop", PLACEMATD])
    lab.box.run(["rm", f"/run/placemat/{CLUSTER}.conf"])
    assert differences(lab.before, snapshot(lab.box.run)) == {}
