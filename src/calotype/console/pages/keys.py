"""/console/keys: an account's API keys, made, listed, revoked."""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from calotype.console.access import Visitor, account_page
from calotype.console.context import Console
from calotype.console.errors import PageError
from calotype.console.keyring import NOTICES, KeyForm, Keyring
from calotype.console.query import Notice, notice
from calotype.console.render import redirect
from calotype.console.resubmission import new_mark
from calotype.domain.keys import ApiKey

KEYS: Final = "/console/keys"
_LIMITED: Final = (
    "You signed in with a key that is limited or expires, and such a key may not make or revoke "
    "others. Sign in with one that is neither."
)


def routes(console: Console) -> list[Route]:
    """The routes of this group."""
    pages = _Keys(console)
    return [
        Route(KEYS, account_page(console, pages.show)),
        Route(KEYS, account_page(console, pages.create), methods=["POST"]),
        Route(f"{KEYS}/{{key}}/revoke", account_page(console, pages.revoke), methods=["POST"]),
    ]


class _Keys:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._keyring = Keyring(console)

    async def show(self, request: Request, visitor: Visitor) -> Response:
        """List them."""
        return await self._page(request, visitor, said=notice(request, NOTICES))

    async def create(self, request: Request, visitor: Visitor) -> Response:
        """Make one and show it, this once."""
        _check(visitor)
        made = await self._keyring.create(visitor, visitor.key.account)
        if made is None:
            return redirect(f"{KEYS}?said=made")
        if isinstance(made, KeyForm):
            return await self._page(request, visitor, form=made, status=422)
        return await self._page(request, visitor, made=made)

    async def revoke(self, request: Request, visitor: Visitor) -> Response:
        """Revoke one, also the one behind this session, which ends with it."""
        _check(visitor)
        await self._keyring.revoke(
            visitor, request.path_params["key"], account_id=visitor.account_id
        )
        return redirect(f"{KEYS}?said=revoked")

    async def _page(
        self,
        request: Request,
        visitor: Visitor,
        *,
        said: Notice | None = None,
        made: tuple[str, ApiKey] | None = None,
        form: KeyForm | None = None,
        status: int = 200,
    ) -> Response:
        return self._console.render.page(
            request,
            "keys.html",
            status=status,
            keys=await self._keyring.keys(visitor.account_id),
            own=visitor.key,
            said=said,
            limited="" if visitor.key.manages else _LIMITED,
            made=made,
            form=form or KeyForm(),
            choices=self._keyring.choices(),
            once=new_mark(),
            action=KEYS,
        )


def _check(visitor: Visitor) -> None:
    if not visitor.key.manages:
        raise PageError(403, _LIMITED)
