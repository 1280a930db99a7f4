"""Which scene and which colours a prompt gets: its words are asked first, then its seed."""

import random
import re

import msgspec

RGB = tuple[int, int, int]


class Palette(msgspec.Struct, frozen=True):
    """The colours of one print, from the sky down to the paper it is printed on."""

    sky: tuple[str, ...]
    """From the top of the picture to the horizon."""
    far: str
    near: str
    """The ground, from the haze to the foreground."""
    light: str
    """Sun, moon, petals, lit windows."""
    accent: str
    paper: str
    ink: str
    """What captions are set in: dark enough for any of the papers."""


PALETTES = {
    "cyanotype": Palette(
        sky=("#0d3a66", "#27699c", "#7fb0cb", "#dfeaea"),
        far="#88b3cb",
        near="#062443",
        light="#f6f5ea",
        accent="#cfe2e8",
        paper="#f4f0e4",
        ink="#12324f",
    ),
    "calotype": Palette(
        sky=("#8c6a4c", "#b99468", "#dcc094", "#f3e6c9"),
        far="#c3a176",
        near="#2d1c13",
        light="#fff4d8",
        accent="#e7cd9f",
        paper="#f5eddb",
        ink="#3b271b",
    ),
    "dusk": Palette(
        sky=("#26285a", "#6a447f", "#c8647a", "#f4976a", "#fbd7a1"),
        far="#c87584",
        near="#1b1738",
        light="#fff0cf",
        accent="#ffc98f",
        paper="#f6eee3",
        ink="#2b2346",
    ),
    "dawn": Palette(
        sky=("#7fa9c4", "#bccfd2", "#f2d8c8", "#fdf0dd"),
        far="#bccad0",
        near="#35525f",
        light="#fffaf0",
        accent="#f3b79f",
        paper="#f7f2e9",
        ink="#2c4650",
    ),
    "night": Palette(
        sky=("#040a1c", "#0a1c3c", "#17395f", "#4a7896"),
        far="#2f587a",
        near="#030a18",
        light="#f7f1d9",
        accent="#f2d289",
        paper="#efece2",
        ink="#101f38",
    ),
    "verdant": Palette(
        sky=("#6f9a93", "#a9c4b4", "#dbe3cb", "#f5f1da"),
        far="#a6c1ae",
        near="#0b2a26",
        light="#fffbe6",
        accent="#e3cf7f",
        paper="#f4f1e3",
        ink="#17352e",
    ),
    "winter": Palette(
        sky=("#8fa9bf", "#bccbd8", "#e3e9ec", "#f8f5f0"),
        far="#afc0cd",
        near="#33475c",
        light="#ffffff",
        accent="#f0cdb9",
        paper="#f5f4f0",
        ink="#2c3d50",
    ),
    "ember": Palette(
        sky=("#3d1f33", "#8f3a35", "#d9713f", "#f3b163", "#fbe2ad"),
        far="#d88b57",
        near="#2a0f16",
        light="#fff2cc",
        accent="#ffbd69",
        paper="#f7efe0",
        ink="#431e1d",
    ),
    "lagoon": Palette(
        sky=("#0b4a62", "#2c8292", "#86bfb4", "#e6e7c9", "#f8efd2"),
        far="#6fb0ae",
        near="#06303e",
        light="#fff8e0",
        accent="#f2c58b",
        paper="#f4f1e4",
        ink="#0f3c49",
    ),
    "blossom": Palette(
        sky=("#7d6d97", "#b78fa8", "#e7b8b8", "#f9e0d2"),
        far="#d3a5b3",
        near="#3a2644",
        light="#fff5ea",
        accent="#f5a9a4",
        paper="#f8f1ea",
        ink="#42304c",
    ),
}

_SCENE_WORDS = {
    "sea": "sea ocean wave waves beach boat ship sail sailing coast island lake river water "
    "harbour harbor surf whale fish lighthouse 海 湖 水 море",
    "forest": "forest tree trees wood woods pine jungle deer fox bear wolf owl 森 林 лес",
    "city": "city street skyline tower building tokyo york paris london shanghai neon cyberpunk "
    "urban car robot 城 街 город",
    "ridges": "mountain mountains alps peak valley landscape cabin castle dragon 山 горы",
    "dunes": "desert dune dunes sand sahara camel hill hills silk 沙",
    "botanical": "flower flowers rose leaf leaves botanical garden fern plant bouquet herb tulip "
    "meadow bee butterfly tea 花 цветы",
    "celestial": "star stars space galaxy planet planets moon cosmos universe astronaut rocket "
    "constellation 星 月 宇",
    "contours": "abstract map pattern texture geometric paper marble logo icon poster fluid",
}
# Moods before places: a forest at night is dark before it is green.
_PALETTE_WORDS = {
    "night": "night midnight dark moon moonlit star stars space galaxy neon 夜 ночь",
    "dusk": "sunset dusk evening twilight golden romantic 夕 закат",
    "dawn": "dawn sunrise morning mist misty fog foggy pastel watercolor 晨",
    "winter": "snow snowy winter ice icy frost arctic cold polar penguin 雪 снег",
    "cyanotype": "cyanotype blueprint prussian blue rain 蓝",
    "calotype": "calotype vintage old sepia antique photograph coffee castle history",
    "blossom": "pink blossom cherry love spring rose sakura candy 樱",
    "ember": "fire autumn fall volcano desert red lava dragon mars 火 红",
    "lagoon": "sea ocean lagoon tropical beach island underwater whale 海 море",
    "verdant": "forest green jungle moss summer garden meadow tea 绿 лес",
}
_FAVOURED = {
    "botanical": ("cyanotype", "cyanotype", "calotype", "verdant", "lagoon", "blossom"),
    "celestial": ("night", "night", "cyanotype", "dusk", "lagoon", "ember"),
}
"""The colours that suit a scene whose prompt names none; every other scene takes any."""


def choose(prompt: str, rng: random.Random) -> tuple[str, Palette]:
    """The name of the scene and the colours, by the prompt's words where they say one."""
    words = set(re.findall(r"\w+", prompt.lower()))
    scene = _said(_SCENE_WORDS, words, prompt) or rng.choice(list(_SCENE_WORDS))
    suited = _FAVOURED.get(scene, tuple(PALETTES))
    palette = _said(_PALETTE_WORDS, words, prompt) or rng.choice(suited)
    return scene, PALETTES[palette]


def _said(vocabulary: dict[str, str], words: set[str], prompt: str) -> str | None:
    for name, known in vocabulary.items():
        # Chinese puts no spaces between words, so those are looked for as characters.
        if any(w in words or (not w[0].isascii() and w in prompt) for w in known.split()):
            return name
    return None


def rgb(colour: str) -> RGB:
    """A '#rrggbb' as numbers."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def mix(first: RGB, second: RGB, share: float) -> RGB:
    """A colour on the way from the first (share 0) to the second (share 1)."""
    t = min(1.0, max(0.0, share))
    return (
        round(first[0] + (second[0] - first[0]) * t),
        round(first[1] + (second[1] - first[1]) * t),
        round(first[2] + (second[2] - first[2]) * t),
    )


def luminance(colour: RGB) -> float:
    """How bright a colour is, 0..1, as the eye weighs it."""
    return (0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]) / 255


def darkest(palette: Palette) -> RGB:
    """The deepest colour of a palette, for scenes that are light on dark."""
    return min((rgb(palette.near), rgb(palette.sky[0])), key=luminance)
