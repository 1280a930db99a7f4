"""Knowing a request again that a client sends once more by itself, without an idempotency key.

OpenAI's clients try a request again when its connection breaks, and say so in a header, but send
nothing that ties the tries together. So each of their requests is given a key that names what it
asks for; a further try takes the key of an equal request that nobody has the image of.
``docs/decisions/0013-openai-surface.md`` tells what that can and cannot know.
"""

import secrets
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import msgspec
from starlette.types import Scope

from calotype.api.context import header
from calotype.domain.clock import system_clock
from calotype.domain.errors import CalotypeError, InternalError, Unavailable
from calotype.domain.task import State
from calotype.store.port import Keyed, Store

RETRIED_MS: Final = 60_000
"""How long after its end an image that nobody is known to have is still given to a further try."""
FAILED_MS: Final = 30_000
"""The same of a failure."""
TOLD_MS: Final = 3_000
"""The same of an image that was sent whole: it may have been lost on the way."""
_KEPT_MS: Final = 150_000
"""How long a key is remembered after its request; the clients wait 120 s at most, when told to."""
_MAX_KEPT: Final = 10_000
_LOOK_BACK: Final = 100
"""Equal requests among which the store is asked for those that a further try may mean."""

_TRY: Final = b"x-stainless-retry-count"
_LANGUAGE: Final = b"x-stainless-lang"
_UNIQUE: Final = 20
"""Hexadecimal digits of a key after those of the request: the time, then chance."""

_Alike = tuple[int, str]
"""An account, and what the keys of its equal requests begin with."""


def tries_again_when_cut(scope: Scope) -> bool:
    """Whether the client sends this request again if its answer breaks off, as far as one can know.

    OpenAI's client for Python does, twice if nothing else was set; those for other languages have
    stopped counting by the time they read an answer.
    """
    return header(scope, _LANGUAGE) == b"python" and header(scope, _TRY) in (b"0", b"1")


class _Order(msgspec.Struct):
    """What this process knows of a key."""

    holders: int = 0
    """Requests with it that are under way."""
    told_at: int | None = None
    """When an answer was sent whole, to a client that was still there."""
    left_at: int = 0
    """When the last holder left."""


class Try:
    """One request: the key it is given, and what became of it."""

    def __init__(self, tries: "Tries", scope: Scope) -> None:
        self._tries = tries
        self._scope = scope
        self.alike: _Alike | None = None
        self.key = ""
        self.fresh = False
        """No task is known to have the key."""
        self.told = False
        """The whole answer was sent, to a client that was still there."""

    async def implied_key(self, account_id: int, digest: bytes) -> str | None:
        """The idempotency key of a request that came without; None when its client counts no tries.

        Args:
            account_id: whose it is.
            digest: the same for the same request.

        """
        count = header(self._scope, _TRY)
        if count is None:
            return None
        alike = (account_id, f"openai{digest.hex()}")
        await self._tries.take(self, alike, first=count == b"0")
        return self.key


class Tries:
    """The requests of this process that came without a key of their own."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._orders: dict[_Alike, dict[str, _Order]] = {}
        self._left: deque[tuple[int, _Alike, str]] = deque()
        """Keys that nobody held any more, and since when."""

    @contextmanager
    def one(self, scope: Scope) -> Iterator[Try]:
        """A request, from before it is submitted until it is answered."""
        this = Try(self, scope)
        refused = False
        try:
            yield this
        except CalotypeError as error:
            refused = not isinstance(error, Unavailable | InternalError)  # it is tried again
            raise
        finally:
            if this.alike is not None:
                self._leave(this, this.alike, unused=refused and this.fresh)

    async def take(self, this: Try, alike: _Alike, *, first: bool) -> None:
        """Give a request a key, before it is submitted, so that its next try finds it."""
        keyed: Sequence[Keyed] = []
        if not first:
            lowest, highest = (alike[1] + digit * _UNIQUE for digit in "0f")
            keyed = await self._store.keyed(
                alike[0], lowest=lowest, highest=highest, limit=_LOOK_BACK
            )
        now = system_clock()
        self._forget(now)
        orders = self._orders.setdefault(alike, {})
        key = None if first else _meant(orders, {each.key: each for each in keyed}, now)
        if key is None:
            key = f"{alike[1]}{now:012x}{secrets.token_hex(4)}"
        orders.setdefault(key, _Order()).holders += 1
        this.alike, this.key = alike, key
        this.fresh = all(each.key != key for each in keyed)

    def _leave(self, this: Try, alike: _Alike, *, unused: bool) -> None:
        now, order = system_clock(), self._orders[alike][this.key]
        order.holders -= 1
        if this.told:
            order.told_at = now
        if not order.holders:
            order.left_at = now
            if unused:
                self._drop(alike, this.key)
            else:
                self._left.append((now, alike, this.key))

    def _forget(self, now: int) -> None:
        """Forget keys that nobody will ask for any more, or that there is no room for."""
        while self._left and (len(self._left) > _MAX_KEPT or now - self._left[0][0] >= _KEPT_MS):
            left_at, alike, key = self._left.popleft()
            order = self._orders.get(alike, {}).get(key)
            if order is not None and not order.holders and order.left_at == left_at:
                self._drop(alike, key)

    def _drop(self, alike: _Alike, key: str) -> None:
        del self._orders[alike][key]
        if not self._orders[alike]:
            del self._orders[alike]


def _meant(orders: dict[str, _Order], keyed: dict[str, Keyed], now: int) -> str | None:
    """The key that a further try most likely means; None when there is none.

    Args:
        orders: equal requests of this process.
        keyed: equal requests that were accepted, by whichever process.
        now: milliseconds.

    """
    ranked = [
        (rank, key)
        for key in orders.keys() | keyed.keys()
        if (rank := _rank(orders.get(key), keyed.get(key), now)) is not None
    ]
    return min(ranked)[1] if ranked else None


def _rank(order: _Order | None, task: Keyed | None, now: int) -> tuple[int, int] | None:
    """How well a key fits, the least best; None when it is out of the question."""
    ended_at = None if task is None else task.completed_at
    failed = task is not None and task.state == State.FAIL
    if ended_at is not None and now - ended_at >= (FAILED_MS if failed else RETRIED_MS):
        return None
    if order is None:  # of another process, or from before a restart
        return (2, secrets.randbelow(2**32)) if ended_at is None else (3, -ended_at)
    if order.told_at is not None:
        return (5, -order.told_at) if not failed and now - order.told_at < TOLD_MS else None
    if order.holders:
        return (4, order.holders)
    return (0 if task is not None else 1, 0)
