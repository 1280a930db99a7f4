"""Files in every store: one for the same bytes, named by tasks for as long as they are there."""

import asyncio
from collections.abc import Sequence

import msgspec
import pytest

from calotype.domain.errors import CalotypeError, InsufficientBalance, InvalidParameter
from calotype.domain.files import reference_of
from calotype.domain.limits import DAY_MS
from calotype.domain.task import Asset, Event, NewTask, Reference
from calotype.store.files import NewFile
from calotype.store.port import Store
from conformance.tasks import NOW, PRICE, funded, image, limited, new_task, taken

DAYS = 2


async def added(store: Store, account_id: int, digest: bytes = b"one", *, now: int = NOW) -> Asset:
    new = NewFile(image(account_id), digest, DAYS)
    return await store.files.add(new, now=now)


def naming(account_id: int, *ids: int, **options: object) -> NewTask:
    references = [Reference(url=reference_of(each), asset_id=each) for each in ids]
    new = new_task(account_id, references=references)
    return msgspec.structs.replace(new, reference_days=DAYS, **options)


async def ends(store: Store, file: Asset) -> int | None:
    found = await store.asset(file.id)
    assert found is not None
    return found.expires_at


async def found(store: Store, file: Asset, *, now: int = NOW) -> Asset | None:
    return await store.files.find(file.id, account_id=file.account_id, now=now)


async def test_the_same_bytes_are_one_file_of_an_account_and_another_of_the_next(
    store: Store,
) -> None:
    ada, bob = await funded(store), await funded(store, name="bob")
    first = await added(store, ada)
    assert first.expires_at == NOW + DAYS * DAY_MS
    again = await added(store, ada, now=NOW + 5)
    assert (again.id, again.expires_at) == (first.id, NOW + 5 + DAYS * DAY_MS)
    assert (await added(store, ada, b"two")).id != first.id
    assert (await added(store, bob)).id != first.id


async def test_many_uploads_of_the_same_bytes_at_once_make_one_file(store: Store) -> None:
    ada = await funded(store)
    files = await asyncio.gather(*[added(store, ada) for _ in range(8)])
    assert len({file.id for file in files}) == 1
    assert len(await store.files.page(ada, limit=9, now=NOW)) == 1


async def test_a_file_never_gets_a_shorter_life(store: Store) -> None:
    ada = await funded(store)
    file = await added(store, ada, now=NOW + 1000)
    assert (await added(store, ada)).expires_at == file.expires_at
    await store.submit(naming(ada, file.id, abandon_at=NOW))
    assert await ends(store, file) == file.expires_at


async def test_an_account_has_its_files_newest_first_page_by_page(store: Store) -> None:
    ada, bob = await funded(store), await funded(store, name="bob")
    files = [await added(store, ada, bytes([each])) for each in range(5)]
    await added(store, bob)
    await store.submit(new_task(ada, uploads=[image(ada)]))
    newest = [file.id for file in reversed(files)]
    first = await store.files.page(ada, limit=3, now=NOW)
    rest = await store.files.page(ada, before=first[-1].id, limit=3, now=NOW)
    assert [file.id for file in [*first, *rest]] == newest


async def test_a_file_that_expired_is_found_by_nobody_but_who_uploads_it_again(
    store: Store,
) -> None:
    ada = await funded(store)
    file = await added(store, ada)
    over = NOW + DAYS * DAY_MS
    assert await found(store, file, now=over - 1) == file
    assert await found(store, file, now=over) is None
    assert await store.files.page(ada, limit=3, now=over) == []
    assert await store.files.mark(file.id, account_id=ada, now=over) is None
    assert (await added(store, ada, now=over)).id == file.id
    assert await found(store, file, now=over) is not None


async def test_nobody_finds_or_deletes_another_accounts_file_or_what_is_no_file(
    store: Store,
) -> None:
    ada, bob = await funded(store), await funded(store, name="bob")
    file, upload = await added(store, ada), image(ada)
    await store.submit(new_task(ada, uploads=[upload]))
    assert await store.files.find(file.id, account_id=bob, now=NOW) is None
    assert await store.files.mark(file.id, account_id=bob, now=NOW) is None
    assert await found(store, upload) is None
    assert await store.files.mark(upload.id, account_id=ada, now=NOW) is None
    assert await store.asset(upload.id) is not None


async def test_a_marked_file_is_gone_at_once_and_its_bytes_can_be_uploaded_anew(
    store: Store,
) -> None:
    ada = await funded(store)
    file = await added(store, ada)
    assert await store.files.mark(file.id, account_id=ada, now=NOW) == file
    assert await store.files.mark(file.id, account_id=ada, now=NOW) is None
    assert await found(store, file) is None
    assert await store.asset(file.id) is None
    assert [one.id for one in await store.gallery.doomed(limit=9)] == [file.id]
    new = await added(store, ada)
    assert new.id != file.id
    await store.gallery.bury([file.id])
    assert await found(store, new) == new


