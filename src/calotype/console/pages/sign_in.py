"""Signing in: with an API key, or as the operator with a password or a one-time link."""

import hmac
import logging
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from calotype.console import throttle
from calotype.console.access import HOMES, SIGN_IN, check_origin, check_token, local, sign
from calotype.console.context import Console
from calotype.console.errors import PageError
from calotype.console.forms import Form
from calotype.console.render import redirect
from calotype.console.sessions import HOURS, Role
from calotype.domain.errors import InvalidKey
from calotype.domain.keys import ApiKey
from calotype.domain.secret import Secret
from calotype.services.audit import CONSOLE

ENTER: Final = "/console/enter"
_BAD_KEY: Final = (
    "No account opens with this key: it is not known here, was revoked, or has expired."
)
_BAD_PASSWORD: Final = "This is not the operator's password."  # noqa: S105 -- what is said of one
_BAD_LINK: Final = (
    "This link was used already, has expired, or is not whole. Print another one on the server: "
    "calotype admin link."
)

log = logging.getLogger(__name__)


def routes(console: Console) -> list[Route]:
    """The routes of this group."""
    pages = _SignIn(console)
    return [
        Route(SIGN_IN, pages.form),
        Route(SIGN_IN, pages.sign_in, methods=["POST"]),
        Route(ENTER, pages.door),
        Route(ENTER, pages.enter, methods=["POST"]),
    ]


class _SignIn:
    def __init__(self, console: Console) -> None:
        self._console = console

    async def form(self, request: Request) -> Response:
        """Ask who it is."""
        wanted = local(request.query_params.get("next", ""))
        signed = await sign(self._console, request)
        if signed is not None:
            return redirect(wanted or HOMES[signed.role])
        return self._form(request, wanted=wanted)

    async def sign_in(self, request: Request) -> Response:
        """Judge what was said."""
        form = await self._read(request)
        wanted, by_password = local(form.get("next")), form.get("way") == "password"
        self._count(request, guessable=by_password)
        if by_password:
            if not _same(form.get("password"), self._console.settings.admin_password):
                log.warning("a wrong operator's password from %s", self._address(request))
                return self._form(request, wanted=wanted, way="password", wrong=_BAD_PASSWORD)
            return await self._begin_as_operator(request, wanted, by_password=True)
        try:
            key = await self._console.accounts.authenticate(form.get("key"))
        except InvalidKey:
            return self._form(request, wanted=wanted, wrong=_BAD_KEY)
        return self._begin(request, "account", wanted, key)

    async def door(self, request: Request) -> Response:
        """Show the button of a one-time link: whoever only looks at a link does not use it up."""
        token = request.query_params.get("token", "")
        if self._console.links.check(token) is None:
            raise PageError(403, _BAD_LINK, title="This link is over")
        response = self._page(request, "enter.html", token=token, hours=HOURS["admin"])
        response.headers["referrer-policy"] = "no-referrer"
        return response

    async def enter(self, request: Request) -> Response:
        """Use up a one-time link."""
        form = await self._read(request)
        self._count(request)
        link = self._console.links.check(form.get("token"))
        if link is None or not await self._console.store.operating.spend_link(
            link.nonce, expires_at=link.expires_at, now=self._console.clock()
        ):
            raise PageError(403, _BAD_LINK, title="This link is over")
        return await self._begin_as_operator(request, "", by_password=False)

    async def _read(self, request: Request) -> Form:
        """The form of somebody who is not signed in."""
        check_origin(self._console, request)
        form = await Form.read(request)
        check_token(self._console, self._console.sessions.visit(request), form.get("csrf"))
        return form

    def _count(self, request: Request, *, guessable: bool = False) -> None:
        """Refuse whoever tries too often."""
        seconds = self._console.throttle.wait(self._address(request), guessable=guessable)
        if seconds:
            raise PageError(
                429,
                f"Too many tries to sign in; try again in {seconds} seconds.",
                headers={"retry-after": str(seconds)},
            )

    def _address(self, request: Request) -> str:
        behind_proxy = bool(self._console.settings.public_url)
        return throttle.address_of(request, behind_proxy=behind_proxy)

    async def _begin_as_operator(
        self, request: Request, wanted: str, *, by_password: bool
    ) -> Response:
        how = "with the password" if by_password else "with a one-time link"
        where = f"{how}, from {self._address(request)}"
        async with self._console.audit.action(CONSOLE, "admin.sign-in", "admin", where):
            return self._begin(request, "admin", wanted, by_password=by_password)

    def _begin(
        self,
        request: Request,
        role: Role,
        wanted: str,
        key: ApiKey | None = None,
        *,
        by_password: bool = False,
    ) -> Response:
        response = redirect(wanted or HOMES[role])
        self._console.sessions.begin(request, response, role, key, by_password=by_password)
        return response

    def _form(
        self, request: Request, *, wanted: str, way: str = "key", wrong: str = ""
    ) -> Response:
        return self._page(
            request,
            "sign_in.html",
            status=403 if wrong else 200,
            by_password=bool(self._console.settings.admin_password.value),
            wanted=wanted,
            way=way,
            wrong=wrong,
        )

    def _page(
        self, request: Request, template: str, *, status: int = 200, **values: Any
    ) -> Response:
        """A page whose form is bound to this visit."""
        sessions = self._console.sessions
        request.state.visit = visit = sessions.visit(request)
        response = self._console.render.page(request, template, status=status, **values)
        sessions.keep_visit(request, response, visit)
        return response


def _same(given: str, password: Secret) -> bool:
    """Whether a password is the operator's, in the same time for each; none is nobody's."""
    same = hmac.compare_digest(given.encode(), password.value.encode())
    return same and bool(password.value)
