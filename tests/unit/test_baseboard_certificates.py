"""Certificates of BMCs: what a client checks, when they are made anew, and who can read the keys."""

import asyncio
import ssl
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from placematd.baseboard.certificates import authority_pem, certify
from placematd.errors import StepError
from placematd.models import BmcCertificate
from placematd.names import bmc_files

NOW = datetime.now(UTC)
IPV4, IPV6 = ip_address("127.0.0.1"), ip_address("::1")
ADDRESSES = (IPV4, IPV6)


def made(data: Path, node: str = "worker-1", addresses=ADDRESSES, **options) -> x509.Certificate:
    assert certify(data, "lab", node, addresses, **options)
    return x509.load_pem_x509_certificate(bmc_files(data, "lab", node).certificate.read_bytes())


def client(data: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority_pem(data, "lab"))
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    return context


async def handshake(context: ssl.SSLContext, server: ssl.SSLContext, name: str) -> None:
    """A TLS connection on the loopback address to a server that is called `name`."""
    listener = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0, ssl=server)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
        writer.close()


def serving(data: Path, node: str = "worker-1") -> ssl.SSLContext:
    files = bmc_files(data, "lab", node)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.certificate, files.key)
    return context


@pytest.mark.parametrize("name", ["127.0.0.1", "::1", "worker-1"])
def test_a_client_that_trusts_the_ca_accepts_address_and_name(tmp_path: Path, name: str) -> None:
    made(tmp_path)
    asyncio.run(handshake(client(tmp_path), serving(tmp_path), name))


def test_a_client_refuses_another_name_and_another_cluster(tmp_path: Path) -> None:
    made(tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError, match="IP address mismatch"):
        asyncio.run(handshake(client(tmp_path), serving(tmp_path), "127.0.0.2"))
    with pytest.raises(ssl.SSLCertVerificationError, match="verify failed"):
        asyncio.run(handshake(client(tmp_path / "other"), serving(tmp_path), "127.0.0.1"))


