"""The certificates that BMCs show over HTTPS: from a CA of the cluster's own, or one that its author brought.

The CA is made once and stays, so that whoever trusts it (`placemat-cli bmc ca`) goes on trusting all BMCs. Its files
lie beside those of the BMCs (`names.bmc_files`), in a directory that only root enters; "@" begins no node's name.
Everything here blocks for some milliseconds: call it in a thread.
"""

import logging
import os
import threading
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ..atomic import replacing
from ..errors import StepError
from ..models import BmcCertificate, IPAddress
from ..names import BmcFiles, bmc_files

log = logging.getLogger("placematd")

AUTHORITY = "@ca"
AUTHORITY_LIFETIME = timedelta(days=3650)
LIFETIME = timedelta(days=825)
"""What macOS and iOS accept at most, also of a private CA (https://support.apple.com/en-us/103769)."""

RENEWAL = timedelta(days=60)
"""How long before its end a certificate is made anew."""

LEEWAY = timedelta(hours=1)
"""How far a client's clock may be behind."""

_making = threading.Lock()


@dataclass(frozen=True)
class _Authority:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def certify(
    data_dir: Path,
    cluster: str,
    node: str,
    addresses: Collection[IPAddress],
    own: BmcCertificate | None = None,
    now: datetime | None = None,
) -> bool:
    """See to it that a BMC's certificate and key are those that it should have; whether they changed.

    They change with the addresses, before they expire, and with the files that `own` names. Raises StepError.
    """
    files, now = bmc_files(data_dir, cluster, node), now or datetime.now(UTC)
    try:
        if own:
            wanted = _of_ones_own(own, now)
        else:
            authority = _authority(data_dir, cluster, now)
            if _is_good(files, authority, node, addresses, now):
                return False
            wanted = _issue(authority, node, addresses, now)
        return _keep(files, *wanted)
    except OSError as error:
        raise StepError(f"certificate of the BMC of node {node}", str(error)) from error


def authority_pem(data_dir: Path, cluster: str, now: datetime | None = None) -> str:
    """The certificate of the cluster's CA, PEM; the CA is made if there is none yet. Raises StepError."""
    try:
        certificate = _authority(data_dir, cluster, now or datetime.now(UTC)).certificate
    except OSError as error:
        raise StepError(f"CA of cluster {cluster}", str(error)) from error
    return certificate.public_bytes(Encoding.PEM).decode()


# -- the CA -----------------------------------------------------------------------------------------------------------


def _authority(data_dir: Path, cluster: str, now: datetime) -> _Authority:
    files = bmc_files(data_dir, cluster, AUTHORITY)
    with _making:
        authority = _read_authority(files)
        if authority and _expiry(authority.certificate) - now > RENEWAL:
            return authority
        authority = _new_authority(cluster, now)
        _keep(files, authority.certificate.public_bytes(Encoding.PEM), _private_bytes(authority.key))
        log.info("cluster %s: made a CA for the certificates of its BMCs", cluster)
        return authority


def _read_authority(files: BmcFiles) -> _Authority | None:
    """None where there is none, or none of any use: that is said, since clients will have to trust another."""
    try:
        certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
        key = load_pem_private_key(files.key.read_bytes(), None)
        if isinstance(key, ec.EllipticCurvePrivateKey) and _public(key.public_key()) == _public(
            certificate.public_key()
        ):
            return _Authority(certificate, key)
        reason = "the key is not that of the certificate"
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        reason = str(error)
    log.warning("%s and its key are of no use (%s): a new CA is made", files.certificate, reason)
    return None


def _new_authority(cluster: str, now: datetime) -> _Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "placemat"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"BMCs of {cluster}"),
        ]
    )
    builder = (
        _builder(name, name, key, now, now - LEEWAY + AUTHORITY_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(of_authority=True), critical=True)
    )
    return _Authority(builder.sign(key, hashes.SHA256()), key)


# -- a BMC's certificate ----------------------------------------------------------------------------------------------


def _issue(authority: _Authority, node: str, addresses: Collection[IPAddress], now: datetime) -> tuple[bytes, bytes]:
    """A certificate and its key, PEM."""
    key, issuer = ec.generate_private_key(ec.SECP256R1()), authority.certificate
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node)])
    end = min(now - LEEWAY + LIFETIME, _expiry(issuer))
    builder = (
        _builder(name, issuer.subject, key, now, end)
        .add_extension(_names(node, addresses), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(of_authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
    )
    certificate = builder.sign(authority.key, hashes.SHA256())
    return certificate.public_bytes(Encoding.PEM), _private_bytes(key)


def _is_good(
    files: BmcFiles, authority: _Authority, node: str, addresses: Collection[IPAddress], now: datetime
) -> bool:
    """Whether what is there is what `_issue` would make, with enough time left."""
    try:
        certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
        _check_pair(certificate, files.key.read_bytes())
        authority.key.public_key().verify(
            certificate.signature, certificate.tbs_certificate_bytes, ec.ECDSA(hashes.SHA256())
        )
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (FileNotFoundError, ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    timely = _start(certificate) <= now < _expiry(certificate) - RENEWAL
    return timely and set(names) == set(_names(node, addresses))


def _of_ones_own(own: BmcCertificate, now: datetime) -> tuple[bytes, bytes]:
    """The certificate and key that the cluster file names. Raises StepError where they do not belong together."""
    attempted = f"use certificate {own.certificate} with key {own.key} for BMCs"
    certificate, key = own.certificate.read_bytes(), own.key.read_bytes()
    try:
        first = x509.load_pem_x509_certificate(certificate)
        _check_pair(first, key)
    except (ValueError, TypeError) as error:
        hint = "both have to be PEM; the server's own certificate comes first; the key has no passphrase"
        raise StepError(attempted, str(error), hint) from error
    if _expiry(first) <= now:
        log.warning("%s: the certificate has expired; clients will refuse it", own.certificate)
    return certificate, key


def _check_pair(certificate: x509.Certificate, key: bytes) -> None:
    """Raise ValueError or TypeError unless the key is that of the certificate."""
    if _public(load_pem_private_key(key, None).public_key()) != _public(certificate.public_key()):
        raise ValueError("the key is not that of the certificate")


def _keep(files: BmcFiles, certificate: bytes, key: bytes) -> bool:
    """Write both, unless that is what is there. A pair that a crash broke apart is no pair, and made anew."""
    present = [path.read_bytes() if path.exists() else None for path in (files.key, files.certificate)]
    if present == [key, certificate]:
        return False
    files.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path, data in ((files.key, key), (files.certificate, certificate)):
        with replacing(path) as part:
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
    return True


# -- pieces -----------------------------------------------------------------------------------------------------------


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - LEEWAY)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _names(node: str, addresses: Collection[IPAddress]) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.DNSName(node), *(x509.IPAddress(address) for address in addresses)])


def _usage(of_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not of_authority,
        key_cert_sign=of_authority,
        crl_sign=of_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _expiry(certificate: x509.Certificate) -> datetime:
    """The attribute without a time zone is deprecated since cryptography 42, which brought the other."""
    end: datetime | None = getattr(certificate, "not_valid_after_utc", None)
    return end or certificate.not_valid_after.replace(tzinfo=UTC)


def _start(certificate: x509.Certificate) -> datetime:
    start: datetime | None = getattr(certificate, "not_valid_before_utc", None)
    return start or certificate.not_valid_before.replace(tzinfo=UTC)


def _public(key: object) -> bytes:
    data: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    return data


def _private_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
