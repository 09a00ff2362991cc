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
        pytest.skip(f"{name} is not installed: pip install redfish_service_validator redfish_use_case_checkers sushy")
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


def count(pattern: str, text: str) -> int:
    found = re.findall(pattern, text)
    assert found, text[-3000:]
    return int(found[-1])


def test_service_validator(service: str, schemas: Path, tmp_path: Path) -> None:
    said = run(
        *(program("rf_service_validator"), "-r", service, "-u", USER, "-p", PASSWORD, "--authtype", "Session"),
        *("--logdir", tmp_path / "log", "--schema_directory", schemas, "--skipschema"),
        seconds=300,
    )
    totals = {name: count(rf"\b{name}\b\D*(\d+)", said) for name in ("pass", "warn", "fail")}
    print("service validator:", totals)
    assert totals["fail"] == 0, said[-6000:]
    assert totals["pass"] > 635  # sushy-tools on libvirt's test driver, the best of the peers


@pytest.mark.slow
def test_use_case_checkers(service: str, tmp_path: Path) -> None:
    said = run(
        *(program("rf_use_case_checkers"), "-r", service, "-u", USER, "-p", PASSWORD, "--report-dir", tmp_path),
        seconds=900,
    )
    totals = {name: count(rf"(?i)\b{name}\b\D*(\d+)", said) for name in ("pass", "warn", "fail")}
    print("use case checkers:", totals)
    assert totals["fail"] == 0, said[-6000:]
    assert totals["pass"] > 0


def test_sushy(service: str) -> None:
    python = next((found for found in _pythons() if _has_sushy(found)), None)
    if python is None:
        pytest.skip("sushy is not installed: pip install sushy")
    said = run(python, HERE / "inside_sushy.py", service, USER, PASSWORD, seconds=300)
    print(said)
    assert re.search(r"^\d+ steps$", said, re.MULTILINE), said
    assert said.count("ok ") == count(r"(\d+) steps", said)


def _pythons() -> Iterator[str]:
    for folder in filter(None, FOLDERS[:2]):
        if found := shutil.which("python3", path=folder):
            yield found


def _has_sushy(python: str) -> bool:
    return subprocess.run([python, "-c", "import sushy"], capture_output=True, check=False).returncode == 0
