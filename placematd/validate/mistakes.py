"""How the checks make their mistakes: at a field of a record that stands in a resource."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from ..describe import Resource, one_line, parts, subject
from ..errors import Mark, Mistake
from ..models import Marks


class Marked(Protocol):
    """A record that knows where its fields stand."""

    @property
    def marks(self) -> Marks:
        """The marks."""
        ...


@dataclass(frozen=True)
class At:
    """A resource, or a record inside it (`part`, which messages call `label`)."""

    resource: Resource
    part: Marked | None = None
    label: str = ""

    @property
    def marks(self) -> Marks:
        """Where the fields of the record stand."""
        return (self.part or self.resource).marks

    def readable(self, *names: str) -> bool:
        """Whether none of these fields holds a stand-in for what could not be read."""
        return self.marks.broken.isdisjoint(names)

    def error(self, field_name: str, message: str, hint: str = "") -> Mistake:
        """A mistake in a field ("" for the record as a whole)."""
        return Mistake(self._mark(field_name), subject(self.resource), self._say(message), one_line(hint))

    def warning(self, field_name: str, message: str, hint: str = "") -> Mistake:
        """Something doubtful in a field."""
        return Mistake(self._mark(field_name), subject(self.resource), self._say(message), one_line(hint), "warning")

    def _mark(self, field_name: str) -> Mark:
        """The mark of a field; that of the whole list where its item has none."""
        return self.marks.get(field_name) or self.marks.of(field_name.partition(".")[0])

    def _say(self, message: str) -> str:
        return one_line(f"{self.label}: {message}" if self.label else message)


M = TypeVar("M", bound=Marked)


def inside(resource: Resource, kind: type[M]) -> Iterator[tuple[At, M]]:
    """The records of a class inside a resource."""
    for label, part in parts(resource):
        if isinstance(part, kind):
            yield At(resource, part, label), part


def line_of(mark: Mark, seen_from: Mark) -> str:
    """Where something else stands, short for a message: "line 3", or with the file where that differs."""
    return f"line {mark.line}" if mark.file == seen_from.file else f"{mark.file}:{mark.line}"
