"""Who may call, and with what money."""

import msgspec

from calotype.domain import keys
from calotype.domain.clock import Clock
from calotype.domain.errors import InvalidKey
from calotype.domain.ids import IdSource
from calotype.domain.keys import ApiKey
from calotype.domain.money import Balance, EntryKind
from calotype.store.port import Account, Store


class Accounts:
    """Accounts, their keys and credits."""

    def __init__(self, store: Store, *, ids: IdSource, clock: Clock) -> None:
        self._store = store
        self._ids = ids
        self._clock = clock

    async def authenticate(self, key: str) -> ApiKey:
        """The key behind a text.

        Raises:
            errors.InvalidKey: malformed, unknown, expired or revoked.

        """
        if not keys.is_well_formed(key):
            raise InvalidKey("This is no API key of this server; keys begin with 'ck_'.")
        found = await self._store.find_key(keys.hash_key(key))
        if found is None:
            raise InvalidKey("This API key is not known here; check it, or create a new one.")
        if found.revoked_at is not None:
            raise InvalidKey("This API key was revoked; create a new one.")
        if found.expires_at is not None and found.expires_at <= self._clock():
            raise InvalidKey("This API key has expired; create a new one.")
        return found

    async def create_key(
        self, name: str, *, account: str, expires_in_seconds: int | None = None
    ) -> tuple[str, ApiKey]:
        """A new key for an account, which is opened when there is none; shown only here."""
        now = self._clock()
        owner = await self._store.open_account(account, now=now)
        secret = keys.new_key()
        key = ApiKey(
            id=self._ids.next(),
            account_id=owner.id,
            account=owner.name,
            name=name,
            prefix=secret[: keys.PREFIX_LENGTH],
            created_at=now,
            expires_at=None if expires_in_seconds is None else now + expires_in_seconds * 1000,
            revoked_at=None,
        )
        await self._store.add_key(key, digest=keys.hash_key(secret))
        return secret, key

    async def revoke(self, key: ApiKey) -> bool:
        """Revoke a key for good; False when it was revoked already."""
        return await self._store.revoke_key(key.id, now=self._clock())

    async def find(self, name: str) -> Account | None:
        """The account of this name."""
        found = [account for account in await self._store.accounts() if account.name == name]
        return found[0] if found else None

    async def add_credit(self, account: Account, micro_usdc: int, *, note: str) -> Account:
        """Add credit, or take some away with a negative amount.

        Raises:
            errors.InsufficientBalance: more would be taken away than is available.

        """
        kind = EntryKind.CREDIT if micro_usdc >= 0 else EntryKind.ADJUST
        balance: Balance = await self._store.book(
            account.id, kind, micro_usdc, note=note, now=self._clock()
        )
        return msgspec.structs.replace(account, balance=balance)
