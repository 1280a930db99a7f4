"""Reading what kie.ai answers: envelopes and records, whatever may stand in them."""

import re
from http import HTTPStatus
from typing import Any, Final, NamedTuple

import msgspec

from calotype.net.client import Answer
from calotype.providers.reading import counted, decoded, fields, items, job_id, text

OK: Final = "200"
LONGEST_TEXT: Final = 1000
_CODE: Final = re.compile(r"[0-9]{3}")


class Envelope(NamedTuple):
    """What every answer is wrapped in."""

    code: str
    """Empty where there is none."""
    said: str
    data: dict[str, Any]


def opened(answer: Answer) -> tuple[Answer, Envelope]:
    """An answer, and its envelope; some calls write its message in another way.

    Where there is a code, HTTP's 4xx counts for no more than its 200.
    """
    document = fields(answer.document)
    said = text(document, "msg") or text(document, "message")
    code = code_of(document.get("code"))
    if (
        _CODE.fullmatch(code)
        and HTTPStatus.BAD_REQUEST <= answer.status < HTTPStatus.INTERNAL_SERVER_ERROR
    ):
        answer = msgspec.structs.replace(answer, status=HTTPStatus.OK.value)
    return answer, Envelope(code, said[:LONGEST_TEXT], fields(document.get("data")))


def code_of(value: object) -> str:
    """A code, which may come as a number or as text."""
    if isinstance(value, str):
        return value[:16]
    number = counted(value, most=999)
    return "" if number is None else str(number)


def is_url(value: object) -> bool:
    """Whether this looks like the URL of an image."""
    return isinstance(value, str) and value.startswith(("https://", "http://"))


def result_urls(value: object) -> list[str]:
    """The URLs in ``resultJson``, a document written as a string."""
    document = decoded(value) if isinstance(value, str) else value
    return [url for url in items(fields(document).get("resultUrls")) if is_url(url)]


def told_id(body: bytes) -> str | None:
    """The task that a callback tells of; some families of models write it in another way."""
    data = fields(decoded(body)).get("data")
    return job_id(data, "taskId") or job_id(data, "task_id") or None
