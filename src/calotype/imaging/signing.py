"""C2PA manifests: who made an image, signed with the operator's certificate.

``check`` runs in the server at its start, ``sign`` in converting processes. Nothing here opens a
connection: no time stamp, no remote manifest.
"""

from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

import calotype
from calotype.imaging.provenance import source_type
from calotype.imaging.signature import Sign, Signature, Unfit

_USES: Final = frozenset(
    {
        "1.3.6.1.5.5.7.3.4",  # e-mail protection
        "1.3.6.1.5.5.7.3.36",  # document signing
        "1.3.6.1.4.1.62558.2.1",  # C2PA
    }
)
"""Extended key usages that validators take."""
_CURVES: Final = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
_RSA_BITS: Final = 2048
_LARGEST: Final = 1024 * 1024
_PIXEL: Final = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
    "0000000a49444154789c636000000002000148afa4710000000049454e44ae426082"
)
"""A PNG of one pixel."""
_SETTINGS: Final = {
    "builder": {"thumbnail": {"enabled": False}},
    "verify": {"verify_after_sign": False, "remote_manifest_fetch": False, "ocsp_fetch": False},
}


def check(signature: Signature, *, now: datetime | None = None) -> datetime:
    """Look whether images can be signed; returns until when.

    Raises:
        Unfit: they cannot.

    """
    if find_spec("c2pa") is None:
        raise Unfit("certificate", "signing needs a library: pip install 'calotype[c2pa]'")
    chain, private = _chain(signature), _key(signature).public_key()
    own, now = chain[0], now or datetime.now(UTC)
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    der = serialization.Encoding.DER
    if own.public_key().public_bytes(der, spki) != private.public_bytes(der, spki):
        raise Unfit(
            "key", "is not the key of the first certificate; name the one that it was made with"
        )
    algorithm(own)
    if own.issuer == own.subject:
        raise Unfit("certificate", "is self-signed, which C2PA does not take; have a CA sign it")
    if not own.not_valid_before_utc <= now <= own.not_valid_after_utc:
        raise Unfit(
            "certificate",
            f"is valid from {own.not_valid_before_utc:%Y-%m-%d} to "
            f"{own.not_valid_after_utc:%Y-%m-%d} only; renew it",
        )
    _check_uses(own)
    _try(signature)
    return own.not_valid_after_utc


def _try(signature: Signature) -> None:
    """Sign a picture of one pixel, as C2PA takes less than what is looked at here.

    Raises:
        Unfit: it cannot be done.

    """
    with TemporaryDirectory(prefix="calotype-c2pa-") as folder:
        source, target = Path(folder) / "source.png", Path(folder) / "target.png"
        source.write_bytes(_PIXEL)
        try:
            sign(Sign(str(source), str(target), "image/png", signature, None))
        except Exception as error:  # noqa: BLE001 -- the library's errors have no class in common
            raise Unfit("certificate", f"C2PA does not sign with it ({error}); {_CURE}") from None


def algorithm(certificate: x509.Certificate) -> str:
    """C2PA's name of how a certificate's key signs.

    Raises:
        Unfit: C2PA knows none.

    """
    key = certificate.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return _CURVES[key.curve.name]
    if isinstance(key, ed25519.Ed25519PublicKey):
        return "ed25519"
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= _RSA_BITS:
        return "ps256"
    raise Unfit(
        "certificate",
        "has a key with which C2PA does not sign; take P-256, P-384, P-521, Ed25519, or RSA of "
        "2048 bits or more",
    )


def sign(order: Sign) -> None:
    """Write the signed image; the original stays as it is."""
    import c2pa

    # Written anew, since the library takes PKCS#8 and nothing between the certificates.
    pem = serialization.Encoding.PEM
    chain, key = _chain(order.signature), _key(order.signature)
    info = c2pa.C2paSignerInfo(
        algorithm(chain[0]),
        b"".join(each.public_bytes(pem) for each in chain),
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        None,
    )
    with (
        c2pa.Settings.from_dict(_SETTINGS) as settings,
        c2pa.Context(settings) as context,
        c2pa.Builder(_manifest(order), context) as builder,
        c2pa.Signer.from_info(info) as signer,
        Path(order.source).open("rb") as source,
        Path(order.target).open("w+b") as target,
    ):
        builder.sign(signer, order.content_type, source, target)


def _manifest(order: Sign) -> dict[str, object]:
    generator = {"name": "Calotype", "version": calotype.__version__}
    created = {
        "action": "c2pa.created",
        "digitalSourceType": source_type(order.model),
        "softwareAgent": generator if order.model is None else {"name": order.model},
    }
    return {
        "claim_generator_info": [generator],
        "format": order.content_type,
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [created]}}],
    }


def _chain(signature: Signature) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_content(signature.certificate, "certificate"))
    except ValueError:
        raise Unfit("certificate", "holds no certificates in PEM") from None


def _key(signature: Signature) -> PrivateKeyTypes:
    try:
        return serialization.load_pem_private_key(_content(signature.key, "key"), password=None)
    except TypeError:
        raise Unfit("key", "is encrypted; write it without a password") from None
    except (ValueError, UnsupportedAlgorithm):
        raise Unfit("key", "holds no private key in PEM") from None


def _content(path: str, subject: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(_LARGEST)
    except OSError as error:
        raise Unfit(subject, f"the file cannot be read ({error.strerror})") from None


def _check_uses(certificate: x509.Certificate) -> None:
    """Look at what the certificate may be used for."""
    try:
        extensions = certificate.extensions
        basic = extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
        uses = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    except (x509.ExtensionNotFound, ValueError) as error:
        raise Unfit("certificate", f"is not made for signing ({error}); {_CURE}") from None
    if basic.ca:
        raise Unfit("certificate", f"is a CA's; {_CURE}")
    if not usage.digital_signature:
        raise Unfit("certificate", f"has no key usage digitalSignature; {_CURE}")
    if not _USES & {use.dotted_string for use in uses}:
        raise Unfit("certificate", f"has no extended key usage that C2PA takes; {_CURE}")


_CURE: Final = (
    "take an end-entity certificate with digitalSignature and, as extended key usage, "
    "emailProtection, documentSigning or that of C2PA"
)
