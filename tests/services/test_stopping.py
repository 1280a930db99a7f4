"""The queue in one process: a task runs once at a time, and stopping cuts off what does not end."""

import asyncio

import msgspec
import pytest

from calotype.domain.errors import Unavailable
from calotype.queue import EmbeddedQueue
from harness import until
from services.bench import CHANNEL


class Runs:
    """What the queue has run: begins, waits until let go, and tidies up with an await."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.tidied: list[int] = []
        self.go_on = asyncio.Event()

    async def __call__(self, task_id: int) -> None:
        self.begun.append(task_id)
        try:
            await self.go_on.wait()
            self.ended.append(task_id)
        finally:
            for _ in range(3):
                await asyncio.sleep(0)
            self.tidied.append(task_id)


@pytest.mark.parametrize("patience", [0, 0.2])
async def test_what_does_not_end_in_time_is_cut_off_once_and_tidies_up(patience: float) -> None:
    runs = Runs()
    queue = EmbeddedQueue(runs, channels=[CHANNEL])
    queue.start()
    for task_id in range(5):
        queue.put(task_id, CHANNEL.id, 0)
    await until(lambda: len(runs.begun) == 5)
    async with asyncio.timeout(20):
        assert await queue.stop(patience) == 5
    assert runs.ended == []
    assert sorted(runs.tidied) == [0, 1, 2, 3, 4]
    assert not queue.alive


async def test_what_ends_in_time_is_not_cut_off() -> None:
    runs = Runs()
    queue = EmbeddedQueue(runs, channels=[CHANNEL])
    queue.start()
    queue.put(1, CHANNEL.id, 0)
    await until(lambda: runs.begun == [1])
    asyncio.get_running_loop().call_later(0.05, runs.go_on.set)
    assert await queue.stop(20) == 0
    assert (runs.ended, runs.tidied) == ([1], [1])


async def test_a_task_that_is_put_twice_runs_once_at_a_time() -> None:
    runs = Runs()
    queue = EmbeddedQueue(runs, channels=[CHANNEL])
    queue.start()
    for _ in range(3):
        queue.put(7, CHANNEL.id, 0)
    queue.put(8, CHANNEL.id, 0)
    await until(lambda: 8 in runs.begun)
    assert runs.begun.count(7) == 1
    runs.go_on.set()
    await until(lambda: 7 in runs.tidied)
    assert await queue.stop(20) == 0


async def test_a_task_that_is_put_again_takes_no_second_place() -> None:
    runs = Runs()
    narrow = msgspec.structs.replace(CHANNEL, concurrency=2)
    queue = EmbeddedQueue(runs, channels=[narrow])
    queue.start()
    queue.put(7, CHANNEL.id, 0)
    await until(lambda: runs.begun == [7])
    for _ in range(3):
        queue.put(7, CHANNEL.id, 0)
    queue.put(8, CHANNEL.id, 0)
    await until(lambda: runs.begun == [7, 8])
    runs.go_on.set()
    await until(lambda: runs.tidied.count(8) == 1)
    queue.put(7, CHANNEL.id, 0)
    await until(lambda: runs.begun == [7, 8, 7])
    assert await queue.stop(20) == 0


async def test_a_task_that_is_moved_runs_in_its_new_place_once_the_old_run_has_ended() -> None:
    other = msgspec.structs.replace(CHANNEL, id=77, slug="other")
    places: list[int] = []

    async def run(task_id: int) -> None:
        places.append(task_id)
        if len(places) == 1:
            queue.put(task_id, other.id, None)

    queue = EmbeddedQueue(run, channels=[CHANNEL, other])
    queue.start()
    queue.put(7, CHANNEL.id, 3)
    await until(lambda: places == [7, 7])
    assert await queue.stop(20) == 0
    assert places == [7, 7]


async def test_a_task_that_is_moved_to_where_it_is_runs_again() -> None:
    """As one whose channel is gone from the configuration: it waits at another one's place."""
    runs: list[int] = []

    async def run(task_id: int) -> None:
        runs.append(task_id)
        if len(runs) == 1:
            queue.put(task_id, CHANNEL.id, None)

    queue = EmbeddedQueue(run, channels=[CHANNEL])
    queue.start()
    queue.put(7, CHANNEL.id, 0)
    await until(lambda: runs == [7, 7])
    assert await queue.stop(20) == 0


async def test_a_queue_that_never_started_stops() -> None:
    assert await EmbeddedQueue(Runs(), channels=[CHANNEL]).stop(20) == 0


async def test_tasks_wait_for_a_place_at_their_channel_by_priority_then_by_age() -> None:
    runs = Runs()
    narrow = msgspec.structs.replace(CHANNEL, concurrency=1)
    queue = EmbeddedQueue(runs, channels=[narrow])
    queue.start()
    for task_id, priority in ((1, 0), (2, 9), (3, 5), (4, 5)):
        queue.put(task_id, CHANNEL.id, priority)
    await until(lambda: runs.begun == [2])
    queue.put(5, CHANNEL.id, 7)
    runs.go_on.set()
    await until(lambda: runs.ended == [2, 5, 3, 4, 1])
    assert await queue.stop(20) == 0


async def test_a_channel_that_nobody_serves_yet_gets_its_tasks_once_it_is_served() -> None:
    runs = Runs()
    queue = EmbeddedQueue(runs, channels=[])
    queue.start()
    queue.put(1, CHANNEL.id, 0)
    queue.put(2, CHANNEL.id, 0)
    await asyncio.sleep(0)
    queue.serve([msgspec.structs.replace(CHANNEL, concurrency=1)])
    await until(lambda: runs.begun == [1])
    queue.serve([CHANNEL])
    await until(lambda: runs.begun == [1, 2])
    assert await queue.stop(0) == 2


async def test_what_breaks_or_is_to_wait_is_run_again_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("calotype.queue.RETRY_SECONDS", 0.01)
    answers: list[Exception | float | None] = [RuntimeError("broke"), Unavailable("away"), 0.01]

    async def run(_task_id: int) -> float | None:
        answer = answers.pop(0) if answers else None
        if isinstance(answer, Exception):
            raise answer
        return answer

    queue = EmbeddedQueue(run, channels=[CHANNEL])
    queue.start()
    queue.put(1, CHANNEL.id, 0)
    await until(lambda: not answers and queue.running == 0)
    assert await queue.stop(20) == 0
