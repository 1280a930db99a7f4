"""Knowing a request again that a client sends once more by itself, without an idempotency key.

OpenAI's clients try a request again when its connection breaks, and say so in a header, but send
nothing that ties the tries together. So each request without a key is given one that names what
it asks for; a further try takes the key of the last equal request that is under way, or ended
just now.
"""

import secrets
from typing import Final

from starlette.types import Scope

from calotype.api.context import header
from calotype.domain.clock import system_clock
from calotype.store.port import Store

RETRIED_MS: Final = 300_000
"""How long after a task's end a further try still finds it; the clients wait up to 120 s."""

_TRY: Final = b"x-stainless-retry-count"
_UNIQUE: Final = 20
"""Hexadecimal digits of a key after those of the request: the time, then chance."""


def tells_tries(scope: Scope) -> bool:
    """Whether the client says which try a request is, as OpenAI's do; such a one tries again."""
    return header(scope, _TRY) is not None


async def implied_key(store: Store, scope: Scope, *, account_id: int, digest: bytes) -> str:
    """The idempotency key of a request that came without one.

    Args:
        store: where keys are kept.
        scope: the request.
        account_id: whose it is.
        digest: the same for the same request.

    """
    prefix, now = f"openai{digest.hex()}", system_clock()
    if (header(scope, _TRY) or b"0") != b"0":
        last = await store.last_key(
            account_id, lowest=prefix + "0" * _UNIQUE, highest=prefix + "f" * _UNIQUE
        )
        task = None if last is None else await store.task(last[1])
        if last and task and (task.completed_at is None or now - task.completed_at < RETRIED_MS):
            return last[0]
    return f"{prefix}{now:012x}{secrets.token_hex(4)}"
