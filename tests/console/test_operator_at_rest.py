"""The operator's pages where nothing has happened yet, in a browser."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from console.operating import operated_server
from console.screens import EVERY_LOOK, Opens, Theme
from harness import Server

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """A server where nothing has happened."""
    async with operated_server(tmp_path_factory.mktemp("data")) as running:
        yield running


@EVERY_LOOK
async def test_pages_with_nothing_on_them_are_sound(
    signed_in_page: Opens, theme: Theme, width: int
) -> None:
    screen = await signed_in_page("admin", theme, width)
    for path, name in (
        ("", "overview"),
        ("/channels/main", "channel"),
        ("/queue", "queue"),
        ("/unknown", "unknown"),
    ):
        await screen.open(f"/console/operator{path}")
        await screen.judge(f"operator-at-rest-{name}")
