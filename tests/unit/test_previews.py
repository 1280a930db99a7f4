"""Images made small enough for an answer."""

import asyncio
import random
from io import BytesIO

import pytest
from PIL import Image

from calotype.mcp.previews import AT_ONCE, Previews

LIMIT = 40_000


def drawn(mode: str, kind: str, size: tuple[int, int] = (1200, 600)) -> bytes:
    """Noise, which no format makes small."""
    chance = random.Random(1)  # noqa: S311 -- repeatable on purpose
    out = BytesIO()
    Image.frombytes(mode, size, chance.randbytes(size[0] * size[1] * len(mode))).save(out, kind)
    return out.getvalue()


async def test_a_small_image_stays_as_it_is() -> None:
    data = drawn("RGB", "PNG", (20, 10))
    found = await Previews().picture(data, "image/png", limit=LIMIT)
    assert found is not None
    assert (found.data, found.content_type, found.size) == (data, "image/png", None)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("RGB", "PNG"), ("RGBA", "PNG"), ("L", "PNG"), ("CMYK", "JPEG"), ("RGBA", "WEBP")],
)
async def test_a_large_image_is_made_to_fit(mode: str, kind: str) -> None:
    found = await Previews().picture(drawn(mode, kind), f"image/{kind.lower()}", limit=LIMIT)
    assert found is not None
    assert len(found.data) <= LIMIT
    with Image.open(BytesIO(found.data)) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", found.size)
        assert image.width == 2 * image.height


async def test_what_is_transparent_becomes_white() -> None:
    out = BytesIO()
    Image.new("RGBA", (64, 64), (0, 0, 0, 0)).save(out, "PNG")
    found = await Previews().picture(out.getvalue(), "image/tiff", limit=LIMIT)
    assert found is not None
    with Image.open(BytesIO(found.data)) as image:
        assert image.getpixel((32, 32)) == (255, 255, 255)


@pytest.mark.parametrize("data", [b"", b"<svg/>", drawn("RGB", "PNG")[:3000]])
async def test_what_cannot_be_drawn_is_not_shown(data: bytes) -> None:
    assert await Previews().picture(data, "image/svg+xml", limit=LIMIT) is None


async def test_what_cannot_be_made_small_enough_is_not_shown() -> None:
    assert await Previews().picture(drawn("RGB", "PNG"), "image/png", limit=10) is None


async def test_few_images_are_held_at_a_time() -> None:
    previews, held, most = Previews(), 0, 0

    async def one() -> None:
        nonlocal held, most
        async with previews.turn():
            held += 1
            most = max(most, held)
            await asyncio.sleep(0)
            held -= 1

    await asyncio.gather(*(one() for _ in range(8)))
    assert most == AT_ONCE
