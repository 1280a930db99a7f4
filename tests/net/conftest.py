from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from calotype.net.client import UpstreamClient


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[UpstreamClient]:
    made = UpstreamClient(tmp_path, connect_seconds=5)
    yield made
    await made.close()
