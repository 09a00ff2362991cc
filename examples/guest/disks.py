"""Disk images that boot the guest: FAT with syslinux for BIOS, FAT with a unified kernel for UEFI."""

import os
import struct
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

PAGE = 4096


def bios(kernel: Path, initrd: Path, command_line: str, tools: Path, output: Path) -> None:
    """Writes a disk that BIOS boots (syslinux(1)); `tools` holds the packages mtools and syslinux."""
    config = f"DEFAULT guest\nLABEL guest\nLINUX vmlinuz\nINITRD initrd.img\nAPPEND {command_line}\n"
    fat(
        output,
        {"vmlinuz": kernel.read_bytes(), "initrd.img": initrd.read_bytes(), "syslinux.cfg": config.encode()},
        tools,
    )
    _run(tools, "syslinux", "--install", str(output))


def uefi(unified_kernel: Path, tools: Path, output: Path) -> None:
    """Writes a disk that UEFI boots from the path for removable media (UEFI 2.10, 3.5.1.1)."""
    fat(output, {"EFI/BOOT/BOOTX64.EFI": unified_kernel.read_bytes()}, tools)


def unified_kernel(stub: Path, kernel: Path, initrd: Path, command_line: str, output: Path) -> None:
    """Writes kernel, initrd and command line as one UEFI program, in sections that systemd-stub(7) finds."""
    image = bytearray(stub.read_bytes())
    image += bytes(-len(image) % PAGE)
    for name, data in (
        (b".cmdline", command_line.encode() + b"\0"),
        (b".linux", kernel.read_bytes()),
        (b".initrd", initrd.read_bytes()),
    ):
        _add_section(image, name, data)
    output.write_bytes(image)


def _add_section(image: bytearray, name: bytes, data: bytes) -> None:
    """Appends a section of read-only data to a PE image ("PE Format", Microsoft; headers at the offset in byte 60)."""
    (pe,) = struct.unpack_from("<I", image, 0x3C)
    (count,) = struct.unpack_from("<H", image, pe + 6)
    (optional_bytes,) = struct.unpack_from("<H", image, pe + 20)
    optional = pe + 24
    memory_bytes, header_bytes = struct.unpack_from("<II", image, optional + 56)
    header = optional + optional_bytes + 40 * count
    if header + 40 > header_bytes:
        raise ValueError(f"the UEFI stub has no room for a section {name.decode()}")
    address = memory_bytes + -memory_bytes % PAGE
    padded = data + bytes(-len(data) % PAGE)
    # Characteristics: initialised data, readable.
    values = (name, len(data), address, len(padded), len(image), 0, 0, 0, 0, 0x40000040)
    struct.pack_into("<8sIIIIIIHHI", image, header, *values)
    struct.pack_into("<H", image, pe + 6, count + 1)
    struct.pack_into("<I", image, optional + 56, address + len(padded))
    image += padded


def fat(output: Path, files: dict[str, bytes], tools: Path) -> None:
    """Writes a FAT disk without partitions, just large enough for `files`."""
    mebibytes = sum(map(len, files.values())) // 2**20 + 8
    with output.open("wb") as disk:
        disk.truncate(mebibytes * 2**20)
    # A fixed geometry, or else the image depends on what mformat guesses.
    _run(
        tools, "mformat", "-i", str(output), "-T", str(mebibytes * 2048), "-h", "64", "-s", "32", "-N", "706c6d74", "::"
    )
    directories = sorted({str(parent) for name in files for parent in Path(name).parents if str(parent) != "."})
    for directory in directories:
        _run(tools, "mmd", "-i", str(output), f"::{directory}")
    with TemporaryDirectory() as scratch:
        for name, data in files.items():
            source = Path(scratch, "file")
            source.write_bytes(data)
            os.utime(source, (0x12D00000, 0x12D00000))  # FAT counts from 1980; mcopy -m keeps this time
            _run(tools, "mcopy", "-m", "-i", str(output), str(source), f"::{name}")


def _run(tools: Path, *argv: str) -> None:
    """Runs a program of an extracted package."""
    path = f"{tools}/usr/bin:{tools}/usr/sbin:{tools}/sbin:{tools}/bin:{os.environ['PATH']}"
    # mtools takes times as they are and does not doubt our images' geometry.
    environment = {
        **os.environ,
        "PATH": path,
        "TZ": "UTC",
        "MTOOLS_SKIP_CHECK": "1",
        "SOURCE_DATE_EPOCH": str(0x12D00000),
    }
    subprocess.run(argv, env=environment, check=True, stdout=subprocess.DEVNULL)
