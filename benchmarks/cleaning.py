"""What cleaning an image costs while it streams in, beside copying and digesting the same bytes."""

import hashlib
import io
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from PIL import Image

from calotype.imaging.cleaning import cleaner
from calotype.imaging.probe import SNIFF_BYTES, sniff

if TYPE_CHECKING:
    from table import Rows

_CHUNK: Final = 64 * 1024
_RUNS: Final = 40
_PACKET: Final = bytes(700)
_FORMS: Final[dict[str, dict[str, Any]]] = {
    "PNG": {"compress_level": 1},
    "JPEG": {"quality": 98, "subsampling": 0, "comment": b"said"},
    "WEBP": {"lossless": True, "method": 0},
}


def measure(rows: "Rows") -> None:
    """Add a line for each format."""
    noise = Image.effect_noise((1500, 1300), 90).convert("RGB")
    for form, options in _FORMS.items():
        out = io.BytesIO()
        noise.save(out, form, **options)
        chunks = [out.getvalue()[at : at + _CHUNK] for at in range(0, out.tell(), _CHUNK)]
        clean = _best(partial(_clean, chunks))
        copied = _best(partial(b"".join, chunks))
        digested = _best(partial(_digest, chunks))
        rows.add(
            f"clean a {form} of {out.tell() / 1e6:.1f} MB",
            f"{clean * 1e3:.2f} ms",
            goal="≥ 1 GB/s",
            note=f"{out.tell() / clean / 1e9:.1f} GB/s; copied in {copied * 1e3:.2f} ms, "
            f"digested in {digested * 1e3:.2f} ms",
        )


def _clean(chunks: list[bytes]) -> None:
    content_type = sniff(chunks[0][:SNIFF_BYTES])
    if content_type is None:
        raise ValueError("no image")
    sieve = cleaner(content_type, xmp=_PACKET)
    for chunk in chunks:
        sieve.feed(chunk)
    sieve.end()


def _digest(chunks: list[bytes]) -> None:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)


def _best(work: Callable[[], object]) -> float:
    """The shortest of some runs, in seconds."""
    spent = []
    for _ in range(_RUNS):
        begun = time.perf_counter()
        work()
        spent.append(time.perf_counter() - begun)
    return min(spent)
