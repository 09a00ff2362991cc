"""What README says of a machine with systemd: make install, systemctl start placemat@quickstart, make uninstall."""

import re

import pytest
from e2e.host import differences, snapshot
from e2e.journal import follow
from sandboxes import REPOSITORY

pytestmark = [pytest.mark.e2e]

# Debian's packages are what is in place anyway; these are what `make install` adds.
INSTALLED = (
    "find /usr/local/bin /usr/local/lib /usr/local/share /etc/placemat -newer /run/before ! -type d 2>/dev/null || true"
)


def test_install_then_the_service_as_readme_has_it_then_uninstall(root_sandbox) -> None:
    run = root_sandbox.run

    def sh(script: str) -> str:
        return str(root_sandbox.sh(f"export PATH=/usr/local/bin:$PATH; {script}"))

    sh("rm -rf /etc/systemd/system/placemat@.service*; systemctl daemon-reload; touch /run/before; sleep 0.01")

    sh(f"make -C {REPOSITORY} install")
    unit = sh("systemctl cat placemat@quickstart")
    assert "/usr/local/lib/systemd/system/placemat@.service" in unit and "ExecStart=/usr/local/bin/placematd" in unit
    before = snapshot(run)

    sh("systemctl start placemat@quickstart")
    assert sh("placemat-cli node list -q").split() == ["worker-1", "worker-2"]
    assert re.search(r"worker-1 +On", sh("placemat-cli status"))
    with follow(root_sandbox.popen, "PLACEMAT_NODE=worker-1") as journal:
        journal.wait("placemat-guest: ready", 600)
    assert "placemat-guest: ready" in sh("journalctl -u 'placemat-quickstart-*'")
    assert "placemat-guest: ready" in sh("journalctl PLACEMAT_NODE=worker-1")
    assert "ok" in sh("placemat-cli check quickstart")
    assert "qemu-system-x86_64" in sh("placemat-cli plan quickstart")
    sh("systemctl reload placemat@quickstart")
    sh("systemctl stop placemat@quickstart")
    assert differences(before, snapshot(run)) == {}

    sh(f"make -C {REPOSITORY} uninstall")
    assert sh(INSTALLED) == ""


def test_the_unit_file_is_verified_without_a_word(root_sandbox) -> None:
    done = root_sandbox.run(["systemd-analyze", "verify", "placemat@quickstart.service"], check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
