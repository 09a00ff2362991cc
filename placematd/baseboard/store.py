"""What a BMC's side of a node remembers: one file per node, DATA/CLUSTER/bmc/NODE.json, for root alone.

It outlives the BMC's process, placematd and the host's power. Passwords of accounts lie in it (section "accounts"), so
that directory and file are closed to everybody else.
"""

import asyncio
import json
import logging
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, get_args

from ..atomic import replacing, sync
from ..bmc.machine import (
    BootEnabled,
    BootMode,
    BootOverride,
    BootTarget,
    Firmware,
    Json,
    RestartCause,
    SelEntry,
    Watchdog,
)
from ..bmc.sensors import EVENT_BYTES, UNTIMED_BYTES
from ..errors import PlacematError, StepError

log = logging.getLogger("placematd")

FORMAT = 1
EVENT_SIZES = (EVENT_BYTES, UNTIMED_BYTES)
SECTIONS = 32
SECTION_BYTES = 256 << 10
FILE_BYTES = 16 << 20
SECTION_NAME = re.compile(r"[a-z0-9-]{1,32}")

Record = TypeVar("Record", BootOverride, Firmware, Watchdog, "StoredMedia")


@dataclass(frozen=True, kw_only=True)
class StoredMedia:
    """What is in a virtual media slot: `image` as it was asked for, and the file that holds it."""

    image: str
    path: str
    downloaded: bool = False


@dataclass(frozen=True, kw_only=True)
class State:
    """All that is remembered. Times are seconds since the epoch, 0 for none."""

    boot: BootOverride = BootOverride()
    disordered: bool = False
    """UEFI firmware booted with an override, which it keeps in its variables: from then on it must be told an order at
    each boot. Without one it would take what it was told last, or PXE, whichever it finds first."""
    restart_cause: RestartCause = "unknown"
    sel: tuple[SelEntry, ...] = ()
    sel_last: int = 0
    sel_full: bool = False
    """Whether entries were dropped since the log was cleared."""
    watchdog: Watchdog = Watchdog()
    watchdog_ends: float = 0.0
    power_on_seconds: float = 0.0
    """Up to `counted_at`, which is 0 while the node is off."""
    counted_at: float = 0.0
    running: Firmware | None = None
    """What the QEMU that runs was started with."""
    chosen: Firmware | None = None
    """The settings in force; None for those of the cluster file."""
    pending: Firmware | None = None
    """The settings from the next start on."""
    media: Mapping[str, StoredMedia] = field(default_factory=dict)
    sections: Mapping[str, Json] = field(default_factory=dict)


