"""What a plan says in other programs' languages, read by those programs: nft(8) and systemd-analyze(1)."""

import shutil
import subprocess
from collections.abc import Iterator
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest

from placematd.facts import Host, Ovmf, Settings
from placematd.models import (
    App,
    Cluster,
    NamespaceInterface,
    Network,
    NetworkNamespace,
    Node,
    RawVolume,
)
from placematd.plan import Plan, plan
from placematd.render_unit import unit_file
from placematd.resources import Firewall, UnitResource
from placematd.unit import Unit

pytestmark = pytest.mark.integration

OVMF = Ovmf(Path("/usr/share/OVMF/OVMF_CODE_4M.fd"), Path("/usr/share/OVMF/OVMF_VARS_4M.fd"))
HOST = Host(accelerator="kvm", accelerator_reason="", vhost_net=True, ovmf=OVMF)
CLUSTER = Cluster(
    name="my-dc",
    networks=(
        Network(name="0.net_a-b", type="external", use_nat=True, address=ip_interface("10.0.0.1/24")),
        Network(
            name="dual",
            type="external",
            use_nat=True,
            addresses=(ip_interface("10.1.0.1/31"), ip_interface("fd00::1/127")),
        ),
        Network(name="int", type="internal"),
    ),
    namespaces=(
        NetworkNamespace(
            name="tor1",
            interfaces=(NamespaceInterface(network="int"),),
            init_scripts=(Path("/bin/true"), Path("/bin/false")),
            apps=(
                App(name="a", command=("sleep", "100%", 'say "hi"'), environment=(("A", "b c"),), user="daemon"),
                App(name="b", command=("/bin/sleep", "1"), restart="always", after=("a",)),
            ),
        ),
    ),
    nodes=(
        Node(
            name="n-1",
            cpu=1,
            uefi=True,
            tpm=True,
            ignition=Path("/etc/hostname"),
            volumes=(RawVolume(name="r", size="1G"),),
        ),
    ),
)


@pytest.fixture(scope="module")
def planned() -> Plan:
    return plan(CLUSTER, HOST, Settings(cluster="my-dc"))


def rules(text: str) -> list[list[str]]:
    """The words of each rule, sorted, because nft sorts sets."""
    lines = [line for line in text.splitlines() if line.strip().endswith(("accept", "masquerade", "policy accept;"))]
    return [sorted(line.replace(",", " ").split()) for line in lines]


def test_nft_takes_the_rules(private_net: Any, planned: Plan) -> None:
    (table,) = (resource for resource in planned.resources if isinstance(resource, Firewall))
    private_net.sh("nft", "-f", "-", input=f"table inet {table.name} {{\n{table.rules}\n}}\n")
    assert len(rules(table.rules)) == 7
    assert rules(private_net.sh("nft", "list", "table", "inet", table.name)) == rules(table.rules)


def units(planned: Plan) -> Iterator[Unit]:
    for resource in planned.resources:
        if isinstance(resource, UnitResource):
            yield resource.unit
            yield from resource.unit.auxiliaries


def verifiable(unit: Unit) -> str:
    """A unit's file; the command of the console's filter is quoted for a shell, which systemd reads otherwise."""
    quoted_otherwise = "-console-" in unit.name and unit.name.endswith(".service")
    lines = unit_file(unit, lambda name: not (quoted_otherwise and name == "ExecStart"))
    text = "\n".join(lines).replace("%", "%%") + "\n"
    return text + "ExecStart=/usr/bin/sed\n" if quoted_otherwise else text


def test_systemd_takes_the_units(planned: Plan, tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("needs systemd")
    for unit in units(planned):
        (tmp_path / unit.name).write_text(verifiable(unit))
    (tmp_path / r"placemat-my\x2ddc.slice").write_text("[Slice]\n")
    files = sorted(tmp_path.iterdir())
    assert len(files) == 9
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *files], capture_output=True, text=True)
    ours = [line for line in done.stderr.splitlines() if "placemat" in line]
    assert ours == []
