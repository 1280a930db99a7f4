"""The client for asyncio."""

import contextlib
import dataclasses
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from calotype.client.documents import (
    Balance,
    File,
    Model,
    State,
    TaskEvent,
    TaskView,
    WebhookSettings,
    models_of,
    settled,
    struct,
    task_document,
    task_event,
)
from calotype.client.errors import APIError, WaitTimeout
from calotype.client.flows import PATIENCE, PAUSES, TIMEOUT, Flows
from calotype.client.requests import (
    FileUpload,
    GenerationRequest,
    Reference,
    Source,
    Value,
    api_path,
    read_api_key,
    read_base_url,
    task_filters,
)

if TYPE_CHECKING:  # importing it takes longer than verifying a webhook
    import httpx2


class AsyncCalotype:
    """``Calotype`` for asyncio: the same methods, awaited.

    Args:
        api_key: from ``calotype keys create``; ``CALOTYPE_API_KEY`` unless given.
        base_url: the server; ``CALOTYPE_BASE_URL`` unless given, or this machine.
        http_client: sends the requests, and is not closed; a new one unless given. Its own
            timeouts are not used.
        timeout: seconds without a byte after which an answer counts as lost.
        pauses: seconds before each further try at what did not get through.
        patience: seconds for which waiting and listening outlast a server that does not answer.
        on_retry: is told, in a sentence, of each further try.

    """

    def __init__(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        *,
        http_client: "httpx2.AsyncClient | None" = None,
        timeout: float = TIMEOUT,
        pauses: Sequence[float] = PAUSES,
        patience: float = PATIENCE,
        on_retry: Callable[[str], None] | None = None,
    ) -> None:
        from calotype.client.wire import AsyncWire

        self.base_url = read_base_url(base_url)
        wire = AsyncWire(self.base_url, read_api_key(api_key), http_client, timeout)
        self._flows = Flows(wire, timeout=timeout, pauses=pauses, patience=patience, note=on_retry)

    async def close(self) -> None:
        """Close the connections, unless they are those of a given ``http_client``."""
        await self._flows.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def _view(self, document: dict[str, Any]) -> "AsyncTask":
        return AsyncTask(task_document(document), self, self._flows)

    def __repr__(self) -> str:
        return f"AsyncCalotype(base_url={self.base_url!r})"

    # Making images

    async def generate(
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
    ) -> "AsyncTask":
        """Submit a request for images; arguments as of ``GenerationRequest``."""
        request = GenerationRequest(
            prompt,
            model=model,
            references=references,
            n=n,
            channel_id=channel_id,
            callback_url=callback_url,
            metadata=metadata,
            deadline_seconds=deadline_seconds,
            idempotency_key=idempotency_key,
            **parameters,
        )
        return self._view(await self._flows.submit(request))

    async def generate_batch(
        self, requests: Sequence[GenerationRequest]
    ) -> "list[AsyncTask | APIError]":
        """Submit 1 to 100 requests at once; for each its task, or the error that refuses it."""
        answers = await self._flows.submit_batch(requests)
        return [one if isinstance(one, APIError) else self._view(one) for one in answers]

    # Tasks

    async def task(self, task_id: str) -> "AsyncTask":
        """A task as it is now."""
        return self._view(await self._flows.get(api_path("tasks", task_id)))

    async def tasks(
        self,
        *,
        state: State | None = None,
        model: str | None = None,
        since: int | None = None,
        metadata: Mapping[str, str] | None = None,
        limit: int | None = None,
    ) -> "AsyncGenerator[AsyncTask, None]":
        """The account's tasks, newest first, fetched page by page as they are taken.

        Args:
            state: those in this state.
            model: those of this model.
            since: those made since, Unix seconds.
            metadata: those with all of these pairs.
            limit: at most so many.

        """
        filters = task_filters(state=state, model=model, since=since, metadata=metadata)
        async with contextlib.aclosing(self._flows.tasks(filters, limit)) as documents:
            async for document in documents:
                yield self._view(document)

    async def cancel(self, task_id: str) -> "AsyncTask":
        """Cancel a task; a final one stays as it is."""
        return self._view(await self._flows.change("POST", api_path("tasks", task_id, "cancel")))

    async def delete(self, task_id: str) -> None:
        """Delete the images of a final task for good; the task itself stays."""
        await self._flows.delete(api_path("tasks", task_id))

    async def events(
        self, last_event_id: str | None = None
    ) -> "AsyncGenerator[TaskEvent[AsyncTask], None]":
        """What happens to the account's tasks, from now on or after an event; it never ends."""
        found = self._flows.events(api_path("events"), last_event_id, ends=False)
        async with contextlib.aclosing(found) as events:
            async for event in events:
                yield task_event(event, self._view)

    # Files

    async def upload_file(self, image: Source) -> File:
        """Upload an image once, to be a reference of many requests: a path, bytes or an open file.

        What was uploaded before is found again, and kept for longer.
        """
        return struct(await self._flows.upload(FileUpload(image)), File)

    async def files(self, *, limit: int | None = None) -> "AsyncGenerator[File, None]":
        """The account's files, newest first, fetched page by page as they are taken."""
        found = self._flows.listed(api_path("files"), limit)
        async with contextlib.aclosing(found) as documents:
            async for document in documents:
                yield struct(document, File)

    async def file(self, file_id: str) -> File:
        """A file as it is now, with a fresh URL to look at it."""
        return struct(await self._flows.get(api_path("files", file_id)), File)

    async def delete_file(self, file_id: str) -> None:
        """Delete a file at once; a task that still needs it fails."""
        await self._flows.delete(api_path("files", file_id), gone="file_not_found")

    # Images

    async def download(self, url: str) -> bytes:
        """An image, by its URL; the key is not sent."""
        return await self._flows.download(url)

    async def save(self, url: str, path: str | Path) -> Path:
        """Fetch an image into a file, which is there whole or not at all.

        A link's target is replaced, not the link; a device or a pipe is written into.
        """
        return await self._flows.save(url, Path(path))

    # What there is

    async def models(self) -> list[Model]:
        """Every model."""
        return models_of(await self._flows.get(api_path("models")))

    async def model(self, model_id: str) -> Model:
        """One model."""
        return struct(await self._flows.get(api_path("models", model_id)), Model)

    async def balance(self) -> Balance:
        """What the account has."""
        return struct(await self._flows.get(api_path("credits", "balance")), Balance)

    # Webhooks

    async def webhook_settings(self) -> WebhookSettings:
        """Where the account's webhooks go, and what they are signed with."""
        return struct(await self._flows.get(api_path("webhooks")), WebhookSettings)

    async def set_webhook(self, url: str | None) -> WebhookSettings:
        """Send every task's end to this URL, or with None to that of its request only."""
        answer = await self._flows.change("PUT", api_path("webhooks"), {"url": url})
        return struct(answer, WebhookSettings)

    async def rotate_webhook_secret(self, overlap_seconds: int = 86_400) -> WebhookSettings:
        """Make a new secret; messages are signed with the old one too for so long.

        This is never tried again by itself: rotating twice would end the old secret at once.
        """
        return struct(await self._flows.rotate(overlap_seconds), WebhookSettings)

    async def webhook_delivery(self, task_id: str) -> dict[str, Any]:
        """How the delivery of a task's webhook went, with its history."""
        return await self._flows.get(api_path("tasks", task_id, "webhook"))

    async def webhook_deliveries(
        self, *, state: str | None = None, limit: int = 20
    ) -> list[dict[str, Any]]:
        """The account's newest webhooks, newest first, at most 100, with how they went."""
        query = {"limit": str(limit)} | ({"state": state} if state else {})
        page = await self._flows.get(api_path("webhooks", "deliveries"), *query.items())
        return struct(page.get("data"), list[dict[str, Any]])

    async def redeliver(self, task_id: str) -> dict[str, Any]:
        """Have a task's webhook sent again."""
        return await self._flows.change("POST", api_path("tasks", task_id, "webhook", "redeliver"))


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class AsyncTask(TaskView):
    """A task as it was when it was read, and what can be done about it."""

    _client: AsyncCalotype
    _flows: Flows

    async def wait(self, timeout: float | None = None) -> "AsyncTask":  # noqa: ASYNC109 -- as of the blocking client
        """The task once it succeeded.

        Args:
            timeout: seconds to wait at most; for ever unless given.

        Raises:
            TaskFailed: it failed.
            AsyncTaskTimeout: it is not final in time; it goes on at the server.

        """
        if self.is_final:
            return settled(self, AsyncTaskTimeout)
        return settled(self._again(await self._flows.wait(self.raw, timeout)), AsyncTaskTimeout)

    async def refresh(self) -> "AsyncTask":
        """The task as it is now."""
        return await self._client.task(self.id)

    async def cancel(self) -> "AsyncTask":
        """Cancel it; a final task stays as it is."""
        return await self._client.cancel(self.id)

    async def delete(self) -> None:
        """Delete its images for good, once it is final; the task itself stays."""
        await self._client.delete(self.id)

    async def events(self) -> "AsyncGenerator[TaskEvent[AsyncTask], None]":
        """What has happened to it and what happens, to its final event."""
        url = api_path("tasks", self.id, "events")
        async with contextlib.aclosing(self._flows.events(url, None, ends=True)) as events:
            async for event in events:
                yield task_event(event, self._again)

    async def save(self, path: str | Path) -> list[Path]:
        """Write the images to a file, waiting for them if need be.

        Args:
            path: of the first; further ones get -2, -3 and so on. In a folder they are named by
                the task.

        Raises:
            TaskFailed: there are none.

        """
        task = await self.wait()
        return await self._flows.save_all(task.raw, Path(path))

    def _again(self, document: dict[str, Any]) -> "AsyncTask":
        return AsyncTask(document, self._client, self._flows)


class AsyncTaskTimeout(WaitTimeout):
    """The task is not final in time; ``task.wait()`` waits for it again."""

    task: AsyncTask
