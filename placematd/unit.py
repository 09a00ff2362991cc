"""Transient systemd units as records: what `plan` decides and `systemd` starts over D-Bus.

Properties carry the names that StartTransientUnit takes (org.freedesktop.systemd1(5)); `SIGNATURES` has their D-Bus
types. A property that is not in the table is an error at planning time, not on the bus.
"""

import shlex
from dataclasses import dataclass
from typing import Union

Value = Union[str, bool, int, tuple["Value", ...]]
Property = tuple[str, Value]

# Property -> D-Bus signature, for what our units use (introspect org.freedesktop.systemd1.Service and .Socket).
SIGNATURES = {
    "After": "as",
    "AmbientCapabilities": "t",
    "BindPaths": "a(ssbt)",
    "BindReadOnlyPaths": "a(ssbt)",
    "BindsTo": "as",
    "CapabilityBoundingSet": "t",
    "CollectMode": "s",
    "Description": "s",
    "DeviceAllow": "a(ss)",
    "DevicePolicy": "s",
    "DynamicUser": "b",
    "Environment": "as",
    "ExecStart": "a(sasb)",
    "ExecStartPre": "a(sasb)",
    "ExecStopPost": "a(sasb)",
    "Group": "s",
    "KillMode": "s",
    "LimitNOFILE": "t",
    "LoadCredential": "a(ss)",
    "LockPersonality": "b",
    "LogExtraFields": "aay",
    "LogRateLimitIntervalUSec": "t",
    "MemoryDenyWriteExecute": "b",
    "NetworkNamespacePath": "s",
    "NoNewPrivileges": "b",
    "PrivateDevices": "b",
    "PrivateNetwork": "b",
    "PrivateTmp": "b",
    "ProtectClock": "b",
    "ProtectControlGroups": "b",
    "ProtectHome": "s",
    "ProtectHostname": "b",
    "ProtectKernelLogs": "b",
    "ProtectKernelModules": "b",
    "ProtectKernelTunables": "b",
    "ProtectProc": "s",
    "ProtectSystem": "s",
    "ReadOnlyPaths": "as",
    "ReadWritePaths": "as",
    "RemainAfterExit": "b",
    "Requires": "as",
    "Restart": "s",
    "RestartUSec": "t",
    "RestrictAddressFamilies": "(bas)",
    "RestrictNamespaces": "t",
    "RestrictRealtime": "b",
    "RestrictSUIDSGID": "b",
    "RuntimeDirectory": "as",
    "RuntimeDirectoryMode": "u",
    "Slice": "s",
    "StandardError": "s",
    "StandardInput": "s",
    "StandardInputData": "ay",
    "StandardOutput": "s",
    "StartLimitBurst": "u",
    "StartLimitIntervalUSec": "t",
    "SupplementaryGroups": "as",
    "SyslogIdentifier": "s",
    "SystemCallArchitectures": "as",
    "SystemCallFilter": "(bas)",
    "TemporaryFileSystem": "a(ss)",
    "TimeoutStartUSec": "t",
    "TimeoutStopUSec": "t",
    "Type": "s",
    "UMask": "u",
    "User": "s",
    "WorkingDirectory": "s",
    # sockets
    "BindIPv6Only": "s",
    "FreeBind": "b",
    "Listen": "a(ss)",
    "RemoveOnStop": "b",
    "SocketGroup": "s",
    "SocketMode": "u",
    "SocketUser": "s",
    "TriggerLimitIntervalUSec": "t",
}


@dataclass(frozen=True)
class Unit:
    """One transient unit; `auxiliaries` are units made in the same call (a socket and its service)."""

    name: str
    properties: tuple[Property, ...]
    auxiliaries: tuple["Unit", ...] = ()

    def __post_init__(self) -> None:
        unknown = [name for name, _ in self.properties if name not in SIGNATURES]
        if unknown:
            raise ValueError(f"{self.name}: no D-Bus signature known for {', '.join(unknown)}")
        for name, value in self.properties:
            try:
                native(SIGNATURES[name], value)
            except ValueError as error:
                raise ValueError(f"{self.name}: {name}={value!r}: {error}") from error

    def get(self, name: str) -> Value | None:
        """The value of a property, or None where the unit does not set it."""
        return next((value for key, value in self.properties if key == name), None)


Native = Union[str, bytes, bool, int, list["Native"], tuple["Native", ...]]
INTEGER_BITS = {"y": (0, 8), "n": (1, 16), "q": (0, 16), "i": (1, 32), "u": (0, 32), "x": (1, 64), "t": (0, 64)}
"""D-Bus integer type -> (1 if signed, width)."""


def native(signature: str, value: Value) -> Native:
    """A property's value in the shape that a D-Bus library takes: arrays as lists, structs as tuples, "ay" as bytes.

    Strict, because libraries are not: they take "abc" for an array of three strings and True for a number. Raises
    ValueError where the value does not have the type of the signature.
    """
    kind = signature[0]
    if kind == "s" and isinstance(value, str):
        return value
    if kind == "b" and isinstance(value, bool):
        return value
    if kind in INTEGER_BITS and isinstance(value, int) and not isinstance(value, bool):
        signed, width = INTEGER_BITS[kind]
        if -(signed << (width - 1)) <= value < 1 << (width - signed):
            return value
    if signature == "ay" and isinstance(value, str):
        return value.encode()
    if kind == "a" and isinstance(value, tuple):
        return [native(signature[1:], item) for item in value]
    if kind == "(" and isinstance(value, tuple):
        return tuple(native(part, item) for part, item in zip(split_types(signature[1:-1]), value, strict=True))
    raise ValueError(f"{value!r} does not fit D-Bus type {signature}")


def split_types(signature: str) -> list[str]:
    """The complete types that a signature consists of: "sa(ss)b" is "s", "a(ss)", "b"."""
    types, start, depth = [], 0, 0
    for index, character in enumerate(signature):
        depth += (character == "(") - (character == ")")
        if depth == 0 and character != "a":
            types.append(signature[start : index + 1])
            start = index + 1
    return types


def command(*argv: str, ignore_failure: bool = False) -> tuple[Value, ...]:
    """One element of ExecStart and its like: (path, argv, ignore failure).

    argv[0] must be an absolute path, or a bare name that systemd looks up when it starts the unit. Dollar signs are
    doubled, because systemd replaces variables even in what comes over D-Bus (systemd.service(5), command lines).
    """
    if "/" in argv[0] and not argv[0].startswith("/"):
        raise ValueError(f"{argv[0]}: the program of a unit must be an absolute path or a bare name")
    return (argv[0], tuple(word.replace("$", "$$") for word in argv), ignore_failure)


def exec_argv(unit: Unit) -> tuple[str, ...]:
    """The argv that a unit's (first) ExecStart runs."""
    exec_start = unit.get("ExecStart")
    if not isinstance(exec_start, tuple) or not exec_start or not isinstance(exec_start[0], tuple):
        return ()
    argv = exec_start[0][1]
    return tuple(str(word).replace("$$", "$") for word in argv) if isinstance(argv, tuple) else ()


def shell_line(argv: tuple[str, ...]) -> str:
    """argv as a line that a person can paste into a shell."""
    return shlex.join(argv)
