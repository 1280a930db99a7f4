"""The blocking client."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from calotype.client.port import iterate, run
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


class Calotype:
    """A client of one server; threads may share it.

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
        http_client: "httpx2.Client | None" = None,
        timeout: float = TIMEOUT,
        pauses: Sequence[float] = PAUSES,
        patience: float = PATIENCE,
        on_retry: Callable[[str], None] | None = None,
    ) -> None:
        from calotype.client.wire import SyncWire

        self.base_url = read_base_url(base_url)
        wire = SyncWire(self.base_url, read_api_key(api_key), http_client, timeout)
        self._flows = Flows(wire, timeout=timeout, pauses=pauses, patience=patience, note=on_retry)

    def close(self) -> None:
        """Close the connections, unless they are those of a given ``http_client``."""
        run(self._flows.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _view(self, document: dict[str, Any]) -> "Task":
        return Task(task_document(document), self, self._flows)

    def __repr__(self) -> str:
        return f"Calotype(base_url={self.base_url!r})"

    # Making images

    def generate(
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
    ) -> "Task":
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
        return self._view(run(self._flows.submit(request)))

    def generate_batch(self, requests: Sequence[GenerationRequest]) -> "list[Task | APIError]":
        """Submit 1 to 100 requests at once; for each its task, or the error that refuses it."""
        answers = run(self._flows.submit_batch(requests))
        return [one if isinstance(one, APIError) else self._view(one) for one in answers]

    # Tasks

    def task(self, task_id: str) -> "Task":
        """A task as it is now."""
        return self._view(run(self._flows.get(api_path("tasks", task_id))))

    def tasks(
        self,
        *,
        state: State | None = None,
        model: str | None = None,
        since: int | None = None,
        metadata: Mapping[str, str] | None = None,
        limit: int | None = None,
    ) -> "Iterator[Task]":
        """The account's tasks, newest first, fetched page by page as they are taken.

        Args:
            state: those in this state.
            model: those of this model.
            since: those made since, Unix seconds.
            metadata: those with all of these pairs.
            limit: at most so many.

        """
        filters = task_filters(state=state, model=model, since=since, metadata=metadata)
        for document in iterate(self._flows.tasks(filters, limit)):
            yield self._view(document)

    def cancel(self, task_id: str) -> "Task":
        """Cancel a task; a final one stays as it is."""
        return self._view(run(self._flows.change("POST", api_path("tasks", task_id, "cancel"))))

    def delete(self, task_id: str) -> None:
        """Delete the images of a final task for good; the task itself stays."""
        run(self._flows.delete(api_path("tasks", task_id)))

    def events(self, last_event_id: str | None = None) -> "Iterator[TaskEvent[Task]]":
        """What happens to the account's tasks, from now on or after an event; it never ends."""
        for event in iterate(self._flows.events(api_path("events"), last_event_id, ends=False)):
            yield task_event(event, self._view)

    # Files

    def upload_file(self, image: Source) -> File:
        """Upload an image once, to be a reference of many requests: a path, bytes or an open file.

        What was uploaded before is found again, and kept for longer.
        """
        return struct(run(self._flows.upload(FileUpload(image))), File)

    def files(self, *, limit: int | None = None) -> "Iterator[File]":
        """The account's files, newest first, fetched page by page as they are taken."""
        for document in iterate(self._flows.listed(api_path("files"), limit)):
            yield struct(document, File)

    def file(self, file_id: str) -> File:
        """A file as it is now, with a fresh URL to look at it."""
        return struct(run(self._flows.get(api_path("files", file_id))), File)

    def delete_file(self, file_id: str) -> None:
        """Delete a file at once; a task that still needs it fails."""
        run(self._flows.delete(api_path("files", file_id), gone="file_not_found"))

    # Images

    def download(self, url: str) -> bytes:
        """An image, by its URL; the key is not sent."""
        return run(self._flows.download(url))

    def save(self, url: str, path: str | Path) -> Path:
        """Fetch an image into a file, which is there whole or not at all.

        A link's target is replaced, not the link; a device or a pipe is written into.
        """
        return run(self._flows.save(url, Path(path)))

    # What there is

    def models(self) -> list[Model]:
        """Every model."""
        return models_of(run(self._flows.get(api_path("models"))))

    def model(self, model_id: str) -> Model:
        """One model."""
        return struct(run(self._flows.get(api_path("models", model_id))), Model)

    def balance(self) -> Balance:
        """What the account has."""
        return struct(run(self._flows.get(api_path("credits", "balance"))), Balance)

    # Webhooks

    def webhook_settings(self) -> WebhookSettings:
        """Where the account's webhooks go, and what they are signed with."""
        return struct(run(self._flows.get(api_path("webhooks"))), WebhookSettings)

    def set_webhook(self, url: str | None) -> WebhookSettings:
        """Send every task's end to this URL, or with None to that of its request only."""
        answer = run(self._flows.change("PUT", api_path("webhooks"), {"url": url}))
        return struct(answer, WebhookSettings)

    def rotate_webhook_secret(self, overlap_seconds: int = 86_400) -> WebhookSettings:
        """Make a new secret; messages are signed with the old one too for so long.

        This is never tried again by itself: rotating twice would end the old secret at once.
        """
        return struct(run(self._flows.rotate(overlap_seconds)), WebhookSettings)

    def webhook_delivery(self, task_id: str) -> dict[str, Any]:
        """How the delivery of a task's webhook went, with its history."""
        return run(self._flows.get(api_path("tasks", task_id, "webhook")))

    def webhook_deliveries(
        self, *, state: str | None = None, limit: int = 20
    ) -> list[dict[str, Any]]:
        """The account's newest webhooks, newest first, at most 100, with how they went."""
        query = {"limit": str(limit)} | ({"state": state} if state else {})
        page = run(self._flows.get(api_path("webhooks", "deliveries"), *query.items()))
        return struct(page.get("data"), list[dict[str, Any]])

    def redeliver(self, task_id: str) -> dict[str, Any]:
        """Have a task's webhook sent again."""
        return run(self._flows.change("POST", api_path("tasks", task_id, "webhook", "redeliver")))


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Task(TaskView):
    """A task as it was when it was read, and what can be done about it."""

    _client: Calotype
    _flows: Flows

    def wait(self, timeout: float | None = None) -> "Task":
        """The task once it succeeded.

        Args:
            timeout: seconds to wait at most; for ever unless given.

        Raises:
            TaskFailed: it failed.
            TaskTimeout: it is not final in time; it goes on at the server.

        """
        if self.is_final:
            return settled(self, TaskTimeout)
        return settled(self._again(run(self._flows.wait(self.raw, timeout))), TaskTimeout)

    def refresh(self) -> "Task":
        """The task as it is now."""
        return self._client.task(self.id)

    def cancel(self) -> "Task":
        """Cancel it; a final task stays as it is."""
        return self._client.cancel(self.id)

    def delete(self) -> None:
        """Delete its images for good, once it is final; the task itself stays."""
        self._client.delete(self.id)

    def events(self) -> "Iterator[TaskEvent[Task]]":
        """What has happened to it and what happens, to its final event."""
        url = api_path("tasks", self.id, "events")
        for event in iterate(self._flows.events(url, None, ends=True)):
            yield task_event(event, self._again)

    def save(self, path: str | Path) -> list[Path]:
        """Write the images to a file, waiting for them if need be.

        Args:
            path: of the first; further ones get -2, -3 and so on. In a folder they are named by
                the task.

        Raises:
            TaskFailed: there are none.

        """
        task = self.wait()
        return run(self._flows.save_all(task.raw, Path(path)))

    def _again(self, document: dict[str, Any]) -> "Task":
        return Task(document, self._client, self._flows)


class TaskTimeout(WaitTimeout):
    """The task is not final in time; ``task.wait()`` waits for it again."""

    task: Task
