"""Money under any interleaving: random histories of every store against a small model.

Two views of the same promise. Step by step, the model foretells the outcome of every verb, stale
claims included. All at once, several workers write together and the store decides the order; the
model then believes what each was told and must come to the same books.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from calotype.domain.errors import CANCELLED, IdempotencyConflict, InsufficientBalance, failure
from calotype.domain.ids import IdSource
from calotype.domain.keys import ApiKey
from calotype.domain.money import Balance, EntryKind
from calotype.domain.task import (
    FINAL,
    OPEN_ATTEMPT,
    TRANSITIONS,
    ArrivedImage,
    Asset,
    AttemptState,
    BillingStatus,
    Event,
    NewTask,
    Request,
    State,
    Task,
    result_image,
)
from calotype.store.port import Fenced, IdTaken, Store
from calotype.store.postgres import PostgresStore
from calotype.store.sqlite import SqliteStore
from conformance.tasks import limited
from postgres import fresh_database

T = TypeVar("T")

pytestmark = pytest.mark.timeout(400)  # a history that fails takes minutes to be made short

NOW = 1_760_000_000_000
WHY = failure("upstream_failed", "It broke.")
ACCOUNTS = ("ada", "bob")
MOST = {"ada": None, "bob": 10**9}
"""What the key of each may spend in a day: bob's is counted."""
CLOSED = [state for state in AttemptState if state not in OPEN_ATTEMPT]

_ids = IdSource(lambda: NOW)
_worlds = count()
_moments = count(NOW + 1)


@dataclass(frozen=True)
class Opener:
    """Opens the store of a fresh history: a new file, or new accounts in one shared database."""

    open: Callable[[], Store]
    histories: int
    """How many are worth their time."""


names = st.sampled_from(ACCOUNTS)
prices = st.integers(0, 40)
amounts = st.integers(0, 100)
keys = st.tuples(st.sampled_from("kl"), st.sampled_from([b"one", b"two"]))
numbers = st.integers(1, 3)
progress = st.integers(0, 120)
moves = st.sampled_from([Event.QUEUE, Event.RUN])


@dataclass
class Life:
    """What the model knows of a task."""

    id: int
    account: str
    price: int
    state: State = State.WAITING
    claim: int = 0
    seq: int = 1
    progress: int = 0
    actual: int = 0
    released: int = 0
    channel: int = 7
    marked: bool = False
    attempts: dict[int, AttemptState] = field(default_factory=dict)

    def enter(self, event: Event) -> None:
        self.state = TRANSITIONS[event].enters[self.state]
        self.seq += 1

    @property
    def billing(self) -> BillingStatus:
        if self.state is State.SUCCESS or (self.state is State.FAIL and self.actual):
            return BillingStatus.COMMITTED
        return BillingStatus.RELEASED if self.state is State.FAIL else BillingStatus.RESERVED


@dataclass
class Books:
    """The model: what accounts own and what their tasks hold."""

    owned: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ACCOUNTS, 0))
    lives: dict[int, Life] = field(default_factory=dict)
    keys: dict[tuple[str, str], tuple[bytes, int]] = field(default_factory=dict)

    def reserved(self, name: str) -> int:
        mine = (life for life in self.lives.values() if life.account == name)
        return sum(life.price for life in mine if life.state not in FINAL)

    def available(self, name: str) -> int:
        return self.owned[name] - self.reserved(name)

    def finish(self, life: Life, event: Event, actual: int) -> None:
        life.enter(event)
        life.actual, life.released = actual, life.price - actual
        self.owned[life.account] -= actual


@pytest.fixture(params=["sqlite", "postgres"])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    if request.param == "sqlite":
        files = count()
        yield Opener(lambda: SqliteStore(tmp_path / f"{next(files)}.db"), histories=30)
        return
    with asyncio.Runner() as loop:
        database = fresh_database(request.getfixturevalue("postgres"))
        url = loop.run(database.__aenter__())
        yield Opener(lambda: PostgresStore(url), histories=10)
        loop.run(database.__aexit__(None, None, None))


