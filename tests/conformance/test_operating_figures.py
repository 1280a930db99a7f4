"""What the operator sees of channels, queues, tasks and accounts, and settles of attempts."""

from collections.abc import Sequence

import pytest

from calotype.domain.errors import failure
from calotype.domain.money import Balance
from calotype.domain.task import AttemptState, Event, State, Task
from calotype.store import operating_sql
from calotype.store.operating import QueueDepth, RetriedWebhooks, Totals
from calotype.store.port import Store
from calotype.store.postgres import PostgresStore
from calotype.store.sqlite import SqliteStore
from conformance.tasks import NOW, PRICE, funded, image, new_task, submitted, taken

DAY = 86_400_000
UNKNOWN = failure("upstream_outcome_unknown", "Nobody can say.")


async def open_attempt(store: Store, account: int, *, at: int, channel_id: int = 7) -> Task:
    """A task with its first attempt open."""
    task = await taken(store, await submitted(store, account))
    await store.begin_attempt(task, channel_id=channel_id, event=Event.RUN, now=at)
    return task


async def done(
    store: Store, account: int, *, at: int, took: int, cost: int | None, channel_id: int = 7
) -> None:
    task = await open_attempt(store, account, at=at, channel_id=channel_id)
    pictures = [image(account)]
    await store.complete(task, 1, images=pictures, actual=PRICE, cost=cost, now=at + took)


async def unknown(store: Store, account: int, *, ended: int, cost: int | None = None) -> int:
    task = await open_attempt(store, account, at=NOW)
    await store.fail(task, UNKNOWN, attempt=(1, AttemptState.UNKNOWN), now=ended, cost=cost)
    return task.id


async def webhook(store: Store, task_id: int, *, receiver: str, tries: int) -> None:
    statement = (
        "INSERT INTO webhooks (task_id, account_id, url, receiver, event, state, attempts, "
        "next_at, round_at, created_at) "
        "VALUES (?1, 1, 'https://a.example', ?2, 'task.fail', 'pending', ?3, ?4, ?4, ?4)"
    )
    values = (task_id, receiver, tries, NOW)
    if isinstance(store, PostgresStore):
        await store._db.execute(statement.replace("?", "$"), *values)
    else:
        assert isinstance(store, SqliteStore)
        await store._write(lambda db: db.execute(statement, values).rowcount)


async def cost_of_days(store: Store) -> Sequence[Sequence[int]]:
    statement = "SELECT day, SUM(cost) FROM usage_days GROUP BY day ORDER BY day"
    if isinstance(store, PostgresStore):
        found = await store._db.fetch(statement)
        return [(row[0], int(row[1])) for row in found]
    assert isinstance(store, SqliteStore)
    return store._read(statement)


# Channels


async def test_figures_tell_how_each_channel_has_done(store: Store) -> None:
    account = await funded(store)
    for number, took in enumerate((400, 100, 300, 200)):
        await done(store, account, at=NOW + number, took=took, cost=None if number else 20_000)
    await done(store, account, at=NOW, took=50, cost=1, channel_id=9)
    await unknown(store, account, ended=NOW + 9)
    task = await open_attempt(store, account, at=NOW)
    await store.close_attempt(task, 1, state=AttemptState.REFUSED, detail="", now=NOW + 1)
    await store.begin_attempt(task, channel_id=9, event=Event.RUN, now=NOW + 2)

    seventh, ninth = await store.operating.figures(since=NOW)

    assert (seventh.channel_id, seventh.attempts, seventh.done) == (7, 6, 4)
    assert (seventh.refused, seventh.failed, seventh.unknown) == (1, 0, 1)
    assert seventh.success_rate == 4 / 6
    assert (seventh.percentile(0.5), seventh.percentile(0.95)) == (200, 400)
    assert (seventh.costed, seventh.cost, seventh.paid) == (1, 20_000, PRICE)
    assert (seventh.uncosted, ninth.uncosted) == (4, 0)
    assert (ninth.channel_id, ninth.attempts, ninth.success_rate) == (9, 2, 1.0)
    assert (ninth.costed, ninth.cost, ninth.paid) == (1, 1, PRICE)


