"""Several prompts from one file: read and judged as a whole before the first is sent."""

import dataclasses
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from calotype.cli.faults import CommandFault
from calotype.cli.order import (
    Fields,
    Order,
    Value,
    counted,
    further,
    is_image,
    judge,
    read_references,
    stem,
    wrong,
)

STDIN: Final = "-"
_RUN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_REFERENCES: Final = "write image_input, a list of URLs and files"
_NOT_HERE: Final = {
    "idempotency_key": "it follows from --run and the number of the line",
    "image": _REFERENCES,
    "image[]": _REFERENCES,
    "image_input[]": _REFERENCES,
    "references": _REFERENCES,
    "self": "no model has it",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """One request of several.

    Args:
        number: of its line in the file, from 1.
        order: what is asked for.
        output: the file of its first image; without an ending, that follows from the image.

    """

    number: int
    order: Order
    output: Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class Common:
    """What all lines share, unless one says otherwise."""

    model: str | None
    fields: Fields
    references: Sequence[str | Path]


def check_run(text: str) -> str:
    """The key of a run, which stands in idempotency keys and names a folder.

    Raises:
        CommandFault: it cannot.

    """
    if not _RUN.fullmatch(text):
        raise wrong(
            f"--run '{text}': write 1 to 64 letters, digits, dots, dashes or underscores, "
            "a letter or digit first."
        )
    return text


def read_text(source: str) -> str:
    """All of a file, or of stdin.

    Raises:
        CommandFault: it is no text.
        OSError: it cannot be read.

    """
    content = sys.stdin.buffer.read() if source == STDIN else Path(source).read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise wrong(f"--prompts {source}: is no text in UTF-8 ({error.reason}).") from None


def read_lines(text: str, *, common: Common, run: str, folder: Path) -> list[Line]:
    """The requests of a text: a prompt on each line, or a JSON object; empty lines are none.

    Args:
        text: of the file.
        common: what a line need not say.
        run: key of the run; with the number of the line it is the idempotency key.
        folder: where the images go.

    Raises:
        CommandFault: a line cannot be followed, or two would write one file.

    """
    lines = [
        _line(number, said, common=common, run=run, folder=folder) for number, said in _rows(text)
    ]
    if not lines:
        raise wrong("--prompts: there is no prompt in it.")
    _check_files(lines)
    return lines


def _check_files(lines: Sequence[Line]) -> None:
    """Whether each line has its files for itself."""
    owners: dict[str, Line] = {}
    for line in lines:
        owner = owners.setdefault(stem(line.output), line)
        if owner is not line:
            raise _wrong(line.number, f"writes {line.output}, as line {owner.number} does.")
    for line in lines:
        first, place = counted(stem(line.output))
        of_several = owners.get(first)
        if of_several is not None and 1 < place <= of_several.order.n:
            raise _wrong(
                line.number,
                f"writes {line.output}, where image {place} of line {of_several.number} goes.",
            )


def make_folders(lines: Sequence[Line]) -> None:
    """Make the folders that images go to.

    Raises:
        CommandFault: there is a folder where an image should go.
        OSError: one cannot be made.

    """
    for folder in {line.output.parent for line in lines}:
        folder.mkdir(parents=True, exist_ok=True)
    for line in lines:
        if line.output.is_dir():
            raise _wrong(line.number, f"{line.output} is a folder.")


def made(lines: Sequence[Line]) -> dict[int, Path]:
    """The first image of each line that has one already, by the line's number."""
    folders = {line.output.parent for line in lines}
    files = [path for folder in folders if folder.is_dir() for path in folder.iterdir()]
    images = [path for path in sorted(files) if is_image(path)]
    there = {**{path.with_suffix(""): path for path in images}, **{path: path for path in files}}
    return {line.number: there[line.output] for line in lines if line.output in there}


def in_the_way(lines: Sequence[Line]) -> Path | None:
    """A file that a run which begins anew would write over."""
    first = next(iter(made(lines).values()), None)
    others = (further(line.output, n=line.order.n) for line in lines)
    return first or next((path for path in others if path), None)


def _rows(text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, row in enumerate(re.split(r"\r\n|\n|\r", text), start=1):
        stripped = row.strip()
        if not stripped:
            continue
        if not stripped.startswith("{"):
            yield number, {"prompt": stripped}
            continue
        try:
            said = json.loads(stripped)
            json.dumps(said, ensure_ascii=False, allow_nan=False).encode()  # as it will be sent
        except (ValueError, RecursionError) as error:
            raise _wrong(
                number,
                f"is no JSON ({error}); a prompt that begins with a brace is written "
                '{"prompt": "{…"}.',
            ) from None
        yield number, said


def _line(number: int, said: Mapping[str, Any], *, common: Common, run: str, folder: Path) -> Line:
    rest = {name: value for name, value in said.items() if value is not None}
    prompt = _text(rest.pop("prompt", None), number, "prompt")
    model = _text(rest.pop("model", common.model), number, "model")
    path = folder / _output(rest.pop("output", f"{number:04}"), number)
    references = common.references
    if "image_input" in rest:
        references = _references(rest.pop("image_input"), number)
    fields: Fields = dict(common.fields)
    for name, value in rest.items():
        fields[name] = _field(value, number, name)
    order = Order(
        prompt=prompt,
        model=model,
        fields=fields,
        references=references,
        idempotency_key=f"{run}/{number}",
    )
    try:
        judge(order)
    except CommandFault as fault:
        raise _wrong(number, fault.message) from None
    return Line(number=number, order=order, output=path)


def _output(value: Any, number: int) -> Path:
    text = _text(value, number, "output")
    path = Path(text)
    if path.anchor or ".." in path.parts or not path.name or "\0" in text:
        raise _wrong(number, f"output '{text}': write a file in the folder of the run.")
    return path


def _text(value: Any, number: int, name: str) -> str:
    if value is None:
        option = " or give --model" if name == "model" else ""
        raise _wrong(number, f'says no {name}; write "{name}": "…"{option}.')
    if not isinstance(value, str) or not value.strip():
        raise _wrong(number, f"{name} must be text.")
    return value


def _references(value: Any, number: int) -> list[str | Path]:
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise _wrong(number, "image_input must be a list of URLs and files.")
    return read_references(given, where=f"--prompts, line {number}:")


def _field(value: Any, number: int, name: str) -> Value | dict[str, str]:
    if name in _NOT_HERE:
        raise _wrong(number, f"{name} has no place here: {_NOT_HERE[name]}.")
    if name == "metadata":
        if not isinstance(value, dict):
            raise _wrong(number, 'metadata must be an object, such as {"order": "1234"}.')
        if not all(isinstance(one, str) for one in value.values()):
            raise _wrong(number, "each value of metadata must be text.")
        return value
    if isinstance(value, str | int | float | bool):
        return value
    raise _wrong(number, f"{name} must be text, a number, true or false.")


def _wrong(number: int, what: str) -> Exception:
    return wrong(f"--prompts, line {number}: {what}")
