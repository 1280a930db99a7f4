"""Webhooks at their receiver: whether a message is the server's, and of just now."""

import base64
import binascii
import dataclasses
import hashlib
import hmac
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from calotype.client.documents import TaskView, is_object, task_document
from calotype.client.errors import CalotypeError, WebhookVerificationError

_PREFIX: Final = "whsec_"
_LONGEST_TIME: Final = 12


@dataclasses.dataclass(frozen=True)
class WebhookEvent:
    """A message that is known to come from the server."""

    id: str
    """The same when the message is sent again: keep it, and do nothing twice."""
    type: str
    """``task.success`` or ``task.fail``."""
    timestamp: int
    """When this attempt was sent, Unix seconds."""
    task: TaskView
    """The task; ``client.task(event.task.id)`` gives one that can be saved."""
    raw: dict[str, Any]
    """The whole body."""


def verify_webhook(
    body: bytes,
    headers: Mapping[str, str],
    secret: str | Sequence[str],
    *,
    tolerance_seconds: int = 300,
) -> WebhookEvent:
    """Verify a webhook after Standard Webhooks and read it.

    Args:
        body: byte for byte as it was received.
        headers: of the request; names in any case.
        secret: ``whsec_…``, or several while one is being replaced.
        tolerance_seconds: how far the sender's clock may be from ours, either way; this is also
            how long a message that was overheard can be sent again.

    Raises:
        WebhookVerificationError: not signed with any of the secrets, or too old or too new.
        ValueError: a secret is none.

    """
    keys = [_key(one) for one in ([secret] if isinstance(secret, str) else secret)]
    if not keys:
        raise ValueError("verify_webhook needs a secret; webhook_settings() shows them.")
    given = {name.lower(): value for name, value in headers.items()}
    try:
        message_id, timestamp, signatures = (
            given[f"webhook-{name}"] for name in ("id", "timestamp", "signature")
        )
    except KeyError as error:
        raise WebhookVerificationError(f"The header {error.args[0]} is missing.") from None
    sent_at = _read_time(timestamp, tolerance_seconds)
    content = b"%b.%b.%b" % (_bytes(message_id), _bytes(timestamp), body)
    expected = [base64.b64encode(hmac.digest(key, content, hashlib.sha256)) for key in keys]
    candidates = [
        _bytes(value)
        for version, _, value in (word.partition(",") for word in signatures.split())
        if version == "v1"
    ]
    # Every pair is compared, so that the time taken says nothing of which one is right.
    if not sum(hmac.compare_digest(one, other) for one in expected for other in candidates):
        raise WebhookVerificationError("No signature is made with a secret that is known here.")
    return _read(body, message_id, sent_at)


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(_PREFIX) or not key:
        raise ValueError(f"A webhook secret is {_PREFIX} and base64, as webhook_settings() shows.")
    return key


def _bytes(text: str) -> bytes:
    # Some servers hand out bytes that are no UTF-8 as lone surrogates; no sender of ours has any.
    return text.encode(errors="replace")


def _read_time(text: str, tolerance_seconds: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _LONGEST_TIME):
        raise WebhookVerificationError("webhook-timestamp is no time in Unix seconds.")
    if abs(time.time() - int(text)) > tolerance_seconds:
        raise WebhookVerificationError(
            f"webhook-timestamp is more than {tolerance_seconds} s from now: "
            "sent long ago, or one of the clocks is wrong."
        )
    return int(text)


def _read(body: bytes, message_id: str, sent_at: int) -> WebhookEvent:
    try:
        document = is_object(json.loads(body))
        if document is not None:
            task = TaskView(task_document(document))
            return WebhookEvent(
                message_id, str(document.get("event", "")), sent_at, task, dict(document)
            )
    except (ValueError, CalotypeError):
        pass
    raise WebhookVerificationError("The message is signed, but tells of no task.")