def image(task: Task) -> Asset:
    return Asset(_ids.next(), task.account_id, "results/x.png", "image/png", 10, 4, 3, NOW)


class World:
    """A store with two accounts, and the model beside it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.books = Books()
        self.number = next(_worlds)
        self.account_ids: dict[str, int] = {}
        self.keys: dict[str, ApiKey] = {}

    async def open(self) -> None:
        await self.store.prepare()
        for name in ACCOUNTS:
            account = await self.store.open_account(f"{name} {self.number}", now=NOW)
            self.account_ids[name] = account.id
            self.keys[name] = await limited(self.store, account.id, per_day=MOST[name])

    async def book(self, name: str, kind: EntryKind, amount: int) -> Balance:
        return await self.store.book(self.account_ids[name], kind, amount, note="", now=NOW)

    def new(
        self,
        name: str,
        price: int,
        key: tuple[str, bytes] | None,
        *,
        task_id: int | None = None,
    ) -> NewTask:
        number = task_id or _ids.next()
        return NewTask(
            id=number,
            account_id=self.account_ids[name],
            key_id=self.keys[name].id,
            metered=self.keys[name].metered,
            request_id=f"req_{number}",
            request=Request("gpt-image-2", "a cat", 1, {}),
            references=(),
            uploads=(),
            channel_id=7,
            price=price,
            deadline_at=NOW + 1,
            abandon_at=NOW + 2,
            created_at=NOW,
            idempotency_key=key and key[0],
            fingerprint=key[1] if key else b"",
        )

    async def begin(self, task: Task, event: Event) -> int:
        return await self.store.begin_attempt(task, channel_id=7, event=event, now=NOW)

    async def close(self, task: Task, number: int, state: AttemptState) -> None:
        await self.store.close_attempt(task, number, state=state, detail="", now=NOW)

    async def complete(self, task: Task, number: int, actual: int) -> None:
        images = [image(task)]
        await self.store.complete(task, number, images=images, actual=actual, cost=None, now=NOW)

    async def cancel(self, task_id: int, name: str, *, now: int = NOW) -> Task | None:
        account_id = self.account_ids[name]
        return await self.store.cancel(task_id, account_id=account_id, now=now)

    async def arrive(self, task: Task, progress: int) -> None:
        """Another image than any before."""
        asset = image(task)
        shown = result_image(asset)
        kept = [ArrivedImage(**msgspec.structs.asdict(shown), place=0)]
        await self.store.keep_arrived(task, kept, images=[asset], progress=progress, now=NOW)

    async def check(self) -> None:
        """The books hold, and are the model's, to the state of every task."""
        for task in await self.check_money():
            life = self.books.lives[task.id]
            assert (task.state, task.claim, task.seq) == (life.state, life.claim, life.seq)
            assert task.channel_id == life.channel
            assert task.progress >= life.progress

    async def check_money(self) -> list[Task]:
        """Nothing is overdrawn, and every account and every bill is the model's."""
        assert await self.store.prove() == []
        tasks: list[Task] = []
        for name, account_id in self.account_ids.items():
            balance = await self.store.balance(account_id)
            assert balance == Balance(
                balance=self.books.owned[name], reserved=self.books.reserved(name)
            )
            assert 0 <= balance.reserved <= balance.balance
            tasks += await self.store.tasks(account_id=account_id, limit=1000)
        assert {task.id for task in tasks} == set(self.books.lives)
        for task in tasks:
            life = self.books.lives[task.id]
            assert (task.reserved, task.actual, task.released, task.billing) == (
                life.price,
                life.actual,
                life.released,
                life.billing,
            )
            assert (task.state in FINAL) == (life.state in FINAL)
            assert (task.completed_at is None) == (task.state not in FINAL)
            if task.state in FINAL:
                assert task.reserved == task.actual + task.released
        return tasks

    async def check_attempts(self) -> None:
        """Every attempt is in the model's state, and ended when it is closed."""
        for life in self.books.lives.values():
            attempts = await self.store.attempts(life.id)
            assert {each.number: each.state for each in attempts} == life.attempts
            assert all(
                (each.finished_at is None) == (each.state in OPEN_ATTEMPT) for each in attempts
            )


