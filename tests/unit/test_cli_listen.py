"""The secrets of ``calotype webhooks listen``, asked for again when none fits."""

import asyncio
import json
import math
from datetime import UTC, datetime

import pytest
from standardwebhooks.webhooks import Webhook

from calotype.cli.listen import Secrets
from calotype.client import ConnectionFailed, WebhookVerificationError

OLD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NEW = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
BODY = json.dumps({"event": "task.success", "task_id": "task_1", "state": "success"})


def signed(secret: str) -> tuple[bytes, dict[str, str]]:
    at = datetime.now(UTC)
    return BODY.encode(), {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign("msg_1", at, BODY),
    }


class Server:
    """Tells the secrets of now, and counts how often."""

    def __init__(self, *secrets: str) -> None:
        self.secrets = list(secrets)
        self.asked = 0

    async def ask(self) -> list[str]:
        self.asked += 1
        await asyncio.sleep(0)
        return list(self.secrets)


async def test_after_a_rotation_the_new_secret_is_asked_for_once() -> None:
    server = Server(NEW, OLD)
    secrets = Secrets([OLD], server.ask)
    events = await asyncio.gather(*(secrets.verified(*signed(NEW)) for _ in range(3)))
    assert [event.task.id for event in events] == ["task_1"] * 3
    await secrets.verified(*signed(OLD))
    assert server.asked == 1


@pytest.mark.parametrize(("every", "asked"), [(math.inf, 1), (0, 3)])
async def test_what_nobody_signed_does_not_have_the_server_asked_all_the_time(
    every: float, asked: int
) -> None:
    server = Server(OLD)
    secrets = Secrets([OLD], server.ask, every=every)
    for _ in range(3):
        with pytest.raises(WebhookVerificationError):
            await secrets.verified(*signed(NEW))
    assert server.asked == asked


async def test_when_the_server_cannot_be_asked_the_secrets_stay(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def ask() -> list[str]:
        raise ConnectionFailed("There is no server")

    secrets = Secrets([OLD], ask)
    with pytest.raises(WebhookVerificationError):
        await secrets.verified(*signed(NEW))
    await secrets.verified(*signed(OLD))
    assert "There is no server" in capsys.readouterr().err


async def test_secrets_that_were_given_stay() -> None:
    with pytest.raises(WebhookVerificationError):
        await Secrets([OLD], None).verified(*signed(NEW))
