"""Making an image the format that was asked for, each in a process of its own.

A conversion of a large image costs as much processor time as thousands of submissions, so it
stays away from the event loop and from its process; that ends with its picture, whatever becomes
of us.
"""

import asyncio
import sys
from asyncio.subprocess import DEVNULL
from contextlib import suppress
from pathlib import Path
from typing import Final

PROCESSES: Final = 2
"""Conversions at a time."""
LONGEST_SECONDS: Final = 300.0
_QUALITY: Final = 95
_FORMATS: Final = {"image/jpeg": "JPEG", "image/png": "PNG", "image/webp": "WEBP"}
CONTENT_TYPES: Final = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}
"""The catalog's names of formats → content types."""


class NotConvertible(Exception):
    """The image cannot be decoded."""


class Converter:
    """Converts images, a few at a time."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(PROCESSES)

    async def convert(self, source: Path, target: Path, content_type: str) -> None:
        """Write the image in ``source`` to ``target`` in another format.

        Raises:
            NotConvertible: it cannot be decoded.

        """
        command = (sys.executable, "-m", __name__, str(source), str(target), _FORMATS[content_type])
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
        if status != 0:
            raise NotConvertible("The image cannot be decoded.")


def main(source: str, target: str, form: str) -> int:
    """Convert one image; returns the exit status."""
    from PIL import Image, ImageOps

    Image.MAX_IMAGE_PIXELS = None  # the intake has judged the size
    try:
        with Image.open(source) as opened:
            profile = opened.info.get("icc_profile")
            image = ImageOps.exif_transpose(opened)
            if form == "JPEG" and image.mode not in {"RGB", "L", "CMYK"}:
                layered = image.convert("RGBA")
                paper = Image.new("RGBA", layered.size, "white")
                paper.alpha_composite(layered)
                image = paper.convert("RGB")
            image.save(target, form, icc_profile=profile, quality=_QUALITY)
    except (OSError, ValueError, SyntaxError, EOFError):
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
