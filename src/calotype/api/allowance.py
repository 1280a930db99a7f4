"""What answers to submissions tell of the key's rate (draft-ietf-httpapi-ratelimit-headers)."""

from contextlib import suppress

from starlette.types import Scope

from calotype.domain.errors import Unavailable
from calotype.domain.keys import ApiKey
from calotype.services.accounts import Accounts

HEADERS = "headers"
"""Of a request's state: headers of its answer, whatever that is going to be."""


async def tell_allowance(scope: Scope, key: ApiKey, accounts: Accounts) -> None:
    """Once a submission is judged, put what is left of the key's rate into its answer.

    A key without a rate costs nothing here, and a database that is away hides what is left.
    """
    if key.per_minute is None:
        return
    policy = b'"key";q=%d;w=60' % key.per_minute
    scope["state"][HEADERS].append((b"ratelimit-policy", policy))
    with suppress(Unavailable):
        if (left := await accounts.allowance(key)) is not None:
            value = b'"key";r=%d;t=%d' % (left.remaining, left.seconds)
            scope["state"][HEADERS].append((b"ratelimit", value))
