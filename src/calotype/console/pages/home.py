"""/console: on to where somebody begins."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from calotype.console.access import HOMES, SIGN_IN, sign
from calotype.console.context import Console
from calotype.console.render import redirect


def routes(console: Console) -> list[Route]:
    """The routes of this group."""

    async def home(request: Request) -> Response:
        signed = await sign(console, request)
        return redirect(SIGN_IN if signed is None else HOMES[signed.role])

    return [
        Route("/console", home),
        Route("/console/", home),
    ]
