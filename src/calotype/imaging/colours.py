"""Colours kept right while an image becomes another format."""

import struct
from io import BytesIO
from math import isclose
from typing import TYPE_CHECKING, Final

from PIL import ImageCms

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

CLEAR: Final = frozenset({"LA", "RGBA"})
"""Modes of images that can be seen through."""
_PLAIN: Final = frozenset({"L", "LA", "RGB", "RGBA", "CMYK"})
_DEEPEST: Final = 65_535
_SRGB_GAMMA: Final = 0.45455
_SRGB_POINTS: Final = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
"""x and y of white, red, green and blue."""
_D50: Final = (0.9642, 1.0, 0.8249)
"""The white of every profile."""
_BRADFORD: Final = (
    (0.8951, 0.2664, -0.1614),
    (-0.7502, 1.7135, 0.0367),
    (0.0389, -0.0685, 1.0296),
)

Vector = tuple[float, float, float]
Matrix = tuple[Vector, Vector, Vector]


def plain(image: "Picture") -> "Picture":
    """The image in 8 bits: grey, RGB or CMYK, the former two with alpha where it has any."""
    if image.mode.startswith("I"):
        return _in_eight_bits(image)
    if image.has_transparency_data and image.mode not in CLEAR:
        return image.convert("LA" if image.mode in {"L", "1"} else "RGBA")
    if image.mode == "1":
        return image.convert("L")
    if image.mode not in _PLAIN:
        return image.convert("RGB")
    image.load()
    return image


def _in_eight_bits(image: "Picture") -> "Picture":
    """A grey image of 16 bits, rounded."""
    deep = image.convert("I")
    grey = deep.point([round(value / 257) for value in range(_DEEPEST + 1)], "L")
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey.putalpha(deep.point([255 * (value != clear) for value in range(_DEEPEST + 1)], "L"))
    return grey


def profile_of(image: "Picture") -> bytes | None:
    """The image's colour profile; one made of what a PNG says of its colours in other words.

    None is sRGB, as everything is that says nothing.
    """
    profile = image.info.get("icc_profile")
    if profile:
        return bytes(profile)
    gamma, points = image.info.get("gamma"), image.info.get("chromaticity")
    if points and len(points) != len(_SRGB_POINTS):
        points = None
    if image.format != "PNG" or "srgb" in image.info or not (gamma or points):
        return None
    gamma, points = gamma or _SRGB_GAMMA, points or _SRGB_POINTS
    near = zip(points, _SRGB_POINTS, strict=True)
    if isclose(gamma, _SRGB_GAMMA, abs_tol=0.002) and all(abs(a - b) < 0.002 for a, b in near):  # noqa: PLR2004 -- as encoders round
        return None
    try:
        return matrix_profile(gamma, points)
    except (ArithmeticError, ValueError, struct.error):  # of impossible values
        return None


def settled(
    image: "Picture", profile: bytes | None, *, grey: bool
) -> tuple["Picture", bytes | None]:
    """The image and the profile that goes with it, in a mode that formats for screens have.

    Args:
        image: as ``plain`` returns it.
        profile: its own.
        grey: whether the format has grey images.

    """
    space = _space(profile)
    if image.mode == "CMYK":
        return in_srgb(image, profile), None
    if not image.mode.startswith("L"):
        return image, profile if space == "RGB" else None
    if space == "RGB":
        return image.convert("RGBA" if image.mode == "LA" else "RGB"), profile
    if space == "GRAY" and not grey:
        return in_srgb(image, profile), None
    return image, profile if space == "GRAY" else None


