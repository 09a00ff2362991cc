"""What a BMC knows of its machine: the records and the one Protocol between protocol servers and placematd.

IPMI and Redfish are two views of the same `Machine`. Whatever must outlive the BMC's process (boot override, SEL,
accounts, watchdog, settings) is kept by the machine's side; a call that returned has been made durable.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol
from uuid import UUID

PowerState = Literal["On", "Off", "PoweringOn", "PoweringOff"]
PowerAction = Literal["on", "off", "soft-off", "cycle", "reset", "soft-reset", "nmi"]
"""on and off are no errors where the machine is in that state already; soft-off is the ACPI power button, soft-reset
the same followed by a start; cycle is off, then on; reset keeps power."""

RestartCause = Literal["unknown", "chassis-control", "reset-button", "power-button", "watchdog", "soft-reset"]

BootEnabled = Literal["Disabled", "Once", "Continuous"]
BootTarget = Literal["None", "Pxe", "Hdd", "Cd"]
"""What the firmware can be told to boot from. Nothing else is offered, because nothing else would come true."""

BootMode = Literal["Legacy", "UEFI"]

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class BootOverride:
    """Where the machine boots from instead of its own order: the next time only (Once) or until it is disabled."""

    enabled: BootEnabled = "Disabled"
    target: BootTarget = "None"
    mode: BootMode | None = None
    """Firmware to boot with; None for that of the machine's own settings."""


@dataclass(frozen=True, kw_only=True)
class Nic:
    """A network interface as the guest has it; `mac` in lower case with colons."""

    name: str
    mac: str
    network: str
    mtu: int


@dataclass(frozen=True, kw_only=True)
class Disk:
    """A volume as the guest has it; `capacity_bytes` is the virtual size, 0 where it is not known."""

    name: str
    device: str
    capacity_bytes: int
    format: str
    read_only: bool = False


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """What the machine is, the same as its SMBIOS tables tell the guest."""

    cluster: str
    node: str
    manufacturer: str
    product: str
    serial: str
    uuid: UUID
    bios_version: str
    boot_mode: BootMode
    """Firmware of the machine as it runs, or as it would start now."""
    cpu_model: str
    cpu_sockets: int
    cpu_cores: int
    cpu_threads: int
    memory_mib: int
    tpm: bool
    secure_boot: bool = False
    """Whether that firmware starts signed programs only."""
    nics: Sequence[Nic] = ()
    disks: Sequence[Disk] = ()


@dataclass(frozen=True, kw_only=True)
class Firmware:
    """Settings of the firmware that people may change; they count from the next start of the machine."""

    boot_mode: BootMode
    tpm: bool
    secure_boot: bool = False
    """Never with the boot mode Legacy."""


@dataclass(frozen=True, kw_only=True)
class FirmwareOffer:
    """What this host has firmware for."""

    boot_modes: Sequence[BootMode]
    secure_boot: bool = False
    """Whether its UEFI firmware can do Secure Boot."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What this BMC may be and do, as the cluster file says."""

    ipmi: bool = True
    """Whether the BMC speaks IPMI, over the network and to the guest."""
    address: str = ""
    """The BMC's own address."""
    network: str = ""
    """The interface of its subnet, as "172.16.1.2/24"."""
    mac: str = ""
    """The MAC of the bridge that answers ARP for the address."""


@dataclass(frozen=True, kw_only=True)
class Health:
    """Live readings; those of a machine that is off are 0, except the inlet temperature."""

    cpu_load_percent: float
    memory_used_mib: int
    inlet_celsius: float
    power_watts: float


@dataclass(frozen=True, kw_only=True)
class SelEntry:
    """One event of the system event log; `record_id` counts from 1 and is never used twice until the log is cleared.

    `data` is the 16-byte IPMI SEL record without its record id and time stamp (IPMI 2.0 section 32.1: record type,
    generator id, EvM revision, sensor type, sensor number, event type, event data 1-3), `message` says the same in
    words for Redfish.
    """

    record_id: int
    time: datetime
    data: bytes
    message: str
    severity: Literal["OK", "Warning", "Critical"] = "OK"


@dataclass(frozen=True, kw_only=True)
class Watchdog:
    """The watchdog timer (IPMI 2.0 section 27), run by the machine's side: a crash of the BMC stops nothing.

    Intervals are in 100 ms, as IPMI counts. `flags` are the expiration flags (timer use bit mask).
    """

    running: bool = False
    use: int = 0
    dont_log: bool = False
    action: Literal["none", "reset", "off", "cycle"] = "none"
    pre_timeout_seconds: int = 0
    pre_timeout_action: Literal["none", "nmi"] = "none"
    initial: int = 0
    present: int = 0
    flags: int = 0


