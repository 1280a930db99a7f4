"""Types of images that are taken in and converted, and never stored: GIF, AVIF, HEIC.

Their sizes are read from their headers, before a decoder sees them, by a reader that is bounded
whatever the bytes say. Whether such an image is sound is left to the decoder, in its own process.
"""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import BinaryIO, Final, Literal

from calotype.imaging.probe import _cut_short, _damaged, _read, _sane

ForeignType = Literal["image/gif", "image/avif", "image/heic"]

FOREIGN: Final = frozenset({"image/gif", "image/avif", "image/heic"})
"""What ``sniff_foreign`` tells; ``image/heif`` is another name of the last."""
_BRANDS: Final[dict[bytes, ForeignType]] = {
    b"avif": "image/avif",
    b"avis": "image/avif",
    **dict.fromkeys(
        (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "image/heic"
    ),
}
_GIF_STARTS: Final = (b"GIF87a", b"GIF89a")
_GIF_BLOCKS: Final = 65_536
"""Blocks and parts of blocks before the first picture."""
_BOXES: Final = 4096
"""Boxes in one box."""
_EXTENSION: Final = 0x21
_PICTURE: Final = 0x2C


def converted_types() -> tuple[str, ...]:
    """The content types that this server can convert: HEIC only with ``calotype[heic]``."""
    heic = ("image/heic", "image/heif") if find_spec("pillow_heif") else ()
    return ("image/gif", "image/avif", *heic)


def sniff_foreign(head: bytes) -> ForeignType | None:
    """The type that a file's first ``probe.SNIFF_BYTES`` bytes show; None: another."""
    if head.startswith(_GIF_STARTS):
        return "image/gif"
    return _BRANDS.get(head[8:12]) if head[4:8] == b"ftyp" else None


def judge_foreign(path: str, content_type: str) -> None:
    """Look whether an image of such a type can be worked with at all; it blocks on the disk.

    Raises:
        UnsupportedReferenceType: its header is damaged, or not whole.
        ReferenceTooLarge: it has more pixels than ``probe.MAX_PIXELS``, or a side over
            ``probe.MAX_SIDE``.
        OSError: the file cannot be read.

    """
    with open(path, "rb") as file:  # noqa: PTH123 -- a Path would be built only to be opened
        if content_type == "image/gif":
            _judge_gif(file)
        else:
            _judge_boxes(file, content_type.removeprefix("image/").upper())


def _judge_gif(file: BinaryIO) -> None:
    screen = _read(file, 0, 13)
    if len(screen) < 13:  # noqa: PLR2004 -- as GIF89a has it
        raise _cut_short("GIF")
    # A picture that reaches beyond the screen makes decoders enlarge it.
    sides = [int.from_bytes(screen[at : at + 2], "little") for at in (6, 8)]
    position = 13 + (3 << (screen[10] & 7) + 1 if screen[10] & 0x80 else 0)
    in_extension = False
    for _ in range(_GIF_BLOCKS):
        block = _read(file, position, 10)
        if not block:
            raise _cut_short("GIF")
        if in_extension:
            in_extension = block[0] > 0
            position += 1 + block[0]
        elif block[0] == _EXTENSION:
            in_extension = True
            position += 2
        elif block[0] == _PICTURE and len(block) == 10:  # noqa: PLR2004 -- as GIF89a has it
            x, y, width, height = (
                int.from_bytes(block[at : at + 2], "little") for at in (1, 3, 5, 7)
            )
            _sane(width, height, "GIF")
            _sane(max(sides[0], x + width), max(sides[1], y + height), "GIF")
            return
        else:
            break
    raise _damaged("GIF")


def _judge_boxes(file: BinaryIO, kind: str) -> None:
    """Judge every size that the properties of a HEIF file's items name."""
    found = False
    size = file.seek(0, 2)
    for name, start, end in _boxes(file, 0, size, kind):
        if name != b"meta":
            continue
        for part, first, last in _boxes(file, start + 4, end, kind):
            if part != b"iprp":
                continue
            for inner, begin, stop in _boxes(file, first, last, kind):
                if inner == b"ipco":
                    found |= _judge_properties(file, begin, stop, kind)
    if not found:
        raise _damaged(kind)


def _judge_properties(file: BinaryIO, start: int, end: int, kind: str) -> bool:
    found = False
    for name, first, last in _boxes(file, start, end, kind):
        if name == b"ispe":
            sides = _read(file, first + 4, min(8, max(0, last - first - 4)))
            _sane(int.from_bytes(sides[:4]), int.from_bytes(sides[4:]), kind)
            found = True
    return found


def _boxes(file: BinaryIO, start: int, end: int, kind: str) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of the content of each box between two places."""
    position = start
    for _ in range(_BOXES):
        if position + 8 > end:
            return
        head = _read(file, position, 16)
        length, header = int.from_bytes(head[:4]), 8
        if length == 1:
            length, header = int.from_bytes(head[8:16]), 16
        elif length == 0:  # to the end of the file
            length = end - position
        if length < header:
            raise _damaged(kind)
        if position + length > end:
            raise _cut_short(kind)
        yield head[4:8], position + header, position + length
        position += length
    raise _damaged(kind)
