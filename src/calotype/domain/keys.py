"""API keys: ``ck_`` and 256 random bits, kept only as a SHA-256 hash with a short prefix."""

import hashlib
import re
import secrets
from typing import Final

import msgspec

_FORM: Final = re.compile(r"ck_[A-Za-z0-9_-]{43}\Z")
NAME_LENGTH: Final = 100
"""Characters of the name of a key or an account."""
PREFIX_LENGTH: Final = 10
"""Characters of a key that stay visible, so that people can tell their keys apart."""


class ApiKey(msgspec.Struct, frozen=True):
    """What is known of a key once it was shown; times in milliseconds."""

    id: int
    account_id: int
    account: str
    name: str
    prefix: str
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    models: tuple[str, ...] | None = None
    """The ids of those that it may use; None: every one."""
    channels: tuple[int, ...] | None = None
    """The ids of those that may develop its tasks; None: every one."""
    day_limit: int | None = None
    """Micro-USDC that it may spend in a UTC day, what is reserved counted in."""
    month_limit: int | None = None
    """And in a UTC month."""
    per_minute: int | None = None
    """Tasks that it may submit at once, and that many more with every minute."""
    max_tasks: int | None = None
    """Unfinished ones that it may have."""
    last_used_at: int | None = None
    """When it was last seen, to half a minute."""

    @property
    def metered(self) -> bool:
        """Whether what it submits is counted against a limit."""
        return not (
            self.day_limit is None
            and self.month_limit is None
            and self.per_minute is None
            and self.max_tasks is None
        )

    @property
    def restricted(self) -> bool:
        """Whether it may do less than its account."""
        return self.metered or self.models is not None or self.channels is not None

    @property
    def manages(self) -> bool:
        """Whether it may make and revoke keys: a limited one could rid itself of its limits so."""
        return not self.restricted and self.expires_at is None


def name_of(text: str) -> str:
    """The name of a key or an account that people can read and type, from what they typed.

    Raises:
        ValueError: it is empty, endless, or not on one line.

    """
    name = text.strip()
    if not name or len(name) > NAME_LENGTH or not name.isprintable():
        raise ValueError(
            f"a name has 1 to {NAME_LENGTH} printable characters and stands on one line."
        )
    return name


def new_key() -> str:
    """A fresh key, to be shown once."""
    return f"ck_{secrets.token_urlsafe(32)}"


def is_well_formed(key: str) -> bool:
    """Whether a text can be a key at all; anything else needs no look at the database."""
    return _FORM.match(key) is not None


def hash_key(key: str) -> bytes:
    """The form in which a key is stored and looked up.

    Unsalted on purpose: 256 random bits cannot be guessed or found in a table, and the hash is
    the index.
    """
    return hashlib.sha256(key.encode()).digest()
