"""Pages from templates, and the headers that go with every answer of the console."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import Scope

import calotype
from calotype.console.filters import filters
from calotype.console.sessions import Role, Sessions, Signed
from calotype.console.static_files import StaticFiles
from calotype.domain.clock import Clock

if TYPE_CHECKING:
    from jinja2 import Environment

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; font-src 'self'; manifest-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Final[Mapping[str, str]] = {
    "cache-control": "no-store",
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
"""With every answer of the console that does not say otherwise."""
SEE_OTHER: Final = 303


class NavItem(msgspec.Struct, frozen=True):
    """A group of pages in the navigation."""

    path: str
    label: str
    icon: str


NAV: Final[Mapping[Role, Sequence[NavItem]]] = {
    "account": (
        NavItem("/console/playground", "Playground", "playground"),
        NavItem("/console/gallery", "Gallery", "gallery"),
        NavItem("/console/tasks", "Tasks", "tasks"),
        NavItem("/console/keys", "Keys", "keys"),
        NavItem("/console/usage", "Usage", "usage"),
        NavItem("/console/ledger", "Ledger", "ledger"),
        NavItem("/console/webhooks", "Webhooks", "webhooks"),
    ),
    "admin": (
        NavItem("/console/operator", "Overview", "overview"),
        NavItem("/console/operator/accounts", "Accounts", "accounts"),
        NavItem("/console/operator/usage", "Usage", "usage"),
        NavItem("/console/operator/channels", "Channels", "channels"),
        NavItem("/console/operator/queue", "Queue", "queue"),
        NavItem("/console/operator/tasks", "Tasks", "tasks"),
        NavItem("/console/operator/unknown", "Unknown outcomes", "unknown"),
        NavItem("/console/operator/catalog", "Catalog", "catalog"),
        NavItem("/console/operator/settings", "Settings", "settings"),
        NavItem("/console/operator/audit", "Audit log", "audit"),
    ),
}


class Renderer:
    """Makes answers of templates; what Jinja needs is read when the first page is asked for.

    Every template has ``csrf``, ``session`` (None, or with ``role``, ``account`` and
    ``key_name``), ``nav`` (of ``NavItem``), ``here`` (the path of the item of ``nav`` that the
    page belongs to), ``path``, ``version`` and ``static(path)``, and the filters of
    ``filters.py``.
    """

    def __init__(self, sessions: Sessions, *, clock: Clock) -> None:
        self.static = StaticFiles()
        self._sessions = sessions
        self._clock = clock

    def page(
        self,
        request: Request,
        template: str,
        *,
        status: int = 200,
        fragment: str = "",
        **values: Any,
    ) -> Response:
        """A page; where htmx asks and a ``fragment`` is named, that template with these values."""
        asked = "hx-request" in request.headers
        whole = not asked or "hx-history-restore-request" in request.headers
        name = template if whole or not fragment else fragment
        vary = {"vary": "HX-Request"} if fragment else {}
        return HTMLResponse(self.text(request.scope, name, **values), status, vary)

    def text(self, scope: Scope, template: str, **values: Any) -> str:
        """A template with these values."""
        signed: Signed | None = scope.get("state", {}).get("signed")
        visit: str = scope.get("state", {}).get("visit", "")
        bound_to = visit if signed is None else signed.session.id
        given = {
            "csrf": self._sessions.token(bound_to) if bound_to else "",
            "here": "",
            "nav": (),
            "path": scope["path"],
            "session": signed,
        }
        if signed is not None:
            given |= {"nav": NAV[signed.role], "here": _here(signed.role, scope["path"])}
        return self._environment.get_template(template).render(given | values)

    @cached_property
    def _environment(self) -> "Environment":
        import jinja2

        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("calotype.console"),
            autoescape=True,
            auto_reload=False,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters.update(filters(self._clock))
        environment.globals.update(static=self.static.url, version=calotype.__version__)
        return environment


def redirect(path: str) -> Response:
    """Go on to a page of the console."""
    return RedirectResponse(path, SEE_OTHER)


def _here(role: Role, path: str) -> str:
    within = [each.path for each in NAV[role] if f"{path}/".startswith(f"{each.path}/")]
    return max(within, key=len, default="")
