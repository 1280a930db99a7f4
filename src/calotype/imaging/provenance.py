"""What we say of an image that we give out: an XMP packet that photo tools and sites read.

The properties are those of XMP, Dublin Core and the IPTC Photo Metadata Standard 2025.1.
"""

from datetime import UTC, datetime
from typing import Final
from xml.sax.saxutils import quoteattr

import msgspec

import calotype

_SOURCES: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_OPENED: Final = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
)
_CLOSED: Final = '</x:xmpmeta><?xpacket end="r"?>'
_RDF: Final = 'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"'
_NAMESPACES: Final = (
    'xmlns:xmp="http://ns.adobe.com/xap/1.0/" '
    'xmlns:dc="http://purl.org/dc/elements/1.1/" '
    'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
)


class Origin(msgspec.Struct, frozen=True):
    """Where an image comes from, as far as anyone who has it may know."""

    task: str
    """The task's id, as clients know it."""
    model: str | None
    """The name of the trained model that made it; None: a plain algorithm did."""


def source_type(model: str | None) -> str:
    """IPTC's word for how an image came to be, ``model`` as of ``Origin``."""
    return _SOURCES + ("algorithmicMedia" if model is None else "trainedAlgorithmicMedia")


def xmp_packet(origin: Origin, *, made_at: int) -> bytes:
    """What is written into an image.

    Args:
        origin: where it comes from.
        made_at: milliseconds since 1970.

    """
    made = datetime.fromtimestamp(made_at // 1000, UTC).isoformat().removesuffix("+00:00")
    attributes = (
        f'{_NAMESPACES} xmp:CreatorTool="Calotype {calotype.__version__}" '
        f'xmp:CreateDate="{made}Z" dc:identifier={quoteattr(origin.task)} '
        f'Iptc4xmpExt:DigitalSourceType="{source_type(origin.model)}"'
    )
    if origin.model is not None:
        attributes += f" Iptc4xmpExt:AISystemUsed={quoteattr(origin.model)}"
    body = f'<rdf:RDF {_RDF}><rdf:Description rdf:about="" {attributes}/></rdf:RDF>'
    return f"{_OPENED}{body}{_CLOSED}".encode()
