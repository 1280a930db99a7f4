"""Scenes with a horizon: mountains, sea, forest, dunes, city."""

import math
from collections.abc import Sequence

import msgspec

from calotype.providers.sandbox.palette import RGB, luminance, mix, rgb
from calotype.providers.sandbox.stage import (
    Point,
    Stage,
    chance,
    clouds,
    crest,
    disc,
    glow,
    ground,
    silhouette,
    sky,
    stars,
    swell,
    wash,
)

_DARK_SKY = 0.2
_DISTINCT = 0.12
"""How far a summit rises, in heights of its line, above what lies around it."""
_SCROLL = 2.0
"""Taller than this many widths, a picture is read like a hanging scroll."""


def _heavens(stage: Stage, *, horizon: float, sun: Point, radius: float, cloudy: float) -> Point:
    """Sky, stars where it is dark, sun or moon, clouds; returns where the light stands."""
    palette, unit = stage.palette, stage.unit
    sky(stage, horizon=horizon)
    if luminance(rgb(palette.sky[0])) < _DARK_SKY:
        stars(stage, 230, horizon=horizon * 0.75)
    centre = stage.at(*sun)
    light, accent = rgb(palette.light), rgb(palette.accent)
    glow(stage, centre, unit * 0.75, accent, 0.55)
    glow(stage, centre, unit * 0.3, light, 0.6)
    disc(stage, centre, unit * radius, mix(light, accent, 0.12), 0.96)
    clouds(stage, mix(rgb(palette.sky[-1]), light, 0.5), horizon=horizon, strength=cloudy)
    return centre


def _haze(stage: Stage, share: float) -> tuple[RGB, RGB]:
    """The colour of ground that far forward (0 far, 1 near), and of the mist at its foot."""
    palette = stage.palette
    colour = mix(rgb(palette.far), rgb(palette.near), share**1.25)
    fog = mix(rgb(palette.far), rgb(palette.sky[-1]), 0.45)
    return colour, mix(colour, fog, 0.62 * (1 - share) + 0.08)


def _birds(stage: Stage, centre: Point, span: float) -> None:
    """A small flock, loosely strung."""
    rng = stage.rng
    flock: list[list[Point]] = []
    for _ in range(rng.randint(4, 8)):
        x = centre[0] + rng.gauss(0, span)
        y = centre[1] + rng.gauss(0, span * 0.35)
        wing = stage.unit * rng.uniform(0.008, 0.015)
        lift = wing * rng.uniform(0.35, 0.6)
        body = wing * 0.16
        flock += [
            [
                (x, y + body),
                (x + side * wing * 0.45, y - lift * 0.75),
                (x + side * wing, y - lift * 0.7),
                (x + side * wing * 0.5, y - lift - body * 0.3),
                (x, y - body * 0.4),
            ]
            for side in (-1, 1)
        ]
    ink = rgb(stage.palette.near)
    silhouette(stage, flock, [ink, ink], strength=0.8)


def _fir(stage: Stage, x: float, foot: float, height: float) -> list[Point]:
    """The outline of a conifer."""
    rng = stage.rng
    tiers = max(5, min(15, round(height / (stage.unit * 0.016))))
    spread = height * rng.uniform(0.16, 0.22)
    left: list[Point] = []
    right: list[Point] = []
    for i in range(1, tiers + 1):
        t = i / tiers
        y = foot - height * (1 - t * 0.94)
        for side, points in ((-1, left), (1, right)):
            out = spread * t**0.85 * rng.uniform(0.72, 1.1)
            points.append((x + side * out, y + height * 0.014))
            points.append((x + side * out * 0.42, y - height * 0.012))
    trunk = height * 0.018
    return [(x, foot - height), *right, (x + trunk, foot + 2), (x - trunk, foot + 2), *left[::-1]]


