"""Balance, /healthz and /readyz."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from calotype.api.context import Context, authenticate
from calotype.api.render import error_answer, json_answer
from calotype.domain.errors import Unavailable

CHECK_SECONDS: Final = 5.0

Check = Callable[[], Awaitable[None]]


class Status:
    """What the account has, and how the server is.

    Args:
        checks: name → raises when that part does not work.

    """

    def __init__(self, context: Context, checks: Mapping[str, Check]) -> None:
        self._context = context
        self._checks = checks

    async def balance(self, request: Request) -> Response:
        """The credits of the key's owner."""
        key = await authenticate(request.scope, self._context.accounts)
        balance = await self._context.store.balance(key.account_id)
        return json_answer(
            200,
            {
                "balance_micro_usdc": balance.balance,
                "reserved_micro_usdc": balance.reserved,
                "available_micro_usdc": balance.available,
            },
        ).response()

    async def health(self, _request: Request) -> Response:
        """The process answers."""
        return json_answer(200, {"status": "ok"}).response()

    async def ready(self, _request: Request) -> Response:
        """Every part that a request needs works."""
        results = {name: await _outcome(check) for name, check in self._checks.items()}
        if all(result == "ok" for result in results.values()):
            return json_answer(200, {"status": "ready", "checks": results}).response()
        broken = ", ".join(name for name, result in results.items() if result != "ok")
        error = Unavailable(f"Not ready: {broken}.", retry_after=5)
        return error_answer(error, checks=results).response()


async def _outcome(check: Check) -> str:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await check()
    except Exception as error:  # noqa: BLE001 -- whatever it is, the part does not work
        return getattr(error, "message", None) or type(error).__name__
    return "ok"
