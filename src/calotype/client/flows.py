"""What the client does, once for both kinds: sending, waiting, listening, fetching.

Documents go in and come out as the server has them; ``sync`` and ``aio`` make tasks of them.
"""

import contextlib
import functools
import json
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from calotype.client.documents import (
    FINAL,
    Image,
    images_of,
    is_expired,
    is_object,
    task_document,
)
from calotype.client.errors import (
    APIError,
    CalotypeError,
    ConnectionFailed,
    refusal,
    refusal_in_batch,
    unexpected,
)
from calotype.client.files import beside, numbered, replaceable, suffix_of
from calotype.client.port import Reply, Wire
from calotype.client.requests import Call, FileUpload, GenerationRequest, api_path
from calotype.client.sse import EventReader, Received

T = TypeVar("T")
Note = Callable[[str], None]

PAUSES: Final = (0.2, 0.5, 1.0)
"""Seconds before each further try at what did not get through: three, so four in all."""
TIMEOUT: Final = 60.0
"""Without a byte for so many seconds, an answer counts as lost."""
PATIENCE: Final = 60.0
"""Seconds for which waiting and listening outlast a server that does not answer."""
LONGEST_RETRY_AFTER: Final = 60.0
"""A server that wants to be left alone for longer is not waited for."""
LONG_POLL_SECONDS: Final = 30
PAGE: Final = 100
STREAM: Final = "text/event-stream"
_GRACE: Final = 15.0
_LONGEST_PAUSE: Final = 2.0
_OK, _CREATED_BELOW, _SERVER_SIDE = 200, 300, 500
_PASSING: Final = frozenset({429, 502, 503, 504})
"""Statuses that another try can better; 502 and 504 are of proxies before a server that starts."""


