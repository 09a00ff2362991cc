"""What the cluster file says about BMCs: which settings count, and what becomes of files with secrets."""

import os
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from placematd.bmc_settings import BmcSettings, effective
from placematd.credentials import password_in
from placematd.errors import Mistake
from placematd.models import BmcCertificate, BmcUser, Cluster, ClusterBmc, ClusterSettings, Node, NodeBmc
from placematd.validate import validate_files

ADMIN = BmcUser(name="admin", role="Administrator", password_credential="admin")
OPERATOR = BmcUser(name="op", role="Operator", password_credential="op")
CERTIFICATE = BmcCertificate(certificate=Path("/bmc.pem"), key=Path("/bmc.key"))
WORKER = Node(name="worker-1", cpu=1)


def cluster(**bmc: object) -> Cluster:
    return Cluster(name="lab", settings=(ClusterSettings(bmc=ClusterBmc(**bmc)),))


def node(**bmc: object) -> Node:
    return replace(WORKER, bmc=NodeBmc(**bmc))


def test_without_any_settings() -> None:
    assert effective(Cluster(name="lab"), WORKER) == BmcSettings(
        users=(), ipmi=True, address=None, media_directory=None, certificate=None
    )


@pytest.mark.proves("Cluster.bmc.users.name", "Cluster.bmc.users.role", "Cluster.bmc.ipmi")
@pytest.mark.proves("Cluster.bmc.media-directory")
def test_settings_of_the_cluster_are_those_of_each_node() -> None:
    wide = cluster(users=(ADMIN,), ipmi=False, media_directory=Path("/srv"), certificate=CERTIFICATE)
    assert effective(wide, WORKER) == BmcSettings(
        users=(ADMIN,), ipmi=False, address=None, media_directory=Path("/srv"), certificate=CERTIFICATE
    )


@pytest.mark.proves("Node.bmc.users.name", "Node.bmc.users.role", "Node.bmc.ipmi", "Node.bmc.address")
def test_settings_of_a_node_take_their_place() -> None:
    wide = cluster(users=(ADMIN,), ipmi=False)
    own = effective(wide, node(users=(OPERATOR,), ipmi=True, address=ip_address("fd00::2")))
    assert (own.users, own.ipmi, own.address) == ((OPERATOR,), True, ip_address("fd00::2"))
    assert effective(cluster(ipmi=True), node(ipmi=False)).ipmi is False


@pytest.mark.parametrize(
    ("data", "password"),
    [
        (b"secret", "secret"),
        (b"secret\n", "secret"),
        (b"secret\r\n", "secret"),
        (b" x \n", " x "),
        (b"x" * 20, "x" * 20),
    ],
)
def test_a_password_is_what_a_file_holds_without_its_line_end(data: bytes, password: str) -> None:
    assert password_in(data) == password


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"secretsecretsecretsec", "longer than 20 bytes"),
        (b"secret\nsecret", "control characters"),
        (b"secret\0", "control characters"),
        (b"secret\xff", "not UTF-8"),
    ],
)
def test_what_cannot_be_a_password_is_not_shown(data: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        password_in(data)
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__ or not caught.value.__context__


def said(user: BmcUser) -> list[Mistake]:
    return list(validate_files(cluster(users=(user,))))


def admin(path: Path) -> BmcUser:
    return BmcUser(name="admin", role="Administrator", password_file=path)


def test_password_files(tmp_path: Path) -> None:
    path = tmp_path / "admin"
    path.write_text("secret\n")
    path.chmod(0o600)
    assert said(admin(path)) == []
    path.chmod(0o644)
    (warning,) = said(admin(path))
    assert (warning.severity, warning.message) == (
        "warning",
        f"user admin: password-file: {path} can be read by everybody",
    )
    assert warning.hint == f"chmod 600 {path}"


def test_the_content_of_a_password_file_is_checked_and_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "admin"
    path.write_text("secret" * 4)
    path.chmod(0o600)
    (mistake,) = said(admin(path))
    path.chmod(0o644)
    assert [found.severity for found in said(admin(path))] == ["warning", "error"]
    assert mistake.severity == "error"
    assert "longer than 20 bytes" in mistake.message and "secret" not in str(mistake)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_who_is_not_root_may_check_a_file_with_secrets_of_root() -> None:
    with TemporaryDirectory() as name:  # a place that others may enter, unlike tmp_path
        directory = Path(name)
        directory.chmod(0o755)
        (directory / "closed").mkdir(mode=0o700)
        files = [directory / "admin", directory / "closed" / "admin"]
        for path in files:
            path.write_text("x" * 30)
            path.chmod(0o600)
        os.setresuid(65534, 65534, 0)
        try:
            readable, hidden, missing = (said(admin(path)) for path in (*files, directory / "missing"))
        finally:
            os.setresuid(0, 0, 0)
    assert (readable, hidden) == ([], [])
    assert [mistake.message.endswith("no such file") for mistake in missing] == [True]