class Histories(RuleBasedStateMachine):
    """One step at a time, every outcome foretold."""

    opener: Opener

    tasks = Bundle("tasks")
    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.Runner()

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.loop.run(coroutine)

    def teardown(self) -> None:
        try:
            self.wait(self.world.check_attempts())
        finally:
            self.wait(self.world.store.close())
            self.loop.close()

    @initialize(credits_=st.tuples(amounts, amounts))
    def open(self, credits_: tuple[int, int]) -> None:
        self.world = World(self.opener.open())
        self.books = self.world.books
        self.wait(self.world.open())
        for name, amount in zip(ACCOUNTS, credits_, strict=True):
            self.credit(name, amount)

    @invariant()
    def the_books_hold_and_are_the_models(self) -> None:
        self.wait(self.world.check())

    def fenced_unless(self, allowed: object, write: Coroutine[Any, Any, object]) -> bool:
        """Do a worker's write; it must be fenced exactly where the model does not allow it."""
        try:
            self.wait(write)
        except Fenced:
            assert not allowed, "a write that holds was fenced"
            return False
        assert allowed, "a write that no longer holds was taken"
        return True

    def current(self, task: Task) -> Life | None:
        """The task's life while the claim is the last and the end has not come."""
        life = self.books.lives[task.id]
        return life if life.claim == task.claim and life.state not in FINAL else None

    @rule(name=names, amount=amounts)
    def credit(self, name: str, amount: int) -> None:
        balance = self.wait(self.world.book(name, EntryKind.CREDIT, amount))
        self.books.owned[name] += amount
        assert balance.balance == self.books.owned[name]

    @rule(name=names, amount=st.integers(-120, 20))
    def adjust(self, name: str, amount: int) -> None:
        try:
            self.wait(self.world.book(name, EntryKind.ADJUST, amount))
        except InsufficientBalance:
            assert self.books.available(name) + amount < 0
        else:
            assert self.books.available(name) + amount >= 0
            self.books.owned[name] += amount

    @rule(target=tasks, name=names, price=prices, key=st.none() | keys)
    def submit(self, name: str, price: int, key: tuple[str, bytes] | None) -> Any:
        known = self.books.keys.get((name, key[0])) if key else None
        payable = price <= self.books.available(name)
        try:
            done = self.wait(self.world.store.submit(self.world.new(name, price, key)))
        except IdempotencyConflict:
            assert known is not None
            assert key is not None
            assert known[0] != key[1]
            return multiple()
        except InsufficientBalance:
            assert known is None
            assert not payable
            return multiple()
        if known is not None:
            assert key is not None
            assert (done.replayed, done.task_id, key[1]) == (True, known[1], known[0])
            return multiple()
        assert not done.replayed
        assert payable
        if key:
            self.books.keys[name, key[0]] = (key[1], done.task_id)
        self.books.lives[done.task_id] = Life(done.task_id, name, price)
        return done.task_id

    @rule(name=names, price=prices, key=st.none() | keys, task_id=tasks)
    def submit_under_a_taken_id(
        self, name: str, price: int, key: tuple[str, bytes] | None, task_id: int
    ) -> None:
        if key and (name, key[0]) in self.books.keys:
            return
        payable = price <= self.books.available(name)
        new = self.world.new(name, price, key, task_id=task_id)
        with pytest.raises(IdTaken if payable else InsufficientBalance):
            self.wait(self.world.store.submit(new))

    @rule(target=claims, task_id=tasks)
    def take(self, task_id: int) -> Any:
        life = self.books.lives[task_id]
        taken = self.wait(self.world.store.take(task_id, now=NOW))
        assert (taken is None) == (life.state in FINAL)
        if taken is None:
            return multiple()
        life.enter(Event.TAKE)
        life.claim += 1
        assert (taken.task.claim, taken.task.state) == (life.claim, life.state)
        assert {each.number: each.state for each in taken.attempts} == life.attempts
        return taken.task

    @rule(task=claims, event=moves)
    def begin(self, task: Task, event: Event) -> None:
        life = self.current(task)
        wanted = life and not life.marked
        if self.fenced_unless(wanted, self.world.begin(task, event)) and life:
            life.enter(event)
            life.attempts[len(life.attempts) + 1] = AttemptState.SENDING

    @rule(task=claims, number=numbers)
    def accept(self, task: Task, number: int) -> None:
        life = self.current(task)
        sending = life and life.attempts.get(number) is AttemptState.SENDING
        write = self.world.store.accept_attempt(task, number, upstream_id="up")
        if self.fenced_unless(sending, write) and life:
            life.attempts[number] = AttemptState.ACCEPTED

    @rule(task=claims, number=numbers, state=st.sampled_from(CLOSED))
    def close(self, task: Task, number: int, state: AttemptState) -> None:
        life = self.current(task)
        is_open = life and life.attempts.get(number) in OPEN_ATTEMPT
        if self.fenced_unless(is_open, self.world.close(task, number, state)) and life:
            life.attempts[number] = state

    @rule(task=claims, channel=st.integers(7, 9))
    def reroute(self, task: Task, channel: int) -> None:
        life = self.current(task)
        free = life and not any(state in OPEN_ATTEMPT for state in life.attempts.values())
        if self.fenced_unless(free, self.world.store.reroute(task, channel, now=NOW)) and life:
            life.channel = channel

    @rule(task=claims, event=moves, reached=progress)
    def advance(self, task: Task, event: Event, reached: int) -> None:
        life = self.current(task)
        write = self.world.store.advance(task, event, progress=reached, now=NOW)
        if self.fenced_unless(life, write) and life:
            life.enter(event)
            life.progress = max(life.progress, min(reached, 99))
            after = self.wait(self.world.store.task(task.id))
            assert after is not None
            assert after.progress == life.progress

    @rule(task=claims, number=numbers, share=st.floats(0, 1))
    def complete(self, task: Task, number: int, share: float) -> None:
        life = self.current(task)
        is_open = life and life.attempts.get(number) in OPEN_ATTEMPT and not life.marked
        actual = int(task.reserved * share)
        if self.fenced_unless(is_open, self.world.complete(task, number, actual)) and life:
            life.attempts[number] = AttemptState.DONE
            self.books.finish(life, Event.COMPLETE, actual)

    @rule(task=claims, progress=progress)
    def arrive(self, task: Task, progress: int) -> None:
        life = self.current(task)
        wanted = life and not life.marked
        if self.fenced_unless(wanted, self.world.arrive(task, progress)) and life:
            life.enter(Event.RUN)
            life.progress = max(life.progress, min(progress, 99))

    @rule(task_id=tasks)
    def cancel(self, task_id: int) -> None:
        life = self.books.lives[task_id]
        other = next(each for each in ACCOUNTS if each != life.account)
        assert self.wait(self.world.cancel(task_id, other)) is None
        after = self.wait(self.world.cancel(task_id, life.account))
        assert after is not None
        if life.state in FINAL:
            pass
        elif not any(state in OPEN_ATTEMPT for state in life.attempts.values()):
            self.books.finish(life, Event.FAIL, 0)
            assert after.error == CANCELLED
        elif not life.marked:
            life.marked = True
            life.enter(Event.CANCEL)
        assert (after.state, after.seq) == (life.state, life.seq)
        assert (after.cancel_at is not None) == life.marked

    @rule(
        task=claims,
        number=st.none() | numbers,
        state=st.sampled_from(CLOSED),
        share=st.just(0.0) | st.floats(0, 1),
    )
    def fail(self, task: Task, number: int | None, state: AttemptState, share: float) -> None:
        life = self.current(task)
        allowed = life and (number is None or life.attempts.get(number) in OPEN_ATTEMPT)
        attempt = None if number is None else (number, state)
        charge = int(task.reserved * share)
        write = self.world.store.fail(task, WHY, attempt=attempt, now=NOW, charge=charge)
        if self.fenced_unless(allowed, write) and life:
            if number is not None:
                life.attempts[number] = state
            self.books.finish(life, Event.FAIL, charge)
            after = self.wait(self.world.store.task(task.id))
            assert after is not None
            assert after.error == (CANCELLED if life.marked else WHY)

    @rule(target=claims, name=names, price=prices, event=moves)
    def start(self, name: str, price: int, event: Event) -> Any:
        """The usual beginning in one step, so that histories get far."""
        task_id = self.submit(name, price, None)
        if not isinstance(task_id, int):
            return multiple()
        task = self.take(task_id)
        self.begin(task, event)
        return task

    @rule(task=consumes(claims))
    def forget(self, task: Task) -> None:
        """A worker dies: what it held is held by nobody."""


