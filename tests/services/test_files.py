"""Tasks that name files: through failover, a restart, and the file's end."""

import pytest

from calotype.domain.errors import Unavailable
from calotype.domain.files import reference_of
from calotype.domain.outcomes import Accepted, SubmitOutcome
from calotype.domain.task import Asset, Reference
from calotype.store.files import NewFile
from services.bench import CHANNEL, Bench, Scripted, done
from services.test_failover import BUSY, SECOND, two
from services.test_running import upload


async def named(bench: Bench) -> tuple[Asset, int]:
    """A file, and a task that names it."""
    new = NewFile(await upload(bench), b"digest", 2)
    file = await bench.store.files.add(new, now=bench.clock.now)
    reference = Reference(url=reference_of(file.id), asset_id=file.id)
    return file, await bench.submitted(references=[reference])


def lose(bench: Bench, file: Asset) -> None:
    path = bench.disk.path(file.key)
    assert path is not None
    path.unlink()


async def test_a_file_goes_with_its_task_to_another_channel(bench: Bench) -> None:
    _, task_id = await named(bench)
    first, second = two([BUSY], [done()])
    task = await bench.gateway((CHANNEL, first), (SECOND, second)).ran(task_id)
    await bench.assert_paid(task)
    (reference,) = second.sent[0].references
    async with reference.open() as chunks:
        assert len(b"".join([chunk async for chunk in chunks])) == reference.size


async def test_a_file_that_goes_between_two_sends_fails_the_task(bench: Bench) -> None:
    file, task_id = await named(bench)

    def busy() -> SubmitOutcome:
        lose(bench, file)
        return BUSY

    first, second = two([busy], [done()])
    gateway = bench.gateway((CHANNEL, first), (SECOND, second))
    task = await gateway.ran(task_id)
    await bench.assert_released(task, "reference_gone")
    assert (len(first.sent), second.sent) == (1, [])


async def test_a_task_that_an_upstream_has_needs_its_file_no_more(bench: Bench) -> None:
    file, task_id = await named(bench)

    def accepted() -> SubmitOutcome:
        lose(bench, file)
        return Accepted("upstream-1", 0)

    task = await bench.ran(Scripted([accepted], [done()]), task_id=task_id)
    await bench.assert_paid(task)


async def test_a_restart_takes_a_task_up_with_its_file(bench: Bench) -> None:
    _, task_id = await named(bench)
    await bench.begun(task_id, upstream_id="upstream-1")
    task = await bench.ran(Scripted([], [done()]), task_id=task_id)
    await bench.assert_paid(task)


async def test_a_job_that_an_upstream_has_is_followed_while_images_cannot_be_looked_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, task_id = await named(bench)
    await bench.begun(task_id, upstream_id="upstream-1")

    async def away(key: str) -> bool:
        raise Unavailable(key)

    monkeypatch.setattr(bench.disk, "holds", away)
    task = await bench.ran(Scripted([], [done()]), task_id=task_id)
    await bench.assert_paid(task)
