"""What every handler may use, and what it may ask of a request."""

import itertools
import re
import secrets
from typing import Any, Final

import msgspec
from starlette.types import Scope

from calotype.assets.port import AssetStore
from calotype.domain.catalog import Catalog
from calotype.domain.errors import MissingKey
from calotype.domain.keys import ApiKey
from calotype.observing import context
from calotype.services.accounts import Accounts
from calotype.services.assets import Assets
from calotype.services.callbacks import Callbacks
from calotype.services.cancelling import Cancelling
from calotype.services.deleting import Deleting
from calotype.services.delivery import Delivery
from calotype.services.feed import Feed
from calotype.services.files import Files
from calotype.services.references import ReferenceIntake
from calotype.services.routing import Router
from calotype.services.submission import Submission
from calotype.services.thumbnails import Thumbnails
from calotype.services.webhooks import Webhooks
from calotype.store.port import Store

_SANE_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:-]{1,128}\Z")
_FIRST: Final = "calotype.first"
"""Of a scope: its headers, and the first of each name; most requests are asked for eight."""
_SANE_HOST: Final = re.compile(rb"[A-Za-z0-9._:\[\]-]{1,255}\Z")


class Context(msgspec.Struct, frozen=True):
    """The services behind the API."""

    accounts: Accounts
    assets: Assets
    asset_store: AssetStore
    callbacks: Callbacks
    cancelling: Cancelling
    catalog: Catalog
    deleting: Deleting
    delivery: Delivery
    feed: Feed
    files: Files
    references: ReferenceIntake
    router: Router
    store: Store
    submission: Submission
    thumbnails: Thumbnails
    webhooks: Webhooks
    public_url: str


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first header of this (lower-case) name."""
    headers = scope["headers"]
    known: tuple[Any, dict[bytes, bytes]] | None = scope.get(_FIRST)
    if known is None or known[0] is not headers:
        known = scope[_FIRST] = headers, dict(reversed(headers))
    return known[1].get(name)


class RequestIds:
    """Names requests: the client's own id where it is sane, else one of this process."""

    def __init__(self) -> None:
        self._process = secrets.token_hex(6)
        self._counter = itertools.count(1)

    def of(self, scope: Scope) -> str:
        """The id of a request."""
        given = header(scope, b"x-request-id")
        if given is not None and _SANE_REQUEST_ID.match(given):
            return given.decode()
        return f"req_{self._process}{next(self._counter):08x}"


def bearer(scope: Scope) -> str:
    """The key of a request as it was sent.

    Raises:
        errors.MissingKey: none was.

    """
    given = header(scope, b"authorization")
    scheme, _, key = (given or b"").partition(b" ")
    if scheme.lower() != b"bearer" or not key.strip():
        raise MissingKey("Send your API key as 'Authorization: Bearer ck_…'.")
    return key.strip().decode("latin-1")


async def authenticate(scope: Scope, accounts: Accounts) -> ApiKey:
    """The key of a request.

    Raises:
        errors.MissingKey: none was sent.
        errors.InvalidKey: it is good for nothing.

    """
    key = await accounts.authenticate(bearer(scope))
    context.ACCOUNT.set(key.account_id)
    return key


def base_url(scope: Scope, public_url: str) -> str:
    """What stands before a path in a URL that we give out: as set, or as the client called us."""
    if public_url:
        return public_url.rstrip("/")
    host = header(scope, b"host")
    if host is None or not _SANE_HOST.match(host):
        address, port = scope.get("server") or ("127.0.0.1", 80)
        return f"{scope['scheme']}://{address}:{port}"
    return f"{scope['scheme']}://{host.decode()}"
