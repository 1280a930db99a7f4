"""References as fal takes them: our own URL, a data URL, or the URL of an upload."""

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from calotype.domain.outcomes import Fault, Refused, TryLater
from calotype.net.bodies import Inline, raw_body
from calotype.net.client import Answer, BodyBroken, BrokenOff, NotKept, NotSent, TooLarge
from calotype.providers.inline import located
from calotype.providers.line import ANSWER_BYTES, Line, is_success
from calotype.providers.port import ReferenceImage
from calotype.providers.reading import fields

UPLOAD_SECONDS: Final = 300.0
_NAME: Final = r"[A-Za-z0-9-]{1,63}"
_NOT_TAKEN: Final = "The upstream's storage did not take a reference"
_URL: Final = re.compile(rf"https?://{_NAME}(\.{_NAME})*(:[0-9]{{1,5}})?/[!-\[\]-~]{{0,4000}}")
_SUFFIX: Final = {"image/jpeg": "jpg", "image/png": "png", "image/webp": "webp"}


class Storage:
    """The storage that goes with one channel. Nothing is bought by using it.

    Args:
        line: to the host that begins uploads.
        upload_hosts: domains that it may send an upload to, besides its own host.
        inline_bytes: a reference of no more bytes is not uploaded.

    """

    def __init__(self, line: Line, *, upload_hosts: Sequence[str], inline_bytes: int) -> None:
        self._line = line
        self._hosts = tuple(f".{host}" for host in upload_hosts)
        self._inline_bytes = inline_bytes

    async def given(
        self, references: Sequence[ReferenceImage]
    ) -> list[str | Inline] | Refused | TryLater:
        """The references in order, uploaded where they have to be."""
        images = list[str | Inline]()
        for reference in references:
            image = await self._given(reference)
            if isinstance(image, Refused | TryLater):
                return image
            images.append(image)
        return images

    async def _given(self, reference: ReferenceImage) -> str | Inline | Refused | TryLater:
        image = located(reference)
        if isinstance(image, str) or reference.size <= self._inline_bytes:
            return image
        begun = await self._line.ask(
            "storage/upload/initiate?storage_type=gcs",
            method="POST",
            body={
                "file_name": f"reference.{_SUFFIX.get(reference.content_type, 'bin')}",
                "content_type": reference.content_type,
            },
        )
        if not isinstance(begun, Answer):
            return begun
        place = fields(begun.document)
        goal, url = place.get("upload_url"), place.get("file_url")
        if begun.status != HTTPStatus.OK or not isinstance(goal, str) or not isinstance(url, str):
            return self._line.beforehand(begun, what=_NOT_TAKEN)
        if not self._takes_uploads(goal) or not _URL.fullmatch(url):
            return image
        return await self._put(reference, goal) or url

    async def _put(self, reference: ReferenceImage, goal: str) -> TryLater | None:
        """Send the bytes, without the credential; None when they have arrived."""
        try:
            answer = await self._line.client.call(
                "PUT",
                goal,
                headers={},
                body=raw_body(reference.content_type, reference.size, reference.open),
                fresh=True,
                timeout_seconds=UPLOAD_SECONDS,
                max_bytes=ANSWER_BYTES,
            )
        except (BodyBroken, NotKept) as error:
            return TryLater("internal_error", str(error), fault=Fault.OURS)
        except (NotSent, BrokenOff, TooLarge) as error:
            return TryLater("upstream_unavailable", str(error), fault=Fault.UNREACHABLE)
        if is_success(answer):
            return None
        message = f"{_NOT_TAKEN}: {self._line.said(answer)}"
        return TryLater("upstream_unavailable", message, answer.retry_after)

    def _takes_uploads(self, url: str) -> bool:
        """Whether a client's image may be put there."""
        if not _URL.fullmatch(url):
            return False
        if self._line.owns(url):
            return True
        try:
            parts = urlsplit(url)
            plain = parts.scheme == "https" and parts.port in {None, 443}
        except ValueError:
            return False
        return plain and f".{parts.hostname or ''}".endswith(self._hosts)