async def test_what_a_client_paid_counts_for_the_last_attempt_of_its_task_alone(
    store: Store,
) -> None:
    account = await funded(store)
    task = await open_attempt(store, account, at=NOW)
    await store.close_attempt(task, 1, state=AttemptState.FAILED, detail="", now=NOW)
    number = await store.begin_attempt(task, channel_id=7, event=Event.RUN, now=NOW)
    await store.complete(task, number, images=[image(account)], actual=PRICE, cost=5, now=NOW + 1)

    (figures,) = await store.operating.figures(since=0)

    assert (figures.attempts, figures.costed, figures.cost, figures.paid) == (2, 1, 5, PRICE)


async def test_figures_leave_out_what_was_before(store: Store) -> None:
    account = await funded(store)
    await done(store, account, at=NOW, took=1, cost=None)
    await done(store, account, at=NOW, took=1, cost=None, channel_id=8)
    await done(store, account, at=NOW + 5, took=1, cost=None, channel_id=8)

    (eighth,) = await store.operating.figures(since=NOW + 1)
    counts = await store.operating.counts(since=NOW)

    assert (eighth.channel_id, eighth.attempts) == (8, 1)
    assert await store.operating.figures(since=NOW + 6) == []
    assert counts == {7: 1, 8: 2}


async def test_a_channel_that_has_ended_nothing_has_no_rate_and_no_latency(store: Store) -> None:
    await open_attempt(store, await funded(store), at=NOW)

    (figures,) = await store.operating.figures(since=0)

    assert (figures.attempts, figures.success_rate, figures.percentile(0.5)) == (1, None, None)


async def test_what_was_sent_to_a_channel_is_told_newest_first(store: Store) -> None:
    account = await funded(store)
    await done(store, account, at=NOW - 1, took=1, cost=None)
    await done(store, account, at=NOW, took=1, cost=None, channel_id=9)
    await done(store, account, at=NOW + 1, took=30, cost=5)
    task = await open_attempt(store, account, at=NOW + 2)
    await store.close_attempt(task, 1, state=AttemptState.FAILED, detail="Nothing.", now=NOW + 3)
    number = await store.begin_attempt(task, channel_id=9, event=Event.RUN, now=NOW + 4)
    await store.complete(task, number, images=[image(account)], actual=PRICE, cost=5, now=NOW + 5)

    failed, made = await store.operating.sent(7, since=NOW)

    assert (failed.task_id, failed.account_id, failed.model) == (task.id, account, "gpt-image-2")
    assert (failed.attempt, failed.paid) == ((await store.attempts(task.id))[0], 0)
    assert (made.attempt.started_at, made.attempt.cost_micro_usdc, made.paid) == (NOW + 1, 5, PRICE)


async def test_webhooks_that_nobody_has_taken_yet_are_counted(store: Store) -> None:
    account = await funded(store)
    for receiver, tries in (("a", 1), ("a", 2), ("b", 1), ("c", 0)):
        task = await taken(store, await submitted(store, account))
        await store.fail(task, UNKNOWN, now=NOW)
        await webhook(store, task.id, receiver=receiver, tries=tries)

    assert await store.operating.retried_webhooks() == RetriedWebhooks(deliveries=3, receivers=2)


async def test_the_totals_are_of_all_accounts(store: Store) -> None:
    nothing = await store.operating.totals()
    accounts = [await funded(store), await funded(store, name="bob")]
    for account in accounts:
        await submitted(store, account)
    settled = await unknown(store, accounts[0], ended=NOW)
    task_id = await unknown(store, accounts[0], ended=NOW)
    await store.operating.resolve(settled, 1, resolution="free", cost=None, now=NOW)
    await webhook(store, task_id, receiver="a", tries=0)

    balances = [await store.balance(account) for account in accounts]
    assert nothing == Totals(balance=0, reserved=0, unknown=0, webhooks=0)
    assert await store.operating.totals() == Totals(
        balance=sum(each.balance for each in balances), reserved=2 * PRICE, unknown=1, webhooks=1
    )


