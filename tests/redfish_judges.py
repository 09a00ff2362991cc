"""DMTF's judges of a Redfish service: how to run each one, and what it counted.

    argv = service_validator("https://172.16.1.2", LOGIN, schemas, folder)
    counted = totals(subprocess.run(argv, env=environment(), ...).stdout)

They come from PyPI (packaging/requirements-dev.txt). Schemas are DMTF's DSP8010: the folder or zip that
$REDFISH_SCHEMAS names, ../shared/redfish/csdl.zip beside the clone unless told.
"""

import os
import re
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCHEMAS = Path(os.environ.get("REDFISH_SCHEMAS") or ROOT.parent / "shared" / "redfish" / "csdl.zip")
REQUIREMENTS = "pip install -r packaging/requirements-dev.txt"
TRUST = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
"""In the environment these count for more than the judges' own options."""


@dataclass(frozen=True)
class Login:
    """Who the judges are at the service."""

    user: str
    password: str


@dataclass(frozen=True)
class Totals:
    """What a judge found."""

    passed: int
    warned: int
    failed: int
    untested: int

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.warned} warnings, {self.failed} failed, {self.untested} not tested"


def environment() -> dict[str, str]:
    """Ours without what would change whom the judges trust."""
    return {name: value for name, value in os.environ.items() if name not in TRUST}


def program(name: str) -> str:
    """A program of the interpreter that runs the tests; skips the test where there is none."""
    path = Path(sys.executable).parent / name
    if not path.exists():
        pytest.skip(f"no {name}: {REQUIREMENTS}")
    return str(path)


def schemas(folder: Path) -> Path:
    """DMTF's CSDL files, unpacked into `folder` where they are packed; skips the test where there are none."""
    if not SCHEMAS.exists():
        pytest.skip(
            f"{SCHEMAS} is not there: set REDFISH_SCHEMAS to DMTF's DSP8010, the folder of CSDL files or the zip "
            "(https://www.dmtf.org/dsp/DSP8010)"
        )
    found = SCHEMAS
    if not SCHEMAS.is_dir():
        with zipfile.ZipFile(SCHEMAS) as bundle:
            bundle.extractall(folder)
        found = folder
    return next(iter(found.rglob("ServiceRoot_v1.xml"))).parent


def service_validator(url: str, login: Login, csdl: Path, folder: str | Path) -> list[str]:
    """Compares each resource with its schema. Reports go to `folder`."""
    return [
        *_judge("rf_service_validator", url, login),
        *("--authtype", "Session"),
        *("--logdir", str(folder)),
        *("--schema_directory", str(csdl), "--skipschema"),
    ]


def protocol_validator(url: str, login: Login, folder: str | Path) -> list[str]:
    """Compares requests and answers with the specification, DSP0266; looks for services by multicast too."""
    return [
        *_judge("rf_protocol_validator", url, login),
        *("--no-cert-check", "--avoid-http-redirect"),
        *("--report-dir", str(folder)),
    ]


def use_case_checkers(url: str, login: Login, folder: str | Path) -> list[str]:
    """Does what people do: accounts, power, boot overrides; waits for each reset, 70 s in all."""
    return [*_judge("rf_use_case_checkers", url, login), "--report-dir", str(folder)]


def _judge(name: str, url: str, login: Login) -> list[str]:
    return [program(name), "-r", url, "-u", login.user, "-p", login.password]


_TABLE = re.compile(r"^\| +(\d+) +\| +(\d+) +\| +(\d+) +\| +(\d+) +\|$", re.MULTILINE)
_SUMMARY = re.compile(r"PASS: (\d+), WARN: (\d+), FAIL: (\d+), NOT_TESTED: (\d+)")


def totals(said: str) -> Totals:
    """The totals that a judge ends with, in either of DMTF's two ways to print them."""
    rows = _TABLE.findall(said) or _SUMMARY.findall(said)
    assert rows, said[-6000:]
    return Totals(*map(int, rows[-1]))
