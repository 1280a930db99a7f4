"""Draws the sandbox's pictures: a scene printed on paper, with the request set beneath it.

A picture is a pure function of its request: no clock, no global randomness, no system fonts.
The scene is painted at a working size and enlarged once; references, lettering and grain are
added at full size, so that they stay sharp.
"""

import hashlib
import math
import random
import zlib

import msgspec
from PIL import Image

from calotype.providers.sandbox import botany, landscapes, paper, studies
from calotype.providers.sandbox.caption import compose, letter
from calotype.providers.sandbox.palette import choose
from calotype.providers.sandbox.prints import hang
from calotype.providers.sandbox.stage import Stage

_SCENES = {
    "sea": landscapes.sea,
    "forest": landscapes.forest,
    "city": landscapes.city,
    "ridges": landscapes.ridges,
    "dunes": landscapes.dunes,
    "botanical": botany.botanical,
    "celestial": studies.celestial,
    "contours": studies.contours,
}
_WORKING_PIXELS = (1_100_000, 3_400_000)
"""The least and the most that a scene is painted with, unless the picture itself is smaller."""


class Picture(msgspec.Struct, frozen=True):
    """A request to be drawn."""

    prompt: str
    model: str
    width: int
    """Pixels, exact."""
    height: int
    """Pixels, exact."""
    format: str
    """'png', 'jpg' or 'webp'."""
    label: str
    """What the request called its size, such as '16:9 · 2K'; may be empty."""
    references: tuple[str, ...] = ()
    """Paths of JPEG, PNG or WebP files, in the order of the request."""
    place: int = 0
    """Which of several pictures of the request it is; each is another one."""


def draw(picture: Picture, target: str) -> None:
    """Draw the picture and write it to the file `target`.

    Raises:
        ValueError: a reference cannot be read, or there is no such format.

    """
    rng = random.Random(_seed(picture))  # noqa: S311 -- drawing, not secrets
    scene, palette = choose(picture.prompt, rng)
    size = (picture.width, picture.height)
    facts = [picture.model, picture.label, f"{picture.width}x{picture.height}"]
    caption = compose(picture.prompt, facts, size=size)
    box = (caption.margin, caption.margin, size[0] - caption.margin, size[1] - caption.height)

    scale = _working_scale(size)
    small = tuple(max(1, round(v * scale)) for v in box)
    stage = Stage(Image.new("RGB", (small[2] - small[0], small[3] - small[1])), palette, rng)
    _SCENES[scene](stage)
    paper.tone(stage)
    sheet = paper.mount(
        stage,
        (max(1, round(size[0] * scale)), max(1, round(size[1] * scale))),
        (small[0], small[1]),
    )
    if sheet.size != size:
        sheet = sheet.resize(size, Image.Resampling.BICUBIC)
    hang(sheet, picture.references, box=box, palette=palette, rng=rng)
    paper.grain(sheet, rng)
    letter(sheet, caption, palette)
    _write(sheet, picture.format, target)


def _seed(picture: Picture) -> int:
    """A number that any change of the request changes, the same in every process."""
    digest = hashlib.sha256()
    for part in (
        picture.prompt,
        picture.model,
        f"{picture.width}x{picture.height}",
        picture.format,
    ):
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "big") + raw)
    if picture.place:
        digest.update(b"place %d" % picture.place)
    for number, path in enumerate(picture.references, 1):
        try:
            with open(path, "rb") as file:  # noqa: PTH123 -- the interface speaks in plain paths
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise ValueError(f"Reference {number} cannot be read.") from error
    return int.from_bytes(digest.digest(), "big")


def _working_scale(size: tuple[int, int]) -> float:
    """How much smaller than the picture its scene is painted: 1 up to a megapixel, 0.6 at 4K."""
    area = size[0] * size[1]
    least, most = _WORKING_PIXELS
    return min(1.0, math.sqrt(min(most, max(least, 0.4 * area)) / area))


def _write(sheet: Image.Image, kind: str, target: str) -> None:
    """Encode without metadata, fast rather than small."""
    if kind == "png":
        sheet.save(target, "PNG", compress_level=1, compress_type=zlib.Z_RLE)
    elif kind == "jpg":
        sheet.save(target, "JPEG", quality=90)
    elif kind == "webp":
        sheet.save(target, "WEBP", quality=85, method=1)
    else:
        raise ValueError(f"No such picture format: {kind!r}.")
