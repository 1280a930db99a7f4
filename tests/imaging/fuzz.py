"""Feeds the intake of images with mutated files, and judges what becomes of each.

    make fuzz ARGS="--inputs 100000 --seed 7"

Every input is probed; every ``--deep``-th also goes through the whole intake, as a reference and as
a result that is to be converted. What is refused must be refused by one of the two errors that
clients are told, what is taken must be what it is said to be, and nothing may stay behind.
"""

import argparse
import asyncio
import re
import resource
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageChops, ImageOps, ImageStat

from calotype.assets.disk import DiskAssets
from calotype.domain.errors import ReferenceTooLarge, UnsupportedReferenceType
from calotype.domain.ids import IdSource
from calotype.domain.task import Asset
from calotype.imaging.probe import ImageFacts, probe
from calotype.services.assets import Assets, Kind
from imaging.corpus import samples
from imaging.mutating import SCRIPT, Case, Mutator

MOST_BYTES = 30 * 1024 * 1024
LONGEST_SECONDS = 5.0
"""Processor time of one input at most, in this process."""
LONGEST_WAIT = 30.0
"""Seconds of one input at most from its first byte to its end, conversions and all."""
MOST_GROWTH_MIB = 400
MOST_CONVERTING_MIB = 2000
"""Memory of one converting process at most."""
_DECODED_PIXELS = 2_000_000
"""What is larger is not decoded here to be looked at."""
_DIFFERENCE = 20
"""Of 255, in the mean, by which a picture may differ that was encoded again."""
_REFUSALS = (ReferenceTooLarge, UnsupportedReferenceType)


class Wrong(AssertionError):
    """The intake did what it must not do."""


class Judge:
    """Judges cases on an asset store in the folder ``root``.

    Args:
        root: a folder of its own.

    """

    def __init__(self, root: Path) -> None:
        self._file = root / "input"
        self._root = root / "assets"
        self.disk = DiskAssets(self._root)
        clock = lambda: 1_760_000_000_000  # noqa: E731 -- stands still
        self._assets = Assets(
            self.disk, secret=b"s" * 32, url_seconds=60, ids=IdSource(clock), clock=clock
        )
        self.verdicts: Counter[str] = Counter()
        self.converting_mib = 0
        """The most that a converting process ever had."""

    def probe(self, case: Case) -> None:
        """Hold what the headers are said to say against what a decoder reads."""
        self._file.write_bytes(case.content)
        try:
            facts = probe(str(self._file))
        except _REFUSALS as error:
            self._refused("probe", error.message)
            return
        self.verdicts["probe: taken"] += 1
        told = opened_as(case.content)
        if told is not None and told != (facts.width, facts.height):
            raise Wrong(f"told {facts.width} x {facts.height}, decoders see {told}")

    async def keep(self, case: Case, kind: Kind, *, wanted: str | None = None) -> None:
        """Take it in as the server does, and look at what is stored."""
        way = f"{kind} as {wanted}" if wanted else kind
        try:
            kept = await self._assets.keep(
                _chunks(case.content), account_id=1, kind=kind, max_bytes=MOST_BYTES, wanted=wanted
            )
        except _REFUSALS as error:
            self._refused(way, error.message)
            self._nothing_left()
            return
        self.verdicts[f"{way}: taken"] += 1
        try:
            self._look(case, kept.asset, as_it_was=wanted is None)
        finally:
            await self._assets.discard([kept.asset])
        self._nothing_left()

    def _look(self, case: Case, asset: Asset, *, as_it_was: bool) -> None:
        """Hold what is stored against what is told and what was sent."""
        stored = self.disk.path(asset.key).read_bytes()
        if len(stored) != asset.bytes:
            raise Wrong(f"{len(stored)} bytes are stored, {asset.bytes} are told")
        facts = probe(str(self.disk.path(asset.key)))
        if facts != ImageFacts(asset.content_type, asset.width, asset.height, asset.bytes):  # type: ignore[arg-type]  # one of the three
            raise Wrong(f"{facts} is stored, {asset} is told")
        if as_it_was:
            same_picture(case.content, stored, sound=case.sound)
        if case.scripted and SCRIPT in stored:
            raise Wrong("the script is stored")

    def look_at_processes(self) -> None:
        """Note what converting processes had at their most; they end after many images."""
        for process in self._assets.converter._processes._idle:
            child = process._process
            if child is None:
                continue
            with suppress(OSError, ValueError):
                status = Path(f"/proc/{child.pid}/status").read_text()
                found = re.search(r"VmHWM:\s+(\d+)", status)
                self.converting_mib = max(
                    self.converting_mib, int(found[1]) // 1024 if found else 0
                )

    async def close(self) -> None:
        """End the processes, and the store."""
        await self._assets.converter.close()
        await self.disk.close()

    def _refused(self, way: str, message: str) -> None:
        if len(message) < 15 or not message.endswith("."):
            raise Wrong(f"a refusal that says little: {message!r}")
        self.verdicts[f"{way}: {re.sub('[0-9]+', 'N', message)[:70]}"] += 1

    def _nothing_left(self) -> None:
        files = [path for path in self._root.rglob("*") if path.is_file() and path.name != "lock"]
        if files:
            raise Wrong(f"left behind: {files}")


