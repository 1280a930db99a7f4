"""What the protocols of one's own servers share: they cost nothing, and most want no key."""

import base64

from calotype.domain.channel import Channel
from calotype.domain.outcomes import Refused, TryLater
from calotype.net.client import Answer
from calotype.providers.line import Line, bearer
from calotype.providers.reading import fields, items, job_id, text

__all__ = ["beforehand", "credential", "fields", "items", "job_id", "text"]


def credential(channel: Channel) -> dict[str, str]:
    """The headers that let us in where a server, or a proxy in front of it, wants a credential.

    ``user:password`` goes out as Basic, anything else as a Bearer token.
    """
    if channel.api_key is not None and ":" in channel.api_key.value:
        coded = base64.b64encode(channel.api_key.value.encode()).decode()
        return {"Authorization": f"Basic {coded}"}
    return bearer(channel)


def beforehand(line: Line, answer: Answer, detail: str = "") -> Refused | TryLater:
    """The outcome of a question before the send that was answered with a fault: nothing began."""
    return line.beforehand(answer, detail=detail)
