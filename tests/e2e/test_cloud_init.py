"""Debian's own cloud-init in a real Debian applies the seed that placemat made of user-data and network-config.

The example, as it is, in a sandbox; then with other user-data, on the same disk. One cluster for all tests, which come
in the order of its life.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from guests import Console
from sandboxes import Box, as_root

from tests.e2e.console import entered
from tests.e2e.host import json_of
from tests.e2e.journal import Follower, follow

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

REPOSITORY = Path(__file__).parents[2]
CLI = str(REPOSITORY / ".venv/bin/placemat-cli")
EXAMPLE = REPOSITORY / "examples/cloud-init"
VOLUMES = "/var/lib/placemat/cloud-init/volumes"
ADDRESS = "10.20.0.11"
BOOT_SECONDS = 600.0


@dataclass
class Lab:
    """The sandbox, its folder with the cluster's files, and the guest's journal."""

    box: Box
    folder: str
    journal: Follower


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with as_root() as box:
        # Under a lock, and nothing to do when it is up to date.
        subprocess.run([sys.executable, EXAMPLE / "build.py"], check=True)
        folder = f"/run/{box.name}"
        box.sh(f"mkdir {folder}; cp {EXAMPLE}/*.yml {folder}; ln -s {EXAMPLE}/data {folder}/data")
        box.run([CLI, "up", f"{folder}/cluster.yml", "--name", "cloud-init"])
        with follow(box.popen, "PLACEMAT_NODE=server") as journal:
            yield Lab(box, folder, journal)


@contextmanager
def logged_in(lab: Lab) -> Iterator[Console]:
    """A shell of user admin's on the guest's console."""
    with entered(lab.box, "cloud-init", "server") as console:
        console.send("\n")
        console.expect("^server login: $")
        console.send("admin\n")
        console.expect("^Password: $")
        console.send("placemat\n")
        console.expect(r"admin@server:~\$ $")
        yield console
        console.send("exit\n")
        console.expect("login: $")


@pytest.fixture(scope="module")
def first(lab: Lab) -> Iterator[dict[str, str]]:
    """What the guest says of itself when cloud-init has finished."""
    lab.journal.wait(r"cloud-init finished after [\d.]+ seconds", BOOT_SECONDS)
    with logged_in(lab) as console:
        yield facts(console)


def facts(console: Console) -> dict[str, str]:
    commands = {
        "instance-id": "cat /run/cloud-init/.instance-id",
        "status": "cloud-init status --wait",
        "result": "cat /run/cloud-init/result.json",
        # There is no SSH server, which cloud-init regrets.
        "warnings": "grep WARNING /var/log/cloud-init.log | grep -v \"SSH service 'ssh' is not installed\" || true",
        "hostname": "cat /proc/sys/kernel/hostname",
        "motd": "cat /etc/motd",
        "groups": "id --name --groups",
        "addresses": "ip -4 -brief address show scope global",
        "routes": "ip -4 route show default",
    }
    return {name: console.run(command) for name, command in commands.items()}


def test_cloud_init_finds_the_seed_and_finishes_without_complaint(first: dict[str, str]) -> None:
    assert first["status"].strip(".\n") == "status: done"
    assert "DataSourceNoCloud [seed=/dev/vdb]" in first["result"]
    assert re.search(r'"errors": \[\]', first["result"])
    assert first["warnings"] == ""


@pytest.mark.proves("Node.volumes[localds].user-data")
def test_user_data_makes_a_user_who_can_log_in_and_writes_a_file(first: dict[str, str]) -> None:
    assert first["groups"].split() == ["admin", "adm", "systemd-journal"]
    assert first["motd"] == "Welcome to a node of placemat's."


def test_the_hostname_is_the_name_of_the_node(first: dict[str, str]) -> None:
    assert first["hostname"] == "server"


@pytest.mark.proves("Node.volumes[localds].network-config")
def test_network_config_gives_ens3_its_address_and_the_host_reaches_it(lab: Lab, first: dict[str, str]) -> None:
    assert re.fullmatch(rf"ens3\s+UP\s+{ADDRESS}/24", first["addresses"].strip())
    assert first["routes"].startswith("default via 10.20.0.1 dev ens3")
    lab.box.run(["ping", "-n", "-c", "1", "-W", "30", ADDRESS])


@pytest.mark.proves("Node.volumes[localds].user-data", "Node.volumes[image].copy-on-write")
def test_other_user_data_is_another_instance_on_the_same_disk(lab: Lab, first: dict[str, str]) -> None:
    """Last: it starts the cluster anew, with a seed that was made anew."""
    lab.box.run([CLI, "down", "cloud-init"])
    disk = json_of(lab.box.run, "qemu-img", "info", "--output=json", f"{VOLUMES}/server/root.img")
    base = Path(disk["full-backing-filename"])  # the image, or its copy in the cache where QEMU may not read the image
    assert base.name == "debian.qcow2" or base.parent == Path("/var/cache/placemat/images")
    lab.box.sh(
        f"""
        cd {lab.folder}
        sed -i 's/^final_message:.*/final_message: second instance after $UPTIME seconds/' user-data.yml
        sed -i 's|- path: /etc/motd|- path: /etc/second|' user-data.yml
        """
    )
    lab.box.run([CLI, "up", f"{lab.folder}/cluster.yml", "--name", "cloud-init"])
    lab.journal.wait(r"second instance after [\d.]+ seconds", BOOT_SECONDS)
    with logged_in(lab) as console:
        second = facts(console)
        assert console.run("cat /etc/second") == first["motd"]
    assert second["instance-id"] != first["instance-id"]
    assert second["motd"] == first["motd"], "the disk was kept"
    assert second["addresses"] == first["addresses"]
