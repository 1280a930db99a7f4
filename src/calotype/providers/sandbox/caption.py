"""The lines under the picture: the prompt, the model, the size, and that this is the sandbox."""

import math

import msgspec
from PIL import Image, ImageDraw

from calotype.providers.sandbox.lettering import Font, font, printable, wrap
from calotype.providers.sandbox.palette import Palette, mix, rgb

_STAMP = "SANDBOX"
_NARROW, _WIDE = 26, 62
"""Ems to the line: below the one a prompt gets more lines, above the other a column of its own."""
_LONGEST = 700
"""Characters of a prompt that are looked at: more never fit."""


class Caption(msgspec.Struct, frozen=True):
    """A caption measured and broken into lines; everything in pixels of the finished picture."""

    prompt: list[str]
    facts: list[str]
    size: int
    small: int
    margin: int
    beside: bool
    """Facts stand to the right of the prompt, not under it."""
    height: int
    """From the lower edge of the scene to the lower edge of the paper."""


def compose(prompt: str, facts: list[str], *, size: tuple[int, int]) -> Caption:
    """Break the texts so that they fit paper of this size."""
    width, height = size
    short, long = min(size), max(size)
    em = max(12, round(0.0205 * math.sqrt(short * min(long, 2 * short))))
    small = max(11, round(em * 0.76))
    margin = max(7, round(0.026 * math.sqrt(short * min(long, 1.6 * short))))
    room = width - 2 * margin
    narrow = width < _NARROW * em
    beside = width > _WIDE * em
    rows = max(1, min(7 if narrow else 3, int((0.2 if narrow else 0.16) * height / (1.3 * em))))
    text = printable(prompt[:_LONGEST]) or "(no prompt)"
    if len(prompt) > _LONGEST:
        text += "…"
    lines = wrap(text, font(em), room * 0.62 if beside else room, min(rows, 2) if beside else rows)
    fact_room = room * 0.34 if beside else room
    fact_lines = _flow([printable(f) for f in facts if f], font(small), fact_room)
    stamp_w, stamp_h = _stamp_size(small)
    used = len(lines) * em * 1.3
    fact_height = len(fact_lines) * small * 1.4
    if beside:
        block = max(used, stamp_h + small * 0.5 + fact_height)
    else:
        last = font(small).getlength(fact_lines[-1]) if fact_lines else 0
        alone = last + stamp_w + small > room
        block = used + small * 0.55 + fact_height + (stamp_h + small * 0.4 if alone else 0)
    pad = max(6, round(em * 0.8))
    return Caption(
        prompt=lines,
        facts=fact_lines,
        size=em,
        small=small,
        margin=margin,
        beside=beside,
        height=math.ceil(block) + pad + max(margin, pad),
    )


def _flow(facts: list[str], face: Font, room: float) -> list[str]:
    """Facts in as few lines as hold them, joined by middle dots."""
    rows: list[str] = []
    for fact in facts:
        short = wrap(fact, face, room, 1)[0] if fact else ""
        joined = f"{rows[-1]}  ·  {short}" if rows else short
        if rows and face.getlength(joined) <= room:
            rows[-1] = joined
        elif short:
            rows.append(short)
    return rows


def _stamp_size(small: int) -> tuple[int, int]:
    face = font(max(10, round(small * 0.82)))
    wide = sum(face.getlength(c) for c in _STAMP) + small * 0.16 * len(_STAMP)
    return math.ceil(wide + small * 1.1), math.ceil(small * 1.5)


def letter(image: Image.Image, caption: Caption, palette: Palette) -> None:
    """Set the caption on the paper under the scene."""
    draw = ImageDraw.Draw(image)
    ink, paper = rgb(palette.ink), rgb(palette.paper)
    soft = mix(ink, paper, 0.22)
    left, right = caption.margin, image.width - caption.margin
    pad = max(6, round(caption.size * 0.8))
    top = image.height - caption.height + pad
    face, small = font(caption.size), font(caption.small)
    y = float(top)
    for row in caption.prompt:
        draw.text((left, y + caption.size * 0.98), row, fill=ink, font=face, anchor="ls")
        y += caption.size * 1.3
    stamp_w, stamp_h = _stamp_size(caption.small)
    if caption.beside:
        _stamp(draw, (right - stamp_w, top), caption.small, ink=ink, paper=paper)
        y = top + stamp_h + caption.small * 0.5
        for row in caption.facts:
            draw.text((right, y + caption.small), row, fill=soft, font=small, anchor="rs")
            y += caption.small * 1.4
        return
    y += caption.small * 0.55
    for row in caption.facts:
        draw.text((left, y + caption.small * 1.05), row, fill=soft, font=small, anchor="ls")
        y += caption.small * 1.4
    last = small.getlength(caption.facts[-1]) if caption.facts else 0
    if left + last + caption.small + stamp_w <= right:
        corner = (right - stamp_w, y - caption.small * 1.4 - caption.small * 0.07)
    else:
        corner = (left, y + caption.small * 0.4)
    _stamp(draw, corner, caption.small, ink=ink, paper=paper)


def _stamp(
    draw: ImageDraw.ImageDraw,
    corner: tuple[float, float],
    small: int,
    *,
    ink: tuple[int, int, int],
    paper: tuple[int, int, int],
) -> None:
    """The word in spaced capitals, light on ink."""
    width, height = _stamp_size(small)
    x, y = round(corner[0]), round(corner[1])
    draw.rounded_rectangle((x, y, x + width - 1, y + height - 1), radius=height * 0.28, fill=ink)
    face = font(max(10, round(small * 0.82)))
    cursor = x + small * 0.55 + small * 0.08
    for char in _STAMP:
        draw.text(
            (cursor, y + height * 0.5 + small * 0.29), char, fill=paper, font=face, anchor="ls"
        )
        cursor += face.getlength(char) + small * 0.16
