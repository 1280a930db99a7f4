"""References that an upstream does not take as they are: copies, failover, crashes, routing."""

from collections.abc import AsyncIterator
from types import MappingProxyType

import msgspec
import pytest

from calotype.domain.channel import Channel, Served
from calotype.domain.errors import AssetNotFound
from calotype.domain.fitting import Limits
from calotype.domain.limits import DAY_MS
from calotype.domain.outcomes import Accepted, Fault, Running, TryLater
from calotype.domain.task import Asset, Reference, State, Task
from calotype.domain.wire import Upstream, Wire
from calotype.services.fitting import Fitter
from harness import noise, picture
from services.bench import CHANNEL, SOON, Bench, Scripted, done
from services.wires import Killed, Tripwire

UNREACHABLE = TryLater("upstream_unavailable", "No way.", fault=Fault.UNREACHABLE)
BUSY = TryLater("upstream_rate_limited", "Busy.", retry_after=SOON)
MODEL = "gpt-image-2"


def channel(number: int, provider: str, **more: int) -> Channel:
    """A channel whose upstream takes references within the limits of that name."""
    return msgspec.structs.replace(
        CHANNEL,
        id=number,
        slug=provider,
        name=provider,
        provider=provider,
        models={MODEL: Served()},
        **more,
    )


SMALL, TINY, WHOLE = channel(10, "small"), channel(11, "tiny"), channel(12, "whole")


@pytest.fixture
async def bench(bench: Bench) -> Bench:
    """A bench whose upstreams take references of few bytes, of fewer pixels, and any."""
    wire = bench.catalog.upstreams["openai"].wire(MODEL)
    assert wire is not None
    limits: dict[str, dict[str, object]] = {
        "small": {"reference_bytes": 20_000},
        "tiny": {"reference_pixels": 5_000, "reference_types": ("image/png", "image/jpeg")},
        "whole": {"reference_bytes": 0},
        "odd": {"reference_types": ("image/gif",)},
        "none": {"reference_bytes": 50},
    }
    upstreams = {
        name: Upstream(models={MODEL: msgspec.structs.replace(wire, **more)})
        for name, more in limits.items()
    }
    bench.catalog = msgspec.structs.replace(
        bench.catalog, upstreams=MappingProxyType({**bench.catalog.upstreams, **upstreams})
    )
    return bench


async def uploaded(bench: Bench, content: bytes) -> Asset:
    async def chunks() -> AsyncIterator[bytes]:
        yield content

    kept = await bench.assets.keep(
        chunks(), account_id=bench.account_id, kind="reference", max_bytes=10**7
    )
    return kept.asset


async def submitted(bench: Bench, *contents: bytes, pinned: int | None = None) -> int:
    """A task with these references."""
    uploads = [await uploaded(bench, content) for content in contents]
    references = [Reference(asset_id=asset.id) for asset in uploads]
    return await bench.submitted(references=references, uploads=uploads, pinned=pinned)


def copies(task: Task) -> list[list[int]]:
    """The channels for which each reference was copied."""
    return [[copy.channel_id for copy in reference.fitted] for reference in task.references]


async def nowhere(_asset: Asset) -> None:
    """The world does not reach us."""


def wire_of(bench: Bench, channel: Channel) -> Wire:
    wire = bench.catalog.upstreams[channel.provider].wire(MODEL)
    assert wire is not None
    return wire


async def test_a_reference_over_a_limit_is_sent_as_a_copy_and_others_as_they_are(
    bench: Bench,
) -> None:
    upstream = Scripted([BUSY, done()])
    large, little = noise(200), picture()
    task = await bench.ran(upstream, channel=SMALL, task_id=await submitted(bench, little, large))
    await bench.assert_paid(task)
    assert copies(task) == [[], [10]]
    first, second = upstream.sent[-1].references
    assert (first.content_type, first.size) == ("image/png", len(little))
    assert second.size <= 20_000
    (copy,) = task.references[1].fitted
    assert (copy.original.bytes, copy.copy.bytes) == (len(large), second.size)
    assert "at most 20000 bytes" in copy.reason
    stored = await bench.store.asset(copy.asset_id)
    assert stored is not None
    days = bench.catalog.reference_days_of(task.model)
    assert stored.expires_at == task.abandon_at + days * DAY_MS
    async with second.open() as chunks:
        sent = b"".join([chunk async for chunk in chunks])
    assert sent == bench.disk.path(stored.key).read_bytes()
    assert copy.asset_id in task.asset_ids


async def test_a_copy_goes_again_when_the_next_reference_is_gone(bench: Bench) -> None:
    task_id = await submitted(bench, noise(200), noise(210))
    taken = await bench.store.take(task_id, now=bench.clock())
    assert taken is not None
    fitter = Fitter(bench.store, bench.assets, days=lambda _model: 2, url=nowhere)
    originals = await fitter.originals(taken.task)
    assert originals is not None
    second = await bench.store.asset(taken.task.references[1].asset_id or 0)
    assert second is not None
    bench.disk.path(second.key).unlink()
    before = bench.files()
    with pytest.raises(AssetNotFound):
        await fitter.fit(taken.task, originals, wire_of(bench, SMALL), channel_id=10)
    assert bench.files() == before


