"""Options of all tests."""

import pytest
from sandboxes import root_sandbox, user_sandbox  # noqa: F401  # fixtures for all tests


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden files anew; read the diff")
