"""Signing out, here or everywhere."""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from calotype.console.access import SIGN_IN, check_origin, check_token, sign
from calotype.console.context import Console
from calotype.console.forms import Form
from calotype.console.render import redirect
from calotype.console.sessions import Signed
from calotype.services.audit import CONSOLE

SIGN_OUT: Final = "/console/sign-out"
EVERYWHERE: Final = "/console/sign-out-everywhere"


def routes(console: Console) -> list[Route]:
    """The routes of this group."""

    async def here(request: Request) -> Response:
        signed = await _asked(console, request)
        if signed is not None:
            await console.sessions.end_one(signed)
        return _gone(console, request, signed)

    async def sure(request: Request) -> Response:
        signed = await sign(console, request)
        if signed is None:
            return redirect(SIGN_IN)
        return console.render.page(request, "sign_out_everywhere.html")

    async def everywhere(request: Request) -> Response:
        signed = await _asked(console, request)
        if signed is not None and signed.role == "admin":
            async with console.audit.action(CONSOLE, "admin.sign-out-everywhere", "admin"):
                await console.sessions.end_all(signed)
        elif signed is not None:
            await console.sessions.end_all(signed)
        return _gone(console, request, signed)

    return [
        Route(SIGN_OUT, here, methods=["POST"]),
        Route(EVERYWHERE, sure),
        Route(EVERYWHERE, everywhere, methods=["POST"]),
    ]


async def _asked(console: Console, request: Request) -> Signed | None:
    """Whoever wants to sign out; None when they are out already."""
    check_origin(console, request)
    signed = await sign(console, request)
    if signed is not None:
        form = await Form.read(request)
        check_token(console, signed.session.id, form.get("csrf"))
    return signed


def _gone(console: Console, request: Request, signed: Signed | None) -> Response:
    """To the sign-in page; a browser sends no cookie from another site, and keeps it."""
    response = redirect(SIGN_IN)
    if signed is not None:
        console.sessions.end(request, response)
        response.headers["clear-site-data"] = '"cache"'  # small copies of the account's images
    return response
