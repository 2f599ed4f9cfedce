"""A small certificate authority for one cluster: ECDSA on P-256, which every TLS 1.3 speaks (RFC 8446, 9.1).

The package ``cryptography`` is needed here only, so it is an extra of this package.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from dllama_worker.errors import UsageError, reason_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.x509 import Certificate, CertificateBuilder, Name

__all__ = ["make_certificates"]

_AUTHORITY = "ca"
_AUTHORITY_DAYS = 3650

#: Clocks of a home are not that exact: certificates are valid from so much earlier.
_BACKDATED = timedelta(days=1)

#: A name becomes a file's name, and a common name (64 letters at most, RFC 5280).
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


def make_certificates(folder: Path, nodes: Sequence[str], days: int) -> list[Path]:
    """Make a certificate and a key for each node, and the authority where there is none; return the new files.

    Keys are readable by their owner only. Raises UsageError where a file exists already, before any is written,
    where a name cannot be one, where the authority is broken or over, and without ``cryptography``.
    """
    _check_names(nodes)
    _need_cryptography()
    wanted = [folder / f"{node}.{kind}" for node in nodes for kind in ("crt", "key")]
    for path in wanted:
        if path.exists():
            raise UsageError(
                f"{path} is there already and is not overwritten: choose another name, or remove it"
            )
    made: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        certificate, key = _authority(folder, days, made)
        for node in nodes:
            _make_node(folder, node, days, (certificate, key), made)
    except OSError as error:
        raise UsageError(
            f"{error.filename or folder}: cannot be written or read: {reason_of(error)}"
        ) from error
    return made


def _check_names(nodes: Sequence[str]) -> None:
    for node in nodes:
        if not _NAME.fullmatch(node) or node == _AUTHORITY:
            raise UsageError(
                f"{node!r} cannot be a node's name: expected letters, digits, and . _ - between them, 63 at most, "
                f"and not {_AUTHORITY!r}"
            )
    twice = [node for node in nodes if list(nodes).count(node) > 1]
    if twice:
        raise UsageError(f"{twice[0]} is there twice: name each node once")


def _need_cryptography() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "making certificates needs the package cryptography: pip install 'dllama-worker[tls]' "
            "(on one machine; nodes that only use certificates do not need it)"
        ) from error


def _authority(folder: Path, days: int, made: list[Path]) -> tuple[Certificate, EllipticCurvePrivateKey]:
    """Return the authority of this folder, a new one where it has none."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    paths = folder / f"{_AUTHORITY}.crt", folder / f"{_AUTHORITY}.key"
    present = [path for path in paths if path.exists()]
    if len(present) == 1:
        missing = paths[1] if present[0] == paths[0] else paths[0]
        raise UsageError(
            f"{present[0]} is there and {missing} is not: an authority is both; bring it back, "
            "or use another --out"
        )
    if not present:
        key = ec.generate_private_key(ec.SECP256R1())
        name = f"Distributed-Llama cluster {x509.random_serial_number():x}"[:40]
        certificate = _sign(
            _builder(name, key, max(days, _AUTHORITY_DAYS)), name, key, key, is_authority=True
        )
        _write_pair(folder, _AUTHORITY, certificate, key, made)
        return certificate, key
    try:
        certificate = x509.load_pem_x509_certificate(paths[0].read_bytes())
        loaded = serialization.load_pem_private_key(paths[1].read_bytes(), None)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{paths[0]}, {paths[1]}: expected PEM files of an authority: {error}") from error
    if (
        not isinstance(loaded, ec.EllipticCurvePrivateKey)
        or loaded.public_key() != certificate.public_key()
    ):
        raise UsageError(f"{paths[1]} is not the key of {paths[0]}")
    if certificate.not_valid_after_utc < _now() + timedelta(days=days):
        raise UsageError(
            f"{paths[0]} is valid until {certificate.not_valid_after_utc:%Y-%m-%d}, no node can be "
            f"for {days} days: give fewer --days, or make a new authority in another --out"
        )
    return certificate, loaded


def _make_node(
    folder: Path,
    node: str,
    days: int,
    authority: tuple[Certificate, EllipticCurvePrivateKey],
    made: list[Path],
) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    issuer = authority[0].subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _sign(_builder(node, key, days), str(issuer), key, authority[1], is_authority=False)
    _write_pair(folder, node, certificate, key, made)


def _builder(name: str, key: EllipticCurvePrivateKey, days: int) -> CertificateBuilder:
    from cryptography import x509

    now = _now()
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + timedelta(days=days))
    )


def _sign(
    builder: CertificateBuilder,
    issuer: str,
    key: EllipticCurvePrivateKey,
    signer: EllipticCurvePrivateKey,
    *,
    is_authority: bool,
) -> Certificate:
    """Say who vouches and what for, as RFC 5280 wants it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID

    usages = dict.fromkeys(
        (
            "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
            "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
        ),
        False,
    ) | ({"key_cert_sign": True, "crl_sign": True} if is_authority else {"digital_signature": True})  # fmt: skip
    builder = (
        builder.issuer_name(_name(issuer))
        .add_extension(
            x509.BasicConstraints(ca=is_authority, path_length=0 if is_authority else None), critical=True
        )
        .add_extension(x509.KeyUsage(**usages), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    if not is_authority:
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(both), critical=False)
    return builder.sign(signer, hashes.SHA256())


def _now() -> datetime:
    return datetime.now(UTC)


def _name(text: str) -> Name:
    from cryptography import x509

    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def _write_pair(
    folder: Path, stem: str, certificate: Certificate, key: EllipticCurvePrivateKey, made: list[Path]
) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key_text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for kind, data, mode in (
        ("key", key_text, 0o600),
        ("crt", certificate.public_bytes(Encoding.PEM), 0o644),
    ):
        path = folder / f"{stem}.{kind}"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
        made.append(path)
