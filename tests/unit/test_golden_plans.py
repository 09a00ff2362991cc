"""A cluster file in, the plan that `placemat-cli plan` prints out: tests/golden/plans/NAME.yml and NAME.txt.

Comments at the top of a file say what differs from the host and settings below:

    # cluster: NAME
    # host: accelerator=tcg mtu=1460 vhost_net=yes bridges=docker0,br0 private=/root/a.img
    # settings: data_dir=/srv/placemat run_dir=/run/lab cache_dir=/srv/cache

`pytest --update-golden` writes the plans; a changed digest means that reloading replaces the resource.
"""

import re
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from placematd.facts import Host, Ovmf, Settings
from placematd.plan import plan
from placematd.reading import read
from placematd.render import render_plan

PLANS = Path(__file__).parents[1] / "golden" / "plans"
HOME = Path("/etc/placemat")
HOST = Host(
    accelerator="kvm",
    accelerator_reason="golden",
    ovmf=Ovmf(*(Path(f"/usr/share/OVMF/OVMF_{part}.fd") for part in ("CODE_4M", "VARS_4M", "VARS_4M.ms"))),
)


def header(text: str, topic: str) -> dict[str, str]:
    """The key=value words of a comment such as "# host: mtu=1460"."""
    found = re.search(rf"^# {topic}: (.*)$", text, re.MULTILINE)
    return dict(word.split("=", 1) for word in found[1].split()) if found else {}


def host_of(text: str) -> Host:
    given = header(text, "host")
    facts: dict[str, Any] = {
        "accelerator": given.pop("accelerator", "kvm"),
        "vhost_net": given.pop("vhost_net", "no") == "yes",
        "mtu": int(given.pop("mtu", 0)) or None,
        "bridges": frozenset(given.pop("bridges", "").split(",")) - {""},
        "private_files": frozenset(map(Path, given.pop("private", "").split(","))) - {Path()},
    }
    assert not given, f"unknown facts: {given}"
    return replace(HOST, **facts)


def moved(value: Any) -> Any:
    """`value` as if its file were in /etc/placemat, wherever this repository is."""
    if isinstance(value, Path):
        return HOME / value.relative_to(PLANS) if value.is_relative_to(PLANS) else value
    if isinstance(value, tuple):
        return tuple(map(moved, value))
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{item.name: moved(getattr(value, item.name)) for item in fields(value) if item.init})
    return value.replace(str(PLANS), str(HOME)) if isinstance(value, str) else value


def planned(source: Path) -> str:
    text = source.read_text()
    name = re.search(r"^# cluster: (\S+)$", text, re.MULTILINE)
    host = host_of(text)
    settings: dict[str, Any] = {key: Path(value) for key, value in header(text, "settings").items()}
    cluster, warnings = read([source], name[1] if name else "dc", bridges=host.bridges, check_files=False)
    assert [warning for warning in warnings if "cybozu" not in warning.text] == []
    return render_plan(plan(moved(cluster), host, Settings(cluster=cluster.name, **settings)))


@pytest.mark.parametrize("source", sorted(PLANS.glob("*.yml")), ids=lambda path: path.stem)
def test_plan(source: Path, request: pytest.FixtureRequest) -> None:
    golden = source.with_suffix(".txt")
    text = planned(source)
    if request.config.getoption("--update-golden", default=False):
        golden.write_text(text)
    assert text == golden.read_text(), f"if that is intended: pytest --update-golden {Path(__file__).name}"


def test_every_plan_has_its_file() -> None:
    assert {path.stem for path in PLANS.glob("*.txt")} == {path.stem for path in PLANS.glob("*.yml")}
