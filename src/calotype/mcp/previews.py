"""Images made small enough to be part of an answer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:  # not before an image needs it
    from PIL import Image

INLINE_BYTES: Final = 600_000
"""Most bytes of images in one answer, before base64: agents refuse answers of more than 1 MiB."""
AT_ONCE: Final = 2
"""Images that one process holds whole at a time, for want of a way to send them in pieces."""
_SIDES: Final = (1024, 768, 512, 256)
_SHOWABLE: Final = frozenset({"image/png", "image/jpeg", "image/webp", "image/gif"})
_QUALITY: Final = 85


class Picture(msgspec.Struct, frozen=True):
    """An image as it goes into an answer."""

    data: bytes
    content_type: str
    size: tuple[int, int] | None = None
    """Width and height of a preview; None for the image itself."""


class Previews:
    """Makes previews, few at a time."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(AT_ONCE)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """While entered, an image may be held whole."""
        async with self._turns:
            yield

    async def picture(self, data: bytes, content_type: str, *, limit: int) -> Picture | None:
        """The image, or a smaller copy where it has more than ``limit`` bytes.

        None for what cannot be made that small.
        """
        if len(data) <= limit and content_type in _SHOWABLE:
            return Picture(data, content_type)
        return await asyncio.to_thread(_smaller, data, limit)


def _smaller(data: bytes, limit: int) -> Picture | None:
    """A JPEG of at most ``limit`` bytes."""
    from PIL import Image

    try:
        with Image.open(BytesIO(data)) as opened:
            opened.draft("RGB", (_SIDES[0], _SIDES[0]))  # a JPEG is decoded at a fraction
            opened.thumbnail((_SIDES[0], _SIDES[0]))
            image = _flat(opened)
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    for side in _SIDES:
        image.thumbnail((side, side))
        out = BytesIO()
        image.save(out, "JPEG", quality=_QUALITY, optimize=True)
        if out.tell() <= limit:
            return Picture(out.getvalue(), "image/jpeg", image.size)
    return None


def _flat(image: "Image.Image") -> "Image.Image":
    """In the colours of a JPEG; what is transparent becomes white."""
    from PIL import Image

    if not image.has_transparency_data:
        return image.convert("RGB")
    over = image.convert("RGBA")
    under = Image.new("RGBA", over.size, "white")
    return Image.alpha_composite(under, over).convert("RGB")
