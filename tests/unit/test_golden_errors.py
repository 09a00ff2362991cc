"""Golden pairs: a cluster file with mistakes, and what is said about it.

A case is golden/errors/NAME.yml, or the files of a folder golden/errors/NAME. --update-golden writes the texts.
In cases called files-* the files that the cluster names are looked for too.
"""

from pathlib import Path

import pytest

from placematd.errors import InvalidCluster
from placematd.reading import read

ERRORS = Path(__file__).parents[1] / "golden" / "errors"
CASES = sorted({path.stem if path.parent == ERRORS else path.parent.name for path in ERRORS.rglob("*.yml")})


def what_is_said(case: str) -> str:
    """All mistakes and warnings of a case, one a line, and whether the cluster was accepted."""
    files = sorted(Path(case).glob("*.yml")) if Path(case).is_dir() else [Path(f"{case}.yml")]
    try:
        _, said = read(files, "golden", frozenset({"docker0"}), check_files=case.startswith("files-"))
        verdict = "accepted"
    except InvalidCluster as invalid:
        said, verdict = invalid.mistakes, "refused"
    return "".join(f"{line}\n" for line in (*said, verdict)).replace(str(ERRORS), "/golden")


@pytest.mark.parametrize("case", CASES)
def test_what_is_said(case: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ERRORS)
    golden = ERRORS / f"{case}.txt"
    text = what_is_said(case)
    if request.config.getoption("--update-golden"):
        golden.write_text(text)
    assert text == golden.read_text(), f"if that is intended: pytest --update-golden {Path(__file__).name}"


@pytest.mark.parametrize("case", CASES)
def test_a_case_shows_a_mistake_of_its_own(case: str) -> None:
    said = (ERRORS / f"{case}.txt").read_text().splitlines()
    assert len(said) > 1
    assert said[-1] == ("accepted" if case.startswith("warning-") else "refused")


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 45
    assert {path.stem for path in ERRORS.glob("*.txt")} == set(CASES)
