"""What answers to submissions tell of rates (draft-ietf-httpapi-ratelimit-headers)."""

from contextlib import suppress

from starlette.types import Scope

from calotype.domain.errors import Unavailable
from calotype.domain.keys import ApiKey
from calotype.domain.limits import Allowance
from calotype.services.accounts import Accounts

HEADERS = "headers"
"""Of a request's state: headers of its answer, whatever that is going to be."""


async def tell_allowance(scope: Scope, key: ApiKey, accounts: Accounts) -> None:
    """Once a submission is judged, put what is left of the key's rate into its answer.

    A key without a rate costs nothing here, and a database that is away hides what is left.
    """
    if key.per_minute is None:
        return
    headers = scope["state"][HEADERS]
    headers.append((b"ratelimit-policy", b'"key";q=%d;w=60' % key.per_minute))
    with suppress(Unavailable):
        if (left := await accounts.allowance(key)) is not None:
            headers.append((b"ratelimit", b'"key";r=%d;t=%d' % (left.remaining, left.seconds)))


def tell_account(scope: Scope, left: Allowance | None) -> None:
    """Put what is left of the account's rate into the answer to what was accepted."""
    if left is not None:
        scope["state"][HEADERS] += account_headers(left)


def account_headers(left: Allowance) -> list[tuple[bytes, bytes]]:
    """What is left of an account's rate."""
    return [
        (b"ratelimit-policy", b'"account";q=%d;w=60' % left.per_minute),
        (b"ratelimit", b'"account";r=%d;t=%d' % (left.remaining, left.seconds)),
    ]
