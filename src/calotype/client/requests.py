"""What is sent: a request for images as JSON or as a form, and calls of the API."""

import contextlib
import dataclasses
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import quote, urlsplit

from calotype.client.documents import File

Source = os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes]
"""An image to upload: a file, its bytes, or an open binary file."""
Reference = str | File | Source
"""A reference image: an http(s) URL, what was uploaded before, or what is uploaded with it."""
Value = str | int | float | bool | None
"""Of a model's parameter; None leaves it out."""
Part = tuple[str, tuple[str | None, str | bytes | IO[bytes]]]
"""A part of a form: its name, and its file name with its content. No file name: a text field."""

DEFAULT_BASE_URL: Final = "http://127.0.0.1:8080"
UNSEEKABLE_BYTES: Final = 64 * 1024 * 1024
"""How much of a file that cannot be read twice is taken into memory."""
_SCHEMES: Final = ("http://", "https://", "asset://")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Call:
    """One HTTP request."""

    method: str
    url: str
    """A path at the server, or a whole URL."""
    keyed: bool = True
    """Send the key. What has it is never redirected."""
    query: Sequence[tuple[str, str]] = ()
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    document: Any = None
    """Sent as JSON."""
    form: Sequence[Part] | None = None
    read_seconds: float | None = None
    """In place of the client's timeout."""


class GenerationRequest:
    """A request for images, as ``generate`` takes it.

    Args:
        prompt: what the image shows.
        model: an id from ``models()``.
        references: images to go by, in order: URLs, uploaded files, paths, bytes or open binary
            files.
        n: how many images, where the model makes several.
        channel_id: pins one of the model's channels.
        callback_url: is sent a webhook when the task is final.
        metadata: at most 16 pairs of text, shown with the task.
        deadline_seconds: after so long nothing new is sent for the task.
        idempotency_key: under which it is bought once, however often it is sent; a new one
            unless given.
        parameters: what else the model takes, such as ``aspect_ratio``.

    """

    def __init__(
        self,
        prompt: str,
        *,
        model: str,
        references: Sequence[Reference] = (),
        n: int = 1,
        channel_id: int | None = None,
        callback_url: str | None = None,
        metadata: Mapping[str, str] | None = None,
        deadline_seconds: int | None = None,
        idempotency_key: str | None = None,
        **parameters: Value,
    ) -> None:
        misplaced = sorted({"image", "image[]", "image_input", "image_input[]"} & {*parameters})
        if misplaced:
            raise ValueError(f"{misplaced[0]}: reference images are given as references=[…].")
        if isinstance(references, str | bytes | bytearray | memoryview | os.PathLike) or hasattr(
            references, "read"
        ):
            raise TypeError("references is a list, also when there is one.")
        fields = {
            "model": model,
            "prompt": prompt,
            "n": n if n != 1 else None,
            "channel_id": channel_id,
            "callback_url": callback_url,
            "metadata": dict(metadata) if metadata else None,
            "deadline_seconds": deadline_seconds,
            **parameters,
        }
        self.fields = {name: value for name, value in fields.items() if value is not None}
        self.references: tuple[str | Path | bytes | IO[bytes], ...] = tuple(
            _judged(reference) for reference in references
        )
        self.idempotency_key = idempotency_key or str(uuid.uuid4())

    @property
    def has_files(self) -> bool:
        """Whether it takes a form to send it."""
        return not all(isinstance(reference, str) for reference in self.references)

    def document(self) -> dict[str, Any]:
        """The request as JSON.

        Raises:
            ValueError: it has files.

        """
        if self.has_files:
            raise ValueError("A batch takes references by URL only; send files with generate().")
        references = {"image_input": list(self.references)} if self.references else {}
        return {**self.fields, **references}

    def form(self, files: contextlib.ExitStack) -> list[Part]:
        """The request as a form, whose files are opened anew, and closed by ``files``."""
        parts: list[Part] = [
            (name, (None, value if isinstance(value, str) else json.dumps(value)))
            for name, value in self.fields.items()
        ]
        for reference in self.references:
            if isinstance(reference, str):
                parts.append(("image_input", (None, reference)))
            else:
                parts.append(_part("image", reference, files))
        return parts

    def buffer(self) -> None:
        """Read what cannot be read twice into memory.

        Raises:
            ValueError: it is too large.

        """
        self.references = tuple(_readable(one) for one in self.references)

    def __repr__(self) -> str:
        return f"GenerationRequest({self.fields!r}, references={len(self.references)})"


