"""A server that is to sign and cannot does not start, and says what to do."""

from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from calotype.cli.checks import examine
from calotype.core import build_core
from calotype.settings import Settings, SettingsError
from calotype.worker import Images
from imaging.certificates import NOW, certified


def refused(settings: Settings) -> str:
    with pytest.raises(SettingsError) as error:
        Images(build_core(settings))
    return str(error.value)


def test_certificate_and_key_go_together(tmp_path: Path) -> None:
    plain = Settings(data_dir=tmp_path)
    alone = msgspec.structs.replace(plain, c2pa_key=tmp_path / "key.pem")
    assert refused(alone) == "CALOTYPE_C2PA_KEY: needs c2pa_certificate beside it."
    alone = msgspec.structs.replace(plain, c2pa_certificate=tmp_path / "chain.pem")
    assert refused(alone) == "CALOTYPE_C2PA_CERTIFICATE: needs c2pa_key beside it."


def test_a_certificate_that_has_ended_is_named_with_the_cure(tmp_path: Path) -> None:
    made = certified(tmp_path, ec.generate_private_key(ec.SECP256R1()), days=-2)
    settings = Settings(
        data_dir=tmp_path,
        c2pa_certificate=Path(made.certificate),
        c2pa_key=Path(made.key),
        said_by={"c2pa_certificate": "calotype.toml: c2pa_certificate"},
    )
    message = refused(settings)
    assert message.startswith("calotype.toml: c2pa_certificate: is valid from ")
    assert message.endswith("; renew it.")


async def test_doctor_says_until_when_results_are_signed_and_what_hinders_it(
    tmp_path: Path,
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    made = certified(tmp_path, key)
    settings = Settings(
        data_dir=tmp_path,
        c2pa_certificate=Path(made.certificate),
        c2pa_key=Path(made.key),
    )
    finding = (await examine(build_core(settings)))[0]
    assert finding.holds
    assert f"results signed until {NOW + timedelta(days=30):%Y-%m-%d}" in finding.message
    certified(tmp_path, key, days=-2)
    finding = (await examine(build_core(settings)))[0]
    assert not finding.holds
    assert finding.message.startswith("c2pa_certificate: is valid from")
