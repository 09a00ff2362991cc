"""The Redfish service before DMTF's judges and OpenStack's client: the real server, on a machine in memory.

Programs are looked for beside the interpreter, in $REDFISH_TOOLS (a venv's bin folder) and in PATH. Schemas are
DMTF's DSP8010: the folder or zip that $REDFISH_SCHEMAS names, ../shared/redfish/csdl.zip unless told.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
SCHEMAS = Path(os.environ.get("REDFISH_SCHEMAS", ROOT.parent / "shared" / "redfish" / "csdl.zip"))
FOLDERS = (str(Path(sys.executable).parent), os.environ.get("REDFISH_TOOLS", ""), os.environ.get("PATH", ""))
USER, PASSWORD = "admin", "password"
# These override the validators' own switches about certificates.
TRUST = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")


def clean_environment() -> Mapping[str, str]:
    return {name: value for name, value in os.environ.items() if name not in TRUST}


def program(name: str) -> str:
    found = shutil.which(name, path=os.pathsep.join(filter(None, FOLDERS)))
    if not found:
        pytest.skip(
            f"{name} is not installed: pip install "
            "redfish_service_validator redfish_use_case_checkers redfish_utilities sushy"
        )
    return found


@pytest.fixture
def service() -> Iterator[str]:
    """The URL of a BMC whose machine is off."""
    command = [sys.executable, ROOT / "tests/fakes/bmc.py", "--redfish", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as server:
        assert server.stdout
        try:
            ready = server.stdout.readline()
            assert ready.startswith("READY "), ready
            host, port = json.loads(ready.removeprefix("READY "))["redfish"]
            yield f"https://{host}:{port}"
        finally:
            server.terminate()
            assert server.wait(10) == 0


@pytest.fixture
def schemas(tmp_path: Path) -> Path:
    """A folder with DMTF's CSDL files."""
    if not SCHEMAS.exists():
        pytest.skip(f"{SCHEMAS} is not there: set REDFISH_SCHEMAS to DMTF's DSP8010 (https://www.dmtf.org/dsp/DSP8010)")
    if SCHEMAS.is_dir():
        return SCHEMAS
    folder = tmp_path / "schemas"
    with zipfile.ZipFile(SCHEMAS) as bundle:
        bundle.extractall(folder)
    return next(iter(folder.rglob("ServiceRoot_v1.xml"))).parent


def run(*command: str | Path, seconds: float) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
        check=False,
    )
    return done.stdout


@dataclass(frozen=True)
class Totals:
    """The last line of the table that DMTF's programs end with."""

    passed: int
    warned: int
    failed: int
    untested: int


def totals(said: str) -> Totals:
    rows = re.findall(r"^\| +(\d+) +\| +(\d+) +\| +(\d+) +\| +(\d+) +\|$", said, re.MULTILINE)
    assert rows, said[-3000:]
    return Totals(*map(int, rows[-1]))


def test_service_validator(service: str, schemas: Path, tmp_path: Path) -> None:
    said = run(
        *(program("rf_service_validator"), "-r", service, "-u", USER, "-p", PASSWORD, "--authtype", "Session"),
        *("--logdir", tmp_path / "log", "--schema_directory", schemas, "--skipschema"),
        seconds=300,
    )
    counted = totals(said)
    print("service validator:", counted)
    assert counted.failed == 0, said[-6000:]
    # What is deprecated is there for clients of its time: ComputerSystem.TrustedModules, Manager.VirtualMedia and
    # EventService.EventTypesForSubscription with its values.
    assert counted.warned <= 7, said[-6000:]
    assert counted.passed > 635  # sushy-tools on libvirt's test driver, the best of the peers


def test_programs_of_redfish_utilities(service: str) -> None:
    """DMTF's own tools, each with something that it must have seen or done."""

    def tool(name: str, *arguments: str) -> str:
        login = ("-r", service, "-u", USER, "-p", PASSWORD)
        return run(program(name), *login, *arguments, seconds=60)

    inventory = tool("rf_sys_inventory.py", "--details")
    assert "AMD EPYC Processor" in inventory and "QEMU 2048MB DRAM" in inventory and "Disk.2" in inventory
    assert "BMC firmware" in tool("rf_firmware_inventory.py")
    assert re.search(r"Inlet Temp +\| 23\.00 Cel +\| OK .* 42 .* 47 ", tool("rf_sensor_list.py"))
    assert "PushPowerButton, Nmi" in tool("rf_power_reset.py", "--info")

    tool("rf_boot_override.py", "--target", "Pxe")
    assert re.search("Target: Pxe.*\n.*Enabled: Once", tool("rf_boot_override.py"))
    tool("rf_power_reset.py", "--type", "On")
    assert re.search("Target: None.*\n.*Enabled: Disabled", tool("rf_boot_override.py"))
    assert "Current power state: On" in tool("rf_power_reset.py", "--info")

    for log in (tool("rf_sel.py"), tool("rf_logs.py")):
        assert "The machine was powered on" in log
    tool("rf_logs.py", "--system", "System.Embedded.1", "--clear")
    assert "powered on" not in tool("rf_sel.py")

    tool("rf_virtual_media.py", "insert", "--image", "http://172.16.0.1/boot.iso")
    assert "ImageName: boot.iso" in tool("rf_virtual_media.py", "info")
    tool("rf_virtual_media.py", "eject", "--id", "Cd")
    assert "ImageName: None" in tool("rf_virtual_media.py", "info")

    tool("rf_bios_settings.py", "--attribute", "BootMode", "Uefi")
    assert re.search(r"BootMode +\| Legacy +\| Uefi", tool("rf_bios_settings.py"))
    tool("rf_bios_settings.py", "--reset")
    assert re.search(r"BootMode +\| Legacy +\| Legacy", tool("rf_bios_settings.py"))

    assert "127.0.0.1: 255.0.0.0" in tool("rf_manager_config.py", "getnet")
    assert re.search(r"IPMI +\| True +\| 623", tool("rf_manager_config.py", "getprotocol"))


@pytest.mark.slow
def test_use_case_checkers(service: str, tmp_path: Path) -> None:
    said = run(
        *(program("rf_use_case_checkers"), "-r", service, "-u", USER, "-p", PASSWORD, "--report-dir", tmp_path),
        seconds=900,
    )
    counted = totals(said)
    print("use case checkers:", counted)
    assert counted.failed == 0 and counted.warned == 0, said[-6000:]
    assert counted.passed > 60


def test_sushy(service: str) -> None:
    python = next((found for found in _pythons() if _has_sushy(found)), None)
    if python is None:
        pytest.skip("sushy is not installed: pip install sushy")
    said = run(python, HERE / "inside_sushy.py", service, USER, PASSWORD, seconds=300)
    print(said)
    steps = re.search(r"^(\d+) steps$", said, re.MULTILINE)
    assert steps and said.count("ok ") == int(steps[1]), said


def _pythons() -> Iterator[str]:
    for folder in filter(None, FOLDERS[:2]):
        if found := shutil.which("python3", path=folder):
            yield found


def _has_sushy(python: str) -> bool:
    return subprocess.run([python, "-c", "import sushy"], capture_output=True, check=False).returncode == 0
