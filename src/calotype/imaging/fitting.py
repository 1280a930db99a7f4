"""A copy of an image that is within an upstream's limits; runs in the process of a conversion.

What is given up, in this order: the file's type, its quality down to 85, its sides. The shape of
the picture is kept, transparency as long as a type that has it is taken, and the colour profile.
"""

from collections.abc import Iterator
from io import BytesIO
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from PIL import Image

from calotype.domain.fitting import Limits
from calotype.imaging import colours, pixels
from calotype.imaging.conversion import Fit, NotConvertible

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

_FORMATS: Final = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
_QUALITIES: Final = (95, 90, 85)
_LEAST_SIDE: Final = 32
"""Pixels of the longer side; what is smaller shows an upstream nothing."""
_LARGEST_STEP: Final = 0.5
_SMALLEST_STEP: Final = 0.95


def fit(order: Fit) -> None:
    """Write a copy of an image that is within the limits.

    Raises:
        NotConvertible: there is none.

    """
    limits = order.limits
    with pixels.opened(order.source) as source:
        own, profile = source.format, colours.profile_of(source)
        image = _plain(pixels.upright(source))
    image, profile = colours.settled(image, profile, grey=True)
    scale = _first_scale(image, limits)
    while max(image.width, image.height) * scale >= min(_LEAST_SIDE, *image.size):
        sides = [max(1, int(side * scale)) for side in image.size]
        small = (
            image if scale == 1 else image.resize((sides[0], sides[1]), Image.Resampling.LANCZOS)
        )
        least = 0
        for form, options in _ways(small, own, limits):
            out = BytesIO()
            paper = pixels.on_white(small) if form == "JPEG" else small
            paper.save(out, form, icc_profile=profile, **options)
            if not limits.bytes or out.tell() <= limits.bytes:
                Path(order.target).write_bytes(out.getbuffer())
                return
            least = min(least, out.tell()) if least else out.tell()
        if not least:
            break
        step = sqrt(limits.bytes / least)
        scale *= min(_SMALLEST_STEP, max(_LARGEST_STEP, step))
    raise NotConvertible("No copy of the image is small enough.")


def _first_scale(image: "Picture", limits: Limits) -> float:
    """The share of each side that is kept, as far as the limit of pixels says."""
    pixels = image.width * image.height
    return sqrt(limits.pixels / pixels) if 0 < limits.pixels < pixels else 1.0


def _ways(
    image: "Picture", own: str | None, limits: Limits
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Formats and their options, the best first."""
    taken = [form for form, content_type in _FORMATS.items() if content_type in limits.types]
    if max(image.size) > pixels.WEBP_SIDE and "WEBP" in taken:
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


def _plain(image: "Picture") -> "Picture":
    """The image in a mode that can be made smaller, without transparency that hides nothing."""
    image = colours.plain(image)
    if image.mode in colours.CLEAR and image.getchannel("A").getextrema() == (255, 255):
        image = image.convert(image.mode.removesuffix("A"))
    image.info = {}  # of which some would be written again
    return image
