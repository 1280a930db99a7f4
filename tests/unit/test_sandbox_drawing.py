"""What the sandbox draws: exact sizes and formats, the same bytes for the same request."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from PIL import Image, ImageChops

from calotype.providers.sandbox.drawing import Picture, draw
from calotype.providers.sandbox.lettering import font, printable, wrap
from calotype.providers.sandbox.palette import PALETTES, luminance, rgb
from calotype.providers.sandbox.prints import MOST_PIXELS

FORMATS = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}
SCENES = {
    "sea": "a ship at sea",
    "forest": "a deer among pine trees",
    "city": "a street in the city",
    "ridges": "alps and a valley",
    "dunes": "camel tracks in the sand",
    "botanical": "a bouquet of tulips and fern",
    "celestial": "an astronaut between planets",
    "contours": "an abstract logo",
}


def request(prompt: str = "A quiet harbour at sunset", **changes: Any) -> Picture:
    plain = Picture(
        prompt=prompt,
        model="nano-banana-pro",
        width=320,
        height=256,
        format="png",
        label="5:4 · 1K",
    )
    return msgspec.structs.replace(plain, **changes)


def drawn(folder: Path, picture: Picture) -> bytes:
    target = folder / "picture"
    draw(picture, str(target))
    return target.read_bytes()


def decoded(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def difference(one: bytes, other: bytes) -> float:
    """The mean difference of two pictures, in levels of 255."""
    delta = ImageChops.difference(decoded(one), decoded(other)).convert("L")
    histogram = delta.histogram()
    return sum(level * count for level, count in enumerate(histogram)) / sum(histogram)


def reference(folder: Path, name: str, colour: str, size: tuple[int, int] = (90, 60)) -> str:
    path = folder / name
    Image.new("RGB", size, colour).save(path)
    return str(path)


def near(image: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    """A mask of the pixels within a few levels of a colour."""
    delta = ImageChops.difference(image, Image.new("RGB", image.size, colour))
    channels = [channel.point(lambda v: 255 if v <= 12 else 0) for channel in delta.split()]
    return ImageChops.darker(ImageChops.darker(channels[0], channels[1]), channels[2])


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    "size",
    [
        (256, 256),
        (1024, 1024),
        (257, 1031),
        (256, 2048),
        (2048, 256),
        (1512, 648),
        (2752, 1536),
    ],
)
def test_a_picture_has_exactly_the_size_and_format_asked_for(
    tmp_path: Path, size: tuple[int, int], kind: str
) -> None:
    data = drawn(tmp_path, request(width=size[0], height=size[1], format=kind))
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert image.size == size
        assert image.format == FORMATS[kind]
        assert image.mode == "RGB"


@pytest.mark.parametrize("kind", FORMATS)
def test_the_same_request_gives_the_same_bytes(tmp_path: Path, kind: str) -> None:
    assert drawn(tmp_path, request(format=kind)) == drawn(tmp_path, request(format=kind))


def test_another_process_with_another_hash_seed_draws_the_same_bytes(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    code = (
        "from calotype.providers.sandbox.drawing import Picture, draw;"
        f"draw(Picture('A quiet harbour at sunset', 'nano-banana-pro', 320, 256, 'png', "
        f"'5:4 · 1K'), {str(target)!r})"
    )
    environment = {"PYTHONHASHSEED": "1234", "PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert target.read_bytes() == drawn(tmp_path, request())


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "A quiet harbour at sunset."},
        {"model": "gpt-image-2"},
        {"width": 321},
        {"format": "webp"},
        {"label": "5:4"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_any_change_of_the_request_changes_the_bytes(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    assert drawn(tmp_path, request(**change)) != drawn(tmp_path, request())


def test_different_prompts_give_clearly_different_pictures(tmp_path: Path) -> None:
    pictures = [drawn(tmp_path, request(prompt)) for prompt in SCENES.values()]
    pairs = [(a, b) for i, a in enumerate(pictures) for b in pictures[:i]]
    assert min(difference(a, b) for a, b in pairs) > 8


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("size", [(256, 256), (256, 2048), (2048, 256)])
def test_every_scene_can_be_drawn_in_every_shape(
    tmp_path: Path, scene: str, size: tuple[int, int]
) -> None:
    data = drawn(tmp_path, request(SCENES[scene], width=size[0], height=size[1]))
    image = decoded(data)
    assert image.size == size
    assert len(image.resize((64, 64)).getcolors(4096) or []) > 256


@pytest.mark.parametrize("size", [(256, 256), (1024, 1024), (256, 2048), (2048, 256), (4096, 512)])
def test_the_stamp_and_the_text_stand_out_from_the_paper(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    image = decoded(drawn(tmp_path, request("sea at night", width=size[0], height=size[1])))
    palette = PALETTES["night"]
    strip = image.crop((0, size[1] - 42, size[0], size[1]))
    ink, paper = near(strip, rgb(palette.ink)), near(strip, rgb(palette.paper))
    assert ink.histogram()[255] > 300
    assert paper.histogram()[255] > strip.width * strip.height / 4


def test_every_ink_is_legible_on_its_paper() -> None:
    for palette in PALETTES.values():
        assert luminance(rgb(palette.paper)) - luminance(rgb(palette.ink)) > 0.6


def test_a_picture_carries_no_metadata(tmp_path: Path) -> None:
    for kind in FORMATS:
        with Image.open(io.BytesIO(drawn(tmp_path, request(format=kind)))) as image:
            assert not image.getexif()
            assert not set(image.info) & {"icc_profile", "exif", "comment", "Software"}


def test_references_are_seen_in_the_picture_in_their_order(tmp_path: Path) -> None:
    colours = {"a.png": (255, 0, 255), "b.jpg": (0, 255, 0), "c.webp": (255, 0, 0)}
    paths = tuple(
        reference(tmp_path, name, "#{:02x}{:02x}{:02x}".format(*colour))
        for name, colour in colours.items()
    )
    image = decoded(drawn(tmp_path, request(width=900, height=600, references=paths)))
    boxes = [near(image, colour).getbbox() for colour in colours.values()]
    assert all(boxes)
    lefts = [box[0] for box in boxes if box]
    assert lefts == sorted(lefts)


def test_another_order_of_references_is_another_picture(tmp_path: Path) -> None:
    one, two = reference(tmp_path, "1.png", "red"), reference(tmp_path, "2.png", "blue")
    forth, back = request(references=(one, two)), request(references=(two, one))
    assert drawn(tmp_path, forth) != drawn(tmp_path, back)


def test_the_content_of_a_reference_counts_and_not_its_path(tmp_path: Path) -> None:
    here, there = reference(tmp_path, "here.png", "red"), reference(tmp_path, "there.png", "red")
    assert drawn(tmp_path, request(references=(here,))) == drawn(
        tmp_path, request(references=(there,))
    )
    reference(tmp_path, "here.png", "blue")
    assert drawn(tmp_path, request(references=(here,))) != drawn(
        tmp_path, request(references=(there,))
    )


@pytest.mark.parametrize("size", [(256, 256), (2048, 2048), (2048, 256), (256, 2048)])
def test_sixteen_references_all_find_a_place(tmp_path: Path, size: tuple[int, int]) -> None:
    paths = tuple(reference(tmp_path, f"{i}.png", "#ff00ff", (40 + 20 * i, 200)) for i in range(16))
    image = decoded(drawn(tmp_path, request(width=size[0], height=size[1], references=paths)))
    assert near(image, (255, 0, 255)).histogram()[255] > 16 * 40


def test_a_reference_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    sideways = Image.new("RGB", (400, 400), "#ff0000")
    sideways.paste("#00ff00", (0, 0, 200, 400))
    turned = Image.Exif()
    turned[0x0112] = 6  # to be shown a quarter turn clockwise: what is left comes to the top
    path = tmp_path / "turned.jpg"
    sideways.save(path, quality=95, exif=turned)
    data = drawn(tmp_path, request(width=600, height=600, references=(str(path),)))
    image = decoded(data)
    green, red = near(image, (0, 255, 0)).getbbox(), near(image, (255, 0, 0)).getbbox()
    assert green
    assert red
    assert green[3] <= red[1] + 40
    assert abs(green[0] - red[0]) < 40


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("1", "bits.png"),
        ("L", "grey.png"),
        ("LA", "grey-alpha.png"),
        ("P", "palette.png"),
        ("RGBA", "alpha.png"),
        ("I;16", "deep.png"),
        ("CMYK", "print.jpg"),
        ("RGBA", "alpha.webp"),
    ],
)
def test_references_of_every_mode_are_read(tmp_path: Path, mode: str, name: str) -> None:
    path = tmp_path / name
    Image.new(mode, (300, 200)).save(path)
    plain = drawn(tmp_path, request())
    assert difference(plain, drawn(tmp_path, request(references=(str(path),)))) > 1


@pytest.mark.parametrize("name", ["whole.jpg", "whole.png", "whole.webp"])
def test_a_truncated_reference_is_refused_by_its_number(tmp_path: Path, name: str) -> None:
    whole = io.BytesIO()
    noise = Image.effect_noise((300, 300), 90)
    noise.convert("RGB").save(whole, FORMATS[name.rsplit(".", maxsplit=1)[-1]])
    path = tmp_path / name
    path.write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    good = reference(tmp_path, "good.png", "red")
    with pytest.raises(ValueError, match="Reference 2 is not a readable"):
        draw(request(references=(good, str(path))), str(tmp_path / "out"))


@pytest.mark.parametrize(
    "content", [b"", b"not an image at all", b"\x89PNG\r\n\x1a\n" + b"\0" * 99]
)
def test_a_reference_that_is_no_image_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "reference"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="Reference 1 is not a readable"):
        draw(request(references=(str(path),)), str(tmp_path / "out"))


def test_a_missing_reference_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Reference 1 cannot be read"):
        draw(request(references=(str(tmp_path / "nowhere"),)), str(tmp_path / "out"))


def test_a_reference_of_too_many_pixels_is_refused_unread(tmp_path: Path) -> None:
    side = 11_000
    assert side * side > MOST_PIXELS
    path = tmp_path / "huge.png"
    Image.new("1", (side, side)).save(path)
    with pytest.raises(ValueError, match="100 megapixels") as refusal:
        draw(request(references=(str(path),)), str(tmp_path / "out"))
    assert isinstance(refusal.value.__cause__, Image.DecompressionBombWarning)


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No such picture format"):
        draw(request(format="tiff"), str(tmp_path / "out"))


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        " \n\t ",
        "word " * 9000,
        "x" * 32_000,
        "日落时分的大海 🦊",
        "غروب الشمس",
        "\ud800 lone surrogate",
        "a\x00b\u202ec",
    ],
    ids=lambda prompt: repr(prompt[:12]),
)
def test_any_prompt_can_be_drawn(tmp_path: Path, prompt: str) -> None:
    assert decoded(drawn(tmp_path, request(prompt, label=""))).size == (320, 256)


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("plain text, as it is", "plain text, as it is"),
        ("café naïve Łódź", "cafe naive Lodz"),
        ("1024\u00d7768 — “quoted”…", "1024x768 - “quoted”…"),
        ("Закат над морем", "Zakat nad morem"),
        ("Ελλάδα", "Ellada"),
        ("안녕하세요 カタカナ", "annyeonghaseyo katakana"),
        ("a fox 🦊!", "a fox [fox face]!"),
        ("日落时分、大海", "[6 CJK characters, U+65E5]"),
        ("غروب الشمس, ok", "[9 Arabic characters, U+063A], ok"),
        ("हिन्दी ไทย", "[5 Devanagari characters, U+0939] [3 Thai characters, U+0E44]"),
        ("line\nbreak\tand   gaps", "line break and gaps"),
    ],
)
def test_text_beyond_the_font_is_spelled_named_or_counted(text: str, printed: str) -> None:
    assert printable(text) == printed


def test_a_long_text_ends_in_an_ellipsis_and_fits_its_lines() -> None:
    face = font(16)
    rows = wrap("some words and " * 40 + "averyveryverylongword" * 20, face, 180, 3)
    assert len(rows) == 3
    assert rows[-1].endswith("…")
    assert all(face.getlength(row) <= 180 for row in rows)


def test_a_word_wider_than_the_line_is_broken() -> None:
    rows = wrap("x" * 100, font(16), 120, 9)
    assert "".join(rows) == "x" * 100
    assert len(rows) > 1
