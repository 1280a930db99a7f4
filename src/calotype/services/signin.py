"""One-time links with which an operator signs in to the console."""

import hashlib
import secrets
from typing import Any, Final

import msgspec
from itsdangerous import BadData, URLSafeSerializer

from calotype.domain.clock import Clock

LABEL: Final = "calotype admin link v1"
"""What sets these signatures apart from others made with the same secret."""
MINUTES: Final = 10
"""So long a link is good where nobody says otherwise."""


class Link(msgspec.Struct, frozen=True):
    """What a link's token says; ``spend_link`` of the store sees to it that it is used once."""

    nonce: str
    expires_at: int


class Links:
    """Makes and checks the tokens of one-time links; they are signed, not kept.

    Args:
        secret: the server's.
        clock: the time.

    """

    def __init__(self, secret: bytes, clock: Clock) -> None:
        self._clock = clock
        self._serializer = URLSafeSerializer(
            secret,
            salt=LABEL,
            signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256},
        )

    def make(self, *, minutes: int = MINUTES) -> str:
        """A new token, for a URL."""
        expires_at = self._clock() + minutes * 60_000
        return self._serializer.dumps([secrets.token_urlsafe(16), expires_at])

    def check(self, token: str) -> Link | None:
        """What a token says; None when it is not one of ours, or has expired."""
        try:
            said: Any = self._serializer.loads(token)
            link = Link(*msgspec.convert(said, tuple[str, int]))
        except (BadData, msgspec.ValidationError):
            return None
        return link if self._clock() < link.expires_at else None
