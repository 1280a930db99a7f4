"""A seeded mutator of image files: by the byte, by the chunk, and by what people have tried."""

import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

SCRIPT = b"<script>alert('calotype fuzz')</script>"
_EDGES = (0x00, 0x01, 0x7F, 0x80, 0xC0, 0xC2, 0xD8, 0xD9, 0xDA, 0xFE, 0xFF)
_LENGTHS = (0, 1, 2, 3, 4, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0xFFFFFF, 2**31 - 1, 2**31, 2**32 - 1)
_SIDES = (0, 1, 2, 16_383, 16_384, 30_000, 30_001, 65_500, 65_535, 2**24 - 1, 2**31 - 1, 2**32 - 1)
_PNG = b"\x89PNG\r\n\x1a\n"
_TAILS = (
    b"PK\x03\x04" + bytes(26) + SCRIPT + b"PK\x05\x06" + bytes(18),
    b"<!doctype html><html>" + SCRIPT + b"</html>",
    b"%PDF-1.7\n" + SCRIPT + b"\n%%EOF",
    b"<?php eval($_GET[0]); ?>" + SCRIPT,
    b"GIF89a/*" + SCRIPT + b"*/=1;",
    b"\x00" * 3000 + SCRIPT,
)

Chunk = tuple[bytes, bytes]
"""Its kind (four letters; the marker in a JPEG) and what is in it."""


@dataclass(frozen=True)
class Case:
    """One input."""

    content: bytes
    recipe: str
    """How it was made."""
    sound: bool = False
    """A sample as it is."""
    scripted: bool = False
    """A sound image with a script where no pixel and no profile is: it must not be stored."""


