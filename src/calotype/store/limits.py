"""The limits of accounts, kept by the statement that reserves; what the stores share of them.

The arithmetic is that of ``domain/limits.py``, for any number of tasks at once. Parameters are
written by name, ``{now}``, and filled in by each store.
"""

from collections.abc import Sequence
from typing import Any, Final

from calotype.domain.errors import CalotypeError, RateLimitReached
from calotype.domain.limits import MINUTE_US, SKEW_US, AccountMeter, Allowance, allowance
from calotype.domain.task import NewTask
from calotype.store.port import Submitted
from calotype.store.refusals import cannot_pay

Room = tuple[int, Allowance | None]
"""Unfinished tasks of an account before those that are submitted, and what its rate has left."""

_SHARE: Final = f"(({MINUTE_US} - 1) / NULLIF({{rate}}, 0) + 1)"
"""Microseconds of a minute for each task, rounded up."""
_DEBT: Final = (
    "(CASE WHEN rate_free_at <= {now} THEN 0 "
    f"WHEN rate_free_at - {{now}} > {{rate}} * {_SHARE} + {SKEW_US} THEN ({{rate}} - 1) * {_SHARE} "
    "ELSE rate_free_at - {now} END)"
)


class AccountSql:
    """SQL about one row of ``accounts``.

    Args:
        tasks: parameter of the limit on unfinished tasks where the account has none of its own.
        per_minute: the same of its rate.
        now: parameter of the time, in microseconds.
        number: how many tasks are submitted.

    """

    def __init__(self, *, tasks: str, per_minute: str, now: str, number: str) -> None:
        most = f"COALESCE(max_tasks, {tasks})"
        self.rate = rate = f"COALESCE(tasks_per_minute, {per_minute})"
        share, debt = _SHARE.format(rate=rate), _DEBT.format(rate=rate, now=now)
        self.has_room = (
            f"({most} = 0 OR unfinished + {number} <= {most}) "
            f"AND ({rate} = 0 OR {debt} + {number} * {share} <= {rate} * {share})"
        )
        """Whether all may be submitted."""
        self.free_at = (
            f"CASE {rate} WHEN 0 THEN rate_free_at ELSE {now} + {debt} + {number} * {share} END"
        )
        """``rate_free_at`` once they are."""
        self.standing = f"balance - reserved, {most}, {rate}, unfinished, rate_free_at"
        """What is available, and the fields of an ``AccountMeter``."""


SET_LIMITS: Final = (
    "UPDATE accounts SET max_tasks = ?2, tasks_per_minute = ?3 WHERE id = ?1 RETURNING id"
)


def left_of(rate: int, free_at: int, *, now: int) -> Allowance | None:
    """What is left of an account's rate; None where it has none."""
    return allowance(free_at, rate, now=now) if rate else None


def why_refused(new: NewTask, standing: Sequence[Any]) -> CalotypeError:
    """Why an account could not submit one task, from its ``AccountSql.standing``."""
    available, *meter = standing
    try:
        AccountMeter(*meter).charged(now=new.created_at)
    except CalotypeError as error:
        return error
    if new.price > available:
        return cannot_pay(new.price, available)
    return RateLimitReached(  # it has changed since
        "This account was at one of its limits a moment ago; try again.", retry_after=1
    )


def accepted(new: NewTask, room: Room, place: int = 0) -> Submitted:
    """A new task; ``place`` is its own among those that went together."""
    backlog, left = room
    return Submitted(
        new.id,
        new.request_id,
        new.created_at,
        replayed=False,
        backlog=backlog + place,
        allowance=left,
    )
