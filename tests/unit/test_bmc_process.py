"""The process of a BMC as systemd runs it: started by the first packet, ended when idle, nothing lost in between."""

import asyncio
import io
import json
import logging
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from bmcs import running_bmc
from fakes.activator import Activator
from fakes.bmc import add_accounts, throw_away_certificate
from fakes.machine import INVENTORY, FakeMachine

from placematd.baseboard.serve import MachineSocket
from placematd.bmc.__main__ import JournalFormatter
from placematd.bmc.machine import BootOverride, Limits
from placematd.bmc.process import Certificate, kind_of

PING = bytes.fromhex("0600ff06000011be80010000")
"""Presence ping, message tag 1 (ASF 2.0 section 3.2.4.3)."""

needs_ipmitool = pytest.mark.skipif(not shutil.which("ipmitool"), reason="apt-get install ipmitool")


class Bed:
    """A machine, its socket and the sockets of its BMC."""

    def __init__(self, directory: Path, machine: FakeMachine, idle_seconds: float, certificate: Certificate | None):
        self.machine = machine
        (directory / "node").mkdir()
        self.machine_socket = MachineSocket(directory / "node" / "machine", machine)
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.inband = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.inband_path = directory / "inband"
        for sock, address in ((self.udp, ("127.0.0.1", 0)), (self.tcp, ("127.0.0.1", 0))):
            sock.bind(address)
        self.inband.bind(str(self.inband_path))
        self.tcp.listen(100)
        self.inband.listen(1)
        argv = (sys.executable, "-m", "placematd.bmc", str(directory / "node" / "machine"))
        environment = {"CREDENTIALS_DIRECTORY": str(certificate.certificate.parent)} if certificate else {}
        self.activator = Activator(
            (self.udp, self.tcp, self.inband), (*argv, "--idle-seconds", str(idle_seconds)), environment
        )

    @property
    def port(self) -> int:
        port: int = self.udp.getsockname()[1]
        return port

    async def ping(self, client: socket.socket) -> bytes:
        loop = asyncio.get_running_loop()
        client.send(PING)
        return await loop.sock_recv(client, 1024)

    async def ipmitool(self, *words: str, user: str = "cybozu", password: str = "cybozu") -> str:
        argv = ("-I", "lanplus", "-N", "20", "-H", "127.0.0.1", "-p", str(self.port), "-U", user, "-P", password)
        process = await asyncio.create_subprocess_exec(
            "ipmitool", *argv, *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()
        return output.decode()

    async def redfish(self, path: str, body: object = None, method: str | None = None) -> Any:
        """The JSON that a request is answered with, None where there is none."""
        request = Request(f"https://127.0.0.1:{self.tcp.getsockname()[1]}/redfish/v1{path}", method=method)
        request.add_header("Authorization", "Basic " + b64encode(b"cybozu:cybozu").decode())
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")

        def ask() -> Any:
            with urlopen(request, context=ssl._create_unverified_context(), timeout=60) as response:
                return json.loads(response.read() or "null")

        return await asyncio.to_thread(ask)

    async def exited(self, count: int) -> None:
        async with asyncio.timeout(60):
            while len(self.activator.exits) < count:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def bed(
    directory: Path,
    idle_seconds: float = 60,
    *,
    machine: FakeMachine | None = None,
    placematd: bool = True,
    certificate: bool = True,
) -> AsyncIterator[Bed]:
    machine = machine or FakeMachine()
    await add_accounts(machine)
    with throw_away_certificate() as files:
        made = Bed(directory, machine, idle_seconds, files if certificate else None)
        activation = asyncio.create_task(made.activator.run())
        try:
            if placematd:
                await made.machine_socket.start()
            yield made
        finally:
            activation.cancel()
            with suppress(asyncio.CancelledError):
                await activation
            await made.machine_socket.stop()
            for sock in (made.udp, made.tcp, made.inband):
                sock.close()


def connected(port: int) -> socket.socket:
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.setblocking(False)
    client.connect(("127.0.0.1", port))
    return client


def run(test: Callable[[], Coroutine[None, None, None]], seconds: float = 180) -> None:
    asyncio.run(asyncio.wait_for(test(), seconds))


def test_a_packet_that_comes_before_the_process_is_answered(tmp_path: Path) -> None:
    async def test() -> None:
        async with bed(tmp_path) as node:
            with connected(node.port) as client:
                assert node.activator.process is None
                pong = await node.ping(client)
                assert pong[:4] == PING[:4] and pong[8:10] == b"\x40\x01"  # presence pong, the ping's tag
                assert len(node.activator.exits) == 0

    run(test)


def test_it_ends_when_idle_and_the_next_packet_starts_it_again(tmp_path: Path) -> None:
    async def test() -> None:
        async with bed(tmp_path, 0.3) as node:
            with connected(node.port) as client:
                for count in (1, 2):
                    await node.ping(client)
                    await node.exited(count)
            assert node.activator.exits == [0, 0]
            assert node.activator.log == b""

    run(test)


def test_no_packet_is_lost_when_it_ends_at_that_moment(tmp_path: Path) -> None:
    async def test() -> None:
        async with bed(tmp_path, 0.02) as node:
            with connected(node.port) as client:
                for number in range(12):
                    await node.ping(client)
                    await asyncio.sleep(0.015 + number * 0.001)
            assert set(node.activator.exits) == {0}

    run(test)


@needs_ipmitool
def test_a_session_keeps_it_and_its_end_lets_it_go(tmp_path: Path) -> None:
    async def test() -> None:
        async with bed(tmp_path, 0.4) as node:
            argv = ("-I", "lanplus", "-H", "127.0.0.1", "-p", str(node.port), "-U", "cybozu", "-P", "cybozu", "shell")
            pipe = asyncio.subprocess.PIPE
            shell = await asyncio.create_subprocess_exec("ipmitool", *argv, stdin=pipe, stdout=pipe, stderr=pipe)
            assert shell.stdin and shell.stdout
            shell.stdin.write(b"power status\n")
            while b"is off" not in await shell.stdout.readline():
                pass
            process = node.activator.process
            await asyncio.sleep(1.2)
            shell.stdin.write(b"power on\npower status\nexit\n")
            output, _ = await shell.communicate()
            assert b"is on" in output
            assert node.activator.process is process and node.activator.exits == []
            await node.exited(1)
            assert node.activator.exits == [0]

    run(test)


@needs_ipmitool
def test_what_was_acknowledged_survives_a_crash(tmp_path: Path) -> None:
    async def test() -> None:
        async with bed(tmp_path) as node:
            await node.ipmitool("chassis", "bootdev", "pxe")
            await node.ipmitool("user", "set", "name", "9", "somebody")
            await node.ipmitool("power", "on")
            before = await node.ipmitool("sel", "list")
            await node.ipmitool("chassis", "bootdev", "cdrom", "options=persistent")
            assert node.activator.process
            node.activator.process.kill()
            await node.exited(1)
            assert "is on" in await node.ipmitool("power", "status")
            assert node.machine.starts == [("Pxe", "Legacy")]
            assert (await node.machine.boot()) == BootOverride(enabled="Continuous", target="Cd")
            assert "CD/DVD" in await node.ipmitool("chassis", "bootparam", "get", "5")
            assert "somebody" in await node.ipmitool("user", "list")
            assert before in await node.ipmitool("sel", "list")
            assert node.activator.exits == [-signal.SIGKILL]

    run(test)


@needs_ipmitool
def test_a_cold_reset_is_answered_and_starts_a_new_process(tmp_path: Path) -> None:
    async def test() -> None:
        async with bed(tmp_path) as node:
            assert "Sent cold reset" in await node.ipmitool("mc", "reset", "cold")
            await node.exited(1)
            assert node.activator.exits == [0]
            assert "is off" in await node.ipmitool("power", "status")

    run(test)


def test_sigterm_ends_it(tmp_path: Path) -> None:
    async def test() -> None:
        async with bed(tmp_path) as node:
            with connected(node.port) as client:
                await node.ping(client)
                assert node.activator.process
                started = time.monotonic()
                node.activator.process.terminate()
                await node.exited(1)
                assert node.activator.exits == [0] and time.monotonic() - started < 3

    run(test)


def test_it_waits_for_a_placematd_that_is_away(tmp_path: Path) -> None:
    async def test() -> None:
        async with bed(tmp_path, 0.2, placematd=False) as node:
            with connected(node.port) as client:
                answer = asyncio.create_task(node.ping(client))
                await asyncio.sleep(1.0)
                assert not answer.done() and node.activator.exits == []
                await node.machine_socket.start()
                assert (await answer)[8] == 0x40

    run(test)


def test_a_bmc_without_ipmi_takes_packets_and_says_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        limits = Limits(ipmi=False, address="127.0.0.1")
        async with bed(tmp_path, 0.5, machine=FakeMachine(limits=limits)) as node:
            with connected(node.port) as client:
                client.send(PING)
                await node.exited(1)
                with pytest.raises(BlockingIOError):
                    client.recv(100)
                await asyncio.sleep(0.2)
                assert node.activator.exits == [0] and node.activator.process is None

    run(test)


@needs_ipmitool
def test_boot_flags_that_expire_keep_it_also_after_a_crash(tmp_path: Path) -> None:
    """They are for the next minute (IPMI 2.0 table 28-14), so somebody has to be there when it is over."""

    async def test() -> None:
        async with bed(tmp_path, 0.3) as node:
            await node.ipmitool("chassis", "bootdev", "pxe")
            for crashes in (0, 1):
                await asyncio.sleep(0.8)
                assert node.activator.exits == [-signal.SIGKILL] * crashes
                assert node.activator.process
                if not crashes:
                    node.activator.process.kill()
                    await node.exited(1)
                    await node.redfish("/")

    run(test)


def test_a_connection_that_comes_before_the_process_is_served(tmp_path: Path) -> None:
    async def test() -> None:
        async with bed(tmp_path, 0.5) as node:
            several = await asyncio.gather(*(node.redfish("/") for _ in range(5)))
            assert [root["Product"] for root in several] == ["placemat virtual BMC"] * 5
            await node.exited(1)
            system = await node.redfish("/Systems/System.Embedded.1")
            assert (system["PowerState"], system["UUID"]) == ("Off", str(INVENTORY.uuid))
            assert node.activator.exits == [0] and node.activator.log == b""

    run(test)


@needs_ipmitool
def test_ipmi_and_redfish_are_one_bmc(tmp_path: Path) -> None:
    async def test() -> None:
        async with bed(tmp_path) as node:
            system = "/Systems/System.Embedded.1"
            await asyncio.gather(node.ipmitool("chassis", "bootdev", "pxe", "options=efiboot"), node.redfish("/"))
            boot = (await node.redfish(system))["Boot"]
            assert (boot["BootSourceOverrideTarget"], boot["BootSourceOverrideEnabled"]) == ("Pxe", "Once")
            await node.redfish(f"{system}/Actions/ComputerSystem.Reset", {"ResetType": "On"})
            assert "is on" in await node.ipmitool("power", "status")
            assert node.machine.starts == [("Pxe", "UEFI")]
            assert node.activator.exits == []

    run(test)


def test_a_redfish_session_keeps_it(tmp_path: Path) -> None:
    async def test() -> None:
        async with bed(tmp_path, 0.4) as node:
            session = await node.redfish("/SessionService/Sessions", {"UserName": "admin", "Password": "password"})
            await asyncio.sleep(1.0)
            assert node.activator.exits == []
            path = session["@odata.id"].removeprefix("/redfish/v1")
            await node.redfish(path, method="DELETE")
            await node.exited(1)
            assert node.activator.exits == [0]

    run(test)


def test_a_reset_over_redfish_is_answered_and_starts_a_new_process(tmp_path: Path) -> None:
    async def test() -> None:
        async with bed(tmp_path) as node:
            manager = (await node.redfish("/Managers"))["Members"][0]["@odata.id"].removeprefix("/redfish/v1")
            await node.redfish(f"{manager}/Actions/Manager.Reset", {"ResetType": "ForceRestart"})
            await node.exited(1)
            assert (await node.redfish(manager))["PowerState"] == "On"
            assert node.activator.exits == [0]

    run(test)


def test_without_a_certificate_it_fails_and_does_not_spin(tmp_path: Path) -> None:
    """The connection waits on systemd's socket and starts the next process at once."""

    async def test() -> None:
        async with bed(tmp_path, certificate=False) as node:
            started = time.monotonic()
            with socket.create_connection(node.tcp.getsockname()):
                await node.exited(2)
            assert node.activator.exits == [1, 1] and time.monotonic() - started > 2
            assert b"<3>ValueError: a TCP socket, and no certificate for it" in node.activator.log

    run(test)


def test_subscribers_are_told_after_a_crash_without_a_request(tmp_path: Path) -> None:
    """A packet for IPMI is enough: events are delivered again."""
    told = asyncio.Queue[bytes]()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().splitlines() if line.startswith(b"content-length:"))
        told.put_nowait(await reader.readexactly(int(length.partition(b":")[2])))
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        writer.close()

    async def test() -> None:
        async with bed(tmp_path, 0.4) as node, await asyncio.start_server(take, "127.0.0.1") as server:
            port = server.sockets[0].getsockname()[1]
            subscription = {"Destination": f"http://127.0.0.1:{port}/", "Protocol": "Redfish"}
            await node.redfish("/EventService/Subscriptions", subscription)
            assert node.activator.process
            node.activator.process.kill()
            await node.exited(1)
            with connected(node.port) as client:
                await node.ping(client)
            while not node.machine.listeners:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.8)
            assert len(node.activator.exits) == 1
            await node.machine.power("on")
            assert b"Events" in await told.get()

    run(test)


