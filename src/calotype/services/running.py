"""Running one task, from wherever it stands: one coroutine, killable between any two lines.

What comes next is decided from what is stored alone:

* an attempt with the upstream's id is polled, however late it is;
* an attempt that was begun and has no id may have been bought: the upstream is asked for it where
  it can be asked, and it is sent again only where that is free; otherwise the task fails and the
  operator sees the attempt;
* with no attempt open, a new one is written down before a byte goes out, on the channel whose
  turn it is: another one only when the last is known not to have accepted.

A task that its client gave up is sent no more, and settled by what its upstream says became of
the attempt that was under way.

Two limits end a task: after ``deadline_at`` nothing new is sent, after ``abandon_at`` an accepted
job is no longer waited for.
"""

import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import monotonic
from typing import Final, assert_never

import msgspec

from calotype.domain.catalog import Catalog
from calotype.domain.clock import Clock
from calotype.domain.errors import UnknownModel
from calotype.domain.ids import encode
from calotype.domain.outcomes import (
    Accepted,
    Done,
    Failed,
    Fault,
    Refused,
    SubmitOutcome,
    TryLater,
    Unknown,
)
from calotype.domain.task import OPEN_ATTEMPT, Asset, Attempt, AttemptState, Event, Task
from calotype.imaging.conversion import ConversionBroke
from calotype.observing import context, metrics, tracing
from calotype.providers.port import Job, Provider, ReferenceImage
from calotype.services.assets import Assets
from calotype.services.cancelling import Interrupter
from calotype.services.endings import Endings
from calotype.services.fitting import CannotFit, Fitter, shapes
from calotype.services.following import Follower, Parked, Patience
from calotype.services.health import HealthKeeper
from calotype.services.prices import Prices
from calotype.services.references import ReferenceFailed, ReferenceIntake
from calotype.services.routing import Router
from calotype.services.sending import (
    LOST,
    MAX_SENDS,
    Bench,
    History,
    Reporter,
    Together,
    is_free,
    make_job,
)
from calotype.store.port import Begin, Fenced, Store, Taken

WAIT_HERE_MS: Final = 2_000
"""A longer wait for a channel is the queue's: the task gives its place in this process back."""
UNKNOWN_CHANNEL_SECONDS: Final = 30.0
"""After so long a task is looked at again whose channel this process does not know."""
UNKNOWN_CHANNEL_MS: Final = 60_000
"""So long a fresh task is left to workers that may know its channel."""
BOUNCE_SECONDS: Final = 5.0
"""A task that is sent to and fro between two workers' channels rests so long."""
MOVES_KEPT: Final = 10_000
PROOF_SECONDS: Final = 1.0
"""For so long an asset store that could be written to is believed to take an image."""

log = logging.getLogger(__name__)


class _Elsewhere(Exception):
    """The task goes on in another channel's queue."""


