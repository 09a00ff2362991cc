"""A tree of a YAML document to a record of `models`, driven by the record's own fields and types.

What cannot be read is reported, and the record is made all the same with a stand-in in that field (`Marks.broken`), so
that everything else about it can still be checked and nothing that refers to it seems to dangle.
"""

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Literal, cast, get_args, get_origin, get_type_hints

from ..describe import KINDS, Resource, closest, key_of, one_line, part_label, quote
from ..errors import Mark, Mistake
from ..models import Marks, Rule
from .tree import Mapping as TreeMapping
from .tree import Scalar, Sequence, Tree, as_int, found, is_null, is_octal
from .values import Nothing, Reader, Unfit, reader_of, resolve, stand_in, text

_IGNORED = {
    "volumes": {
        "folder": "placemat 1 shared a folder as vvfat; use a volume of kind hostPath",
        "vg": "placemat 1 had volumes on LVM; use device-class",
    }
}
"""Keys that placemat v2 ignores and that files carry since version 1, by the list that their records stand in."""

_FORMER_KINDS = {
    "Pod": "placemat 2 and later have NetworkNamespace instead",
    "NetworkStack": "it is called NetworkNamespace",
    "DataFolder": "placemat 2 and later have none; use a volume of kind hostPath",
}

Severity = Literal["error", "warning"]

_NOTHING = object()
"""No value: the field gets its default."""


@dataclass
class Report:
    """What is found in one file. `complete` is False once a whole document could not be read."""

    file: Path
    mistakes: list[Mistake] = field(default_factory=list)
    complete: bool = True

    @property
    def directory(self) -> Path:
        """The directory that relative paths in the file are relative to."""
        return Path(os.path.abspath(self.file)).parent  # noqa: PTH100 (Path.resolve would follow symbolic links)


@dataclass(frozen=True)
class _Place:
    """Where a value stands: in a field of a record that is being read."""

    report: Report
    subject: str
    record: str
    """The record inside the resource: "volume root", "" for the resource itself."""
    marks: Marks
    name: str = ""
    index: int | None = None
    """Which item of a list, from 0."""

    def say(self, mark: Mark, message: str, hint: str = "", severity: Severity = "error") -> None:
        """Reports a mistake."""
        message = f"{self.record}: {message}" if self.record else message
        self.report.mistakes.append(Mistake(mark, self.subject, one_line(message), one_line(hint), severity))

    def unfit(self, tree: Tree, expected: str, hint: str = "") -> object:
        """Reports a value that is not what is expected in the field, which is broken from then on."""
        self.say(tree.mark, f"{key_of(self.name)}: expected {expected}, found {found(tree)}", hint)
        self.break_field()
        return _NOTHING

    def break_field(self) -> None:
        """What the field holds is not what was written."""
        self.marks.broken |= {self.name}


_Decoder = Callable[[Tree, _Place], object]


@dataclass(frozen=True)
class _Field:
    """One field of a record class, ready to be read."""

    name: str
    doc: str
    rule: Rule
    decode: _Decoder
    required: bool
    stand_in: object


def decode_resource(tree: Tree, report: Report) -> Resource | None:
    """One document; None, and a mistake in the report, where it is no resource of a known kind."""
    place = _Place(report, "", "", Marks())
    kind = _resource_kind(tree, place)
    if kind is None or not isinstance(tree, TreeMapping):
        report.complete = False
        return None
    name = _peek(tree, "name") if "name" in {item.name for item in fields(KINDS[kind])} else ""
    subject = one_line(f"{kind} {name}".rstrip())
    return cast(Resource, _decode_record(KINDS[kind], tree, report, subject))


def _resource_kind(tree: Tree, place: _Place) -> str | None:
    kinds = ", ".join(KINDS)
    if not isinstance(tree, TreeMapping):
        place.say(tree.mark, f'expected a resource (a mapping with "kind" in it), found {found(tree)}')
        return None
    return _kind(tree, place, KINDS, f"expected one of {kinds}", _FORMER_KINDS)


def _kind(
    tree: TreeMapping, place: _Place, kinds: Collection[str], expected: str, former: Mapping[str, str]
) -> str | None:
    """The kind that is written, or that was probably meant; None if that is anyone's guess."""
    value = _find(tree, "kind")
    if value is None or is_null(value):
        place.say(tree.mark, 'missing key "kind"', expected)
        return None
    if not isinstance(value, Scalar):
        place.say(value.mark, f"kind: {expected}, found {found(value)}")
        return None
    if value.text in kinds:
        return value.text
    meant = "" if value.text in former else closest(value.text, frozenset(kinds))
    hint = f'did you mean "{meant}"?' if meant else former.get(value.text, "")
    place.say(value.mark, f"unknown kind {quote(value.text)}, {expected}", hint)
    return meant or None


