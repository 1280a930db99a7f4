"""What every store promises of API keys: scopes, limits, and when they were last used."""

import msgspec

from calotype.domain import keys
from calotype.domain.keys import ApiKey
from calotype.store.port import Store
from conformance.tasks import NOW

LIMITED = ApiKey(
    id=5,
    account_id=0,
    account="ada",
    name="laptop",
    prefix="ck_abcdefg",
    created_at=NOW,
    expires_at=NOW + 9,
    revoked_at=None,
    models=("one", "two"),
    channels=(7, 9),
    day_limit=2_000_000,
    month_limit=3_000_000,
    per_minute=60,
    max_tasks=20,
)


async def kept(store: Store, key: ApiKey) -> ApiKey:
    """The key, kept for its account."""
    account = await store.open_account(key.account, now=NOW)
    key = msgspec.structs.replace(key, account_id=account.id)
    await store.add_key(key, digest=keys.hash_key(str(key.id)))
    return key


async def test_a_key_keeps_its_scope_and_its_limits(store: Store) -> None:
    key = await kept(store, LIMITED)
    assert await store.key(5) == key
    assert await store.find_key(keys.hash_key("5")) == key
    assert await store.keys() == [key]
    assert await store.key(6) is None


async def test_an_account_has_its_own_keys_alone_newest_first(store: Store) -> None:
    plain = msgspec.structs.replace(
        LIMITED,
        id=8,
        models=None,
        channels=None,
        day_limit=None,
        month_limit=None,
        per_minute=None,
        max_tasks=None,
    )
    first, second = await kept(store, LIMITED), await kept(store, plain)
    other = await kept(store, msgspec.structs.replace(plain, id=9, account="eve"))
    assert await store.keys(account_id=first.account_id) == [second, first]
    assert await store.keys() == [other, second, first]
    assert not second.restricted


async def test_when_a_key_was_last_used_never_goes_back(store: Store) -> None:
    for number in (1, 2, 3):
        await kept(store, msgspec.structs.replace(LIMITED, id=number))
    await store.note_used({1: NOW + 5, 2: NOW + 6, 77: NOW})
    await store.note_used({1: NOW + 4, 2: NOW + 7})
    assert [key.last_used_at for key in await store.keys()] == [None, NOW + 7, NOW + 5]
