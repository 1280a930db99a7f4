"""What makes a scene a print: tone, brushed edges, the sheet it lies on, grain."""

import math
import random

from PIL import Image, ImageChops, ImageDraw

from calotype.providers.sandbox.palette import mix, rgb
from calotype.providers.sandbox.stage import Point, Stage, curve, noise, swell

_TILE = 384
"""Pixels on each side of the square of grain that is repeated over the sheet."""
_SPECKS = bytes([0] * 36 + [1] * 184 + [2] * 36)
"""Of 256 random bytes, which darken by a step, which lighten, which leave be."""


def tone(stage: Stage) -> None:
    """Darken towards the corners and let the pigment settle unevenly."""
    size = stage.image.size
    dark = mix(rgb(stage.palette.near), rgb(stage.palette.sky[0]), 0.35)
    corners = Image.radial_gradient("L").point(
        curve(lambda v: 0.34 * max(0.0, v * 1.15 - 0.5) ** 1.5)
    )
    stage.image.paste(dark, (0, 0, *size), corners.resize(size, Image.Resampling.BILINEAR))
    half = (max(2, size[0] // 2), max(2, size[1] // 2))
    cells = (max(2, round(9 * size[0] / stage.unit)), max(2, round(9 * size[1] / stage.unit)))
    tooth = Image.frombytes("L", half, stage.rng.randbytes(half[0] * half[1]))
    pigment = Image.blend(noise(stage.rng, half, cells, octaves=3), tooth, 0.45)
    pigment = pigment.point([round(128 + (v - 128) * 0.13) for v in range(256)])
    pigment = pigment.resize(size, Image.Resampling.BILINEAR)
    settled = ImageChops.add(
        stage.image, Image.merge("RGB", (pigment, pigment, pigment)), scale=1.0, offset=-128
    )
    stage.image.paste(settled)


def mount(stage: Stage, size: tuple[int, int], corner: tuple[int, int]) -> Image.Image:
    """The scene on its sheet of paper; its edge is where the brush left the emulsion."""
    sheet = Image.new("RGB", size, rgb(stage.palette.paper))
    sheet.paste(stage.image, corner, _brushed(stage))
    return sheet


def _brushed(stage: Stage) -> Image.Image:
    """The shape of the coated area: long strokes above and below, their ends at the sides."""
    width, height = stage.image.size
    rng, reach = stage.rng, stage.unit * 0.009
    across = max(8, width // 3)
    waves = 2.5 * width / stage.unit
    above, below = swell(rng, across, waves), swell(rng, across, waves)
    step = width / across
    fine = reach * 0.12
    top = [
        (i * step, reach * (0.5 + 0.4 * h) + rng.uniform(-fine, fine)) for i, h in enumerate(above)
    ]
    bottom = [
        (width - i * step, height - reach * (0.5 + 0.4 * h) + rng.uniform(-fine, fine))
        for i, h in enumerate(below)
    ]
    right = [(width - x, y) for x, y in _ends(rng, height, reach)]
    left = _ends(rng, height, reach)[::-1]
    outline: list[Point] = [*top[1:-1], *right, *bottom[1:-1], *left]
    coat = Image.new("L", (width * 2, height * 2))
    ImageDraw.Draw(coat).polygon([(2 * x, 2 * y) for x, y in outline], fill=255)
    return coat.reduce(2)


def _ends(rng: random.Random, height: int, reach: float) -> list[Point]:
    """Where brush strokes ended, from the top down, as distances from the edge."""
    ends: list[Point] = []
    y, last = reach * 0.9, height - reach * 0.9
    while y < last:
        stroke = reach * rng.uniform(1.0, 6.0)
        depth = reach * rng.uniform(0.15, 0.95)
        bristles = max(3, round(stroke / max(1.2, reach * 0.22)))
        for k in range(bristles):
            t = k / bristles
            belly = 1 - 0.25 * math.sin(math.pi * t)
            x = depth * belly + reach * rng.uniform(-0.16, 0.16)
            ends.append((max(0.0, x), min(y + t * stroke, last)))
        y += stroke
    return ends


def grain(sheet: Image.Image, rng: random.Random) -> None:
    """Grain of one step, which also keeps long gradients from banding; in place, tile by tile."""
    raw = rng.randbytes(_TILE * _TILE).translate(_SPECKS)
    speck = Image.frombytes("L", (_TILE, _TILE), raw)
    tile = Image.merge("RGB", (speck, speck, speck))
    for top in range(0, sheet.height, _TILE):
        for left in range(0, sheet.width, _TILE):
            box = (left, top, min(left + _TILE, sheet.width), min(top + _TILE, sheet.height))
            patch = sheet.crop(box)
            specks = tile if patch.size == tile.size else tile.crop((0, 0, *patch.size))
            sheet.paste(ImageChops.add(patch, specks, scale=1.0, offset=-1), box)
