#!/usr/bin/env python3
"""The real process of a BMC on a machine in memory, started by the first packet, for trying real clients.

    tests/fakes/bmc.py --ipmi 127.0.0.1:6623 --redfish 127.0.0.1:8443 --power On
    ipmitool -I lanplus -H 127.0.0.1 -p 6623 -U cybozu -P cybozu power status
    curl -k -u cybozu:cybozu https://127.0.0.1:8443/redfish/v1/Systems/System.Embedded.1

Prints "READY {JSON with the addresses}". Lines on its standard input are answered with one line of JSON each: `state`,
`powers-off`, `resets` (what the guest does), `prints TEXT` (on its console).
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from fakes.activator import Activator  # noqa: E402
from fakes.machine import INVENTORY, LIMITS, FakeMachine  # noqa: E402
from placematd.baseboard.serve import MachineSocket  # noqa: E402
from placematd.bmc.accounts import Accounts, Role  # noqa: E402
from placematd.bmc.process import IDLE_SECONDS, Certificate  # noqa: E402

ACCOUNTS: tuple[tuple[str, str, Role], ...] = (
    ("cybozu", "cybozu", "Administrator"),
    ("admin", "password", "Administrator"),
    ("operator", "operator", "Operator"),
    ("reader", "reader", "ReadOnly"),
)
OPENSSL = ("openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")


def address_of(text: str) -> tuple[str, int]:
    """HOST:PORT; port 0 for a free one."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def bound(kind: socket.SocketKind, address: tuple[str, int]) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(address)
    if kind == socket.SOCK_STREAM:
        sock.listen(1024)
    return sock


@contextlib.contextmanager
def throw_away_certificate(*names: str) -> Iterator[Certificate]:
    """A self-signed certificate in a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="bmc-certificate-") as directory:
        files = Certificate(certificate=Path(directory) / "cert.pem", key=Path(directory) / "key.pem")
        alternative = ",".join(f"IP:{name}" for name in {"127.0.0.1", *names})
        output = (
            "-days",
            "2",
            "-subj",
            "/CN=bmc",
            "-addext",
            f"subjectAltName={alternative}",
            "-keyout",
            files.key,
            "-out",
            files.certificate,
        )
        subprocess.run([*OPENSSL, *map(str, output)], check=True, capture_output=True)
        yield files


async def add_accounts(machine: FakeMachine, accounts: Sequence[tuple[str, str, Role]] = ACCOUNTS) -> None:
    """Put accounts into a machine's store, unless there are some."""
    if "accounts" not in machine.durable:
        store = Accounts(machine)
        await store.load()
        for name, password, role in accounts:
            if store.by_name(name) is None:
                await store.create(name=name, password=password, role=role)


def answer(machine: FakeMachine, line: str) -> object:
    """What a line on the standard input asks for."""
    command, _, text = line.strip().partition(" ")
    if command == "powers-off":
        machine.guest_powers_off()
    elif command == "resets":
        machine.guest_resets()
    elif command == "prints":
        machine.guest_prints(text.encode() + b"\r\n")
    elif command != "state":
        return {"error": f"unknown command {command}"}
    state = {"power": machine._state, "starts": machine.starts, "typed": machine.typed.decode(errors="replace")}
    return state | {"actions": [[str(word) for word in action] for action in machine.actions]}


async def obey(machine: FakeMachine) -> None:
    """Answer the standard input until it ends, if anybody can write to it."""
    if not stat.S_ISFIFO(os.fstat(0).st_mode) and not sys.stdin.isatty():
        return
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        print(json.dumps(answer(machine, line.decode())), flush=True)


async def run(arguments: argparse.Namespace) -> None:
    mode = "UEFI" if arguments.uefi else "Legacy"
    machine = FakeMachine(
        arguments.power,
        inventory=replace(INVENTORY, boot_mode=mode),
        limits=replace(LIMITS, address=(arguments.redfish or arguments.ipmi)[0]),
        soft_seconds=arguments.soft_seconds,
        media_seconds=arguments.media_seconds,
        echo=not arguments.no_echo,
    )
    await add_accounts(machine)
    sockets, told = [], {}
    for name, kind in (("ipmi", socket.SOCK_DGRAM), ("redfish", socket.SOCK_STREAM)):
        if address := getattr(arguments, name):
            sockets.append(bound(kind, address))
            told[name] = sockets[-1].getsockname()[:2]
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with throw_away_certificate() as certificate:
        directory = certificate.certificate.parent
        argv = (sys.executable, "-m", "placematd.bmc", str(directory / "machine"))
        environment = {"CREDENTIALS_DIRECTORY": str(directory), "PYTHONPATH": str(Path(__file__).parents[2])}
        activator = Activator(sockets, (*argv, "--idle-seconds", str(arguments.idle_seconds)), environment)
        async with MachineSocket(directory / "machine", machine):
            obeying = asyncio.create_task(obey(machine))
            if arguments.until_eof:
                obeying.add_done_callback(lambda _: stop.set())
            tasks = [asyncio.create_task(activator.run()), obeying]
            print("READY", json.dumps(told), flush=True)
            await stop.wait()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


def main() -> None:
    parser = argparse.ArgumentParser(description="A BMC on a machine in memory.")
    parser.add_argument("--ipmi", type=address_of, metavar="HOST:PORT")
    parser.add_argument("--redfish", type=address_of, metavar="HOST:PORT")
    parser.add_argument("--power", choices=("On", "Off"), default="Off")
    parser.add_argument("--uefi", action="store_true", help="the machine has UEFI firmware")
    parser.add_argument("--soft-seconds", type=float, default=0.5, help="how long the guest takes to shut down")
    parser.add_argument("--media-seconds", type=float, default=0.25, help="how long a quarter of an image takes")
    parser.add_argument("--no-echo", action="store_true", help="the console does not echo what is typed")
    parser.add_argument("--until-eof", action="store_true", help="end with the standard input")
    parser.add_argument("--idle-seconds", type=float, default=IDLE_SECONDS)
    arguments = parser.parse_args()
    if not arguments.ipmi and not arguments.redfish:
        parser.error("--ipmi, --redfish or both")
    asyncio.run(run(arguments))


if __name__ == "__main__":
    main()
