#!/usr/bin/env python3
"""Builds the small Linux guest of the examples and tests from Debian's packages: a kernel and busybox in an initramfs.

Downloads with apt alone and installs nothing. A second run does nothing, unless apt offers newer packages or the files
beside this one have changed. Works for root and for an ordinary user.
"""

import argparse
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import disks
import initramfs

HERE = Path(__file__).resolve().parent
KERNELS = {"cloud": "linux-image-cloud-amd64", "generic": "linux-image-amd64"}
COMMAND_LINE = "console=ttyS0 quiet"


class AptError(Exception):
    """What apt could not do, in words for the person who ran this."""


@dataclass(frozen=True)
class Package:
    """One version of a Debian package."""

    name: str
    version: str
    depends: str

    @property
    def file(self) -> str:
        """The file name that `apt-get download` gives it, but for the architecture."""
        return f"{self.name}_{self.version.replace(':', '%3a')}_*.deb"


class Apt:
    """Debian's packages; `cache` keeps the downloaded ones."""

    def __init__(self, cache: Path) -> None:
        """Makes `cache` where it does not exist."""
        self.cache = cache
        self.private = cache / "apt"
        self.cache.mkdir(parents=True, exist_ok=True)

    def _run(self, *argv: str) -> str:
        """Runs apt-get or apt-cache in the cache, with package lists of our own once `update` has fetched them."""
        options = ["-o", "APT::Sandbox::User=root"]
        if self.private.exists():
            options += ["-o", f"Dir::State::lists={self.private}/lists", "-o", f"Dir::Cache={self.private}/cache"]
        tool, *words = argv
        command = [tool, *options, *words]
        done = subprocess.run(
            command, cwd=self.cache, env={**os.environ, "LC_ALL": "C"}, capture_output=True, text=True
        )
        if done.returncode:
            raise AptError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def update(self) -> None:
        """Fetches package lists of our own: the machine's may be missing or outdated, and are not ours to change."""
        for folder in ("lists/partial", "cache/archives/partial"):
            (self.private / folder).mkdir(parents=True, exist_ok=True)
        try:
            self._run("apt-get", "--quiet", "update", "--error-on=any")
        except AptError:
            shutil.rmtree(self.private)
            raise

    def packages(self, *names: str) -> list[Package]:
        """The versions of these packages that apt would install."""
        records = self._run("apt-cache", "show", "--no-all-versions", *names).split("\n\n")
        fields = [dict(re.findall(r"^(Package|Version|Depends): (.*)$", text, re.MULTILINE)) for text in records]
        found = {f["Package"]: Package(f["Package"], f["Version"], f.get("Depends", "")) for f in fields if f}
        if missing := set(names) - set(found):
            raise AptError(f"apt offers no package {' '.join(sorted(missing))}: is this Debian on amd64?")
        return [found[name] for name in names]

    def kernel(self, flavour: str) -> str:
        """The package of the kernel that the flavour's meta package stands for today."""
        (meta,) = self.packages(KERNELS[flavour])
        found = re.search(r"linux-image-\S+", meta.depends)
        if not found:
            raise AptError(f"{meta.name} depends on no kernel: is this Debian?")
        return found[0]

    def extract(self, packages: Iterable[Package], root: Path) -> None:
        """Unpacks packages below `root`, downloading those that the cache lacks."""
        for package in packages:
            if not list(self.cache.glob(package.file)):
                self._download(package)
            (archive,) = self.cache.glob(package.file)
            subprocess.run(["dpkg-deb", "--extract", str(archive), str(root)], check=True)

    def _download(self, package: Package) -> None:
        print(f"downloading {package.name} {package.version}", file=sys.stderr)
        self._run("apt-get", "--quiet", "download", f"{package.name}={package.version}")
        for old in set(self.cache.glob(f"{package.name}_*.deb")) - set(self.cache.glob(package.file)):
            old.unlink()


