"""Making an image the format or the size that was asked for, each in a process of its own.

A conversion of a large image costs as much processor time as thousands of submissions, so it
stays away from the event loop and from its process; that ends with its picture, whatever becomes
of us.
"""

import asyncio
import sys
from asyncio.subprocess import DEVNULL
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from calotype.domain.fitting import Limits
from calotype.imaging.fitting import fit

if TYPE_CHECKING:
    from PIL.Image import Image

PROCESSES: Final = 2
"""Conversions at a time."""
LONGEST_SECONDS: Final = 300.0
_QUALITY: Final = 95
_SMALL_QUALITY: Final = 82
_LONGEST_SIDE: Final = 16_383
"""Pixels that a WebP has at most."""
_BROKE: Final = 2
"""The exit status where the image is not to blame."""
_LYING: Final = frozenset({5, 6, 7, 8})
"""EXIF orientations of which width and height are each other's."""
_FORMATS: Final = {"image/jpeg": "JPEG", "image/png": "PNG", "image/webp": "WEBP"}
CONTENT_TYPES: Final = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}
"""The catalog's names of formats → content types."""


class NotConvertible(Exception):
    """The image cannot be decoded."""


class ConversionBroke(NotConvertible):
    """It came to nothing this time, for want of memory or of room, or because it was killed."""


class Converter:
    """Converts images, a few at a time."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(PROCESSES)

    async def convert(self, source: Path, target: Path, content_type: str) -> None:
        """Write the image in ``source`` to ``target`` in another format.

        Raises:
            NotConvertible: it cannot be decoded.

        """
        await self._run("convert", str(source), str(target), _FORMATS[content_type])

    async def shrink(self, source: Path, target: Path, width: int) -> None:
        """Write the image in ``source`` to ``target`` as a WebP at most so many pixels wide.

        It is turned upright, its colours are sRGB, and nothing is left of what it says of itself.
        One that is so high that no WebP were is made narrower yet.

        Raises:
            ConversionBroke: it may be done another time.
            NotConvertible: it cannot be decoded.

        """
        await self._run("shrink", str(source), str(target), str(width))

    async def fit(self, source: Path, target: Path, limits: Limits) -> None:
        """Write a copy of the image in ``source`` to ``target`` that is within the limits.

        Raises:
            ConversionBroke: it may be done another time.
            NotConvertible: it cannot be decoded, or nothing of it is small enough.

        """
        await self._run("fit", str(source), str(target), msgspec.json.encode(limits).decode())

    async def _run(self, *arguments: str) -> None:
        command = (sys.executable, "-m", __name__, *arguments)
        async with self._turns:
            process = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL)
            try:
                async with asyncio.timeout(LONGEST_SECONDS):
                    status = await process.wait()
            except BaseException as error:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
                if isinstance(error, TimeoutError):
                    raise NotConvertible("The image takes too long to convert.") from error
                raise
        if status < 0 or status == _BROKE:
            raise ConversionBroke("The conversion broke off.")
        if status != 0:
            raise NotConvertible("The image cannot be decoded.")


def main(work: str, source: str, target: str, what: str) -> int:
    """Do one piece of work; returns the exit status."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # the intake has judged the size
    try:
        if work == "shrink":
            _shrink(source, target, int(what))
        elif work == "fit":
            fit(source, target, msgspec.json.decode(what, type=Limits))
        else:
            _convert(source, target, what)
    except MemoryError:
        return _BROKE
    except OSError as error:  # one of the system has a number, one of a decoder has none
        return 1 if error.errno is None else _BROKE
    except (ValueError, SyntaxError, EOFError):
        return 1
    return 0


def _convert(source: str, target: str, form: str) -> None:
    from PIL import Image, ImageOps
    from PIL.JpegImagePlugin import JpegImageFile, get_sampling

    with Image.open(source) as opened:
        profile = opened.info.get("icc_profile")
        image = ImageOps.exif_transpose(opened)
        if form == "JPEG" and image.mode not in {"RGB", "L", "CMYK"}:
            layered = image.convert("RGBA")
            paper = Image.new("RGBA", layered.size, "white")
            paper.alpha_composite(layered)
            image = paper.convert("RGB")
        sampling = get_sampling(opened) if isinstance(opened, JpegImageFile) else -1
        image.save(target, form, icc_profile=profile, quality=_QUALITY, subsampling=sampling)


def _shrink(source: str, target: str, width: int) -> None:
    from PIL import ExifTags, Image, ImageOps

    with Image.open(source) as opened:
        lies = opened.getexif().get(ExifTags.Base.Orientation, 1) in _LYING
        image: Image.Image = opened
        if opened.mode == "P":  # whose pixels cannot be mixed
            image = opened.convert("RGBA")
        elif opened.mode.startswith("I"):  # 16 bits
            image = opened.convert("I").point(lambda value: value / 256).convert("L")
        bounds = (_LONGEST_SIDE, width) if lies else (width, _LONGEST_SIDE)
        image.thumbnail(bounds, reducing_gap=2.0)
        profile = opened.info.get("icc_profile")
        small = _in_srgb(ImageOps.exif_transpose(image), profile)
        small.save(target, "WEBP", quality=_SMALL_QUALITY, icc_profile=None, exif=b"", xmp=b"")


def _in_srgb(image: "Image", profile: bytes | None) -> "Image":
    """The image in the colours of every screen; as it is where its profile is not sound."""
    from PIL import ImageCms

    mode = "RGBA" if image.has_transparency_data else "RGB"
    if profile is None:
        return image.convert(mode)
    try:
        srgb = ImageCms.createProfile("sRGB")
        own = ImageCms.ImageCmsProfile(BytesIO(profile))
        turned = ImageCms.profileToProfile(image, own, srgb, outputMode=mode)
    except (ImageCms.PyCMSError, OSError, ValueError):
        turned = None
    return turned or image.convert(mode)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
