"""A task as its owner sees it: the one document behind polling, streams and webhooks."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from calotype.domain.catalog import Catalog
from calotype.domain.clock import Clock
from calotype.domain.errors import TaskNotFound, UnknownModel
from calotype.domain.fitting import Shaped
from calotype.domain.ids import decode, encode
from calotype.domain.task import Asset, ResultImage, Task
from calotype.domain.webhooks import Webhook
from calotype.services.assets import Assets
from calotype.services.ready import Ready, ReadyDocuments
from calotype.services.routing import Router
from calotype.services.webhooks import summary
from calotype.store.port import Store

MIN_POLL_MS: Final = 1000
MAX_POLL_MS: Final = 15_000

_encode = msgspec.json.Encoder().encode


class Delivery:
    """Shows tasks to their owners."""

    def __init__(
        self, store: Store, catalog: Catalog, router: Router, *, assets: Assets, clock: Clock
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._router = router
        self._assets = assets
        self._clock = clock
        self._ready = ReadyDocuments()
        self.keeps_ready = False
        """Whether there was ever anything that ``ready`` could give."""

    def ready(self, task_word: str, *, base_url: str) -> Ready | None:
        """What ``encoded`` gives, where it is known at once to be what it would give now."""
        kept = self._kept(task_word, base_url)
        return kept if kept is not None and kept.mark == self._store.version() else None

    async def encoded(self, task_word: str, *, account_id: int, base_url: str) -> bytes:
        """The public form of a task as JSON.

        Raises:
            errors.TaskNotFound: there is none, or it is someone else's.

        """
        kept = self._kept(task_word, base_url)
        if kept is not None and kept.account_id != account_id:
            raise _not_found()
        task_id = decode("task", task_word)
        if task_id is None:
            raise _not_found()
        sight = await self._store.task_since(task_id, kept.mark if kept is not None else None)
        if sight is None and kept is not None:
            return kept.body
        task = None if sight is None else sight.task
        if sight is None or task is None or task.account_id != account_id:
            raise _not_found()
        body = _encode(await self.document(task, base_url=base_url))
        if sight.mark is not None:
            self.keeps_ready = self._store.version() is not None
            channel, now = self._router.get(task.channel_id), self._clock()
            self._ready.keep(
                task_word, base_url, task, body, mark=sight.mark, channel=channel, now=now
            )
        return body

    def _kept(self, task_word: str, base_url: str) -> Ready | None:
        """What was made last, where nothing but the store can tell that it is not so any more."""
        kept = self._ready.get(task_word, base_url, now=self._clock())
        if kept is None or self._router.get(kept.channel_id) is not kept.channel:
            return None
        return kept

    async def find(self, task_word: str, *, account_id: int) -> Task:
        """A task by its public id.

        Raises:
            errors.TaskNotFound: there is none, or it is someone else's.

        """
        task_id = decode("task", task_word)
        task = None if task_id is None else await self._store.task(task_id)
        if task is None or task.account_id != account_id:
            raise _not_found()
        return task

    def has_images(self, task: Task) -> bool:
        """Whether the images that a task made may still be shown."""
        return task.has_images(now=self._clock())

    async def document(self, task: Task, *, base_url: str) -> dict[str, Any]:
        """The public form of a task; ``base_url`` stands before every image URL."""
        uploads = await self._uploads([task]) if task.references else {}
        webhooks = await self._webhooks([task]) if task.has_webhook else {}
        return self._document(task, uploads, webhooks.get(task.id), base_url=base_url)

    async def documents(self, tasks: Sequence[Task], *, base_url: str) -> list[dict[str, Any]]:
        """The public forms of many, with one read each for all their uploads and webhooks."""
        uploads, webhooks = await self._uploads(tasks), await self._webhooks(tasks)
        return [
            self._document(task, uploads, webhooks.get(task.id), base_url=base_url)
            for task in tasks
        ]

    async def _uploads(self, tasks: Sequence[Task]) -> Mapping[int, Asset]:
        """The references that are shown by a URL of ours, by id."""
        ids = [
            reference.asset_id
            for task in tasks
            for reference in task.references
            if reference.url is None and reference.asset_id is not None
        ]
        if not ids:
            return {}
        now, found = self._clock(), await self._store.assets(ids)
        return {asset.id: asset for asset in found if asset.is_shown(now=now)}

    async def _webhooks(self, tasks: Sequence[Task]) -> Mapping[int, Webhook]:
        ids = [task.id for task in tasks if task.has_webhook]
        return {one.task_id: one for one in await self._store.webhooks.of_tasks(ids)} if ids else {}

    def _document(
        self, task: Task, uploads: Mapping[int, Asset], webhook: Webhook | None, *, base_url: str
    ) -> dict[str, Any]:
        word = encode("task", task.id)
        document: dict[str, Any] = {
            "task_id": word,
            "object": "task",
            "request_id": task.request_id,
            "model": task.model,
            "type": "image",
            "channel": self._channel(task.channel_id),
            "state": task.state,
            "progress": task.progress,
            "last_event": task.seq,
            "request": self._request(task, uploads, base_url),
            "result": self._result(task, base_url),
            "error": task.error or {},
            "billing": {
                "status": task.billing,
                "reserve_amount_micro_usdc": task.reserved,
                "actual_amount_micro_usdc": task.actual,
                "released_amount_micro_usdc": task.released,
            },
            "metadata": task.metadata,
            "poll_url": f"/v1/tasks/{word}",
            "created_at": task.created_at // 1000,
            "updated_at": task.updated_at // 1000,
        }
        if changes := _changes(task):
            document["reference_changes"] = changes
        if (told := summary(task, webhook)) is not None:
            document["webhook_delivery"] = told
        if task.cancel_at is not None:
            document["cancel_requested_at"] = task.cancel_at // 1000
        if task.deleted_at is not None:
            document["deleted_at"] = task.deleted_at // 1000
        if task.expires_at is not None:
            document["expires_at"] = task.expires_at // 1000
        if task.completed_at is not None:
            document["completed_at"] = task.completed_at // 1000
        else:
            document |= self._hints(task)
            if task.arrived:
                document["partial_result"] = {"data": self._images(task.arrived, base_url)}
        return document

    def _request(self, task: Task, uploads: Mapping[int, Asset], base_url: str) -> dict[str, Any]:
        asked = task.request
        request: dict[str, Any] = {
            "model": task.model,
            "prompt": asked.prompt,
            "n": asked.n,
            "response_format": "url",
            **asked.parameters,
        }
        if asked.channel_id is not None:
            request["channel_id"] = asked.channel_id
        if asked.callback_url is not None:
            request["callback_url"] = asked.callback_url
        if asked.deadline_seconds is not None:
            request["deadline_seconds"] = asked.deadline_seconds
        if task.references:
            request["image_input"] = [
                reference.url or self._uploaded(uploads.get(reference.asset_id or 0), base_url)
                for reference in task.references
            ]
        return request

    def _uploaded(self, asset: Asset | None, base_url: str) -> str | None:
        if asset is None:
            return None
        url, _ = self._assets.url(
            asset.id, asset.content_type, server=base_url, until=asset.expires_at
        )
        return url

    def _result(self, task: Task, base_url: str) -> Mapping[str, Any]:
        if task.completed_at is None or not task.result:
            return {}
        return {
            "created": task.completed_at // 1000,
            "data": self._images(task.result, base_url, until=task.expires_at)
            if self.has_images(task)
            else [{"expired": True, **_facts(image)} for image in task.result],
        }

    def _images(
        self, images: Sequence[ResultImage], base_url: str, *, until: int | None = None
    ) -> list[dict[str, Any]]:
        data = []
        for image in images:
            url, expires = self._assets.url(
                image.asset_id, image.content_type, server=base_url, until=until
            )
            data.append({"url": url, "expires_at": expires, **_facts(image)})
        return data

    def _channel(self, channel_id: int) -> dict[str, Any]:
        """Who develops the task, as discovery shows it: so a sandbox picture is known as one."""
        channel = self._router.get(channel_id)
        if channel is None:  # the operator took it away since
            return {"id": channel_id}
        return {"id": channel.id, "name": channel.name, "slug": channel.slug}

    def _hints(self, task: Task) -> dict[str, int]:
        try:
            model = self._catalog.get(task.model)
            usual = self._router.usual_seconds(task.channel_id, model)
        except UnknownModel:  # the operator took the model away while the task was running
            usual = 60
        return hints(usual, spent_ms=self._clock() - task.created_at)


def _not_found() -> TaskNotFound:
    return TaskNotFound("There is no task with this id in this account.")


def _changes(task: Task) -> list[dict[str, Any]]:
    """What was made of references so that upstreams take them."""
    return [
        {
            "index": index,
            "channel_id": copy.channel_id,
            "from": _facts(copy.original),
            "to": _facts(copy.copy),
            "reason": copy.reason,
        }
        for index, reference in enumerate(task.references)
        for copy in reference.fitted
    ]


def _facts(image: Shaped) -> dict[str, Any]:
    return {
        "width": image.width,
        "height": image.height,
        "content_type": image.content_type,
        "bytes": image.bytes,
    }


def hints(eta_seconds: int, *, spent_ms: int) -> dict[str, int]:
    """When to look again, and how long it may still take."""
    left_ms = max(0, eta_seconds * 1000 - spent_ms)
    interval = min(MAX_POLL_MS, max(MIN_POLL_MS, left_ms // 8))
    return {
        "recommended_poll_interval_ms": interval // 500 * 500,
        "eta_hint_seconds": -(-left_ms // 1000),
    }
