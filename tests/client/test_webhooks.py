"""Verifying webhooks, judged by the official library of Standard Webhooks."""

import base64
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from calotype.client import WebhookEvent, WebhookVerificationError, verify_webhook

SECRET = "whsec_" + base64.b64encode(bytes(range(24))).decode()
OTHER = "whsec_" + base64.b64encode(b"another secret, of 24 b.").decode()
TASK = {"task_id": "task_0", "state": "success", "progress": 100, "event": "task.success"}
BODY = json.dumps({**TASK, "request": {"prompt": "ein Größenwahn\u2028"}}).encode()


def signed(
    *secrets: str, body: bytes = BODY, at: float | None = None, name: str = "msg_1"
) -> dict[str, str]:
    """Headers as the official library signs."""
    moment = int(time.time() if at is None else at)
    when = datetime.fromtimestamp(moment, UTC)
    signatures = [Webhook(secret).sign(name, when, body.decode()) for secret in secrets]
    return {
        "webhook-id": name,
        "webhook-timestamp": str(moment),
        "webhook-signature": " ".join(signatures),
    }


def refused(
    headers: Mapping[str, str], *, body: bytes = BODY, secret: str | list[str] = SECRET
) -> str:
    with pytest.raises(WebhookVerificationError) as caught:
        verify_webhook(body, headers, secret)
    return str(caught.value)


def test_what_the_official_library_signs_is_read() -> None:
    headers = signed(SECRET)
    event = verify_webhook(BODY, headers, SECRET)
    assert isinstance(event, WebhookEvent)
    assert (event.id, event.type, event.timestamp) == (
        "msg_1",
        "task.success",
        int(headers["webhook-timestamp"]),
    )
    assert (event.task.id, event.task.state, event.task.is_final) == ("task_0", "success", True)
    assert event.raw == json.loads(BODY)


def test_what_is_taken_here_is_taken_by_the_official_library_and_the_reverse() -> None:
    for headers in (signed(SECRET), signed(OTHER, SECRET)):
        assert Webhook(SECRET).verify(BODY, headers) == verify_webhook(BODY, headers, SECRET).raw


def test_names_of_headers_are_read_in_any_case() -> None:
    verify_webhook(BODY, {name.title(): value for name, value in signed(SECRET).items()}, SECRET)


def test_while_a_secret_is_replaced_either_side_may_know_both() -> None:
    verify_webhook(BODY, signed(OTHER, SECRET), SECRET)
    verify_webhook(BODY, signed(SECRET), [OTHER, SECRET])
    verify_webhook(BODY, signed(SECRET), (OTHER, SECRET))


def test_signatures_of_other_versions_are_passed_over() -> None:
    headers = signed(SECRET)
    headers["webhook-signature"] = f"v1a,AAAA v2,xyz nonsense {headers['webhook-signature']}"
    verify_webhook(BODY, headers, SECRET)
    headers["webhook-signature"] = headers["webhook-signature"].replace("v1,", "v2,")
    assert "No signature" in refused(headers)


def test_what_was_changed_on_the_way_is_refused() -> None:
    headers = signed(SECRET)
    assert "No signature" in refused(headers, body=BODY.replace(b"success", b"fail"))
    assert "No signature" in refused({**headers, "webhook-id": "msg_2"})
    later = str(int(headers["webhook-timestamp"]) + 1)
    assert "No signature" in refused({**headers, "webhook-timestamp": later})
    assert "No signature" in refused(headers, secret=OTHER)


@pytest.mark.parametrize("minutes", [-6, 6])
def test_what_is_too_old_or_too_new_is_refused(minutes: int) -> None:
    headers = signed(SECRET, at=time.time() + 60 * minutes)
    assert "more than 300 s" in refused(headers)
    verify_webhook(BODY, headers, SECRET, tolerance_seconds=600)


@pytest.mark.parametrize("missing", ["id", "timestamp", "signature"])
def test_a_missing_header_is_named(missing: str) -> None:
    headers = signed(SECRET)
    del headers[f"webhook-{missing}"]
    assert refused(headers) == f"The header webhook-{missing} is missing."


@pytest.mark.parametrize("moment", ["", "now", "1e9", "-1", "٣", "1" * 400])
def test_a_timestamp_that_is_none_is_refused(moment: str) -> None:
    assert "no time" in refused({**signed(SECRET), "webhook-timestamp": moment})


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'"task"', b'{"event": "task.success"}'])
def test_a_signed_message_that_tells_of_no_task_is_refused(body: bytes) -> None:
    assert "no task" in refused(signed(SECRET, body=body), body=body)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_ü", "whsec_a", [], ["whsec_"], "c2VjcmV0"])
def test_a_secret_that_is_none_is_a_mistake_of_the_receiver(secret: Any) -> None:
    with pytest.raises(ValueError, match="webhook_settings") as caught:
        verify_webhook(BODY, signed(SECRET), secret)
    assert not isinstance(caught.value, WebhookVerificationError)


ANYTHING = st.text(st.characters(exclude_categories=()), max_size=60)


@given(st.binary(max_size=40), ANYTHING, ANYTHING)
def test_whatever_a_stranger_sends_is_refused(body: bytes, name: str, signature: str) -> None:
    moment = str(int(time.time()))
    headers = {"webhook-id": name, "webhook-timestamp": moment, "webhook-signature": signature}
    refused(headers, body=body)
    refused({**headers, "webhook-signature": f"v1,{signature}"}, body=body)
