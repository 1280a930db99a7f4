"""Copies within an upstream's limits: what is given up, in which order, and what is kept."""

import secrets
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageOps

from calotype.domain.fitting import Limits, Shape
from calotype.imaging.conversion import Converter, Fit, NotConvertible
from calotype.imaging.fitting import fit
from calotype.imaging.probe import probe
from imaging.corpus import canvas, exif, samples, saved

ALL = ("image/jpeg", "image/png", "image/webp")
SAMPLES = {name: each for name, each in samples().items() if not name.startswith("stranger")}


def noisy(mode: str = "RGB", sides: tuple[int, int] = (400, 300)) -> Image.Image:
    """What compresses badly."""
    width, height = sides
    return Image.frombytes("RGB", sides, secrets.token_bytes(3 * width * height)).convert(mode)


def fitted(content: bytes, folder: Path, limits: Limits) -> Image.Image:
    """The copy, after it was held against the limits."""
    source, target = folder / "source", folder / "target"
    source.write_bytes(content)
    fit(Fit(str(source), str(target), limits))
    facts = probe(str(target))
    shape = Shape(facts.content_type, facts.width, facts.height, target.stat().st_size)
    assert limits.faults(shape) == []
    image = Image.open(BytesIO(target.read_bytes()))
    image.load()
    return image


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("wanted", ALL)
def test_every_image_can_be_had_as_any_type_within_any_sides(
    name: str, wanted: str, tmp_path: Path
) -> None:
    made = fitted(SAMPLES[name], tmp_path, Limits(types=(wanted,), pixels=1000, bytes=3000))
    assert made.width * made.height <= 1000


def test_a_file_that_is_too_large_becomes_another_type_before_it_loses_sides(
    tmp_path: Path,
) -> None:
    photo = saved(noisy(), "PNG")
    made = fitted(photo, tmp_path, Limits(types=ALL, bytes=len(photo) // 2))
    assert (made.format, made.size) == ("JPEG", (400, 300))


def test_sides_shrink_alike_when_quality_alone_is_not_enough(tmp_path: Path) -> None:
    photo = saved(noisy(), "JPEG", quality=95)
    made = fitted(photo, tmp_path, Limits(types=ALL, bytes=20_000))
    assert made.format == "JPEG"
    assert 100 < made.width < 400
    assert made.width / made.height == pytest.approx(4 / 3, abs=0.02)


def test_a_limit_of_pixels_is_nearly_used_up(tmp_path: Path) -> None:
    made = fitted(saved(noisy(), "PNG"), tmp_path, Limits(types=ALL, pixels=30_000))
    assert (made.format, made.size) == ("PNG", (200, 150))


@pytest.mark.parametrize(("types", "form"), [(ALL, "PNG"), (("image/jpeg", "image/webp"), "WEBP")])
def test_transparency_is_kept_where_a_type_has_it(
    types: tuple[str, ...], form: str, tmp_path: Path
) -> None:
    made = fitted(saved(canvas("RGBA"), "PNG"), tmp_path, Limits(types=types, pixels=1000))
    assert made.format == form
    assert min(made.getchannel("A").tobytes()) < 30


def test_transparency_becomes_white_paper_where_none_does(tmp_path: Path) -> None:
    clear = saved(Image.new("RGBA", (40, 30), (0, 0, 0, 0)), "PNG")
    made = fitted(clear, tmp_path, Limits(types=("image/jpeg",)))
    assert made.getpixel((20, 15)) == (255, 255, 255)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_copy_is_upright_and_says_nothing_of_itself(orientation: int, tmp_path: Path) -> None:
    turned = saved(canvas(), "JPEG", exif=exif(orientation), quality=95)
    made = fitted(turned, tmp_path, Limits(types=("image/png",)))
    upright = ImageOps.exif_transpose(Image.open(BytesIO(turned)))
    assert ImageChops.difference(made.convert("RGB"), upright).getbbox() is None
    assert not made.getexif()


def test_the_colour_profile_goes_along(tmp_path: Path) -> None:
    made = fitted(SAMPLES["png profile"], tmp_path, Limits(types=("image/jpeg",)))
    own = Image.open(BytesIO(SAMPLES["png profile"])).info["icc_profile"]
    assert made.info["icc_profile"] == own


@pytest.mark.parametrize("limits", [Limits(types=("image/gif",)), Limits(types=ALL, bytes=50)])
async def test_what_nothing_can_be_made_of_is_refused(
    converter: Converter, limits: Limits, tmp_path: Path
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(SAMPLES["png RGB"])
    with pytest.raises(NotConvertible):
        await converter.fit(source, target, limits, account_id=1)


async def test_a_process_of_its_own_makes_the_copy(converter: Converter, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(SAMPLES["webp RGBA lossy"])
    await converter.fit(source, target, Limits(types=("image/png",)), account_id=1)
    assert probe(str(target)).content_type == "image/png"