class _Later(Exception):
    """The task goes on when a channel can take it, after ``seconds``."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


async def _nowhere(_asset: Asset) -> str | None:
    return None


async def _always() -> None:
    """There is always room."""


class Links(msgspec.Struct, frozen=True, kw_only=True):
    """What a runner reaches outside of it.

    Args:
        enqueue: tells the embedded queue of a task that changed its channel, ``(task id, channel
            id, priority)``, where no priority is the one it had; a shared queue is told by the
            store.
        has_room: whether ``check_room`` would be content without a look.
        check_room: raises ``Unavailable`` while there is no room for what upstreams answer.
        reference_url: a public URL of a stored reference; None where the world cannot reach it.
        callback_url: where the upstream of a channel may tell that a job ended, by the slug.

    """

    enqueue: Callable[[int, int, int | None], None] = lambda _task, _channel, _priority: None
    has_room: Callable[[], bool] = lambda: True
    check_room: Callable[[], Awaitable[None]] = _always
    reference_url: Callable[[Asset], Awaitable[str | None]] = _nowhere
    callback_url: Callable[[str], str | None] = lambda _slug: None


class Runner:
    """Runs tasks.

    Args:
        providers: channel id → what speaks to it; may change while running.

    """

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        router: Router,
        *,
        providers: Mapping[int, Provider],
        assets: Assets,
        references: ReferenceIntake,
        clock: Clock,
        links: Links | None = None,
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._router = router
        self._providers = providers
        self._assets = assets
        self._references = references
        self._clock = clock
        self._links = links or Links()
        self._check_assets = Together(assets.store.ping, seconds=PROOF_SECONDS)
        self._chance = random.Random()  # noqa: S311 -- spreads polls, guards nothing
        self._endings = Endings(
            store,
            assets,
            prices=Prices(catalog, router),
            days=catalog.result_days_of,
            clock=clock,
        )
        self._interrupter = Interrupter(store)
        self._fitter = Fitter(
            store, assets, days=catalog.reference_days_of, url=self._links.reference_url
        )
        self._health = HealthKeeper(store, router.breakers, clock=clock)
        self._patience = Patience()
        self._moved: dict[int, int] = {}
        self._follower = Follower(
            store,
            self._endings,
            self._health,
            providers=providers,
            patience=self._patience,
            clock=clock,
            chance=self._chance,
        )

    def park(self) -> None:
        """From now on tasks stop at the next point where nothing is under way."""
        self._patience.end()

    def nudge(self, channel_id: int, upstream_id: str) -> bool:
        """Poll a job now, because its upstream says that it ended; False when it is not here."""
        return self._follower.nudge(channel_id, upstream_id)

    def look(self, task_id: int) -> None:
        """See at once whether a task that is developed here is to be stopped."""
        self._follower.look(task_id)
        self._interrupter.look(task_id)

    async def run(self, task_id: int) -> float | None:
        """Take a task up and bring it to its end, or leave it where another can go on.

        Returns:
            Seconds after which the task is to be run again; None when it need not be.

        Raises:
            Exception: something of ours is broken; the task is to be tried again later.

        """
        with metrics.RUNNING.during():
            return await self._run(task_id)

    async def _run(self, task_id: int) -> float | None:
        begun = monotonic()
        taken = await self._store.take(task_id, now=self._clock(), choose=self._at_once)
        metrics.DATABASE_SECONDS.note(monotonic() - begun, "take")
        if taken is None:
            return None
        name, request = encode("task", task_id), taken.task.request
        context.TASK.set(name)
        context.REQUEST.set(taken.task.request_id)
        context.ACCOUNT.set(taken.task.account_id)
        try:
            with (
                tracing.joined(request.traceparent),
                tracing.span("develop", kind="CONSUMER", task=name, model=request.model),
            ):
                await self._develop(taken)
        except Fenced:
            log.info("%s was moved on by another worker", name)
        except Parked:
            log.info("%s is parked until the next start", name)
        except _Elsewhere as where:
            log.info("%s goes on at channel %s", name, where)
        except _Later as later:
            return later.seconds
        except Exception:
            if self._clock() < taken.task.abandon_at:
                raise
            log.exception("%s broke and is past its time", name)
            message = "Something broke on our side, again and again."
            await self._give_up(taken.task, "internal_error", message)
        return None

    async def _develop(self, taken: Taken) -> None:
        task = taken.task
        try:
            self._catalog.get(task.model)
        except UnknownModel:
            await self._give_up(task, "no_channel_available", "The model is no longer offered.")
            return
        if taken.begun is not None:
            begun = self._bench(task, task.channel_id, begun=task.updated_at)
            if begun is None:  # gone from the configuration this moment
                raise _Later(UNKNOWN_CHANNEL_SECONDS)
            await self._send(task, self._history(()), begun=(begun, taken.begun))
            return
        attempts = list(taken.attempts)
        if attempts and attempts[-1].state in OPEN_ATTEMPT:
            last = attempts.pop()
            bench = self._bench(task, last.channel_id, begun=last.started_at)
            if bench is None:
                if self._clock() < task.abandon_at:
                    raise _Later(UNKNOWN_CHANNEL_SECONDS)
                message = "The channel is no longer configured."
                await self._give_up(task, "no_channel_available", message)
                return
            purchase = self._history(attempts).purchase(bench.channel.id, last.number)
            accepted = last.upstream_id is not None
            references = await self._references_of(task, bench, accepted=accepted)
            job = make_job(bench, last.number, purchase=purchase, references=references)
            if last.upstream_id is not None:
                closed = await self._follower.follow(
                    bench, job, upstream_id=last.upstream_id, delay=0
                )
            else:
                cut_off = Unknown("The server stopped while the request was on its way.")
                closed = await self._recover(bench, job, cut_off)
            if closed is None:
                return
            attempts.append(closed)
        if attempts and await self._endings.stopped(task):
            return
        await self._prepare_and_send(task, attempts)

    async def _references_of(
        self, task: Task, bench: Bench, *, accepted: bool
    ) -> Sequence[ReferenceImage]:
        """What an attempt that was begun was given; of one that was accepted, as it is known.

        That one is paid for: no trouble of the asset store keeps it from being followed.
        """
        if accepted:
            return await self._fitter.known(task)
        originals = await self._fitter.originals(task) or ()
        return await self._fitter.given(task, originals, bench.wire) if originals else ()

    def _history(self, attempts: Sequence[Attempt]) -> History:
        return History(attempts, is_free=self._is_free)

    def _is_free(self, channel_id: int) -> bool:
        channel, provider = self._router.get(channel_id), self._providers.get(channel_id)
        return channel is not None and provider is not None and is_free(channel, provider)

    def _bench(self, task: Task, channel_id: int, *, begun: int = 0) -> Bench | None:
        channel = self._router.get(channel_id)
        provider = self._providers.get(channel_id)
        if channel is None or provider is None:
            return None
        wire = self._router.wire(channel, task.model)
        return Bench(task, self._catalog.get(task.model), channel, provider, wire, begun)

    async def _recover(self, bench: Bench, job: Job, unknown: Unknown) -> Attempt | None:
        """Ask what became of a send; the closed attempt when the task may be sent (again)."""
        number = job.attempt
        try:
            outcome = await bench.provider.recover(job)
        except Exception:  # as below: a provider that raises is broken, and nothing is known
            log.exception("channel %s broke while recovering", bench.channel.slug)
            outcome = unknown
        match outcome:
            case Accepted(upstream_id=upstream_id, poll_after=poll_after):
                return await self._follower.accepted(
                    bench, job, upstream_id=upstream_id, poll_after=poll_after
                )
            case Done():
                await self._endings.deliver_at_once(bench, number, done=outcome)
                return None
            case TryLater():
                message = "The upstream knows nothing of the request."
                trouble = TryLater(LOST, message, fault=Fault.UNREACHABLE)
                return await self._endings.close(
                    bench, number, AttemptState.REFUSED, trouble=trouble
                )
            case Unknown():
                return await self._endings.close_unknown(bench, number, detail=unknown.message)
            case _:
                assert_never(outcome)

    async def _prepare_and_send(self, task: Task, attempts: Sequence[Attempt]) -> None:
        if any(reference.asset_id is None for reference in task.references):
            try:
                filled, fetched = await self._references.fetch(
                    task.references,
                    account_id=task.account_id,
                    limits=self._catalog.get(task.model).references,
                    deadline_at=task.deadline_at,
                )
            except ReferenceFailed as error:
                await self._endings.fail(task, error.code, error.message)
                return
            try:
                days = self._catalog.reference_days_of(task.model)
                await self._store.keep_references(task, filled, fetched, days=days)
            except Fenced:
                await self._assets.discard(fetched)
                raise
            task = msgspec.structs.replace(task, references=filled)
        await self._send(task, self._history(attempts))

    def _at_once(self, task: Task) -> Begin | None:
        """The attempt of a new task that needs nothing first: no look, no turn and no reference."""
        now = self._clock()
        wanted = task.cancel_at is None and now < task.deadline_at
        if self._patience.over or task.references or not wanted:
            return None
        route = self._router.next(
            task.request,
            (),
            current=task.channel_id,
            bound=None,
            tries={},
            spent=(),
            pauses={},
            now=now,
        )
        provider = self._providers.get(task.channel_id)
        if (
            route is None
            or route.channel.id != task.channel_id
            or route.channel.requests_per_minute
            or provider is None
            or task.model not in self._catalog.models
            or not self._router.breakers.closed(task.channel_id, task.model, now=now)
            or not self._links.has_room()
            or (provider.synchronous and not self._check_assets.believed)
        ):
            return None
        return Begin(task.channel_id, _event(provider))

    async def _send(
        self, task: Task, history: History, *, begun: tuple[Bench, int] | None = None
    ) -> None:
        """Send until something is accepted, refused for good, or the time is up.

        ``begun``: the first attempt, where it is written down already.
        """
        while True:
            references: Sequence[ReferenceImage] = ()
            if begun is None:
                ready = await self._made_ready(task, history)
                if ready is None:
                    return
                bench, references = ready
                task = bench.task
                number = await self._begin(bench)
            else:
                (bench, number), begun = begun, None
            with tracing.span("attempt", channel=bench.channel.slug, number=history.sends + 1):
                job, outcome = await self._send_once(bench, number, history, references)
                closed = await self._settle(bench, job, outcome)
            if not isinstance(outcome, Accepted):  # that is noted as soon as its id is kept
                self._health.note(bench.channel.id, task.model, outcome, begun=bench.begun)
            if closed is None:
                return
            retry_after = outcome.retry_after if isinstance(outcome, TryLater) else None
            history.add(closed, retry_after=retry_after)
            if await self._endings.stopped(task):
                return

    async def _made_ready(
        self, task: Task, history: History
    ) -> tuple[Bench, Sequence[ReferenceImage]] | None:
        """Where the task is sent now, and its references as they are sent; None: it has ended."""
        self._patience.check()
        originals = await self._fitter.originals(task)
        if originals is None:  # its client may delete it between two sends, too
            message = "A reference image of this task was deleted, or is no longer stored."
            await self._endings.fail(task, "reference_gone", message)
            return None
        bench = await self._turn(task, originals, history)
        if bench is None:
            return None
        return bench, await self._fitter.given(bench.task, originals, bench.wire)

    async def _settle(self, bench: Bench, job: Job, outcome: SubmitOutcome) -> Attempt | None:
        """See a send to its end; the closed attempt when another one may follow."""
        task, number = bench.task, job.attempt
        match outcome:
            case Accepted(upstream_id=upstream_id, poll_after=poll_after):
                return await self._follower.accepted(
                    bench, job, upstream_id=upstream_id, poll_after=poll_after
                )
            case Done():
                await self._endings.deliver_at_once(bench, number, done=outcome)
            case Failed():
                state = AttemptState.FAILED
                await self._endings.fail_attempt(task, number, state, outcome=outcome)
            case Refused(fault=Fault.REQUEST | Fault.POLICY):
                state = AttemptState.REFUSED
                await self._endings.fail_attempt(task, number, state, outcome=outcome)
            case Refused():
                said = outcome.detail or outcome.message
                trouble = TryLater(outcome.code, said, fault=outcome.fault)
                return await self._endings.close(
                    bench, number, AttemptState.REFUSED, trouble=trouble
                )
            case TryLater():
                return await self._endings.close(
                    bench, number, AttemptState.REFUSED, trouble=outcome
                )
            case Unknown():
                return await self._recover(bench, job, outcome)
            case _:
                assert_never(outcome)
        return None

    async def _turn(
        self, task: Task, originals: Sequence[ReferenceImage], history: History
    ) -> Bench | None:
        """The bench at which the task is sent next, once it may be; None when it has ended.

        Raises:
            _Elsewhere: it is another channel's turn, in whose queue the task now is.
            _Later: the wait is long.

        """
        reached, files = 0, shapes(originals)
        while True:
            now = max(self._clock(), reached)
            if self._must_wait_for_its_channel(task, history, now=now):
                raise _Later(UNKNOWN_CHANNEL_SECONDS)
            route = self._router.next(
                task.request,
                files,
                current=task.channel_id,
                bound=history.bound,
                tries=history.tries,
                spent=history.spent,
                pauses=history.pauses,
                now=now,
            )
            if route is None:
                await self._endings.fail(task, *history.gave_up(timely=now < task.deadline_at))
                return None
            at, channel = max(now, route.at), route.channel
            if at >= task.deadline_at or history.sends >= MAX_SENDS:
                await self._endings.fail(task, *history.gave_up(timely=False))
                return None
            bench = self._bench(task, channel.id)
            if channel.id != task.channel_id or bench is None:
                await self._reroute(task, channel.id, sends=history.sends)
            elif at > now:
                await self._wait(at - now)
                reached = at
            elif (fitted := await self._fit(bench, originals, history)) is not None:
                task = fitted  # that took its time
            elif await self._may_go_out(bench, now):
                begun = max(self._clock(), reached)
                self._router.breakers.begin(channel.id, task.model, now=begun)
                self._moved.pop(task.id, None)
                return msgspec.structs.replace(bench, begun=begun)

    async def _fit(
        self, bench: Bench, originals: Sequence[ReferenceImage], history: History
    ) -> Task | None:
        """Make the references fit the channel, or rule it out; None when there is nothing to do.

        Raises:
            _Later: it could not be done this time.

        """
        task, channel = bench.task, bench.channel
        if bench.wire is None or not originals:
            return None
        try:
            fitted = await self._fitter.fit(task, originals, bench.wire, channel_id=channel.id)
        except CannotFit as error:
            history.unfit = str(error)
            history.spent.add(channel.id)
            return task
        except ConversionBroke as error:
            raise _Later(BOUNCE_SECONDS) from error
        return None if fitted is task else fitted

    def _must_wait_for_its_channel(self, task: Task, history: History, *, now: int) -> bool:
        """Whether a task's channel is unknown here and may yet be known.

        Another worker may have a newer configuration, or the operator put a channel back.
        """
        if self._router.get(task.channel_id) is not None or now >= task.deadline_at:
            return False
        pinned = task.request.channel_id is not None or history.bound is not None
        return pinned or now < task.created_at + UNKNOWN_CHANNEL_MS

    async def _may_go_out(self, bench: Bench, now: int) -> bool:
        """Make ready for a send; False when the wait for it was so long that all may be different.

        Raises:
            Unavailable: there is no room for what comes back.
            _Later: the channel's minute is full for a while.

        """
        task, channel = bench.task, bench.channel
        await self._links.check_room()
        if bench.provider.synchronous:
            await self._check_assets()  # its image comes but once: is there a place for it?
        if not channel.requests_per_minute:
            return self._still_open(bench, now)
        before = min(task.deadline_at - 1, now + WAIT_HERE_MS)
        slot = await self._store.next_slot(
            channel.id, per_minute=channel.requests_per_minute, now=now, before=before
        )
        if slot > before:
            raise _Later(max(0, min(slot, task.deadline_at) - now) / 1000)
        await self._patience.wait((slot - now) / 1000)
        return self._still_open(bench, slot)

    def _still_open(self, bench: Bench, at_least: int) -> bool:
        now = max(self._clock(), at_least)
        opens = self._router.breakers.opens_at(bench.channel.id, bench.task.model, now=now)
        return opens <= now < bench.task.deadline_at

    async def _wait(self, milliseconds: int) -> None:
        if milliseconds > WAIT_HERE_MS:
            raise _Later(milliseconds / 1000)
        await self._patience.wait(milliseconds / 1000)

    async def _reroute(self, task: Task, channel_id: int, *, sends: int) -> None:
        """Pass the task on, unless it comes back from there and nobody has sent it meanwhile."""
        if self._moved.pop(task.id, None) == sends:
            raise _Later(BOUNCE_SECONDS)
        if len(self._moved) >= MOVES_KEPT:
            self._moved.pop(next(iter(self._moved)))
        self._moved[task.id] = sends
        await self._store.reroute(task, channel_id, now=self._clock())
        self._links.enqueue(task.id, channel_id, None)
        raise _Elsewhere(channel_id)

    async def _begin(self, bench: Bench) -> int:
        """Write down that something is about to be sent; the attempt's number."""
        begun = monotonic()
        number = await self._store.begin_attempt(
            bench.task,
            channel_id=bench.channel.id,
            event=_event(bench.provider),
            now=self._clock(),
        )
        metrics.DATABASE_SECONDS.note(monotonic() - begun, "begin_attempt")
        return number

    async def _send_once(
        self, bench: Bench, number: int, history: History, references: Sequence[ReferenceImage]
    ) -> tuple[Job, SubmitOutcome]:
        task, channel = bench.task, bench.channel
        if number == 1:
            waited = bench.begun - task.created_at
            metrics.QUEUE_SECONDS.note(waited / 1000, channel.id)
            tracing.past("queue", begun=task.created_at, ended=bench.begun)
        reporter = Reporter(self._store, task, clock=self._clock)
        job = make_job(
            bench,
            number,
            purchase=history.purchase(channel.id, number),
            references=references,
            callback_url=self._links.callback_url(channel.slug) if channel.callbacks else None,
            report=reporter.report,
        )
        outcome: SubmitOutcome
        try:
            with (
                self._interrupter.during(bench, job),
                tracing.span("upstream send", kind="CLIENT", channel=channel.slug),
            ):
                outcome = await bench.provider.submit(job)
        except Exception:  # a provider that raises is broken; the money may be spent all the same
            log.exception("channel %s broke while sending", channel.slug)
            outcome = Unknown("The request broke off on our side.")
        finally:
            await reporter.stop()
        took = self._clock() - bench.begun
        metrics.upstream_answered(channel.id, task.model, outcome, milliseconds=took)
        return job, outcome

    async def _give_up(self, task: Task, code: str, message: str) -> None:
        """Fail a task whatever it is at; of a job left behind nobody knows what became."""
        attempts = await self._store.attempts(task.id)
        left = attempts[-1] if attempts and attempts[-1].state in OPEN_ATTEMPT else None
        attempt = (left.number, AttemptState.UNKNOWN) if left else None
        await self._endings.fail(task, code, message, attempt=attempt)


def _event(provider: Provider) -> Event:
    """What happens to a task that is sent."""
    return Event.RUN if provider.synchronous else Event.QUEUE
