"""Runs inside_planned_units.py in a sandbox: planned units in a real systemd, with a real QEMU and swtpm."""

import shutil
import sys
from pathlib import Path

import pytest
from placemat_cli.sandbox import NotReady, Sandbox

pytestmark = pytest.mark.integration

TESTS = Path(__file__).with_name("inside_planned_units.py")
PROGRAMS = ("qemu-system-x86_64", "qemu-img", "swtpm")


def test_planned_units() -> None:
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    argv = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", str(TESTS)]
    try:
        with Sandbox("planned-units") as sandbox:
            done = sandbox.run(argv, capture_output=True, timeout=300)
    except NotReady as error:
        pytest.skip(str(error))
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
