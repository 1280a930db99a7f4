"""Every route of the console, in one application."""

from functools import cached_property
from importlib import import_module
from pkgutil import iter_modules

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route, Router
from starlette.types import Message, Receive, Scope, Send

from calotype.console.access import sign
from calotype.console.context import Console
from calotype.console.errors import PREFIX, ErrorPages, PageError
from calotype.console.render import HEADERS
from calotype.console.static_files import PREFIX as STATIC
from calotype.domain.errors import CalotypeError


class ConsoleApp:
    """The console as one ASGI application: its pages, and headers on whatever it answers."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._errors = ErrorPages(console.render)

    @cached_property
    def _router(self) -> Router:
        """Its pages, which are read for the first visitor: no start waits for them."""
        from calotype.console import live, pages

        names = (each.name for each in iter_modules(pages.__path__, f"{pages.__name__}."))
        groups = [live, *map(import_module, names)]
        found = [each for group in groups for each in group.routes(self._console)]
        static = Route(f"{STATIC}/{{version}}/{{path:path}}", self._console.render.static.handle)
        return Router([static, *found], redirect_slashes=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            try:
                await self._router(scope, receive, answer)
            except (CalotypeError, HTTPException, PageError):
                if "signed" not in scope["state"]:  # errors have the frame of whoever signed in
                    await sign(self._console, Request(scope))
                raise
        except PageError as error:
            body = self._errors.page(scope, error.message, error.status, error.title)
            await HTMLResponse(body, error.status, error.headers)(scope, receive, answer)


def routes(console: Console) -> list[Route]:
    """The console's routes among the server's."""
    app = ConsoleApp(console)
    return [Route(PREFIX, app), Route(f"{PREFIX}/{{path:path}}", app)]
