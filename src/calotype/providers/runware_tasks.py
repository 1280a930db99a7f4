"""Reading what Runware answers: tasks and errors side by side, whatever may stand in them."""

from collections.abc import Mapping
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Any, Final, NamedTuple

from calotype.domain.money import MICRO
from calotype.providers.images_api import counted, rounded

INFERENCE: Final = "imageInference"
_SERVER_FAULT: Final = 500
_LONGEST_CODE: Final = 64
_LONGEST_TEXT: Final = 1000


class Complaint(NamedTuple):
    """One error: a code, which may be empty, and what was said with it."""

    code: str
    said: str


class Told(NamedTuple):
    """What an answer says of one task.

    Args:
        items: the task's entries in ``data``: one for each image, begun or finished.
        failures: errors of the task itself, which ended it or a part of it.
        complaints: errors of the call that asked.
        cost: micro-USDC, where there is any.

    """

    items: list[dict[str, Any]]
    failures: list[Complaint]
    complaints: list[Complaint]
    cost: int | None


def told_of(document: object, uuid: str, *, states: Mapping[str, str], status: int) -> Told:
    """What an answer says of the task of this UUID; what it says of others does not count.

    Args:
        document: the answer.
        uuid: the task's.
        states: what the upstream's words for a state mean.
        status: of HTTP; one of a fault of the upstream's own says nothing of the task.

    """
    told = Told([], [], [], None)
    if not isinstance(document, dict):
        return told
    data = [entry for entry in _entries(document.get("data")) if _text(entry, "taskUUID") == uuid]
    errors = _entries(document.get("errors")) or _entries(document.get("error"))
    ours = [entry for entry in errors if _text(entry, "taskUUID") in {uuid, ""}]
    for entry in data:
        if states.get(_text(entry, "status")) == "failed":
            told.failures.append(_complaint(entry))
        else:
            told.items.append(entry)
    for entry in ours:
        ended = states.get(_text(entry, "status")) == "failed"
        of_task = ended or _text(entry, "taskType") == INFERENCE
        (told.failures if of_task and status < _SERVER_FAULT else told.complaints).append(
            _complaint(entry)
        )
    return told._replace(cost=_cost([*data, *ours]))


def family_of(code: str, families: Mapping[str, str]) -> str:
    """The family of a code: that of the first pattern which it fits; empty where none does."""
    return next((name for pattern, name in families.items() if fnmatchcase(code, pattern)), "")


def _cost(entries: list[dict[str, Any]]) -> int | None:
    """The costs of all entries, which are in USD, in micro-USDC, rounded half up."""
    told = [cost for entry in entries if (cost := counted(entry.get("cost"))) is not None]
    return rounded(sum(told, Decimal(0)) * MICRO) if told else None


def _complaint(entry: dict[str, Any]) -> Complaint:
    """The error of an entry, which may be within it or be the entry itself."""
    inner = entry.get("error")
    error = inner if isinstance(inner, dict) else entry
    return Complaint(_text(error, "code")[:_LONGEST_CODE], _text(error, "message")[:_LONGEST_TEXT])


def _entries(value: object) -> list[dict[str, Any]]:
    values = value if isinstance(value, list) else [value]
    return [entry for entry in values if isinstance(entry, dict)]


def _text(entry: Mapping[str, Any], name: str) -> str:
    value = entry.get(name)
    return value if isinstance(value, str) else ""
