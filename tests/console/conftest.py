"""A browser before a server of its own, which lets no fault of a page go by.

Tests of pages are coroutines in the loop of their module, where the server runs, too:
``pytestmark = pytest.mark.asyncio(loop_scope="module")``.
"""

import os
import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, async_playwright

from calotype.domain.secret import Secret
from console.screens import WIDE, Opens, Role, Screen, Theme
from console.tabs import PASSWORD, some_address
from harness import Server, running_server
from programs import installed

HEIGHT = 900
HERE = Path(__file__).parent
SHOTS = os.environ.get("CALOTYPE_SCREENSHOTS")  # noqa: TID251 -- of the tests, not of a server
"""Where screenshots are kept; without it they go with the test's own folder."""


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Have a browser before the first test that needs one, outside of any test's time."""
    if any(HERE in item.path.parents for item in items):
        installed("chromium", "chromium")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """A server with a worker whose sandbox answers at once, and an operator's password."""
    data = tmp_path_factory.mktemp("data")
    async with running_server(data, behind_proxy=True, admin_password=Secret(PASSWORD)) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """The system's Chromium."""
    path = installed("chromium", "chromium")
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        await chromium.close()


@pytest_asyncio.fixture(loop_scope="module")
async def screens(site: Server, browser: Browser, tmp_path: Path) -> AsyncIterator[Opens]:
    """Opens a screen: ``await screens(theme="dark", width=360)``; faults fail the test."""
    shots = Path(SHOTS) if SHOTS else tmp_path / "screenshots"
    shots.mkdir(parents=True, exist_ok=True)
    opened: list[Screen] = []
    contexts: list[BrowserContext] = []

    async def opens(*, theme: Theme = "light", width: int = WIDE, **options: Any) -> Screen:
        context = await browser.new_context(
            color_scheme=theme,
            viewport={"width": width, "height": HEIGHT},
            reduced_motion="reduce",
            locale="en-GB",
            timezone_id="UTC",
            extra_http_headers={"X-Forwarded-For": some_address()},
            **options,
        )
        context.set_default_timeout(30_000)
        contexts.append(context)
        screen = Screen(await context.new_page(), site.url, theme, width, shots)
        await screen.listen()
        opened.append(screen)
        return screen

    yield opens
    for context in contexts:
        await context.close()
    assert [fault for screen in opened for fault in screen.unexpected()] == []


@pytest_asyncio.fixture(loop_scope="module")
async def signed_in_page(site: Server, screens: Opens) -> Opens:
    """Opens a screen where somebody signed in: ``await signed_in_page("admin", width=360)``.

    An account signs in with ``key``, by default the server's own.
    """

    async def opens(
        role: Role = "account",
        theme: Theme = "light",
        width: int = WIDE,
        *,
        key: str = "",
        **options: Any,
    ) -> Screen:
        screen = await screens(theme=theme, width=width, **options)
        asking = screen.page.context.request
        form = await (await asking.get(f"{site.url}/console/sign-in")).text()
        token = re.search(r'name="csrf" value="(\w+)"', form)
        assert token is not None, form
        said = {"way": "key", "key": key or site.key}
        if role == "admin":
            said = {"way": "password", "password": PASSWORD}
        answer = await asking.post(
            f"{site.url}/console/sign-in",
            form={"csrf": token[1], "next": "/console", **said},
            headers={"X-Forwarded-For": some_address()},
            max_redirects=0,
        )
        assert answer.status == 303, await answer.text()
        return screen

    return opens
