"""A bed for each test, and a bench where the whole way is gone."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from calotype.providers import runware
from providers.bed import Bed, opened_bed, protocols
from providers.protocol import Protocol
from providers.way import opened_way
from services.bench import Bench


@pytest.fixture(params=protocols())
def protocol(request: pytest.FixtureRequest) -> Protocol:
    """Each protocol in turn; a test that names scripts or examples sets it itself."""
    return protocols()[request.param]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for half a minute until a lost send is known to be none."""
    monkeypatch.setattr(runware, "PAUSES", (0.0,) * len(runware.PAUSES))


@pytest.fixture
async def bed(protocol: Protocol, tmp_path: Path) -> AsyncIterator[Bed]:
    """One protocol under test."""
    async with opened_bed(protocol, tmp_path) as opened:
        yield opened


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """Everything a runner needs, real but for the upstream and the clock."""
    async with opened_way(tmp_path) as opened:
        yield opened
