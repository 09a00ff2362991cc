"""Runs inside_planned_units.py in sandboxes: planned units in a real systemd, with a real QEMU and swtpm."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sandboxes
from sandboxes import Box

pytestmark = pytest.mark.integration

TESTS = Path(__file__).with_name("inside_planned_units.py")
PROGRAMS = ("qemu-system-x86_64", "qemu-img", "swtpm")


@pytest.fixture(params=["root", "user"])
def box(request: pytest.FixtureRequest) -> Iterator[Box]:
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    with sandboxes.as_root() if request.param == "root" else sandboxes.as_user() as running:
        yield running


def test_planned_units(box: Box) -> None:
    done = box.run([sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", str(TESTS)], timeout=300)
    print(done.stdout)
