"""What the protocols of one's own servers share: they cost nothing, and most want no key."""

import base64
import re
from typing import Any, Final

from calotype.domain.channel import Channel
from calotype.domain.outcomes import Refused, TryLater
from calotype.net.client import Answer
from calotype.providers.line import Line

_JOB_ID: Final = re.compile(r"[!-~]{1,256}")


def credential(channel: Channel) -> dict[str, str]:
    """The headers that let us in where a server, or a proxy in front of it, wants a credential.

    ``user:password`` goes out as Basic, anything else as a Bearer token.
    """
    if channel.api_key is None:
        return {}
    key = channel.api_key.value
    if ":" in key:
        return {"Authorization": f"Basic {base64.b64encode(key.encode()).decode()}"}
    return {"Authorization": f"Bearer {key}"}


def beforehand(line: Line, answer: Answer, detail: str = "") -> Refused | TryLater:
    """The outcome of a question before the send that was answered with a fault: nothing began."""
    outcome = line.refuse(answer, detail=detail)
    if isinstance(outcome, Refused | TryLater):
        return outcome
    message = f"The upstream said: {line.said(answer, detail)}"
    return TryLater("upstream_unavailable", message, answer.retry_after)


def text(document: object, name: str) -> str:
    """A field that holds text; empty where there is none."""
    value = fields(document).get(name)
    # Half a surrogate pair, which JSON can hold, can go into no URL and no database.
    return value.encode(errors="replace").decode() if isinstance(value, str) else ""


def job_id(document: object, name: str) -> str:
    """A field that can be the name of a job; empty where it cannot."""
    value = text(document, name)
    return value if _JOB_ID.fullmatch(value) else ""


def fields(document: object) -> dict[str, Any]:
    """A document that is an object; empty where it is none."""
    return document if isinstance(document, dict) else {}


def items(value: object) -> list[Any]:
    """A value that is a list; empty where it is none."""
    return value if isinstance(value, list) else []
