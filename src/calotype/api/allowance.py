"""What answers to submissions tell of the key's rate (draft-ietf-httpapi-ratelimit-headers)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from starlette.types import Scope

from calotype.domain.errors import Unavailable
from calotype.domain.keys import ApiKey
from calotype.services.accounts import Accounts

HEADERS = "headers"
"""Of a request's state: headers of its answer, whatever that is going to be."""


@asynccontextmanager
async def allowance_told(scope: Scope, key: ApiKey, accounts: Accounts) -> AsyncIterator[None]:
    """While entered, a request is judged; what is left of the key's rate then stands in the answer.

    A key without a rate costs nothing here, and a database that is away hides what is left.
    """
    try:
        yield
    finally:
        if key.per_minute is not None:
            policy = b'"key";q=%d;w=60' % key.per_minute
            scope["state"][HEADERS].append((b"ratelimit-policy", policy))
            with suppress(Unavailable):
                if (left := await accounts.allowance(key)) is not None:
                    value = b'"key";r=%d;t=%d' % (left.remaining, left.seconds)
                    scope["state"][HEADERS].append((b"ratelimit", value))
