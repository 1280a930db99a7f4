"""Fields and references as several upstreams take them: within a document, or in a form."""

from collections.abc import Mapping
from typing import Any

from calotype.domain.wire import spelled
from calotype.net.bodies import FilePart, Inline
from calotype.providers.port import ReferenceImage


def located(image: ReferenceImage) -> str | Inline:
    """Our own URL of it where the world can reach us, else a ``data:`` URL, which is streamed."""
    if image.url is not None:
        return image.url
    return Inline(image.open, image.size, prefix=f"data:{image.content_type};base64,")


def filed(image: ReferenceImage, name: str) -> FilePart:
    """It as a file of a form; its name gets the ending of its type."""
    ending = image.content_type.removeprefix("image/")
    return FilePart(f"{name}.{ending}", image.content_type, image.size, image.open)


def form_fields(document: Mapping[str, Any]) -> list[tuple[str, str | FilePart]]:
    """Plain fields as a form has them, ``true`` and ``false`` in small letters."""
    return [(name, spelled(value)) for name, value in document.items()]
