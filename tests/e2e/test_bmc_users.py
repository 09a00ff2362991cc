"""Accounts of BMCs: where they come from, what their roles may do over IPMI and Redfish, and where no password is.

One cluster, whose nodes have nothing to boot. The tests come in the order of its life.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sandboxes import Box, as_root

from tests.e2e.bmc_clients import ACCOUNTS, CLI, SYSTEM, Bmc, show, write
from tests.e2e.host import differences, snapshot

pytestmark = [pytest.mark.e2e]

HERE = Path(__file__).parent / "bmc"
CLUSTER = "accounts"
PLACEMATD = f"placemat@{CLUSTER}.service"
PASSWORDS = {
    "root": "Tiger-of-root",
    "operator": "Otter-operates",
    "watcher": "Walrus-watches",
    "solo": "Sloth-is-solo",
    "fifth": "Finch-is-fifth",
    "sixth": "Seal-is-sixth",
}
PRIVILEGES = {"operator": "OPERATOR", "watcher": "USER"}
DROP_IN = """\
[Service]
LoadCredential=operator-password:{folder}/operator.password
LoadCredential=watcher-password:{folder}/watcher.password
"""


@dataclass
class Lab:
    """The cluster, and what the sandbox was like before it."""

    box: Box
    before: dict[str, list[str]]
    folder: str

    def bmc(self, user: str, address: str = "172.16.1.2", password: str = "") -> Bmc:
        return Bmc(self.box, address, user, password or PASSWORDS[user], PRIVILEGES.get(user, "ADMINISTRATOR"))

    def cli(self, *words: str) -> str:
        return self.box.run([CLI, "--cluster", CLUSTER, *words]).stdout

    def users(self, node: str) -> dict[str, str]:
        """Names and roles, as the CLI tells them."""
        return {user["name"]: user["role"] for user in json.loads(self.cli("bmc", "show", node, "--json"))["users"]}

    def password_file(self, name: str, password: str) -> None:
        write(self.box, f"{self.folder}/{name}.password", password + "\n")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with as_root() as box:
        lab = Lab(box, {}, f"/run/{box.name}")
        drop_ins = f"/run/systemd/system/{PLACEMATD}.d"
        box.sh(f"mkdir -p {lab.folder} /run/placemat {drop_ins}; cp {HERE}/accounts.yml {lab.folder}")
        for name in ("root", "operator", "watcher", "solo"):
            lab.password_file(name, PASSWORDS[name])
        write(box, f"{drop_ins}/passwords.conf", DROP_IN.format(folder=lab.folder), mode="644")
        box.run(["systemctl", "daemon-reload"])
        box.run(["tee", f"/run/placemat/{CLUSTER}.conf"], input=f"PLACEMAT_FILES={lab.folder}/accounts.yml\n")
        lab.before = snapshot(box.run)
        start = box.run(["systemctl", "start", PLACEMATD], check=False)
        assert start.returncode == 0, box.run(["journalctl", "--output=cat", f"--unit={PLACEMATD}"]).stdout
        yield lab


def test_users_of_the_cluster_file_and_nobody_else_log_in(lab: Lab) -> None:
    for name in ("root", "operator", "watcher"):
        assert lab.bmc(name).power() == "on"
        assert lab.bmc(name).get(SYSTEM)["PowerState"] == "On"
    assert lab.bmc("solo", "172.16.1.3").power() == "on"
    for stranger in (
        lab.bmc("cybozu", password="cybozu"),
        lab.bmc("solo"),
        lab.bmc("root", "172.16.1.3"),
        lab.bmc("root", password=PASSWORDS["operator"]),
    ):
        assert stranger.try_ipmi("power status")[0] != 0
        assert stranger.ask(SYSTEM)[0] == 401
    assert lab.users("one") == {"root": "Administrator", "operator": "Operator", "watcher": "ReadOnly"}
    assert lab.users("own") == {"solo": "Administrator"}
    assert json.loads(lab.cli("status", "--json"))["warnings"] == [], "nothing is well-known here"


def test_roles_act_in_ipmi(lab: Lab) -> None:
    watcher, operator, root = lab.bmc("watcher"), lab.bmc("operator"), lab.bmc("root")
    assert "insufficient privilege" in watcher.try_ipmi("power off")[2].lower()
    assert "insufficient privilege" in operator.try_ipmi("user set name 9 ninth")[2].lower()
    assert root.power() == "on"
    operator.ipmi("power off")
    assert watcher.power() == "off"
    operator.ipmi("power on")
    for bmc in (watcher, operator):
        too_much = Bmc(lab.box, bmc.address, bmc.user, bmc.password, "ADMINISTRATOR")
        assert too_much.try_ipmi("power status")[0] != 0, "no session with a privilege that the role has not"


def test_roles_act_in_redfish(lab: Lab) -> None:
    watcher, operator, root = lab.bmc("watcher"), lab.bmc("operator"), lab.bmc("root")
    new = {"UserName": "fifth", "Password": PASSWORDS["fifth"], "RoleId": "Administrator"}
    assert watcher.reset("ForceOff") == 403
    assert watcher.ask(ACCOUNTS, new)[0] == 403
    assert operator.ask(ACCOUNTS, new)[0] == 403
    assert root.power() == "on"
    assert operator.reset("ForceOff") == 204
    assert root.power() == "off"
    assert operator.reset("On") == 204
    assert "fifth" not in lab.users("one")


def test_an_account_that_ipmi_makes_logs_in_to_redfish_and_the_other_way_round(lab: Lab) -> None:
    root = lab.bmc("root")
    root.ipmi("user set name 5 fifth")
    # A password of more than 16 bytes needs its size. ipmitool has no option that reads it from a file.
    root.ipmi(f"user set password 5 {PASSWORDS['fifth']} 20")
    root.ipmi("channel setaccess 1 5 link=on ipmi=on callin=on privilege=3")
    root.ipmi("user enable 5")
    fifth = Bmc(lab.box, "172.16.1.2", "fifth", PASSWORDS["fifth"], "OPERATOR")
    assert fifth.get(SYSTEM)["PowerState"] == "On"
    assert fifth.ask(ACCOUNTS, {})[0] == 403, "an operator"
    assert fifth.power() == "on"
    new = {"UserName": "sixth", "Password": PASSWORDS["sixth"], "RoleId": "Administrator"}
    assert root.ask(ACCOUNTS, new)[0] == 201
    assert lab.bmc("sixth").power() == "on"
    assert "sixth" in root.ipmi("user list 1")
    assert lab.users("one")["fifth"] == "Operator"
    assert "fifth" not in lab.users("own")


def test_no_password_is_where_others_can_see_it(lab: Lab) -> None:
    """While the processes of both BMCs run, and after every way that a password can take."""
    box = lab.box
    lab.bmc("root").power()
    lab.bmc("solo", "172.16.1.3").get(SYSTEM)
    write(box, f"{lab.folder}/all", "\n".join(PASSWORDS.values()) + "\n")
    box.sh("journalctl --sync")
    places = {
        "argv and environment": "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null",
        "journal": "journalctl --quiet --all --output=export",
        "units": "systemctl show --all 'placemat*'",
        "files": "find /run /var/lib/placemat /var/log /var/tmp /tmp /dev/shm -xdev -type f -perm /o+r "
        "-not -path '/run/log/journal/*' -exec cat {} +",
    }
    for name, command in places.items():
        found = box.run(
            ["bash", "-c", f"({command}) | grep --text --count --fixed-strings --file={lab.folder}/all"], check=False
        )
        assert found.stdout.strip() == "0", f"{name}: {found.stdout}"
    state = f"/var/lib/placemat/{CLUSTER}/bmc"
    assert box.sh(f"stat --format='%U %a' {state} {state}/one.json").split() == ["root", "700", "root", "600"]
    assert PASSWORDS["fifth"] in box.sh(f"cat {state}/one.json"), "the search would find it where it is"


def test_changes_survive_a_restart_of_the_cluster(lab: Lab) -> None:
    lab.bmc("root").ipmi("user disable 6")
    lab.box.run(["systemctl", "stop", PLACEMATD])
    assert differences(lab.before, snapshot(lab.box.run)) == {}
    lab.box.run(["systemctl", "start", PLACEMATD])
    assert lab.bmc("fifth").ask(SYSTEM)[0] == 200
    assert lab.bmc("sixth").ask(SYSTEM)[0] == 401
    assert lab.bmc("root").power() == "on"


def test_other_passwords_in_the_cluster_file_are_the_accounts_again(lab: Lab) -> None:
    """What was changed at the BMC ends then, and placematd says so."""
    lab.password_file("root", "Tapir-of-root")
    lab.bmc("root").power()
    lab.cli("reload")
    assert lab.bmc("root").ask(SYSTEM)[0] == 401
    assert lab.bmc("root", password="Tapir-of-root").power() == "on"
    assert set(lab.users("one")) == {"root", "operator", "watcher"}
    said = lab.box.sh(f"journalctl --output=cat --unit={PLACEMATD}")
    assert "node one: its BMC has the users of the cluster file: root (Administrator)" in said
    assert "those it had before are gone, since the cluster file changed" in said


def test_a_credential_that_is_missing_is_told_with_a_remedy(lab: Lab) -> None:
    box, file = lab.box, f"{lab.folder}/accounts.yml"
    box.sh(f"sed -i 's/watcher-password/nobodys-password/' {file}")
    refused = box.run([CLI, "--cluster", CLUSTER, "reload"], check=False)
    assert refused.returncode != 0
    assert "LoadCredential=nobodys-password:" in refused.stderr
    assert lab.bmc("watcher").power() == "on", "nothing changed"
    box.sh(f"sed -i 's/nobodys-password/watcher-password/' {file}")
    lab.cli("reload")
    assert lab.bmc("watcher").power() == "on"


def test_a_certificate_of_ones_own(lab: Lab) -> None:
    box, folder = lab.box, lab.folder
    box.sh(
        f"""
        cd {folder}; umask 077
        openssl req -x509 -newkey rsa:2048 -nodes -keyout own.key -out own.pem -days 2 -subj /CN=own \
            -addext subjectAltName=IP:172.16.1.2,IP:172.16.1.3 2>/dev/null
        sed -i '0,/^bmc:$/s//bmc:\\n  certificate: {{certificate: own.pem, key: own.key}}/' accounts.yml
        {CLI} --cluster {CLUSTER} bmc ca > ca.pem
        """
    )
    assert lab.bmc("operator").get(SYSTEM, ca=f"{folder}/ca.pem")
    lab.cli("reload")
    assert lab.bmc("operator").get(SYSTEM, ca=f"{folder}/own.pem")
    assert lab.bmc("solo", "172.16.1.3").get(SYSTEM, ca=f"{folder}/own.pem")
    assert lab.bmc("operator").ask(SYSTEM, ca=f"{folder}/ca.pem")[0] == 0
    box.sh(f"sed -i '/certificate: {{/d' {folder}/accounts.yml")
    lab.cli("reload")
    assert lab.bmc("operator").get(SYSTEM, ca=f"{folder}/ca.pem"), "and back, from the same CA"


def test_sessions_end_with_the_cluster(lab: Lab) -> None:
    assert show(lab.box, PLACEMATD, "ActiveState") == "active"
    lab.box.run(["systemctl", "stop", PLACEMATD])
    assert differences(lab.before, snapshot(lab.box.run)) == {}
