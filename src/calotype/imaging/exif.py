"""The one thing of EXIF that is needed to show an image: how it is turned."""

from typing import Final, Literal

UPRIGHT: Final = 1
_ORIENTATION: Final = 0x0112
_ORDERS: Final[dict[bytes, Literal["little", "big"]]] = {b"II*\x00": "little", b"MM\x00*": "big"}
"""How a block begins → the order of its numbers' bytes."""
_SHORT: Final = 3
_ENTRY: Final = 12
_MAX_ENTRIES: Final = 512


def orientation_in(block: bytes) -> int:
    """The orientation that an EXIF block names, 1 to 8; 1 where it names none that is sound."""
    block = block.removeprefix(b"Exif\x00\x00")
    order = _ORDERS.get(block[:4])
    if order is None:
        return UPRIGHT
    start = int.from_bytes(block[4:8], order)
    count = int.from_bytes(block[start : start + 2], order)
    for number in range(min(count, _MAX_ENTRIES)):
        at = start + 2 + number * _ENTRY
        entry = block[at : at + _ENTRY]
        if len(entry) < _ENTRY:
            break
        if int.from_bytes(entry[:2], order) == _ORIENTATION:
            found = int.from_bytes(entry[8:10], order)
            sound = int.from_bytes(entry[2:4], order) == _SHORT and UPRIGHT <= found <= 8  # noqa: PLR2004 -- the last there is
            return found if sound else UPRIGHT
    return UPRIGHT


def turned(orientation: int) -> bytes:
    """An EXIF block that names an orientation and nothing else."""
    entry = _ORIENTATION.to_bytes(2) + b"\x00\x03\x00\x00\x00\x01" + orientation.to_bytes(2)
    return b"MM\x00*\x00\x00\x00\x08\x00\x01" + entry + bytes(6)
