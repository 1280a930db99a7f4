"""The images that an agent names to work from, as the client takes them.

An agent mostly means an image that it was just given. Its URL leads to this server, which may
have no public address and would not fetch it then; so it is read by the caller's own key and
uploaded like a file.
"""

import asyncio
import re
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import IO, Final
from urllib.parse import unquote, urlsplit

import pybase64

from calotype.client import AsyncCalotype, Model
from calotype.mcp.faults import ToolFault
from calotype.mcp.message import Cuts
from calotype.mcp.previews import Previews

Reference = str | Path | IO[bytes]
"""A URL that the server fetches, or what is uploaded."""

_TASK: Final = re.compile(r"task_[0-9a-z]{13}")
_DATA: Final = re.compile(rb"data:[^,]*;base64,", re.IGNORECASE)
_HTTP: Final = ("http://", "https://", "asset://")
"""What the server is told as it is: what it fetches, or has already."""
_IMAGES: Final = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF")
_SHOWN: Final = 80
_BLANKS: Final = b" \t\r\n"


class References:
    """Reads the references of one request.

    What has to be held until it is sent is in files that have no name, so that nothing is left
    of them however this ends.

    Args:
        client: with the caller's key.
        previews: says how many images are held in memory at a time.
        model: that is to take them.
        files: whether files of this machine may be named.
        cuts: what was cut out of the message.
        held: closes the files.

    """

    def __init__(
        self,
        client: AsyncCalotype,
        previews: Previews,
        *,
        model: Model,
        files: bool,
        cuts: Cuts | None,
        held: ExitStack,
    ) -> None:
        self._client = client
        self._previews = previews
        self._model = model
        self._limits = model.capabilities.get("reference_input") or {}
        self._files = files
        self._cuts = cuts
        self._held = held

    async def read(self, named: Sequence[str]) -> list[Reference]:
        """All of them, in order.

        Raises:
            ToolFault: they are too many or too large, or one is none of the forms that are
                understood, or cannot be had.
            APIError: the server does not give it.

        """
        most = self._limits.get("max_items", 0)
        if len(named) > most:
            takes = f"at most {most} references" if most else "no references"
            raise ToolFault(f"{self._model.id} takes {takes}, and not {len(named)}.")
        found = [await self._one(text.strip(), place) for place, text in enumerate(named)]
        if self._cuts is not None:
            self._cuts.close()
        return found

    async def _one(self, text: str, place: int) -> Reference:
        if self._cuts is not None and text in self._cuts:
            return await self._decoded(partial(self._cuts.read, text), place)
        if text[:5].lower() == "data:":
            return await self._decoded(partial(text.encode, errors="replace"), place)
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
            "http(s) URL, asset:// and the id of a file, a data: URI in base64, or the id of a "
            "finished task."
        )

    async def _of_task(self, task_id: str, place: int) -> IO[bytes]:
        task = await self._client.task(task_id)
        if not (images := task.result) and task.is_final:
            raise ToolFault(f"references[{place}]: {task_id} has no image, or none any more.")
        if not images:
            raise ToolFault(
                f"references[{place}]: {task_id} has no image, it is {task.state}; "
                "get_task tells when it has."
            )
        self._judge(images[0].bytes or 0, place)
        return await self._fetched(images[0].url, place)

    async def _fetched(self, url: str, place: int) -> IO[bytes]:
        async with self._previews.turn():
            data = await self._client.download(url)
            self._judge(len(data), place)
            return await self._kept(lambda: data)

    async def _decoded(self, text: Callable[[], bytes], place: int) -> IO[bytes]:
        async with self._previews.turn():
            return await self._kept(lambda: _decode(text, place))

    async def _kept(self, data: Callable[[], bytes]) -> IO[bytes]:
        """What this gives, on disk."""
        file = self._held.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 -- ``held`` closes it

        def write() -> None:
            file.write(data())
            file.seek(0)

        await asyncio.to_thread(write)
        return file

    def _judge(self, size: int, place: int) -> None:
        most = self._limits.get("max_bytes")
        if most is not None and size > most:
            raise ToolFault(
                f"references[{place}] has {size} bytes; {self._model.id} takes {most} of a file "
                "at most."
            )


def _decode(read: Callable[[], bytes], place: int) -> bytes:
    try:
        text = read().translate(None, _BLANKS)
        head = _DATA.match(text)
        if head is not None:
            return pybase64.b64decode(memoryview(text)[head.end() :], validate=True)
    except ValueError as error:
        raise ToolFault(f"references[{place}] is not valid base64: {error}.") from None
    raise ToolFault(
        f"references[{place}]: write a data: URI as data:image/png;base64,… and nothing else."
    )


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
