"""The images that an agent names to work from, as the client takes them.

An agent mostly means an image that it was just given. Its URL leads to this server, which may
have no public address and would not fetch it then; so it is read by the caller's own key and
uploaded like a file.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from calotype.client import AsyncCalotype
from calotype.mcp.faults import ToolFault
from calotype.mcp.previews import Previews

Reference = str | bytes | Path
"""A URL that the server fetches, or what is uploaded."""

_TASK: Final = re.compile(r"task_[0-9a-z]{13}")
_DATA: Final = re.compile(r"data:[^,;]*(?:;[^,;]*)*;base64,", re.IGNORECASE)
_HTTP: Final = ("http://", "https://")
_IMAGES: Final = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF")
_SHOWN: Final = 80


class References:
    """Reads references.

    Args:
        client: with the caller's key.
        previews: says how many images are held at a time.
        files: whether files of this machine may be named.
        folder: for what has to be fetched before it is sent.

    """

    def __init__(
        self, client: AsyncCalotype, previews: Previews, *, files: bool, folder: Path
    ) -> None:
        self._client = client
        self._previews = previews
        self._files = files
        self._folder = folder

    async def read(self, named: Sequence[str]) -> list[Reference]:
        """All of them, in order.

        Raises:
            ToolFault: one is none of the forms that are understood, or cannot be had.
            APIError: the server does not give it.

        """
        return [await self._one(text.strip(), place) for place, text in enumerate(named)]

    async def _one(self, text: str, place: int) -> Reference:
        if text[:5].lower() == "data:":
            return _decoded(text, place)
        if _TASK.fullmatch(text):
            return await self._of_task(text, place)
        if text.lower().startswith(_HTTP):
            if text.startswith(f"{self._client.base_url}/v1/assets/"):
                return await self._fetched(text, place)
            return text
        if self._files:
            return _file(text, place)
        raise ToolFault(
            f"references[{place}] ({text[:_SHOWN]}) is nothing that can be fetched: give an "
            "http(s) URL, a data: URI in base64, or the id of a finished task."
        )

    async def _of_task(self, task_id: str, place: int) -> Path:
        task = await self._client.task(task_id)
        if not (images := task.result):
            raise ToolFault(
                f"references[{place}]: {task_id} has no image, it is {task.state}; "
                "get_task tells when it has."
            )
        return await self._fetched(images[0].url, place)

    async def _fetched(self, url: str, place: int) -> Path:
        async with self._previews.turn():
            return await self._client.save(url, self._folder / str(place))


def _decoded(text: str, place: int) -> bytes:
    head = _DATA.match(text)
    if head is None:
        raise ToolFault(
            f"references[{place}]: write a data: URI as data:image/png;base64,… and nothing else."
        )
    try:
        return base64.b64decode("".join(text[head.end() :].split()), validate=True)
    except binascii.Error as error:
        raise ToolFault(f"references[{place}] is not valid base64: {error}.") from None


def _file(text: str, place: int) -> Path:
    """A file that looks like an image: nothing else of this machine is given away."""
    path = Path(unquote(urlsplit(text).path) if text.startswith("file://") else text).expanduser()
    try:
        with path.open("rb") as opened:
            head = opened.read(8)
    except (OSError, ValueError) as error:
        told = getattr(error, "strerror", None) or "no path"
        raise ToolFault(f"references[{place}]: {path} cannot be read ({told}).") from None
    if not head.startswith(_IMAGES):
        raise ToolFault(f"references[{place}]: {path} is no PNG, JPEG or WebP image.")
    return path
