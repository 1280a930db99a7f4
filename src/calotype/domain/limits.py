"""What keys and accounts may have: spending, submissions a minute, and unfinished tasks.

A key may have limits on what it spends in a UTC day and month, on how often it submits, and on how
many of its tasks are unfinished; an account on the last two, for all its keys together.

Spending counts what is reserved; what a task gives back at its end no longer counts. The rate
``per_minute`` is a bucket (GCRA) that holds so many submissions and refills at so many a minute:
a full one lets all of them through at once, and then one whenever its share of a minute has
passed, so a minute that begins with a full bucket takes up to twice as many less one.
"""

from datetime import UTC, datetime
from typing import Final

import msgspec

from calotype.domain.errors import QueueFull, RateLimitReached, SpendLimitReached
from calotype.domain.money import format_usd

DAY_MS: Final = 86_400_000
MAX_PER_MINUTE: Final = 60_000
"""Beyond this an account of its own, and more servers, are what is needed."""
MAX_TASKS: Final = 10_000_000
"""Unfinished ones of an account."""
MAX_KEY_TASKS: Final = 10_000
"""And of a key, which are counted anew with each submission."""
QUEUE_SECONDS: Final = 5
"""After so long somebody with a full queue may try again: nobody knows when a task ends."""
MINUTE_US: Final = 60_000_000
SKEW_US: Final = 60_000_000
"""By less the clocks of nodes that judge one rate are to differ."""
_MONTHS: Final = 12


def day_of(at: int) -> int:
    """The UTC day of a time in milliseconds, counted since 1970."""
    return at // DAY_MS


