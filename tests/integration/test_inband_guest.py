"""A guest that talks to its BMC: Debian's ipmitool on /dev/ipmi0 of a real QEMU, our relay, our commands."""

import asyncio
import shutil
import socket
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import guests
import ipmi_guest
import pytest
from fakes.machine import FakeMachine

from placematd.baseboard.inband import InBandRelay
from placematd.bmc.accounts import Accounts
from placematd.bmc.logins import Logins
from placematd.bmc.machine import PowerAction, RestartCause
from placematd.bmc.parts import make_ipmi
from placematd.bmc.process import Part

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not shutil.which("qemu-system-x86_64"), reason="apt-get install qemu-system-x86"),
]

HELLO = bytes.fromhex("ff01a1083fa1")
"""What the unit tests say that QEMU says first."""

QMP_COMMANDS = {"cycle": "system_reset", "reset": "system_reset", "nmi": "inject-nmi", "soft-off": "system_powerdown"}


class GuestMachine(FakeMachine):
    """A machine whose power reaches the test's guest, as far as QMP can do it."""

    def __init__(self, qmp: guests.Qmp) -> None:
        super().__init__("On", soft_seconds=None)
        self._qmp = qmp

    async def power(self, action: PowerAction, cause: RestartCause = "chassis-control") -> None:
        await super().power(action, cause)
        if action in QMP_COMMANDS:
            await asyncio.to_thread(self._qmp.execute, QMP_COMMANDS[action])

    @property
    def powered(self) -> list[object]:
        """The power actions so far."""
        return [action[1] for action in self.actions if action[0] == "power"]


class Host:
    """What stands around a guest: systemd, which starts the BMC's process, and placematd's relay."""

    def __init__(self, folder: Path, machine: GuestMachine) -> None:
        self.machine = machine
        self.starts = 0
        self.problems: list[str] = []
        self.relay = InBandRelay(folder / "ipmi", folder / "bmc", self.problems.append)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(folder / "bmc"))
        self._socket.listen()
        self.in_band: Part | None = None
        self._loop = asyncio.get_running_loop()

    async def __aenter__(self) -> "Host":
        self._systemd = asyncio.create_task(self._activate())
        self.relay.attach()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._systemd.cancel()
        with suppress(asyncio.CancelledError):
            await self._systemd
        await self.relay.detach()
        if self.in_band:
            await self.end_process()
        self._socket.close()

    async def _activate(self) -> None:
        while True:
            connected = asyncio.Event()
            self._loop.add_reader(self._socket, connected.set)
            await connected.wait()
            self._loop.remove_reader(self._socket)
            await self._start()
            await self._ended.wait()

    async def _start(self) -> None:
        accounts = Accounts(self.machine)
        await accounts.load()
        self.in_band = (await make_ipmi(self.machine, accounts, Logins(self.machine), lambda: None))["inband"]
        self._ended = asyncio.Event()
        self.starts += 1
        await self.in_band.attach(self._socket.dup())

    async def end_process(self) -> None:
        """The BMC's process has been idle for long enough."""
        assert self.in_band
        assert not self.in_band.busy
        self.in_band.close()
        await self.in_band.finish()
        self.in_band = None
        self._ended.set()

    async def attach(self) -> None:
        """placematd is back."""
        self.relay.attach()

    def call(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run something in the event loop, from the thread of the test."""
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)


Test = Callable[[guests.Console, Host], None]


def with_guest(folder: Path, test: Test) -> None:
    """Boot the guest with a BMC and run `test` in a thread."""

    async def main(guest: guests.Guest) -> None:
        async with Host(folder, GuestMachine(guest.qmp)) as host:
            await asyncio.to_thread(test, guest.console, host)

    device = ipmi_guest.qemu_arguments(folder / "ipmi")
    with guests.Guest(ipmi_guest.images().direct(), folder, extra=device) as guest:
        asyncio.run(asyncio.wait_for(main(guest), 400))


def test_ipmitool_in_a_guest(tmp_path: Path) -> None:
    def test(console: guests.Console, host: Host) -> None:
        def ipmitool(arguments: str) -> str:
            return ipmi_guest.ipmitool(console, arguments)

        ipmi_guest.ready(console)
        assert host.starts == 1

        assert "IPMI Version              : 2.0" in ipmitool("mc info")
        assert "d1f5a1f0-5b3c-4c1e-9d3a-0123456789ab" in ipmitool("mc guid")
        assert "IP Address              : 127.0.0.1" in ipmitool("lan print 1")
        assert ipmitool("chassis power status") == "Chassis Power is on"
        assert "Inlet Temp       | 23 degrees C" in ipmitool("sdr")
        assert "Product Serial        : 1234abcd" in ipmitool("fru")
        assert "KCS" in ipmitool("channel info 15")
        ipmitool("user set name 3 sunny")
        assert ipmitool("channel authcap 1 4")
        assert "SEL has no entries" in ipmitool("sel list")
        assert "Receive Message Queue Interrupt          : enabled" in ipmitool("mc getenables")
        interrupts = int(console.run("grep ipmi_si /proc/interrupts").split()[1])
        assert interrupts > 100

        # An idle process ends; the next request starts another, and the guest notices nothing.
        host.call(host.end_process())
        assert host.starts == 1
        assert "sunny" in ipmitool("user list 1")
        assert host.starts == 2
        assert host.problems == []

        # placematd is away for a while.
        host.call(host.relay.detach())
        assert "rsp=0xd2" in console.run("ipmitool raw 6 1 2>&1 || true")
        host.call(host.attach())
        assert ipmitool("chassis power status") == "Chassis Power is on"

        # The kernel's own users of a BMC.
        console.run("insmod /lib/modules/ipmi/ipmi_watchdog.ko timeout=300 action=power_cycle start_now=1")
        assert "Power Cycle" in ipmitool("mc watchdog get")
        ipmitool("mc watchdog off")

        console.send("ipmitool chassis power cycle\n")
        console.expect("SeaBIOS")
        ipmi_guest.ready(console)
        assert ipmitool("sel list").count("soft-off") == 1

        console.send("ipmitool chassis power diag\n")
        console.expect("Uhhuh. NMI received", guests.ANSWER_SECONDS)
        console.run("dmesg -n 1")
        console.send("ipmitool chassis power soft\n")
        console.expect("placemat-guest: power button", guests.ANSWER_SECONDS)
        assert host.machine.powered == ["cycle", "nmi", "soft-off"]

    with_guest(tmp_path, test)


def hello_and_pci(folder: Path, *device: str) -> tuple[bytes, str]:
    """What the IPMI device says first, and how QEMU numbers its PCI devices."""
    nic, disk = ("-device", "virtio-net-pci"), ("-drive", "if=virtio,driver=null-co,size=1M")
    with guests.Guest(("-S", *nic, *disk), folder, extra=device) as guest:
        layout = guest.qmp.execute("human-monitor-command", **{"command-line": "info pci"})
        if not device:
            return b"", str(layout)
        with socket.socket(socket.AF_UNIX) as stream:
            stream.settimeout(guests.ANSWER_SECONDS)
            stream.connect(str(folder / "ipmi"))
            return stream.recv(len(HELLO), socket.MSG_WAITALL), str(layout)


def test_the_device_says_hello_and_changes_no_pci_slot(tmp_path: Path) -> None:
    with_device = hello_and_pci(tmp_path / "1", *ipmi_guest.qemu_arguments(tmp_path / "1" / "ipmi"))
    _, layout = hello_and_pci(tmp_path / "2")
    assert with_device == (HELLO, layout)
