"""Whether a callback is fal's own: its Ed25519 signature, by the keys that fal publishes.

A callback is judged at once, so the keys are fetched beside it: with the first send that asks for
callbacks, and in the background when a callback finds them old. One that comes before there are
any is not believed; fal repeats it.
"""

import asyncio
import base64
import binascii
import hashlib
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from calotype.domain.clock import Clock
from calotype.net.client import Answer
from calotype.providers.line import Line
from calotype.providers.reading import fields, items, text

PATH: Final = ".well-known/jwks.json"
STALE_SECONDS: Final = 300
"""Between the signature's time and ours, either way."""
KEEP_MS: Final = 24 * 3600 * 1000
RENEW_MS: Final = 12 * 3600 * 1000
PAUSE_MS: Final = 60 * 1000
"""Between two tries to fetch, for callbacks and while there are keys."""
FETCH_SECONDS: Final = 5.0
MOST_KEYS: Final = 20
_SIGNED: Final = ("x-fal-webhook-request-id", "x-fal-webhook-user-id", "x-fal-webhook-timestamp")


class CallbackKeys:
    """The keys of one channel.

    Args:
        line: to the host that publishes them; it carries no credential.
        clock: the time.

    """

    def __init__(self, line: Line, clock: Clock) -> None:
        self._line = line
        self._clock = clock
        self._keys: tuple[Ed25519PublicKey, ...] = ()
        self._fetched = 0
        self._tried: int | None = None
        self._fetching: asyncio.Task[None] | None = None

    async def refresh(self) -> None:
        """See to it that there are keys, and fetch new ones when they are old.

        A failure leaves what there is; without any, the next send tries again.
        """
        now = self._clock()
        if self._due(now, pause=bool(self._fresh(now))):
            await asyncio.wait({self._fetch(now)})

    def signed(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Whether fal signed these bytes, lately."""
        now = self._clock()
        if self._due(now, pause=True):
            self._fetch(now)
        named = [headers.get(name, "") for name in _SIGNED]
        try:
            signature = bytes.fromhex(headers.get("x-fal-webhook-signature", ""))
            sent = int(named[-1]) if named[-1].isascii() and named[-1].isdigit() else 0
        except ValueError:
            return False
        if not all(named) or abs(now / 1000 - sent) > STALE_SECONDS:
            return False
        message = "\n".join([*named, hashlib.sha256(body).hexdigest()]).encode(errors="replace")
        return any(_verifies(key, signature, message) for key in self._fresh(now))

    async def close(self) -> None:
        """Stop fetching."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)

    def _fresh(self, now: int) -> tuple[Ed25519PublicKey, ...]:
        return self._keys if now - self._fetched < KEEP_MS else ()

    def _due(self, now: int, *, pause: bool) -> bool:
        if self._keys and now - self._fetched < RENEW_MS:
            return False
        return not pause or self._tried is None or now - self._tried >= PAUSE_MS

    def _fetch(self, now: int) -> asyncio.Task[None]:
        """Fetch the keys, once for all who want them at the same time."""
        if self._fetching is None or self._fetching.done():
            self._tried = now
            self._fetching = asyncio.create_task(self._fetched_at(now))
        return self._fetching

    async def _fetched_at(self, now: int) -> None:
        answer = await self._line.ask(PATH, timeout_seconds=FETCH_SECONDS)
        if isinstance(answer, Answer) and answer.status == HTTPStatus.OK:
            keys = _read(answer.document)
            if keys:
                self._keys, self._fetched = keys, now


def _verifies(key: Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _read(document: object) -> tuple[Ed25519PublicKey, ...]:
    """The Ed25519 keys of a JWK set; what is none is passed over."""
    keys = list[Ed25519PublicKey]()
    for each in items(fields(document).get("keys"))[:MOST_KEYS]:
        if (text(each, "kty"), text(each, "crv")) != ("OKP", "Ed25519"):
            continue
        coded = text(each, "x")
        try:
            raw = base64.urlsafe_b64decode(coded + "=" * (-len(coded) % 4))
            keys.append(Ed25519PublicKey.from_public_bytes(raw))
        except (ValueError, binascii.Error):
            continue
    return tuple(keys)
