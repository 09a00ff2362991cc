"""One value of a cluster file to one value of a field: text, numbers, paths, addresses and choices."""

import os
import re
from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_address, ip_interface
from pathlib import Path
from types import NoneType
from typing import Literal, get_args, get_origin

from ..describe import closest
from ..models import IPAddress, IPInterface
from .tree import Mapping, Scalar, Sequence, Tree, as_bool, as_int


class Nothing(Exception):
    """The text is empty where that means the same as leaving the key out, as in placemat v2."""


class Unfit(Exception):
    """The value is not what is expected there."""

    def __init__(self, expected: str, hint: str = "") -> None:
        self.expected, self.hint = expected, hint


Reader = Callable[[Tree, Path], object]
"""Reads a value; the path is the directory of its file. Raises Unfit or Nothing."""


def reader_of(hint: object, absolute: bool) -> Reader | None:
    """The reader for a type, None if the type is not that of a single value. `absolute` is for paths."""
    if get_origin(hint) is Literal:
        return partial(_choice, get_args(hint))
    if hint is Path:
        return partial(_path, absolute)
    return _READERS.get(frozenset(get_args(hint)) - {NoneType} or hint)


def stand_in(hint: object) -> object:
    """What a field that could not be read holds until the mistake is reported: something empty of the right type."""
    if get_origin(hint) is Literal:
        return get_args(hint)[0]
    return next((empty for kind, empty in _STAND_INS if hint is kind or kind in get_args(hint)), ())


def resolve(text: str, directory: Path) -> Path:
    """A path as written, relative to the directory of its file; symbolic links stay as they are."""
    return Path(os.path.normpath(directory / text))


def text(tree: Tree, expected: str = "text") -> str:
    """Text exactly as written: also that of a number, bool or date."""
    if isinstance(tree, Scalar) and "\0" not in tree.text:
        return tree.text
    match tree:
        case Scalar():
            raise Unfit(f"{expected} without NUL characters")
        case Mapping():
            raise Unfit(expected, 'text that begins with { or has ": " in it needs quotes')
        case Sequence(items=(Scalar(text="", plain=True),)):
            raise Unfit(expected, 'for a dash write "-" with the quotes')
        case Sequence():
            raise Unfit(expected, 'text that begins with "[" or "- " needs quotes')


def _text(tree: Tree, _directory: Path) -> str:
    return text(tree)


def _whole_number(tree: Tree, _directory: Path) -> int:
    value = as_int(tree)
    if value is None:
        quoted = isinstance(tree, Scalar) and not tree.plain and as_int(Scalar(tree.mark, tree.text)) is not None
        raise Unfit("a whole number", "remove the quotes" if quoted else "")
    return value


def _yes_or_no(tree: Tree, _directory: Path) -> bool:
    value = as_bool(tree)
    if value is None:
        quoted = isinstance(tree, Scalar) and not tree.plain and as_bool(Scalar(tree.mark, tree.text)) is not None
        raise Unfit("true or false", "remove the quotes" if quoted else "")
    return value


def _choice(choices: tuple[str, ...], tree: Tree, _directory: Path) -> str:
    named = [choice for choice in choices if choice]
    expected = f"{', '.join(named[:-1])} or {named[-1]}" if len(named) > 1 else named[0]
    written = text(tree, expected)
    if not written:
        raise Nothing
    if written not in choices:
        close = closest(written, frozenset(named))
        raise Unfit(expected, f'did you mean "{close}"?' if close else "")
    return written


def _path(absolute: bool, tree: Tree, directory: Path) -> Path:
    written = text(tree, "a path")
    if not written:
        raise Nothing
    if absolute and not written.startswith("/"):
        raise Unfit("an absolute path", f'such as "{resolve(written, directory)}"')
    return resolve(written, directory)


def _interface(tree: Tree, _directory: Path) -> IPInterface:
    expected = "an address with its prefix length, such as 10.0.0.1/24 or fd00::1/64"
    written = text(tree, expected)
    if not written:
        raise Nothing
    address, slash, prefix = written.partition("/")
    try:
        plain = ip_address(address)
    except ValueError as error:
        raise Unfit(expected, _reason(error)) from error
    if not slash:
        raise Unfit(expected, f'did you mean "{plain}/{24 if plain.version == 4 else 64}"?')
    if "%" in address:
        raise Unfit(expected, "leave out the zone after %")
    if not re.fullmatch("[0-9]{1,3}", prefix) or int(prefix) > plain.max_prefixlen:
        raise Unfit(expected, f"the prefix length is 0 to {plain.max_prefixlen}")
    return ip_interface(f"{plain}/{int(prefix)}")


def _address(tree: Tree, _directory: Path) -> IPAddress:
    expected = "an IPv4 or IPv6 address"
    try:
        return ip_address(text(tree, expected))
    except ValueError as error:
        raise Unfit(expected, _reason(error)) from error


def _reason(error: ValueError) -> str:
    """Why an address is none, as `ipaddress` says where it says more than that it is none."""
    words = str(error)
    return "" if "does not appear" in words else words


_READERS: dict[object, Reader] = {
    str: _text,
    int: _whole_number,
    bool: _yes_or_no,
    frozenset({IPv4Interface, IPv6Interface}): _interface,
    frozenset({IPv4Address, IPv6Address}): _address,
}
_STAND_INS: tuple[tuple[object, object], ...] = (
    (str, ""),
    (bool, False),
    (int, 0),
    (Path, Path("/")),
    (IPv4Address, IPv4Address(0)),
)
