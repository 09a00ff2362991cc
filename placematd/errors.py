"""What can go wrong, as records.

Bad input is a list of `Mistake`, raised together as `InvalidCluster`. A step that fails on the host is a
`StepError`: what was attempted, on what, what the system answered and what to do about it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, order=True)
class Mark:
    """A place in a cluster file; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


NOWHERE = Mark("-", 1, 1)


@dataclass(frozen=True, order=True)
class Mistake:
    """One mistake (or one warning) in a cluster file.

    `subject` is "Kind name" ("Node worker-1"), or "" where the resource is not known yet. `message` says what is wrong
    and what was expected; `hint` what to write instead.
    """

    mark: Mark
    subject: str
    message: str
    hint: str = ""
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        return f"{self.mark}: {'warning: ' if self.severity == 'warning' else ''}{self._what}"

    @property
    def text(self) -> str:
        """As `str`, for where the severity is told already."""
        return f"{self.mark}: {self._what}"

    @property
    def _what(self) -> str:
        subject = f"{self.subject}: " if self.subject else ""
        return subject + self.message + (f" ({self.hint})" if self.hint else "")


class PlacematError(Exception):
    """The base of every error that placemat raises on purpose; its text is fit for a person."""


class InvalidCluster(PlacematError):
    """The cluster files hold mistakes; `mistakes` has all of them and all warnings, in file order."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(str(mistake) for mistake in self.mistakes))


class StepError(PlacematError):
    """A step on the host failed.

    `attempted` is what was tried, on what ("create bridge net0"); `answer` what the system said; `hint` what to do.
    """

    def __init__(self, attempted: str, answer: str, hint: str = "") -> None:
        self.attempted, self.answer, self.hint = attempted, answer, hint
        super().__init__(f"{attempted}: {answer}" + (f" ({hint})" if hint else ""))


class MissingTool(StepError):
    """A program that placemat needs is not installed; the hint names the package that brings it."""

    def __init__(self, program: str, package: str) -> None:
        self.program, self.package = program, package
        super().__init__(f"run {program}", "not found in PATH", f"apt-get install {package}")


class NotOurs(StepError):
    """Something of that name exists on the host and does not carry this cluster's mark; it is left alone."""


class NotFound(PlacematError):
    """The named node, namespace, app or cluster does not exist."""


class WrongState(PlacematError):
    """What was asked for does not fit the state that the cluster or node is in."""


class TimedOut(StepError):
    """A step took longer than its deadline."""
