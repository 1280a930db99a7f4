"""Signing in and out."""

import hmac

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from calotype.console import throttle
from calotype.console.access import (
    HOMES,
    SIGN_IN,
    check_origin,
    check_token,
    local,
    sign,
)
from calotype.console.context import Console
from calotype.console.errors import PageError
from calotype.console.forms import Form
from calotype.console.render import redirect
from calotype.console.sessions import Role
from calotype.domain.errors import InvalidKey
from calotype.domain.keys import ApiKey
from calotype.domain.secret import Secret

_BAD_KEY = "No account opens with this key: it is not known here, was revoked, or has expired."
_BAD_PASSWORD = "This is not the operator's password."  # noqa: S105 -- what is said of one


def routes(console: Console) -> list[Route]:
    """The routes of this group."""
    pages = _SignIn(console)
    return [
        Route(SIGN_IN, pages.show),
        Route(SIGN_IN, pages.enter, methods=["POST"]),
        Route("/console/sign-out", pages.leave, methods=["POST"]),
    ]


class _SignIn:
    def __init__(self, console: Console) -> None:
        self._console = console

    async def show(self, request: Request) -> Response:
        wanted = local(request.query_params.get("next", ""))
        signed = await sign(self._console, request)
        if signed is not None:
            return redirect(wanted or HOMES[signed.role])
        return self._form(request, wanted=wanted)

    async def enter(self, request: Request) -> Response:
        check_origin(self._console, request)
        refuse_many(self._console, request)
        form = await Form.read(request)
        check_token(self._console, self._console.sessions.visit(request), form.get("csrf"))
        wanted = local(form.get("next"))
        if form.get("way") == "password":
            if not _same(form.get("password"), self._console.settings.admin_password):
                return self._form(request, wanted=wanted, way="password", wrong=_BAD_PASSWORD)
            return self._begin(request, "admin", None, wanted)
        try:
            key = await self._console.accounts.authenticate(form.get("key"))
        except InvalidKey:
            return self._form(request, wanted=wanted, way="key", wrong=_BAD_KEY)
        return self._begin(request, "account", key, wanted)

    async def leave(self, request: Request) -> Response:
        signed = await sign(self._console, request)
        if signed is not None:
            check_origin(self._console, request)
            form = await Form.read(request)
            check_token(self._console, signed.session.id, form.get("csrf"))
        response = redirect(SIGN_IN)
        self._console.sessions.end(request, response)
        return response

    def _begin(self, request: Request, role: Role, key: ApiKey | None, wanted: str) -> Response:
        response = redirect(wanted or HOMES[role])
        self._console.sessions.begin(request, response, role, key)
        return response

    def _form(
        self, request: Request, *, wanted: str, way: str = "key", wrong: str = ""
    ) -> Response:
        sessions = self._console.sessions
        request.state.visit = visit = sessions.visit(request)
        response = self._console.render.page(
            request,
            "sign_in.html",
            status=403 if wrong else 200,
            by_password=bool(self._console.settings.admin_password.value),
            way=way,
            wanted=wanted,
            wrong=wrong,
        )
        sessions.keep_visit(request, response, visit)
        return response


def refuse_many(console: Console, request: Request) -> None:
    """Refuse whoever tries too often to sign in.

    Raises:
        PageError: so it is, with the time to wait.

    """
    seconds = console.throttle.wait(throttle.address_of(request))
    if seconds:
        raise PageError(
            429,
            f"Too many tries to sign in; try again in {seconds} seconds.",
            headers={"retry-after": str(seconds)},
        )


def _same(given: str, password: Secret) -> bool:
    """Whether a password is the operator's, in the same time for each; none is nobody's."""
    same = hmac.compare_digest(given.encode(), password.value.encode())
    return same and bool(password.value)