async def test_a_use_keeps_a_file_until_the_task_cannot_need_it_and_the_days_after(
    store: Store,
) -> None:
    ada = await funded(store)
    file, other = await added(store, ada), await added(store, ada, b"two")
    await store.submit(naming(ada, file.id, abandon_at=NOW + 9000))
    assert await ends(store, file) == NOW + 9000 + DAYS * DAY_MS
    assert await ends(store, other) == NOW + DAYS * DAY_MS


@pytest.fixture(params=["alone", "with_a_key", "metered", "in_a_batch"])
def way(request: pytest.FixtureRequest) -> str:
    """A way in which a task is submitted."""
    name: str = request.param
    return name


async def sent(store: Store, new: NewTask, way: str) -> CalotypeError | None:
    """Submit a task; what refuses it."""
    if way == "with_a_key":
        new = msgspec.structs.replace(new, idempotency_key=f"key {new.id}")
    if way == "metered":
        key = await limited(store, new.account_id, per_day=10**9)
        new = msgspec.structs.replace(new, key_id=key.id, metered=True)
    if way == "in_a_batch":
        (result,) = await store.submit_batch([new])
        return result if isinstance(result, CalotypeError) else None
    try:
        await store.submit(new)
    except CalotypeError as error:
        return error
    return None


async def test_a_task_may_name_what_is_there_and_nothing_else(store: Store, way: str) -> None:
    ada = await funded(store)
    file, gone, upload = await added(store, ada), await added(store, ada, b"two"), image(ada)
    await store.submit(new_task(ada, uploads=[upload]))
    await store.files.mark(gone.id, account_id=ada, now=NOW)
    assert await sent(store, naming(ada, file.id, upload.id, file.id), way) is None
    before = await store.balance(ada)
    for ids in ([gone.id], [file.id, gone.id], [123]):
        new = naming(ada, *ids, abandon_at=NOW + DAY_MS)
        refusal = await sent(store, new, way)
        assert isinstance(refusal, InvalidParameter)
        assert refusal.param == "image_input"
        assert await store.task(new.id) is None
    assert await store.balance(ada) == before
    assert await ends(store, file) == NOW + 2000 + DAYS * DAY_MS


async def test_a_task_may_not_name_a_file_that_has_expired(store: Store, way: str) -> None:
    ada = await funded(store)
    file = await added(store, ada)
    over = NOW + DAYS * DAY_MS
    refusal = await sent(store, naming(ada, file.id, created_at=over), way)
    assert isinstance(refusal, InvalidParameter)
    assert await sent(store, naming(ada, file.id, created_at=over - 1), way) is None


async def test_a_refused_task_keeps_no_file_for_longer(store: Store, way: str) -> None:
    ada = await funded(store, credit=PRICE - 1)
    file = await added(store, ada)
    refusal = await sent(store, naming(ada, file.id, abandon_at=NOW + DAY_MS), way)
    assert isinstance(refusal, InsufficientBalance)
    assert await ends(store, file) == file.expires_at


async def test_of_a_batch_only_what_names_a_missing_image_is_refused(store: Store) -> None:
    ada = await funded(store)
    file = await added(store, ada)
    results = await store.submit_batch(
        [naming(ada, file.id), naming(ada, 123), new_task(ada), naming(ada, file.id)]
    )
    refused = [isinstance(result, InvalidParameter) for result in results]
    assert refused == [False, True, False, False]


async def test_many_tasks_at_once_name_the_same_files_in_any_order(store: Store) -> None:
    ada, bob = await funded(store, credit=100 * PRICE), await funded(store, name="bob")
    files = [(await added(store, ada, bytes([each]))).id for each in range(4)]
    tasks = [naming(ada, *(files if turn % 2 else files[::-1])) for turn in range(20)]
    batches = [[naming(ada, *files), new_task(ada)], [naming(ada, *files[::-1])]]
    results: Sequence[object] = await asyncio.gather(
        *[store.submit(new) for new in tasks],
        *[store.submit(new_task(bob)) for _ in range(5)],
        *[store.submit_batch(batch) for batch in batches],
    )
    assert len(results) == 27


async def test_deleting_a_task_removes_no_file_and_no_image_of_another_task(store: Store) -> None:
    ada = await funded(store)
    file, result, upload = await added(store, ada), image(ada), image(ada)
    first = new_task(ada)
    await store.submit(first)
    task = await taken(store, first.id)
    number = await store.begin_attempt(task, channel_id=7, event=Event.RUN, now=NOW)
    await store.complete(task, number, images=[result], actual=PRICE, cost=None, now=NOW)
    second = naming(ada, file.id, result.id)
    references = (*second.references, Reference(asset_id=upload.id))
    await store.submit(msgspec.structs.replace(second, references=references, uploads=(upload,)))
    await store.cancel(second.id, account_id=ada, now=NOW)
    deletion = await store.gallery.delete(second.id, account_id=ada, now=NOW)
    assert deletion is not None
    assert [one.id for one in deletion.assets] == [upload.id]
    assert await found(store, file) is not None
    assert await store.asset(result.id) is not None