def test_openssl_agrees(tmp_path: Path) -> None:
    made(tmp_path)
    (tmp_path / "ca.pem").write_text(authority_pem(tmp_path, "lab"))
    certificate = bmc_files(tmp_path, "lab", "worker-1").certificate
    checks = ["-x509_strict", "-purpose", "sslserver", "-verify_ip", "127.0.0.1"]
    command = ["openssl", "verify", *checks, "-CAfile", str(tmp_path / "ca.pem"), str(certificate)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == f"{certificate}: OK\n"


def test_what_it_is_good_for(tmp_path: Path) -> None:
    certificate = made(tmp_path, now=NOW)
    lifetime = certificate.not_valid_after_utc if hasattr(certificate, "not_valid_after_utc") else None
    lifetime = lifetime or certificate.not_valid_after.replace(tzinfo=UTC)
    assert NOW + timedelta(days=800) < lifetime < NOW + timedelta(days=825)
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert certificate.public_key().curve.name == "secp256r1"


def test_keys_are_for_root_alone(tmp_path: Path) -> None:
    made(tmp_path)
    directory = tmp_path / "lab" / "bmc"
    assert directory.stat().st_mode & 0o777 == 0o700
    files = {path.name: path.stat().st_mode & 0o777 for path in directory.iterdir()}
    assert files == dict.fromkeys(["@ca.crt", "@ca.key", "worker-1.crt", "worker-1.key"], 0o600)


def test_it_stays_until_there_is_a_reason(tmp_path: Path) -> None:
    first = made(tmp_path, now=NOW)
    assert not certify(tmp_path, "lab", "worker-1", ADDRESSES[::-1], now=NOW + timedelta(days=700))
    assert made(tmp_path, addresses=(IPV4,), now=NOW).serial_number != first.serial_number
    assert not certify(tmp_path, "lab", "worker-1", (IPV4,), now=NOW)
    made(tmp_path, addresses=(IPV4,), now=NOW + timedelta(days=800))
    made(tmp_path, addresses=(IPV4,), now=NOW)  # the clock was wrong when the last one was made
    files = bmc_files(tmp_path, "lab", "worker-1")
    files.key.write_bytes(bmc_files(tmp_path, "lab", "@ca").key.read_bytes())
    made(tmp_path, addresses=(IPV4,), now=NOW)
    files.certificate.write_text("rubbish")
    made(tmp_path, addresses=(IPV4,), now=NOW)


def test_the_ca_stays_and_is_made_anew_when_it_is_old_or_broken(tmp_path: Path) -> None:
    first = authority_pem(tmp_path, "lab", NOW)
    made(tmp_path, now=NOW)
    assert authority_pem(tmp_path, "lab", NOW + timedelta(days=3500)) == first
    late = made(tmp_path, now=NOW + timedelta(days=3500))
    asked = getattr(late, "not_valid_after_utc", None) or late.not_valid_after.replace(tzinfo=UTC)
    assert asked < NOW + timedelta(days=3651)  # no longer than the CA itself
    renewed = authority_pem(tmp_path, "lab", NOW + timedelta(days=3600))
    assert renewed != first
    made(tmp_path, now=NOW + timedelta(days=3600))
    bmc_files(tmp_path, "lab", "@ca").key.write_text("rubbish")
    assert authority_pem(tmp_path, "lab", NOW) not in (first, renewed)
    made(tmp_path, now=NOW)
    asyncio.run(handshake(client(tmp_path), serving(tmp_path), "127.0.0.1"))
    another = authority_pem(tmp_path, "lab", NOW)
    bmc_files(tmp_path, "lab", "@ca").key.write_bytes(bmc_files(tmp_path, "lab", "worker-1").key.read_bytes())
    assert authority_pem(tmp_path, "lab", NOW) != another


def test_many_at_once_have_one_ca(tmp_path: Path) -> None:
    start = threading.Barrier(8)

    def make(node: str) -> bool:
        start.wait()
        return certify(tmp_path, "lab", node, ADDRESSES)

    nodes = [f"node-{number}" for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(make, nodes))
    for node in nodes:
        asyncio.run(handshake(client(tmp_path), serving(tmp_path, node), node))


@pytest.mark.proves("Cluster.bmc.certificate.certificate", "Cluster.bmc.certificate.key")
def test_a_certificate_of_ones_own_takes_the_place(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    made(theirs, "bmc")
    own = BmcCertificate(certificate=bmc_files(theirs, "lab", "bmc").certificate, key=theirs / "lab/bmc/bmc.key")
    ours = tmp_path / "ours"
    assert certify(ours, "lab", "worker-1", ADDRESSES, own)
    assert not certify(ours, "lab", "worker-1", (IPV4,), own)
    asyncio.run(handshake(client(theirs), serving(ours), "bmc"))
    assert certify(ours, "lab", "worker-1", ADDRESSES)  # it was taken out of the cluster file
    asyncio.run(handshake(client(ours), serving(ours), "worker-1"))


def test_a_certificate_of_ones_own_that_has_expired_is_used_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made(tmp_path / "theirs", "bmc", now=NOW - timedelta(days=1000))
    files = bmc_files(tmp_path / "theirs", "lab", "bmc")
    assert certify(tmp_path, "lab", "x", ADDRESSES, BmcCertificate(certificate=files.certificate, key=files.key))
    assert "the certificate has expired" in caplog.text


def test_what_is_wrong_with_a_certificate_of_ones_own(tmp_path: Path) -> None:
    made(tmp_path, "one")
    made(tmp_path, "two")
    one, two = bmc_files(tmp_path, "lab", "one"), bmc_files(tmp_path, "lab", "two")
    with pytest.raises(StepError, match="the key is not that of the certificate"):
        certify(tmp_path, "lab", "x", ADDRESSES, BmcCertificate(certificate=one.certificate, key=two.key))
    with pytest.raises(StepError, match="both have to be PEM"):
        certify(tmp_path, "lab", "x", ADDRESSES, BmcCertificate(certificate=one.key, key=one.key))
    with pytest.raises(StepError, match="No such file"):
        certify(tmp_path, "lab", "x", ADDRESSES, BmcCertificate(certificate=tmp_path / "none", key=one.key))
    assert not bmc_files(tmp_path, "lab", "x").certificate.exists()


def test_a_disk_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "lab").write_text("a file where a directory should be")
    with pytest.raises(StepError, match="certificate of the BMC of node worker-1"):
        certify(tmp_path, "lab", "worker-1", ADDRESSES)
    with pytest.raises(StepError, match="CA of cluster lab"):
        authority_pem(tmp_path, "lab")