class _Slope(msgspec.Struct, frozen=True):
    """A line of heights laid into the picture; working pixels."""

    line: Sequence[float]
    level: float
    rise: float
    floor: float
    """Where its shading ends."""

    def point(self, i: int, width: int) -> Point:
        """The i-th point of the line."""
        return i * width / (len(self.line) - 1), self.level - self.line[i] * self.rise

    def summits(self) -> list[int]:
        """The indices of its distinct high points."""
        reach = max(2, len(self.line) // 14)
        found = []
        for i in range(len(self.line)):
            around = self.line[max(0, i - reach) : i + reach + 1]
            if self.line[i] == max(around) and max(around) - min(around) > _DISTINCT:
                found.append(i)
        return found


def _shade(stage: Stage, slope: _Slope, sun_x: float, colour: RGB, *, rocky: bool) -> None:
    """Lay the side of every summit that the sun does not reach into shadow."""
    swing, steep, least, jag = (0.07, 0.75, 0.4, 0.035) if rocky else (0.22, 0.35, 0.1, 0.0)
    rng, width = stage.rng, stage.width
    summits = slope.summits()
    for i in summits:
        x0, y0 = slope.point(i, width)
        away = -1 if x0 < sun_x else 1
        ends = [s for s in summits if (s - i) * away > 0]
        border = len(slope.line) - 1 if away > 0 else 0
        last = (min(ends) if away > 0 else max(ends)) if ends else border
        valley = min(range(i, last + away, away), key=lambda k: slope.line[k])
        edge = [slope.point(k, width) for k in range(i, valley + away, away)]
        x3, y3 = edge[-1]
        if y3 - y0 < least * abs(x3 - x0) or abs(x3 - x0) < 0.05 * stage.unit:
            continue
        drop = max(y3 - y0, steep * abs(x3 - x0)) * 1.08
        reach = swing * abs(x3 - x0)
        spur = []
        for k in range(1, 25):
            t = k / 24
            # Out to the lit side first, then round under the shadow: an S, as ridges run.
            wind = math.sin(t * math.pi * 1.9) * (1 - 0.5 * t) - 1.3 * t * t
            ragged = rng.uniform(-jag, jag) * drop
            spur.append((x0 - away * reach * wind + ragged, y0 + drop * t))
        outline = [*edge, *spur[::-1]]
        silhouette(stage, [outline], [colour, colour], floor=y0 + drop, strength=0.9, fade=True)


def ridges(stage: Stage) -> None:
    """Mountains behind mountains, paler the further away, with mist in the valleys."""
    rng, unit = stage.rng, stage.unit
    sun = (rng.uniform(0.22, 0.78), rng.uniform(0.2, 0.32))
    tall = stage.height / stage.width
    centre = _heavens(stage, horizon=0.8, sun=sun, radius=rng.uniform(0.055, 0.095), cloudy=0.4)
    count = 6 + min(5, round(1.6 * max(0.0, tall - 1)))
    first = 0.3 if tall > _SCROLL else rng.uniform(0.44, 0.52)
    for i in range(count):
        share = i / (count - 1)
        colour, mist = _haze(stage, share)
        level = (first + (0.95 - first) * share**0.9) * stage.height
        rise = unit * (0.135 - 0.06 * share) * rng.uniform(0.85, 1.2)
        bend = swell(rng, 512, max(0.8, (0.95 - 0.2 * share) * stage.width / unit))
        rough = crest(rng, 9, 0.55)
        alpine = i < count // 2
        line = [
            (0.9 - 2.0 * abs(b) if alpine else 0.8 * b) + (0.26 if alpine else 0.15) * r
            for b, r in zip(bend, rough[:513], strict=True)
        ]
        slope = _Slope(line, level, rise, level + unit * (0.2 + 0.1 * share))
        outline = ground(stage, line, level=level, rise=rise)
        lit = mix(colour, rgb(stage.palette.light), 0.2 * (1 - share))
        silhouette(stage, [outline], [lit, mix(colour, mist, 0.6), mist], floor=slope.floor)
        if alpine:
            dark = mix(colour, rgb(stage.palette.near), 0.12 + 0.2 * share)
            _shade(stage, slope, centre[0], dark, rocky=True)
        if i >= count - 2:
            _treeline(stage, outline[:-2], unit * (0.04 + 0.035 * (i - count + 2)), lit)
    _birds(stage, (centre[0] + unit * 0.16, centre[1] + unit * 0.1), unit * 0.07)


def _treeline(stage: Stage, line: Sequence[Point], height: float, colour: RGB) -> None:
    """Firs along the edge of a hill, in groups."""
    rng, unit = stage.rng, stage.unit
    trees = []
    x = rng.uniform(0, 0.1) * unit
    while x < stage.width:
        px, py = line[min(len(line) - 1, round(x / stage.width * (len(line) - 1)))]
        trees.append(_fir(stage, px, py + height * 0.2, height * rng.uniform(0.45, 1.1)))
        x += height * rng.uniform(0.12, 0.4) + (unit * rng.uniform(0.05, 0.3) * chance(rng, 0.2))
    silhouette(stage, trees, [colour, colour])


def sea(stage: Stage) -> None:
    """A low sun over water, its glitter, a coast far off and one small sail."""
    rng, unit, palette = stage.rng, stage.unit, stage.palette
    horizon = rng.uniform(0.5, 0.6)
    x = rng.uniform(0.25, 0.75)
    radius = rng.uniform(0.06, 0.1)
    lift = rng.uniform(-0.3, 2.2) * radius * unit / stage.height
    centre = _heavens(stage, horizon=horizon, sun=(x, horizon - lift), radius=radius, cloudy=0.6)
    level = horizon * stage.height
    deep, shallow = rgb(palette.near), rgb(palette.sky[-2])
    rim = mix(shallow, rgb(palette.sky[-1]), 0.35)
    wash(stage, [rim, mix(shallow, deep, 0.45), mix(shallow, deep, 0.85), deep], top=horizon)
    side = -1 if round(x) else 1
    _coast(stage, level, left=side < 0)
    _strokes(stage, stage.width / 2, level, [mix(shallow, deep, 0.55), deep], wide=True)
    light = rgb(palette.light)
    _strokes(stage, centre[0], level, [light, mix(light, rgb(palette.accent), 0.7)], wide=False)
    sail_x = x + side * rng.uniform(0.18, 0.34)
    _sail(stage, (stage.width * sail_x, level + unit * rng.uniform(0.02, 0.06)), unit * 0.07)


def _coast(stage: Stage, level: float, *, left: bool) -> None:
    """Headlands that run out into the sea from one side."""
    unit = stage.unit
    for i, reach in enumerate((0.62, 0.4)):
        line = crest(stage.rng, 8, 0.55)
        width = min(stage.width * reach, unit * 1.1 * reach / 0.62)
        shape: list[Point] = []
        for k, h in enumerate(line):
            t = k / (len(line) - 1)
            y = level - unit * (0.05 + 0.035 * i + 0.03 * h) * (1 - t) ** 0.7
            shape.append((t * width if left else stage.width - t * width, min(y, level + 1)))
        shape += [(x if left else stage.width - x, level + 1) for x in (width, 0.0)]
        colour, mist = _haze(stage, 0.12 + 0.3 * i)
        silhouette(stage, [shape], [colour, mist], floor=level + 1)


def _strokes(stage: Stage, x: float, level: float, stops: list[RGB], *, wide: bool) -> None:
    """Lenses of light or shade on the water, longer and sparser as they come nearer.

    Narrow, they are the sun's path towards the viewer; wide, the waves everywhere.
    """
    rng, unit = stage.rng, stage.unit
    depth = stage.height - level
    strokes = []
    count = round(160 * max(1.0, stage.width / unit)) if wide else 420
    for _ in range(count):
        t = rng.random() ** 1.5
        cx = rng.uniform(0, stage.width) if wide else x + rng.gauss(0, unit * (0.02 + 0.07 * t))
        cy = level + 2 + t * depth * 0.97
        half = unit * (0.004 + (0.11 if wide else 0.026) * t) * rng.uniform(0.4, 1.3)
        thick = max(0.5, unit * (0.0006 + (0.0042 if wide else 0.0018) * t))
        dip = thick * rng.uniform(-0.6, 0.6)
        strokes.append(
            [
                (cx - half, cy + dip),
                (cx - half * 0.4, cy - thick * 0.8),
                (cx + half * 0.3, cy - thick),
                (cx + half, cy - dip),
                (cx + half * 0.4, cy + thick * 0.8),
                (cx - half * 0.3, cy + thick),
            ]
        )
    silhouette(stage, strokes, stops, strength=0.32 if wide else 0.85)


def _sail(stage: Stage, foot: Point, size: float) -> None:
    """A sloop on its way."""

    def outline(*points: Point) -> list[Point]:
        return [(foot[0] + px * size, foot[1] + py * size) for px, py in points]

    light, dark = rgb(stage.palette.light), rgb(stage.palette.near)
    main = outline((0, -1), (0.2, -0.6), (0.38, -0.12), (0, -0.12))
    jib = outline((-0.03, -0.88), (-0.3, -0.12), (-0.04, -0.14))
    hull = outline((-0.36, -0.08), (0.46, -0.08), (0.36, 0.03), (-0.24, 0.03))
    silhouette(stage, [main, jib], [light, mix(light, rgb(stage.palette.accent), 0.5)])
    silhouette(stage, [hull], [dark, dark])


def forest(stage: Stage) -> None:
    """Firs standing in mist, with the light coming through from behind."""
    rng, unit = stage.rng, stage.unit
    sun = (rng.uniform(0.3, 0.7), rng.uniform(0.24, 0.38))
    _heavens(stage, horizon=1.0, sun=sun, radius=rng.uniform(0.05, 0.08), cloudy=0.3)
    count = 5
    for i in range(count):
        share = i / (count - 1)
        colour, mist = _haze(stage, share)
        level = stage.height * (0.56 + 0.4 * share**1.1)
        height = unit * (0.16 + 0.5 * share**1.6)
        line = swell(rng, 120, 1.3 * stage.width / unit)
        floor = ground(stage, line, level=level, rise=unit * 0.03)
        trees = []
        x = -0.5 * height * rng.random()
        while x < stage.width + height * 0.2:
            near = min(120, max(0, round(x / stage.width * 120)))
            foot = level - line[near] * unit * 0.03 + 3
            # The nearer the row, the wider the gap it leaves for the light.
            clear = abs(x / stage.width - sun[0]) * stage.width / unit > 0.42 * share**2
            if clear:
                trees.append(_fir(stage, x, foot, height * rng.uniform(0.55, 1.0)))
            x += height * rng.uniform(0.09, 0.34)
        stops = [colour, mix(colour, mist, 0.35), mist]
        silhouette(stage, [floor, *trees], stops, floor=level + unit * 0.16)
    _birds(stage, stage.at(sun[0] + 0.05, sun[1] - 0.06), unit * 0.06)


def dunes(stage: Stage) -> None:
    """Smooth hills like folded silk, lit along their crests."""
    rng, unit, palette = stage.rng, stage.unit, stage.palette
    sun = (rng.uniform(0.2, 0.8), rng.uniform(0.18, 0.32))
    centre = _heavens(stage, horizon=0.66, sun=sun, radius=rng.uniform(0.07, 0.12), cloudy=0.3)
    count = 7 + min(6, 2 * (stage.height // stage.width))
    for i in range(count):
        share = i / (count - 1)
        colour, mist = _haze(stage, share * 0.9)
        lit = mix(mix(colour, rgb(palette.accent), 0.4), rgb(palette.light), 0.3 - 0.2 * share)
        level = stage.height * (0.52 + 0.43 * share**1.05)
        line = swell(rng, 240, (1.15 - 0.5 * share) * max(0.7, stage.width / unit))
        rise = unit * (0.04 + 0.085 * share)
        slope = _Slope(line, level, rise, level + unit * (0.14 + 0.1 * share))
        outline = ground(stage, line, level=level, rise=rise)
        foot = mix(colour, mist, 0.4)
        silhouette(stage, [outline], [lit, mix(lit, foot, 0.7), foot], floor=slope.floor)
        _shade(
            stage, slope, centre[0], mix(colour, rgb(palette.near), 0.2 + 0.3 * share), rocky=False
        )


def city(stage: Stage) -> None:
    """Skylines in haze before a large low sun, the nearer ones with windows lit."""
    rng, unit, palette = stage.rng, stage.unit, stage.palette
    sun = (rng.uniform(0.3, 0.7), rng.uniform(0.36, 0.46))
    _heavens(stage, horizon=0.95, sun=sun, radius=rng.uniform(0.14, 0.19), cloudy=0.5)
    count = 4
    for i in range(count):
        share = i / (count - 1)
        colour, mist = _haze(stage, 0.1 + 0.9 * share)
        level = stage.height * (0.8 + 0.16 * share)
        blocks, windows = _skyline(stage, level=level, share=share, lit=i >= count // 2)
        stops = [colour, mix(colour, mist, 0.5), mist]
        silhouette(stage, blocks, stops, floor=max(level, stage.height))
        if windows:
            lamps = [rgb(palette.accent), rgb(palette.light)]
            silhouette(stage, windows, lamps, strength=0.35 + 0.5 * share)
    _birds(stage, stage.at(sun[0] - 0.1, sun[1] - 0.12), unit * 0.08)


def _rectangle(x0: float, y0: float, x1: float, y1: float) -> list[Point]:
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def _skyline(
    stage: Stage, *, level: float, share: float, lit: bool
) -> tuple[list[list[Point]], list[list[Point]]]:
    """Houses from edge to edge and, when `lit`, their bright windows."""
    rng, unit = stage.rng, stage.unit
    low = stage.height + 2.0
    blocks: list[list[Point]] = []
    windows: list[list[Point]] = []
    x = -unit * 0.03
    while x < stage.width:
        width = unit * rng.uniform(0.035, 0.08) * (0.7 + 0.7 * share)
        height = unit * (0.1 + 0.32 * rng.random() ** 1.7) * (1.15 - 0.3 * share)
        top, middle = level - height, x + width / 2
        blocks.append(_rectangle(x, top, x + width, low))
        roof = rng.choice(("flat", "flat", "flat", "stepped", "stepped", "spire", "gable"))
        if roof == "stepped":
            blocks.append(_rectangle(x + width * 0.2, top - height * 0.14, x + width * 0.8, top))
            blocks.append(_rectangle(x + width * 0.38, top - height * 0.22, x + width * 0.62, top))
        elif roof == "spire":
            tip = top - height * rng.uniform(0.2, 0.4)
            blocks.append(
                [(middle, tip), (middle + width * 0.06, top), (middle - width * 0.06, top)]
            )
        elif roof == "gable":
            blocks.append([(x, top), (middle, top - width * 0.35), (x + width, top)])
        if lit:
            windows += _windows(stage, (x, top, x + width, level), unit * 0.0042)
        x += width + unit * 0.012 * (1 - share) * chance(rng, 0.3)
    return blocks, windows


def _windows(
    stage: Stage, box: tuple[float, float, float, float], size: float
) -> list[list[Point]]:
    """Small lights in the grid of one house front."""
    x0, y0, x1, y1 = box
    columns = max(1, int((x1 - x0) / (size * 2.6)))
    gap = (x1 - x0) / (columns + 0.6)
    lit = []
    for row in range(int((y1 - y0) / (size * 3.6))):
        for column in range(columns):
            if chance(stage.rng, 0.2):
                x, y = x0 + (column + 0.5) * gap, y0 + size * (2 + row * 3.6)
                lit.append(_rectangle(x, y, x + size, y + size * 1.5))
    return lit
