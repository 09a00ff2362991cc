#!/usr/bin/env python3
"""Builds the disk of the cloud-init example: a small Debian 12 with Debian's cloud-init, which BIOS boots.

Downloads with apt alone (mmdebstrap) and needs root, but no loop device: file systems are written into the file. A
second run does nothing, unless apt offers newer packages or the files beside this one have changed.
"""

import argparse
import fcntl
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).resolve().parent
ROOT = HERE / "root"
PACKAGES = ("cloud-init", "dbus", "iproute2", "linux-image-cloud-amd64", "netplan.io", "systemd-sysv", "udev")
EXCLUDED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
MBR = Path("/usr/lib/syslinux/mbr/mbr.bin")

MEBI = 2**20
BOOT_START, BOOT_SIZE, ROOT_SIZE = 1, 63, 1984
ROOT_START = BOOT_START + BOOT_SIZE
COMMAND_LINE = "root=LABEL=root ro console=ttyS0 quiet"
SYSLINUX = f"DEFAULT debian\nLABEL debian\nLINUX vmlinuz\nINITRD initrd.img\nAPPEND {COMMAND_LINE}\n"


def inputs_digest() -> str:
    """A digest of the files that shape the disk, and of the versions that apt would install."""
    shown = subprocess.run(["apt-cache", "show", "--no-all-versions", *PACKAGES], capture_output=True, text=True)
    digest = hashlib.sha256("\n".join(re.findall(r"^(?:Package|Version|Depends): .*$", shown.stdout, re.M)).encode())
    for path in sorted([Path(__file__), *ROOT.glob("**/*")]):
        if path.is_symlink():
            digest.update(f"{path.relative_to(HERE)} {path.readlink()}\0".encode())
        elif path.is_file():
            digest.update(f"{path.name} {path.stat().st_mode & 0o100:o}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def run(*argv: str | Path) -> None:
    """Runs a program; it prints when it fails. Raises CalledProcessError."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    environment = {**os.environ, "PATH": path, "MTOOLS_SKIP_CHECK": "1", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        print(done.stdout, file=sys.stderr)
        done.check_returncode()


def install(root: Path) -> None:
    """Installs Debian below `root`, with the files of root/ in place before packages are configured."""
    run(
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        "--format=directory",
        f"--include={','.join(PACKAGES)}",
        '--aptopt=Apt::Install-Recommends "false"',
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in EXCLUDED),
        f'--essential-hook=cp --recursive --no-dereference --preserve=mode {ROOT}/. "$1"',
        "bookworm",
        root,
    )
    # Each node makes its own; cloud-init gives it a name.
    (root / "etc/machine-id").write_text("")
    (root / "etc/hostname").unlink(missing_ok=True)
    # mmdebstrap leaves the machine's, which names resolvers that a node cannot reach.
    (root / "etc/resolv.conf").unlink(missing_ok=True)


def write_disk(root: Path, disk: Path) -> None:
    """Writes a disk with a FAT partition for syslinux, the kernel and its initramfs, and ext4 for the rest."""
    with disk.open("wb") as file:
        file.write(MBR.read_bytes())
        file.truncate((ROOT_START + ROOT_SIZE + 1) * MEBI)
    layout = f"start={BOOT_START}MiB, size={BOOT_SIZE}MiB, type=c, bootable\nstart={ROOT_START}MiB, size={ROOT_SIZE}MiB"
    subprocess.run(["/usr/sbin/sfdisk", "--quiet", disk], input=f"label: dos\n{layout}\n", text=True, check=True)
    boot = f"{disk}@@{BOOT_START}M"
    run("mformat", "-i", boot, "-T", str(BOOT_SIZE * MEBI // 512), "-h", "64", "-s", "32", "-H", "2048", "::")
    run("mcopy", "-i", boot, next(root.glob("boot/vmlinuz-*")), "::vmlinuz")
    run("mcopy", "-i", boot, next(root.glob("boot/initrd.img-*")), "::initrd.img")
    config = root.with_name("syslinux.cfg")
    config.write_text(SYSLINUX)
    run("mcopy", "-i", boot, config, "::syslinux.cfg")
    run("syslinux", "--install", "--offset", str(BOOT_START * MEBI), disk)
    offset = f"offset={ROOT_START * MEBI},lazy_itable_init=0,root_owner=0:0"
    run("mke2fs", "-q", "-F", "-t", "ext4", "-L", "root", "-d", root, "-E", offset, disk, f"{ROOT_SIZE}M")


def build(output: Path) -> None:
    """Makes debian.qcow2 in `output` where it is missing or outdated."""
    disk, record, digest = output / "debian.qcow2", output / ".inputs", inputs_digest()
    if disk.exists() and record.exists() and record.read_text() == digest:
        print(f"{disk}: up to date", file=sys.stderr)
        return
    record.unlink(missing_ok=True)
    with TemporaryDirectory(dir=output, prefix=".build-") as name:
        scratch = Path(name)
        install(scratch / "root")
        write_disk(scratch / "root", scratch / "disk")
        compress = ("-c", "-o", "compression_type=zstd")
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", *compress, scratch / "disk", scratch / "qcow2")
        (scratch / "qcow2").chmod(0o644)
        (scratch / "qcow2").rename(disk)
    record.write_text(digest)
    print(f"{disk}: built, {disk.stat().st_size // MEBI} MiB", file=sys.stderr)


def main() -> None:
    """Builds under a lock: tests and `make` may run this at the same time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=HERE / "data", help="folder of the result: %(default)s")
    output = parser.parse_args().output.absolute()
    if os.geteuid() != 0:
        sys.exit("build.py: needs root: it installs Debian in a folder (chroot)")
    output.mkdir(parents=True, exist_ok=True)
    with (output / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            build(output)
        except (OSError, subprocess.CalledProcessError) as error:
            sys.exit(f"build.py: {error}")


if __name__ == "__main__":
    main()
