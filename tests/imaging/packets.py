"""Reading what is written into an image, with a reader that is not ours."""

import io
from typing import Final
from xml.etree import ElementTree as ET

from PIL import Image

RDF: Final = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description"
XMP: Final = "{http://ns.adobe.com/xap/1.0/}"
IPTC: Final = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"
TASK: Final = "{http://purl.org/dc/elements/1.1/}identifier"
SOURCES: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/"


def said(content: bytes) -> dict[str, str]:
    """The properties of an image's XMP packet."""
    with Image.open(io.BytesIO(content)) as image:
        image.load()  # words behind the pixels of a PNG are read with them
        packet = image.info.get("xmp", image.info.get("XML:com.adobe.xmp"))
    if packet is None:
        return {}
    description = ET.fromstring(packet).find(f".//{RDF}")  # noqa: S314 -- we wrote it
    assert description is not None
    return {name: value for name, value in description.items() if not name.endswith("about")}
