"""Ids that another process drew first: others are drawn, and nothing is written twice."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from calotype.core import Core, build_core
from calotype.domain.errors import InternalError
from calotype.domain.ids import IdSource
from calotype.domain.keys import ApiKey
from calotype.services.submission import Accepted, Asked, Submission
from calotype.settings import Settings
from calotype.worker import Images

PLAIN = Asked({"model": "gpt-image-2", "prompt": "a lighthouse"}, [], False, None)


class Drawn(IdSource):
    """Draws these ids first."""

    def __init__(self, core: Core, first: Sequence[int]) -> None:
        super().__init__(core.clock)
        self._first = list(first)

    def next(self) -> int:
        return self._first.pop(0) if self._first else super().next()


@dataclass
class Desk:
    """Takes batches of one account, and knows what it told the worker."""

    core: Core
    images: Images
    key: ApiKey
    told: list[int] = field(default_factory=list)

    async def accepted(self, count: int, *, drawn: Sequence[int]) -> list[int]:
        """The tasks of a batch whose ids are drawn like this."""
        submission = Submission(
            self.core.store,
            self.core.catalog,
            self.core.router,
            assets=self.images.assets,
            enqueue=lambda task_id, _channel, _priority: self.told.append(task_id),
            judge_callback=str,
            reference_days=2,
            ids=Drawn(self.core, drawn),
            clock=self.core.clock,
        )
        results = await submission.submit_batch(self.key, [PLAIN] * count, request_id="req")
        return [result.task.task_id for result in results if isinstance(result, Accepted)]


@asynccontextmanager
async def opened_desk(data: Path) -> AsyncIterator[Desk]:
    core = build_core(Settings(data_dir=data))
    await core.store.migrate()
    _, key = await core.accounts.create_key("test", account="test")
    owner = await core.accounts.find("test")
    assert owner is not None
    await core.accounts.add_credit(owner, 10**9, note="test")
    images = Images(core)
    try:
        yield Desk(core, images, key)
    finally:
        await images.close()
        await core.store.close()


async def test_a_batch_whose_id_is_taken_draws_others_for_all(tmp_path: Path) -> None:
    async with opened_desk(tmp_path) as desk:
        assert await desk.accepted(1, drawn=[7]) == [7]
        tasks = await desk.accepted(3, drawn=[8, 7, 9])
        assert len(set(tasks)) == 3
        assert not {7, 8, 9} & set(tasks)
        assert desk.told == [7, *tasks]
        assert [await desk.core.store.task(number) for number in (8, 9)] == [None, None]
        assert await desk.core.store.prove() == []


async def test_where_no_id_is_free_the_batch_is_refused_and_nothing_is_written(
    tmp_path: Path,
) -> None:
    async with opened_desk(tmp_path) as desk:
        await desk.accepted(1, drawn=[7])
        with pytest.raises(InternalError, match="No free task id"):
            await desk.accepted(2, drawn=[1, 7, 2, 7, 3, 7])
        assert [task.id for task in await desk.core.store.tasks()] == desk.told == [7]
