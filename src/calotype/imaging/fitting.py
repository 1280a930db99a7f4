"""A copy of an image that is within an upstream's limits; runs in the process of a conversion.

What is given up, in this order: the file's type, its quality down to 85, its sides. The shape of
the picture is kept, transparency as long as a type that has it is taken, and the colour profile.
"""

from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from calotype.domain.fitting import Limits
from calotype.imaging.probe import MAX_PIXELS

if TYPE_CHECKING:
    from PIL.Image import Image

_FORMATS: Final = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
_QUALITIES: Final = (95, 90, 85)
_LEAST_SIDE: Final = 32
"""Pixels of the longer side; what is smaller shows an upstream nothing."""
_LARGEST_STEP: Final = 0.5
_SMALLEST_STEP: Final = 0.95
_WEBP_SIDE: Final = 16_383


def fit(source: str, target: str, limits: Limits) -> None:
    """Write a copy of the image in ``source`` that is within the limits.

    Raises:
        ValueError: there is none, or the image has more pixels than we work with.

    """
    from PIL import Image

    with Image.open(source) as opened:
        if opened.width * opened.height > MAX_PIXELS:
            raise ValueError("the image has too many pixels")
        own, profile = opened.format, opened.info.get("icc_profile")
        image = _upright(opened)
    if image.mode == "CMYK" and "image/jpeg" not in limits.types:
        image, profile = image.convert("RGB"), None  # which was one of inks
    image = _plain(image)
    scale = _first_scale(image, limits)
    while max(image.width, image.height) * scale >= min(_LEAST_SIDE, *image.size):
        sides = [max(1, int(side * scale)) for side in image.size]
        small = (
            image if scale == 1 else image.resize((sides[0], sides[1]), Image.Resampling.LANCZOS)
        )
        least = 0
        for form, options in _ways(small, own, limits):
            out = BytesIO()
            _without_more(small, form).save(out, form, icc_profile=profile, **options)
            if not limits.bytes or out.tell() <= limits.bytes:
                Path(target).write_bytes(out.getbuffer())
                return
            least = min(least, out.tell()) if least else out.tell()
        if not least:
            break
        step = sqrt(limits.bytes / least)
        scale *= min(_SMALLEST_STEP, max(_LARGEST_STEP, step))
    raise ValueError("no copy is small enough")


def _first_scale(image: "Image", limits: Limits) -> float:
    """The share of each side that is kept, as far as the limit of pixels says."""
    pixels = image.width * image.height
    return sqrt(limits.pixels / pixels) if 0 < limits.pixels < pixels else 1.0


def _ways(image: "Image", own: str | None, limits: Limits) -> Iterator[tuple[str, dict[str, Any]]]:
    """Formats and their options, the best first."""
    taken = [form for form, content_type in _FORMATS.items() if content_type in limits.types]
    if max(image.size) > _WEBP_SIDE and "WEBP" in taken:
        taken.remove("WEBP")
    clear = image.mode in {"RGBA", "LA"} and taken != ["JPEG"]
    if "PNG" in taken and (clear or own == "PNG" or taken == ["PNG"]):
        yield "PNG", {"optimize": False}
    lossy = [form for form in ("JPEG", "WEBP") if form in taken and not (clear and form == "JPEG")]
    if own == "WEBP" and image.mode != "CMYK":
        lossy.reverse()
    for form in lossy[:1]:
        for quality in _QUALITIES:
            yield form, {"quality": quality}


def _upright(opened: "Image") -> "Image":
    """The image turned as its EXIF says, where that can be read."""
    from PIL import ExifTags, Image

    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    orientation = None
    with suppress(Exception):  # EXIF is anybody's bytes, and the picture is sound without it
        orientation = opened.getexif().get(ExifTags.Base.Orientation)
    opened.load()
    return opened.transpose(turns[orientation]) if orientation in turns else opened.copy()


def _plain(image: "Image") -> "Image":
    """The image in a mode that can be made smaller, without transparency that hides nothing."""
    if image.mode.startswith("I"):  # 16 bits
        image = image.convert("I").point(lambda value: value / 256).convert("L")
    elif image.mode in {"1", "P"} or "transparency" in image.info:
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if image.mode in {"RGBA", "LA"} and image.getextrema()[-1] == (255, 255):
        image = image.convert(image.mode.removesuffix("A"))
    image.info = {}  # of which some would be written again
    return image


def _without_more(image: "Image", form: str) -> "Image":
    """The image in a mode that the format has: on white paper where it has no transparency."""
    from PIL import Image

    if form == "JPEG" and image.mode in {"RGBA", "LA"}:
        layered = image.convert("RGBA")
        paper = Image.new("RGBA", layered.size, "white")
        paper.alpha_composite(layered)
        return paper.convert("RGB")
    return image