class Mutator:
    """Makes cases; the same seed makes the same ones."""

    def __init__(self, samples: dict[str, bytes], *, seed: int) -> None:
        self._samples = samples
        self._names = sorted(samples)
        self._random = Random(seed)  # noqa: S311 -- repeatable on purpose

    def case(self) -> Case:
        """The next one."""
        chance = self._random
        name = chance.choice(self._names)
        content = self._samples[name]
        if chance.random() < 0.02:
            return Case(content, name, sound=True)
        if chance.random() < 0.08 and not name.startswith("stranger"):
            return self._polyglot(name, content)
        recipe = [name]
        for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 6))):
            change = chance.choice(self._ways(content))
            recipe.append(change.__name__.strip("_"))
            content = change(content)
        return Case(content, ", ".join(recipe))

    def _ways(self, content: bytes) -> Sequence[Callable[[bytes], bytes]]:
        bytewise = [self._flip, self._edge, self._delete, self._insert, self._truncate]
        bytewise += [self._splice, self._overwrite, self._pad, self._ending, self._hollow]
        if not chunks_of(content):
            return bytewise
        chunked = [self._duplicate, self._reorder, self._drop, self._graft, self._nest]
        return (
            bytewise + 2 * chunked + [self._deep, self._sides, self._sides, self._lie, self._inner]
        )

    def _place(self, content: bytes) -> int:
        """Somewhere, mostly near the beginning, where the headers are."""
        if self._random.random() < 0.6:
            return min(int(self._random.expovariate(1 / 60)), len(content))
        return self._random.randint(0, len(content))

    def _flip(self, content: bytes) -> bytes:
        changed = bytearray(content)
        for _ in range(self._random.choice((1, 1, 4, 30))):
            if changed:
                changed[self._place(content) % len(changed)] ^= 1 << self._random.randrange(8)
        return bytes(changed)

    def _edge(self, content: bytes) -> bytes:
        place = self._place(content)
        edges = bytes(self._random.choices(_EDGES, k=self._random.randint(1, 4)))
        return content[:place] + edges + content[place + len(edges) :]

    def _delete(self, content: bytes) -> bytes:
        place = self._place(content)
        return content[:place] + content[place + self._random.choice((1, 2, 4, 8, 200)) :]

    def _insert(self, content: bytes) -> bytes:
        place = self._place(content)
        what = self._random.randbytes(self._random.choice((1, 2, 4, 8, 300)))
        return content[:place] + what + content[place:]

    def _truncate(self, content: bytes) -> bytes:
        return content[: self._place(content)]

    def _pad(self, content: bytes) -> bytes:
        return content + bytes([self._random.choice(_EDGES)]) * self._random.choice((1, 10, 70_000))

    def _splice(self, content: bytes) -> bytes:
        other = self._samples[self._random.choice(self._names)]
        return content[: self._place(content)] + other[self._place(other) :]

    def _overwrite(self, content: bytes) -> bytes:
        other = self._samples[self._random.choice(self._names)]
        start, place = self._place(other), self._place(content)
        piece = other[start : start + self._random.choice((4, 16, 64, 1000))]
        return content[:place] + piece + content[place + len(piece) :]

    def _ending(self, content: bytes) -> bytes:
        end = self._random.choice((b"\xff\xd9", b"\x00\x00\x00\x00IEND\xaeB`\x82", b"", b"\x00;"))
        return content[: -self._random.choice((2, 4, 8, 12)) or None] + end

    def _hollow(self, content: bytes) -> bytes:
        place = self._place(content)
        count = self._random.choice((1, 16, 500, len(content)))
        return content[:place] + bytes(min(count, len(content) - place)) + content[place + count :]

    def _duplicate(self, content: bytes) -> bytes:
        chunks = chunks_of(content)
        one = self._random.choice(chunks)
        chunks[self._random.randint(0, len(chunks)) : 0] = [one] * self._random.choice(
            (1, 1, 2, 20)
        )
        return self._written(content, chunks)

    def _reorder(self, content: bytes) -> bytes:
        chunks = chunks_of(content)
        first, second = (self._random.randrange(len(chunks)) for _ in range(2))
        chunks[first], chunks[second] = chunks[second], chunks[first]
        return self._written(content, chunks)

    def _drop(self, content: bytes) -> bytes:
        chunks = chunks_of(content)
        del chunks[self._random.randrange(len(chunks))]
        return self._written(content, chunks)

    def _graft(self, content: bytes) -> bytes:
        """Put in a chunk of another file of its kind."""
        kin = [name for name in self._names if self._samples[name][:4] == content[:4]]
        other = chunks_of(self._samples[self._random.choice(kin)]) if kin else []
        chunks = chunks_of(content)
        if other:
            chunks.insert(self._random.randint(0, len(chunks)), self._random.choice(other))
        return self._written(content, chunks)

    def _nest(self, content: bytes) -> bytes:
        """Put the whole file into a chunk of itself."""
        chunks = chunks_of(content)
        place = self._random.randrange(len(chunks))
        chunks[place] = (chunks[place][0], chunks[place][1] + content)
        return self._written(content, chunks)

    def _deep(self, content: bytes) -> bytes:
        """Thousands of empty chunks, or chunks in chunks."""
        chunks = chunks_of(content)
        kind = {b"\x89": b"tEXt", b"\xff": b"\xe2", b"R": b"JUNK"}[content[:1]]
        place = self._random.randint(0, len(chunks))
        chunks[place:place] = [(kind, b"")] * self._random.choice((60, 300, 5000))
        return self._written(content, chunks)

    def _sides(self, content: bytes) -> bytes:
        """Give the picture other sides, where it says them or once more."""
        chance, chunks = self._random, chunks_of(content)
        for index, (kind, data) in enumerate(chunks):
            if kind in {b"IHDR", b"VP8X", b"VP8 ", b"VP8L"} or kind[:1] in b"\xc0\xc1\xc2\xc3":
                lying = _resized(kind, data, chance.choice(_SIDES), chance.choice(_SIDES))
                if chance.random() < 0.5:
                    chunks[index] = (kind, lying)
                else:
                    chunks.insert(index + chance.randint(0, 1), (kind, lying))
                break
        return self._written(content, chunks)

    def _lie(self, content: bytes) -> bytes:
        """Let a chunk say another length than it has."""
        chunks = chunks_of(content)
        place = self._random.randrange(len(chunks))
        before = len(write(content, chunks[:place]))
        width, order = {b"\x89": (4, ">I"), b"\xff": (2, ">H"), b"R": (4, "<I")}[content[:1]]
        skip = {b"\x89": 0, b"\xff": 2, b"R": 4}[content[:1]]
        length = self._random.choice(_LENGTHS) % (1 << 8 * width)
        at = before + skip
        return content[:at] + struct.pack(order, length) + content[at + width :]

    def _inner(self, content: bytes) -> bytes:
        """Damage what is in a chunk, and leave its frame sound."""
        chunks = chunks_of(content)
        place = self._random.randrange(len(chunks))
        kind, data = chunks[place]
        chunks[place] = (kind, self._random.choice((self._flip, self._edge, self._truncate))(data))
        return self._written(content, chunks)

    def _written(self, content: bytes, chunks: Sequence[Chunk]) -> bytes:
        return write(content, chunks, sound=self._random.random() < 0.95)

    def _polyglot(self, name: str, content: bytes) -> Case:
        tail = self._random.choice(_TAILS)
        chunks = chunks_of(content)
        where = self._random.randrange(3)
        if where == 0 or not chunks:
            return Case(content + tail, f"{name}, then a stranger", scripted=True)
        if where == 1:
            return Case(tail + content, f"a stranger, then {name}")
        kinds = {
            b"\x89": (b"tEXt", b"eXIf", b"iTXt", b"zzZz"),
            b"\xff": (b"\xe1", b"\xe5", b"\xfe"),
        }
        kind = self._random.choice(kinds.get(content[:1], (b"EXIF", b"XMP ", b"JUNK")))
        place = 1 if content[:1] == b"\x89" else min(1, len(chunks) - 1)
        if content[:1] == b"R":
            if chunks[0][0] != b"VP8X":
                return Case(content + tail, f"{name}, then a stranger", scripted=True)
            place = len(chunks)
        chunks.insert(place, (kind, b"Comment\x00" + tail))
        return Case(write(content, chunks), f"{name} with a stranger in {kind!r}", scripted=True)