def opened_as(content: bytes) -> tuple[int, int] | None:
    """The sides that Pillow reads, None where it opens nothing."""
    with (
        suppress(Exception),
        warnings.catch_warnings(action="ignore"),
        Image.open(BytesIO(content)) as image,
    ):
        return image.size if image.format in {"JPEG", "MPO", "PNG", "WEBP"} else None
    return None


def shown(content: bytes) -> Image.Image | None:
    """The first picture, upright and on white, to a decoder that forgives nothing; None: no."""
    with suppress(Exception), warnings.catch_warnings(action="ignore"), _open(content) as image:
        if image.width * image.height > _DECODED_PIXELS:
            return None
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I"):  # 16 bits, of which Pillow's own conversion clips
            upright = upright.convert("I").point(lambda value: value / 257).convert("L")
        upright = upright.convert("RGBA")
        paper = Image.new("RGBA", upright.size, "white")
        paper.alpha_composite(upright)
        return paper.convert("RGB")
    return None


def same_picture(sent: bytes, stored: bytes, *, sound: bool) -> None:
    """Refuse a stored file that shows another picture than the one that was sent.

    Whether damaged EXIF says that a picture is to be turned, readers may see differently; unless
    ``sound``, any turn is right.

    Raises:
        Wrong: it does, by more than a second encoding explains.

    """
    before, after = shown(sent), shown(stored)
    if before is None:
        return
    if after is None:
        raise Wrong("what is stored shows nothing any more")
    turned = [] if sound else [before.transpose(turn) for turn in Image.Transpose]
    if not any(_alike(each, after) for each in (before, *turned)):
        raise Wrong(f"what is stored shows another picture: {after.size} for {before.size}")


def _alike(before: Image.Image, after: Image.Image) -> bool:
    if before.size != after.size:
        return False
    return max(ImageStat.Stat(ImageChops.difference(before, after)).mean) <= _DIFFERENCE


def _open(content: bytes) -> Image.Image:
    return Image.open(BytesIO(content))


async def _chunks(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 65_536):
        yield content[start : start + 65_536]


async def fuzz(
    root: Path,
    *,
    inputs: int,
    seed: int,
    deep: int,
    converted: int,
    findings: Path | None = None,
) -> tuple[Judge, int]:
    """Judge so many inputs; returns the judge and how many went wrong.

    Args:
        root: a folder of its own.
        inputs: how many.
        seed: of which.
        deep: one in so many goes through the whole intake.
        converted: one in so many goes through it as a result of another format.
        findings: where inputs that went wrong are kept; None: the first one is raised.

    """
    mutator, judge = Mutator(samples(), seed=seed), Judge(root)
    wrong, slowest, longest, before = 0, (0.0, ""), (0.0, ""), _peak_mib()
    for number in range(inputs):
        case = mutator.case()
        begun, began = time.process_time(), time.monotonic()
        try:
            judge.probe(case)
            if number % deep == 0:
                await judge.keep(case, "reference")
            if number % converted == 0:
                wanted = ("image/png", "image/jpeg", "image/webp")[number // converted % 3]
                await judge.keep(case, "result", wanted=wanted)
        except Exception as error:
            if findings is None:
                raise AssertionError(f"input {number} of seed {seed}: {case.recipe}") from error
            wrong += 1
            _note(findings / f"{seed}-{number}", case.content)
            print(f"{number}: {error!r}\n    {case.recipe}", flush=True)  # noqa: T201 -- a program
        slowest = max(slowest, (time.process_time() - begun, case.recipe))
        longest = max(longest, (time.monotonic() - began, case.recipe))
        judge.look_at_processes()
    await judge.close()
    judge.verdicts[f"slowest input: {slowest[0]:.3f} s of processor time, {slowest[1]}"] += 1
    grown = _peak_mib() - before
    judge.verdicts[f"memory grew by {grown} MiB at most"] += 1
    judge.verdicts[f"longest input: {longest[0]:.3f} s, {longest[1]}"] += 1
    judge.verdicts[f"a converting process had {judge.converting_mib} MiB at most"] += 1
    beyond = (
        slowest[0] > LONGEST_SECONDS,
        longest[0] > LONGEST_WAIT,
        grown > MOST_GROWTH_MIB,
        judge.converting_mib > MOST_CONVERTING_MIB,
    )
    wrong += any(beyond)
    return judge, wrong


def _note(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> int:
    """Run from the command line; returns 1 where an input went wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--deep", type=int, default=5, help="one in so many is stored")
    parser.add_argument("--converted", type=int, default=200, help="one in so many is converted")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"))
    chosen = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="calotype-fuzz-") as folder:
        judge, wrong = asyncio.run(
            fuzz(
                Path(folder),
                inputs=chosen.inputs,
                seed=chosen.seed,
                deep=chosen.deep,
                converted=chosen.converted,
                findings=chosen.findings,
            )
        )
    lines = [f"{count:8}  {verdict}" for verdict, count in judge.verdicts.most_common()]
    took = time.monotonic() - begun
    print(*lines, f"{chosen.inputs} inputs in {took:.0f} s; {wrong} went wrong", sep="\n")  # noqa: T201 -- a program
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
