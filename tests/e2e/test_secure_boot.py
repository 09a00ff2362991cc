"""Secure Boot of real firmware: who may start, switched on in the cluster file and off and on through Redfish."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import signed_guest
from guests import Console, images
from sandboxes import Box, as_root

from placematd.host import find_ovmf
from tests.e2e.bmc_clients import CLI, SYSTEM, Bmc
from tests.e2e.console import booted, entered
from tests.e2e.host import differences, json_of, snapshot

OVMF = find_ovmf()
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.skipif(not (OVMF and OVMF.secure_vars), reason="apt-get install ovmf"),
]

HERE = Path(__file__).parent / "bmc"
CLUSTER = "secure-boot"
SECURE_BOOT = f"{SYSTEM}/SecureBoot"
REFUSED = r"failed to load Boot.*: Access Denied\n(.*\n)*.*Internal Shell.*: Security Violation"
"""The disk, and then the shell that is part of OVMF."""
GONE = "console disconnected"
IN_FORCE = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
SECONDS = 90.0


@dataclass
class Machine:
    """A node with its BMC and console."""

    box: Box
    name: str
    bmc: Bmc
    console: Console

    def states(self) -> tuple[object, ...]:
        """SecureBootEnable, -CurrentBoot and -Mode."""
        found = self.bmc.get(SECURE_BOOT)
        return tuple(found[f"SecureBoot{name}"] for name in ("Enable", "CurrentBoot", "Mode"))

    def enable(self, wanted: bool) -> None:
        status, said = self.bmc.ask(SECURE_BOOT, {"SecureBootEnable": wanted}, method="PATCH")
        assert (status, said["SecureBootEnable"]) == (200, wanted), said

    def variables(self) -> dict[str, str]:
        """The variable stores that there are, with their checksums."""
        listed = self.box.sh(f"cd /var/lib/placemat/{CLUSTER}/volumes/{self.name}; sha256sum *.fd").split()
        return dict(zip(listed[1::2], listed[::2], strict=True))


@dataclass
class Lab:
    """The cluster, and what the sandbox was like before."""

    box: Box
    unsigned: Machine
    signed: Machine
    before: dict[str, list[str]]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    disks = f"{images().uefi} {signed_guest.disk()}"
    with as_root() as box, ExitStack() as entries:
        folder = f"/run/{box.name}"
        box.sh(f"mkdir -p {folder} /run/placemat; cp {HERE}/secure-boot.yml {disks} {folder}")
        before = snapshot(box.run)
        box.sh(f"echo PLACEMAT_FILES={folder}/secure-boot.yml > /run/placemat/{CLUSTER}.conf")
        box.run(["systemctl", "start", f"placemat@{CLUSTER}"])

        def machine(name: str, address: str) -> Machine:
            return Machine(box, name, Bmc(box, address), entries.enter_context(entered(box, CLUSTER, name)))

        yield Lab(box, machine("unsigned", "172.16.1.2"), machine("signed", "172.16.1.3"), before)


@pytest.mark.proves("Node.secure-boot")
def test_with_secure_boot_signed_boot_loaders_start_alone(lab: Lab) -> None:
    lab.unsigned.console.expect(REFUSED, SECONDS)
    guest = booted(lab.signed.console)
    assert guest.run(f"xxd -p {IN_FORCE}") == "0600000001"
    assert "Secure boot enabled" in guest.run("dmesg")
    assert lab.signed.states() == lab.unsigned.states() == (True, "Enabled", "UserMode")
    assert json_of(lab.box.run, CLI, "--cluster", CLUSTER, "node", "show", "signed", "--json")["secure_boot"] is True


def test_it_is_switched_off_and_on_through_redfish(lab: Lab) -> None:
    """From the next start on, with a store of variables for each state that the other leaves as it is."""
    machine = lab.unsigned
    machine.enable(False)
    assert machine.states() == (False, "Enabled", "UserMode")
    assert machine.bmc.reset("ForceRestart") == 204
    machine.console.expect(GONE, SECONDS)
    guest = booted(machine.console)
    assert guest.run(f"xxd -p {IN_FORCE}") == "0600000000"
    assert machine.states() == (False, "Disabled", "SetupMode")

    assert machine.bmc.reset("ForceOff") == 204
    off = machine.variables()
    assert off.keys() == {"efivars.fd", "efivars-secure.fd"}
    machine.enable(True)
    assert machine.states() == (True, None, "UserMode")
    assert machine.bmc.reset("On") == 204
    machine.console.expect(REFUSED, SECONDS)
    assert machine.states() == (True, "Enabled", "UserMode")
    assert machine.variables()["efivars.fd"] == off["efivars.fd"]


SUSHY = """\
import sys, sushy
from sushy.auth import SessionAuth
root = sushy.Sushy(sys.argv[1], verify=False, auth=SessionAuth("cybozu", "cybozu"))
(system,) = root.get_system_collection().get_members()
found = system.secure_boot
for wanted in (False, True):
    found.set_enabled(wanted)
    found.refresh()
    print(found.enabled, found.current_boot.value, found.mode.value)
"""


def test_openstacks_client_switches_it(lab: Lab) -> None:
    pytest.importorskip("sushy", reason="pip install -r packaging/requirements-dev.txt")
    said = lab.box.run([sys.executable, "-W", "ignore", "-c", SUSHY, lab.signed.bmc.url("/")]).stdout
    assert said.splitlines() == [f"{wanted} Enabled UserMode" for wanted in (False, True)]


def test_stop_leaves_nothing(lab: Lab) -> None:
    lab.box.run(["systemctl", "stop", f"placemat@{CLUSTER}"])
    lab.box.run(["rm", f"/run/placemat/{CLUSTER}.conf"])
    assert differences(lab.before, snapshot(lab.box.run)) == {}
