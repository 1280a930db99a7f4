"""Finding an account's tasks: what the statements of every database have in common.

A task is in one of three indexes, so that submission writes to one only: an account's open tasks
by id, and those that succeeded and those that failed by model and id. Pairs of metadata have one
too. A search walks along one kind, newest first, and looks at every task that it comes by: along
the tasks of a state and a model, or along those of a pair. So that it comes by few in vain, it
takes what there is least of, as far as a short count can tell.

Parameters are written as SQLite does, ``?1``: the account, the id before which and the one from
which on to look, then the pairs, the model where one is asked for, the two times, and the limit.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from calotype.domain.ids import IdSource
from calotype.domain.task import State
from calotype.store.askable import bounded, is_askable
from calotype.store.port import EVER

COUNTED: Final = 1000
"""Beyond this many, one index is as good as another."""
_SLACK_MS: Final = 1000
"""How far from a task's time its id may be, where the clock was set in between."""


class Shelf(msgspec.Struct, frozen=True):
    """A kind of tasks that has an index of its own; every task stands on one."""

    index: str
    holds: str
    """The condition under which a row is in the index."""


OPEN: Final = Shelf("tasks_open", "completed_at IS NULL")
SUCCEEDED: Final = Shelf("tasks_succeeded", "result IS NOT NULL")
FAILED: Final = Shelf("tasks_failed", "error IS NOT NULL")


class Search(msgspec.Struct, frozen=True):
    """What is asked for; see ``port.Store.search``."""

    account_id: int
    state: State | None
    model: str | None
    since: int | None
    pairs: tuple[tuple[str, str], ...]
    """Of metadata, the rarest first."""
    before: int | None
    limit: int
    until: int | None = None
    """Only those created before this time."""

    @property
    def shape(self) -> "Shape":
        """All of it that the text of a statement depends on."""
        return Shape(self.state, self.model is not None, len(self.pairs))

    @property
    def is_askable(self) -> bool:
        """Whether there can be any such tasks."""
        words = [word for pair in self.pairs for word in pair]
        return is_askable(self.account_id, self.model, *words)

    @property
    def must_count(self) -> bool:
        """Whether there is more than one way to find the tasks, with metadata among them."""
        ways = len(self.pairs) + (self.state is not None or self.model is not None)
        return bool(self.pairs) and ways > 1

    def count_values(self) -> list[Any]:
        """What ``Shape.count`` takes."""
        only_open = self.shape.shelves == (OPEN,)
        return [*self._bounds(), *([] if self.model is None or only_open else [self.model])]

    def values(self) -> list[Any]:
        """What the statement of a page takes."""
        model = [] if self.model is None else [self.model]
        until = EVER if self.until is None else bounded(self.until)
        return [*self._bounds(), *model, bounded(self.since or 0), until, self.limit]

    def _bounds(self) -> list[Any]:
        since = self.since or 0
        first = _id_at(since - _SLACK_MS) if since > _SLACK_MS else 0
        before = EVER if self.before is None else bounded(self.before)
        if self.until is not None:
            before = min(before, _id_at(max(0, self.until + _SLACK_MS)))
        pairs = [word for pair in self.pairs for word in pair]
        return [self.account_id, before, min(first, EVER), *pairs]

    def along(self, counts: Sequence[int]) -> "tuple[Search, bool]":
        """The search with its rarest pair first, and whether the tasks are rarer than that."""
        of_pairs, tasks = counts[: len(self.pairs)], sum(counts[len(self.pairs) :])
        rarest = min(range(len(of_pairs)), key=of_pairs.__getitem__)
        pairs = (self.pairs[rarest], *self.pairs[:rarest], *self.pairs[rarest + 1 :])
        return msgspec.structs.replace(self, pairs=pairs), tasks < of_pairs[rarest]


def _id_at(time: int) -> int:
    """An id of this time."""
    return IdSource(lambda: time).next()


class Shape(msgspec.Struct, frozen=True):
    """What the text of a search's statements depends on."""

    state: State | None
    by_model: bool
    pairs: int

    @property
    def shelves(self) -> tuple[Shelf, ...]:
        """Where to look."""
        match self.state:
            case None:
                return (OPEN, SUCCEEDED, FAILED)
            case State.SUCCESS:
                return (SUCCEEDED,)
            case State.FAIL:
                return (FAILED,)
            case _:
                return (OPEN,)

    @property
    def model(self) -> str:
        """The place of the model among the parameters."""
        return f"?{4 + 2 * self.pairs}"

    @property
    def since(self) -> str:
        """The place of the time."""
        return f"?{4 + 2 * self.pairs + self.by_model}"

    @property
    def until(self) -> str:
        """The place of the time before which."""
        return f"?{5 + 2 * self.pairs + self.by_model}"

    @property
    def limit(self) -> str:
        """The place of the limit."""
        return f"?{6 + 2 * self.pairs + self.by_model}"

    def of_pair(self, pair: int) -> str:
        """The condition on ``task_metadata``, as ``m``, for one pair."""
        return f"m.account_id = ?1 AND m.key = ?{4 + 2 * pair} AND m.value = ?{5 + 2 * pair}"

    def conditions(self, task: str, *, model: str, first_pair: int = 0) -> str:
        """What a task must be, but for the account and the bounds of its id.

        Args:
            task: the name of the table or of its alias.
            model: the expression of its model; empty where the index sees to it.
            first_pair: the first of the pairs that are still to be looked at.

        """
        found = [f"AND {task}.created_at >= {self.since} AND {task}.created_at < {self.until}"]
        if self.state is not None:
            found.append(f"AND {task}.state = '{self.state}'")
        if self.by_model and model:
            found.append(f"AND {model} = {self.model}")
        found += (
            f"AND EXISTS (SELECT 1 FROM task_metadata m WHERE {self.of_pair(pair)} "
            f"AND m.task_id = {task}.id LIMIT 1 OFFSET 0)"
            for pair in range(first_pair, self.pairs)
        )
        return " ".join(found)

    def count(self, *, model: str, id_: str) -> str:
        """One row: how many tasks each pair has, and each shelf as far as the model goes.

        They are counted in the order of their index, so that no planner takes another way.
        """
        sources = [
            f"task_metadata m WHERE {self.of_pair(pair)} AND m.task_id < ?2 AND m.task_id >= ?3 "
            "ORDER BY m.task_id"
            for pair in range(self.pairs)
        ]
        rest = (
            f"AND {model} = {self.model} ORDER BY {id_}" if self.by_model else f"ORDER BY {model}"
        )
        sources += (
            f"tasks WHERE account_id = ?1 AND {shelf.holds} {rest}"
            for shelf in self.shelves
            if shelf is not OPEN
        )
        counts = [
            f"(SELECT COUNT(*) FROM (SELECT 1 FROM {source} LIMIT {COUNTED}) AS few)"
            for source in sources
        ]
        if OPEN in self.shelves:
            counts.append("(SELECT unfinished FROM accounts WHERE id = ?1)")
        return f"SELECT {', '.join(counts)}"


def search_of(
    account_id: int,
    *,
    state: State | None,
    model: str | None,
    since: int | None,
    metadata: Mapping[str, str],
    before: int | None,
    limit: int,
) -> Search:
    """The arguments of ``port.Store.search`` as one."""
    return Search(account_id, state, model, since, tuple(metadata.items()), before, limit)
