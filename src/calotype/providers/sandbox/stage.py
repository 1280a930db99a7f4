"""What every scene paints with: washes, glows, silhouettes, clouds, on one RGB image.

Everything is in working pixels: the picture is painted small and enlarged once (see ``drawing``).
"""

import math
import random
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import msgspec
from PIL import Image, ImageChops, ImageDraw

from calotype.providers.sandbox.palette import RGB, Palette, mix, rgb

Point = tuple[float, float]


class Stage(msgspec.Struct, frozen=True):
    """A picture in the making."""

    image: Image.Image
    palette: Palette
    rng: random.Random

    @property
    def width(self) -> int:
        """Working pixels."""
        return self.image.width

    @property
    def height(self) -> int:
        """Working pixels."""
        return self.image.height

    @property
    def unit(self) -> float:
        """The length that subjects are sized by; panoramas and scrolls get a little more."""
        short, long = sorted(self.image.size)
        return math.sqrt(short * min(long, 1.5 * short))

    def at(self, x: float, y: float) -> Point:
        """The point at these shares of width and height."""
        return x * self.width, y * self.height


def ramp(stops: Sequence[RGB], height: int) -> Image.Image:
    """A column one pixel wide that runs through the colours from top to bottom."""
    last = len(stops) - 1
    column = bytearray()
    for y in range(height):
        place = y / max(1, height - 1) * last
        i = min(int(place), last - 1)
        t = place - i
        column += bytes(mix(stops[i], stops[i + 1], t * t * (3 - 2 * t) * 0.5 + t * 0.5))
    return Image.frombytes("RGB", (1, height), bytes(column))


def wash(stage: Stage, stops: Sequence[RGB], *, top: float = 0.0, bottom: float = 1.0) -> None:
    """Fill a band, given in shares of the height, from edge to edge."""
    y0, y1 = round(top * stage.height), round(bottom * stage.height)
    if y1 - y0 > 1:
        column = ramp(stops, y1 - y0)
        stage.image.paste(column.resize((stage.width, y1 - y0), Image.Resampling.NEAREST), (0, y0))


def sky(stage: Stage, *, horizon: float = 1.0) -> None:
    """The palette's sky down to the horizon, a share of the height."""
    wash(stage, [rgb(c) for c in stage.palette.sky], bottom=horizon)


def noise(
    rng: random.Random, size: tuple[int, int], cells: tuple[int, int], *, octaves: int = 3
) -> Image.Image:
    """Smooth greyscale noise around 128, with this many blobs across and down."""
    layers = []
    for octave in range(octaves):
        across = min(size[0], cells[0] << octave) + 1
        down = min(size[1], cells[1] << octave) + 1
        seeds = Image.frombytes("L", (across, down), rng.randbytes(across * down))
        layers.append(seeds.resize(size, Image.Resampling.BICUBIC))
    total = layers[0]
    for octave, layer in enumerate(layers[1:], 1):
        total = Image.blend(total, layer, 0.5**octave * 0.62)
    return total


def curve(shape: Callable[[float], float]) -> list[int]:
    """A look-up table for ``Image.point`` from a function over 0..1."""
    return [round(255 * min(1.0, max(0.0, shape(i / 255)))) for i in range(256)]


def glow(stage: Stage, centre: Point, radius: float, colour: RGB, strength: float) -> None:
    """A soft light that fades to nothing at the radius."""
    fade = Image.radial_gradient("L").point(
        curve(lambda v: strength * max(0.0, 1 - v * 1.42) ** 2.2)
    )
    r = max(2, round(radius))
    mask = fade.resize((2 * r, 2 * r), Image.Resampling.BICUBIC)
    x, y = round(centre[0]) - r, round(centre[1]) - r
    stage.image.paste(colour, (x, y, x + 2 * r, y + 2 * r), mask)


def disc(stage: Stage, centre: Point, radius: float, colour: RGB, strength: float = 1.0) -> None:
    """A round with a smooth edge."""
    r = max(2, round(radius) + 1)
    big = Image.new("L", (8 * r, 8 * r))
    edge = 4 * (r - radius)
    ImageDraw.Draw(big).ellipse(
        (edge, edge, 8 * r - edge, 8 * r - edge), fill=round(255 * strength)
    )
    mask = big.reduce(4)
    x, y = round(centre[0]) - r, round(centre[1]) - r
    stage.image.paste(colour, (x, y, x + 2 * r, y + 2 * r), mask)


