"""Options of all tests."""

import signal

import pytest
from sandboxes import root_sandbox, user_sandbox  # noqa: F401  # fixtures for all tests


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden files anew; read the diff")


def pytest_configure() -> None:
    """A shell starts what it puts into the background with SIGINT ignored, and tests that press Ctrl-C inherit that."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
