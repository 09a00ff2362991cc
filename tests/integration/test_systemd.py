"""Runs inside_systemd.py and inside_console_log.py in sandboxes: the systemd adapter and the console log, for real."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sandboxes
from sandboxes import Box

pytestmark = pytest.mark.integration


@pytest.fixture(params=["root", "user"])
def box(request: pytest.FixtureRequest) -> Iterator[Box]:
    with sandboxes.as_root() if request.param == "root" else sandboxes.as_user() as running:
        yield running


def run_inside(box: Box, name: str) -> None:
    tests = Path(__file__).with_name(name)
    done = box.run([sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", str(tests)], timeout=300)
    print(done.stdout)
    assert " skipped" not in done.stdout


def test_systemd_adapter(box: Box) -> None:
    run_inside(box, "inside_systemd.py")


@pytest.mark.skipif(not shutil.which("qemu-system-x86_64"), reason="apt-get install qemu-system-x86")
def test_console_log(box: Box) -> None:
    run_inside(box, "inside_console_log.py")