class FileUpload:
    """An image to upload.

    Args:
        image: a path, bytes, or an open binary file, which is read from its beginning.

    """

    def __init__(self, image: Source) -> None:
        if isinstance(image, str):
            raise TypeError("image: give a file as a pathlib.Path, or its bytes.")
        self._image = _judged(image, "image")

    def buffer(self) -> None:
        """Read what cannot be read twice into memory.

        Raises:
            ValueError: it is too large.

        """
        self._image = _readable(self._image)

    def form(self, files: contextlib.ExitStack) -> list[Part]:
        """The form that uploads it; a file is opened anew, and closed by ``files``."""
        return [_part("file", self._image, files)]


def api_path(*words: str) -> str:
    """The path of what these words name."""
    return "/v1/" + "/".join(quote(word, safe="") for word in words)


def task_filters(
    *,
    state: str | None,
    model: str | None,
    since: int | None,
    metadata: Mapping[str, str] | None,
) -> dict[str, str]:
    """The query of a list of tasks."""
    given = {"state": state, "model": model, "since": None if since is None else str(since)}
    pairs = {f"metadata.{name}": value for name, value in (metadata or {}).items()}
    return {name: value for name, value in given.items() if value is not None} | pairs


def read_base_url(given: str | None) -> str:
    """The address of a server, whether or not ``/v1`` stands behind it.

    Raises:
        ValueError: it is no http(s) URL of a server.

    """
    text = given or os.environ.get("CALOTYPE_BASE_URL") or DEFAULT_BASE_URL  # noqa: TID251 -- a client has no settings.py
    url = text.strip().rstrip("/").removesuffix("/v1").rstrip("/")
    split = urlsplit(url)
    if split.scheme not in {"http", "https"} or not split.hostname or split.query or split.fragment:
        raise ValueError(f"base_url '{text}': write http:// or https:// and the host.")
    if "@" in split.netloc:
        raise ValueError("base_url holds a user name; a server takes a key only, as api_key.")
    return url


def read_api_key(given: str | None) -> str:
    """The key to send.

    Raises:
        ValueError: there is none, or it is not one.

    """
    key = (given or os.environ.get("CALOTYPE_API_KEY") or "").strip()  # noqa: TID251 -- a client has no settings.py
    if not key:
        raise ValueError(
            "There is no API key; make one with calotype keys create, and give it as api_key= or "
            "CALOTYPE_API_KEY."
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError("The API key has characters that no key has; was it copied whole?")
    return key


def _part(name: str, image: str | Path | bytes | IO[bytes], files: contextlib.ExitStack) -> Part:
    """A file of a form."""
    if isinstance(image, Path):
        return name, (image.name, files.enter_context(image.open("rb")))
    if isinstance(image, str | bytes):
        return name, ("image", image)
    return name, (_name(image), image)  # it is sent from its beginning, by httpx2


def _readable(image: str | Path | bytes | IO[bytes]) -> str | Path | bytes | IO[bytes]:
    """The same, as it can be read more than once."""
    return image if isinstance(image, str | Path | bytes) or image.seekable() else _buffered(image)


def _judged(reference: Reference, field: str = "references") -> str | Path | bytes | IO[bytes]:
    if isinstance(reference, File):
        return reference.reference
    if isinstance(reference, str):
        if not reference.lower().startswith(_SCHEMES):
            raise ValueError(
                f"references: '{reference[:200]}' is no http(s) URL; give a file as a pathlib.Path."
            )
        return reference
    if isinstance(reference, os.PathLike):
        return Path(reference)
    if isinstance(reference, bytes | bytearray | memoryview):
        return bytes(reference)
    if not hasattr(reference, "seekable") or hasattr(reference, "encoding"):
        raise TypeError(
            f"{field}: give http(s) URLs, paths, bytes or files opened in binary mode, "
            f"not {type(reference).__name__}."
        )
    return reference


def _buffered(file: IO[bytes]) -> bytes:
    content = file.read(UNSEEKABLE_BYTES + 1)
    if len(content) > UNSEEKABLE_BYTES:
        raise ValueError(
            f"{_name(file)} has more than {UNSEEKABLE_BYTES} bytes and cannot be read "
            "twice, as sending it again may need; write it to a file first."
        )
    return content


def _name(file: IO[bytes]) -> str:
    name = getattr(file, "name", None)
    return Path(name).name if isinstance(name, str) else "image"
