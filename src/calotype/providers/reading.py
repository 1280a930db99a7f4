"""Reading what an upstream wrote: the kind of value that is wanted, whatever may stand there."""

import json
import re
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final

from calotype.domain.money import MAX_AMOUNT

_JOB_ID: Final = re.compile(r"[!-~]{1,256}")


def decoded(content: str | bytes) -> object:
    """A JSON document; None for what is none."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def fields(value: object) -> dict[str, Any]:
    """A value that is an object; empty where it is none."""
    return value if isinstance(value, dict) else {}


def items(value: object) -> list[Any]:
    """A value that is a list; empty where it is none."""
    return value if isinstance(value, list) else []


def objects(value: object) -> list[dict[str, Any]]:
    """The objects in a value that is a list; what else is in it is passed over."""
    return [each for each in items(value) if isinstance(each, dict)]


def string(value: object) -> str:
    """A value that is text; empty where it is none."""
    # Half a surrogate pair, which JSON can hold, can go into no URL and no database.
    return value.encode(errors="replace").decode() if isinstance(value, str) else ""


def text(document: object, name: str) -> str:
    """A field that holds text; empty where there is none."""
    return string(fields(document).get(name))


def job_id(document: object, name: str) -> str:
    """A field that can be the name of a job, which no space is in; empty where it cannot."""
    value = text(document, name)
    return value if _JOB_ID.fullmatch(value) else ""


def counted(value: object, *, most: int = MAX_AMOUNT) -> Decimal | None:
    """A number from 0 to ``most``; None for anything else that stands there."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return Decimal(str(value)) if 0 <= value <= most else None


def whole(value: object, *, most: int) -> int | None:
    """An integer from 0 to ``most``; None for anything else that stands there."""
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= most else None


def rounded(amount: Decimal) -> int | None:
    """Whole micro-USDC, rounded half up; None for an amount that nobody is charged."""
    if not amount.is_finite() or not 0 <= amount <= MAX_AMOUNT:
        return None
    return int(amount.quantize(Decimal(1), rounding=ROUND_HALF_UP))
