"""What ``calotype generate`` is asked for, read and judged before anything is sent."""

import dataclasses
import json
import math
import mimetypes
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from calotype.cli.faults import MISCONFIGURED, CommandFault

Value = str | int | float | bool
Fields = dict[str, Value | dict[str, str]]
"""Fields of a request by their names; only ``metadata`` is an object."""

_URLS: Final = ("http://", "https://", "asset://")
_FURTHER: Final = re.compile(r"(.+)-([1-9]\d{0,5})", re.DOTALL)
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NOT_HERE: Final = {
    "idempotency_key": "--idempotency-key",
    "image": "--image",
    "image_input": "--image",
    "metadata": "--metadata",
    "model": "--model",
    "prompt": "the first argument",
    "references": "--image",
    "self": "no option, as no model has it",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Order:
    """One request for images.

    Args:
        prompt: what they show.
        model: its id.
        fields: the rest of the request without its references.
        references: URLs and files, in order.
        idempotency_key: under which it is bought once, however often it is sent.

    """

    prompt: str
    model: str
    fields: Fields
    references: Sequence[str | Path]
    idempotency_key: str

    @property
    def n(self) -> int:
        """How many images are asked for."""
        n = self.fields.get("n")
        return n if isinstance(n, int) else 1


def judge(order: Order) -> None:
    """Whether it can be sent at all; what a model takes is for the server to say.

    Raises:
        CommandFault: it cannot.

    """
    from calotype.client import GenerationRequest

    try:
        request = GenerationRequest(
            order.prompt,
            model=order.model,
            references=order.references,
            idempotency_key=order.idempotency_key,
            **order.fields,  # type: ignore[arg-type]  # as typed by a person
        )
        json.dumps(request.fields, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        raise wrong("The request holds characters that are no Unicode text.") from None
    except (TypeError, ValueError) as error:
        raise wrong(f"The request cannot be sent: {error}") from None


def read_fields(named: Mapping[str, Value | None], extra: Sequence[str]) -> Fields:
    """The fields that have a value: those with an option of their own, and ``name=value`` ones.

    Raises:
        CommandFault: malformed, or named twice.

    """
    fields: Fields = {name: value for name, value in named.items() if value is not None}
    for text in extra:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not _NAME.fullmatch(name):
            raise wrong(f"-p '{text}': write name=value, such as -p seed=7.")
        if name in _NOT_HERE:
            raise wrong(f"-p {name}: is given by {_NOT_HERE[name]}.")
        if name in fields:
            raise wrong(f"-p {name}: was given twice.")
        fields[name] = read = read_value(value)
        if isinstance(read, float) and not math.isfinite(read):
            raise wrong(f"-p {name}: {value} is more than a number can be.")
    return fields


def read_metadata(given: Sequence[str]) -> dict[str, str]:
    """Pairs that were written ``key=value``.

    Raises:
        CommandFault: malformed, or a key given twice.

    """
    pairs: dict[str, str] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise wrong(f"--metadata '{text}': write key=value, such as order=1234.")
        if key in pairs:
            raise wrong(f"--metadata {key}: was given twice.")
        pairs[key] = value
    return pairs


def read_value(text: str) -> Value:
    """Numbers, ``true`` and ``false`` as JSON has them; anything else is text.

    Text that looks like a number is written in quotes: ``'"42"'``.
    """
    try:
        value = json.loads(text, parse_constant=lambda _: None)
    except ValueError:
        return text
    return value if isinstance(value, str | int | float | bool) else text


def read_references(given: Sequence[str], *, where: str = "--image") -> list[str | Path]:
    """URLs, and files that can be read; ``where`` they were named stands before a complaint.

    Raises:
        CommandFault: a file is not there.

    """
    references: list[str | Path] = []
    for text in given:
        if text.startswith(_URLS):
            references.append(text)
            continue
        check_readable(Path(text), f"{where} {text}", or_else=" and no http(s) or asset:// URL")
        references.append(Path(text).expanduser())
    return references


def check_readable(path: Path, named: str, *, or_else: str = "") -> None:
    """Whether a file can be read; ``named`` stands before a complaint.

    Raises:
        CommandFault: it is not there, or may not be read.

    """
    path = path.expanduser()
    if not path.is_file():
        raise wrong(f"{named}: is no file{or_else}.")
    if not os.access(path, os.R_OK):
        raise wrong(f"{named}: cannot be read; check its permissions.")


def check_output(output: Path | None, *, n: int = 1) -> None:
    """Whether a result can be written where it is wanted, before it is paid for.

    Args:
        output: the file of the first image.
        n: how many images there will be; further ones write over nothing.

    Raises:
        CommandFault: it cannot.

    """
    if output is not None and output.is_dir():
        raise wrong(f"-o {output}: is a folder; name a file in it.")
    folder = Path() if output is None else output.parent
    if not folder.is_dir():
        raise wrong(f"-o {output}: the folder {folder} does not exist; make it first.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise wrong(f"The folder {folder.absolute()} cannot be written; name another with -o.")
    there = None if output is None else further(output, n=n)
    if there is not None:
        raise wrong(f"-o {output}: {there} is there already; name another file, or remove it.")


def check_folder(folder: Path) -> None:
    """Whether results can be written to a folder, which need not be there yet.

    Raises:
        CommandFault: they cannot.

    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise wrong(f"-o {folder}: {there} is no folder; with --prompts name one.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise wrong(f"The folder {there.absolute()} cannot be written; name another with -o.")


def numbered(path: Path, place: int) -> Path:
    """Where the image at this place goes: the first as named, the second with ``-2``."""
    return path if place == 1 else path.with_name(f"{path.stem}-{place}{path.suffix}")


def further(output: Path, *, n: int) -> Path | None:
    """A file that is where the second of n images would go, or a later one."""
    if n == 1 or not output.parent.is_dir():
        return None
    for path in sorted(output.parent.iterdir()):
        same = path.suffix == output.suffix if output.suffix else is_image(path)
        first, place = counted(stem(path))
        if same and first == stem(output) and 1 < place <= n:
            return path
    return None


def stem(path: Path) -> str:
    """The same for paths of which a file system may think that they are one, but for the ending."""
    bare = path if not path.suffix else path.with_suffix("")
    return unicodedata.normalize("NFC", os.path.normpath(bare)).casefold()


def counted(name: str) -> tuple[str, int]:
    """The stem of the first image, and the place of this one; 1 unless a number stands behind."""
    match = _FURTHER.fullmatch(name)
    return (match[1], int(match[2])) if match else (name, 1)


def is_image(path: Path) -> bool:
    """Whether a file's name is that of an image."""
    kind, _ = mimetypes.guess_type(path.name, strict=False)
    return kind is not None and kind.startswith("image/")


def wrong(message: str) -> CommandFault:
    """What to tell of a command line that cannot be followed."""
    return CommandFault(message, exit_code=MISCONFIGURED)
