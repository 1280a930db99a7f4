"""Reference images, read safely and laid into the scene as small prints."""

import math
import random
import struct
import warnings
import zlib
from typing import Final

from PIL import Image, ImageDraw, ImageFilter, ImageOps

from calotype.providers.sandbox.lettering import font
from calotype.providers.sandbox.palette import Palette, mix, rgb

MOST_PIXELS: Final = 100_000_000
"""The largest reference that is decoded; of a larger one only the header is read."""
Image.MAX_IMAGE_PIXELS = MOST_PIXELS
_LEAST_FACE = 8
"""Pixels: a number set smaller could not be read."""
_READABLE = ("JPEG", "PNG", "WEBP")
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    TypeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
"""What Pillow's decoders raise on bytes that are no image, or half of one."""


def _read(path: str, *, side: int) -> Image.Image:
    """An upright RGB copy with its longer side near `side` pixels."""
    with Image.open(path, formats=_READABLE) as image:
        # A JPEG is decoded at a fraction of its size; the others only shrink after decoding.
        image.draft("RGB", (2 * side, 2 * side))
        image.thumbnail((2 * side, 2 * side), Image.Resampling.BOX, reducing_gap=1.0)
        upright = ImageOps.exif_transpose(image)
    if upright.mode == "I;16":
        upright = upright.point(lambda v: v / 256).convert("L")
    if upright.has_transparency_data:
        flat = Image.new("RGB", upright.size, "#ffffff")
        clear = upright.convert("RGBA")
        flat.paste(clear, mask=clear.getchannel("A"))
        return flat
    return upright.convert("RGB")


def read(path: str, *, number: int, side: int) -> Image.Image:
    """The reference of that number, about `side` pixels long; ValueError where it is no image."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return _read(path, side=side)
    except _BROKEN as error:
        raise ValueError(
            f"Reference {number} is not a readable JPEG, PNG or WebP image of at most "
            f"{MOST_PIXELS // 1_000_000} megapixels."
        ) from error


def _grid(count: int, width: float, height: float) -> tuple[int, int, float]:
    """Columns, rows and the cell's side that let so many squares be as large as they can."""
    best = (1, count, 0.0)
    for columns in range(1, count + 1):
        rows = math.ceil(count / columns)
        cell = min(width / columns, height / rows)
        if cell > best[2] * 1.001:
            best = (columns, rows, cell)
    return best


def hang(
    image: Image.Image,
    references: tuple[str, ...],
    *,
    box: tuple[int, int, int, int],
    palette: Palette,
    rng: random.Random,
) -> None:
    """Lay the references over the scene, in order, row by row from the left."""
    count = len(references)
    if not count:
        return
    left, top, right, bottom = box
    width, height = (right - left) * 0.94, (bottom - top) * 0.9
    columns, rows, cell = _grid(count, width, height)
    limit = 0.46 if count == 1 else 0.4
    cell = min(cell, limit * math.sqrt((right - left) * (bottom - top)), 0.9 * min(width, height))
    middle = (left + right) / 2
    # Few prints lie low, so that the sky and its light stay in view.
    y0 = max(
        top + (bottom - top - rows * cell) * 0.5,
        bottom - (bottom - top) * 0.05 - rows * cell - (bottom - top) * 0.06,
    )
    for i, path in enumerate(references):
        row, column = divmod(i, columns)
        in_row = min(columns, count - row * columns)
        x = middle + (column - (in_row - 1) / 2) * cell
        y = y0 + (row + 0.5) * cell
        _lay(
            image,
            path,
            number=i + 1,
            centre=(x, y),
            side=cell * 0.9,
            palette=palette,
            tilt=rng.uniform(-4, 4),
        )


def _lay(
    image: Image.Image,
    path: str,
    *,
    number: int,
    centre: tuple[float, float],
    side: float,
    palette: Palette,
    tilt: float,
) -> None:
    """One print with its shadow, turned by `tilt` degrees, within `side` pixels."""
    reference = read(path, number=number, side=max(32, round(side)))
    card = _card(reference, number=number, side=side, palette=palette)
    turned = card.rotate(tilt, Image.Resampling.BICUBIC, expand=True)
    x, y = round(centre[0] - turned.width / 2), round(centre[1] - turned.height / 2)
    blur = max(1.0, side * 0.018)
    pad = math.ceil(3 * blur)
    shadow = Image.new("L", (turned.width + 2 * pad, turned.height + 2 * pad))
    shadow.paste(turned.getchannel("A").point(lambda v: v * 0.42), (pad, pad))
    shadow = shadow.filter(ImageFilter.BoxBlur(blur))
    left, top = x - pad, y - pad + round(side * 0.014)
    dark = mix(rgb(palette.near), (0, 0, 0), 0.5)
    image.paste(dark, (left, top, left + shadow.width, top + shadow.height), shadow)
    image.paste(turned, (x, y), turned)


def _card(reference: Image.Image, *, number: int, side: float, palette: Palette) -> Image.Image:
    """The reference on its white paper with its number, on a clear ground."""
    ratio = min(1.35, max(0.74, reference.width / reference.height))
    border = max(2, round(side * 0.045))
    foot = max(border, round(side * 0.13))
    tall = side * 0.94
    height = min(tall - border - foot, (tall - 2 * border) / ratio)
    inner = (max(8, round(height * ratio)), max(8, round(height)))
    sheet = mix(rgb(palette.paper), (255, 255, 255), 0.45)
    # A clear rim, so that the edge is smoothed against something when the card is turned.
    size = (inner[0] + 2 * border + 4, inner[1] + border + foot + 4)
    card = Image.new("RGBA", size, (*sheet, 0))
    card.paste(sheet, (2, 2, size[0] - 2, size[1] - 2))
    fitted = ImageOps.fit(reference, inner, Image.Resampling.LANCZOS, centering=(0.5, 0.42))
    card.paste(fitted, (border + 2, border + 2))
    face = round(foot * 0.52)
    if face >= _LEAST_FACE:
        ImageDraw.Draw(card).text(
            (size[0] / 2, border + 2 + inner[1] + foot * 0.5),
            f"{number}",
            fill=mix(rgb(palette.ink), rgb(palette.paper), 0.2),
            font=font(face),
            anchor="mm",
        )
    return card
