"""What an upstream takes of a reference image, and the copies that are made to fit it."""

from typing import Final, Protocol

import msgspec

MAKEABLE: Final = ("image/jpeg", "image/png", "image/webp")
"""Content types that a copy can have."""


class Shape(msgspec.Struct, frozen=True):
    """As much of an image file as limits are about."""

    content_type: str
    width: int
    height: int
    bytes: int


class Shaped(Protocol):
    """Anything that tells it: an asset, or one image of a result."""

    @property
    def content_type(self) -> str:
        """Such as ``image/png``."""
        ...

    @property
    def width(self) -> int:
        """Pixels."""
        ...

    @property
    def height(self) -> int:
        """Pixels."""
        ...

    @property
    def bytes(self) -> int:
        """The size of the file."""
        ...


def shape_of(image: Shaped) -> Shape:
    """The shape of a stored image."""
    return Shape(image.content_type, image.width, image.height, image.bytes)


class Limits(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an upstream takes of one reference image; 0 is no limit of its own."""

    types: tuple[str, ...]
    bytes: int = 0
    pixels: int = 0

    def faults(self, shape: Shape) -> list[str]:
        """Why an image of this shape cannot be given as it is; [] when it can."""
        faults = []
        if shape.content_type not in self.types:
            faults.append(f"it takes no reference images of type {shape.content_type}")
        if self.bytes and shape.bytes > self.bytes:
            faults.append(f"it takes reference images of at most {self.bytes} bytes")
        if self.pixels and shape.width * shape.height > self.pixels:
            faults.append(f"it takes reference images of at most {self.pixels} pixels")
        return faults

    def hopeless(self, shape: Shape) -> str | None:
        """Why neither the image nor any copy that we can make of it can be given, or None."""
        makeable = any(content_type in MAKEABLE for content_type in self.types)
        return None if makeable else next(iter(self.faults(shape)), None)


class FittedCopy(msgspec.Struct, frozen=True):
    """A stored copy of a reference that an upstream takes where it does not take the original."""

    asset_id: int
    channel_id: int
    """For which it was made; another one of the same limits is given it too."""
    limits: Limits
    original: Shape
    copy: Shape

    @property
    def reason(self) -> str:
        """Why it was made, as a sentence."""
        reasons = "; ".join(self.limits.faults(self.original))
        return f"It was made to fit the upstream: {reasons}."
