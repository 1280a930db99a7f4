"""Pages and spreadsheets of what was used: days without a gap, names, and no formulas."""

import csv
import io
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.core import Core, build_core
from calotype.domain.errors import InvalidParameter
from calotype.domain.keys import ApiKey
from calotype.domain.limits import DAY_MS
from calotype.domain.money import EntryKind
from calotype.domain.task import Asset, Event, NewTask, Request
from calotype.services.usage import Days, Usage, asked_days, csv_lines, date_of, safe
from calotype.settings import Settings
from calotype.store.usage import Tally

NOW = 1_760_000_000_000
DAY = NOW // DAY_MS
TODAY = "2025-10-09"
PRICE = 30_000
EVIL = '=HYPERLINK("http://x")'


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    core = build_core(Settings(data_dir=tmp_path))
    await core.store.migrate()
    yield core
    await core.store.close()


@pytest.fixture
def usage(core: Core) -> Usage:
    return Usage(core.store, core.router, clock=lambda: NOW)


async def customer(core: Core, name: str, *keys: str) -> tuple[int, list[int]]:
    """An account with credit, and the ids of its keys."""
    for key in keys:
        await core.accounts.create_key(key, account=name)
    owner = await core.accounts.find(name)
    assert owner is not None
    await core.store.book(owner.id, EntryKind.CREDIT, 10 * PRICE, note="=1+1", now=NOW)
    own = [key.id for key in await core.store.keys() if key.account_id == owner.id]
    return owner.id, own[::-1]


async def ended(core: Core, account_id: int, key_id: int, *, model: str, at: int) -> None:
    new = NewTask(
        id=core.ids.next(),
        account_id=account_id,
        key_id=key_id,
        request_id="req",
        request=Request(model, "a cat", 1, {}),
        references=(),
        uploads=(),
        channel_id=core.router.channels[0].id,
        price=PRICE,
        deadline_at=at,
        abandon_at=at,
        created_at=at,
    )
    await core.store.submit(new)
    taken = await core.store.take(new.id, now=at)
    assert taken is not None
    number = await core.store.begin_attempt(
        taken.task, channel_id=new.channel_id, event=Event.RUN, now=at
    )
    image = Asset(core.ids.next(), account_id, "x", "image/png", 1, 1, 1, at)
    await core.store.complete(taken.task, number, images=[image], actual=PRICE, cost=7000, now=at)


async def table(rows: AsyncIterator[list[str]]) -> list[list[str]]:
    text = "".join([line async for line in csv_lines(rows)])
    assert text.count("\r\n") == text.count("\n")
    return list(csv.reader(io.StringIO(text, newline="")))


async def test_a_report_has_every_day_and_the_names_of_models_and_keys(
    core: Core, usage: Usage
) -> None:
    ada, (site, first, second) = await customer(core, "ada", "site", "shop", "shop")
    bob, (only,) = await customer(core, "bob", "site")
    await ended(core, ada, site, model="flux-2", at=NOW - 2 * DAY_MS)
    await ended(core, ada, first, model="gpt-image-2", at=NOW)
    await ended(core, ada, second, model="gpt-image-2", at=NOW)
    await ended(core, bob, only, model="flux-2", at=NOW)
    one, two = Tally(1, 0, 1, PRICE, 7000), Tally(2, 0, 2, 2 * PRICE, 14_000)
    report = await usage.report(usage.asked(until=TODAY), account_id=ada)
    assert len(report.by_day) == 30
    assert [(day.isoformat(), tally) for day, tally in report.by_day[-3:]] == [
        ("2025-10-07", one),
        ("2025-10-08", Tally()),
        (TODAY, two),
    ]
    assert report.total == Tally(3, 0, 3, 3 * PRICE, 21_000)
    assert report.by_model == [("gpt-image-2", two), ("flux-2", one)]
    by_day = {
        (day.isoformat(), model): tally for (day, model), tally in report.models_by_day.items()
    }
    assert by_day == {("2025-10-07", "flux-2"): one, (TODAY, "gpt-image-2"): two}
    names = {key.id: key.prefix for key in await core.store.keys()}
    assert sorted(await usage.by_key(report.days, account_id=ada)) == sorted(
        [("site", one), (f"shop ({names[first]}…)", one), (f"shop ({names[second]}…)", one)]
    )
    everyone = await usage.report(Days(DAY, DAY), account_id=None)
    assert everyone.total.succeeded == 3
    assert len(everyone.by_day) == 1


