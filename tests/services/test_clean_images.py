"""What becomes of an image on its way into the store: cleaned, turned upright, and marked."""

import dataclasses
import hashlib
import io
import os
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageCms

import calotype
from calotype.assets.disk import DiskAssets
from calotype.domain.errors import UnsupportedReferenceType
from calotype.domain.ids import IdSource, encode
from calotype.imaging import conversion
from calotype.imaging.processes import Processes
from calotype.imaging.provenance import Origin
from calotype.services.assets import Assets, Kept, Kind
from imaging.packets import IPTC, SOURCES, TASK, XMP, said
from imaging.samples import (
    MARK,
    SAMPLES,
    SPOKEN,
    chunk,
    encoded,
    exif,
    kind_of,
    pixels,
    profile,
    scan_bomb,
    segment,
    spoken_png,
)
from services.bench import Bench, Scripted, done

NOW = 1_760_000_000_000
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
ORIGIN = Origin("task_06yje5mbma55t", 'Paint & "Brush" <2>')


def now() -> int:
    return NOW


class Shelf:
    """A store in a folder, and what keeps images in it."""

    def __init__(self, root: Path, **settings: Any) -> None:
        self.root = root
        self.store = DiskAssets(root)
        self.assets = Assets(
            self.store, secret=b"s" * 32, url_seconds=60, ids=IdSource(now), clock=now, **settings
        )

    async def keep(
        self, content: bytes, *, kind: Kind = "result", step: int = 1_000, **options: Any
    ) -> Kept:
        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, len(content), step):
                yield content[start : start + step]

        return await self.assets.keep(
            chunks(), account_id=1, kind=kind, max_bytes=10_000_000, **options
        )

    async def kept(self, content: bytes, **options: Any) -> bytes:
        """What is stored of an image; its row says the truth of it."""
        asset = (await self.keep(content, **options)).asset
        stored = self.store.path(asset.key).read_bytes()
        with Image.open(io.BytesIO(stored)) as image:
            assert (image.width, image.height) == (asset.width, asset.height)
            assert Image.MIME[image.format or ""] in {asset.content_type, "image/apng"}
        assert len(stored) == asset.bytes
        return stored

    def files(self) -> list[Path]:
        return [path for path in self.root.rglob("*") if path.is_file() and path.name != "lock"]


MakeShelf = Callable[..., Shelf]


@pytest.fixture
async def make_shelf(tmp_path: Path) -> AsyncIterator[MakeShelf]:
    made = list[Shelf]()

    def make(**settings: Any) -> Shelf:
        made.append(Shelf(tmp_path / str(len(made)), **settings))
        return made[-1]

    yield make
    for shelf in made:
        await shelf.store.close()


@pytest.mark.parametrize("name", SAMPLES)
async def test_a_result_says_where_it_comes_from_and_nothing_else(
    make_shelf: MakeShelf, name: str
) -> None:
    spoken = SPOKEN[kind_of(SAMPLES[name])](SAMPLES[name])
    stored = await make_shelf().kept(spoken, origin=ORIGIN)
    assert MARK not in stored
    assert pixels(stored) == pixels(SAMPLES[name])
    assert profile(stored) == profile(SAMPLES[name])
    assert said(stored) == {
        f"{XMP}CreatorTool": f"Calotype {calotype.__version__}",
        f"{XMP}CreateDate": "2025-10-09T08:53:20Z",
        TASK: ORIGIN.task,
        f"{IPTC}DigitalSourceType": f"{SOURCES}trainedAlgorithmicMedia",
        f"{IPTC}AISystemUsed": ORIGIN.model,
    }


async def test_a_result_of_no_trained_model_names_none(make_shelf: MakeShelf) -> None:
    stored = await make_shelf().kept(encoded("PNG"), origin=Origin("task_1", None))
    assert said(stored)[f"{IPTC}DigitalSourceType"] == f"{SOURCES}algorithmicMedia"
    assert f"{IPTC}AISystemUsed" not in said(stored)


