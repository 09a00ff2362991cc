"""A YAML document as a tree that remembers where everything stands and how it was written.

`load` builds it from YAML, `decode` reads it. Scalars keep their text: what it means depends on what is expected there,
as in placemat v2 (spec 1.1). The YAML 1.1 rules for that are here (https://yaml.org/type/).
"""

import re
from dataclasses import dataclass

from ..describe import quote
from ..errors import Mark


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value. `plain` is False for quoted and block text, which is never a number, bool or null."""

    mark: Mark
    text: str
    plain: bool = True


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list."""

    mark: Mark
    items: tuple["Tree", ...]


@dataclass(frozen=True, slots=True)
class Mapping:
    """A mapping, with duplicates, in the order written; merge keys ("<<") are resolved already."""

    mark: Mark
    entries: tuple[tuple[Scalar, "Tree"], ...]


Tree = Scalar | Sequence | Mapping

_NULL = {"", "~", "null", "Null", "NULL"}
_TRUE = {"y", "yes", "true", "on"}
_FALSE = {"n", "no", "false", "off"}
_FLOAT = re.compile(r"[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(e[-+]?\d+)?|[-+]?\.(inf|nan)", re.IGNORECASE | re.ASCII)
_BASES = {"0x": 16, "0b": 2, "0o": 8}


def is_null(tree: Tree) -> bool:
    """Whether nothing is written there (an empty value, "~" or "null")."""
    return isinstance(tree, Scalar) and tree.plain and tree.text in _NULL


def as_bool(tree: Tree) -> bool | None:
    """yes/no, true/false, on/off or y/n in lower, title or upper case; None for anything else."""
    if not isinstance(tree, Scalar) or not tree.plain or tree.text not in _cases(tree.text):
        return None
    folded = tree.text.lower()
    return True if folded in _TRUE else False if folded in _FALSE else None


def _cases(text: str) -> tuple[str, str, str]:
    return text.lower(), text.capitalize(), text.upper()


def as_int(tree: Tree) -> int | None:
    """A whole number: decimal, 0x, 0b, octal (0o or a leading 0), with "_" between digits; None for anything else."""
    if not isinstance(tree, Scalar) or not tree.plain or not tree.text.isascii():
        return None
    sign, digits = re.fullmatch(r"([-+]?)(.*)", tree.text, re.DOTALL).groups()  # type: ignore[union-attr]
    digits = digits.replace("_", "")
    octal = "0o" if is_octal(tree) else ""
    prefix, rest = (digits[:2].lower(), digits[2:]) if digits[:2].lower() in _BASES else (octal, digits)
    try:
        value = int(rest, _BASES.get(prefix, 10)) if re.fullmatch("[0-9A-Fa-f]{1,40}", rest) else None
    except ValueError:
        return None
    return -value if value is not None and sign == "-" else value


def is_octal(tree: Tree) -> bool:
    """Whether a whole number begins with a 0 that makes it octal in YAML 1.1, which few people expect."""
    return isinstance(tree, Scalar) and tree.plain and re.fullmatch(r"[-+]?0[0-9_]+", tree.text) is not None


def found(tree: Tree) -> str:
    """What stands there, in words, to go after "found"."""
    match tree:
        case Sequence():
            return "a list"
        case Mapping():
            return "a mapping"
        case _ if is_null(tree):
            return "nothing"
        case _ if as_bool(tree) is not None:
            return f"the yes/no value {tree.text}"
        case Scalar(plain=True) if as_int(tree) is not None or (_FLOAT.fullmatch(tree.text)):
            return f"the number {tree.text}"
        case _:
            return f"text {quote(tree.text)}"
