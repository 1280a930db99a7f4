"""Who may see a page, and that a form is ours."""

from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import SplitResult, quote, urlsplit

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from calotype.console.context import Console
from calotype.console.errors import PageError
from calotype.console.forms import Form
from calotype.console.render import redirect
from calotype.console.sessions import Role, Session, Signed
from calotype.domain.keys import ApiKey

SIGN_IN: Final = "/console/sign-in"
HOMES: Final[dict[Role, str]] = {
    "account": "/console/playground",
    "admin": "/console/operator",
}
_SAFE: Final = frozenset({"GET", "HEAD"})
_NOT_OURS: Final = (
    "This form was open for too long, or was sent from another site. Go back, load the page "
    "anew and send it again. The browser has to keep cookies; where public_url begins with https, "
    "the console works at that address only."
)
_ELSEWHERE: Final = (
    "This form was sent from another site. Open the console at its own address; behind a proxy, "
    "public_url has to name that address."
)


class Visitor(msgspec.Struct, frozen=True):
    """Who asks for a page, and the form that they sent with it."""

    session: Session
    api_key: ApiKey | None
    """None for the operator."""
    form: Form

    @property
    def key(self) -> ApiKey:
        """The key with which an account signed in."""
        if self.api_key is None:
            raise TypeError("the operator has no key")
        return self.api_key

    @property
    def account_id(self) -> int:
        """Whose pages these are."""
        return self.key.account_id

    @property
    def actor(self) -> str:
        """Who this is in the audit log."""
        return "console" if self.api_key is None else f"account {self.api_key.account}"


Handler = Callable[[Request, Visitor], Awaitable[Response]]
Endpoint = Callable[[Request], Awaitable[Response]]


def account_page(console: Console, handler: Handler, *, reads_body: bool = False) -> Endpoint:
    """A page for whoever signed in with a key.

    A request that is not only to read carries a form with our token, which is read here. A
    handler that ``reads_body`` itself, such as one that takes files, has no form and calls
    ``check_form`` with what the body says.
    """
    return _page(console, handler, "account", reads_body=reads_body)


def operator_page(console: Console, handler: Handler, *, reads_body: bool = False) -> Endpoint:
    """A page for the operator; ``account_page`` tells the rest."""
    return _page(console, handler, "admin", reads_body=reads_body)


def anyones_page(console: Console, handler: Handler) -> Endpoint:
    """A page for whoever signed in; ``account_page`` tells the rest."""
    return _page(console, handler, None, reads_body=False)


def _page(console: Console, handler: Handler, role: Role | None, *, reads_body: bool) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        signed = await sign(console, request)
        if signed is None:
            return _to_sign_in(request)
        if role is not None and signed.role != role:
            whose = "users, who sign in with an API key" if role == "account" else "the operator"
            raise PageError(403, f"This page is for {whose}; sign out first to change over.")
        form = Form()
        if request.method not in _SAFE:
            check_origin(console, request)
            if not reads_body:
                form = await Form.read(request)
                check_form(console, request, signed.session, form.get("csrf"))
            elif "x-csrf-token" in request.headers:  # refused before files are stored
                check_form(console, request, signed.session)
        return await handler(request, Visitor(signed.session, signed.key, form))

    return endpoint


async def sign(console: Console, request: Request) -> Signed | None:
    """Who signed in; the templates of this request know it from now on."""
    signed = await console.sessions.find(request)
    request.state.signed = signed
    return signed


def check_form(console: Console, request: Request, session: Session, field: str = "") -> None:
    """Refuse a form whose field, or else whose header, does not hold our token.

    Raises:
        PageError: so it is.

    """
    token = field or request.headers.get("x-csrf-token", "")
    check_token(console, session.id, token)


def check_token(console: Console, bound_to: str, token: str) -> None:
    """Refuse a form that is not one of ours, made for this session or visit.

    Raises:
        PageError: so it is.

    """
    if not console.sessions.is_token(token, bound_to):
        raise PageError(403, _NOT_OURS, title="Once more, please")


def check_origin(console: Console, request: Request) -> None:
    """Refuse what a browser says that another site has sent.

    Raises:
        PageError: so it is.

    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        if site not in {"same-origin", "none"}:
            raise PageError(403, _ELSEWHERE)
        return
    origin = request.headers.get("origin", "null")
    ours = {request.headers.get("host", ""), urlsplit(console.settings.public_url).netloc}
    if origin != "null" and _split(origin).netloc not in ours:
        raise PageError(403, _ELSEWHERE)


def local(path: str) -> str:
    """A path of the console to go on to; empty when it is none."""
    inside = path == "/console" or path.startswith(("/console/", "/console?"))
    plain = path.isascii() and path.isprintable() and "\\" not in path and ".." not in path
    return path if inside and plain and not path.startswith(SIGN_IN) else ""


def _split(url: str) -> SplitResult:
    """The parts of a URL that somebody says; all empty where it is none."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def _to_sign_in(request: Request) -> Response:
    """To the sign-in page and, from there, back to this one."""
    asked = "hx-request" in request.headers
    wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    if asked:
        shown = _split(request.headers.get("hx-current-url", ""))
        wanted = shown.path + (f"?{shown.query}" if shown.query else "")
    elif request.method not in _SAFE:
        wanted = ""
    wanted = local(wanted)
    path = f"{SIGN_IN}?next={quote(wanted, safe='/')}" if wanted else SIGN_IN
    return Response(headers={"hx-redirect": path}) if asked else redirect(path)
