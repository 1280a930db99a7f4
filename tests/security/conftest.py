"""A server for tests that stay outside: it works on no task, and has an operator's password."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from calotype.domain.secret import Secret
from console.tabs import PASSWORD
from harness import Server, running_server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    data = tmp_path_factory.mktemp("data")
    async with running_server(
        data, with_worker=False, behind_proxy=True, admin_password=Secret(PASSWORD)
    ) as running:
        yield running