def month_of(at: int) -> int:
    """The UTC month of a time in milliseconds: year * 12 + month, January being 0."""
    moment = datetime.fromtimestamp(at // 1000, UTC)
    return moment.year * _MONTHS + moment.month - 1


class Allowance(msgspec.Struct, frozen=True):
    """What is left of a rate."""

    per_minute: int
    """The rate."""
    remaining: int
    """Submissions that the bucket holds: so many are taken at once."""
    seconds: int
    """Until the bucket is full again."""


class Meter(msgspec.Struct, frozen=True):
    """The limits of a key (None: no such limit), and what was used of them."""

    key_id: int
    day_limit: int | None
    month_limit: int | None
    per_minute: int | None
    max_tasks: int | None
    day: int = 0
    """The last one in which it was used, as ``day_of`` counts."""
    day_spent: int = 0
    month: int = 0
    """That day's month, as ``month_of`` counts."""
    month_spent: int = 0
    free_at: int = 0
    """When the bucket of the rate is full again, in microseconds since 1970."""
    unfinished: int = 0
    """Tasks, told only where they are limited."""

    def at(self, now: int) -> "Meter":
        """The same at another time: a new day begins at nothing, an old one never comes back."""
        day = day_of(now)
        if day <= self.day:
            return self
        month = month_of(now)
        return msgspec.structs.replace(
            self,
            day=day,
            day_spent=0,
            month=month,
            month_spent=self.month_spent if month == self.month else 0,
        )

    def charged(self, price: int, *, now: int) -> "Meter":
        """The meter after one more submission.

        Args:
            price: what it reserves, in micro-USDC.
            now: milliseconds since 1970.

        Raises:
            errors.QueueFull: it has as many unfinished tasks as it may.
            errors.RateLimitReached: too soon.
            errors.SpendLimitReached: it would be more than the day or the month has left.

        """
        before = self.at(now)
        _check_room("API key", before.max_tasks, before.unfinished)
        free_at = before.free_at
        if before.per_minute is not None:
            free_at = _after_one("API key", before.free_at, before.per_minute, now * 1000)
        _check_spending(before, price, now)
        return msgspec.structs.replace(
            before,
            day_spent=before.day_spent + price,
            month_spent=before.month_spent + price,
            free_at=free_at,
            unfinished=before.unfinished + 1,
        )

    def allowance(self, *, now: int) -> Allowance:
        """What is left of the rate; only for a key that has one."""
        return allowance(self.free_at, self.per_minute or 1, now=now)


class AccountLimits(msgspec.Struct, frozen=True):
    """What an account may have that has no limits of its own; 0 is no limit."""

    tasks: int = 0
    """Unfinished ones."""
    per_minute: int = 0
    """Tasks that it may submit at once, and that many more with every minute."""


NO_LIMITS: Final = AccountLimits()


class AccountMeter(msgspec.Struct, frozen=True):
    """The limits of an account (0: no such limit), and what was used of them."""

    tasks: int
    per_minute: int
    unfinished: int
    free_at: int
    """When the bucket of the rate is full again, in microseconds since 1970."""

    def charged(self, *, now: int) -> "AccountMeter":
        """The meter after one more submission.

        Raises:
            errors.QueueFull: it has as many unfinished tasks as it may.
            errors.RateLimitReached: too soon.

        """
        _check_room("account", self.tasks or None, self.unfinished)
        free_at = self.free_at
        if self.per_minute:
            try:
                free_at = _after_one("account", free_at, self.per_minute, now * 1000)
            except RateLimitReached as error:
                error.account_left = allowance(free_at, self.per_minute, now=now)
                raise
        return AccountMeter(self.tasks, self.per_minute, self.unfinished + 1, free_at)


def allowance(free_at: int, per_minute: int, *, now: int) -> Allowance:
    """What is left of a rate whose bucket is full again at ``free_at``."""
    debt = _debt(free_at, per_minute, now * 1000)
    used = -(-debt // _share(per_minute))
    return Allowance(per_minute, max(0, per_minute - used), -(-debt // 1_000_000))


def _check_room(who: str, most: int | None, unfinished: int) -> None:
    if most is not None and unfinished >= most:
        raise QueueFull(
            f"This {who} may have {most} unfinished tasks and has {unfinished}; "
            "wait for some to end, or cancel some.",
            retry_after=QUEUE_SECONDS,
        )


def _after_one(who: str, free_at: int, per_minute: int, now_us: int) -> int:
    share, debt = _share(per_minute), _debt(free_at, per_minute, now_us)
    early = debt - (per_minute - 1) * share
    if early > 0:
        seconds = -(-early // 1_000_000)
        raise RateLimitReached(
            f"This {who} may submit {per_minute} tasks at once, and {per_minute} more with every "
            f"minute; none are left now, so try again in {seconds} s.",
            retry_after=seconds,
        )
    return now_us + debt + share


def _debt(free_at: int, per_minute: int, now_us: int) -> int:
    """Microseconds until the bucket is full again.

    More than an empty one needs was written by a clock that is ahead. That is waited for, as nodes
    in turn would let each other's tasks through otherwise; but where it is too much to be right,
    there is room for one more, after which the bucket is empty as it is told by this clock.
    """
    share = _share(per_minute)
    debt = max(0, free_at - now_us)
    return debt if debt <= per_minute * share + SKEW_US else (per_minute - 1) * share


def _check_spending(meter: Meter, price: int, now: int) -> None:
    for limit, spent, window, ends in (
        (meter.month_limit, meter.month_spent, "month", _month_end(meter.month)),
        (meter.day_limit, meter.day_spent, "day", (meter.day + 1) * DAY_MS),
    ):
        if limit is None or spent + price <= limit:
            continue
        may = f"this API key may spend {format_usd(limit)} USDC in a UTC {window}"
        if price > limit:  # waiting does not help
            raise SpendLimitReached(
                f"This request costs {format_usd(price)} USDC and {may}; use another key."
            )
        raise SpendLimitReached(
            f"This request costs {format_usd(price)} USDC, {may}, and "
            f"{format_usd(spent)} USDC are spent or reserved; wait for the {window} to end, "
            "or use another key.",
            retry_after=-(-(ends - now) // 1000),
        )


def _share(per_minute: int) -> int:
    """Microseconds of a minute for each; rounded up, so that none refills more."""
    return -(-MINUTE_US // per_minute)


def _month_end(month: int) -> int:
    year, following = divmod(month + 1, _MONTHS)
    return int(datetime(year, following + 1, 1, tzinfo=UTC).timestamp()) * 1000
