"""ipmitool, freeipmi and pyghmi's client against the process of a BMC on loopback: logging in and the console."""

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import pytest
from terminal import Terminal

pytestmark = pytest.mark.integration

FAKE_BMC = Path(__file__).parents[1] / "fakes" / "bmc.py"
AT_ONCE_SECONDS = 2.0
"""ipmitool and freeipmi give up after 10 to 20 s of silence; an answer takes a few hundredths of a second."""
SUITES = pytest.mark.parametrize("suite", [3, 17])


@dataclass
class Bmc:
    """A BMC in processes of its own; `tell` is its guest's side."""

    process: "subprocess.Popen[str]"
    port: int

    def tell(self, line: str) -> dict[str, object]:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer: dict[str, object] = json.loads(self.process.stdout.readline())
        return answer

    def ipmitool(self, *words: str, user: str = "cybozu", password: str = "cybozu", suite: int = 17) -> list[str]:
        host = ("-H", "127.0.0.1", "-p", str(self.port), "-C", str(suite))
        return ["ipmitool", "-I", "lanplus", *host, "-U", user, "-P", password, *words]

    def freeipmi(
        self, tool: str, *words: str, user: str = "cybozu", password: str = "cybozu", suite: int = 17
    ) -> list[str]:
        log_in = ("-D", "LAN_2_0", "-h", f"127.0.0.1:{self.port}", "-u", user, "-p", password, "-I", str(suite))
        if tool == "ipmiconsole":
            log_in = log_in[2:]
        return [f"/usr/sbin/{tool}", *log_in, *words]


def free_port() -> int:
    """A UDP port that ipmiconsole takes: above 32767 it says "hostname invalid"."""
    for port in range(20000, 32768):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


@pytest.fixture(scope="module")
def bmc() -> Iterator[Bmc]:
    argv = (sys.executable, str(FAKE_BMC), "--ipmi", f"127.0.0.1:{free_port()}", "--power", "On", "--no-echo")
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        ready = process.stdout.readline()
        assert ready.startswith("READY "), ready
        yield Bmc(process, json.loads(ready.removeprefix("READY "))["ipmi"][1])
        process.terminate()


def run(argv: Sequence[str]) -> tuple[int, str, float]:
    """Exit status, output and wall seconds."""
    began = time.monotonic()
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60
    )
    return done.returncode, done.stdout, time.monotonic() - began


@SUITES
def test_power_status(bmc: Bmc, suite: int) -> None:
    assert run(bmc.ipmitool("power", "status", suite=suite))[:2] == (0, "Chassis Power is on\n")
    assert run(bmc.freeipmi("ipmipower", "--stat", suite=suite))[:2] == (0, "127.0.0.1: on\n")


def test_power_status_is_quick(bmc: Bmc, figure: Callable[[str], None]) -> None:
    seconds = [run(bmc.ipmitool("power", "status"))[2] for _ in range(20)]
    figure(f"{1000 * median(seconds):.0f} ms median, {1000 * max(seconds):.0f} ms at most")
    assert median(seconds) < 0.2


@pytest.mark.parametrize(
    ("user", "password", "suite", "level", "ipmitool", "ipmipower"),
    [
        ("nobody", "x", 17, "ADMINISTRATOR", "Unable to establish", "username invalid"),
        ("cybozu", "wrong", 3, "ADMINISTRATOR", "Unable to establish", "password invalid"),
        ("cybozu", "wrong", 17, "ADMINISTRATOR", "Unable to establish", "password invalid"),
        ("reader", "reader", 17, "ADMINISTRATOR", "Unable to establish", "privilege level cannot be obtained"),
        ("cybozu", "cybozu", 0, "ADMINISTRATOR", "no matching cipher suite", "cipher suite id unavailable"),
        ("cybozu", "cybozu", 2, "ADMINISTRATOR", "no matching cipher suite", "cipher suite id unavailable"),
    ],
)
def test_who_is_refused_learns_it_at_once(
    bmc: Bmc, user: str, password: str, suite: int, level: str, ipmitool: str, ipmipower: str
) -> None:
    for argv, said in (
        (bmc.ipmitool("-L", level, "power", "status", user=user, password=password, suite=suite), ipmitool),
        (bmc.freeipmi("ipmipower", "-l", level, "--stat", user=user, password=password, suite=suite), ipmipower),
    ):
        _, output, seconds = run(argv)
        assert said in output and "is on" not in output and ": on" not in output
        assert seconds < AT_ONCE_SECONDS, argv[0]


@pytest.mark.parametrize(("user", "level"), [("reader", "USER"), ("operator", "OPERATOR"), ("cybozu", "USER")])
def test_lower_privileges(bmc: Bmc, user: str, level: str) -> None:
    password = {"cybozu": "cybozu"}.get(user, user)
    argv = bmc.ipmitool("-L", level, "power", "status", user=user, password=password)
    assert run(argv)[:2] == (0, "Chassis Power is on\n")
    assert run(bmc.freeipmi("ipmipower", "-l", level, "--stat", user=user, password=password))[1] == "127.0.0.1: on\n"


