"""A result is signed where it is to be, and never lost for want of a signature."""

import io
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import c2pa
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from PIL import Image

from calotype.assets.disk import DiskAssets
from calotype.domain.clock import system_clock
from calotype.domain.ids import IdSource
from calotype.domain.task import Asset
from calotype.imaging.provenance import Origin
from calotype.imaging.signature import Signature
from calotype.services.assets import Assets
from imaging.certificates import certified

ORIGIN = Origin("task_1", "A model")


async def kept(assets: Assets, wanted: str) -> Asset:
    async def chunks() -> AsyncIterator[bytes]:
        out = io.BytesIO()
        Image.new("RGB", (64, 48), "teal").save(out, "PNG")
        yield out.getvalue()

    try:
        kept = await assets.keep(
            *(chunks(),),
            account_id=1,
            kind="result",
            max_bytes=1_000_000,
            wanted=wanted,
            origin=ORIGIN,
        )
    finally:
        await assets.converter.close()
    return kept.asset


def assets_in(disk: DiskAssets, signature: Signature) -> Assets:
    return Assets(
        disk,
        secret=b"secret",
        url_seconds=60,
        ids=IdSource(system_clock),
        clock=system_clock,
        signature=signature,
    )


@pytest.mark.parametrize("wanted", ["image/png", "image/webp"])
async def test_a_result_is_stored_signed(tmp_path: Path, wanted: str) -> None:
    disk = DiskAssets(tmp_path / "assets")
    signature = certified(tmp_path, ec.generate_private_key(ec.SECP256R1()))
    asset = await kept(assets_in(disk, signature), wanted)
    path = disk.path(asset.key)
    assert (asset.content_type, asset.bytes) == (wanted, path.stat().st_size)
    with path.open("rb") as file, c2pa.Reader(wanted, file) as reader:
        said = json.loads(reader.json())
    assert said["validation_state"] == "Valid"
    await disk.close()


async def test_a_result_that_cannot_be_signed_is_stored_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = DiskAssets(tmp_path / "assets")
    signature = certified(tmp_path, ec.generate_private_key(ec.SECP256R1()))
    (tmp_path / "key.pem").unlink()
    with caplog.at_level(logging.ERROR):
        asset = await kept(assets_in(disk, signature), "image/png")
    with Image.open(disk.path(asset.key)) as image:
        assert image.size == (64, 48)
    assert "task_1: an image is stored unsigned" in caplog.text
    await disk.close()
