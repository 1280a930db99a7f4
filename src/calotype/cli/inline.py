"""Images in the terminal itself, where it can show them: by kitty's, iTerm2's or sixel graphics.

What a terminal can is read from the environment; sixels, which no variable tells of, are asked
for. Inside tmux and screen, which eat or garble all three, nothing is shown.
"""

import base64
import enum
import os
import select
import sys
import time
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Final

from calotype.cli import sixel

if TYPE_CHECKING:
    from PIL.Image import Image

ANSWER_SECONDS: Final = 0.3
"""How long a terminal may take to say what it can."""
MAX_WIDTH: Final = 800
MAX_HEIGHT: Final = 600
"""Pixels; a larger image is shown smaller."""
_CELL_WIDTH: Final = 8
"""Pixels of a column, at least."""
_KITTY_CHUNK: Final = 4096
_SIXEL_ATTRIBUTE: Final = b"4"
_ASK: Final = b"\x1b[c"
_MULTIPLEXERS: Final = ("screen", "tmux")
_KITTY_PROGRAMS: Final = frozenset({"ghostty", "kitty"})
_ITERM_PROGRAMS: Final = frozenset({"iTerm.app", "WezTerm", "mintty"})
_BLIND: Final = frozenset({"", "dumb", "linux"})


class Graphics(enum.StrEnum):
    """How a terminal is told of an image."""

    KITTY = "kitty"
    ITERM = "iTerm2"
    SIXEL = "sixel"


def graphics(environment: Mapping[str, str], *, has_sixel: Callable[[], bool]) -> Graphics | None:
    """What the terminal of this environment understands; None when it shows no images.

    Args:
        environment: variables.
        has_sixel: asks the terminal itself; called only when no variable tells.

    """
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if term in _BLIND or "TMUX" in environment or term.startswith(_MULTIPLEXERS):
        return None
    if (
        "KITTY_WINDOW_ID" in environment
        or program in _KITTY_PROGRAMS
        or term in {"xterm-kitty", "xterm-ghostty"}
    ):
        return Graphics.KITTY
    if program in _ITERM_PROGRAMS or environment.get("LC_TERMINAL") == "iTerm2":
        return Graphics.ITERM
    return Graphics.SIXEL if has_sixel() else None


def terminal_has_sixel() -> bool:
    """Ask the terminal of this process for its attributes, as only one at the front may.

    The terminal is silent for so long; keys that are pressed meanwhile may be lost.
    """
    if sys.platform == "win32":
        return False
    import termios
    import tty

    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:  # it has none
        return False
    try:
        if os.tcgetpgrp(terminal) != os.getpgrp():
            return False  # in the background; asking would stop us
        before = termios.tcgetattr(terminal)
        try:
            tty.setcbreak(terminal)
            os.write(terminal, _ASK)
            return _SIXEL_ATTRIBUTE in _attributes(terminal)
        finally:
            termios.tcsetattr(terminal, termios.TCSAFLUSH, before)
    except (OSError, termios.error):
        return False
    finally:
        os.close(terminal)


def _attributes(terminal: int) -> list[bytes]:
    """What stands in ``ESC [ ? 62 ; 4 ; … c``; nothing when no answer comes in time."""
    until, answer = time.monotonic() + ANSWER_SECONDS, b""
    while b"c" not in answer:
        left = until - time.monotonic()
        if left <= 0 or not select.select([terminal], [], [], left)[0]:
            return []
        chunk = os.read(terminal, 64)
        if not chunk:
            return []
        answer += chunk
    _, _, listed = answer.partition(b"\x1b[?")
    return listed.partition(b"c")[0].split(b";")


def drawn(path: Path, how: Graphics, *, columns: int) -> str:
    """What draws the image of a file in a terminal of so many columns, and ends the line.

    Raises:
        OSError: it holds no picture that can be read.

    """
    picture = _scaled(path, width=min(MAX_WIDTH, columns * _CELL_WIDTH))
    match how:
        case Graphics.KITTY:
            return _kitty(_png(picture)) + "\n"
        case Graphics.ITERM:
            return _iterm(_png(picture)) + "\n"
        case Graphics.SIXEL:
            return sixel.encode(picture.convert("RGB")) + "\n"


def _scaled(path: Path, *, width: int) -> "Image":
    from PIL import Image

    try:
        with Image.open(path) as picture:
            picture.draft("RGB", (width, MAX_HEIGHT))  # a JPEG is decoded near that size at once
            small = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    except (Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise OSError(str(error)) from error  # Pillow has many words for a broken file
    small.thumbnail((width, MAX_HEIGHT))
    return small


def _png(picture: "Image") -> bytes:
    file = BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _kitty(png: bytes) -> str:
    text = base64.standard_b64encode(png).decode("ascii")
    chunks = [text[at : at + _KITTY_CHUNK] for at in range(0, len(text), _KITTY_CHUNK)]
    parts = []
    for place, chunk in enumerate(chunks):
        # q=2: the terminal answers nothing, as nobody would read it.
        control = "a=T,f=100,q=2," if place == 0 else ""
        parts.append(f"\x1b_G{control}m={int(place < len(chunks) - 1)};{chunk}\x1b\\")
    return "".join(parts)


def _iterm(png: bytes) -> str:
    text = base64.standard_b64encode(png).decode("ascii")
    return f"\x1b]1337;File=inline=1;size={len(png)};preserveAspectRatio=1:{text}\x07"
