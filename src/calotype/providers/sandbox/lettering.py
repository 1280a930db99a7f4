# ruff: noqa: RUF001 -- signs that look alike are what this module is about
"""Text that the embedded font can really print.

Pillow carries one font, Aileron, and of it only ASCII and a few signs. Everything else is
replaced by the nearest honest thing: accents fall away, alphabets that can be are spelled in
Latin letters, a picture character is named, and a run in any other script is counted and given
by its first code point, so that a reader sees that it arrived and which it was. Never a box.
"""

import functools
import re
import unicodedata
from collections.abc import Iterator

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_PRINTED = frozenset(map(chr, range(0x20, 0x7F))) | frozenset("©«°±´·»‘’“”…‹›⁄™")
_ALIKE = str.maketrans(
    {
        "×": "x",
        "–": "-",
        "—": "-",
        "−": "-",
        "‐": "-",
        "‑": "-",
        "„": "“",
        "‚": "‘",
        "•": "·",
        "′": "'",
        "″": '"',
        "→": "->",
        "←": "<-",
        "€": "EUR ",
        "£": "GBP ",
        "ß": "ss",
        "ø": "o",
        "Ø": "O",
        "ł": "l",
        "Ł": "L",
        "đ": "d",
        "Đ": "D",
        "æ": "ae",
        "Æ": "Ae",
        "œ": "oe",
        "Œ": "Oe",
        "ı": "i",
        "þ": "th",
        "ð": "d",
        "。": ".",
        "、": ",",
        "「": "“",
        "」": "”",
    }
)
_LETTERS = """
а=a б=b в=v г=g д=d е=e ё=yo ж=zh з=z и=i й=y к=k л=l м=m н=n о=o п=p р=r с=s т=t у=u ф=f х=kh
ц=ts ч=ch ш=sh щ=shch ъ= ы=y ь= э=e ю=yu я=ya і=i ї=yi є=ye ґ=g
α=a β=v γ=g δ=d ε=e ζ=z η=i θ=th ι=i κ=k λ=l μ=m ν=n ξ=x ο=o π=p ρ=r σ=s ς=s τ=t υ=y φ=f χ=ch
ψ=ps ω=o
"""
_LATIN = {pair[0]: pair[2:] for pair in _LETTERS.split()}
_SYLLABLES = ("HANGUL SYLLABLE ", "HIRAGANA LETTER ", "KATAKANA LETTER ")
_JOINERS = frozenset({"Cf", "Cc", "Cs", "Co", "Cn", "Mn", "Me", "Sk"})


@functools.lru_cache(maxsize=16)
def font(size: int) -> Font:
    """The embedded font at a size in pixels."""
    return ImageFont.load_default(size)


def printable(text: str) -> str:
    """The text in characters that the font has, on one line."""
    line = " ".join(unicodedata.normalize("NFC", text).translate(_ALIKE).split())
    text = " ".join("".join(_pieces(line)).split())
    return re.sub(r"\] (?=[,.;:!?])", "]", text)


def _pieces(line: str) -> Iterator[str]:
    run = ""
    between = ""
    for char in line:
        spelled = _spelled(char)
        if spelled is None:
            if run and _script(run[0]) != _script(char):
                yield f"{_counted(run)} "
                run = ""
            run, between = run + char, ""
        elif run and not any(c.isalnum() or c == "[" for c in spelled):
            # Marks inside a run go with it; those after it are kept.
            between += spelled
        else:
            yield _counted(run) + between + spelled
            run = between = ""
    yield _counted(run) + between


def _spelled(char: str) -> str | None:
    """This character in printable ones; None where only a description will do."""
    if char in _PRINTED:
        return char
    category = unicodedata.category(char)
    name = unicodedata.name(char, "")
    if category in _JOINERS:
        return ""
    if category.startswith("Z"):
        return " "
    spelled = _bare(char) or _letter(char, name)
    if spelled is None and category.startswith("S") and name:
        return f" [{name.lower()}] "
    return spelled


def _bare(char: str) -> str | None:
    """A letter or digit without its accents and ornaments, where that is one the font has."""
    if unicodedata.category(char).startswith("S"):
        return None
    plain = "".join(c for c in unicodedata.normalize("NFKD", char) if c in _PRINTED)
    return plain.strip() or None


def _letter(char: str, name: str) -> str | None:
    """A letter or syllable of a script that is spelled sign by sign."""
    small = char.lower()
    latin = _LATIN.get(small, _LATIN.get(unicodedata.normalize("NFD", small)[0]))
    if latin is not None:
        return latin if char == small else latin.capitalize()
    for kind in _SYLLABLES:
        if name.startswith(kind):
            return name.removeprefix(kind).removeprefix("SMALL ").lower()
    return None


def _script(char: str) -> str:
    word = unicodedata.name(char, "unnamed").split()[0]
    return word if word == "CJK" else word.capitalize()


def _counted(run: str) -> str:
    """A run of characters that no Latin letters stand for, such as '[4 CJK characters, U+6D77]'."""
    if not run:
        return ""
    script = _script(run[0])
    noun = "character" if len(run) == 1 else "characters"
    return f"[{len(run)} {script} {noun}, U+{ord(run[0]):04X}]"


def wrap(text: str, face: Font, width: float, lines: int) -> list[str]:
    """The text in at most so many lines of this width in pixels; what is left over is '…'."""
    rows: list[str] = []
    rest = text
    while rest and len(rows) < lines:
        row = _fitting(rest, face, width)
        cut = row.rfind(" ")
        if len(row) < len(rest) and rest[len(row)] != " " and cut > len(row) // 3:
            row = row[:cut]
        rest = rest[len(row) :].lstrip()
        rows.append(row.rstrip())
    if rest and rows:
        last = rows[-1]
        while last and face.getlength(last + "…") > width:
            last = last[:-1].rstrip()
        rows[-1] = last.rstrip(" ,.;:-") + "…"
    return rows


def _fitting(text: str, face: Font, width: float) -> str:
    """The longest beginning that is no wider; one character at the least."""
    low, high = 1, min(len(text), 4 + round(width))
    while low < high:
        middle = (low + high + 1) // 2
        if face.getlength(text[:middle]) <= width:
            low = middle
        else:
            high = middle - 1
    return text[:low]
