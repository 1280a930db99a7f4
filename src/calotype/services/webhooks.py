"""What accounts see of their webhooks, and say of them."""

from typing import Any

import msgspec

from calotype.domain.clock import Clock
from calotype.domain.errors import WebhookNotFound
from calotype.domain.ids import encode
from calotype.domain.task import Task
from calotype.domain.webhooks import (
    DeliveryState,
    Signer,
    Try,
    Webhook,
    WebhookSettings,
    judge_webhook_url,
    message_id,
    waiting_for_its_end,
)
from calotype.store.port import Store


class Page(msgspec.Struct, frozen=True):
    """Some of a list."""

    data: list[dict[str, Any]]
    last: int | None
    """The id of the last one's task where there are more."""


class Webhooks:
    """Settings, deliveries and their history.

    Args:
        store: holds them.
        signer: makes the secrets.
        allow_hosts: names and addresses that may be sent to though they are not public.
        clock: the time.

    """

    def __init__(
        self, store: Store, *, signer: Signer, allow_hosts: frozenset[str], clock: Clock
    ) -> None:
        self._store = store
        self._signer = signer
        self._allow_hosts = allow_hosts
        self._clock = clock

    def judge(self, url: object, *, param: str = "callback_url") -> str:
        """A URL that may be sent to, judged by its text alone.

        Raises:
            errors.InvalidParameter: it may not.

        """
        return judge_webhook_url(url, allow_hosts=self._allow_hosts, param=param)

    async def settings(self, account_id: int) -> dict[str, Any]:
        """The account's URL, the secrets that sign now, and the URLs that are switched off."""
        settings = await self._store.webhooks.settings(account_id)
        return {
            "object": "webhook_settings",
            "url": settings.url,
            "secrets": self._secrets(account_id, settings),
            "disabled_urls": await self._store.webhooks.disabled_urls(account_id),
        }

    async def set_url(self, account_id: int, url: object) -> dict[str, Any]:
        """Tell of the account's tasks there, or with None nowhere; enables the URL.

        Raises:
            errors.InvalidParameter: it may not be sent to.

        """
        judged = None if url is None else self.judge(url, param="url")
        await self._store.webhooks.set_url(account_id, judged, now=self._clock())
        return await self.settings(account_id)

    async def rotate(self, account_id: int, *, overlap_seconds: int) -> dict[str, Any]:
        """Make a new secret; the one before signs, too, for so long."""
        await self._store.webhooks.rotate(
            account_id, overlap_ms=overlap_seconds * 1000, now=self._clock()
        )
        return await self.settings(account_id)

    async def delivery(self, task: Task) -> dict[str, Any]:
        """The delivery of a task's webhook with its history.

        Raises:
            errors.WebhookNotFound: the task has none.

        """
        webhook = await self._store.webhooks.of_task(task.id) if task.has_webhook else None
        if webhook is not None:
            history = await self._store.webhooks.history(task.id)
            return {**_delivery(webhook), "history": [_try(one) for one in history]}
        if waiting_for_its_end(task):
            return {**_waiting(task), "history": []}
        raise WebhookNotFound(
            "This task has no webhook: it had no callback_url, and the account no URL when it "
            "ended; set one by PUT /v1/webhooks."
            if task.completed_at is not None
            else "This task has no webhook: it has no callback_url. It gets one at its end if the "
            "account has a URL by then; set one by PUT /v1/webhooks."
        )

    async def redeliver(self, task: Task) -> dict[str, Any]:
        """Begin a new round of tries, to where the task would be told of now.

        Raises:
            errors.WebhookNotFound: there is none yet, or never will be.

        """
        old = await self._store.webhooks.of_task(task.id) if task.has_webhook else None
        if old is None:
            if waiting_for_its_end(task):
                raise WebhookNotFound("The webhook is sent when the task ends; wait for that.")
            return await self.delivery(task)
        url = task.request.callback_url
        if url is None:
            url = (await self._store.webhooks.settings(task.account_id)).url or old.url
        await self._store.webhooks.redeliver(old, url, now=self._clock())
        return await self.delivery(task)

    async def deliveries(
        self, account_id: int, *, state: DeliveryState | None, before: int | None, limit: int
    ) -> Page:
        """A page of the account's deliveries, newest first, without their histories."""
        found = await self._store.webhooks.of_account(
            account_id, state=state, before=before, limit=limit + 1
        )
        shown = found[:limit]
        last = shown[-1].task_id if len(found) > limit else None
        return Page([_delivery(webhook) for webhook in shown], last)

    def _secrets(self, account_id: int, settings: WebhookSettings) -> list[dict[str, Any]]:
        times = [(settings.version_at, None), (settings.previous_at, settings.previous_until)]
        return [
            {
                "secret": self._signer.secret(account_id, version),
                "created_at": _seconds(created),
                "expires_at": _seconds(expires),
            }
            for version, (created, expires) in zip(
                settings.live(self._clock()), times, strict=False
            )
        ]


def summary(task: Task, webhook: Webhook | None) -> dict[str, Any] | None:
    """What the task's own document says of its webhook; None where there is nothing to say."""
    if webhook is not None:
        return {
            "state": webhook.state,
            "attempts": webhook.attempts,
            "last_status": webhook.last_status,
        }
    if waiting_for_its_end(task):
        return {"state": DeliveryState.WAITING, "attempts": 0, "last_status": None}
    return None


def _delivery(webhook: Webhook) -> dict[str, Any]:
    return {
        "object": "webhook_delivery",
        "task_id": encode("task", webhook.task_id),
        "webhook_id": message_id(webhook.task_id),
        "event": webhook.event,
        "url": webhook.url,
        "state": webhook.state,
        "attempts": webhook.attempts,
        "last_status": webhook.last_status,
        "next_attempt_at": _seconds(webhook.next_at),
        "created_at": _seconds(webhook.created_at),
    }


def _waiting(task: Task) -> dict[str, Any]:
    return {
        "object": "webhook_delivery",
        "task_id": encode("task", task.id),
        "webhook_id": message_id(task.id),
        "event": None,
        "url": task.request.callback_url,
        "state": DeliveryState.WAITING,
        "attempts": 0,
        "last_status": None,
        "next_attempt_at": None,
        "created_at": None,
    }


def _try(one: Try) -> dict[str, Any]:
    return {
        "at": _seconds(one.at),
        "milliseconds": one.milliseconds,
        "status": one.status,
        "error": one.error,
        "reply": one.reply,
    }


def _seconds(milliseconds: int | None) -> int | None:
    return None if milliseconds is None else milliseconds // 1000
