"""A page in a browser, and what was wrong with it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import ConsoleMessage, Error, Page, Request, Response

Role = Literal["account", "admin"]
Theme = Literal["light", "dark"]

NARROW, WIDE = 360, 1600
EVERY_LOOK = pytest.mark.parametrize(
    ("theme", "width"),
    [(theme, width) for theme in ("light", "dark") for width in (NARROW, WIDE)],
)
"""For a test that takes ``theme`` and ``width``."""
_GIVEN_UP: Final = ("htmx:sendAbort", "htmx:afterRequest")
"""What htmx says of a request whose answer a page no longer waits for; of a failed one it says
``htmx:sendError``, too."""
_TELL = """addEventListener("securitypolicyviolation", event =>
    tellTest(`${event.violatedDirective} kept ${event.blockedURI} out at ${event.sourceFile}`))"""


@dataclass
class Screen:
    """A page in a browser of its own, and what was wrong with it."""

    page: Page
    url: str
    """The server's."""
    theme: Theme
    width: int
    shots: Path
    faults: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)
    """Words of faults that this test is about, such as ``status of 403``."""

    async def open(self, path: str) -> Page:
        """Go to a page of the server, as by its address."""
        await self.page.goto(self.url + path)
        return self.page

    async def judge(self, name: str) -> None:
        """What every page has to stand: axe, nothing beyond its width; and keep a screenshot."""
        await self.page.screenshot(
            path=self.shots / f"{name}-{self.theme}-{self.width}.png", full_page=True
        )
        found = await Axe().run(self.page)
        assert found.violations_count == 0, found.generate_report()
        beyond = await self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert beyond <= 0, f"{name} is {beyond} px wider than {self.width} px"

    async def listen(self) -> None:
        """Note whatever goes wrong from now on."""
        await self.page.expose_function("tellTest", self._told)
        await self.page.add_init_script(_TELL)
        self.page.on("console", self._said)
        self.page.on("pageerror", self._broke)
        self.page.on("requestfailed", self._failed)
        self.page.on("response", self._answered)

    def unexpected(self) -> list[str]:
        """The faults that no test waits for."""
        return [
            fault for fault in self.faults if not any(words in fault for words in self.expected)
        ]

    def _told(self, words: str) -> None:
        self.faults.append(words)

    def _broke(self, error: Error) -> None:
        self.faults.append(f"broke: {error}")

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not message.text.startswith(_GIVEN_UP):
            self.faults.append(f"{message.type}: {message.text} ({message.location})")

    def _failed(self, request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # whoever leaves a page ends what it waits for
            self.faults.append(f"{request.method} {request.url}: {request.failure}")

    def _answered(self, response: Response) -> None:
        if response.status >= 400:
            self.faults.append(f"{response.url}: status of {response.status}")


Opens = Callable[..., Awaitable[Screen]]
"""What the fixtures ``screens`` and ``signed_in_page`` are."""