@pytest.mark.parametrize(
    ("family", "kind", "meaning"),
    [
        (socket.AF_INET, socket.SOCK_DGRAM, "ipmi"),
        (socket.AF_INET6, socket.SOCK_DGRAM, "ipmi"),
        (socket.AF_INET6, socket.SOCK_STREAM, "redfish"),
        (socket.AF_UNIX, socket.SOCK_STREAM, "inband"),
    ],
)
def test_sockets_are_told_apart(family: socket.AddressFamily, kind: socket.SocketKind, meaning: str) -> None:
    with socket.socket(family, kind) as sock:
        assert kind_of(sock) == meaning


def test_a_socket_for_nothing_is_refused() -> None:
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock,
        pytest.raises(ValueError, match="no socket of a BMC"),
    ):
        kind_of(sock)


@needs_ipmitool
def test_a_bmc_for_trying_clients() -> None:
    """What tests of clients are given."""
    with running_bmc() as bmc:
        argv = ("-I", "lanplus", "-H", bmc.host, "-p", str(bmc.ipmi_port), "-U", "admin", "-P", "password")
        assert bmc.ask()["power"] == "Off"
        for words in (("chassis", "bootdev", "cdrom"), ("power", "on")):
            subprocess.run(["ipmitool", *argv, *words], check=True, capture_output=True, timeout=100)
        state = bmc.ask()
        assert (state["power"], state["starts"]) == ("On", [["Cd", "Legacy"]])
        assert bmc.ask("powers-off")["power"] == "Off"


def test_without_systemd_it_says_so(tmp_path: Path) -> None:
    async def test() -> None:
        argv = (sys.executable, "-m", "placematd.bmc", str(tmp_path / "machine"))
        process = await asyncio.create_subprocess_exec(*argv, stderr=asyncio.subprocess.PIPE)
        _, errors = await process.communicate()
        assert (process.returncode, errors) == (
            2,
            b"<3>no sockets: this is to be started by systemd (LISTEN_FDS)\n",
        )

    run(test)


def test_every_line_of_a_log_record_has_its_priority() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JournalFormatter())
    logger = logging.Logger("test")
    logger.addHandler(handler)
    logger.warning("one\ntwo")
    try:
        raise ValueError("bad")
    except ValueError:
        logger.exception("failed")
    lines = stream.getvalue().splitlines()
    assert lines[:3] == ["<4>one", "<4>two", "<3>failed"]
    assert all(line.startswith("<3>") for line in lines[3:]) and lines[-1] == "<3>ValueError: bad"
