"""Scenes without a horizon: sheets of cut paper, a chart of the heavens."""

import math
import random
from array import array

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from calotype.providers.sandbox.palette import RGB, darkest, luminance, mix, rgb
from calotype.providers.sandbox.stage import Stage, chance, curve, disc, glow, noise, stars, wash

_SHEETS = 9


def _relief(rng: random.Random, size: tuple[int, int]) -> tuple[Image.Image, list[float]]:
    """A smooth field of heights, and the heights of a coarse sample of it in rising order.

    Floats, because greys would show as steps; waves in all directions, because a
    random grid shows its axes.
    """
    short = min(size)
    coarse = (max(4, 26 * size[0] // short), max(4, 26 * size[1] // short))
    waves = []
    for octave in range(1, 4):
        for _ in range(5):
            way, far = rng.uniform(0, math.tau), octave * rng.uniform(0.6, 1.15) * math.tau / 26
            waves.append(
                (math.cos(way) * far, math.sin(way) * far, rng.uniform(0, math.tau), octave**-1.5)
            )
    heights = array(
        "f",
        (
            sum(a * math.sin(x * u + y * v + p) for u, v, p, a in waves)
            for y in range(coarse[1])
            for x in range(coarse[0])
        ),
    )
    field = Image.frombytes("F", coarse, heights.tobytes())
    return field.resize(size, Image.Resampling.BICUBIC), sorted(heights)


def contours(stage: Stage) -> None:
    """Paper cut along contour lines and stacked, each sheet throwing a soft shadow."""
    rng, unit, palette = stage.rng, stage.unit, stage.palette
    size = stage.image.size
    field, heights = _relief(rng, size)
    ladder = [rgb(palette.near), *[rgb(c) for c in palette.sky], rgb(palette.light)]
    if chance(rng, 1 / 3):
        ladder.reverse()
    steep = 42000 * 1024 / unit / (heights[-1] - heights[0])
    fall = max(1, round(unit * 0.005))
    step = 255 // (_SHEETS - 1)
    stack = Image.new("L", size)
    shadow = Image.new("L", stack.reduce(2).size)
    for i in range(1, _SHEETS):
        level = heights[round((0.04 + 0.92 * i / _SHEETS) * (len(heights) - 1))]
        scale, offset = steep, 127 - level * steep
        cut = field.point(lambda v, k=scale, o=offset: v * k + o).convert("L")
        stack = ImageChops.add(stack, cut.point([round(v * step / 255) for v in range(256)]))
        half = cut.reduce(2)
        under = Image.new("L", half.size)
        under.paste(half, (0, fall))
        under = under.filter(ImageFilter.BoxBlur(fall * 0.9))
        shadow = ImageChops.lighter(shadow, ImageChops.subtract(under, half))
    # Where two sheets meet, the stack's grey runs from the one's step to the other's.
    ramp = [_on(ladder, v / (step * (_SHEETS - 1))) for v in range(256)]
    stage.image.paste(Image.merge("RGB", [stack.point([c[i] for c in ramp]) for i in range(3)]))
    shadow = shadow.point(curve(lambda v: v * 0.55)).resize(size, Image.Resampling.BILINEAR)
    stage.image.paste(mix(darkest(palette), (0, 0, 0), 0.4), (0, 0, *size), shadow)


def _on(ladder: list[RGB], share: float) -> RGB:
    """The colour that far (0..1) up the ladder."""
    place = min(share, 1.0) * (len(ladder) - 1)
    j = min(int(place), len(ladder) - 2)
    return mix(ladder[j], ladder[j + 1], place - j)


class _Chart:
    """A plate twice the working size, on which fine lines are drawn about a centre."""

    def __init__(self, stage: Stage, centre: tuple[float, float]) -> None:
        self.plate = Image.new("L", (stage.width * 2, stage.height * 2))
        self.draw = ImageDraw.Draw(self.plate)
        self.centre = centre
        self.thin = max(2, round(stage.unit * 0.0032))

    def at(self, way: float, far: float) -> tuple[float, float]:
        """A point on the plate by its direction and distance from the centre."""
        x, y = self.centre
        return 2 * (x + math.cos(way) * far), 2 * (y + math.sin(way) * far)

    def circle(self, far: float, tone: int) -> None:
        """An orbit."""
        x, y, r = 2 * self.centre[0], 2 * self.centre[1], 2 * far
        self.draw.ellipse((x - r, y - r, x + r, y + r), outline=tone, width=self.thin)

    def rays(self, count: int, start: float, ends: tuple[float, ...], tone: int) -> None:
        """Lines outwards all round, of these lengths in turn."""
        for k in range(count):
            way = k * math.tau / count
            line = [self.at(way, start), self.at(way, ends[k % len(ends)])]
            self.draw.line(line, fill=tone, width=self.thin)

    def moon(self, way: float, far: float, radius: float, phase: float) -> None:
        """A moon on an orbit: phase 0 is full, -1 and 1 are new."""
        x, y = self.at(way, far)
        r = 2 * radius
        self.draw.ellipse((x - r * 1.3, y - r * 1.3, x + r * 1.3, y + r * 1.3), fill=0)
        self.draw.ellipse((x - r, y - r, x + r, y + r), fill=60)
        # The lit half, then the terminator as half an ellipse, bright or dark.
        lit = (90, 270) if phase > 0 else (-90, 90)
        self.draw.pieslice((x - r, y - r, x + r, y + r), *lit, fill=238)
        squeeze = r * abs(1 - 2 * abs(phase))
        bulge = 238 if 2 * abs(phase) < 1 else 60
        self.draw.ellipse((x - squeeze, y - r, x + squeeze, y + r), fill=bulge)


def celestial(stage: Stage) -> None:
    """A chart of the heavens: a rayed sun, orbits, the phases of a moon, figures of stars."""
    rng, unit, palette = stage.rng, stage.unit, stage.palette
    size = stage.image.size
    deep = darkest(palette)
    blue = min((rgb(c) for c in palette.sky[:2]), key=luminance)
    dark = mix(deep, blue, 0.6)
    wash(stage, [mix(dark, deep, 0.6), dark, mix(dark, rgb(palette.sky[1]), 0.3)])
    dust = noise(rng, (size[0] // 2 + 1, size[1] // 2 + 1), (3, 3), octaves=5)
    dust = dust.point(curve(lambda v: 0.5 * max(0.0, (v - 0.45) * 2) ** 1.5)).resize(size)
    stage.image.paste(mix(rgb(palette.sky[2]), rgb(palette.accent), 0.2), (0, 0, *size), dust)
    stars(stage, 520, horizon=1.3)
    centre = stage.at(rng.uniform(0.46, 0.54), rng.uniform(0.5, 0.56))
    light, accent = rgb(palette.light), rgb(palette.accent)
    glow(stage, centre, unit * 0.6, accent, 0.6)
    chart = _Chart(stage, centre)
    orbits = [unit * 0.185, unit * 0.205]
    while orbits[-1] < max(size):
        orbits.append(orbits[-1] * rng.uniform(1.16, 1.36) + unit * 0.02)
    for i, far in enumerate(orbits):
        chart.circle(far, max(50, 175 - 12 * i))
    chart.rays(rng.choice((72, 96, 120)), orbits[0], (orbits[1],), 150)
    lengths = rng.choice(((0.165, 0.115, 0.135, 0.115), (0.16, 0.12), (0.165, 0.15, 0.135, 0.12)))
    rays = tuple(unit * length for length in lengths)
    chart.rays(rng.choice((32, 40, 48, 64)), unit * 0.092, rays, 235)
    _figures(stage, chart, free=orbits[2])
    noon = rng.choice((-0.5, -0.5, -0.25, -0.75)) * math.pi
    inside = [far for far in orbits[2:] if far < 0.44 * min(size)] or [orbits[2]]
    for k in range(-3, 4):
        chart.moon(noon + k * 0.3, inside[-1], unit * 0.021, k / 3.2)
    stage.image.paste(light, (0, 0, *size), chart.plate.reduce(2))
    disc(stage, centre, unit * 0.078, mix(light, accent, 0.3))
    for far in (orbits[2], orbits[3], orbits[5], orbits[6]):
        way = noon + rng.uniform(0.4, 1.6) * math.pi
        x, y = (v / 2 for v in chart.at(way, far))
        radius = unit * rng.uniform(0.012, 0.032)
        tint = mix(accent, rgb(rng.choice(palette.sky[1:])), rng.uniform(0.2, 0.7))
        disc(stage, (x, y), radius * 1.25, dark, 0.7)
        disc(stage, (x, y), radius, mix(tint, deep, 0.55))
        toward = (x - math.cos(way) * radius * 0.22, y - math.sin(way) * radius * 0.22)
        disc(stage, toward, radius * 0.78, tint)


def _figures(stage: Stage, chart: _Chart, *, free: float) -> None:
    """Constellations that no one has named, outside of the circle kept `free`."""
    rng, unit = stage.rng, stage.unit
    for _ in range(max(4, round(7 * stage.width * stage.height / unit**2))):
        x, y = rng.uniform(0.06, 0.94) * stage.width, rng.uniform(0.06, 0.94) * stage.height
        heading = rng.uniform(0, math.tau)
        points = []
        for _ in range(rng.randint(3, 6)):
            if math.dist((x, y), chart.centre) < free:
                break
            points.append((2 * x, 2 * y))
            heading += rng.uniform(-1.2, 1.2)
            far = unit * rng.uniform(0.05, 0.12)
            x, y = x + math.cos(heading) * far, y + math.sin(heading) * far
        if len(points) > 1:
            chart.draw.line(points, fill=90, width=max(1, chart.thin - 1))
        for px, py in points:
            r = unit * rng.uniform(0.004, 0.008)
            chart.draw.ellipse((px - r, py - r, px + r, py + r), fill=230)