def sources_digest() -> str:
    """A digest of everything in this folder that shapes the guest: the scripts and its files, with their modes."""
    digest = hashlib.sha256()
    for path in sorted([*HERE.glob("*.py"), *HERE.glob("root/**/*")]):
        if path.is_file():
            digest.update(f"{path.relative_to(HERE)} {path.stat().st_mode & 0o100:o}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def make(wanted: set[str], packages: list[Package], arguments: argparse.Namespace, apt: Apt) -> None:
    """Builds in a temporary folder beside the results and moves them into place when all are whole."""
    command_line = " ".join([COMMAND_LINE, *arguments.append])
    with TemporaryDirectory(dir=arguments.output, prefix=".build-") as scratch:
        extracted, made = Path(scratch, "packages"), Path(scratch, "made")
        made.mkdir()
        apt.extract(packages, extracted)
        kernel, initrd = made / "vmlinuz", made / "initrd.img"
        next(extracted.glob("boot/vmlinuz-*")).rename(kernel)
        initrd.write_bytes(initramfs.guest(HERE / "root", extracted))
        if "bios.img" in wanted:
            disks.bios(kernel, initrd, command_line, extracted, made / "bios.img")
        if "uefi.img" in wanted:
            stub = extracted / "usr/lib/systemd/boot/efi/linuxx64.efi.stub"
            disks.unified_kernel(stub, kernel, initrd, command_line, made / "uefi.efi")
            disks.uefi(made / "uefi.efi", extracted, made / "uefi.img")
        for path in made.iterdir():
            # Whoever serves or boots these may be another user.
            path.chmod(0o644)
            path.rename(arguments.output / path.name)


def build(arguments: argparse.Namespace, apt: Apt) -> None:
    """Makes what is missing or outdated in the output folder. Raises AptError."""
    wanted = {"vmlinuz", "initrd.img"} | ({"bios.img"} if arguments.bios else set())
    wanted |= {"uefi.efi", "uefi.img"} if arguments.uefi else set()
    names = ["busybox-static", *(["mtools"] if arguments.bios or arguments.uefi else [])]
    names += [*(["syslinux"] if arguments.bios else []), *(["systemd-boot-efi"] if arguments.uefi else [])]
    packages = apt.packages(apt.kernel(arguments.kernel), *names)
    inputs = {package.name: package.version for package in packages}
    inputs |= {"sources": sources_digest(), "append": " ".join(arguments.append)}
    record = arguments.output / ".inputs.json"
    made = json.loads(record.read_text()) if record.exists() else {}
    if inputs.items() <= made.items() and all((arguments.output / name).exists() for name in wanted):
        print(f"{arguments.output}: up to date", file=sys.stderr)
        return
    record.unlink(missing_ok=True)
    make(wanted, packages, arguments, apt)
    record.write_text(json.dumps(inputs, indent=1) + "\n")
    print(f"{arguments.output}: built {', '.join(sorted(wanted))}", file=sys.stderr)


def parse(words: list[str]) -> argparse.Namespace:
    """The command line."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "placemat" / "packages"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--output", type=Path, default=HERE.parent / "quickstart" / "data", help="folder of the results: %(default)s")
    add("--cache", type=Path, default=cache, help="folder of downloaded packages: %(default)s")
    add(
        "--kernel",
        choices=KERNELS,
        default="cloud",
        help="cloud is small; generic has 9p, IPMI and watchdog drivers too",
    )
    add("--bios", action="store_true", help="also bios.img, a FAT disk with syslinux")
    add("--uefi", action="store_true", help="also uefi.efi, a unified kernel, and uefi.img, a FAT disk that boots it")
    add("--append", action="append", default=[], help="more words for the kernel command line of those disks")
    return parser.parse_args(words)


def main() -> None:
    """Builds under a lock: tests and `make` may run this at the same time."""
    arguments = parse(sys.argv[1:])
    arguments.output = arguments.output.absolute()
    arguments.cache = arguments.cache.absolute()
    arguments.output.mkdir(parents=True, exist_ok=True)
    with (arguments.output / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            apt = Apt(arguments.cache)
            try:
                build(arguments, apt)
            except AptError:
                apt.update()
                build(arguments, apt)
        except (AptError, OSError, subprocess.CalledProcessError) as error:
            sys.exit(f"build.py: {error}")


if __name__ == "__main__":
    main()