def chunks_of(content: bytes) -> list[Chunk]:
    """The chunks of a file as far as they are sound; none where it is no image we know."""
    if content.startswith(_PNG):
        return _png_chunks(content)
    if content.startswith(b"\xff\xd8"):
        return _jpeg_chunks(content)
    return _webp_chunks(content) if content[:4] == b"RIFF" else []


def write(content: bytes, chunks: Sequence[Chunk], *, sound: bool = True) -> bytes:
    """A file of the same format with these chunks; unless ``sound``, with wrong sums or lengths."""
    off = 0 if sound else 1
    if content[:1] == b"\x89":
        return _PNG + b"".join(
            struct.pack(">I", len(data))
            + kind
            + data
            + struct.pack(">I", zlib.crc32(kind + data) ^ off)
            for kind, data in chunks
        )
    if content[:1] == b"\xff":
        return b"\xff\xd8" + b"".join(
            data
            if kind == b""
            else b"\xff" + kind + struct.pack(">H", (len(data) + 2 + off) & 0xFFFF) + data
            for kind, data in chunks
        )
    body = b"WEBP" + b"".join(
        kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for kind, data in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body) + off) + body


def _png_chunks(content: bytes) -> list[Chunk]:
    chunks, at = [], len(_PNG)
    while at + 12 <= len(content):
        length = int.from_bytes(content[at : at + 4])
        if at + 12 + length > len(content):
            break
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    return chunks


def _jpeg_chunks(content: bytes) -> list[Chunk]:
    """Its segments, and all from the first scan on as a last one without a kind."""
    chunks, at = [], 2
    while at + 4 <= len(content) and content[at] == 0xFF and content[at + 1] != 0xDA:
        length = int.from_bytes(content[at + 2 : at + 4])
        if length < 2 or at + 2 + length > len(content):
            break
        chunks.append((content[at + 1 : at + 2], content[at + 4 : at + 2 + length]))
        at += 2 + length
    return [*chunks, (b"", content[at:])] if chunks else []


def _webp_chunks(content: bytes) -> list[Chunk]:
    chunks, at = [], 12
    while at + 8 <= len(content):
        length = int.from_bytes(content[at + 4 : at + 8], "little")
        if at + 8 + length > len(content):
            break
        chunks.append((content[at : at + 4], content[at + 8 : at + 8 + length]))
        at += 8 + length + length % 2
    return chunks


def _resized(kind: bytes, data: bytes, width: int, height: int) -> bytes:
    """The chunk that says an image's sides, saying others, as far as it can say them."""
    if kind == b"IHDR":
        return struct.pack(">II", width, height) + data[8:]
    if kind == b"VP8X":
        sides = ((side - 1) & 0xFFFFFF for side in (width, height))
        return data[:4] + b"".join(side.to_bytes(3, "little") for side in sides) + data[10:]
    if kind == b"VP8 ":
        return data[:6] + struct.pack("<HH", width & 0x3FFF, height & 0x3FFF) + data[10:]
    if kind == b"VP8L":
        bits = (width - 1) & 0x3FFF | ((height - 1) & 0x3FFF) << 14
        return data[:1] + struct.pack("<I", bits) + data[5:]
    return data[:1] + struct.pack(">HH", height & 0xFFFF, width & 0xFFFF) + data[5:]
