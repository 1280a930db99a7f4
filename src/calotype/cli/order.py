"""What ``calotype generate`` is asked for, read and judged before anything is sent."""

import dataclasses
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from calotype.cli.faults import MISCONFIGURED, CommandFault

Value = str | int | float | bool

_HTTP: Final = ("http://", "https://")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NOT_HERE: Final = {
    "image": "--image",
    "image_input": "--image",
    "model": "--model",
    "prompt": "the first argument",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Order:
    """One request for images.

    Args:
        fields: the request without its references.
        references: URLs and files, in order.
        idempotency_key: under which it is bought once, however often it is sent.

    """

    fields: Mapping[str, Value]
    references: Sequence[str | Path]
    idempotency_key: str

    @property
    def has_files(self) -> bool:
        """Whether it takes a form to send it."""
        return any(isinstance(reference, Path) for reference in self.references)

    def document(self) -> dict[str, Any]:
        """The request as JSON."""
        if not self.references:
            return dict(self.fields)
        return {**self.fields, "image_input": [str(one) for one in self.references]}

    def texts(self) -> dict[str, str]:
        """The fields as a form's text."""
        return {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in self.fields.items()
        }


def read_fields(named: Mapping[str, Value | None], extra: Sequence[str]) -> dict[str, Value]:
    """The fields that have a value: those with an option of their own, and ``name=value`` ones.

    Raises:
        CommandFault: malformed, or named twice.

    """
    fields = {name: value for name, value in named.items() if value is not None}
    for text in extra:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not _NAME.fullmatch(name):
            raise _wrong(f"-p '{text}': write name=value, such as -p seed=7.")
        if name in _NOT_HERE:
            raise _wrong(f"-p {name}: is given by {_NOT_HERE[name]}.")
        if name in fields:
            raise _wrong(f"-p {name}: was given twice.")
        fields[name] = read_value(value)
    return fields


def read_value(text: str) -> Value:
    """Numbers, ``true`` and ``false`` as JSON has them; anything else is text.

    Text that looks like a number is written in quotes: ``'"42"'``.
    """
    try:
        value = json.loads(text, parse_constant=lambda _: None)
    except ValueError:
        return text
    return value if isinstance(value, str | int | float | bool) else text


def read_references(given: Sequence[str]) -> list[str | Path]:
    """URLs, and files that can be read.

    Raises:
        CommandFault: a file is not there.

    """
    references: list[str | Path] = []
    for text in given:
        if text.startswith(_HTTP):
            references.append(text)
            continue
        path = Path(text).expanduser()
        if not path.is_file():
            raise _wrong(f"--image {text}: is no file and no http(s) URL.")
        if not os.access(path, os.R_OK):
            raise _wrong(f"--image {text}: cannot be read; check its permissions.")
        references.append(path)
    return references


def read_base_url(text: str) -> str:
    """The address of a server, whether or not ``/v1`` stands behind it.

    Raises:
        CommandFault: no http(s) URL.

    """
    url = text.strip().rstrip("/").removesuffix("/v1").rstrip("/")
    if not url.startswith(_HTTP) or not url.partition("://")[2]:
        raise _wrong(f"--base-url '{text}': write http:// or https:// and the host.")
    return url


def check_output(output: Path | None) -> None:
    """Whether a result can be written where it is wanted, before it is paid for.

    Raises:
        CommandFault: it cannot.

    """
    if output is not None and output.is_dir():
        raise _wrong(f"-o {output}: is a folder; name a file in it.")
    folder = Path() if output is None else output.parent
    if not folder.is_dir():
        raise _wrong(f"-o {output}: the folder {folder} does not exist; make it first.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _wrong(f"The folder {folder.absolute()} cannot be written; name another with -o.")


def numbered(path: Path, place: int) -> Path:
    """Where the image at this place goes: the first as named, the second with ``-2``."""
    return path if place == 1 else path.with_name(f"{path.stem}-{place}{path.suffix}")


def _wrong(message: str) -> CommandFault:
    return CommandFault(message, exit_code=MISCONFIGURED)