def test_step_by_step_every_outcome_and_every_balance_is_as_foretold(opener: Opener) -> None:
    run_state_machine_as_test(
        type("Machine", (Histories,), {"opener": opener}),
        settings=settings(max_examples=opener.histories, stateful_step_count=40, deadline=None),
    )


# All at once

OUTSIDE = ("credit", "adjust", "submit", "cancel")
"""What clients and operators do, all at the same time; a worker does one thing after another."""
VERBS = (*OUTSIDE, "take", "arrive", "develop", "begin", "accept", "move", "end", "fail")
WORKERS = 3


@dataclass(frozen=True)
class Act:
    """One thing that a worker, a client or the operator does; numbers choose among what is."""

    verb: str
    who: int
    which: int
    amount: int
    key: tuple[str, bytes] | None


acts = st.builds(
    Act,
    verb=st.sampled_from(VERBS),
    who=st.integers(0, WORKERS - 1),
    which=st.integers(0, 5),
    amount=amounts,
    key=st.none() | st.none() | keys,
)


class Crowd:
    """Workers that know only what the store told them, and may be out of date."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.books = world.books
        self.held: list[list[Task]] = [[] for _ in range(WORKERS)]
        self.begun: dict[int, int] = {}

    async def round(self, together: list[Act]) -> None:
        """Do all of it at once; then the books must hold."""
        claims = {life.id: life.claim for life in self.books.lives.values()}

        async def one_by_one(worker: int) -> None:
            for act in together:
                if act.who == worker and act.verb not in OUTSIDE:
                    await self.act(act, claims)

        outside = (self.act(act, claims) for act in together if act.verb in OUTSIDE)
        await asyncio.gather(*map(one_by_one, range(WORKERS)), *outside)
        for task in await self.world.check_money():
            life = self.books.lives[task.id]
            assert (task.claim, task.seq) == (life.claim, life.seq)

    async def check_attempts(self) -> None:
        """Attempts are numbered without a gap, and nobody was told of one that is not there."""
        for task_id in self.books.lives:
            numbers = [each.number for each in await self.world.store.attempts(task_id)]
            assert numbers == [*range(1, self.begun.get(task_id, 0) + 1)]

    async def act(self, act: Act, claims: dict[int, int]) -> None:
        name = ACCOUNTS[act.which % len(ACCOUNTS)]
        try:
            if act.verb == "credit":
                await self.world.book(name, EntryKind.CREDIT, act.amount)
                self.books.owned[name] += act.amount
            elif act.verb == "adjust":
                await self.world.book(name, EntryKind.ADJUST, -act.amount)
                self.books.owned[name] -= act.amount
            elif act.verb == "submit":
                await self.submit(name, act)
            elif act.verb == "cancel":
                await self.cancel(act)
            elif act.verb in {"take", "develop"}:
                await self.take(act)
            else:
                await self.work(act, claims)
        except (InsufficientBalance, IdempotencyConflict, Fenced):
            pass

    async def submit(self, name: str, act: Act) -> None:
        done = await self.world.store.submit(self.world.new(name, act.amount // 3, act.key))
        if done.replayed:
            assert act.key is not None
            assert self.books.keys[name, act.key[0]] == (act.key[1], done.task_id)
            return
        if act.key is not None:
            assert (name, act.key[0]) not in self.books.keys
            self.books.keys[name, act.key[0]] = (act.key[1], done.task_id)
        self.books.lives[done.task_id] = Life(done.task_id, name, act.amount // 3)

    async def cancel(self, act: Act) -> None:
        ids = list(self.books.lives)
        if not ids:
            return
        life, now = self.books.lives[ids[act.which % len(ids)]], next(_moments)
        after = await self.world.cancel(life.id, life.account, now=now)
        assert after is not None
        if after.completed_at == now:
            self.finished(after, State.FAIL, 0)
        elif after.cancel_at == now:
            assert not life.marked, "a task was marked twice"
            life.marked = True
            life.seq += 1

    async def take(self, act: Act) -> None:
        ids = list(self.books.lives)
        if not ids:
            return
        taken = await self.world.store.take(ids[act.which % len(ids)], now=NOW)
        if taken is None:
            return
        life = self.books.lives[taken.task.id]
        life.claim += 1
        life.seq += 1
        self.held[act.who].append(taken.task)
        if act.verb == "develop":
            number = await self.begin(taken.task)
            await self.world.store.accept_attempt(taken.task, number, upstream_id="up")
            await self.move(taken.task, act.amount)
            await self.end(taken.task, number, act.amount)

    async def work(self, act: Act, claims: dict[int, int]) -> None:
        if not self.held[act.who]:
            return
        task = self.held[act.who][act.which % len(self.held[act.who])]
        if act.verb == "begin":
            await self.begin(task)
        elif act.verb == "accept":
            await self.world.store.accept_attempt(task, act.which, upstream_id="up")
        elif act.verb == "move":
            await self.move(task, act.amount)
        elif act.verb == "arrive":
            await self.world.arrive(task, act.amount)
            self.books.lives[task.id].seq += 1
        elif act.verb == "end":
            await self.end(task, act.which, act.amount)
        else:
            charge = min(act.amount, task.reserved)
            await self.world.store.fail(task, WHY, now=NOW, charge=charge)
            self.finished(task, State.FAIL, charge)
        assert task.claim >= claims.get(task.id, 1), "a claim that was stale before the round held"

    async def begin(self, task: Task) -> int:
        number = await self.world.begin(task, Event.RUN)
        self.begun[task.id] = max(self.begun.get(task.id, 0), number)
        self.books.lives[task.id].seq += 1
        return number

    async def move(self, task: Task, reached: int) -> None:
        await self.world.store.advance(task, Event.RUN, progress=reached, now=NOW)
        self.books.lives[task.id].seq += 1

    async def end(self, task: Task, number: int, amount: int) -> None:
        actual = min(amount, task.reserved)
        await self.world.complete(task, number, actual)
        self.finished(task, State.SUCCESS, actual)

    def finished(self, task: Task, state: State, actual: int) -> None:
        life = self.books.lives[task.id]
        assert life.state not in FINAL, "a task ended twice"
        life.state, life.actual, life.released = state, actual, life.price - actual
        life.seq += 1
        self.books.owned[life.account] -= actual


def test_however_workers_write_at_once_the_books_hold(opener: Opener) -> None:
    async def play(rounds: list[list[Act]]) -> None:
        world = World(opener.open())
        try:
            await world.open()
            crowd = Crowd(world)
            await crowd.round([Act("credit", 0, which, 60, None) for which in range(2)])
            for together in rounds:
                await crowd.round(together)
            await crowd.check_attempts()
        finally:
            await world.store.close()

    @settings(max_examples=2 * opener.histories, deadline=None)
    @given(rounds=st.lists(st.lists(acts, min_size=2, max_size=12), min_size=1, max_size=12))
    def histories(rounds: list[list[Act]]) -> None:
        asyncio.run(play(rounds))

    histories()
