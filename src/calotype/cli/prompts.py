"""Several prompts from one file: read and judged as a whole before the first is sent."""

import dataclasses
import json
import mimetypes
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from calotype.cli.order import Fields, Order, Value, read_references, wrong

STDIN: Final = "-"
_RUN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NOT_HERE: Final = {
    "idempotency_key": "it follows from --run and the number of the line",
    "image": "write image_input, a list of URLs and files",
    "references": "write image_input, a list of URLs and files",
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
    lines = []
    owners: dict[Path, int] = {}
    for number, said in _rows(text):
        line = _line(number, said, common=common, run=run, folder=folder)
        first = owners.setdefault(line.output, number)
        if first != number:
            raise _wrong(number, f"writes {line.output}, as line {first} does.")
        lines.append(line)
    if not lines:
        raise wrong("--prompts: there is no prompt in it.")
    return lines


def made(lines: Sequence[Line]) -> dict[int, Path]:
    """The first image of each line that has one already, by the line's number."""
    folders = {line.output.parent for line in lines}
    files = [path for folder in folders if folder.is_dir() for path in folder.iterdir()]
    images = [path for path in sorted(files) if _is_image(path)]
    there = {**{path.with_suffix(""): path for path in images}, **{path: path for path in files}}
    return {line.number: there[line.output] for line in lines if line.output in there}


def _is_image(path: Path) -> bool:
    kind, _ = mimetypes.guess_type(path.name, strict=False)
    return kind is not None and kind.startswith("image/")


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
        except ValueError as error:
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
    output = rest.pop("output", None)
    path = folder / (f"{number:04}" if output is None else _text(output, number, "output"))
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
    return Line(number=number, order=order, output=path)


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
    if isinstance(value, str | int | float | bool):
        return value
    if name == "metadata" and isinstance(value, dict):
        if all(isinstance(one, str) for one in value.values()):
            return value
        raise _wrong(number, "each value of metadata must be text.")
    raise _wrong(number, f"{name} must be text, a number, true or false.")


def _wrong(number: int, what: str) -> Exception:
    return wrong(f"--prompts, line {number}: {what}")
