"""Sound images for the fuzzer to break: many encoders' variants, with metadata of all kinds."""

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import Any

from PIL import Image, ImageCms, ImageDraw
from PIL.PngImagePlugin import PngInfo

SIDES = (61, 37)
_ORIENTATION, _GPS = 0x0112, 0x8825


def samples() -> dict[str, bytes]:
    """Name → file; the same at every call."""
    return dict([*_jpegs(), *_pngs(), *_webps(), *_strangers()])


def canvas(mode: str = "RGB", sides: tuple[int, int] = SIDES) -> Image.Image:
    """A picture whose every corner is its own, so that one that was turned is another one."""
    width, height = sides
    image = Image.radial_gradient("L").resize(sides).convert("RGB")
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, width // 3, height // 3), fill="red")
    draw.rectangle((width // 2, height // 2, width, height), fill="navy")
    if mode in {"RGBA", "LA"}:
        image.putalpha(Image.linear_gradient("L").resize(sides))
    return image.convert(mode)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """An image as a file."""
    out = BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def exif(orientation: int) -> bytes:
    """EXIF that turns the picture and tells where it was taken."""
    data = Image.Exif()
    data[_ORIENTATION] = orientation
    data[0x010F] = "Fuzz & Co"
    data.get_ifd(_GPS).update({1: "N", 2: (51.0, 30.0, 0.0), 3: "W", 4: (0.0, 7.0, 0.0)})
    return data.tobytes()


_XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF/></x:xmpmeta>"


def _profile() -> bytes:
    made = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return made[:24] + bytes(12) + made[36:]  # without the time at which it was made


def _jpegs() -> Iterator[tuple[str, bytes]]:
    plain = canvas()
    variants: dict[str, dict[str, Any]] = {
        "": {},
        " progressive": {"progressive": True, "quality": 40},
        " optimised": {"optimize": True, "quality": 95},
        " 444": {"subsampling": 0},
        " 422": {"subsampling": 1},
        " restarts": {"restart_marker_rows": 1},
        " profile": {"icc_profile": _profile()},
        " comment": {"comment": b"made by nobody"},
        " xmp": {"xmp": _XMP},
        " everything": {
            "icc_profile": _profile(),
            "exif": exif(6),
            "xmp": _XMP,
            "comment": b"c",
            "progressive": True,
        },
    }
    for name, options in variants.items():
        yield f"jpeg{name}", saved(plain, "JPEG", **options)
    for orientation in range(1, 9):
        yield f"jpeg turned {orientation}", saved(plain, "JPEG", exif=exif(orientation))
    for mode in ("L", "CMYK"):
        yield f"jpeg {mode}", saved(canvas(mode), "JPEG")
    yield "jpeg larger", saved(canvas(sides=(640, 480)), "JPEG", quality=90)
    yield "jpeg of two", saved(plain, "MPO", save_all=True, append_images=[canvas()])
    bomb = saved(canvas("L"), "JPEG", progressive=True)
    scan = b"\xff\xda\x00\x08\x01\x01\x00\x00\x00\x10"
    yield "jpeg of many scans", bomb[:-2] + 90 * scan + bomb[-2:]
    yield "jpeg of countless scans", bomb[:-2] + 5000 * scan + bomb[-2:]
    yield "jpeg with film", saved(plain, "JPEG") + b"\x00\x00\x00\x18ftypmp42" + bytes(5000)


def _pngs() -> Iterator[tuple[str, bytes]]:
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        source = canvas("L") if mode == "I;16" else canvas(mode)
        yield f"png {mode}", saved(source.convert(mode), "PNG")
    words = PngInfo()
    words.add_text("Software", "nobody")
    words.add_text("Long", "word " * 500, zip=True)
    words.add_itxt("XML:com.adobe.xmp", _XMP.decode())
    yield "png words", saved(canvas(), "PNG", pnginfo=words)
    yield "png transparent", saved(canvas("P"), "PNG", transparency=3)
    yield "png profile", saved(canvas(), "PNG", icc_profile=_profile(), dpi=(300, 300))
    for orientation in (3, 6, 8):
        yield f"png turned {orientation}", saved(canvas(), "PNG", exif=exif(orientation))
    frames = [canvas(), canvas().rotate(90), canvas().rotate(180)]
    yield "png film", saved(frames[0], "PNG", save_all=True, append_images=frames[1:], duration=50)
    yield "png interlaced", _interlaced(canvas())
    packed = b"bomb\x00\x00" + zlib.compress(bytes(50_000_000))
    yield (
        "stranger png with a profile that is a bomb",
        _with_chunk(saved(canvas(), "PNG"), b"iCCP", packed),
    )
    yield "png larger", saved(canvas(sides=(640, 480)), "PNG")


def _with_chunk(png: bytes, kind: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + content))
    return png[:33] + struct.pack(">I", len(content)) + kind + content + check + png[33:]


def _webps() -> Iterator[tuple[str, bytes]]:
    for mode in ("RGB", "RGBA"):
        for lossless in (False, True):
            word = "lossless" if lossless else "lossy"
            yield f"webp {mode} {word}", saved(canvas(mode), "WEBP", lossless=lossless)
    yield "webp profile", saved(canvas(), "WEBP", icc_profile=_profile())
    yield "webp xmp", saved(canvas(), "WEBP", xmp=_XMP)
    for orientation in (1, 5, 6):
        yield f"webp turned {orientation}", saved(canvas(), "WEBP", exif=exif(orientation))
    everything = {"exif": exif(3), "xmp": _XMP, "icc_profile": _profile(), "lossless": True}
    yield "webp everything", saved(canvas("RGBA"), "WEBP", **everything)
    frames = [canvas(), canvas().rotate(90), canvas().rotate(180)]
    yield "webp film", saved(frames[0], "WEBP", save_all=True, append_images=frames[1:])


def _strangers() -> Iterator[tuple[str, bytes]]:
    """What may be refused, or taken where it is converted."""
    for kind in ("GIF", "BMP", "TIFF", "ICO", "PPM", "AVIF"):
        yield f"stranger {kind}", saved(canvas(), kind)
    yield "stranger SVG", b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>"
    yield "stranger PDF", b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF"
    yield "stranger HTML", b"<!doctype html><script>alert(1)</script>" * 3
    yield "stranger ZIP", b"PK\x05\x06" + bytes(18)


def _interlaced(image: Image.Image) -> bytes:
    """A PNG in seven passes, which Pillow reads and does not write."""
    width, height = image.size
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2))
    rows = bytearray()
    for left, top, across, down in (*passes, (0, 1, 1, 2)):
        for y in range(top, height, down):
            rows += b"\x00"
            for x in range(left, width, across):
                rows += bytes(image.getpixel((x, y)))  # type: ignore[arg-type]  # a tuple, as it is RGB
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(rows))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
