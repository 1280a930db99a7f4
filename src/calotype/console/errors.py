"""What goes wrong, as a page."""

from collections.abc import Mapping
from typing import Final

from starlette.types import Scope

from calotype.console.render import HEADERS, Renderer
from calotype.domain.errors import CalotypeError

PREFIX: Final = "/console"
_FIRST_OF_OURS: Final = 500
_TITLES: Final = {
    403: "Not allowed",
    404: "Nothing here",
    405: "Not this way",
    429: "Too many tries",
    500: "Something broke",
    503: "Not right now",
}
_LOST: Final = "There is no such page, or what it showed belongs to someone else."


class PageError(Exception):
    """A request of a browser that is refused.

    Args:
        status: of HTTP.
        message: one sentence for a person: what is wrong, and what would be right.
        title: in a few words; without it, what the status says.
        headers: that go with it.

    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        title: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.title = title
        self.headers = headers or {}


class ErrorPages:
    """Errors, for whoever sits before a browser."""

    def __init__(self, render: Renderer) -> None:
        self._render = render

    def covers(self, scope: Scope) -> bool:
        """Whether a request was for the console."""
        path: str = scope["path"]
        return path == PREFIX or path.startswith(f"{PREFIX}/")

    def answer(
        self, scope: Scope, error: CalotypeError, status: int
    ) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        """Body and headers of the answer that says so."""
        message = _LOST if error.code == "unknown_route" else error.message
        return self.page(scope, message, status), [
            (b"content-type", b"text/html; charset=utf-8"),
            *((name.encode(), value.encode()) for name, value in HEADERS.items()),
        ]

    def page(self, scope: Scope, message: str, status: int, title: str = "") -> bytes:
        """The page that says so; for htmx, a piece of one."""
        asked = any(name == b"hx-request" for name, _ in scope["headers"])
        template = "error_fragment.html" if asked else "error.html"
        ours = status >= _FIRST_OF_OURS
        title = title or _TITLES.get(status, "Something broke" if ours else "Not like this")
        text = self._render.text(scope, template, title=title, message=message, status=status)
        return text.encode()
