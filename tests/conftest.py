"""Options of all tests, and the figures that they measured at the end of what pytest prints."""

import signal
from collections.abc import Callable

import pytest
from sandboxes import root_sandbox, user_sandbox  # noqa: F401  # fixtures for all tests

FIGURES = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden files anew; read the diff")


def pytest_configure(config: pytest.Config) -> None:
    """A shell starts what it puts into the background with SIGINT ignored, and tests that press Ctrl-C inherit that."""
    config.stash[FIGURES] = []
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """`figure("100 BMCs: 20 ms")` has the line printed at the end of the run, passed or failed."""
    lines = request.config.stash[FIGURES]
    return lambda text: lines.append(f"{request.node.name}: {text}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """What the tests of this run measured."""
    if lines := config.stash[FIGURES]:
        terminalreporter.section("figures")
        for line in lines:
            terminalreporter.line(line)
