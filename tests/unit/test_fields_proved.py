"""Every field of the cluster file has a test that proves it with the real thing, and a table says which.

A test says so itself: `@pytest.mark.proves("Node.tpm", "Node.uefi")`. The table, packaging/fields.md, is generated from
these marks (`make golden` writes it); this test fails where a field has no test or the table is out of date.
"""

import ast
import dataclasses
import typing
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from placematd.describe import KINDS

TESTS = Path(__file__).parents[1]
TABLE = TESTS.parent / "packaging" / "fields.md"


def fields_of(record: type, prefix: str) -> Iterator[str]:
    """Dotted names of all fields as they are written in the file; list items and nested records go on below."""
    hints = typing.get_type_hints(record)
    for field in dataclasses.fields(record):
        if field.metadata.get("internal") or field.name == "kind":
            continue
        name = f"{prefix}.{field.name.replace('_', '-')}"
        nested = list(records_in(hints[field.name]))
        if not nested:
            yield name
        for inner in nested:
            kind = f"[{inner.__dataclass_fields__['kind'].default}]" if "kind" in inner.__dataclass_fields__ else ""
            yield from fields_of(inner, name + kind)


def records_in(hint: object) -> Iterator[type]:
    """The dataclasses that a type hint mentions."""
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        yield hint
    for argument in typing.get_args(hint):
        yield from records_in(argument)


@cache
def proofs() -> dict[str, list[str]]:
    """Field -> tests, from the `proves` marks in the sources of all tests."""
    found: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for function in ast.walk(ast.parse(path.read_text())):
            if not isinstance(function, ast.FunctionDef):
                continue
            for decorator in function.decorator_list:
                if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.proves":
                    for argument in decorator.args:
                        test = f"{path.relative_to(TESTS.parent)}::{function.name}"
                        found.setdefault(ast.literal_eval(argument), []).append(test)
    return found


ALL_FIELDS = [name for kind, record in KINDS.items() for name in fields_of(record, kind)]


def table() -> str:
    """The table as it stands in packaging/fields.md."""
    found = proofs()
    rows = [f"| `{name}` | {'<br>'.join(f'`{test}`' for test in found.get(name, ['none']))} |" for name in ALL_FIELDS]
    head = [
        "# Every field of the cluster file, and the tests that prove it",
        "",
        "Generated from the tests by `make golden`; a field without a test fails `make check`.",
        "",
        "| field | proved by |",
        "|---|---|",
    ]
    return "\n".join(head + rows) + "\n"


@pytest.mark.parametrize("name", ALL_FIELDS)
def test_a_test_proves_the_field(name: str) -> None:
    assert name in proofs()


def test_every_mark_names_a_field() -> None:
    assert set(proofs()) <= set(ALL_FIELDS)


def test_the_table_is_up_to_date(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--update-golden"):
        TABLE.write_text(table())
    assert TABLE.read_text() == table()
