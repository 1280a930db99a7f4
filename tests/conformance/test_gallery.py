"""Pictures and tasks are found by the words of their prompts, however many tasks there are."""

from collections.abc import Sequence

import msgspec
import pytest

from calotype.domain.errors import failure
from calotype.domain.ids import IdSource
from calotype.domain.task import Event, State, Task
from calotype.store.port import Store
from calotype.store.walking import Gallery
from conformance.tasks import NOW, PRICE, funded, image, new_task, read, taken

DAY = 86_400_000
WHY = failure("upstream_failed", "It broke.")


async def made(
    store: Store,
    account_id: int,
    *,
    prompt: str = "a cat",
    model: str = "gpt-image-2",
    state: State = State.SUCCESS,
    at: int = NOW,
    metadata: dict[str, str] | None = None,
) -> Task:
    """A task that came to a state."""
    new = new_task(
        account_id,
        task_id=IdSource(lambda: at).next(),
        model=model,
        metadata=metadata,
        created_at=at,
    )
    request = msgspec.structs.replace(new.request, prompt=prompt)
    await store.submit(msgspec.structs.replace(new, request=request))
    if state is not State.WAITING:
        task = await taken(store, new.id)
        if state is State.SUCCESS:
            number = await store.begin_attempt(task, channel_id=7, event=Event.RUN, now=at)
            await store.complete(
                task, number, images=[image(account_id)], actual=PRICE, cost=None, now=at
            )
        elif state is State.FAIL:
            await store.fail(task, WHY, now=at)
    return await read(store, new.id)


def ids(tasks: Sequence[Task]) -> list[int]:
    return [task.id for task in tasks]


async def test_pictures_are_the_tasks_that_succeeded_newest_first(store: Store) -> None:
    ada, bob = await funded(store), await funded(store, name="bob")
    await made(store, bob)
    for second, state in enumerate((State.WAITING, State.QUEUING, State.FAIL)):
        await made(store, ada, state=state, at=NOW + 1000 * second)
    pictures = [await made(store, ada, at=NOW + DAY + 1000 * second) for second in range(3)]
    page = await store.gallery.pictures(ada, limit=9)
    assert (page.tasks, page.searched_to) == (pictures[::-1], None)
    exactly = await store.gallery.pictures(ada, limit=3)
    assert (exactly.tasks, exactly.searched_to) == (pictures[::-1], None)


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("CAT", "A cat on a roof"),
        ("straße", "Die STRASSE im Regen"),
        ("έρως", "ΈΡΩΣ"),
        ("cafe\u0301", "Un café à Paris"),
        ("夜", "京都の夜"),
        ("100% _real_", "a 100% _real_ photograph"),
        ('a "quoted\\', 'a "quoted\\ word'),
    ],
)
async def test_the_words_of_a_prompt_are_found_in_any_language(
    store: Store, text: str, prompt: str
) -> None:
    account = await funded(store)
    await made(store, account, prompt="something else")
    wanted = await made(store, account, prompt=prompt, at=NOW + 1000)
    failed = await made(store, account, prompt=prompt, state=State.FAIL, at=NOW + 2000)
    pictures = await store.gallery.pictures(account, text=text, limit=9)
    assert ids(pictures.tasks) == [wanted.id]
    tasks = await store.gallery.tasks(account, text=text, limit=9)
    assert ids(tasks.tasks) == [failed.id, wanted.id]
    by_state = await store.gallery.tasks(account, text=text, state=State.FAIL, limit=9)
    assert ids(by_state.tasks) == [failed.id]


async def test_filters_narrow_pictures_down_together(store: Store) -> None:
    account = await funded(store)
    shop, other = {"project": "shop"}, {"project": "other"}
    await made(store, account, at=NOW - DAY, metadata=shop)
    await made(store, account, at=NOW, metadata=shop, model="flux-2")
    await made(store, account, at=NOW + 1000, metadata=other)
    await made(store, account, at=NOW + 2000, metadata=shop, prompt="a dog")
    wanted = await made(store, account, at=NOW + 3000, metadata=shop)
    await made(store, account, at=NOW + DAY, metadata=shop)
    page = await store.gallery.pictures(
        account,
        model="gpt-image-2",
        since=NOW,
        until=NOW + DAY,
        text="cat",
        metadata=shop,
        limit=9,
    )
    assert ids(page.tasks) == [wanted.id]


async def test_a_day_begins_at_its_first_millisecond_and_ends_before_the_next(
    store: Store,
) -> None:
    account = await funded(store)
    at = [NOW - 1, NOW, NOW + DAY - 1, NOW + DAY]
    tasks = [await made(store, account, at=each) for each in at]
    page = await store.gallery.tasks(account, since=NOW, until=NOW + DAY, limit=9)
    assert ids(page.tasks) == [tasks[2].id, tasks[1].id]
    none = await store.gallery.tasks(account, until=0, limit=9)
    assert (none.tasks, none.searched_to) == ([], None)


async def test_pages_join_without_a_gap_over_models_and_states(
    store: Store,
) -> None:
    whole = store.gallery
    assert isinstance(whole, Gallery)
    gallery = Gallery(whole._engine, looks=7, batch=2)
    account = await funded(store, credit=100 * PRICE)
    states = [State.SUCCESS, State.FAIL, State.WAITING, State.SUCCESS, State.QUEUING]
    everything = [
        await made(
            store,
            account,
            at=NOW + 1000 * second,
            model=("flux-2", "gpt-image-2", "seedream-5-pro")[second % 3],
            state=states[second % 5],
            prompt="a cat" if second % 4 == 0 else "a dog",
        )
        for second in range(40)
    ]
    cats = [task for task in everything[::-1] if task.request.prompt == "a cat"]
    for state, expected in (
        (None, cats),
        (State.SUCCESS, [task for task in cats if task.state is State.SUCCESS]),
        (State.WAITING, [task for task in cats if task.state is State.WAITING]),
    ):
        found: list[int] = []
        before: int | None = None
        pages = 0
        while True:
            page = await gallery.tasks(account, state=state, text="CAT", before=before, limit=3)
            found, before, pages = found + ids(page.tasks), page.searched_to, pages + 1
            assert len(page.tasks) <= 3
            if before is None:
                break
        assert found == ids(expected)
        assert pages > 1
    assert ids((await whole.tasks(account, limit=40)).tasks) == ids(everything[::-1])