def _find(tree: TreeMapping, name: str) -> Tree | None:
    """The value of a key, whatever its case."""
    exact = next((value for key, value in tree.entries if key.text == name), None)
    return exact or next((value for key, value in tree.entries if key.text.casefold() == name), None)


def _peek(tree: Tree, *names: str) -> str:
    """The text of the first of these keys that a mapping has, before it is read."""
    values = [_find(tree, name) for name in names] if isinstance(tree, TreeMapping) else []
    return next((value.text for value in values if isinstance(value, Scalar)), "")


# -- records ----------------------------------------------------------------------------------------------------------


def _decode_record(
    record: type,
    tree: TreeMapping,
    report: Report,
    subject: str,
    label: str = "",
    ignored: Mapping[str, str] | None = None,
) -> object:
    place = _Place(report, subject, label, Marks({"": tree.mark}))
    known = _fields_of(record)
    values: dict[str, object] = {}
    hints: Mapping[str, str] = getattr(record, "key_hints", {})
    for name, key, tree_value in _written(tree, known, ignored or {}, hints, place):
        here = _Place(report, subject, label, place.marks, name)
        place.marks[name] = key.mark if is_null(tree_value) else tree_value.mark
        value = _NOTHING if is_null(tree_value) else known[name].decode(tree_value, here)
        if value is not _NOTHING:
            values[name] = _with_programs(known[name].rule, value, report.directory)
    for name, item in known.items():
        if item.required and name not in values:
            _missing(item, place)
            values[name] = item.stand_in
    if "directory" in {item.name for item in fields(record)}:
        values["directory"] = report.directory
    return cast(Callable[..., object], record)(**values, marks=place.marks)


def _missing(item: _Field, place: _Place) -> None:
    """Reports a required field that has no value, unless that is reported already."""
    if item.name not in place.marks.broken:
        what = f'"{key_of(item.name)}" is empty' if item.name in place.marks else f'missing key "{key_of(item.name)}"'
        place.say(place.marks.of(item.name), what, item.doc.rstrip("."))
        place.marks.broken |= {item.name}


def _written(
    tree: TreeMapping, known: Mapping[str, _Field], ignored: Mapping[str, str], hints: Mapping[str, str], place: _Place
) -> Iterator[tuple[str, Scalar, Tree]]:
    """The fields of a mapping, each once; reports keys that are unknown, doubtful or written twice.

    `hints` are what to say about unknown keys that people are known to write.
    """
    names = {key_of(name): name for name in known}
    first: dict[str, Scalar] = {}
    unknown: list[tuple[Scalar, Tree]] = []
    for key, value in tree.entries:
        exact = key.text if key.text in names or key.text in ignored else key.text.casefold()
        if exact in first:
            place.say(key.mark, f'key "{exact}" is written twice', f"first in line {first[exact].mark.line}")
        elif exact not in names and exact not in ignored:
            if exact in hints:
                place.say(key.mark, f"unknown key {quote(key.text)}", hints[exact])
                place.marks.broken |= {exact}
            else:
                unknown.append((key, value))
        else:
            first[exact] = key
            if exact != key.text:
                place.say(key.mark, f'key {quote(key.text)} is taken as "{exact}"', "keys are lower case", "warning")
            if exact in ignored:
                place.say(key.mark, f'key "{exact}" is ignored', ignored[exact], "warning")
            elif exact != "kind":
                yield names[exact], key, value
    yield from _misspelt(unknown, names, first, place)


def _misspelt(
    unknown: list[tuple[Scalar, Tree]], names: Mapping[str, str], first: dict[str, Scalar], place: _Place
) -> Iterator[tuple[str, Scalar, Tree]]:
    """Reports unknown keys. One that is close to a field is read as that, so that its value is checked and counts."""
    for key, value in unknown:
        meant = closest(key.text, frozenset(names) - frozenset(first))
        place.say(key.mark, f"unknown key {quote(key.text)}", f'did you mean "{meant}"?' if meant else "")
        if meant and meant != "kind":
            first[meant] = key
            yield names[meant], key, value


def _with_programs(rule: Rule, value: object, directory: Path) -> object:
    if rule.program and isinstance(value, tuple) and value and "/" in value[0]:
        return (str(resolve(value[0], directory)), *value[1:])
    return value