async def test_the_depth_of_a_queue_counts_what_is_not_final(store: Store) -> None:
    account = await funded(store)
    for late in (5, 3):
        await store.submit(new_task(account, created_at=NOW + late))
    await open_attempt(store, account, at=NOW)
    moved = await taken(store, await submitted(store, account))
    await store.reroute(moved, 9, now=NOW + 9)
    await done(store, account, at=NOW, took=1, cost=None)

    assert await store.operating.depth() == [
        QueueDepth(7, waiting=2, queuing=0, generating=1, oldest_at=NOW),
        QueueDepth(9, waiting=0, queuing=1, generating=0, oldest_at=NOW),
    ]


async def test_channels_are_switched_and_left_to_the_configuration_again(store: Store) -> None:
    operating = store.operating
    await operating.switch(7, enabled=False, by="cli", now=NOW)
    await operating.switch(3, enabled=True, by="cli", now=NOW)
    await operating.switch(7, enabled=True, by="console", now=NOW + 1)

    assert [
        (one.channel_id, one.enabled, one.at, one.by) for one in await operating.switches()
    ] == [(3, True, NOW, "cli"), (7, True, NOW + 1, "console")]

    await operating.switch(3, enabled=None, by="cli", now=NOW)
    await operating.switch(4, enabled=None, by="cli", now=NOW)
    assert [one.channel_id for one in await operating.switches()] == [7]


# Attempts that may have been billed


async def test_attempts_of_unknown_outcome_are_listed_a_page_at_a_time(store: Store) -> None:
    account = await funded(store)
    ids = [await unknown(store, account, ended=NOW + ended) for ended in (5, 9, 5, 7)]

    first = await store.operating.unknown(limit=2)
    second = await store.operating.unknown(limit=2, before=first[-1].cursor)
    last = await store.operating.unknown(limit=2, before=second[-1].cursor)

    found = [one.task_id for one in (*first, *second)]
    assert found == [ids[1], ids[3], ids[2], ids[0]]
    assert not last
    assert (first[0].account_id, first[0].account) == (account, "ada")
    assert (first[0].model, first[0].paid, first[0].released) == ("gpt-image-2", 0, PRICE)


async def test_an_attempt_is_resolved_once_and_listed_elsewhere_from_then_on(
    store: Store,
) -> None:
    operating = store.operating
    task = await unknown(store, await funded(store), ended=NOW + 5)

    assert await operating.resolve(task, 1, resolution="billed", cost=700, now=NOW + 9)
    assert not await operating.resolve(task, 1, resolution="free", cost=0, now=NOW + 10)

    assert not await operating.unknown(limit=9)
    (resolved,) = await operating.unknown(resolved=True, limit=9)
    (attempt,) = await store.attempts(task)
    assert resolved.attempt == attempt
    assert (attempt.resolution, attempt.resolved_at) == ("billed", NOW + 9)
    assert attempt.cost_micro_usdc == 700


async def test_only_an_attempt_of_unknown_outcome_can_be_resolved(store: Store) -> None:
    account = await funded(store)
    task = await open_attempt(store, account, at=NOW)
    resolve = store.operating.resolve

    assert not await resolve(task.id, 1, resolution="free", cost=0, now=NOW)
    assert not await resolve(task.id, 2, resolution="free", cost=0, now=NOW)
    assert not await resolve(12345, 1, resolution="free", cost=0, now=NOW)


