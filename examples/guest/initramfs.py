"""An initramfs from a busybox, kernel modules and a tree of files, byte for byte the same for the same inputs."""

import gzip
import lzma
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# Loaded at boot, in this order (with what they depend on); those that a kernel has built in or lacks are passed over.
BOOT = (
    *("virtio_pci", "virtio_net", "virtio_blk", "virtio_rng", "virtio_console", "evdev", "button", "qemu_fw_cfg"),
    *("ext4", "af_packet", "tpm_tis", "ipmi_si", "ipmi_devintf"),
)

# There for `modprobe` and for `mount`, which loads a file system's module by its alias.
ON_DEMAND = (
    *("efivarfs", "isofs", "vfat", "nls_cp437", "nls_ascii", "nls_iso8859_1", "nls_utf8", "9p", "9pnet_virtio"),
    *("virtio_balloon", "loop", "dummy", "veth", "8021q", "i6300esb", "ib700wdt"),
)

DIRECTORIES = ("bin", "dev", "etc", "lib", "mnt", "proc", "root", "run", "sbin", "sys", "tmp", "usr/bin", "usr/sbin")


@dataclass(frozen=True)
class Entry:
    """One file of the archive; `mode` holds the type as well, as in stat(2)."""

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Module:
    """One kernel module and what its .modinfo section says."""

    name: str
    path: str
    data: bytes

    def info(self, key: str) -> Iterator[str]:
        """Values of a key of the module's .modinfo section ("depends", "alias")."""
        for value in re.findall(rb"\0" + key.encode() + rb"=([^\0]*)\0", self.data.replace(b"\0", b"\0\0")):
            yield value.decode()

    @property
    def depends(self) -> list[str]:
        """Names of the modules that must be loaded before this one."""
        return [canonical(name) for line in self.info("depends") for name in line.split(",") if name]


def canonical(name: str) -> str:
    """A module's name as the kernel writes it."""
    return name.replace("-", "_")


class Modules:
    """The modules of one extracted kernel package."""

    def __init__(self, root: Path) -> None:
        """`root` is where the package was extracted; it holds one kernel."""
        self.release = next((root / "lib/modules").iterdir())
        self.files = {canonical(path.name.split(".ko")[0]): path for path in self.release.rglob("*.ko*")}

    def read(self, name: str) -> Module:
        """A module, without the compression that newer Debian kernels have. Raises KeyError where there is none."""
        path = self.files[name]
        data = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
        return Module(name, str(path.relative_to(self.release)).removesuffix(".xz"), data)

    def closure(self, names: Iterable[str]) -> dict[str, Module]:
        """Those of `names` that this kernel has as modules, and what they depend on, dependencies first."""
        found: dict[str, Module] = {}
        for name in map(canonical, names):
            if name in self.files and name not in found:
                module = self.read(name)
                found |= {key: value for key, value in self.closure(module.depends).items() if key not in found}
                found[name] = module
        return found

    def entries(self) -> Iterator[Entry]:
        """The modules and the tables that busybox's modprobe reads."""
        modules = self.closure([*BOOT, *ON_DEMAND])
        top = f"lib/modules/{self.release.name}"
        for module in modules.values():
            yield Entry(f"{top}/{module.path}", stat.S_IFREG | 0o644, module.data)
        depends = "".join(
            f"{module.path}: {' '.join(m.path for m in reversed(self.closure(module.depends).values()))}\n"
            for module in modules.values()
        )
        aliases = "".join(f"alias {alias} {m.name}\n" for m in modules.values() for alias in m.info("alias"))
        yield text(f"{top}/modules.dep", depends)
        yield text(f"{top}/modules.alias", aliases)
        yield text("lib/modules/boot", "".join(f"{name}\n" for name in map(canonical, BOOT) if name in modules))


def text(name: str, content: str) -> Entry:
    """A file of text."""
    return Entry(name, stat.S_IFREG | 0o644, content.encode())


def tree(root: Path) -> Iterator[Entry]:
    """The files below `root`; what its owner may execute, everyone may."""
    for path in sorted(root.rglob("*")):
        if path.is_file():
            mode = 0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644
            yield Entry(str(path.relative_to(root)), stat.S_IFREG | mode, path.read_bytes())


def guest(root: Path, packages: Path) -> bytes:
    """The guest's initramfs; `root` is the tree of its own files, `packages` holds the extracted packages."""
    entries = [Entry(name, stat.S_IFDIR | 0o755) for name in DIRECTORIES]
    entries += [
        Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)),
        Entry("bin/busybox", stat.S_IFREG | 0o755, (packages / "bin/busybox").read_bytes()),
        Entry("init", stat.S_IFREG | 0o755, b"#!/bin/busybox sh\n/bin/busybox --install -s\nexec /sbin/init\n"),
        *tree(root),
        *Modules(packages).entries(),
    ]
    # mtime=0: the same input gives the same bytes. Level 9 for what is packed once and fetched at each boot.
    return gzip.compress(archive(entries), 9, mtime=0)


def archive(entries: Iterable[Entry]) -> bytes:
    """`entries` as a cpio archive in the "newc" format (cpio(5), kernel: driver-api/early-userspace/buffer-format).

    Everything belongs to root, as in a file that root had packed; directories that files need are added.
    """
    named: dict[str, Entry] = {}
    for entry in entries:
        for parent in reversed(Path(entry.name).parents[:-1]):
            named.setdefault(str(parent), Entry(str(parent), stat.S_IFDIR | 0o755))
        named[entry.name] = entry
    return b"".join(_newc(number, entry) for number, entry in enumerate([*named.values(), Entry("TRAILER!!!", 0)]))


def _newc(number: int, entry: Entry) -> bytes:
    name = entry.name.encode() + b"\0"
    fields = [number, entry.mode, 0, 0, 1, 0, len(entry.data), 0, 0, *entry.device, len(name), 0]
    header = b"070701" + b"".join(b"%08x" % field for field in fields) + name
    return _padded(header) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