@pytest.mark.parametrize("name", SAMPLES)
async def test_a_reference_says_nothing_at_all(make_shelf: MakeShelf, name: str) -> None:
    spoken = SPOKEN[kind_of(SAMPLES[name])](SAMPLES[name])
    shelf = make_shelf(keep_upstream_metadata=True)
    stored = await shelf.kept(spoken, kind="reference")
    assert MARK not in stored
    assert said(stored) == {}
    assert pixels(stored) == pixels(SAMPLES[name])


async def test_the_digest_is_that_of_the_bytes_as_they_came(make_shelf: MakeShelf) -> None:
    spoken = spoken_png(encoded("PNG"))
    kept = await make_shelf().keep(spoken, kind="reference")
    assert kept.digest == hashlib.sha256(spoken).digest()
    assert kept.asset.bytes < len(spoken)


async def test_without_provenance_nothing_is_written_into_a_result(make_shelf: MakeShelf) -> None:
    shelf = make_shelf(provenance=False)
    assert await shelf.kept(encoded("PNG"), origin=ORIGIN) == encoded("PNG")


async def test_what_an_upstream_wrote_stays_where_the_operator_wants_it(
    make_shelf: MakeShelf,
) -> None:
    shelf = make_shelf(keep_upstream_metadata=True)
    theirs = chunk(b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + MARK)
    plain = encoded("PNG", dpi=(72, 72))
    spoken = plain[:33] + theirs + chunk(b"caBX", MARK) + plain[33:]
    assert await shelf.kept(spoken, origin=ORIGIN) == spoken
    unsaid = plain[:33] + chunk(b"caBX", MARK) + plain[33:]
    stored = await shelf.kept(unsaid, origin=ORIGIN)
    assert MARK in stored
    assert said(stored)[TASK] == ORIGIN.task


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(2, 9))
async def test_a_turned_image_is_stored_upright(
    make_shelf: MakeShelf, form: str, orientation: int
) -> None:
    quality = {"quality": 100, "subsampling": 0} if form == "JPEG" else {}
    lossless = {"lossless": True} if form == "WEBP" else {}
    picture = io.BytesIO()
    image = Image.new("RGB", (48, 32), "white")
    image.paste("red", (0, 0, 24, 16))
    image.paste("blue", (24, 16, 48, 32))
    image.save(
        picture,
        form,
        exif=b"Exif\x00\x00" + exif(orientation),
        icc_profile=SRGB,
        **quality,
        **lossless,
    )
    kind: Kind = "reference" if orientation % 2 else "result"
    stored = await make_shelf().kept(picture.getvalue(), kind=kind)
    assert MARK not in stored
    assert profile(stored) == SRGB
    with Image.open(io.BytesIO(stored)) as upright:
        assert upright.format == form
        assert upright.size == ((48, 32) if orientation < 5 else (32, 48))
        assert not upright.getexif()
        corners = {
            (left, top): upright.convert("RGB").getpixel(
                (left * (upright.width - 9) + 4, top * (upright.height - 9) + 4)
            )
            for left in (0, 1)
            for top in (0, 1)
        }
    # Where the corner that was stored first is to be seen, as EXIF counts.
    red = {2: (1, 0), 3: (1, 1), 4: (0, 1), 5: (0, 0), 6: (1, 0), 7: (1, 1), 8: (0, 1)}
    for corner, colour in corners.items():
        assert isinstance(colour, tuple)
        if corner == red[orientation]:
            assert colour[0] > 200
            assert max(colour[1:]) < 60
        elif corner == (1 - red[orientation][0], 1 - red[orientation][1]):
            assert colour[2] > 200
            assert max(colour[:2]) < 60
        else:
            assert min(colour) > 200


