"""Certificates made for tests."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from calotype.imaging.signature import Signature

NOW = datetime.now(UTC)


def certified(
    folder: Path,
    key: Any,
    *,
    days: int = 30,
    use: x509.ObjectIdentifier = ExtendedKeyUsageOID.EMAIL_PROTECTION,
    more: tuple[x509.ObjectIdentifier, ...] = (),
    ca: bool = False,
    self_signed: bool = False,
    signs: bool = True,
) -> Signature:
    """A certificate from a CA of our own, and its key, as files."""
    root_key = ec.generate_private_key(ec.SECP256R1())
    root = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Tests")])
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Calotype tests"),
            x509.NameAttribute(NameOID.COMMON_NAME, "signer"),
        ]
    )
    others = dict.fromkeys(
        ("key_encipherment", "data_encipherment", "key_agreement", "encipher_only"), False
    )
    usage = x509.KeyUsage(
        digital_signature=signs,
        content_commitment=not signs,
        key_cert_sign=ca,
        crl_sign=ca,
        decipher_only=False,
        **others,
    )
    signer = key if self_signed else root_key
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name if self_signed else root)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=60))
        .not_valid_after(NOW + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([use, *more]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    certificate, private = folder / "chain.pem", folder / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return Signature(str(certificate), str(private))