class Flows:
    """Speaks to one server with one key."""

    def __init__(
        self,
        wire: Wire,
        *,
        timeout: float,
        pauses: Sequence[float],
        patience: float,
        note: Note | None,
    ) -> None:
        self._wire = wire
        self._timeout = timeout
        self._pauses = tuple(pauses)
        self._patience = patience
        self._note = note or (lambda _: None)

    async def close(self) -> None:
        """End what was made for it."""
        await self._wire.close()

    # Single calls

    async def get(self, url: str, *query: tuple[str, str]) -> dict[str, Any]:
        """A document."""
        return await self._again(lambda: self._once(Call(method="GET", url=url, query=query)))

    async def change(self, method: str, url: str, document: Any = None) -> dict[str, Any]:
        """The answer to a call that changes something, and is as good done twice as once."""
        call = Call(method=method, url=url, document=document)
        return await self._again(lambda: self._once(call))

    async def delete(self, url: str, *, gone: str = "") -> None:
        """Have something deleted; it is as good done twice as once.

        ``gone`` is the code of what is not there, as after a deletion whose answer was lost.
        """
        in_doubt = False

        async def once() -> None:
            nonlocal in_doubt
            try:
                reply = await self._open(Call(method="DELETE", url=url))
                await reply.close()
            except ConnectionFailed as error:
                in_doubt = in_doubt or error.maybe_received
                raise
            except APIError as error:
                if not in_doubt or error.code != gone:
                    raise

        await self._again(once)

    async def upload(self, upload: FileUpload) -> dict[str, Any]:
        """The file that an image was made; the same image twice is one file."""
        await self._wire.aside(upload.buffer)

        async def once() -> dict[str, Any]:
            with contextlib.ExitStack() as files:
                form = await self._wire.aside(functools.partial(upload.form, files))
                return await self._once(Call(method="POST", url=api_path("files"), form=form))

        return await self._again(once)

    async def rotate(self, overlap_seconds: int) -> dict[str, Any]:
        """The webhook settings with a new secret; sent once, as twice would end the old secret."""
        document = {"overlap_seconds": overlap_seconds}
        call = Call(method="POST", url=api_path("webhooks", "rotate"), document=document)
        return await self._once(call)

    async def submit(self, request: GenerationRequest) -> dict[str, Any]:
        """The envelope of a task, which is bought once however often this sends it."""
        await self._wire.aside(request.buffer)
        headers = {"Idempotency-Key": request.idempotency_key}
        url = api_path("images", "generations")
        in_doubt = False  # whether any try may have made the task

        async def once() -> dict[str, Any]:
            with contextlib.ExitStack() as files:
                if request.has_files:
                    form = await self._wire.aside(functools.partial(request.form, files))
                    call = Call(method="POST", url=url, headers=headers, form=form)
                else:
                    document = request.document()
                    call = Call(method="POST", url=url, headers=headers, document=document)
                return task_document(await self._once(call))

        async def watched() -> dict[str, Any]:
            nonlocal in_doubt
            try:
                return await once()
            except ConnectionFailed as error:
                in_doubt = in_doubt or error.maybe_received
                raise
            except APIError as error:
                in_doubt = in_doubt or error.status >= _SERVER_SIDE
                raise

        try:
            return await self._again(watched)
        except CalotypeError as error:
            error.idempotency_key, error.maybe_received = request.idempotency_key, in_doubt
            raise

    async def submit_batch(
        self, requests: Sequence[GenerationRequest]
    ) -> list[dict[str, Any] | APIError]:
        """For each request, in order, the envelope of its task, or why it was refused."""
        document = {
            "requests": [
                {**one.document(), "idempotency_key": one.idempotency_key} for one in requests
            ]
        }
        answer = await self.change("POST", api_path("images", "generations", "batch"), document)
        items = answer.get("data")
        if not isinstance(items, list) or len(items) != len(requests):
            raise CalotypeError("The server did not answer for each request of the batch.")
        return [_accepted_or_refused(item) for item in items]

    async def tasks(
        self, filters: Mapping[str, str], limit: int | None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Tasks, newest first, page by page as they are taken."""
        pages = self.listed(api_path("tasks"), limit, filters)
        async with contextlib.aclosing(pages) as documents:
            async for document in documents:
                yield task_document(document)

    async def listed(
        self, url: str, limit: int | None, filters: Mapping[str, str] = MappingProxyType({})
    ) -> AsyncGenerator[Any, None]:
        """What a list holds, newest first, page by page as it is taken."""
        left, cursor = math.inf if limit is None else limit, None
        while left > 0:
            query = {**filters, "limit": str(int(min(PAGE, left)))}
            if cursor:
                query["cursor"] = cursor
            page = await self.get(url, *query.items())
            for document in page.get("data") or []:
                yield document
                left -= 1
            cursor = page.get("next_cursor")
            if not cursor or not page.get("has_more"):
                return

    # Following a task

    async def wait(self, document: dict[str, Any], seconds: float | None) -> dict[str, Any]:
        """The task once it is final, or as it was seen last when the time is over."""
        url, lost = api_path("tasks", document["task_id"]), _Lost(self._patience)
        until = math.inf if seconds is None else time.monotonic() + seconds
        while True:
            left = max(0.0, until - time.monotonic())
            poll = int(min(LONG_POLL_SECONDS, left))
            if poll == 0:
                await self._wire.sleep(left)
            since, began = document.get("last_event") or 0, time.monotonic()
            call = Call(
                method="GET",
                url=url,
                query=(("wait", str(poll)), ("since", str(since))),
                read_seconds=poll + min(_GRACE, self._timeout),
            )
            try:
                document = task_document(await self._once(call))
            except (ConnectionFailed, APIError) as error:
                pause = self._hold(lost, error)
            else:
                lost.found()
                unchanged = document.get("last_event", 0) == since
                # Who answers at once that nothing happened is stopping, or does not know ``wait``.
                early = unchanged and time.monotonic() - began < min(1, poll)
                pause = 1.0 if early else 0.0
            if str(document["state"]).lower() in FINAL or time.monotonic() >= until:
                return document
            await self._wire.sleep(min(pause, max(0.0, until - time.monotonic())))

    async def events(
        self, url: str, last: str | None, *, ends: bool
    ) -> AsyncGenerator[Received, None]:
        """What a stream tells, taken up again after its last event whenever it breaks.

        Args:
            url: of the stream.
            last: id of the event after which it begins.
            ends: with the final event of its task, rather than never.

        """
        lost = _Lost(self._patience)
        while True:
            heard = time.monotonic()
            headers = {"Accept": STREAM, **({"Last-Event-ID": last} if last else {})}
            call = Call(method="GET", url=url, headers=headers)
            try:
                async with contextlib.aclosing(self._received(call, STREAM)) as chunks:
                    reader = EventReader()
                    async for chunk in chunks:
                        for event in reader.feed(chunk):
                            last = event.id or last
                            yield event
                            if ends and str(event.data.get("state")).lower() in FINAL:
                                return
                        if reader.alive:
                            lost.found()
                            heard = time.monotonic()
                        elif time.monotonic() - heard > self._timeout:
                            raise ConnectionFailed("The stream brings no event")  # noqa: TRY301 -- as when it breaks
            except (ConnectionFailed, APIError) as error:
                pause = self._hold(lost, error)
            else:
                # Ended in good order: the server is stopping, and back in a moment.
                pause = self._hold(lost, ConnectionFailed("The server ended the stream"))
            await self._wire.sleep(pause)

    # Images

    async def download(self, url: str) -> bytes:
        """An image."""

        async def once() -> bytes:
            reply = await self._open(Call(method="GET", url=url, keyed=False))
            try:
                return await reply.read()
            finally:
                await reply.close()

        return await self._again(once)

    async def save(self, url: str, target: Path) -> Path:
        """Fetch an image into a file, which is there whole or not at all, or into a device."""
        file_behind = await self._wire.aside(functools.partial(replaceable, target))
        if file_behind is None:
            content = await self.download(url)
            await self._wire.aside(functools.partial(target.write_bytes, content))
            return target
        call = Call(method="GET", url=url, keyed=False)

        async def once() -> Path:
            async with contextlib.aclosing(self._received(call)) as chunks:
                with beside(file_behind) as (partial, file):
                    async for chunk in chunks:
                        await self._wire.aside(functools.partial(file.write, chunk))
                    await self._wire.aside(file.close)
                    await self._wire.aside(functools.partial(partial.replace, file_behind))
                    return target

        return await self._again(once)

    async def save_all(self, document: dict[str, Any], target: Path) -> list[Path]:
        """Fetch all images of a task that succeeded; further ones get -2, -3 and so on."""
        images = _stored(document)
        if await self._wire.aside(target.is_dir):
            target /= f"{document['task_id']}{suffix_of(images[0])}"
        files = list[Path]()
        for place in range(len(images)):
            file = target if place == 0 else numbered(target, place + 1)
            try:
                files.append(await self.save(images[place].url, file))
            except APIError as error:
                if error.code != "url_expired":
                    raise
                document = task_document(await self.get(api_path("tasks", document["task_id"])))
                images = _stored(document)
                files.append(await self.save(images[place].url, file))
        return files

    # Sending

    async def _again(self, work: Callable[[], Awaitable[T]]) -> T:
        for place, pause in enumerate(self._pauses, start=1):
            try:
                return await work()
            except ConnectionFailed as error:
                problem, wait = str(error), pause
            except APIError as error:
                if error.status not in _PASSING or (error.retry_after or 0) > LONGEST_RETRY_AFTER:
                    raise
                problem, wait = str(error), max(pause, error.retry_after or 0)
            self._note(f"{problem}; trying again ({place} of {len(self._pauses)})")
            await self._wire.sleep(wait)
        return await work()

    async def _once(self, call: Call) -> dict[str, Any]:
        """The JSON object of an answer."""
        reply = await self._open(call)
        try:
            document = _json_object(await reply.read())
        finally:
            await reply.close()
        if document is None:
            raise _not_calotype(call, reply)
        return document

    async def _received(self, call: Call, kind: str = "") -> AsyncGenerator[bytes, None]:
        """The body of an answer as it comes; of this media type, when one is given."""
        reply = await self._open(call)
        try:
            if kind and _media_type(reply) != kind:
                raise _not_calotype(call, reply, "no stream of events")
            async with contextlib.aclosing(reply.chunks()) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            await reply.close()

    async def _open(self, call: Call) -> Reply:
        """An answer that is no refusal; it has to be closed."""
        reply = await self._wire.send(call)
        if _OK <= reply.status < _CREATED_BELOW:
            return reply
        try:
            document = _json_object(await reply.read()) or {}
        finally:
            await reply.close()
        raise refusal(
            reply.status,
            document,
            request_id=reply.header("X-Request-Id"),
            retry_after=_retry_after(reply),
        ) or _not_calotype(call, reply)

    def _hold(self, lost: "_Lost", error: ConnectionFailed | APIError) -> float:
        """Seconds until the next try at something that goes on; raises when that is hopeless."""
        wait = 0.0
        if isinstance(error, APIError):
            if error.status not in _PASSING and error.status < _SERVER_SIDE:
                raise error
            wait = error.retry_after or 0.0
        if not lost.tries:
            self._note(f"{error}; waiting for it to come back")
        pause = lost.pause(self._pauses)
        if lost.hopeless:
            raise error
        return max(pause, min(wait, LONGEST_RETRY_AFTER))


class _Lost:
    """Since when nothing has come of a server."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._since: float | None = None
        self.tries = 0

    def found(self) -> None:
        """Something has come."""
        self._since, self.tries = None, 0

    def pause(self, pauses: Sequence[float]) -> float:
        """Seconds until the next try."""
        if self._since is None:
            self._since = time.monotonic()
        self.tries += 1
        return pauses[self.tries - 1] if self.tries <= len(pauses) else _LONGEST_PAUSE

    @property
    def hopeless(self) -> bool:
        """Whether it has been too long."""
        return self._since is not None and time.monotonic() - self._since >= self._patience


def _stored(document: Mapping[str, Any]) -> list[Image]:
    if images := images_of(document):
        return images
    task = document["task_id"]
    if document.get("deleted_at"):
        raise CalotypeError(f"The images of {task} were deleted.")
    if any(map(is_expired, (document.get("result") or {}).get("data") or ())):
        raise CalotypeError(f"The images of {task} were kept until their time was over.")
    raise CalotypeError(f"{task} succeeded without an image.")


def _accepted_or_refused(item: Any) -> dict[str, Any] | APIError:
    error = is_object(item) and is_object(item.get("error"))
    refused = refusal_in_batch(error) if error else None
    return refused or task_document(item)


def _json_object(content: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(content)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _media_type(reply: Reply) -> str:
    return (reply.header("Content-Type") or "").partition(";")[0].strip().lower()


def _not_calotype(call: Call, reply: Reply, how: str = "not as a Calotype server does") -> APIError:
    where = urlsplit(call.url).path
    return unexpected(
        reply.status,
        f"{call.method} {where} was answered {reply.status}, {how}; check base_url",
        retry_after=_retry_after(reply),
    )


def _retry_after(reply: Reply) -> float | None:
    text = reply.header("Retry-After") or ""
    return float(text) if text.isascii() and text.isdigit() else None
