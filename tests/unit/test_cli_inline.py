"""Images in the terminal: who can show them, and what it is sent."""

import base64
import re
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from calotype.cli.inline import Graphics, drawn, graphics


def picture(folder: Path, size: tuple[int, int], *, mode: str = "RGB") -> Path:
    """A picture in which every pixel has its own place's colours."""
    image = Image.linear_gradient("L").resize(size)
    across = image.transpose(Image.Transpose.ROTATE_90).resize(size)
    whole = Image.merge("RGB", (image, across, Image.new("L", size, 80)))
    path = folder / "picture.png"
    whole.convert(mode).save(path)
    return path


def sixels(text: str) -> Image.Image:
    """What a terminal draws for a sixel sequence."""
    body = re.fullmatch(r'\x1bP0;1q"1;1;(\d+);(\d+)(.*)\x1b\\\n', text, re.DOTALL)
    assert body, text[:40]
    image = Image.new("RGB", (int(body[1]), int(body[2])), "magenta")
    colours: dict[int, tuple[int, int, int]] = {}
    colour = (0, 0, 0)
    x = top = 0
    for token in re.finditer(r"#(\d+)(?:;2;(\d+);(\d+);(\d+))?|!(\d+)(.)|([$-])|([?-~])", body[3]):
        if token[2]:
            red, green, blue = (round(int(part) * 2.55) for part in token.group(2, 3, 4))
            colours[int(token[1])] = (red, green, blue)
        elif token[1]:
            colour = colours[int(token[1])]
        elif token[7]:
            x, top = 0, top + 6 * (token[7] == "-")
        else:
            bits = ord(token[6] or token[8]) - 63
            end = x + int(token[5] or 1)
            for row in (row for row in range(6) if bits >> row & 1):
                image.paste(colour, (x, top + row, end, top + row + 1))
            x = end
    return image


def greatest_difference(one: Image.Image, other: Image.Image) -> int:
    """Of any colour of any pixel."""
    assert one.size == other.size
    pairs = zip(one.tobytes(), other.tobytes(), strict=True)
    return max(abs(a - b) for a, b in pairs)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"TERM": "xterm-kitty"}, Graphics.KITTY),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, Graphics.KITTY),
        ({"TERM": "xterm-ghostty"}, Graphics.KITTY),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, Graphics.ITERM),
        ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, Graphics.ITERM),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, Graphics.ITERM),
        ({"TERM": "xterm-256color"}, None),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/tmux-1/default,1,0"}, None),  # noqa: S108 -- as tmux sets it
        ({"TERM": "screen-256color", "KITTY_WINDOW_ID": "1"}, None),
        ({"TERM": "dumb", "LC_TERMINAL": "iTerm2"}, None),
        ({}, None),
    ],
)
def test_a_terminal_is_known_by_its_variables(
    environment: dict[str, str], expected: Graphics | None
) -> None:
    assert graphics(environment, has_sixel=lambda: False) == expected


def test_only_a_terminal_that_no_variable_names_is_asked_for_sixels() -> None:
    assert graphics({"TERM": "foot"}, has_sixel=lambda: True) is Graphics.SIXEL

    def never() -> bool:
        raise AssertionError

    for environment in ({"TERM": "xterm-kitty"}, {"TERM": "tmux"}, {"TERM": "dumb"}):
        graphics(environment, has_sixel=never)


def test_kitty_gets_a_png_in_chunks_that_only_the_last_ends(tmp_path: Path) -> None:
    path = tmp_path / "noise.png"
    Image.effect_noise((200, 100), 90).save(path)
    text = drawn(path, Graphics.KITTY, columns=80)
    chunks = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", text)
    assert "".join(f"\x1b_G{control};{data}\x1b\\" for control, data in chunks) + "\n" == text
    assert [control for control, _ in chunks] == [
        "a=T,f=100,q=2,m=1",
        *["m=1"] * (len(chunks) - 2),
        "m=0",
    ]
    assert len(chunks) > 2
    assert all(len(data) <= 4096 for _, data in chunks)
    sent = Image.open(BytesIO(base64.b64decode("".join(data for _, data in chunks))))
    assert sent.size == (200, 100)


def test_iterm_gets_the_whole_png_with_its_size(tmp_path: Path) -> None:
    text = drawn(picture(tmp_path, (60, 40)), Graphics.ITERM, columns=80)
    match = re.fullmatch(
        r"\x1b\]1337;File=inline=1;size=(\d+);preserveAspectRatio=1:(.*)\x07\n", text
    )
    assert match
    content = base64.b64decode(match[2])
    assert len(content) == int(match[1])
    assert Image.open(BytesIO(content)).size == (60, 40)


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (64, 48), (33, 13)])
def test_sixels_draw_the_picture_pixel_for_pixel(tmp_path: Path, size: tuple[int, int]) -> None:
    path = picture(tmp_path, size)
    seen = sixels(drawn(path, Graphics.SIXEL, columns=80))
    with Image.open(path) as original:
        expected = original.quantize(256).convert("RGB")
    assert greatest_difference(seen, expected) <= 3  # sixels know 101 steps of each colour


def test_a_large_image_is_shown_smaller_in_its_own_proportions(tmp_path: Path) -> None:
    seen = sixels(drawn(picture(tmp_path, (3000, 1500)), Graphics.SIXEL, columns=50))
    assert seen.size == (400, 200)


def test_transparency_survives_where_the_protocol_has_it(tmp_path: Path) -> None:
    path = tmp_path / "glass.png"
    Image.new("RGBA", (4, 4), (255, 0, 0, 10)).save(path)
    text = drawn(path, Graphics.KITTY, columns=80)
    content = base64.b64decode(text.partition(";")[2].removesuffix("\x1b\\\n"))
    assert Image.open(BytesIO(content)).getpixel((0, 0)) == (255, 0, 0, 10)
    assert sixels(drawn(path, Graphics.SIXEL, columns=80)).size == (4, 4)


def test_a_file_that_is_no_picture_is_an_error_that_says_so(tmp_path: Path) -> None:
    path = tmp_path / "drawing.svg"
    path.write_text("<svg/>")
    with pytest.raises(OSError, match=r"drawing\.svg"):
        drawn(path, Graphics.KITTY, columns=80)