async def test_a_turned_jpeg_keeps_how_its_colours_were_sampled(make_shelf: MakeShelf) -> None:
    from PIL.JpegImagePlugin import get_sampling

    for sampling in (0, 2):
        turned = encoded("JPEG", subsampling=sampling, exif=b"Exif\x00\x00" + exif(6))
        stored = await make_shelf().kept(turned)
        with Image.open(io.BytesIO(stored)) as image:
            assert get_sampling(image) == sampling


async def test_a_result_that_is_converted_says_where_it_comes_from(make_shelf: MakeShelf) -> None:
    spoken = spoken_png(encoded("PNG"))
    for wanted in ("image/webp", "image/jpeg"):
        stored = await make_shelf().kept(spoken, wanted=wanted, origin=ORIGIN)
        assert MARK not in stored
        assert said(stored)[TASK] == ORIGIN.task


async def test_what_is_not_understood_is_made_anew_if_it_decodes(make_shelf: MakeShelf) -> None:
    plain = encoded("PNG")
    strange = plain[:33] + chunk(b"pHYs", MARK) + plain[33:]
    stored = await make_shelf().kept(strange, origin=ORIGIN)
    assert MARK not in stored
    assert pixels(stored) == pixels(plain)
    assert said(stored)


async def test_what_is_not_understood_and_does_not_decode_is_refused(make_shelf: MakeShelf) -> None:
    plain = encoded("JPEG")
    shelf = make_shelf()
    with pytest.raises(UnsupportedReferenceType):
        await shelf.keep(plain[:2] + segment(0xF7, MARK) + plain[2:])
    assert shelf.files() == []


async def test_an_image_that_comes_byte_by_byte_is_cleaned_too(make_shelf: MakeShelf) -> None:
    for name in ("png", "jpeg", "webp"):
        spoken = SPOKEN[name](SAMPLES[name])
        shelf = make_shelf()
        assert await shelf.kept(spoken, step=1) == await shelf.kept(spoken, step=len(spoken))


async def test_a_task_s_image_names_its_task_and_its_model(bench: Bench) -> None:
    told = Assets(bench.disk, secret=b"s" * 32, url_seconds=60, ids=bench.ids, clock=bench.clock)
    telling = dataclasses.replace(bench, assets=told)
    task = await telling.ran(Scripted([done()], synchronous=True))
    (image,) = task.result
    asset = await bench.store.asset(image.asset_id)
    assert asset is not None
    stored = bench.disk.path(asset.key).read_bytes()
    assert image.bytes == len(stored)
    assert said(stored)[TASK] == encode("task", task.id)
    assert said(stored)[f"{IPTC}AISystemUsed"] == bench.catalog.models["gpt-image-2"].name
    assert said(stored)[f"{IPTC}DigitalSourceType"] == f"{SOURCES}trainedAlgorithmicMedia"


async def test_a_result_that_cannot_be_what_was_asked_for_is_stored_as_what_it_is(
    make_shelf: MakeShelf, caplog: pytest.LogCaptureFixture
) -> None:
    wide = Image.new("RGB", (16_384, 1))
    out = io.BytesIO()
    wide.save(out, "PNG")
    strange = out.getvalue()[:33] + chunk(b"pHYs", MARK) + out.getvalue()[33:]
    for content in (spoken_png(out.getvalue()), strange):
        shelf = make_shelf()
        kept = await shelf.keep(content, wanted="image/webp", origin=ORIGIN)
        assert (kept.asset.content_type, kept.asset.width) == ("image/png", 16_384)
        assert kept.asset.key.endswith(".png")
        stored = shelf.store.path(kept.asset.key).read_bytes()
        assert MARK not in stored
        assert said(stored)[TASK] == ORIGIN.task
    assert f"{ORIGIN.task}: an image is stored as PNG" in caplog.text
    with pytest.raises(UnsupportedReferenceType, match="no WebP"):
        await make_shelf().keep(out.getvalue(), kind="reference", wanted="image/webp")


