"""A picture as sixels: bands of six rows, one pass over a band for each colour in it."""

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from PIL.Image import Image

_BAND: Final = 6
"""Rows that one character stands for."""
_EMPTY: Final = ord("?")
"""Six pixels that are not of the colour; each that is adds its bit."""
_RUN: Final = re.compile(rb"(.)\1{3,}")


def encode(picture: "Image") -> str:
    """The escape sequence that draws a picture, in at most 256 colours."""
    reduced = picture.quantize(256)
    width, height = reduced.size
    pixels = reduced.tobytes()
    palette = reduced.getpalette() or []
    parts = [f'\x1bP0;1q"1;1;{width};{height}']
    for number in range(len(palette) // 3):
        red, green, blue = (round(one * 100 / 255) for one in palette[3 * number : 3 * number + 3])
        parts.append(f"#{number};2;{red};{green};{blue}")
    step = _BAND * width
    parts.extend(_band(pixels[top : top + step], width) for top in range(0, len(pixels), step))
    parts.append("\x1b\\")
    return "".join(parts)


def _band(pixels: bytes, width: int) -> str:
    lines: dict[int, bytearray] = {}
    for row in range(len(pixels) // width):
        bit = 1 << row
        for column, colour in enumerate(pixels[row * width : (row + 1) * width]):
            line = lines.get(colour)
            if line is None:
                line = lines[colour] = bytearray([_EMPTY]) * width
            line[column] += bit
    passes = (f"#{colour}{_packed(line)}" for colour, line in lines.items())
    return "$".join(passes) + "-"


def _packed(line: bytearray) -> str:
    """Runs of one character as their length and the character."""
    shortened = line.rstrip(bytes([_EMPTY]))
    return _RUN.sub(lambda run: b"!%d%b" % (len(run[0]), run[1]), shortened).decode("ascii")
