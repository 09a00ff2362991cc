"""Port forwards into namespaces, and placemat v2's own HTTP API, on a cluster like that of v2's end-to-end test."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from e2e.host import differences, json_of, snapshot
from sandboxes import Box, as_root

pytestmark = [pytest.mark.e2e]

REPOSITORY = Path(__file__).parents[2]
CLI = str(REPOSITORY / ".venv/bin/placemat-cli")
HERE = Path(__file__).parent / "forward"
V2 = "http://127.0.0.1:10808"

ASK = """\
import socket, sys
host, port = sys.argv[1:]
family = socket.AF_INET6 if ":" in host else socket.AF_INET
with socket.socket(family, socket.SOCK_DGRAM) as client:
    client.settimeout(20)
    client.connect((host, int(port)))
    client.send(b"datagram")
    print(client.recv(100).decode())
"""


@dataclass
class Lab:
    """The host with the cluster `fwd`, and what it was like before."""

    box: Box
    before: dict[str, list[str]]

    def forward(self, *arguments: str) -> str:
        return self.box.run([CLI, "--cluster", "fwd", "forward", *arguments]).stdout

    def refused(self, *arguments: str) -> tuple[int, str]:
        done = self.box.run([CLI, "--cluster", "fwd", "forward", *arguments], check=False)
        return done.returncode, done.stderr

    def get(self, url: str, *options: str) -> str:
        return self.box.run(["curl", "--silent", "--show-error", "--fail", "--max-time", "20", *options, url]).stdout

    def ask(self, host: str, port: int) -> str:
        """The answer to a datagram."""
        return self.box.run(["python3", "-c", ASK, host, str(port)]).stdout.strip()

    def listeners(self, port: int) -> set[str]:
        lines = self.box.sh(f"ss -Htuln 'sport = {port}'").splitlines()
        return {f"{line.split()[0]} {line.split()[4]}" for line in lines}


def start(box: Box) -> None:
    """Start the cluster and wait until the servers in netns2 answer (they are no part of placemat)."""
    folder = f"/run/{box.name}"
    box.sh(f"mkdir {folder}; cp {HERE}/* {folder}; mkdir -p /run/placemat")
    box.run(
        ["tee", "/run/placemat/fwd.conf"],
        input=f"PLACEMAT_FILES={folder}/cluster.yml\nPLACEMAT_LISTEN=127.0.0.1:10808\n",
    )
    box.run(["systemctl", "start", "placemat@fwd"])
    for port in (8000, 8800):
        url = f"http://10.0.0.22:{port}/"
        box.run(["curl", "--silent", "--retry", "60", "--retry-connrefused", "--retry-delay", "1", url])


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with as_root() as box:
        before = snapshot(box.run)
        start(box)
        yield Lab(box, before)


def test_tcp_reaches_what_the_namespace_reaches(lab: Lab) -> None:
    lab.forward("add", "30000", "netns1:10.0.0.22:8000")
    assert json.loads(lab.forward("list", "--json")) == [
        {
            "protocol": "tcp",
            "local_address": "localhost",
            "local_port": 30000,
            "netns": "netns1",
            "pod": "netns1",
            "remote_host": "10.0.0.22",
            "remote_port": 8000,
        }
    ]
    for host in ("localhost", "127.0.0.1", "[::1]"):
        assert "Directory listing" in lab.get(f"http://{host}:30000/")
    service = r"placemat-fwd-forward-tcp\x2d30000.service"
    properties = lab.box.run(["systemctl", "show", "--property=MainPID", service]).stdout
    pid = properties.strip().removeprefix("MainPID=")
    assert lab.box.run(["ip", "netns", "identify", pid]).stdout.strip() == "netns1"
    assert lab.box.run(["ps", "-o", "uid=", "-p", pid]).stdout.strip() != "0"


def test_without_an_address_it_listens_on_loopback_only(lab: Lab) -> None:
    assert lab.listeners(30000) == {"tcp 127.0.0.1:30000", "tcp [::1]:30000"}
    assert lab.box.run(["curl", "--silent", "http://10.0.0.1:30000/"], check=False).returncode == 7


def test_with_an_address_it_listens_there(lab: Lab) -> None:
    lab.forward("add", "0.0.0.0:30001", "netns1:[fd00::22]:8800")
    lab.forward("add", "[::]:30001", "netns1:10.0.0.22:8800")
    assert lab.listeners(30001) == {"tcp 0.0.0.0:30001", "tcp [::]:30001"}
    assert "Directory listing" in lab.get("http://10.0.0.1:30001/")
    assert "Directory listing" in lab.get("http://[fd00::1]:30001/")


def test_udp_goes_there_and_back(lab: Lab) -> None:
    lab.forward("add", "30000", "netns1:10.0.0.22:8001", "--udp")
    lab.forward("add", "30002", "netns1:[fd00::22]:8001", "--udp")
    for host in ("127.0.0.1", "::1"):
        for port in (30000, 30002):
            assert lab.ask(host, port) == "DATAGRAM"
    assert lab.listeners(30002) == {"udp 127.0.0.1:30002", "udp [::1]:30002"}


def test_forwards_survive_placematd(lab: Lab) -> None:
    listed = lab.forward("list")
    assert len(listed.splitlines()) == 6
    lab.box.run(["systemctl", "restart", "placemat@fwd"])
    assert lab.forward("list") == listed
    pid = lab.box.run(["systemctl", "show", "--property=MainPID", "--value", "placemat@fwd"]).stdout.strip()
    lab.box.run(["kill", "-KILL", pid])
    assert "Directory listing" in lab.get("http://localhost:30000/")
    lab.box.sh("until [ $(systemctl show -P SubState placemat@fwd) = running ]; do sleep 0.2; done", timeout=60)
    assert lab.forward("list") == listed
    assert "Directory listing" in lab.get("http://localhost:30000/")
    assert lab.ask("127.0.0.1", 30000) == "DATAGRAM"


def test_they_survive_a_reload_of_systemd(lab: Lab) -> None:
    lab.box.run(["systemctl", "daemon-reload"])
    lab.box.run(["systemctl", "stop", "placemat-fwd-forward-*.service"])
    assert "Directory listing" in lab.get("http://localhost:30000/")
    assert lab.ask("127.0.0.1", 30000) == "DATAGRAM"


def test_a_namespace_that_is_made_anew_is_reached_again(lab: Lab) -> None:
    assert "Directory listing" in lab.get("http://localhost:30000/")
    file = f"/run/{lab.box.name}/cluster.yml"
    lab.box.sh(f"sed -i s/10.0.0.21/10.0.0.23/ {file}")
    assert "netns netns1" in lab.box.run([CLI, "reload", "fwd"]).stdout
    assert "Directory listing" in lab.get("http://localhost:30000/")
    assert lab.ask("127.0.0.1", 30000) == "DATAGRAM"


def test_a_forward_ends_with_its_namespace(lab: Lab) -> None:
    listed = lab.forward("list")
    lab.forward("add", "30003", "netns3:10.0.0.22:8000")
    assert "Directory listing" in lab.get("http://localhost:30003/")
    lab.box.sh(f"sed -i '/^# From here on/,$d' /run/{lab.box.name}/cluster.yml")
    lab.box.run([CLI, "reload", "fwd"])
    assert lab.forward("list") == listed
    assert lab.listeners(30003) == set()


def test_wrong_input_is_told_and_leaves_nothing(lab: Lab) -> None:
    before = snapshot(lab.box.run)
    status, error = lab.refused("add", "30009", "nowhere:10.0.0.22:80")
    assert (status, "no network namespace nowhere" in error) == (4, True), error
    status, error = lab.refused("add", "30000", "netns2:10.0.0.22:80")
    assert (status, error) == (1, "error: tcp port 30000 is forwarded to netns1:10.0.0.22:8000 already\n")
    status, error = lab.refused("add", "127.0.0.1:10808", "netns1:10.0.0.22:80")
    assert status == 1 and error.startswith("error: open tcp port 127.0.0.1:10808: Address already in use"), error
    status, error = lab.refused("add", "192.0.2.77:30009", "netns1:10.0.0.22:80")
    assert status == 1 and error.startswith("error: open tcp port 192.0.2.77:30009: Cannot assign"), error
    status, error = lab.refused("add", "30009", "netns1:fd00::22:80")
    assert status == 2 and "IPv6 address in brackets" in error, error
    status, error = lab.refused("delete", "30009")
    assert (status, "no forward of tcp port 30009" in error) == (4, True), error
    assert differences(before, snapshot(lab.box.run)) == {}
    assert json_of(lab.box.run, CLI, "status", "--json", "fwd")["state"] == "running"


def test_delete_frees_the_port(lab: Lab) -> None:
    lab.forward("delete", "30000")
    assert lab.listeners(30000) == {"udp 127.0.0.1:30000", "udp [::1]:30000"}
    lab.forward("delete", "30000", "--udp")
    assert lab.listeners(30000) == set()
    units = lab.box.run(["systemctl", "list-units", "--all", "--no-legend", "*30000*"]).stdout
    assert units == ""


def test_v2s_api_answers_with_the_true_cpu_count_and_serial(lab: Lab) -> None:
    (node,) = json.loads(lab.get(f"{V2}/nodes"))
    assert json.loads(lab.get(f"{V2}/nodes/node1")) == node
    assert set(node) == {
        *("name", "taps", "volumes", "cpu", "memory"),
        *("uefi", "tpm", "smbios", "power_status", "socket_path"),
    }
    assert (node["name"], node["cpu"], node["smbios"]["serial"]) == ("node1", 2, "1234abcd")
    assert node["power_status"] == "On"
    lab.box.run(["test", "-S", node["socket_path"]])
    lab.box.run(["ip", "link", "show", node["taps"]["ext-net"]])


def test_v2s_actions_switch_the_node_and_start_leaves_a_running_one_alone(lab: Lab) -> None:
    pid = node_pid(lab)
    assert lab.get(f"{V2}/nodes/node1/start", "--request", "POST") == "null"
    assert node_pid(lab) == pid
    assert lab.get(f"{V2}/nodes/node1/stop", "--request", "POST") == "null"
    assert json.loads(lab.get(f"{V2}/nodes/node1"))["power_status"] == "Off"
    assert lab.get(f"{V2}/nodes/node1/start", "--request", "POST") == "null"
    assert json.loads(lab.get(f"{V2}/nodes/node1"))["power_status"] == "On"
    assert lab.get(f"{V2}/nodes/node1/restart", "--request", "POST") == "null"
    assert json.loads(lab.get(f"{V2}/nodes/node1"))["power_status"] == "On"


def node_pid(lab: Lab) -> str:
    return lab.box.run(["systemctl", "show", "-P", "MainPID", "placemat-fwd-node-node1.service"]).stdout.strip()


def test_v2s_errors_are_its_statuses_and_foreign_pages_are_refused(lab: Lab) -> None:
    def status(path: str, *options: str) -> str:
        argv = ["curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}", *options, f"{V2}{path}"]
        return lab.box.run(argv).stdout

    assert status("/nodes/nobody") == "404"
    assert status("/nodes/nobody/start", "--request", "POST") == "404"
    assert status("/nodes/node1/explode", "--request", "POST") == "400"
    assert status("/nodes", "--header", "Host: evil.example") == "403"
    assert status("/nodes/node1/stop", "--request", "POST", "--header", "Origin: http://evil.example") == "403"
    assert status("/v1/forwards") == "404"


def test_down_takes_forwards_away(lab: Lab) -> None:
    """Last: it ends the cluster."""
    assert lab.listeners(30001)
    lab.box.run([CLI, "down", "fwd"])
    assert differences(lab.before, snapshot(lab.box.run)) in ({}, {"run": ["+/run/placemat/fwd.conf"]})


def test_forwards_work_for_an_ordinary_user(user_sandbox: Box) -> None:
    start(user_sandbox)
    lab = Lab(user_sandbox, {})
    lab.forward("add", "30000", "netns1:10.0.0.22:8000")
    lab.forward("add", "30000", "netns1:[fd00::22]:8001", "--udp")
    assert "Directory listing" in lab.get("http://localhost:30000/")
    assert lab.ask("::1", 30000) == "DATAGRAM"
    lab.forward("delete", "30000")
    assert lab.listeners(30000) == {"udp 127.0.0.1:30000", "udp [::1]:30000"}
    user_sandbox.run([CLI, "down", "fwd"])
    assert lab.listeners(30000) == set()
