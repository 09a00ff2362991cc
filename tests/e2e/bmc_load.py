"""Clients that press many BMCs at the same time, to be run in a sandbox: `python bmc_load.py MODE ARGUMENT... HOST...`.

Each mode prints a JSON object; times are seconds. Everything here waits as a client does, so that a packet that is lost
or a BMC that stands still shows as a long time and not as an error.
"""

import json
import os
import selectors
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPSConnection
from itertools import cycle
from pathlib import Path
from typing import Any

USER, PASSWORD = "cybozu", "cybozu"
PATIENCE_SECONDS = 60.0
RETRY_SECONDS = 1.0
WITNESS_SECONDS = 0.01
SYSTEM = "/redfish/v1/Systems/System.Embedded.1"
SESSIONS = "/redfish/v1/SessionService/Sessions"
QUESTIONS = (
    SYSTEM,
    "/redfish/v1/Chassis/System.Embedded.1",
    "/redfish/v1/AccountService",
    f"{SYSTEM}/EthernetInterfaces",
)

PROBE = bytes.fromhex("0600ff07 00 00000000 00000000 09 2018c8 8100388e04b5")
"""Get Channel Authentication Capabilities without a session (IPMI 2.0, 13.6 and 22.13): every client's first packet."""


class Witness:
    """How long the machine kept a thread waiting that only wanted to sleep: no BMC is to blame for that much."""

    def __enter__(self) -> "Witness":
        self.seconds, self._end = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while True:
            began = time.monotonic()
            ended = self._end.wait(WITNESS_SECONDS)
            self.seconds = max(self.seconds, time.monotonic() - began - WITNESS_SECONDS)
            if ended:
                return

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._thread.join()


def cold(hosts: Sequence[str]) -> dict[str, Any]:
    """A first packet to all BMCs at once, and again each second to those that are silent, as clients do."""
    answered: dict[str, float] = {}
    with selectors.DefaultSelector() as selector:
        for host in hosts:
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            client.connect((host, 623))
            selector.register(client, selectors.EVENT_READ, host)
        silent = {key.data: key.fileobj for key in selector.get_map().values()}
        began = time.monotonic()
        rounds = 0
        while silent and time.monotonic() < began + PATIENCE_SECONDS:
            if time.monotonic() >= began + rounds * RETRY_SECONDS:
                rounds += 1
                for client in silent.values():
                    client.send(PROBE)
            for key, _ in selector.select(max(0.0, began + rounds * RETRY_SECONDS - time.monotonic())):
                key.fileobj.recv(1024)
                if silent.pop(key.data, None):
                    answered[key.data] = time.monotonic() - began
        for key in list(selector.get_map().values()):
            key.fileobj.close()
    return {"seconds": sorted(answered.values())}


