"""What the sandbox's systemd runs: journal, D-Bus, and nothing else of what the machine would start at boot."""

import shutil
from pathlib import Path

from .spec import Spec
from .syscalls import MS_NODEV, MS_NOSUID, mount

TARGET = "placemat-sandbox.target"
COMMANDS = "placemat-sandbox.service"
"""The unit in whose cgroup the commands run that people run in the sandbox."""

UNIT_DIRECTORIES = (
    "etc/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
)
GENERATOR_DIRECTORIES = ("usr/local/lib/systemd/system-generators", "usr/lib/systemd/system-generators")

SUFFIXES = {".path", ".service", ".slice", ".socket", ".target", ".timer"}

STARTED = {
    "dbus.service",
    "dbus.socket",
    "systemd-journald-dev-log.socket",
    "systemd-journald.service",
    "systemd-journald.socket",
    "systemd-tmpfiles-setup.service",
}
"""Of what the distribution starts at boot, only this; all the rest is masked, whatever it is."""

ON_DEMAND = ("systemd-logind.service", "systemd-networkd.service", "systemd-resolved.service", "systemd-udevd.service")
"""Masked too: D-Bus or a device would start them, and they would rule the sandbox's network and terminals."""

FILES = {
    "journald.conf": """[Journal]
Storage=volatile
RateLimitIntervalSec=0
RateLimitBurst=0
ForwardToSyslog=no
ReadKMsg=no
Audit=no
""",
    "system.conf": """[Manager]
ShowStatus=no
""",
    f"system/{TARGET}": f"""[Unit]
Description=placemat sandbox
Requires=basic.target
After=basic.target
Wants=dbus.service {COMMANDS}
AllowIsolate=yes
""",
    f"system/{COMMANDS}": """[Unit]
Description=Commands that people run in this sandbox

[Service]
Type=exec
ExecStart=/bin/sleep infinity
Delegate=yes
""",
    # --create alone: the stock unit's --remove empties /tmp, in which the caller's own directory may be mounted.
    "system/systemd-tmpfiles-setup.service": """[Unit]
Description=Create Volatile Files and Directories
DefaultDependencies=no
After=local-fs.target
Before=sysinit.target shutdown.target
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=systemd-tmpfiles --create --boot --prefix=/run --prefix=/var/log --prefix=/var/lib/systemd
SuccessExitStatus=DATAERR CANTCREAT
""",
    # Lowering the score takes a capability that a container or user namespace may lack.
    "system/dbus.service.d/placemat.conf": "[Service]\nOOMScoreAdjust=\n",
    "system/systemd-journald.service.d/placemat.conf": "[Service]\nOOMScoreAdjust=\n",
}


def write(root: Path, spec: Spec) -> None:
    """Replace /etc/systemd of the new root: what the machine enables there is not for the sandbox."""
    installed = _placemat_units(root, spec)
    (root / "etc/systemd").mkdir(parents=True, exist_ok=True)
    systemd = root / "etc/systemd"
    mount("tmpfs", str(systemd), "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755")
    for name, text in FILES.items():
        _write(systemd / name, text)
    for name in sorted({*started_at_boot(root), *ON_DEMAND}):
        _mask(systemd / "system" / name)
    for name in sorted(_generators(root)):
        _mask(systemd / "system-generators" / name)
    for name, text in installed.items():
        _write(systemd / "system" / name, text)
    # ProtectHome= would hide a clone below /home or /root from its own service.
    cli = Path(spec.placematd).with_name("placemat-cli")
    override = f"[Service]\nExecStart=\nExecStart={spec.placematd} %i\nExecReload=\nExecReload={cli} reload %i\n"
    _write(systemd / "system/placemat@.service.d/sandbox.conf", override + "ProtectHome=no\n")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _mask(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.symlink_to("/dev/null")


def started_at_boot(root: Path) -> set[str]:
    """Names in the .wants and .requires directories of the distribution's targets."""
    directories = (root / name for name in UNIT_DIRECTORIES[1:])
    links = (link for directory in directories for link in directory.glob("*.target.[wr]*s/*"))
    return {link.name for link in links if link.suffix != ".target"} - STARTED


def _generators(root: Path) -> set[str]:
    return {file.name for name in GENERATOR_DIRECTORIES for file in (root / name).glob("*")}


def _placemat_units(root: Path, spec: Spec) -> dict[str, str]:
    """placemat's unit files: of the clone that runs this, else those installed in /etc (others stay in place)."""
    clone = Path(spec.units)
    sources = clone if (clone / "placemat@.service").is_file() else root / UNIT_DIRECTORIES[0]
    return {file.name: file.read_text() for file in sources.glob("placemat*.*") if file.suffix in SUFFIXES}


def systemd() -> str | None:
    """The system's service manager."""
    return next((path for path in ("/lib/systemd/systemd", "/usr/lib/systemd/systemd") if shutil.which(path)), None)
