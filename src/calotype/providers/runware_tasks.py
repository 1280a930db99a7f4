"""Reading what Runware answers: tasks and errors side by side, whatever may stand in them."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Any, Final, NamedTuple

from calotype.domain.money import MICRO
from calotype.providers.reading import counted, fields, rounded, text

INFERENCE: Final = "imageInference"
_OF_THE_CALL: Final = frozenset({401, 402, 403, 429})
_SERVER_FAULT: Final = 500
_LONGEST_CODE: Final = 64
_LONGEST_TEXT: Final = 1000


class Complaint(NamedTuple):
    """One error.

    Args:
        code: may be empty.
        said: what was said with it.
        family: that of its code; empty for none.
        named: it was told under the task's own UUID.

    """

    code: str = ""
    said: str = ""
    family: str = ""
    named: bool = False


class Codes(NamedTuple):
    """How the codes of errors are told apart.

    Args:
        families: pattern → family; the first one that a code fits counts.
        endless: families of errors that never end a task.

    """

    families: Mapping[str, str]
    endless: Sequence[str]


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


def told_of(
    document: object, uuid: str, *, states: Mapping[str, str], codes: Codes, status: int
) -> Told:
    """What an answer says of the task of this UUID; what it says of others does not count.

    Args:
        document: the answer.
        uuid: the task's.
        states: what the upstream's words for a state mean.
        codes: of errors.
        status: of HTTP; one that is about the call, or a fault of the upstream's own, says nothing
            of the task.

    """
    told = Told([], [], [], None)
    said = fields(document)
    data = [entry for entry in _entries(said.get("data")) if text(entry, "taskUUID") == uuid]
    errors = _entries(said.get("errors")) or _entries(said.get("error"))
    ours = [entry for entry in errors if text(entry, "taskUUID") in {uuid, ""}]
    of_the_call = status in _OF_THE_CALL or status >= _SERVER_FAULT
    bad = list(ours)
    for entry in data:
        (bad if _has_failed(entry, states) else told.items).append(entry)
    for entry in bad:
        complaint = _complaint(entry, uuid, codes.families)
        of_task = _has_failed(entry, states) or text(entry, "taskType") == INFERENCE
        ends = of_task and complaint.named and complaint.family not in codes.endless
        (told.failures if ends and not of_the_call else told.complaints).append(complaint)
    return told._replace(cost=_cost([*data, *ours]))


def _has_failed(entry: Mapping[str, Any], states: Mapping[str, str]) -> bool:
    return states.get(text(entry, "status")) == "failed"


def _cost(entries: list[dict[str, Any]]) -> int | None:
    """The costs of all entries, which are in USD, in micro-USDC, rounded half up."""
    told = [cost for entry in entries if (cost := counted(entry.get("cost"))) is not None]
    return rounded(sum(told, Decimal(0)) * MICRO) if told else None


def _complaint(entry: dict[str, Any], uuid: str, families: Mapping[str, str]) -> Complaint:
    """The error of an entry, which may be within it or be the entry itself."""
    inner = entry.get("error")
    error = inner if isinstance(inner, dict) else entry
    code = text(error, "code")[:_LONGEST_CODE]
    family = next((name for pattern, name in families.items() if fnmatchcase(code, pattern)), "")
    said = text(error, "message")[:_LONGEST_TEXT] or code
    return Complaint(code, said, family, text(entry, "taskUUID") == uuid)


def _entries(value: object) -> list[dict[str, Any]]:
    values = value if isinstance(value, list) else [value]
    return [entry for entry in values if isinstance(entry, dict)]