async def test_an_accounts_usage_reads_no_other_accounts_keys(
    core: Core, usage: Usage, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, _ = await customer(core, "ada", "site")
    read, asked = core.store.keys, list[int | None]()

    async def reading(*, account_id: int | None = None) -> Sequence[ApiKey]:
        asked.append(account_id)
        return await read(account_id=account_id)

    monkeypatch.setattr(core.store, "keys", reading)
    await usage.by_key(Days(DAY, DAY), account_id=ada)
    await table(usage.rows(Days(DAY, DAY), account_id=ada))
    assert asked == [ada, ada]


async def test_usage_as_csv_tells_a_client_nothing_of_the_upstreams_prices(
    core: Core, usage: Usage
) -> None:
    ada, (key,) = await customer(core, "ada", EVIL)
    bob, (other,) = await customer(core, "bob", "site")
    await ended(core, ada, key, model="flux-2", at=NOW - DAY_MS)
    await ended(core, ada, key, model="flux-2", at=NOW)
    await ended(core, bob, other, model="flux-2", at=NOW)
    channel = core.router.channels[0].slug
    own = await table(usage.rows(usage.asked(), account_id=ada))
    assert own == [
        ["day", "key", "model", "channel", "succeeded", "failed", "images", "spent_usdc"],
        ["2025-10-08", f"'{EVIL}", "flux-2", channel, "1", "0", "1", "0.03"],
        [TODAY, f"'{EVIL}", "flux-2", channel, "1", "0", "1", "0.03"],
    ]
    everyone = await table(usage.all_rows(Days(DAY, DAY)))
    assert [(row[1], row[-1]) for row in everyone] == [
        ("account", "cost_usdc"),
        ("ada", "0.007"),
        ("bob", "0.007"),
    ]


async def test_the_ledger_as_csv_runs_over_pages_with_its_balance(core: Core, usage: Usage) -> None:
    ada, (key,) = await customer(core, "ada", "site")
    for _ in range(600):
        await core.store.book(ada, EntryKind.CREDIT, 10_000, note="", now=NOW)
    await core.store.book(ada, EntryKind.ADJUST, -5000, note="back", now=NOW)
    await ended(core, ada, key, model="flux-2", at=NOW)
    rows = await table(usage.ledger(ada))
    assert len(rows) == 1 + 1 + 600 + 1 + 2
    assert rows[1][1:4] == ["commit", "0.00", "6.265"]
    assert rows[2][1:4] == ["reserve", "-0.03", "6.265"]
    assert rows[3] == ["2025-10-09T08:53:20.000+00:00", "adjust", "-0.005", "6.295", "", "back"]
    assert rows[-1][1:] == ["credit", "0.30", "0.30", "", "'=1+1"]
    assert rows[1][4].startswith("task_")


@pytest.mark.parametrize(
    ("since", "until", "param"),
    [
        ("yesterday", "", "since"),
        ("", "2025-13-01", "until"),
        ("2025-10-02", "2025-10-01", "since"),
        ("2020-01-01", "2025-10-01", "since"),
        ("1969-12-31", "", "since"),
        ("", "0001-01-02", "until"),
    ],
)
def test_a_range_that_is_none_is_refused(since: str, until: str, param: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        asked_days(since, until, now=NOW)
    assert refused.value.param == param


def test_a_range_is_the_last_thirty_days_unless_asked_for() -> None:
    assert asked_days("", "", now=NOW) == Days(DAY - 29, DAY)
    assert date_of(DAY).isoformat() == TODAY
    assert asked_days("2025-01-01", "2025-01-01", now=NOW).first == DAY - 281
    assert asked_days("", "1970-01-05", now=NOW) == Days(0, 4)


@given(st.text())
def test_no_text_of_a_spreadsheet_is_a_formula(text: str) -> None:
    cell = safe(text)
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert cell in {text, f"'{text}"}
