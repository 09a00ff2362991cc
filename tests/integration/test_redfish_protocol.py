"""DMTF's protocol validator, use-case checkers and OpenStack's sushy against the real process of a BMC.

The validators come from PyPI (packaging/requirements-dev.txt). They get a network of their own, because they look for
services by multicast too.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

BMC = Path(__file__).parents[1] / "fakes/bmc.py"
TRUST = {"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"}
"""In the environment these count for more than the validators' own options."""

SUSHY_TOOLS_NOT_TESTED = 68
"""Of the protocol validator 1.3.2 with sushy-tools 2.2.0, whose 43 failures we do not have either."""

REPORT = re.compile(r"PASS: (\d+), WARN: (\d+), FAIL: (\d+), NOT_TESTED: (\d+)")
TABLE = re.compile(r"\|\s+(\d+)\s+\|\s+(\d+)\s+\|\s+(\d+)\s+\|\s+(\d+)\s+\|")


@pytest.fixture
def bmc(private_net: object) -> Iterator[str]:
    """The URL of a BMC."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    argv = [sys.executable, str(BMC), "--redfish", "127.0.0.1:8443", "--power", "On", "--until-eof"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdin
        line = process.stdout.readline()
        assert line.startswith("READY "), line
        host, port = json.loads(line.removeprefix("READY "))["redfish"]
        yield f"https://{host}:{port}"
        process.stdin.close()


def tool(name: str) -> str:
    """A program of the interpreter that runs the tests."""
    path = Path(sys.executable).parent / name
    if not path.exists():
        pytest.skip(f"no {name}: pip install -r packaging/requirements-dev.txt")
    return str(path)


def run(*argv: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in TRUST}
    done = subprocess.run(argv, env=environment, text=True, capture_output=True, timeout=400)
    return done.stdout + done.stderr


def failures(folder: Path) -> str:
    """The lines of the protocol validator's report that say what failed."""
    report = next(folder.glob("*.tsv")).read_text()
    return "\n".join(line for line in report.splitlines() if "\tFAIL\t" in line)


def test_protocol_validator(bmc: str, tmp_path: Path) -> None:
    login = ("-u", "admin", "-p", "password")
    options = ("--no-cert-check", "--avoid-http-redirect", "--report-dir", str(tmp_path))
    output = run(tool("rf_protocol_validator"), "-r", bmc, *login, *options)
    found = REPORT.search(output)
    assert found, output
    print("protocol validator:", found[0])
    passed, _, failed, not_tested = map(int, found.groups())
    assert failed == 0, failures(tmp_path)
    assert not_tested < SUSHY_TOOLS_NOT_TESTED
    assert passed > 300


@pytest.mark.slow
def test_use_case_checkers(bmc: str, tmp_path: Path) -> None:
    output = run(
        tool("rf_use_case_checkers"), "-r", bmc, "-u", "admin", "-p", "password", "--report-dir", str(tmp_path)
    )
    found = TABLE.search(output)
    assert found, output
    print("use-case checkers: PASS {}, WARN {}, FAIL {}, NOT TESTED {}".format(*found.groups()))
    passed, _, failed, _ = map(int, found.groups())
    assert failed == 0, output
    assert passed > 50


SUSHY = """
import sys, sushy, urllib3
from sushy import auth
urllib3.disable_warnings()
login = auth.SessionAuth("admin", "password")
root = sushy.Sushy(sys.argv[1], auth=login, verify=False)
system, = root.get_system_collection().get_members()
assert system.power_state == sushy.PowerState.ON, system.power_state
system.set_system_boot_options(sushy.BootSource.PXE, enabled=sushy.BootSourceOverrideEnabled.ONCE)
system.refresh()
assert system.boot.target == sushy.BootSource.PXE
assert system.boot.enabled == sushy.BootSourceOverrideEnabled.ONCE
system.reset_system(sushy.ResetType.FORCE_RESTART)
system.refresh(force=True)
assert system.boot.enabled == sushy.BootSourceOverrideEnabled.DISABLED, system.boot.enabled
system.reset_system(sushy.ResetType.FORCE_OFF)
system.refresh(force=True)
assert system.power_state == sushy.PowerState.OFF
assert len(system.ethernet_interfaces.summary) == 2
assert system.simple_storage.disks_sizes_bytes == system.storage.drives_sizes_bytes
assert system.bios.attributes
events = root.get_event_service()
made = events.subscriptions.create({"Destination": "http://127.0.0.1:9/", "Protocol": "Redfish", "Context": "sushy"})
made.delete()
assert root.get_session_service().session_timeout > 0
assert root.get_task_service().tasks.get_members() is not None
login.close()
print("done")
"""


def test_sushy_with_a_session(bmc: str) -> None:
    pytest.importorskip("sushy", reason="pip install -r packaging/requirements-dev.txt")
    output = run(sys.executable, "-c", SUSHY, bmc)
    assert output.endswith("done\n"), output
