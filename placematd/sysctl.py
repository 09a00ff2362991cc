"""Kernel parameters (sysctl(8)): set in the calling thread's network namespace; on the host recorded and restored too.

A parameter of the host belongs to nobody, and several clusters may need the same. So each has a record in
RUN/sysctl/NAME.json:

    {"original": "0", "value": "1", "holders": {"CLUSTER": "MARK"}}

It is written before the parameter is changed and removed after it is restored, so that a crash in between is repaired
by doing the same again. The last holder restores the original, unless somebody changed the value in the meantime.
`original` is null on a kernel that has no such parameter because it has no IPv6.
"""

import errno
import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from urllib.parse import quote, unquote

from .errors import NotOurs, StepError
from .names import OwnerMark
from .resources import Kind, Sysctl

PROC_SYS = Path("/proc/sys")
UNSET = "0" * 12
"""Digest reported for a parameter that we hold and that does not have our value, so that it is set again."""


def sysctl_path(name: str, proc_sys: Path = PROC_SYS) -> Path:
    """The file behind a parameter's name.

    As in sysctl.d(5), the first separator decides: "net.ipv4.ip_forward", or "net/ipv4/conf/eth0.5/rp_filter", where a
    dot is part of a link's name. Raises StepError on a name that would lead out of /proc/sys.
    """
    dot, slash = name.find("."), name.find("/")
    parts = name.translate(str.maketrans("./", "/.")) if dot >= 0 and (slash < 0 or dot < slash) else name
    path = proc_sys / parts.lstrip("/")
    if ".." in path.parts or path == proc_sys:
        raise StepError(f"set sysctl {name}", "not the name of a kernel parameter", "such as net.ipv4.ip_forward")
    return path


def read_sysctl(name: str, proc_sys: Path = PROC_SYS) -> str | None:
    """The value, blanks normalised; None where the kernel has no such parameter."""
    try:
        return _normal(sysctl_path(name, proc_sys).read_text())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StepError(f"read sysctl {name}", error.strerror or str(error)) from error


def write_sysctl(name: str, value: str, proc_sys: Path = PROC_SYS) -> None:
    """Set a parameter; one that has the value already is not written, which may be forbidden in a container.

    A net.ipv6 parameter on a kernel without IPv6 is skipped: there is nothing that it could be wrong about. Raises
    StepError.
    """
    current = read_sysctl(name, proc_sys)
    if current == _normal(value) or (current is None and _lacks_ipv6(name, proc_sys)):
        return
    try:
        sysctl_path(name, proc_sys).write_text(value)
    except OSError as error:
        raise StepError(f"set sysctl {name} = {value}", error.strerror or str(error), _hint(error)) from error


def _normal(value: str) -> str:
    return " ".join(value.split())


def _lacks_ipv6(name: str, proc_sys: Path) -> bool:
    ipv6 = sysctl_path("net.ipv6", proc_sys)
    return sysctl_path(name, proc_sys).is_relative_to(ipv6) and not ipv6.exists()


def _hint(error: OSError) -> str:
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return (
            "/proc/sys is read-only here: run the container privileged, set it on the host, or use placemat-cli sandbox"
        )
    if error.errno == errno.ENOENT:
        return "the kernel has no such parameter: is a module missing, or the name misspelt?"
    if error.errno == errno.EINVAL:
        return "the kernel does not take this value"
    return ""


@dataclass(frozen=True)
class _Record:
    original: str | None
    value: str
    holders: dict[str, str] = field(default_factory=dict)

    def held_by(self, cluster: str) -> OwnerMark | None:
        return OwnerMark.parse(self.holders.get(cluster, ""))


class Sysctls:
    """Adapter for the host's kernel parameters. See `adapter.Adapter`; the records are below `run_dir`."""

    kind: Kind = "sysctl"

    def __init__(self, run_dir: Path = Path("/run/placemat"), proc_sys: Path = PROC_SYS) -> None:
        self._directory = run_dir / "sysctl"
        self._proc_sys = proc_sys

    def observe(self, cluster: str) -> Sequence[OwnerMark]:
        """The marks of the parameters that the cluster holds; one that lost its value has a digest of zeros."""
        names = sorted(unquote(path.name.removesuffix(".json")) for path in self._directory.glob("*.json"))
        records = [record for name in names if (record := self._load(name))]
        return [self._as_it_is(mark, record) for record in records if (mark := record.held_by(cluster))]

    def _as_it_is(self, mark: OwnerMark, record: _Record) -> OwnerMark:
        current = read_sysctl(mark.name, self._proc_sys)
        return mark if current in (None, _normal(record.value)) else replace(mark, digest=UNSET)

    def create(self, resource: Sysctl, cluster: str) -> None:
        """Record who holds it and what it was, then set it.

        Raises NotOurs where another cluster holds it at a different value.
        """
        mark = resource.mark(cluster)
        with self._locked(f"set sysctl {resource.name}"):
            before = self._load(resource.name)
            record = before or _Record(read_sysctl(resource.name, self._proc_sys), resource.value)
            others = sorted(set(record.holders) - {cluster})
            if others and record.value != resource.value:
                answer = f"placemat cluster {', '.join(others)} needs {record.value}"
                raise NotOurs(f"set sysctl {resource.name} = {resource.value}", answer, "stop one of the clusters")
            holders = {**record.holders, cluster: str(mark)}
            self._save(resource.name, _Record(record.original, resource.value, holders))
            try:
                write_sysctl(resource.name, resource.value, self._proc_sys)
            except BaseException:
                self._put_back(resource.name, before)
                raise

    def remove(self, mark: OwnerMark) -> None:
        """Let go of it; the last holder restores the original."""
        with self._locked(f"restore sysctl {mark.name}"):
            record = self._load(mark.name)
            if record is None or mark.cluster not in record.holders:
                return
            holders = {cluster: text for cluster, text in record.holders.items() if cluster != mark.cluster}
            if holders:
                self._save(mark.name, replace(record, holders=holders))
                return
            untouched = read_sysctl(mark.name, self._proc_sys) == _normal(record.value)
            if record.original is not None and untouched:
                write_sysctl(mark.name, record.original, self._proc_sys)
            self._put_back(mark.name, None)

    # -- records

    def _path(self, name: str) -> Path:
        return self._directory / f"{quote(name, safe='')}.json"

    def _load(self, name: str) -> _Record | None:
        path = self._path(name)
        try:
            content = json.loads(path.read_text())
            return _Record(content["original"], content["value"], dict(content["holders"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            hint = f"it says what to restore; set the parameter yourself and remove the file: rm {path}"
            raise StepError(f"read {path}", str(error), hint) from error

    def _save(self, name: str, record: _Record) -> None:
        path = self._path(name)
        temporary = path.with_suffix(".new")
        try:
            temporary.write_text(json.dumps(asdict(record)) + "\n")
            temporary.replace(path)
        except OSError as error:
            raise StepError(f"write {path}", error.strerror or str(error)) from error

    def _put_back(self, name: str, record: _Record | None) -> None:
        if record is None:
            self._path(name).unlink(missing_ok=True)
        else:
            self._save(name, record)

    @contextmanager
    def _locked(self, step: str) -> Iterator[None]:
        """One placematd at a time: clusters are separate processes."""
        try:
            self._directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise StepError(step, f"{self._directory}: {error.strerror}", "root is needed") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
