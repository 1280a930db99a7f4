"""References for upstreams that take a URL, or else the image within the document."""

from calotype.net.bodies import Inline
from calotype.providers.port import ReferenceImage


def located(image: ReferenceImage) -> str | Inline:
    """Our own URL of it where the world can reach us, else a ``data:`` URL, which is streamed."""
    if image.url is not None:
        return image.url
    return Inline(image.open, image.size, prefix=f"data:{image.content_type};base64,")
