"""The work on pixels, with Pillow; done in converting processes only."""

import struct
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from PIL import AvifImagePlugin, ExifTags, Image, JpegImagePlugin, PngImagePlugin

from calotype.imaging import colours
from calotype.imaging.conversion import Convert, NotConvertible, Shrink
from calotype.imaging.png import PROFILE_BYTES
from calotype.imaging.probe import MAX_PIXELS, MAX_SIDE

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

_READ: Final = ("JPEG", "PNG", "WEBP", "GIF", "AVIF")
_FORMATS: Final = {"image/jpeg": "JPEG", "image/png": "PNG", "image/webp": "WEBP"}
_QUALITY: Final = 95
_SMALL_QUALITY: Final = 82
_PNG_LEVEL: Final = 4
"""Of zlib: a third of the time of its usual 6, for files a tenth larger."""
_WEBP_EFFORT: Final = 2
"""Half the time of its usual 4, for files of the same size."""
WEBP_SIDE: Final = 16_383
"""Pixels that a WebP has at most."""
_SPARED: Final = frozenset({b"iCCP", b"cHRM", b"gAMA", b"sRGB", b"pHYs"})
_THREADS: Final = 2
"""Of one decoder; each takes a share of the address space that a process may have."""
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientations → what puts them right."""
_LYING: Final = frozenset({5, 6, 7, 8})
"""EXIF orientations of which width and height are each other's."""


class _Forgiving(PngImagePlugin.PngStream):
    """Reads a PNG without what it says of its colours, where that is damaged or a bomb."""

    def call(self, cid: bytes, pos: int, length: int) -> bytes:
        try:
            return super().call(cid, pos, length)
        except (ValueError, SyntaxError, LookupError, struct.error):
            if cid not in _SPARED or self.fp is None:
                raise
            self.fp.seek(pos)
            return self.fp.read(length)


def prepare() -> None:
    """Set the libraries up; once in a process."""
    PngImagePlugin.MAX_TEXT_CHUNK = PROFILE_BYTES
    PngImagePlugin.PngStream = _Forgiving  # type: ignore[misc]  # there is no other way in
    Image.MAX_IMAGE_PIXELS = None  # the size is judged by the intake, and once more when opened
    AvifImagePlugin.DEFAULT_MAX_THREADS = _THREADS
    if find_spec("pillow_heif"):
        import pillow_heif

        pillow_heif.options.DECODE_THREADS = _THREADS
        pillow_heif.options.THUMBNAILS = False
        pillow_heif.register_heif_opener()


def convert(order: Convert) -> str:
    """Write an image in the format ordered; returns its content type.

    Raises:
        NotConvertible: it cannot be of this format.

    """
    with opened(order.source) as source:
        profile, how = colours.profile_of(source), _as_before(source)
        image = upright(source)
    clear = image.mode in colours.CLEAR and image.getchannel("A").getextrema() != (255, 255)
    content_type = order.clear if clear else order.opaque
    form = _FORMATS[content_type]
    if form == "WEBP" and max(image.size) > WEBP_SIDE:
        width, height = image.size
        raise NotConvertible(
            f"The image has {width} x {height} pixels, and no WebP has a side over {WEBP_SIDE}; "
            "ask for another format."
        )
    if form == "JPEG":
        image = on_white(image)
    image, profile = colours.settled(image, profile, grey=form != "WEBP")
    image.info.clear()  # which the encoders would write
    match form:
        case "JPEG":
            image.save(order.target, form, icc_profile=profile, **how)
        case "PNG":
            image.save(order.target, form, compress_level=_PNG_LEVEL, icc_profile=profile)
        case _:
            image.save(
                *(order.target, form), quality=_QUALITY, method=_WEBP_EFFORT, icc_profile=profile
            )
    return content_type


def shrink(order: Shrink) -> None:
    """Write a small WebP in sRGB."""
    with opened(order.source) as source:
        profile, orientation = colours.profile_of(source), _orientation(source)
        bounds = (order.width, WEBP_SIDE)
        # A JPEG that needs no work before is decoded small.
        at_once = source.mode in {"L", "RGB", "CMYK"} and not source.has_transparency_data
        image = source if at_once else colours.plain(source)
        image.thumbnail(bounds[::-1] if orientation in _LYING else bounds, reducing_gap=2.0)
        small = colours.in_srgb(_turned(image, orientation), profile)
    small.info.clear()
    small.save(order.target, "WEBP", quality=_SMALL_QUALITY)


def opened(path: str) -> "Picture":
    """The image in a file, its pixels not read yet.

    Raises:
        NotConvertible: it has more pixels than we work with.

    """
    heif = ("HEIF",) if "HEIF" in Image.OPEN else ()
    image = Image.open(path, formats=(*_READ, *heif))
    width, height = image.size
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        image.close()
        raise NotConvertible(f"The image has {width} x {height} pixels, which are too many.")
    return image


def upright(source: "Picture") -> "Picture":
    """The image turned as its EXIF says, as ``colours.plain`` has it."""
    return _turned(colours.plain(source), _orientation(source))


def on_white(image: "Picture") -> "Picture":
    """The image on white paper, where it can be seen through."""
    if image.mode not in colours.CLEAR:
        return image
    paper = Image.new(image.mode.removesuffix("A"), image.size, "white")
    paper.paste(image.convert(paper.mode), mask=image.getchannel("A"))
    return paper


def _as_before(source: "Picture") -> dict[str, Any]:
    """How a JPEG is encoded: one that was one before as it was, so that it is no larger."""
    if isinstance(source, JpegImagePlugin.JpegImageFile) and source.mode != "CMYK":
        sampling = JpegImagePlugin.get_sampling(source)
        return {"qtables": source.quantization, "subsampling": sampling}
    return {"quality": _QUALITY, "subsampling": 0}


def _orientation(source: "Picture") -> int:
    try:
        return int(source.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 -- the pixels are sound whatever is wrong with the EXIF data
        return 1


def _turned(image: "Picture", orientation: int) -> "Picture":
    turn = _UPRIGHT.get(orientation)
    return image if turn is None else image.transpose(turn)
