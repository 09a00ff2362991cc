"""The same tests once more as an ordinary user, in a user namespace: placemat needs no real root for its network."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

HERE = Path(__file__).parent
FILES = ("test_network.py", "test_firewall.py", "test_sysctl.py")
NOBODY = 65534


def as_nobody() -> list[str]:
    """What turns a command into one of an ordinary user's, in namespaces of its own."""
    user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"] if os.geteuid() == 0 else []
    return [*user, "unshare", "--user", "--map-root-user", "--net", "--mount"]


def test_network_of_an_ordinary_user():
    can_run = [*as_nobody(), sys.executable, "-c", f"open({str(HERE / FILES[0])!r})"]
    done = subprocess.run(can_run, text=True, capture_output=True, timeout=60)
    if done.returncode:
        pytest.skip(f"an ordinary user cannot use user namespaces or read this directory: {done.stderr.strip()[-200:]}")
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={name}/t"]
        argv += [f"--rootdir={HERE.parents[1]}", *(str(HERE / file) for file in FILES)]
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run([*as_nobody(), *argv], text=True, capture_output=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
