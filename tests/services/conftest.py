"""A bench for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.bench import Bench, opened_bench


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """Everything a runner needs, real but for the upstream and the clock."""
    async with opened_bench(tmp_path) as opened:
        yield opened
