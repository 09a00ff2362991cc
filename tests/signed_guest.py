"""A disk that UEFI boots with Secure Boot: Debian's signed shim, GRUB and kernel, with the small Linux of `guests`.

Microsoft's key signed the shim, and Debian's, which the shim holds, GRUB and the kernel.
"""

import hashlib
import sys
from fcntl import LOCK_EX, flock
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from guests import BUILD, DATA, Images, images

sys.path.append(str(BUILD.parent))
import build
import disks

FOLDER = DATA / "signed"
SHIM, GRUB = "usr/lib/shim/shimx64.efi.signed", "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"
CONFIG = b"linux /vmlinuz console=ttyS0 quiet\ninitrd /initrd.img\nboot\n"


@cache
def disk() -> Path:
    """Builds the disk where it is missing or outdated."""
    guest = images()
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / ".lock").open("w") as lock:
        flock(lock, LOCK_EX)
        apt = build.Apt(Path(build.parse([]).cache))
        try:
            return _build(guest, apt)
        except build.AptError:
            apt.update()
            return _build(guest, apt)


def _build(guest: Images, apt: build.Apt) -> Path:
    packages = apt.packages("shim-signed", "grub-efi-amd64-signed", "mtools")
    inputs = [f"{package.name} {package.version}".encode() for package in packages]
    inputs += [Path(__file__).read_bytes(), guest.initrd.read_bytes(), guest.vmlinuz.read_bytes()]
    digest = hashlib.sha256(b"\0".join(inputs)).hexdigest()
    output, record = FOLDER / "signed.img", FOLDER / ".digest"
    if record.exists() and record.read_text() == digest:
        return output
    record.unlink(missing_ok=True)
    with TemporaryDirectory(dir=FOLDER, prefix=".build-") as scratch:
        extracted, made = Path(scratch, "packages"), Path(scratch, output.name)
        apt.extract(packages, extracted)
        files = {
            "EFI/BOOT/BOOTX64.EFI": (extracted / SHIM).read_bytes(),
            "EFI/BOOT/grubx64.efi": (extracted / GRUB).read_bytes(),
            "EFI/debian/grub.cfg": CONFIG,  # where Debian's signed GRUB looks, wherever it was started from
            "vmlinuz": guest.vmlinuz.read_bytes(),
            "initrd.img": guest.initrd.read_bytes(),
        }
        disks.fat(made, files, extracted)
        made.chmod(0o644)
        made.rename(output)
    record.write_text(digest)
    return output