async def test_what_a_resolved_attempt_cost_counts_on_the_day_of_its_task(store: Store) -> None:
    account = await funded(store)
    today, tomorrow = NOW // DAY, NOW // DAY + 1
    first = await unknown(store, account, ended=NOW, cost=40)
    second = await unknown(store, account, ended=NOW + DAY, cost=2)
    third = await unknown(store, account, ended=NOW + DAY)
    resolve = store.operating.resolve

    await resolve(first, 1, resolution="billed", cost=100, now=NOW + 2 * DAY)
    await resolve(second, 1, resolution="free", cost=0, now=NOW + 2 * DAY)
    await resolve(third, 1, resolution="billed", cost=None, now=NOW + 2 * DAY)

    assert [tuple(row) for row in await cost_of_days(store)] == [(today, 100), (tomorrow, 0)]
    assert (await store.attempts(third))[0].cost_micro_usdc is None


async def test_what_is_resolved_before_the_task_ends_counts_once(store: Store) -> None:
    account = await funded(store)
    task = await open_attempt(store, account, at=NOW)
    await store.close_attempt(task, 1, state=AttemptState.UNKNOWN, detail="", now=NOW)
    await store.operating.resolve(task.id, 1, resolution="billed", cost=100, now=NOW)
    number = await store.begin_attempt(task, channel_id=7, event=Event.RUN, now=NOW)
    await store.complete(task, number, images=[image(account)], actual=PRICE, cost=5, now=NOW)

    assert [tuple(row) for row in await cost_of_days(store)] == [(NOW // DAY, 105)]


# Everyone's tasks


async def many(store: Store) -> dict[str, list[int]]:
    """Tasks of two accounts in several states, by what they are."""
    ada, bob = await funded(store), await funded(store, name="bob")
    made: dict[str, list[int]] = {"waiting": [], "failed": [], "flux": [], "bob": []}
    for _ in range(2):
        made["waiting"].append(await submitted(store, ada))
        made["flux"].append((await store.submit(new_task(ada, model="flux-2-pro"))).task_id)
        failing = await taken(store, await submitted(store, ada))
        await store.fail(failing, UNKNOWN, now=NOW + 5)
        made["failed"].append(failing.id)
        made["bob"].append(await submitted(store, bob))
    return {name: sorted(ids, reverse=True) for name, ids in made.items()}


async def test_everyones_tasks_are_found_by_what_they_are(store: Store) -> None:
    made = await many(store)
    tasks = store.operating.tasks
    everything = sorted((each for ids in made.values() for each in ids), reverse=True)
    ada, bob = sorted(account.id for account in await store.accounts())

    async def found(**wanted: object) -> list[int]:
        page = await tasks(limit=99, **wanted)  # type: ignore[arg-type]  # as the cases have them
        assert page.go_on is None
        return [task.id for task in page.tasks]

    assert await found() == everything
    assert await found(account_id=bob) == made["bob"]
    assert await found(state=State.FAIL) == made["failed"]
    assert await found(state=State.FAIL, account_id=ada) == made["failed"]
    assert await found(state=State.FAIL, account_id=bob) == []
    assert await found(state=State.WAITING, model="flux-2-pro") == made["flux"]
    assert await found(model="flux-2-pro") == made["flux"]
    assert await found(model="flux-2-pro", account_id=ada) == made["flux"]
    assert await found(channel_id=7, account_id=bob) == made["bob"]
    assert await found(channel_id=8) == []


async def test_everyones_tasks_are_read_a_page_at_a_time(store: Store) -> None:
    made = await many(store)
    everything = sorted((each for ids in made.values() for each in ids), reverse=True)
    read: list[int] = []
    before = None
    while True:
        page = await store.operating.tasks(limit=3, before=before)
        read += [task.id for task in page.tasks]
        if (before := page.go_on) is None:
            break
        assert len(page.tasks) == 3

    assert read == everything


async def test_a_page_looks_at_so_many_tasks_and_says_where_to_go_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operating_sql, "WALKED", 8)
    account = await funded(store, credit=20 * PRICE)
    first = (await store.submit(new_task(account, model="flux-2-pro"))).task_id
    ids = [await submitted(store, account) for _ in range(9)]

    page = await store.operating.tasks(model="flux-2-pro", limit=5)
    rest = await store.operating.tasks(model="flux-2-pro", limit=5, before=page.go_on)

    assert (page.tasks, page.go_on) == ((), ids[1])
    assert ([task.id for task in rest.tasks], rest.go_on) == ([first], None)


# Accounts


async def test_accounts_are_listed_with_what_they_have_by_name(store: Store) -> None:
    ada = await funded(store, credit=10 * PRICE)
    await submitted(store, ada)
    for name in ("Émile", "carl", "Bertha"):
        await store.open_account(name, now=NOW)

    found = await store.operating.accounts(limit=9)
    names = [row.name for row in found]
    first = next(row for row in found if row.id == ada)

    assert sorted(names) == ["Bertha", "ada", "carl", "Émile"]
    assert first.balance == Balance(balance=10 * PRICE, reserved=PRICE)
    assert (first.unfinished, first.keys, first.last_used_at) == (1, 0, None)
    after = await store.operating.accounts(after=names[1], limit=1)
    assert [row.name for row in after] == names[2:3]
    assert [row.name for row in await store.operating.accounts(text="ER", limit=9)] == ["Bertha"]
    assert not await store.operating.accounts(text="%", limit=9)
    assert await store.operating.account(ada) == first
    assert await store.operating.account(10**15) is None
    await store.open_account("Жук Ångström", now=NOW)
    for text in ("жук", "åNGSTRÖM", "K Å"):
        assert len(await store.operating.accounts(text=text, limit=9)) == (text != "K Å")


NEVER_KEPT = pytest.mark.parametrize("word", ["\0", "a\0b", "\ud800"])


@NEVER_KEPT
async def test_a_word_that_no_database_keeps_finds_nothing(store: Store, word: str) -> None:
    ada, operating = await funded(store), store.operating
    await submitted(store, ada)
    await operating.begin_action(actor="cli", action="key.create", subject="", detail="", now=NOW)
    assert await operating.accounts(text=word, limit=9) == []
    assert await operating.accounts(after=word, limit=9) == []
    assert await operating.actions(action=word, limit=9) == []
    for account_id in (None, ada):
        page = await operating.tasks(account_id=account_id, model=word, limit=9)
        assert (page.tasks, page.go_on) == ((), None)
    for metadata in ({word: "a"}, {"a": word}):
        found = await store.gallery.tasks(ada, metadata=metadata, limit=9)
        assert (found.tasks, found.searched_to) == ([], None)
        assert await store.search(ada, metadata=metadata, limit=9) == []
    assert (await store.gallery.pictures(ada, model=word, limit=9)).tasks == []
    assert (await store.gallery.tasks(ada, text=word, limit=9)).tasks == []


@pytest.mark.parametrize("sign", [1, -1])
async def test_a_number_beyond_what_databases_keep_is_taken_for_the_last_of_them(
    store: Store, sign: int
) -> None:
    ada, operating, far = await funded(store), store.operating, sign * 2**70
    task = await submitted(store, ada)
    entry = await operating.begin_action(
        actor="cli", action="key.create", subject="", detail="", now=NOW
    )
    all_of_them, after_all = ([task], []) if sign == 1 else ([], [task])
    actions = await operating.actions(before=far, limit=9)
    assert [each.id for each in actions] == ([entry] if sign == 1 else [])
    for account_id in (None, ada):
        page = await operating.tasks(account_id=account_id, before=far, limit=9)
        assert [each.id for each in page.tasks] == all_of_them
    assert (await operating.tasks(account_id=far, limit=9)).tasks == ()
    assert (await operating.tasks(channel_id=far, limit=9)).tasks == ()
    pages = store.gallery.tasks
    assert [each.id for each in (await pages(ada, before=far, limit=9)).tasks] == all_of_them
    assert [each.id for each in (await pages(ada, until=far, limit=9)).tasks] == all_of_them
    assert [each.id for each in (await pages(ada, since=far, limit=9)).tasks] == after_all
