"""--nat: what the machine reaches, the sandbox reaches, except the machine's own loopback; gone with the sandbox.

The machine is a sandbox with a network that is made here, so that nothing is asked of a real one.
"""

import subprocess
import sys
from collections.abc import Iterator

import pytest
from sandboxes import REPOSITORY, Box

from .machine import CLI, Machine, outcome

pytestmark = pytest.mark.integration

AS_USER = [sys.executable, str(REPOSITORY / "tests/sandboxes.py")]
WEB = """
import http.server, sys
server = http.server.HTTPServer((sys.argv[1], 8000), http.server.SimpleHTTPRequestHandler)
print("up", flush=True)
server.serve_forever()
"""
FETCH = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=20).status)"


@pytest.fixture
def world(machine: Machine) -> Iterator[Machine]:
    """192.0.2.1, behind the machine's default route, serves HTTP and DNS, as 127.0.0.1 does HTTP."""
    machine.box.sh("""
        ip link add world type bridge; ip link set world addrgenmode none
        ip address add 192.0.2.1/24 dev world; ip link set world up
        ip route add default via 192.0.2.254 dev world
        echo nameserver 192.0.2.1 > /etc/resolv.conf
    """)
    names = ["--no-resolv", "--no-hosts", "--bind-interfaces", "--address=/world.test/192.0.2.1", "--user=root"]
    servers = [
        serve(machine.box, [sys.executable, "-c", WEB, "192.0.2.1"]),
        serve(machine.box, [sys.executable, "-c", WEB, "127.0.0.1"]),
        serve(machine.box, ["dnsmasq", "-k", "--log-facility=-", "--listen-address=192.0.2.1", *names]),
    ]
    yield machine
    for server in servers:
        server.terminate()
        server.communicate(timeout=30)


def serve(box: Box, argv: list[str]) -> "subprocess.Popen[str]":
    """Once it has said something."""
    process = box.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


@pytest.fixture(params=["root", "user"])
def inside(request: pytest.FixtureRequest) -> list[str]:
    """A sandbox with --nat, to put before a command."""
    return [*(AS_USER if request.param == "user" else []), CLI, "sandbox", "--nat", "--"]


def test_the_way_out(world: Machine, inside: list[str]) -> None:
    before = world.snapshot()
    shown = world.box.run(
        [*inside, "bash", "-ec", "ip -o -4 address show uplink; ip route; cat /etc/resolv.conf"]
    ).stdout
    assert "198.19.255.100/24" in shown
    assert "default via 198.19.255.2 dev uplink" in shown
    assert "nameserver 198.19.255.3" in shown
    assert world.box.run([*inside, sys.executable, "-c", FETCH, "http://192.0.2.1:8000/"]).stdout == "200\n"
    assert world.box.run([*inside, sys.executable, "-c", FETCH, "http://world.test:8000/"]).stdout == "200\n"
    assert world.changes(before) == {}


@pytest.mark.parametrize("address", ["127.0.0.1", "198.19.255.2"])
def test_the_machines_loopback_stays_its_own(world: Machine, inside: list[str], address: str) -> None:
    done = world.box.run([*inside, sys.executable, "-c", FETCH, f"http://{address}:8000/"], check=False)
    assert done.returncode == 1
    assert "Connection refused" in done.stderr or "unreachable" in done.stderr


def test_without_it_there_is_no_way_out(world: Machine) -> None:
    done = world.box.run([CLI, "sandbox", "--", sys.executable, "-c", FETCH, "http://192.0.2.1:8000/"], check=False)
    assert "Network is unreachable" in done.stderr


def test_it_ends_with_a_supervisor_that_is_killed(world: Machine) -> None:
    before = world.snapshot()
    process = world.start_and_wait("--nat")
    assert world.pids("^slirp4netns")
    (pid,) = world.pids("placemat_cli.sandbox.supervisor")
    world.kill("KILL", pid)
    outcome(process)
    assert world.changes(before) == {}
