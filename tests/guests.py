"""Real guests for tests: the small Linux of examples/guest, a QEMU that runs it, and its serial console.

images = guests.images()
with guests.Guest(images.direct(), folder) as guest:
    guest.console.expect("placemat-guest: ready")
    assert guest.console.run("nproc") == "1"
"""

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parent.parent
QUICKSTART = ROOT / "examples" / "quickstart"
BUILD = ROOT / "examples" / "guest" / "build.py"
DATA = QUICKSTART / "data"

# The reference machine has two cores and no KVM, and other work to do: limits are for what hangs, not for what is slow.
BOOT_SECONDS = 240
ANSWER_SECONDS = 60


@dataclass(frozen=True)
class Images:
    """The guest in all its forms."""

    folder: Path

    @property
    def vmlinuz(self) -> Path:
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.folder / "initrd.img"

    @property
    def bios(self) -> Path:
        """A raw disk that boots with SeaBIOS; written to only by those who copy it."""
        return self.folder / "bios.img"

    @property
    def uefi(self) -> Path:
        """A raw disk that boots with OVMF."""
        return self.folder / "uefi.img"

    @property
    def unified(self) -> Path:
        """The UEFI program that `uefi` holds, for HTTP boot."""
        return self.folder / "uefi.efi"

    def direct(self, *options: str) -> list[str]:
        """QEMU arguments that boot the guest at once, with kernel command line `options`."""
        line = " ".join(["console=ttyS0 quiet", *options])
        return ["-kernel", str(self.vmlinuz), "-initrd", str(self.initrd), "-append", line]


@cache
def images(kernel: str = "cloud") -> Images:
    """Builds the guest where it is missing or outdated. The kernel "generic" has 9p, IPMI and watchdog drivers too."""
    folder = DATA if kernel == "cloud" else DATA / kernel
    subprocess.run(
        [sys.executable, str(BUILD), "--kernel", kernel, "--output", str(folder), "--bios", "--uefi"], check=True
    )
    return Images(folder)


ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[^\[])")
UNFINISHED_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*)?$")


class Console:
    """One end of a serial console (or any stream of text): what was read, without escape sequences and CR."""

    def __init__(self, stream: socket.socket) -> None:
        self.stream = stream
        self.text = ""
        self.seen = 0
        self._unread = ""
        self._commands = 0

    @classmethod
    def connect(cls, path: Path) -> "Console":
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        stream.connect(str(path))
        return cls(stream)

    def send(self, text: str) -> None:
        self.stream.sendall(text.encode())

    def read(self, deadline: float) -> bool:
        """Waits for more text; False when the other end has closed. TimeoutError at `deadline` (time.monotonic)."""
        self.stream.settimeout(max(0.001, deadline - time.monotonic()))
        data = self.stream.recv(65536)
        self._unread += data.decode(errors="replace").replace("\r", "")
        unfinished = UNFINISHED_ESCAPE.search(self._unread)
        end = unfinished.start() if unfinished else len(self._unread)
        self.text += ESCAPE.sub("", self._unread[:end])
        self._unread = self._unread[end:]
        return bool(data)

    def expect(self, pattern: str, seconds: float = BOOT_SECONDS) -> re.Match[str]:
        """Waits for a match of `pattern` in what came after the last match."""
        deadline = time.monotonic() + seconds
        while not (match := re.compile(pattern, re.MULTILINE).search(self.text, self.seen)):
            try:
                alive = self.read(deadline)
            except TimeoutError:
                raise AssertionError(f"no {pattern!r} within {seconds} s; the console said:\n{self.text}") from None
            assert alive, f"closed before {pattern!r}; the console said:\n{self.text}"
        self.seen = match.end()
        return match

    def close(self) -> None:
        self.stream.close()

    def run(self, command: str, seconds: float = ANSWER_SECONDS) -> str:
        """Types a command into the guest's shell and returns what it prints; asserts that it succeeds."""
        # The shell computes the marks, so that the echo of the typed line does not hold them.
        self._commands += 2
        begin, end = 7000 + self._commands, 7001 + self._commands
        self.send(f"echo =$(({begin}))=; {command}; echo =$(({end}))=$?=\n")
        self.expect(f"^={begin}=\n", seconds)
        start = self.seen
        match = self.expect(f"={end}=([0-9]+)=\n", seconds)
        output = self.text[start : match.start()]
        assert match[1] == "0", f"{command}: exit status {match[1]}: {output}"
        return output.rstrip("\n")


class Qmp:
    """As much of QEMU's Machine Protocol as tests need to play the hypervisor's operator."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._file = stream.makefile("rw")
        stream.settimeout(ANSWER_SECONDS)
        self._file.readline()
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: object) -> object:
        self._file.write(json.dumps({"execute": command, "arguments": arguments, "id": command}) + "\n")
        self._file.flush()
        while (answer := json.loads(self._file.readline())).get("id") != command:
            pass
        assert "return" in answer, f"{command}: {answer}"
        return answer["return"]

    def close(self) -> None:
        self._file.close()
        self._stream.close()


@dataclass
class Guest:
    """A QEMU under TCG with the devices of placemat's nodes, as v2 had them (pkg/vm/qemu.go); a context."""

    boot: Sequence[str]
    """QEMU arguments that say what to boot; none: the network."""
    folder: Path
    """Where its sockets are made."""
    serial: str = "1234abcd"
    nics: Sequence[tuple[str, str]] = ()
    """(tap, MAC address) of each NIC."""
    memory: str = "512M"
    extra: Sequence[str] = ()
    sockets: dict[str, socket.socket] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        listeners = {name: self._listen(name) for name in ("console", "guest", "qmp")}
        descriptors = {name: listener.fileno() for name, listener in listeners.items()}
        # QEMU ends with the tests, however they end.
        argv = ["setpriv", "--pdeathsig", "KILL", "--", *self.argv(descriptors)]
        self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, pass_fds=list(descriptors.values()))
        for listener in listeners.values():
            listener.close()
        self.console = Console.connect(self.folder / "console")
        self.port = Console.connect(self.folder / "guest")
        self.qmp = Qmp(Console.connect(self.folder / "qmp").stream)
        return self

    def _listen(self, name: str) -> socket.socket:
        """A listening socket for QEMU: made here, so that connecting to it never comes too early."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(self.folder / name))
        listener.listen(1)
        return listener

    def argv(self, sockets: dict[str, int]) -> list[str]:
        words = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", self.memory, "-nographic"]
        words += [
            "-chardev",
            f"socket,id=console,fd={sockets['console']},server=on,wait=off",
            "-serial",
            "chardev:console",
        ]
        words += ["-smbios", f"type=1,serial={self.serial}"]
        for index, (tap, mac) in enumerate(self.nics):
            words += ["-netdev", f"tap,id=net{index},ifname={tap},script=no,downscript=no"]
            words += ["-device", f"virtio-net-pci,host_mtu=1500,netdev=net{index},mac={mac}"]
        if not self.nics:
            words += ["-nic", "none"]
        words += [*self.extra, "-boot", "reboot-timeout=30000"]
        words += ["-chardev", f"socket,id=char0,fd={sockets['guest']},server=on,wait=off", "-device", "virtio-serial"]
        words += ["-device", "virtserialport,chardev=char0,name=placemat"]
        words += [
            "-chardev",
            f"socket,id=qmp,fd={sockets['qmp']},server=on,wait=off",
            "-mon",
            "chardev=qmp,mode=control",
        ]
        words += ["-object", "rng-random,id=rng0,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng0"]
        return [*words, *self.boot]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        self.console.close()
        self.port.close()
        self.qmp.close()