def ipmitool(seconds: str, workers: str, hosts: Sequence[str]) -> dict[str, Any]:
    """`ipmitool power status`, so many at a time, over all hosts again and again."""
    ends = time.monotonic() + float(seconds)
    errors: list[str] = []

    def ask(host: str) -> float:
        options = ["-I", "lanplus", "-C", "17", "-N", f"{PATIENCE_SECONDS:g}", "-R", "1", "-H", host, "-U", USER, "-E"]
        began = time.monotonic()
        done = subprocess.run(
            ["ipmitool", *options, "power", "status"],
            env={**os.environ, "IPMITOOL_PASSWORD": PASSWORD},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode or not done.stdout.startswith("Chassis Power is o"):
            errors.append(f"{host}: {done.stdout}{done.stderr}")
        return time.monotonic() - began

    with Witness() as witness:
        began = time.monotonic()
        times = press(ask, hosts, int(workers), ends)
        return {"seconds": times, "took": time.monotonic() - began, "errors": errors, "witness": witness.seconds}


def redfish(seconds: str, workers: str, hosts: Sequence[str]) -> dict[str, Any]:
    """A session with each host; then questions in all of them, so many at a time, each on its connection that stays."""
    errors: list[str] = []
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    lines = {host: HTTPSConnection(host, timeout=PATIENCE_SECONDS, context=context) for host in hosts}
    locks = {host: threading.Lock() for host in hosts}
    tokens: dict[str, dict[str, str]] = {}
    own: dict[str, str] = {}
    turns = cycle(QUESTIONS)

    def exchange(host: str, method: str, path: str, body: Any = None) -> Any:
        headers = {**tokens.get(host, {}), "Content-Type": "application/json"}
        lines[host].request(method, path, json.dumps(body) if body else None, headers)
        answer = lines[host].getresponse()
        answer.read()
        if answer.status not in (200, 201, 204):
            errors.append(f"{host}: {method} {path}: {answer.status}")
        return answer

    def log_in(host: str) -> float:
        began = time.monotonic()
        answer = exchange(host, "POST", SESSIONS, {"UserName": USER, "Password": PASSWORD})
        tokens[host], own[host] = {"X-Auth-Token": answer.getheader("X-Auth-Token")}, answer.getheader("Location")
        return time.monotonic() - began

    def ask(host: str) -> float:
        with locks[host]:
            began = time.monotonic()
            exchange(host, "GET", next(turns))
            return time.monotonic() - began

    with Witness() as witness, ThreadPoolExecutor(int(workers)) as pool:
        first = list(pool.map(log_in, hosts))
        print("ready", file=sys.stderr, flush=True)
        sys.stdin.readline()
        witness.seconds = 0.0
        began = time.monotonic()
        times = press(ask, hosts, int(workers), began + float(seconds))
        took = time.monotonic() - began
        worst = witness.seconds
        list(pool.map(lambda host: exchange(host, "DELETE", own[host]), hosts))
    for line in lines.values():
        line.close()
    return {"first": first, "seconds": times, "took": took, "errors": errors, "witness": worst}


def pyghmi(hosts: Sequence[str]) -> dict[str, Any]:
    """OpenStack's client in one process, which has one socket for many BMCs that all have port 623."""
    from pyghmi.ipmi.command import Command

    logins, states = [], []
    with Witness() as witness:
        clients = [timed(logins, lambda host=host: Command(bmc=host, userid=USER, password=PASSWORD)) for host in hosts]
        for client in clients:
            assert timed(states, client.get_power)["powerstate"] in ("on", "off")
        for client in clients:
            client.ipmi_session.logout()
    return {"logins": logins, "seconds": states, "witness": witness.seconds}


def memory(hosts: Sequence[str]) -> dict[str, Any]:
    """PSS in bytes and CPU seconds of each BMC's process."""
    pss, cpu = [], []
    for process in processes("placematd.bmc"):
        (line,) = [line for line in (process / "smaps_rollup").read_text().splitlines() if line.startswith("Pss:")]
        pss.append(int(line.split()[1]) << 10)
        cpu.append(cpu_seconds(process))
    return {"pss": sorted(pss), "cpu": cpu}


def press(ask: Callable[[str], float], hosts: Sequence[str], workers: int, ends: float) -> list[float]:
    """Ask all hosts in turn until the time is over, with so many workers; the time each answer took."""
    turns, lock = cycle(hosts), threading.Lock()

    def work() -> Iterator[float]:
        while time.monotonic() < ends:
            with lock:
                host = next(turns)
            yield ask(host)

    with ThreadPoolExecutor(workers) as pool:
        return [took for times in pool.map(lambda _: list(work()), range(workers)) for took in times]


def timed(times: list[float], step: Callable[[], Any]) -> Any:
    """Take the step, and note how long it took."""
    began = time.monotonic()
    result = step()
    times.append(time.monotonic() - began)
    return result


def processes(word: str) -> Iterator[Path]:
    """/proc/PID of those that have the word as an argument."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if word in (path / "cmdline").read_text().split("\0"):
                yield path
        except OSError:
            continue


def cpu_seconds(process: Path) -> float:
    """User and system time (proc(5))."""
    words = (process / "stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


MODES: dict[str, Callable[..., dict[str, Any]]] = {
    "cold": cold,
    "ipmitool": ipmitool,
    "redfish": redfish,
    "pyghmi": pyghmi,
    "memory": memory,
}


def main() -> None:
    """The hosts come last, as "-- HOST..."."""
    mode, *words = sys.argv[1:]
    at = words.index("--")
    print(json.dumps(MODES[mode](*words[:at], words[at + 1 :])))


if __name__ == "__main__":
    main()
