"""Reading what kie.ai answers: envelopes and records, whatever may stand in them."""

import json
import re
from typing import Any, Final, NamedTuple

from calotype.net.client import Answer

OK: Final = "200"
_ID: Final = re.compile(r"[!-~]{1,256}")
_LONGEST_TEXT: Final = 1000


class Envelope(NamedTuple):
    """What every answer is wrapped in."""

    code: str
    """Empty where there is none."""
    said: str
    data: dict[str, Any]


def envelope_of(answer: Answer) -> Envelope:
    """The envelope of an answer; some calls write its message in another way."""
    document = answer.document if isinstance(answer.document, dict) else {}
    data = document.get("data")
    said = text_of(document.get("msg")) or text_of(document.get("message"))
    return Envelope(code_of(document.get("code")), said, data if isinstance(data, dict) else {})


def code_of(value: object) -> str:
    """A code, which may come as a number or as text."""
    if isinstance(value, str):
        return value[:16]
    number = number_of(value, most=999)
    return "" if number is None else str(number)


def number_of(value: object, *, most: int) -> int | float | None:
    """A number from 0 to ``most``; None for all else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if 0 <= value <= most else None


def text_of(value: object) -> str:
    """A text of bounded length; empty for all else."""
    return value[:_LONGEST_TEXT] if isinstance(value, str) else ""


def is_id(value: object) -> bool:
    """Whether this can be the id of a task; no space is in it."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def is_url(value: object) -> bool:
    """Whether this looks like the URL of an image."""
    return isinstance(value, str) and value.startswith(("https://", "http://"))


def result_urls(value: object) -> list[str]:
    """The URLs in ``resultJson``, a document written as a string."""
    document = _parsed(value) if isinstance(value, str) else value
    urls = document.get("resultUrls") if isinstance(document, dict) else None
    return [url for url in urls if is_url(url)] if isinstance(urls, list) else []


def told_id(body: bytes) -> str | None:
    """The task that a callback tells of; some families of models write it in another way."""
    document = _parsed(body)
    data = document.get("data") if isinstance(document, dict) else None
    if not isinstance(data, dict):
        return None
    task_id = data.get("taskId") or data.get("task_id")
    return str(task_id) if is_id(task_id) else None


def _parsed(content: str | bytes) -> object:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None
