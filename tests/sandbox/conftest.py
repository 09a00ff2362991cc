"""A sandbox for each account, kept for the tests of a module; and a machine that tests may compare before and after."""

from collections.abc import Iterator

import pytest
import sandboxes
from sandboxes import Box

from .machine import Machine


@pytest.fixture(scope="module", params=["root", "user"])
def box(request: pytest.FixtureRequest) -> Iterator[Box]:
    """Shared: tests that change it clean up."""
    with sandboxes.as_root() if request.param == "root" else sandboxes.as_user() as running:
        yield running


@pytest.fixture
def machine(root_sandbox: Box) -> Machine:
    """A sandbox is a machine of its own: nobody else changes its processes, mounts, links, cgroups and files."""
    return Machine(root_sandbox)