def silhouette(
    stage: Stage,
    outlines: Iterable[Sequence[Point]],
    stops: Sequence[RGB],
    *,
    floor: float | None = None,
    strength: float = 1.0,
    fade: bool = False,
) -> None:
    """Paint outlines as one flat shape, shaded from its top to `floor` or else to its lowest point.

    With `fade` it also thins out on that way, down to nothing.
    """
    shapes = [list(outline) for outline in outlines]
    xs = [x for shape in shapes for x, _ in shape]
    ys = [y for shape in shapes for _, y in shape]
    left, top = max(0, math.floor(min(xs))), max(0, math.floor(min(ys)))
    right = min(stage.width, math.ceil(max(xs)))
    bottom = min(stage.height, math.ceil(max(ys)))
    width, height = right - left, bottom - top
    if width < 1 or height < 1:
        return
    big = Image.new("L", (2 * width, 2 * height))
    draw = ImageDraw.Draw(big)
    for shape in shapes:
        moved = [(2 * (x - left), 2 * (y - top)) for x, y in shape]
        draw.polygon(moved, fill=round(255 * strength))
    mask = big.reduce(2)
    shaded = max(1, math.ceil(max(ys) if floor is None else floor) - top)
    if fade:
        thin = Image.linear_gradient("L").point([255 - v for v in range(256)])
        thin = thin.resize((width, shaded)).crop((0, 0, width, height))
        mask = ImageChops.multiply(mask, thin)
    column = Image.new("RGB", (1, height), stops[-1])
    column.paste(ramp(stops, shaded), (0, 0))
    shade = column.resize((width, height), Image.Resampling.NEAREST)
    stage.image.paste(shade, (left, top), mask)


def clouds(stage: Stage, colour: RGB, *, horizon: float, strength: float) -> None:
    """Long streaks of cloud above the horizon."""
    height = max(8, round(stage.height * horizon))
    size = (stage.width, height)
    small = (max(8, size[0] // 2), max(8, size[1] // 2))
    across = max(2, round(3 * stage.width / stage.unit))
    down = max(3, round(9 * height / stage.unit))
    streaks = noise(stage.rng, small, (across, down), octaves=4).point(
        curve(lambda v: strength * max(0.0, (v - 0.5) * 2.6) ** 1.3)
    )
    fade = Image.linear_gradient("L").point(curve(lambda v: math.sin(math.pi * v) ** 0.7))
    streaks = ImageChops.multiply(streaks, fade.resize(small))
    stage.image.paste(colour, (0, 0, *size), streaks.resize(size, Image.Resampling.BICUBIC))


def crest(rng: random.Random, steps: int, roughness: float) -> list[float]:
    """A mountain line of 2**steps + 1 heights around 0, by halving and shifting midpoints."""
    line = [rng.uniform(-1, 1), rng.uniform(-1, 1)]
    reach = 1.0
    for _ in range(steps):
        halves = [line[0]]
        for a, b in pairwise(line):
            halves += [(a + b) / 2 + rng.uniform(-reach, reach), b]
        line = halves
        reach *= roughness
    return line


def swell(rng: random.Random, steps: int, waves: float) -> list[float]:
    """A smooth line of heights in -1..1 with about this many waves."""
    parts = [
        (waves * f * rng.uniform(0.8, 1.25), rng.uniform(0, math.tau), a)
        for f, a in ((1, 0.62), (1.9, 0.27), (3.7, 0.11))
    ]
    return [
        sum(a * math.sin(math.tau * f * i / steps + p) for f, p, a in parts)
        for i in range(steps + 1)
    ]


def ground(stage: Stage, heights: Sequence[float], *, level: float, rise: float) -> list[Point]:
    """The outline under a line of heights: `level` and `rise` are working pixels."""
    step = stage.width / (len(heights) - 1)
    line = [(i * step, level - h * rise) for i, h in enumerate(heights)]
    return [*line, (stage.width, stage.height + 2.0), (0.0, stage.height + 2.0)]


def stars(stage: Stage, density: float, *, horizon: float) -> None:
    """Points of light above the horizon, most of them faint, fewer and fainter further down.

    `density` is their number on a square of one unit; on small pictures, where a pixel is a
    large star, there are fewer.
    """
    area = stage.width * stage.height
    count = round(min(density * area / stage.unit**2, area / 2600))
    draw = ImageDraw.Draw(stage.image, "RGBA")
    light = rgb(stage.palette.light)
    for _ in range(count):
        depth = stage.rng.random() ** 1.4
        x = stage.rng.randrange(stage.width)
        y = round(depth * horizon * stage.height)
        bright = stage.rng.random() ** 2.5 * (1 - 0.75 * depth)
        draw.point((x, y), fill=(*light, round(50 + 205 * bright)))
        beside = [(x - 1, y), (x + 1, y), (x, y - 1), (x, y + 1)]
        draw.point(beside, fill=(*light, round(130 * bright)))


def chance(rng: random.Random, share: float) -> bool:
    """True in that share of the cases."""
    return rng.random() < share