@dataclass(frozen=True, kw_only=True)
class Media:
    """A virtual media slot ("Cd"): `image` is what was inserted, "" where it is empty; `task` is set while it loads."""

    slot: str
    image: str = ""
    inserted: bool = False
    write_protected: bool = True


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a long operation is; bytes, `total` None where nobody said."""

    done: int
    total: int | None


@dataclass(frozen=True, kw_only=True)
class MachineEvent:
    """Something that changed: power ("On"), boot, sel (the new entry's record id), media or address."""

    kind: Literal["power", "boot", "sel", "media", "firmware"]
    value: str


@dataclass(frozen=True, kw_only=True)
class Login:
    """Who logged in to the BMC, and from where ("172.16.0.1:40000")."""

    user: str
    protocol: Literal["IPMI", "Redfish"]
    remote: str


class ConsoleStream(Protocol):
    """A duplex byte stream to the machine's serial console, shared with everybody else who watches it."""

    async def read(self) -> bytes:
        """The next bytes; b"" when the console has ended."""
        ...

    async def write(self, data: bytes) -> None:
        """Type."""
        ...

    async def close(self) -> None:
        """Leave; the console goes on."""
        ...


class Machine(Protocol):
    """One node, as its BMC sees it. Every method may raise PlacematError with a text fit for a client."""

    async def inventory(self) -> Inventory:
        """What the machine is."""
        ...

    async def health(self) -> Health:
        """Live readings."""
        ...

    async def power_state(self) -> PowerState:
        """Whether there is power; the truth at this moment, never a memory."""
        ...

    async def power(self, action: PowerAction, cause: RestartCause = "chassis-control") -> None:
        """Switch; returns when the action was begun for good, not when the guest has finished."""
        ...

    async def restart_cause(self) -> RestartCause:
        """Why the machine started last."""
        ...

    async def power_on_hours(self) -> float:
        """Hours that the machine has had power, over all starts."""
        ...

    async def boot(self) -> BootOverride:
        """The boot override as it stands; Once is Disabled again after the boot that used it."""
        ...

    async def set_boot(self, override: BootOverride) -> None:
        """Change the boot override."""
        ...

    async def sel(self) -> Sequence[SelEntry]:
        """The system event log, oldest first; power, boot and watchdog events are in it by themselves."""
        ...

    async def add_sel(self, data: bytes, message: str, severity: str = "OK") -> int:
        """Append to the log; returns the record id."""
        ...

    async def clear_sel(self) -> None:
        """Empty the log."""
        ...

    async def watchdog(self) -> Watchdog:
        """The watchdog with its present countdown."""
        ...

    async def set_watchdog(self, watchdog: Watchdog) -> None:
        """Set, start, restart (`present` equal to `initial`) or stop the watchdog."""
        ...

    async def firmware(self) -> tuple[Firmware, Firmware, FirmwareOffer]:
        """Settings in force, settings from the next start on, and what this host can offer."""
        ...

    async def set_firmware(self, firmware: Firmware) -> None:
        """Change the settings from the next start on; refused (PlacematError) where the host lacks what it takes."""
        ...

    async def limits(self) -> Limits:
        """What the cluster file says about this BMC."""
        ...

    async def identify(self, seconds: float | None) -> None:
        """Light the chassis' identify LED: for so long, for ever (None), or not any more (0)."""
        ...

    async def identifying(self) -> bool:
        """Whether the LED is lit."""
        ...

    async def logged_in(self, login: Login) -> None:
        """Tell that somebody logged in, for people who ask who was there last; not durable."""
        ...

    async def console(self) -> ConsoleStream:
        """Open the serial console."""
        ...

    async def media(self) -> Sequence[Media]:
        """The virtual media slots."""
        ...

    def insert_media(self, slot: str, image: str, write_protected: bool = True) -> AsyncIterator[Progress]:
        """Load an image (http(s) URL, or a path below the folder that the cluster allows) and insert it."""
        ...

    async def eject_media(self, slot: str) -> None:
        """Take the image out; an empty slot is no error."""
        ...

    async def load(self, section: str) -> Json:
        """A section of the BMC's own durable settings ("accounts", "lan", "redfish", ...); {} where never saved."""
        ...

    async def save(self, section: str, value: Mapping[str, Any]) -> None:
        """Replace a section, durably."""
        ...

    def events(self) -> AsyncIterator[MachineEvent]:
        """What changes from now on, for ever."""
        ...
