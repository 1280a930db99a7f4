"""What accounts used, for pages and for spreadsheets: by UTC day, by model, by key.

Rows of spreadsheets are lists of text, the first one their heads; texts that a spreadsheet would
take for a formula begin with an apostrophe.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final

import msgspec

from calotype.domain.catalog import quoted
from calotype.domain.clock import Clock
from calotype.domain.errors import InvalidParameter
from calotype.domain.ids import encode
from calotype.domain.limits import DAY_MS
from calotype.domain.money import format_usd
from calotype.services.routing import Router
from calotype.store.port import Store
from calotype.store.usage import EntryCursor, Tally

DEFAULT_DAYS: Final = 30
MAX_DAYS: Final = 731
"""Days of one range: two years."""
_PAGE: Final = 500
"""Ledger entries that are read at a time."""
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
_EPOCH: Final = date(1970, 1, 1)
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_FIGURES: Final = ("succeeded", "failed", "images")


class Days(msgspec.Struct, frozen=True):
    """A range of UTC days since 1970, both ends with it."""

    first: int
    last: int


class Report(msgspec.Struct, frozen=True):
    """What was used in a range of days."""

    days: Days
    total: Tally
    by_day: Sequence[tuple[date, Tally]]
    """Every day of the range, those without a task too."""
    models_by_day: Mapping[tuple[date, str], Tally]
    """What was used of a model on a day; only what there is."""
    by_model: Sequence[tuple[str, Tally]]
    """What most was spent on first."""


def date_of(day: int) -> date:
    """The date of a UTC day since 1970."""
    return _EPOCH + timedelta(days=day)


def day_of(word: str, param: str) -> int:
    """The UTC day since 1970 that a date names; the inverse of ``date_of``.

    Raises:
        errors.InvalidParameter: it names none.

    """
    try:
        day = (date.fromisoformat(word) - _EPOCH).days if _DATE.fullmatch(word) else -1
    except ValueError:
        day = -1
    if day < 0:
        raise InvalidParameter(
            f"{param} must be a date such as 2026-11-23, not {quoted(word)}.", param=param
        )
    return day


def asked_days(since: str, until: str, *, now: int) -> Days:
    """The days from one date to another, as a person asks for them.

    Args:
        since: the first, such as ``2026-11-23``; empty for so many that they are 30.
        until: the last; empty for today.
        now: the time.

    Raises:
        errors.InvalidParameter: one is no date, or the range is none or too long.

    """
    last = day_of(until, "until") if until else now // DAY_MS
    first = day_of(since, "since") if since else max(0, last - DEFAULT_DAYS + 1)
    if first > last:
        raise InvalidParameter("The first day must not be after the last one.", param="since")
    if last - first >= MAX_DAYS:
        raise InvalidParameter(
            f"The days must be {MAX_DAYS} at most; ask for fewer.", param="since"
        )
    return Days(first, last)


class Usage:
    """Tells what was used."""

    def __init__(self, store: Store, router: Router, *, clock: Clock) -> None:
        self._store = store
        self._router = router
        self._clock = clock

    def asked(self, since: str = "", until: str = "") -> Days:
        """The days that a person asks for; see ``asked_days``."""
        return asked_days(since, until, now=self._clock())

    async def report(self, days: Days, *, account_id: int | None) -> Report:
        """What an account used, or all of them."""
        found = await self._store.usage.models_by_day(
            account_id=account_id, first_day=days.first, last_day=days.last
        )
        of_day: dict[int, list[Tally]] = {day: [] for day in range(days.first, days.last + 1)}
        of_model: dict[str, list[Tally]] = {}
        for day, model, tally in found:
            of_day[day].append(tally)
            of_model.setdefault(model, []).append(tally)
        return Report(
            days=days,
            total=sum_of([tally for *_, tally in found]),
            by_day=[(date_of(day), sum_of(tallies)) for day, tallies in of_day.items()],
            models_by_day={(date_of(day), model): tally for day, model, tally in found},
            by_model=_most_first([(model, sum_of(each)) for model, each in of_model.items()]),
        )

    async def by_key(self, days: Days, *, account_id: int) -> Sequence[tuple[str, Tally]]:
        """What each key of an account used, by its name; what most was spent by first.

        Where two keys have the same name it goes with the beginning of the key.
        """
        found = await self._store.usage.totals(
            "key_id", account_id=account_id, first_day=days.first, last_day=days.last
        )
        names = await self._key_names(account_id)
        return _most_first([(names.get(int(key), "?"), tally) for key, tally in found])

    async def rows(self, days: Days, *, account_id: int) -> AsyncIterator[list[str]]:
        """An account's usage, one row for each day, key, model and channel."""
        yield ["day", "key", "model", "channel", *_FIGURES, "spent_usdc"]
        names = await self._key_names(account_id)
        for day in range(days.first, days.last + 1):
            for row in await self._store.usage.days(
                account_id=account_id, first_day=day, last_day=day
            ):
                yield [
                    date_of(day).isoformat(),
                    safe(names.get(row.key_id, "?")),
                    safe(row.model),
                    safe(self._channel(row.channel_id)),
                    *_figures(row),
                    format_usd(row.spent),
                ]

    async def all_rows(self, days: Days) -> AsyncIterator[list[str]]:
        """Everybody's usage, for the operator: with accounts, and with what upstreams charged."""
        head = ["day", "account", "key", "model", "channel", *_FIGURES, "spent_usdc", "cost_usdc"]
        yield head
        names = await self._key_names(None)
        accounts = {each.id: each.name for each in await self._store.accounts()}
        for day in range(days.first, days.last + 1):
            for row in await self._store.usage.days(account_id=None, first_day=day, last_day=day):
                yield [
                    date_of(day).isoformat(),
                    safe(accounts.get(row.account_id, "?")),
                    safe(names.get(row.key_id, "?")),
                    safe(row.model),
                    safe(self._channel(row.channel_id)),
                    *_figures(row),
                    format_usd(row.spent),
                    format_usd(row.cost),
                ]

    async def by_channel(self, days: Days) -> Sequence[tuple[str, Tally]]:
        """What everybody used of each channel, by its short name; the most spent on first."""
        found = await self._store.usage.totals(
            "channel_id", account_id=None, first_day=days.first, last_day=days.last
        )
        return _most_first([(self._channel(int(channel)), tally) for channel, tally in found])

    async def by_account(self, days: Days, names: Mapping[int, str]) -> Sequence[tuple[str, Tally]]:
        """What each account used, by its name among ``names``; who spent most first."""
        found = await self._store.usage.totals(
            "account_id", account_id=None, first_day=days.first, last_day=days.last
        )
        return _most_first([(names.get(int(account), "?"), tally) for account, tally in found])

    async def ledger(self, account_id: int) -> AsyncIterator[list[str]]:
        """An account's ledger, newest first, with what was available after each entry."""
        yield ["at", "kind", "amount_usdc", "available_usdc", "task", "note"]
        before: EntryCursor | None = None
        while True:
            page = await self._store.usage.entries(account_id, before=before, limit=_PAGE)
            for line in page:
                yield [
                    datetime.fromtimestamp(line.created_at / 1000, UTC).isoformat(
                        timespec="milliseconds"
                    ),
                    line.kind,
                    format_usd(line.change),
                    format_usd(line.available),
                    "" if line.task_id is None else encode("task", line.task_id),
                    safe(line.note),
                ]
            if len(page) < _PAGE:
                return
            before = page[-1].cursor

    async def _key_names(self, account_id: int | None) -> Mapping[int, str]:
        keys = await self._store.keys(account_id=account_id)
        names = Counter((key.account_id, key.name) for key in keys)
        return {
            key.id: key.name
            if names[key.account_id, key.name] == 1
            else f"{key.name} ({key.prefix}…)"
            for key in keys
        }

    def _channel(self, channel_id: int) -> str:
        channel = self._router.get(channel_id)
        return f"channel {channel_id}" if channel is None else channel.slug


def _figures(tally: Tally) -> list[str]:
    return [str(tally.succeeded), str(tally.failed), str(tally.images)]


def safe(text: str) -> str:
    """A text as a spreadsheet takes it for one."""
    return f"'{text}" if text.startswith(_FORMULA) else text


async def csv_lines(rows: AsyncIterator[list[str]]) -> AsyncIterator[str]:
    """Rows as CSV (RFC 4180), a line at a time."""
    async for row in rows:
        line = io.StringIO()
        csv.writer(line).writerow(row)
        yield line.getvalue()


def sum_of(tallies: Sequence[Tally]) -> Tally:
    """What tallies come to."""
    return Tally(
        *(
            sum(getattr(tally, name) for tally in tallies)
            for name in ("succeeded", "failed", "images", "spent", "cost")
        )
    )


def _most_first(rows: Sequence[tuple[str, Tally]]) -> list[tuple[str, Tally]]:
    return sorted(rows, key=lambda row: (-row[1].spent, -row[1].images, row[0]))
