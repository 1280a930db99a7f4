"""Pressed plants printed by contact: white where they lay, dark where the light came."""

import math
import random
from itertools import pairwise

from PIL import Image, ImageDraw, ImageFilter

from calotype.providers.sandbox.palette import darkest, mix, rgb
from calotype.providers.sandbox.stage import Point, Stage, disc, glow, wash

_Course = list[tuple[float, float, float]]
"""Points of a stem, each with the direction that it runs in there, in radians."""


class _Plate:
    """Where plants are drawn, in greys on black, enlarged `scale` times."""

    def __init__(self, size: tuple[int, int], rng: random.Random, *, scale: int, tone: int) -> None:
        self.image = Image.new("L", (size[0] * scale, size[1] * scale))
        self.draw = ImageDraw.Draw(self.image)
        self.rng = rng
        self.scale = scale
        self.tone = tone
        self.shadow = round(tone * 0.6)

    def stem(self, course: _Course, thick: float) -> None:
        """A line that tapers towards its end; `thick` in working pixels."""
        k = self.scale
        for i, (a, b) in enumerate(pairwise(course)):
            width = max(1, round(thick * k * (1 - 0.7 * i / len(course))))
            self.draw.line([(a[0] * k, a[1] * k), (b[0] * k, b[1] * k)], self.tone, width)

    def leaf(
        self,
        root: Point,
        angle: float,
        length: float,
        width: float,
        *,
        belly: float = 0.45,
        lobes: float = 0.0,
        veined: bool = False,
    ) -> None:
        """A leaf or petal, pointed at both ends, widest at `belly`, lobed that many times."""
        k = self.scale
        c, s = math.cos(angle), math.sin(angle)
        power = math.log(0.5) / math.log(belly)
        steps = 10 if not lobes else round(lobes * 4)
        left: list[Point] = []
        right: list[Point] = []
        for i in range(steps + 1):
            t = i / steps
            half = width / 2 * math.sin(math.pi * t**power) ** 0.9
            if lobes:
                half *= 0.5 + 0.5 * abs(math.sin(math.pi * t * lobes))
            x, y = root[0] + c * length * t, root[1] + s * length * t
            left.append(((x - s * half) * k, (y + c * half) * k))
            right.append(((x + s * half) * k, (y - c * half) * k))
        tone = self.tone - self.rng.randrange(max(1, self.tone // 9)) * veined
        line = max(1, round(width * k * 0.03))
        edge = self.shadow if veined else None
        self.draw.polygon([*left, *right[::-1]], fill=tone, outline=edge, width=line)
        if veined:
            tip = ((root[0] + c * length * 0.9) * k, (root[1] + s * length * 0.9) * k)
            self.draw.line([(root[0] * k, root[1] * k), tip], self.shadow, line)

    def dot(self, at: Point, radius: float, tone: int) -> None:
        """A seed, a floret."""
        k = self.scale
        x, y, r = at[0] * k, at[1] * k, max(0.6, radius * k)
        self.draw.ellipse((x - r, y - r, x + r, y + r), fill=tone)


def _course(root: Point, angle: float, length: float, bend: float, steps: int = 24) -> _Course:
    """A stem that turns by `bend` radians on its way, most of it towards the end."""
    x, y = root
    course = []
    for i in range(steps + 1):
        a = angle + bend * (i / steps) ** 1.6
        course.append((x, y, a))
        x += math.cos(a) * length / steps
        y += math.sin(a) * length / steps
    return course


def _fern(plate: _Plate, root: Point, angle: float, length: float) -> None:
    course = _course(root, angle, length, plate.rng.uniform(-0.6, 0.6), 40)
    plate.stem(course, length * 0.008)
    for i, (x, y, a) in enumerate(course[5:], 5):
        t = (i - 5) / 35
        reach = length * 0.27 * min(1.0, 0.45 + t * 2.6) * (1 - t) ** 0.85 + length * 0.008
        for side in (-1, 1):
            lean = a + side * (1.22 - 0.5 * t)
            plate.leaf(
                (x, y), lean, reach, length * 0.028 * (1 - 0.6 * t), belly=0.3, lobes=9 - 5 * t
            )


def _umbel(plate: _Plate, root: Point, angle: float, length: float) -> None:
    rng = plate.rng
    course = _course(root, angle, length * 0.72, rng.uniform(-0.35, 0.35))
    plate.stem(course, length * 0.009)
    x, y, a = course[-1]
    rays = rng.randint(15, 21)
    for i in range(rays):
        spread = (i / (rays - 1) - 0.5) * 2
        reach = length * (0.27 - 0.07 * abs(spread)) * rng.uniform(0.9, 1.08)
        ray = _course((x, y), a + spread * 1.15, reach, -spread * 0.35, 8)
        plate.stem(ray, length * 0.0035)
        tx, ty, ta = ray[-1]
        for _ in range(13):
            way = ta + rng.uniform(-1.1, 1.1)
            far = length * 0.045 * rng.uniform(0.5, 1)
            end = (tx + math.cos(way) * far, ty + math.sin(way) * far)
            plate.stem([(tx, ty, way), (*end, way)], length * 0.0016)
            plate.dot(end, length * rng.uniform(0.0035, 0.007), plate.tone)
    for i, side in ((6, 1), (10, -1)):
        x, y, a = course[i]
        for off in (-0.35, 0.0, 0.35):
            plate.leaf((x, y), a + side * 0.9 + off, length * 0.16, length * 0.018)


def _sprig(plate: _Plate, root: Point, angle: float, length: float) -> None:
    rng = plate.rng
    count = 2 * rng.randint(7, 11)
    course = _course(root, angle, length, rng.uniform(-0.7, 0.7), count)
    plate.stem(course, length * 0.009)
    plump = rng.uniform(0.3, 0.6)
    for i, (x, y, a) in enumerate(course[3:], 3):
        side = 1 if i % 2 else -1
        size = length * 0.2 * (1 - 0.55 * i / count) * rng.uniform(0.9, 1.1)
        plate.leaf((x, y), a + side * rng.uniform(0.7, 0.95), size, size * plump, veined=True)
    x, y, a = course[-1]
    plate.leaf((x, y), a, length * 0.12, length * 0.05, veined=True)


def _grass(plate: _Plate, root: Point, angle: float, length: float) -> None:
    rng = plate.rng
    for _ in range(rng.randint(4, 7)):
        foot = (root[0] + rng.uniform(-0.03, 0.03) * length, root[1])
        lean = angle + rng.uniform(-0.22, 0.22)
        course = _course(foot, lean, length * rng.uniform(0.65, 1), rng.uniform(-0.9, 0.9), 28)
        plate.stem(course, length * 0.005)
        for x, y, a in course[19:]:
            for side in (-1, 1):
                plate.leaf((x, y), a + side * 0.45, length * 0.05, length * 0.009)


def _cosmos(plate: _Plate, root: Point, angle: float, length: float) -> None:
    """A flower of eight petals on a long stem, with thread leaves."""
    rng = plate.rng
    course = _course(root, angle, length * 0.82, rng.uniform(-0.4, 0.4))
    plate.stem(course, length * 0.008)
    x, y, a = course[-1]
    petal = length * rng.uniform(0.14, 0.18)
    turn = rng.uniform(0, math.tau)
    for i in range(8):
        plate.leaf((x, y), turn + i * math.tau / 8, petal, petal * 0.6, belly=0.68, veined=True)
    plate.dot((x, y), petal * 0.19, plate.shadow // 2)
    for k in range(26):
        way, far = k * 2.4, petal * 0.17 * math.sqrt(k / 26)
        at = (x + math.cos(way) * far, y + math.sin(way) * far)
        plate.dot(at, petal * 0.018, plate.tone)
    for i in (7, 11, 15):
        x, y, a = course[i]
        for off in (-0.9, -0.55, 0.55, 0.9):
            plate.leaf((x, y), a + off, length * 0.13, length * 0.008)


def _ginkgo(plate: _Plate, root: Point, angle: float, length: float) -> None:
    """A branch with fan leaves."""
    rng, k = plate.rng, plate.scale
    course = _course(root, angle, length, rng.uniform(-0.6, 0.6), 20)
    plate.stem(course, length * 0.011)
    for i, (x, y, a) in enumerate(course[4:], 4):
        side = 1 if i % 2 else -1
        stalk = _course((x, y), a + side * rng.uniform(0.6, 1.1), length * 0.07, side * 0.3, 5)
        plate.stem(stalk, length * 0.004)
        fx, fy, fa = stalk[-1]
        size = length * rng.uniform(0.085, 0.12) * (1.1 - 0.4 * i / 20)

        def rim(f: float, reach: float, fx: float = fx, fy: float = fy, fa: float = fa) -> Point:
            return (fx + math.cos(fa + f) * reach) * k, (fy + math.sin(fa + f) * reach) * k

        fan: list[Point] = [(fx * k, fy * k)]
        for j in range(-12, 13):
            f = j / 12
            scallop = 1 + 0.035 * math.sin(j * 2.1) if j else 0.72
            fan.append(rim(f * 1.05, size * scallop * (1 - 0.16 * f * f)))
        plate.draw.polygon(fan, fill=plate.tone - rng.randrange(max(1, plate.tone // 9)))
        for j in range(-10, 11, 3):
            ray = [fan[0], rim(j / 12, size * 0.84)]
            plate.draw.line(ray, plate.shadow, max(1, round(size * k * 0.012)))


_PLANTS = (_fern, _umbel, _sprig, _grass, _cosmos, _ginkgo)
_PLANES = (
    # enlarged, blurred by (of the unit), tone, plants in each group
    (1, 0.007, 95, 4),
    (1, 0.0022, 150, 3),
    (2, 0.0, 246, 2),
)


def botanical(stage: Stage) -> None:
    """A bouquet in three depths; only what lay on the paper is sharp."""
    rng, unit, palette = stage.rng, stage.unit, stage.palette
    deep = darkest(palette)
    field = mix(deep, rgb(palette.sky[1]), 0.4)
    wash(stage, [mix(field, rgb(palette.sky[1]), 0.25), field, mix(field, deep, 0.7)])
    shine = stage.at(rng.uniform(0.3, 0.7), rng.uniform(0.3, 0.5))
    glow(stage, shine, unit * 0.9, rgb(palette.sky[1]), 0.5)
    size = stage.image.size
    main, *others = rng.sample(_PLANTS, len(_PLANTS))
    groups = max(1, round(stage.width / unit / 0.95))
    tall = min(stage.height * 1.02, unit * 1.4)
    for scale, blur, tone, count in _PLANES:
        plate = _Plate(size, rng, scale=scale, tone=tone)
        for group in range(groups):
            for n in range(count):
                subject = not blur and n == 0
                plant = main if subject else rng.choice(others)
                aside = rng.uniform(-0.06, 0.06) if subject else rng.uniform(0.1, 0.46)
                aside *= rng.choice((-1, 1))
                x = stage.width * (group + 0.5 + aside) / groups
                length = tall * (0.88 if subject else rng.uniform(0.42, 0.74))
                lean = -math.pi / 2 + rng.uniform(-0.22, 0.22)
                plant(plate, (x, stage.height + unit * 0.03), lean, length)
        grey = plate.image.reduce(scale) if scale > 1 else plate.image
        if blur:
            grey = grey.filter(ImageFilter.BoxBlur(blur * unit))
        tint = mix(rgb(palette.light), rgb(palette.sky[2]), 0.5 if blur else 0.0)
        stage.image.paste(tint, (0, 0, *size), grey)
    for _ in range(14):
        at = (rng.uniform(0.04, 0.96) * stage.width, rng.uniform(0.05, 0.85) * stage.height)
        seed = unit * rng.uniform(0.0015, 0.004)
        disc(stage, at, seed, rgb(palette.light), rng.uniform(0.3, 0.8))