async def test_a_result_that_no_decoder_takes_is_stored_as_it_came(make_shelf: MakeShelf) -> None:
    plain = encoded("PNG")
    hollow = plain[: plain.index(b"IDAT") - 4] + chunk(b"IDAT", b"no pixels") + chunk(b"IEND", b"")
    stored = await make_shelf().kept(hollow, wanted="image/jpeg")
    assert stored == hollow
    with pytest.raises(UnsupportedReferenceType):
        await make_shelf().keep(b"no image at all", wanted="image/jpeg")


async def test_a_result_that_takes_too_long_is_stored_as_it_came_and_a_reference_is_refused(
    make_shelf: MakeShelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "calotype_test_forever.py").write_text(
        "import time, calotype.imaging.converting as m\n"
        "m._serve = lambda order: time.sleep(600)\n"
        "m.main()\n"
    )
    own = os.environ.get("PYTHONPATH", "")  # noqa: TID251 -- for a child
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{own}")
    monkeypatch.setattr(conversion, "LONGEST_SECONDS", 0.1)
    kinds: tuple[Kind, ...] = ("result", "reference")
    for kind in kinds:
        shelf = make_shelf()
        shelf.assets.converter._processes = Processes("calotype_test_forever", most=1)
        if kind == "result":
            kept = await shelf.keep(encoded("PNG"), wanted="image/webp")
            assert kept.asset.content_type == "image/png"
            continue
        with pytest.raises(UnsupportedReferenceType, match="too long"):
            await shelf.keep(encoded("PNG"), kind=kind, wanted="image/webp")
        assert shelf.files() == []


async def test_a_result_that_grows_past_the_limit_is_stored_all_the_same(
    make_shelf: MakeShelf,
) -> None:
    noise = io.BytesIO()
    Image.effect_noise((4_000, 4_000), 90).convert("RGB").save(noise, "WEBP", quality=1)
    kept = await make_shelf().keep(noise.getvalue(), wanted="image/png", step=100_000)
    assert kept.asset.content_type == "image/png"
    assert kept.asset.bytes > 10_000_000


async def test_an_image_cut_into_tiny_pieces_is_made_anew(make_shelf: MakeShelf) -> None:
    plain = encoded("PNG", size=(200, 200), compress_level=0)
    start = plain.index(b"IDAT") - 4
    packed = zlib.compress(b"".join(b"\0" + bytes(600) for _ in range(200)), 0)
    pieces = [chunk(b"IDAT", packed[at : at + 4]) for at in range(0, len(packed), 4)]
    content = b"".join([plain[:start], *pieces, chunk(b"IEND", b"")])
    stored = await make_shelf().kept(content, step=65_536, wanted="image/png", origin=ORIGIN)
    assert pixels(stored) == pixels(content)
    assert len(stored) < len(packed)


async def test_a_jpeg_of_countless_scans_is_refused(make_shelf: MakeShelf) -> None:
    kinds: tuple[Kind, ...] = ("reference", "result")
    for kind in kinds:
        with pytest.raises(UnsupportedReferenceType, match="100 scans"):
            await make_shelf().keep(scan_bomb(3_000), kind=kind)


async def test_what_follows_the_end_is_never_stored(make_shelf: MakeShelf) -> None:
    plain = encoded("JPEG")
    strange = plain[:2] + segment(0x50, b"unknown") + plain[2:]
    shelf = make_shelf(keep_upstream_metadata=True)
    kept = await shelf.keep(strange + MARK)
    assert shelf.store.path(kept.asset.key).read_bytes() == strange


async def test_a_png_whose_profile_no_decoder_unpacks_is_stored_without_it(
    make_shelf: MakeShelf,
) -> None:
    plain = encoded("PNG")
    for packed in (zlib.compress(bytes(50_000_000)), b"no zlib"):
        bad = plain[:33] + chunk(b"iCCP", b"name\0\0" + packed) + plain[33:]
        for kind in ("reference", "result"):
            stored = await make_shelf().kept(bad, step=65_536, kind=kind)
            assert b"iCCP" not in stored
            assert pixels(stored) == pixels(plain)
