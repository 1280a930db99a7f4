"""Images are signed with the operator's certificate, and C2PA's own reader finds them sound."""

import json
from pathlib import Path
from typing import Any

import c2pa
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from PIL import Image

import calotype
from calotype.imaging.conversion import Converter
from calotype.imaging.signature import Sign, Signature, Unfit
from calotype.imaging.signing import check
from imaging.certificates import NOW, certified

TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
KEYS: dict[str, Any] = {
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    "RSA": lambda: rsa.generate_private_key(65_537, 2048),
}


def read(path: Path) -> dict[str, Any]:
    """What C2PA's own reader says."""
    with Image.open(path) as image:
        content_type = TYPES[image.format or ""]
    with path.open("rb") as file, c2pa.Reader(content_type, file) as reader:
        said: dict[str, Any] = json.loads(reader.json())
    return said


async def signed(
    converter: Converter, folder: Path, signature: Signature, kind: str, model: str | None
) -> Path:
    source, target = folder / "source", folder / "target"
    Image.effect_noise((64, 48), 50).convert("RGB").save(source, kind)
    order = Sign(str(source), str(target), TYPES[kind], signature, model)
    await converter.sign(order, account_id=1)
    with Image.open(source) as before, Image.open(target) as after:
        assert before.tobytes() == after.tobytes()
    return target


@pytest.mark.parametrize("kind", TYPES)
async def test_a_signed_image_says_what_made_it(
    converter: Converter, tmp_path: Path, kind: str
) -> None:
    signature = certified(tmp_path, KEYS["P-256"]())
    assert check(signature) > NOW
    said = read(await signed(converter, tmp_path, signature, kind, "GPT Image 2"))
    assert said["validation_state"] == "Valid"
    manifest = said["manifests"][said["active_manifest"]]
    generator = manifest["claim_generator_info"][0]
    assert (generator["name"], generator["version"]) == ("Calotype", calotype.__version__)
    assert manifest["signature_info"]["issuer"] == "Calotype tests"
    (actions,) = (
        each["data"]["actions"]
        for each in manifest["assertions"]
        if each["label"].startswith("c2pa.actions")
    )
    assert [each["action"] for each in actions] == ["c2pa.created"]
    assert actions[0]["digitalSourceType"].endswith("/trainedAlgorithmicMedia")
    assert actions[0]["softwareAgent"]["name"] == "GPT Image 2"
    assert "thumbnail" not in manifest


@pytest.mark.parametrize("name", KEYS)
async def test_every_kind_of_key_that_is_taken_signs(
    converter: Converter, tmp_path: Path, name: str
) -> None:
    signature = certified(tmp_path, KEYS[name]())
    check(signature)
    said = read(await signed(converter, tmp_path, signature, "PNG", None))
    assert said["validation_state"] == "Valid"
    assert "/algorithmicMedia" in json.dumps(said)


async def test_a_change_of_a_signed_image_is_seen(converter: Converter, tmp_path: Path) -> None:
    signature = certified(tmp_path, KEYS["P-256"]())
    path = await signed(converter, tmp_path, signature, "JPEG", None)
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    assert read(path)["validation_state"] == "Invalid"


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"self_signed": True}, "self-signed"),
        ({"days": -1}, "renew it"),
        ({"use": ExtendedKeyUsageOID.SERVER_AUTH}, "extended key usage"),
        ({"ca": True}, "is a CA's"),
        ({"signs": False}, "digitalSignature"),
    ],
)
def test_an_unfit_certificate_is_told_at_once(
    tmp_path: Path, how: dict[str, Any], message: str
) -> None:
    with pytest.raises(Unfit, match=message) as unfit:
        check(certified(tmp_path, KEYS["P-256"](), **how))
    assert unfit.value.subject == "certificate"


def test_what_is_wrong_with_the_files_is_told_without_what_they_hold(tmp_path: Path) -> None:
    good = certified(tmp_path, KEYS["P-256"]())
    secret = tmp_path / "secret.pem"
    secret.write_text("hush hush")
    others = tmp_path / "others"
    others.mkdir()
    other = certified(others, KEYS["P-256"]())
    locked = tmp_path / "locked.pem"
    locked.write_bytes(
        KEYS["P-256"]().private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        )
    )
    for certificate, key, subject, message in (
        (good.certificate, other.key, "key", "not the key of the first certificate"),
        (good.certificate, str(locked), "key", "encrypted"),
        (good.certificate, str(secret), "key", "no private key"),
        (good.certificate, str(tmp_path / "none"), "key", "cannot be read"),
        (str(secret), good.key, "certificate", "no certificates"),
        (str(tmp_path / "none"), good.key, "certificate", "cannot be read"),
    ):
        with pytest.raises(Unfit, match=message) as unfit:
            check(Signature(certificate, key))
        assert unfit.value.subject == subject
        assert "hush" not in str(unfit.value)


@pytest.mark.parametrize("name", ["P-256", "RSA"])
async def test_a_key_as_openssl_once_wrote_it_signs_and_so_does_a_chain_with_words_in_it(
    converter: Converter, tmp_path: Path, name: str
) -> None:
    key = KEYS[name]()
    signature = certified(tmp_path, key)
    _as_once(signature, key)
    check(signature)
    said = read(await signed(converter, tmp_path, signature, "PNG", None))
    assert said["validation_state"] == "Valid"


def test_a_certificate_that_only_the_library_refuses_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(Unfit, match="C2PA does not sign with it") as unfit:
        check(certified(tmp_path, KEYS["P-256"](), more=(ExtendedKeyUsageOID.TIME_STAMPING,)))
    assert unfit.value.subject == "certificate"


def _as_once(signature: Signature, key: Any) -> None:
    Path(signature.key).write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    chain = Path(signature.certificate)
    chain.write_bytes(b"Bag Attributes: M\xfcller\n" + chain.read_bytes())
