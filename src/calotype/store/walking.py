"""Tasks by the words of their prompts, and pictures that are still there, for every database.

No database finds a word in a prompt of any language by an index. So a page looks at tasks one by
one, newest first, and at no more than ``LOOKED_AT`` of them: it says how far it came, and the next
one goes on from there.
"""

import heapq
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Final, Protocol
from unicodedata import normalize

import msgspec

from calotype.domain.task import Asset, State, Task
from calotype.store.gallery import NOTHING, Deletion, Page
from calotype.store.rows import Row
from calotype.store.searching import OPEN, Search

LOOKED_AT: Final = 2000
"""Tasks that one page looks at: less than 0.1 s of a million, on either database."""
LOOK: Final = "id, request, state, created_at, deleted_at, expires_at"
"""The columns by which a task is judged, and those that ``searching`` asks for."""
BATCH: Final = 100
"""Tasks that are read at a time, of one model and state."""


class Engine(Protocol):
    """What a gallery needs of a database."""

    async def look(self, search: Search) -> Sequence[Row]:
        """The ``LOOK`` columns of a page of tasks."""
        ...

    async def models(self, account_id: int) -> Sequence[str]:
        """Those of an account's final tasks."""
        ...

    async def read(self, task_ids: Sequence[int]) -> Sequence[Task]:
        """These tasks, in any order."""
        ...

    async def delete(self, task_id: int, *, account_id: int, now: int) -> Deletion | None:
        """As ``gallery.GalleryStore`` says."""
        ...

    async def doomed(self, *, after: int = 0, limit: int) -> Sequence[Asset]:
        """As ``gallery.GalleryStore`` says."""
        ...

    async def bury(self, asset_ids: Sequence[int]) -> None:
        """As ``gallery.GalleryStore`` says."""
        ...


class Gallery:
    """The pictures of one database; see ``gallery.GalleryStore``."""

    def __init__(self, engine: Engine, *, looks: int = LOOKED_AT, batch: int = BATCH) -> None:
        self._engine = engine
        self.delete = engine.delete
        self.doomed = engine.doomed
        self.bury = engine.bury
        self._looks = looks
        self._batch = batch

    async def pictures(
        self,
        account_id: int,
        *,
        model: str | None = None,
        since: int | None = None,
        until: int | None = None,
        text: str = "",
        metadata: Mapping[str, str] = NOTHING,
        before: int | None = None,
        now: int = 0,
        limit: int,
    ) -> Page:
        """An account's tasks that have images to show, newest first."""
        pairs = tuple(metadata.items())
        search = Search(
            account_id, State.SUCCESS, model, since, pairs, before, limit=limit, until=until
        )
        return await self._page(search, lambda row: _has_images(row, now) and _says(row, text))

    async def tasks(
        self,
        account_id: int,
        *,
        state: State | None = None,
        model: str | None = None,
        since: int | None = None,
        until: int | None = None,
        text: str = "",
        metadata: Mapping[str, str] = NOTHING,
        before: int | None = None,
        limit: int,
    ) -> Page:
        """An account's tasks, newest first."""
        pairs = tuple(metadata.items())
        search = Search(account_id, state, model, since, pairs, before, limit=limit, until=until)
        return await self._page(search, lambda row: _says(row, text))

    async def _page(self, search: Search, fits: Callable[[Row], bool]) -> Page:
        found: list[int] = []
        looked, last = 0, None
        async for row in self._newest_first(search):
            if len(found) == search.limit or looked == self._looks:
                break
            looked, last = looked + 1, row[0]
            if fits(row):
                found.append(row[0])
        else:
            last = None
        tasks = await self._engine.read(found) if found else []
        return Page(sorted(tasks, key=lambda task: -task.id), last)

    async def _newest_first(self, search: Search) -> AsyncIterator[Row]:
        """Every task of a search: first a page with one more, which mostly is enough."""
        first = await self._engine.look(msgspec.structs.replace(search, limit=search.limit + 1))
        for row in first:
            yield row
        if len(first) <= search.limit:
            return
        rest = msgspec.structs.replace(search, before=first[-1][0], limit=self._batch)
        parts = [_Part(self._engine, each) for each in await self._parts(rest)]
        heads: list[tuple[int, int, Row]] = []
        for place, part in enumerate(parts):
            if (head := await part.next()) is not None:
                heads.append((-head[0], place, head))
        heapq.heapify(heads)
        before = 0
        while heads:
            number, place, head = heads[0]
            if number != before:  # one that moved on meanwhile is in two parts
                yield head
            before = number
            if (following := await parts[place].next()) is None:
                heapq.heappop(heads)
            else:
                heapq.heapreplace(heads, (-following[0], place, following))

    async def _parts(self, search: Search) -> list[Search]:
        """Searches that have the same tasks between them, each along one index."""
        shelves = search.shape.shelves
        if search.pairs or search.model is not None or shelves == (OPEN,):
            return [search]
        replace = msgspec.structs.replace
        models = await self._engine.models(search.account_id)
        states = list(State) if search.state is None else [search.state]
        parts = []
        for state in states:  # in the order in which tasks go through them: none is missed
            if state in {State.SUCCESS, State.FAIL}:
                parts += [replace(search, state=state, model=model) for model in models]
            else:
                parts.append(replace(search, state=state))
        return parts


class _Part:
    """A search that is read a batch at a time."""

    def __init__(self, engine: Engine, search: Search) -> None:
        self._engine = engine
        self._search = search
        self._read: list[Row] = []
        self._is_over = False

    async def next(self) -> Row | None:
        """The next of its tasks; None after the last."""
        if not self._read and not self._is_over:
            batch = await self._engine.look(self._search)
            self._is_over = len(batch) < self._search.limit
            self._read = list(reversed(batch))
            if batch:
                self._search = msgspec.structs.replace(self._search, before=batch[-1][0])
        return self._read.pop() if self._read else None


def _has_images(row: Row, now: int) -> bool:
    return row[4] is None and (row[5] is None or now < row[5])


class _Prompt(msgspec.Struct):
    prompt: str


_prompt: Final = msgspec.json.Decoder(_Prompt).decode


def _says(row: Row, text: str) -> bool:
    """Whether the prompt of a ``LOOK`` row has a text in it, whatever the case of its letters."""
    return not text or _plain(text) in _plain(_prompt(row[1]).prompt)


def _plain(text: str) -> str:
    return normalize("NFC", text).casefold()