def test_ipmi_1_5_is_refused_at_once(bmc: Bmc) -> None:
    argv = ["ipmitool", "-I", "lan", "-H", "127.0.0.1", "-p", str(bmc.port), "-U", "cybozu", "-P", "cybozu"]
    status, output, seconds = run([*argv, "power", "status"])
    assert status != 0 and "not supported" in output and seconds < AT_ONCE_SECONDS
    _, output, seconds = run(
        ["/usr/sbin/ipmipower", "-h", f"127.0.0.1:{bmc.port}", "-u", "cybozu", "-p", "cybozu", "--stat"]
    )
    assert "authentication type unavailable" in output and seconds < AT_ONCE_SECONDS


def test_what_is_offered(bmc: Bmc) -> None:
    _, ciphers, _ = run(bmc.ipmitool("channel", "getciphers", "ipmi", "1"))
    assert [line.split()[0] for line in ciphers.splitlines()[1:]] == ["3", "17"]
    _, info, _ = run(bmc.ipmitool("sol", "info"))
    assert "Force Encryption                : true" in info and f"Payload Port                    : {bmc.port}" in info
    _, sessions, _ = run(bmc.ipmitool("session", "info", "active"))
    assert "console ip                    : 127.0.0.1" in sessions and "ADMINISTRATOR" in sessions


def test_the_client_of_pyghmi(bmc: Bmc) -> None:
    program = (
        "from pyghmi.ipmi.command import Command\n"
        f"bmc = Command(bmc='127.0.0.1', userid='cybozu', password='cybozu', port={bmc.port})\n"
        "print(bmc.get_power()['powerstate'])\n"
        "bmc.ipmi_session.logout()\n"
    )
    assert run([sys.executable, "-W", "ignore", "-c", program])[:2] == (0, "on\n")


def typed(bmc: Bmc, text: str) -> bool:
    """Whether the guest got `text`; an acknowledged character may still be on its way to it."""
    until = time.monotonic() + 10
    while text not in str(bmc.tell("state")["typed"]):
        if time.monotonic() > until:
            return False
    return True


@SUITES
def test_ipmitool_console(bmc: Bmc, suite: int) -> None:
    console = Terminal(bmc.ipmitool("sol", "activate", suite=suite))
    console.expect("SOL Session operational")
    bmc.tell("prints the guest is here")
    console.expect("the guest is here")
    console.type(f"typed in suite {suite}\r")
    assert typed(bmc, f"typed in suite {suite}\r")
    console.type("~.")
    console.expect("terminated ipmitool")
    assert console.ended() == 0


@SUITES
def test_ipmiconsole(bmc: Bmc, suite: int) -> None:
    console = Terminal(bmc.freeipmi("ipmiconsole", suite=suite))
    console.expect("[SOL established]")
    bmc.tell("prints the guest is here")
    console.expect("the guest is here")
    console.type(f"typed with freeipmi {suite}\r")
    assert typed(bmc, f"typed with freeipmi {suite}\r")
    console.type("&.")
    console.expect("closing the connection")
    assert console.ended() == 0


def test_much_output_arrives_whole_and_in_order(bmc: Bmc) -> None:
    console = Terminal(bmc.ipmitool("sol", "activate"))
    console.expect("SOL Session operational")
    for number in range(2000):
        bmc.tell(f"prints line {number:04} " + "x" * 60)
    for number in range(2000):
        console.expect(f"line {number:04} " + "x" * 60)
    console.type("\r~.")
    assert console.ended() == 0


def test_the_console_survives_a_power_cycle(bmc: Bmc) -> None:
    console = Terminal(bmc.ipmitool("sol", "activate"))
    console.expect("SOL Session operational")
    bmc.tell("prints before")
    console.expect("before")
    assert run(bmc.ipmitool("power", "off"))[0] == 0
    console.type("nobody hears this")
    assert run(bmc.ipmitool("power", "on"))[0] == 0
    until = time.monotonic() + 10
    while b"after" not in console.output and time.monotonic() < until:
        bmc.tell("prints after")
        if select.select([console.fd], [], [], 0.1)[0]:
            console.output += os.read(console.fd, 65536)
    console.expect("after")
    console.type("\r~.")
    assert console.ended() == 0


def test_one_console_at_a_time(bmc: Bmc) -> None:
    console = Terminal(bmc.freeipmi("ipmiconsole"))
    console.expect("[SOL established]")
    status, output, _ = run(bmc.ipmitool("sol", "activate"))
    assert status != 0 and "already active on another session" in output
    assert run(bmc.ipmitool("sol", "deactivate"))[0] == 0
    console.expect("[SOL session stolen]")
    console.ended()
    again = Terminal(bmc.ipmitool("sol", "activate"))
    again.expect("SOL Session operational")
    again.type("\r~.")
    assert again.ended() == 0
