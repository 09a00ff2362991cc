"""Units in the form of unit files, for people: systemd.unit(5) names and values instead of those of D-Bus."""

import shlex
from collections.abc import Callable, Iterator

from .unit import SIGNATURES, Property, Unit, Value, exec_argv

WIDTH = 100
"""A command line longer than this gets a line per option."""

UNIT_SECTION = frozenset(
    {"After", "BindsTo", "CollectMode", "Description", "Requires", "StartLimitBurst", "StartLimitIntervalUSec"}
)
OCTAL = frozenset({"RuntimeDirectoryMode", "SocketMode", "UMask"})

CAPABILITIES = {
    0: "CAP_CHOWN",
    1: "CAP_DAC_OVERRIDE",
    2: "CAP_DAC_READ_SEARCH",
    3: "CAP_FOWNER",
    4: "CAP_FSETID",
    22: "CAP_SYS_BOOT",
}
"""Bit -> name, of the capabilities that our units give or take away one by one (linux/capability.h)."""


def unit_file(unit: Unit, shown: Callable[[str], bool] = lambda _: True) -> Iterator[str]:
    """The lines of a unit's file, of the properties that are `shown`."""
    kind = unit.name.rpartition(".")[2].capitalize()
    for section, names in (("Unit", UNIT_SECTION), (kind, SIGNATURES.keys() - UNIT_SECTION)):
        lines = [line for item in unit.properties if item[0] in names and shown(item[0]) for line in _lines(unit, item)]
        if lines:
            yield from (f"[{section}]", *lines)


def command_lines(argv: tuple[str, ...]) -> list[str]:
    """argv for a shell, as one line or, where that is long, a line per option with its value."""
    line = shlex.join(argv)
    if len(line) <= WIDTH:
        return [line]
    options: list[list[str]] = []
    for word in argv:
        if not options or word.startswith("-"):
            options.append([])
        options[-1].append(word)
    first, *rest = (shlex.join(option) for option in options)
    return [f"{first} \\", *(f"    {option} \\" for option in rest[:-1]), f"    {rest[-1]}"] if rest else [first]


def _lines(unit: Unit, item: Property) -> list[str]:
    name, value = item
    if name == "ExecStart":
        argvs = [exec_argv(Unit(unit.name, ((name, (command,)),))) for command in _items(value)]
        return [line for argv in argvs for line in _prefixed("ExecStart=", command_lines(argv))]
    if name == "Listen":
        return [f"Listen{kind}={address}" for kind, address in map(_items, _items(value))]
    if name == "Environment":
        return [f"Environment={shlex.quote(str(assignment))}" for assignment in _items(value)]
    if name == "DeviceAllow":
        return [f"DeviceAllow={device} {rights}" for device, rights in map(_items, _items(value))]
    return [f"{name.replace('USec', 'Sec')}={_text(name, value)}"] if value != () else []


def _prefixed(prefix: str, lines: list[str]) -> list[str]:
    return [prefix + lines[0], *lines[1:]]


def _text(name: str, value: Value) -> str:
    """A value as systemd.exec(5) and its like write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name.endswith("USec"):
        return f"{_number(value) / 1_000_000:g}s"
    if name in OCTAL:
        return f"{_number(value):04o}"
    if name in ("AmbientCapabilities", "CapabilityBoundingSet"):
        return _capabilities(_number(value))
    if name == "RestrictNamespaces":
        return "yes" if value == 0 else str(value)
    match SIGNATURES[name]:
        case "(bas)":
            allowed, words = _items(value)
            return ("" if allowed else "~") + " ".join(map(str, _items(words)))
        case "a(ssbt)":
            return " ".join(_binding(element) for element in _items(value))
        case "a(ss)":
            return " ".join(":".join(map(str, _items(element))) for element in _items(value))
        case "as":
            return " ".join(map(str, _items(value)))
        case _:
            return str(value)


def _binding(element: Value) -> str:
    source, destination, *_ = _items(element)
    return str(source) if source == destination else f"{source}:{destination}"


def _capabilities(mask: int) -> str:
    """The shorter of the ones that are in the mask and, after a "~", the ones that are not."""
    given = [bit for bit in range(64) if mask >> bit & 1]
    missing = [bit for bit in range(64) if bit not in given]
    sign, bits = ("", given) if len(given) <= len(missing) else ("~", missing)
    return sign + " ".join(CAPABILITIES.get(bit, f"capability {bit}") for bit in bits)


def _items(value: Value) -> tuple[Value, ...]:
    if not isinstance(value, tuple):
        raise TypeError(f"{value!r} is not an array or struct")
    return value


def _number(value: Value) -> int:
    if not isinstance(value, int):
        raise TypeError(f"{value!r} is not a number")
    return value
