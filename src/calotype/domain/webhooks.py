"""Webhooks: one for each task that ends, signed as the Standard Webhooks specification says.

Times are milliseconds since 1970, unless they are said to be seconds.
"""

import base64
import hashlib
import hmac
from collections.abc import Callable, Sequence
from enum import StrEnum
from http import HTTPStatus
from typing import Final, Literal

import msgspec

from calotype.domain.errors import InvalidParameter
from calotype.domain.ids import encode
from calotype.domain.task import Event, Task
from calotype.domain.urls import endpoint_of, judge_reference_url

EVENTS: Final[dict[Event, str]] = {Event.COMPLETE: "task.success", Event.FAIL: "task.fail"}
"""What ends a task → the event that its webhook tells of."""

_MINUTE: Final = 60
_HOUR: Final = 60 * _MINUTE
GAPS_SECONDS: Final = (
    *(0, 5, 5 * _MINUTE, 30 * _MINUTE),
    *(2 * _HOUR, 5 * _HOUR, 10 * _HOUR, 14 * _HOUR, 20 * _HOUR, 24 * _HOUR),
)
"""Before each try of a round, so long since the one before; about three days together."""
JITTER: Final = 0.2
"""A gap is up to this part longer, so that what failed together does not come back together."""
MAX_URL_BYTES: Final = 2048
"""Of UTF-8: databases index it."""
MAX_OVERLAP_SECONDS: Final = 7 * 24 * _HOUR
SECRET_PREFIX: Final = "whsec_"  # noqa: S105 -- what every secret begins with


class DeliveryState(StrEnum):
    """Where the delivery of a webhook stands."""

    WAITING = "waiting"
    """The task is not final; never stored."""
    PENDING = "pending"
    """It is being tried, or will be."""
    DELIVERED = "delivered"
    """The receiver answered 2xx."""
    FAILED = "failed"
    """Every try failed."""
    DISABLED = "disabled"
    """The receiver wants no more of it: it answered 410."""


class WebhookSettings(msgspec.Struct, frozen=True):
    """What an account has said of its webhooks."""

    url: str | None
    """For tasks without a ``callback_url`` of their own."""
    version: int
    """Of the secret."""
    version_at: int
    previous_at: int | None
    """When the secret before was made."""
    previous_until: int | None
    """So long that one signs, too."""

    def live(self, now: int) -> list[int]:
        """The versions that sign, the newest first."""
        return live_versions(self.version, self.previous_until, now=now)


class Webhook(msgspec.Struct, frozen=True):
    """One delivery."""

    task_id: int
    account_id: int
    url: str
    event: str
    state: DeliveryState
    attempts: int
    last_status: int | None
    next_at: int | None
    """None while a try is under way, too."""
    created_at: int


class Try(msgspec.Struct, frozen=True):
    """What came of sending it once."""

    number: int
    """Among the delivery's own, from 1."""
    at: int
    milliseconds: int
    status: int | None
    """Of HTTP; None where there was no answer."""
    error: str | None
    """What was wrong, in our words."""
    reply: str | None
    """How the answer's body begins."""


class Due(msgspec.Struct, frozen=True):
    """A delivery that this process is to send now, and nobody else for a while."""

    task_id: int
    account_id: int
    url: str
    receiver: str
    event: str
    number: int
    """Of the try that is to be made."""
    tries: int
    """Of this round that came to an end."""
    round_at: int
    version: int
    previous_until: int | None

    def live(self, now: int) -> list[int]:
        """The versions of the secret that sign, the newest first."""
        return live_versions(self.version, self.previous_until, now=now)


class Verdict(msgspec.Struct, frozen=True):
    """How a delivery goes on after a try."""

    state: Literal[
        DeliveryState.PENDING,
        DeliveryState.DELIVERED,
        DeliveryState.FAILED,
        DeliveryState.DISABLED,
    ]
    next_at: int | None = None


def judge_webhook_url(url: object, *, allow_hosts: frozenset[str], param: str) -> str:
    """The URL, unchanged, where we may try to send to it.

    Raises:
        InvalidParameter: it is malformed, too long, or leads to no public host.

    """
    judged = judge_reference_url(url, allow_hosts=allow_hosts, param=param)
    if len(judged.encode()) > MAX_URL_BYTES:
        raise InvalidParameter(
            f"A webhook's URL must have at most {MAX_URL_BYTES} bytes.", param=param
        )
    return judged


def receiver_of(account_id: int, url: str) -> str:
    """An account, and the host and port of a URL of its: what shares them shares a turn."""
    return f"{account_id}/{endpoint_of(url)}"


def account_of(receiver: str) -> int:
    """The account of a receiver."""
    return int(receiver.partition("/")[0])


def message_id(task_id: int) -> str:
    """The id of a task's webhook, the same in every try."""
    return f"msg_{encode('task', task_id).partition('_')[2]}"


def live_versions(version: int, previous_until: int | None, *, now: int) -> list[int]:
    """The versions of a secret that sign now, the newest first."""
    if previous_until is not None and now < previous_until:
        return [version, version - 1]
    return [version]


class Signer:
    """Makes the secrets of all accounts from the server's own, and signs by them.

    No secret is stored: whoever has the server's has them all, and nobody else has one.
    """

    def __init__(self, secret: bytes) -> None:
        self._key = hmac.digest(secret, b"calotype webhook secrets v1", "sha256")

    def secret(self, account_id: int, version: int) -> str:
        """The secret as its owner gets it: ``whsec_`` and base64."""
        return SECRET_PREFIX + base64.b64encode(self._bytes(account_id, version)).decode()

    def headers(
        self, due: Due, body: bytes, *, now: int, versions: Sequence[int]
    ) -> dict[str, str]:
        """The three headers of a try; one signature for each version."""
        name, moment = message_id(due.task_id), str(now // 1000)
        signed = b"%b.%b.%b" % (name.encode(), moment.encode(), body)
        signatures = [
            base64.b64encode(
                hmac.digest(self._bytes(due.account_id, version), signed, hashlib.sha256)
            ).decode()
            for version in versions
        ]
        return {
            "webhook-id": name,
            "webhook-timestamp": moment,
            "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
        }

    def _bytes(self, account_id: int, version: int) -> bytes:
        return hmac.digest(self._key, b"webhook:%d:%d" % (account_id, version), "sha256")


def verdict(
    status: int | None,
    *,
    tries: int,
    now: int,
    retry_after: float | None,
    chance: Callable[[], float],
) -> Verdict:
    """What follows from a try.

    Args:
        status: of HTTP; None where there was no answer.
        tries: of this round, this one included.
        now: the time.
        retry_after: seconds that the receiver asked for, with 429 or 503.
        chance: a number from 0 to 1.

    """
    if status is not None and HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return Verdict(DeliveryState.DELIVERED)
    if status == HTTPStatus.GONE:
        return Verdict(DeliveryState.DISABLED)
    if tries >= len(GAPS_SECONDS):
        return Verdict(DeliveryState.FAILED)
    gap = GAPS_SECONDS[tries] * (1 + JITTER * chance())
    if retry_after is not None and status in {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.SERVICE_UNAVAILABLE,
    }:
        gap = max(gap, min(retry_after, GAPS_SECONDS[-1]))
    return Verdict(DeliveryState.PENDING, next_at=now + int(gap * 1000))


def waiting_for_its_end(task: Task) -> bool:
    """Whether a task that is not final asked for a webhook."""
    return task.completed_at is None and task.request.callback_url is not None