def in_srgb(image: "Picture", profile: bytes | None) -> "Picture":
    """The image in the colours of every screen; as it is where its profile is not sound."""
    clear = image.mode in CLEAR
    mode = "RGBA" if clear else "RGB"
    solid = image.convert(image.mode.removesuffix("A")) if clear else image
    if profile is None or _space(profile) not in {solid.mode, "GRAY" if solid.mode == "L" else ""}:
        if _space(profile) != "RGB":
            return image.convert(mode)
        solid = solid.convert("RGB")
    try:
        own = ImageCms.ImageCmsProfile(BytesIO(profile or b""))
        srgb = ImageCms.createProfile("sRGB")
        turned = ImageCms.profileToProfile(solid, own, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        turned = None
    if turned is None:
        return image.convert(mode)
    if clear:
        turned.putalpha(image.getchannel("A"))
    return turned


def _space(profile: bytes | None) -> str:
    """What a profile is for: ``RGB``, ``GRAY``, ``CMYK`` …; empty where it is not sound."""
    if profile is None:
        return ""
    try:
        return ImageCms.ImageCmsProfile(BytesIO(profile)).profile.xcolor_space.strip()
    except (ImageCms.PyCMSError, OSError, ValueError):
        return ""


def matrix_profile(gamma: float, points: tuple[float, ...]) -> bytes:
    """An ICC profile (version 2) of a PNG's gAMA and cHRM.

    Args:
        gamma: of the file, such as 0.45455.
        points: x and y of white, red, green and blue.

    Raises:
        ArithmeticError, ValueError, struct.error: there is no such colour space.

    """
    columns = _adapted(points)
    curve = b"curv" + struct.pack(">IIH2x", 0, 1, round(256 / gamma))
    name = b"of gAMA and cHRM"
    tags = {
        b"desc": b"desc" + struct.pack(">II", 0, len(name) + 1) + name + bytes(79),
        b"cprt": b"text\0\0\0\0none\0\0\0\0",
        b"wtpt": _xyz(_D50),
        b"rXYZ": _xyz(columns[0]),
        b"gXYZ": _xyz(columns[1]),
        b"bXYZ": _xyz(columns[2]),
        b"rTRC": curve,
        b"gTRC": curve,
        b"bTRC": curve,
    }
    place = 128 + 4 + 12 * len(tags)
    table, data = struct.pack(">I", len(tags)), b""
    for tag, content in tags.items():
        table += tag + struct.pack(">II", place + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    head = struct.pack(
        ">I4s4s4s4s4s", place + len(data), bytes(4), b"\2\x40\0\0", b"mntr", b"RGB ", b"XYZ "
    )
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    head += struct.pack(">3i", *(round(value * 65_536) for value in _D50))
    return head + bytes(128 - len(head)) + table + data


def _xyz(vector: Vector) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65_536) for value in vector))


def _adapted(points: tuple[float, ...]) -> Matrix:
    """XYZ of red, green and blue under the white of profiles."""
    white, *primaries = (
        (x / y, 1.0, (1 - x - y) / y) for x, y in zip(points[::2], points[1::2], strict=True)
    )
    red, green, blue = primaries
    matrix: Matrix = tuple(zip(red, green, blue, strict=True))  # type: ignore[assignment]  # three by three
    shares = _times(_inverse(matrix), white)
    cone, light = _times(_BRADFORD, white), _times(_BRADFORD, _D50)
    back = _inverse(_BRADFORD)

    def moved(primary: Vector, share: float) -> Vector:
        sensed = _times(_BRADFORD, primary)
        scaled = tuple(s * share * to / of for s, to, of in zip(sensed, light, cone, strict=True))
        return _times(back, scaled)  # type: ignore[arg-type]  # of three

    return moved(red, shares[0]), moved(green, shares[1]), moved(blue, shares[2])


def _times(matrix: Matrix, vector: Vector) -> Vector:
    one, two, three = (sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix)
    return one, two, three


def _inverse(matrix: Matrix) -> Matrix:
    (a, b, c), (d, e, f), (g, h, i) = matrix
    whole = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
    return (
        ((e * i - f * h) / whole, (c * h - b * i) / whole, (b * f - c * e) / whole),
        ((f * g - d * i) / whole, (a * i - c * g) / whole, (c * d - a * f) / whole),
        ((d * h - e * g) / whole, (b * g - a * h) / whole, (a * e - b * d) / whole),
    )
