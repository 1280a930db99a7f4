"""Images under any interleaving: what is expired goes, and nothing that a live task names."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from calotype.domain.limits import DAY_MS
from calotype.domain.money import EntryKind
from calotype.domain.task import Asset, Event, Reference
from calotype.store.lifetimes import FIRST
from calotype.store.port import Store
from calotype.store.postgres import PostgresStore
from calotype.store.sqlite import SqliteStore
from conformance.tasks import NOW, PRICE, image, new_task
from postgres import fresh_database

T = TypeVar("T")

pytestmark = pytest.mark.timeout(400)  # a history that fails takes minutes to be made short

ACCOUNTS = 2
GRACE_MS = 2000
_worlds = count()

whose = st.integers(0, ACCOUNTS - 1)
days = st.sampled_from([0, 1, 2])
picks = st.lists(st.integers(0, 99), max_size=3)
leaps = st.sampled_from([1, GRACE_MS, DAY_MS - 1, DAY_MS, 2 * DAY_MS, -DAY_MS, -3 * DAY_MS])


@dataclass(frozen=True)
class Opener:
    """Opens the store of a fresh history: a new file, or new accounts in one shared database."""

    open: Callable[[], Store]
    histories: int


@pytest.fixture(params=["sqlite", "postgres"])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    if request.param == "sqlite":
        files = count()
        yield Opener(lambda: SqliteStore(tmp_path / f"{next(files)}.db"), histories=30)
        return
    with asyncio.Runner() as loop:
        database = fresh_database(request.getfixturevalue("postgres"))
        url = loop.run(database.__aenter__())
        yield Opener(lambda: PostgresStore(url), histories=12)
        loop.run(database.__aexit__(None, None, None))


@dataclass
class Life:
    """An unfinished task: when it was created, and which images it names or has."""

    account_id: int
    created_at: int
    images: set[int]


class Lifetimes(RuleBasedStateMachine):
    """The model: which images there are and until when, and which tasks live."""

    opener: Opener

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.Runner()
        self.now = NOW
        self.assets: dict[int, Asset] = {}
        self.live: dict[int, Life] = {}

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.loop.run(coroutine)

    def teardown(self) -> None:
        self.wait(self.store.close())
        self.loop.close()

    @initialize()
    def open(self) -> None:
        self.store = self.opener.open()
        self.wait(self.store.prepare())
        world, self.accounts = next(_worlds), list[int]()
        for place in range(ACCOUNTS):
            name = f"{world} {place}"
            account = self.wait(self.store.open_account(name, now=NOW))
            credit = self.store.book(account.id, EntryKind.CREDIT, 10_000 * PRICE, note="", now=NOW)
            self.wait(credit)
            self.accounts.append(account.id)

    @rule(who=whose, results=st.none() | days, references=st.none() | days)
    def say(self, who: int, results: int | None, references: int | None) -> None:
        """An account's own days hold from then on."""
        set_days = self.store.lifetimes.set_days
        assert self.wait(set_days(self.accounts[who], results=results, references=references))

    @rule(by=leaps)
    def leap(self, by: int) -> None:
        """The clock goes on, or is set right."""
        self.now += by

    @rule(who=whose, uploads=st.integers(0, 2), named=picks, kept=days)
    def submit(self, who: int, uploads: int, named: list[int], kept: int) -> None:
        """A task names images of its account that are still shown, and brings others."""
        account_id = self.accounts[who]
        shown = [
            each.id
            for each in self.assets.values()
            if each.account_id == account_id and each.is_shown(now=self.now)
        ]
        old = {shown[pick % len(shown)] for pick in named} if shown else set[int]()
        fresh = [image(account_id) for _ in range(uploads)]
        ids = [*old, *(each.id for each in fresh)]
        new = new_task(
            account_id,
            references=[Reference(asset_id=each) for each in ids],
            uploads=fresh,
            created_at=self.now,
        )
        new = msgspec.structs.replace(new, abandon_at=self.now + GRACE_MS, reference_days=kept)
        self.wait(self.store.submit(new))
        self.live[new.id] = Life(account_id, self.now, set(ids))
        self.learn(each.id for each in fresh)

    @rule(which=st.integers(0, 99), kept=days)
    def succeed(self, which: int, kept: int) -> None:
        """A task ends with an image."""
        if not self.live:
            return
        task_id = sorted(self.live)[which % len(self.live)]
        taken = self.wait(self.store.take(task_id, now=self.now))
        assert taken is not None
        begin = self.store.begin_attempt
        number = self.wait(begin(taken.task, channel_id=7, event=Event.RUN, now=self.now))
        picture = image(taken.task.account_id)
        complete = self.store.complete(
            taken.task,
            number,
            images=[picture],
            actual=0,
            cost=None,
            now=self.now,
            days=kept,
        )
        self.wait(complete)
        del self.live[task_id]
        self.learn([picture.id])
        task = self.wait(self.store.task(task_id))
        assert task is not None
        assert task.expires_at == self.assets[picture.id].expires_at

    @rule(which=st.integers(0, 99))
    def cancel(self, which: int) -> None:
        """A task ends without one."""
        if self.live:
            task_id = sorted(self.live)[which % len(self.live)]
            account_id = self.live.pop(task_id).account_id
            self.wait(self.store.cancel(task_id, account_id=account_id, now=self.now))

    @rule(limit=st.integers(1, 4))
    def collect(self, limit: int) -> None:
        """A round takes all that is due and free, and nothing else."""
        gone, after = set[int](), FIRST
        while True:
            expire = self.store.lifetimes.expire(now=self.now, after=after, limit=limit)
            batch = self.wait(expire)
            gone |= {each.id for each in batch.images if each.account_id in self.accounts}
            if batch.last is None:
                break
            after = batch.last
        assert gone == {each.id for each in self.assets.values() if self.may_go(each)}
        for id_ in gone:
            del self.assets[id_]
        assert not any(gone & life.images for life in self.live.values())
        found = self.wait(self.store.assets(list(self.assets)))
        assert {each.id: each for each in found} == self.assets

    def may_go(self, asset: Asset) -> bool:
        until = asset.expires_at
        return (
            until is not None
            and until <= self.now
            and all(
                life.created_at >= until
                for life in self.live.values()
                if life.account_id == asset.account_id
            )
        )

    def learn(self, ids: Any) -> None:
        for each in self.wait(self.store.assets(list(ids))):
            self.assets[each.id] = each


def test_a_round_takes_all_that_is_due_and_nothing_that_a_live_task_names(opener: Opener) -> None:
    run_state_machine_as_test(
        type("Machine", (Lifetimes,), {"opener": opener}),
        settings=settings(max_examples=opener.histories, stateful_step_count=40, deadline=None),
    )
