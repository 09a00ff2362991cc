"""A guest with ipmitool: the small Linux of `guests` with Debian's generic kernel, IPMI modules and ipmitool.

images = ipmi_guest.images()                 # direct() boots at once, bios is a disk that boots with SeaBIOS
assert "192.0.2.7" in ipmi_guest.run(guest.console, "ipmitool lan print 1")
"""

import gzip
import hashlib
import shutil
import stat
import sys
from collections.abc import Iterator
from fcntl import LOCK_EX, flock
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from guests import BUILD, DATA, Console, Images
from guests import images as guest_images

sys.path.append(str(BUILD.parent))
import build
import disks
import initramfs

FOLDER = DATA / "ipmi"
PACKAGES = (
    *("ipmitool", "libc6", "libfreeipmi17", "libreadline8", "libtinfo6", "libssl3", "libgcrypt20", "libgpg-error0"),
)
LIBRARIES = (
    *("ld-linux-x86-64.so.2", "libc.so.6", "libm.so.6", "libfreeipmi.so.17", "libreadline.so.8", "libtinfo.so.6"),
    *("libcrypto.so.3", "libgcrypt.so.20", "libgpg-error.so.0"),
)
NUMBERS = "usr/share/misc/enterprise-numbers.txt"
MODULES = ("ipmi_watchdog", "ipmi_poweroff")
COMMAND_LINE = "console=ttyS0 quiet"


def qemu_arguments(path: Path) -> list[str]:
    """What gives a QEMU the IPMI device, with its host end at `path`."""
    return [
        *("-chardev", f"socket,id=ipmi0,path={path},server=on,wait=off"),
        *("-device", "ipmi-bmc-extern,id=bmc0,chardev=ipmi0", "-device", "isa-ipmi-kcs,bmc=bmc0"),
    ]


@cache
def images() -> Images:
    """Builds the guest where it is missing or outdated; `bios` is the only disk."""
    generic = guest_images("generic")
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / ".lock").open("w") as lock:
        flock(lock, LOCK_EX)
        apt = build.Apt(Path(build.parse([]).cache))
        try:
            _build(generic, apt)
        except build.AptError:
            apt.update()
            _build(generic, apt)
    return Images(FOLDER)


def _build(generic: Images, apt: build.Apt) -> None:
    packages = apt.packages(apt.kernel("generic"), "syslinux", "mtools", *PACKAGES)
    inputs = [f"{package.name} {package.version}".encode() for package in packages]
    inputs += [Path(__file__).read_bytes(), generic.initrd.read_bytes(), generic.vmlinuz.read_bytes()]
    digest = hashlib.sha256(b"\0".join(inputs)).hexdigest()
    record = FOLDER / ".digest"
    if record.exists() and record.read_text() == digest:
        return
    record.unlink(missing_ok=True)
    with TemporaryDirectory(dir=FOLDER, prefix=".build-") as scratch:
        extracted, made = Path(scratch, "packages"), Images(Path(scratch, "made"))
        made.folder.mkdir()
        apt.extract(packages, extracted)
        shutil.copy(generic.vmlinuz, made.vmlinuz)
        # A kernel unpacks one archive after the other.
        first = generic.initrd.read_bytes()
        second = gzip.compress(initramfs.archive(_entries(extracted)), 9, mtime=0)
        made.initrd.write_bytes(first + bytes(-len(first) % 4) + second)
        disks.bios(made.vmlinuz, made.initrd, COMMAND_LINE, extracted, made.bios)
        for path in made.folder.iterdir():
            path.chmod(0o644)
            path.rename(FOLDER / path.name)
    record.write_text(digest)


def _entries(extracted: Path) -> Iterator[initramfs.Entry]:
    """ipmitool, its libraries and what the generic guest does not load by itself."""
    yield initramfs.Entry("usr/bin/ipmitool", stat.S_IFREG | 0o755, (extracted / "usr/bin/ipmitool").read_bytes())
    for name in LIBRARIES:
        path = next(path for path in extracted.rglob(name) if not path.is_symlink() or path.resolve().exists())
        yield initramfs.Entry(f"lib/x86_64-linux-gnu/{name}", stat.S_IFREG | 0o755, path.read_bytes())
    loader = Path("lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")
    yield initramfs.Entry("lib64/ld-linux-x86-64.so.2", stat.S_IFLNK | 0o777, f"/{loader}".encode())
    modules = initramfs.Modules(extracted)
    for name in MODULES:
        yield initramfs.Entry(f"lib/modules/ipmi/{name}.ko", stat.S_IFREG | 0o644, modules.read(name).data)
    # The registry of manufacturers, without which ipmitool does nothing: the first hundred are read faster than all.
    numbers = (extracted / NUMBERS).read_bytes().splitlines(keepends=True)
    yield initramfs.Entry(NUMBERS, stat.S_IFREG | 0o644, b"".join(numbers[:400]))


def ready(console: Console) -> None:
    """Wait until the guest has booted and its BMC has answered the driver."""
    console.expect("^placemat-guest: ready$")
    console.send("\n")
    console.run("test -c /dev/ipmi0")


def ipmitool(console: Console, arguments: str) -> str:
    """What ipmitool prints in the guest; asserts that it succeeds."""
    return console.run(f"ipmitool {arguments}")
