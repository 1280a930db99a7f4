"""Who may call, and with what money."""

from collections.abc import Sequence

import msgspec

from calotype.domain import keys
from calotype.domain.catalog import MAX_DAYS, Catalog
from calotype.domain.clock import Clock
from calotype.domain.errors import InvalidKey, InvalidParameter
from calotype.domain.ids import IdSource
from calotype.domain.keys import ApiKey
from calotype.domain.limits import MAX_KEY_TASKS, MAX_PER_MINUTE, MAX_TASKS, Allowance
from calotype.domain.money import MAX_AMOUNT, Balance, EntryKind, format_usd
from calotype.services.routing import Router
from calotype.store.port import Account, Store


class Accounts:
    """Accounts, their keys and credits."""

    def __init__(
        self, store: Store, catalog: Catalog, router: Router, *, ids: IdSource, clock: Clock
    ) -> None:
        self._store = store
        self._ids = ids
        self._clock = clock
        self._catalog = catalog
        self._router = router
        self._used: dict[int, int] = {}

    async def authenticate(self, key: str) -> ApiKey:
        """The key behind a text.

        Raises:
            errors.InvalidKey: malformed, unknown, expired or revoked.

        """
        if (known := self.recognise(key)) is not None:
            return known
        if not keys.is_well_formed(key):
            raise InvalidKey("This is no API key of this server; keys begin with 'ck_'.")
        found = await self._store.find_key(keys.hash_key(key))
        if found is None:
            raise InvalidKey("This API key is not known here; check it, or create a new one.")
        return self._checked(found)

    def recognise(self, key: str) -> ApiKey | None:
        """The same at once; None where the database has to be asked.

        Raises:
            errors.InvalidKey: expired or revoked.

        """
        found = self._store.known_key(keys.hash_key(key))
        return None if found is None else self._checked(found)

    def _checked(self, found: ApiKey) -> ApiKey:
        if found.revoked_at is not None:
            raise InvalidKey("This API key was revoked; create a new one.")
        now = self._clock()
        if found.expires_at is not None and found.expires_at <= now:
            raise InvalidKey("This API key has expired; create a new one.")
        self._used[found.id] = now
        return found

    async def note_used(self) -> None:
        """Write down when keys were last used, as far as that is not done."""
        used, self._used = self._used, {}
        if not used:
            return
        try:
            await self._store.note_used(used)
        except BaseException:
            self._used = used | self._used
            raise

    async def allowance(self, key: ApiKey) -> Allowance | None:
        """What is left of a key's rate; None where it has none."""
        if key.per_minute is None:
            return None
        meter = await self._store.meter(key.id)
        return None if meter is None else meter.allowance(now=self._clock())

    async def create_key(
        self,
        name: str,
        *,
        account: str,
        expires_in_seconds: int | None = None,
        models: Sequence[str] | None = None,
        channels: Sequence[int] | None = None,
        day_limit: int | None = None,
        month_limit: int | None = None,
        per_minute: int | None = None,
        max_tasks: int | None = None,
    ) -> tuple[str, ApiKey]:
        """A new key for an account, which is opened when there is none; shown only here.

        Args:
            name: what it is for.
            account: whose it is.
            expires_in_seconds: how long it is good; None: for ever.
            models: ids of those that it may use; None: every one.
            channels: ids of those that may develop its tasks; None: every one.
            day_limit: micro-USDC that it may spend in a UTC day.
            month_limit: and in a UTC month.
            per_minute: tasks that it may submit at once, and that many more with every minute.
            max_tasks: unfinished ones that it may have.

        Raises:
            errors.InvalidParameter: there is no such model or channel, or a limit is none;
                ``param`` is the argument's name.

        """
        self._check_models(models)
        self._check_channels(channels)
        _check_spending(day_limit, month_limit)
        _check_number("per_minute", per_minute, MAX_PER_MINUTE)
        _check_number("max_tasks", max_tasks, MAX_KEY_TASKS)
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
            models=None if models is None else tuple(dict.fromkeys(models)),
            channels=None if channels is None else tuple(dict.fromkeys(channels)),
            day_limit=day_limit,
            month_limit=month_limit,
            per_minute=per_minute,
            max_tasks=max_tasks,
        )
        await self._store.add_key(key, digest=keys.hash_key(secret))
        return secret, key

    def _check_models(self, models: Sequence[str] | None) -> None:
        known = self._catalog.models
        if models is None or (models and known.keys() >= set(models)):
            return
        unknown = next((name for name in models if name not in known), None)
        said = "name at least one model" if unknown is None else f"there is no model {unknown}"
        raise InvalidParameter(f"models: {said}; there are {', '.join(known)}.", param="models")

    def _check_channels(self, channels: Sequence[int] | None) -> None:
        known = {channel.id: channel.slug for channel in self._router.channels}
        if channels is None or (channels and known.keys() >= set(channels)):
            return
        unknown = next((number for number in channels if number not in known), None)
        said = "name at least one channel" if unknown is None else f"there is no channel {unknown}"
        there = ", ".join(f"{number} ({slug})" for number, slug in known.items())
        raise InvalidParameter(f"channels: {said}; there are {there}.", param="channels")

    async def revoke(self, key: ApiKey) -> bool:
        """Revoke a key for good; False when it was revoked already."""
        return await self._store.revoke_key(key.id, now=self._clock())

    async def find(self, name: str) -> Account | None:
        """The account of this name."""
        found = [account for account in await self._store.accounts() if account.name == name]
        return found[0] if found else None

    async def keep_images(
        self, account: Account, *, results: int | None, references: int | None
    ) -> Account:
        """Say how many days images of an account are kept that come from now on.

        None leaves that to the model and the settings; 0: until they are deleted.
        """
        for param, days in (("results", results), ("references", references)):
            if days is not None and not 0 <= days <= MAX_DAYS:
                raise InvalidParameter(f"{param} must be 0 to {MAX_DAYS} days.", param=param)
        await self._store.lifetimes.set_days(account.id, results=results, references=references)
        return msgspec.structs.replace(account, result_days=results, reference_days=references)

    async def limit(
        self, account: Account, *, tasks: int | None, per_minute: int | None
    ) -> Account:
        """Give an account limits of its own, for all its keys together.

        None leaves a limit to the settings; 0: there is none.

        Args:
            account: whose they are.
            tasks: most unfinished tasks.
            per_minute: tasks that it may submit at once, and that many more with every minute.

        Raises:
            errors.InvalidParameter: a limit is none.

        """
        for param, value, most in (
            ("tasks", tasks, MAX_TASKS),
            ("per_minute", per_minute, MAX_PER_MINUTE),
        ):
            if value is not None and not 0 <= value <= most:
                raise InvalidParameter(f"{param} must be 0 to {most}.", param=param)
        await self._store.set_limits(account.id, tasks=tasks, per_minute=per_minute)
        return msgspec.structs.replace(account, max_tasks=tasks, per_minute=per_minute)

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


def _check_spending(day: int | None, month: int | None) -> None:
    for param, limit in (("day_limit", day), ("month_limit", month)):
        if limit is not None and not 0 < limit <= MAX_AMOUNT:
            raise InvalidParameter(
                f"{param} must be more than 0 and at most {format_usd(MAX_AMOUNT)} USDC, not "
                f"{format_usd(limit)}.",
                param=param,
            )
    if day is not None and month is not None and day > month:
        raise InvalidParameter(
            f"day_limit must be at most month_limit, which is {format_usd(month)} USDC, not "
            f"{format_usd(day)}.",
            param="day_limit",
        )


def _check_number(param: str, limit: int | None, most: int) -> None:
    if limit is not None and not 0 < limit <= most:
        raise InvalidParameter(f"{param} must be 1 to {most}, not {limit}.", param=param)