async def test_what_fits_is_not_touched(bench: Bench) -> None:
    upstream = Scripted([done()])
    task = await bench.ran(upstream, channel=SMALL, task_id=await submitted(bench, picture()))
    assert copies(task) == [[]]
    assert len(bench.files()) == 2


async def test_another_channel_gets_a_copy_of_the_original(bench: Bench) -> None:
    small, tiny = Scripted([UNREACHABLE]), Scripted([done()])
    gateway = bench.gateway((SMALL, small), (TINY, tiny))
    task = await gateway.ran(await submitted(bench, noise(200)))
    await bench.assert_paid(task)
    assert copies(task) == [[10, 11]]
    first, second = task.references[0].fitted
    assert first.original == second.original
    (sent,) = tiny.sent[0].references
    assert (sent.width, sent.height) == (second.copy.width, second.copy.height) == (70, 70)


async def test_the_channel_that_takes_references_as_they_are_is_preferred(bench: Bench) -> None:
    whole = Scripted([done()])
    gateway = bench.gateway((SMALL, Scripted()), (WHOLE, whole))
    task = await gateway.ran(await submitted(bench, noise(200)))
    await bench.assert_paid(task)
    assert (task.channel_id, copies(task)) == (12, [[]])


async def test_a_pinned_channel_is_given_copies(bench: Bench) -> None:
    gateway = bench.gateway((SMALL, Scripted([done()])), (WHOLE, Scripted()))
    task = await gateway.ran(await submitted(bench, noise(200), pinned=10))
    await bench.assert_paid(task)
    assert (task.channel_id, copies(task)) == (10, [[10]])


async def test_a_resumed_task_goes_on_with_the_copies_that_it_has(bench: Bench) -> None:
    task_id = await submitted(bench, noise(200))
    parked = Scripted([BUSY, Accepted("up-1", poll_after=0)], [Running(poll_after=0), done()])
    runner = bench.runner(parked, channel=SMALL)
    await runner.run(task_id)
    files = len(bench.files())
    task = await bench.ran(parked, channel=SMALL, task_id=task_id)
    await bench.assert_paid(task)
    assert copies(task) == [[10]]
    assert len(bench.files()) <= files + 1


async def test_a_reference_that_cannot_fit_anywhere_fails_the_task_and_says_why(
    bench: Bench,
) -> None:
    upstream = Scripted([done()])
    task_id = await submitted(bench, noise(50))
    task = await bench.ran(upstream, channel=channel(10, "none"), task_id=task_id)
    assert task.state is State.FAIL
    assert task.error is not None
    assert task.error.code == "unsupported_reference_type"
    assert "Reference image 1 cannot be made to fit" in task.error.message
    assert upstream.sent == []
    assert copies(task) == [[]]
    assert len(bench.files()) == 1


async def test_where_one_channel_cannot_have_it_another_may(bench: Bench) -> None:
    tiny = Scripted([done()])
    gateway = bench.gateway((channel(10, "none"), Scripted()), (TINY, tiny))
    task = await gateway.ran(await submitted(bench, noise(200)))
    await bench.assert_paid(task)
    assert task.channel_id == 11


async def test_an_upstream_of_types_that_we_cannot_make_takes_nothing_else(bench: Bench) -> None:
    odd = wire_of(bench, channel(10, "odd"))
    asset = await uploaded(bench, picture())
    task_id = await bench.submitted(references=[Reference(asset_id=asset.id)], uploads=[asset])
    task = await bench.ran(Scripted(), channel=channel(10, "odd"), task_id=task_id)
    assert task.error is not None
    assert task.error.code == "no_channel_available"
    assert odd.limits == Limits(types=("image/gif",), bytes=odd.reference_bytes)


async def test_killed_between_any_two_steps_every_send_has_copies_that_are_written_down(
    bench: Bench,
) -> None:
    survived, step = False, 0
    large = noise(90)
    while not survived:
        task_id = await submitted(bench, large, picture())
        upstream, wire = Scripted([done(), done()]), Tripwire(step)
        dying = bench.runner(
            wire.around(upstream),
            store=wire.around(bench.store),
            disk=wire.around(bench.disk),
            channel=SMALL,
        )
        try:
            await dying.run(task_id)
            survived = True
        except Killed:
            pass
        left = copies(await bench.task(task_id))
        remembered = (await bench.task(task_id)).references[0].fitted
        await bench.runner(upstream, channel=SMALL).run(task_id)
        task = await bench.task(task_id)
        assert left in [[[], []], [[10], []]]
        assert not remembered or task.references[0].fitted == remembered, "it was made again"
        for job in upstream.sent:
            (copy,) = task.references[0].fitted
            assert job.references[0].size == copy.copy.bytes <= 20_000
        step += 1
    assert step > 15, "the wire was never tripped"