class Store:
    """The file of one node. Changes are made in `state`, in the event loop; `commit` makes them durable."""

    def __init__(self, path: Path, state: State) -> None:
        self.path, self.state = path, state
        self._saved = state
        self._number = self._written = 0
        self._one_writer = threading.Lock()
        self._queue = asyncio.Lock()

    @classmethod
    async def open(cls, path: Path) -> "Store":
        """Read what is remembered; nothing where there is no file. Raises StepError where the system refuses."""
        return cls(path, await asyncio.to_thread(read, path))

    def change(self, **changes: Any) -> None:
        """Replace fields of the state; durable with the next `commit`."""
        self.state = replace(self.state, **changes)

    async def commit(self) -> None:
        """Return when all changes so far are on the disk; those of many callers go in one write. Raises StepError."""
        async with self._queue:
            state = self.state
            if state is not self._saved:
                self._number += 1
                await asyncio.to_thread(self._write, self._number, encode(state))
                self._saved = state

    def section(self, name: str) -> Json:
        """A copy of a section; {} where it was never saved."""
        value: Json = json.loads(json.dumps(self.state.sections.get(_checked_name(name), {})))
        return value

    def set_section(self, name: str, value: Mapping[str, Any]) -> None:
        """Replace a section. Raises PlacematError on a name or size that cannot be, or what is not JSON."""
        try:
            text = json.dumps(dict(value), allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise PlacematError(f"section {name}: not JSON ({error})") from None
        if len(text) > SECTION_BYTES:
            raise PlacematError(f"section {name}: {len(text)} bytes, more than {SECTION_BYTES}")
        sections = {**self.state.sections, _checked_name(name): json.loads(text)}
        if len(sections) > SECTIONS:
            raise PlacematError(f"section {name}: more than {SECTIONS} sections")
        self.change(sections=sections)

    def _write(self, number: int, text: str) -> None:
        """In a thread. A cancelled `commit` leaves its thread behind, so that an older text may come after a newer."""
        with self._one_writer:
            if number > self._written:
                try:
                    _write(self.path, text)
                except OSError as error:
                    raise StepError(f"write {self.path}", error.strerror or str(error)) from error
                self._written = number


def _checked_name(name: str) -> str:
    if not SECTION_NAME.fullmatch(name):
        raise PlacematError(f"section {name[:40]!r}: expected a word of small letters, digits and dashes")
    return name


def private_directory(path: Path) -> None:
    """Make a directory that only root may enter. Raises OSError."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)


def _write(path: Path, text: str) -> None:
    private_directory(path.parent)
    with replacing(path) as part:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)


def read(path: Path) -> State:
    """What a file says. One that is damaged is set aside as NAME.damaged, with a warning, and counts as none.

    Raises StepError where the system refuses.
    """
    try:
        with path.open("rb") as file:
            text = file.read(FILE_BYTES + 1)
    except FileNotFoundError:
        return State()
    except OSError as error:
        raise StepError(f"read {path}", error.strerror or str(error)) from error
    try:
        return decode(text)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        aside = path.with_name(f"{path.name}.damaged")
        log.warning("%s is damaged (%s): kept as %s, and begun anew", path, error, aside.name)
        path.replace(aside)
        sync(path.parent)
        return State()


# -- the file's form ----------------------------------------------------------------------------------------------


def encode(state: State) -> str:
    """The text of the file."""
    # asdict would copy every entry of the log by recursion, which takes longer than the disk does.
    shallow = {item.name: getattr(state, item.name) for item in fields(state)}
    return json.dumps({"format": FORMAT, **shallow}, default=_plain, separators=(",", ":")) + "\n"


def _plain(value: object) -> Json | list[object]:
    match value:
        case SelEntry():
            return [value.record_id, value.time.isoformat(), value.data.hex(), value.message, value.severity]
        case BootOverride() | Firmware() | Watchdog() | StoredMedia():
            return asdict(value)
    raise TypeError(f"{type(value).__name__} cannot be stored")


def decode(text: bytes) -> State:
    """The state in a file. Raises ValueError, TypeError, KeyError or AttributeError on what `encode` cannot write."""
    value = json.loads(text)
    if value["format"] != FORMAT:
        raise ValueError(f"format {value['format']}")
    watchdog = _record(Watchdog, value["watchdog"])
    return State(
        boot=_boot(value["boot"]),
        disordered=bool(value["disordered"]),
        restart_cause=_one_of(RestartCause, value["restart_cause"]),
        sel=tuple(map(_entry, value["sel"])),
        sel_last=int(value["sel_last"]),
        sel_full=bool(value["sel_full"]),
        watchdog=replace(watchdog, initial=int(watchdog.initial), present=int(watchdog.present)),
        watchdog_ends=float(value["watchdog_ends"]),
        power_on_seconds=float(value["power_on_seconds"]),
        counted_at=float(value["counted_at"]),
        running=_firmware(value["running"]),
        chosen=_firmware(value["chosen"]),
        pending=_firmware(value["pending"]),
        media={str(slot): _record(StoredMedia, media) for slot, media in value["media"].items()},
        sections={str(name): dict(section) for name, section in value["sections"].items()},
    )


def _record(kind: type[Record], value: Mapping[str, Any]) -> Record:
    """A record of the fields that this version knows."""
    known = {item.name for item in fields(kind)}
    return kind(**{name: item for name, item in value.items() if name in known})


def _one_of(kind: Any, value: object) -> Any:
    if value not in get_args(kind):
        raise ValueError(f"{value!r} is none of {', '.join(get_args(kind))}")
    return value


def _boot(value: Mapping[str, Any]) -> BootOverride:
    boot = _record(BootOverride, value)
    _one_of(BootEnabled, boot.enabled)
    _one_of(BootTarget, boot.target)
    if boot.mode is not None:
        _one_of(BootMode, boot.mode)
    return boot


def _firmware(value: Mapping[str, Any] | None) -> Firmware | None:
    if value is None:
        return None
    firmware = _record(Firmware, value)
    _one_of(BootMode, firmware.boot_mode)
    return replace(firmware, tpm=bool(firmware.tpm), secure_boot=bool(firmware.secure_boot))


def _entry(value: list[Any]) -> SelEntry:
    record_id, time, data, message, severity = value
    entry = SelEntry(
        record_id=int(record_id),
        time=datetime.fromisoformat(time).astimezone(UTC),
        data=bytes.fromhex(data),
        message=str(message),
        severity=_one_of(SelEntry.__annotations__["severity"], severity),
    )
    if len(entry.data) not in EVENT_SIZES:
        raise ValueError(f"entry {record_id} of the log has {len(entry.data)} bytes")
    return entry