@cache
def _fields_of(record: type) -> dict[str, _Field]:
    """The fields of a record class that a file can have, and `kind`, which is read beforehand."""
    hints = get_type_hints(record)
    result = {"kind": _Field("kind", "", Rule(), lambda _tree, _place: _NOTHING, False, None)}
    for item in fields(record):
        if "doc" in item.metadata:
            doc, rule, hint = item.metadata["doc"], item.metadata["rule"], hints[item.name]
            required = item.default is MISSING
            result[item.name] = _Field(item.name, doc, rule, _decoder(hint, rule), required, stand_in(hint))
    return result


# -- values, by type --------------------------------------------------------------------------------------------------


def _decoder(hint: object, rule: Rule) -> _Decoder:
    reader = reader_of(hint, rule.absolute)
    if reader:
        return partial(_single, reader)
    if get_origin(hint) is tuple:
        element = get_args(hint)[0]
        return _pairs if get_origin(element) is tuple else partial(_list, _decoder(element, rule))
    options = tuple(option for option in get_args(hint) if option is not type(None)) or (hint,)
    if len(options) > 1:
        return partial(_one_of, {_kind_of(option): cast(type, option) for option in options})
    if is_dataclass(options[0]):
        return partial(_nested, cast(type, options[0]))
    return _decoder(options[0], rule)


def _kind_of(record: object) -> str:
    return str(get_args(get_type_hints(record)["kind"])[0])


def _single(reader: Reader, tree: Tree, place: _Place) -> object:
    try:
        value = reader(tree, place.report.directory)
    except Nothing:
        return _NOTHING
    except Unfit as unfit:
        return place.unfit(tree, unfit.expected, unfit.hint)
    if isinstance(value, int) and value == as_int(tree) and is_octal(tree):
        message = f"{key_of(place.name)}: {cast(Scalar, tree).text} is octal in YAML and read as {value}"
        place.say(tree.mark, message, "write it without the leading 0", "warning")
    return value


def _list(element: _Decoder, tree: Tree, place: _Place) -> object:
    if not isinstance(tree, Sequence):
        single = isinstance(tree, Scalar) and isinstance(element, partial) and element.func is _single
        hint = f'write "[{cast(Scalar, tree).text}]"' if single else ""
        return place.unfit(tree, "a list", hint)
    values: list[object] = []
    for index, item in enumerate(tree.items):
        reported = len(place.report.mistakes)
        value = _NOTHING if is_null(item) else element(item, replace(place, index=index))
        if value is not _NOTHING:
            place.marks[f"{place.name}.{len(values)}"] = item.mark
            values.append(value)
        elif len(place.report.mistakes) == reported:
            written = cast(Scalar, item).text
            place.unfit(item, "a value", f'for the text {written} write "{written}"' if written else "")
    return tuple(values)


def _nested(record: type, tree: Tree, place: _Place) -> object:
    if not isinstance(tree, TreeMapping):
        return place.unfit(tree, "a mapping")
    return _decode_record(record, tree, place.report, place.subject, _label(tree, place))


def _label(tree: Tree, place: _Place) -> str:
    """What messages call the record in this field: "smp", or "volume root" in a list."""
    return place.name if place.index is None else part_label(place.name, place.index, _peek(tree, "name", "to"))


def _one_of(records: Mapping[str, type], tree: Tree, place: _Place) -> object:
    """A record of the class that its `kind` tells; keys of the other classes are ignored with a warning, as in v2."""
    if not isinstance(tree, TreeMapping):
        return place.unfit(tree, "a mapping")
    here = replace(place, record=_label(tree, place))
    kind = _kind(tree, here, records, f"expected {', '.join(records)}", {"vvfat": _IGNORED["volumes"]["folder"]})
    if kind is None:
        place.break_field()
        return _NOTHING
    foreign = {key_of(name) for record in records.values() for name in _fields_of(record)}
    foreign -= {key_of(name) for name in _fields_of(records[kind])}
    ignored = dict.fromkeys(foreign, f"it means nothing in a volume of kind {kind}") | _IGNORED.get(place.name, {})
    return _decode_record(records[kind], tree, place.report, place.subject, here.record, ignored)


def _pairs(tree: Tree, place: _Place) -> object:
    if not isinstance(tree, TreeMapping):
        return place.unfit(tree, "a mapping of names to values")
    pairs: dict[str, str] = {}
    for key, value in tree.entries:
        if key.text in pairs:
            place.say(key.mark, f"{key_of(place.name)}: {quote(key.text)} is written twice")
            continue
        place.marks[f"{place.name}.{len(pairs)}"] = key.mark
        try:
            pairs[key.text] = "" if is_null(value) else text(value)
        except Unfit as unfit:
            place.unfit(value, unfit.expected, unfit.hint)
    return tuple(pairs.items())
