"""Finding an account's tasks; see ``store.searching``.

``OFFSET 0`` keeps the planner from turning a look at each task into a join with all that a pair
or an account has.
"""

from functools import cache

from calotype.domain.task import Task
from calotype.store import rows
from calotype.store.postgres.database import Database
from calotype.store.searching import OPEN, Search, Shape, Shelf


async def find(database: Database, search: Search) -> list[Task]:
    """A page of tasks."""
    return [rows.task(row) for row in await look(database, search, columns=rows.TASK)]


async def look(database: Database, search: Search, *, columns: str) -> list[rows.Row]:
    """These columns of a page of tasks; ``created_at``, ``state`` and ``request`` among them."""
    if not search.is_askable:
        return []
    by_pair = bool(search.pairs)
    if search.must_count:
        counted = await database.fetch(_count(search.shape), *search.count_values())
        search, tasks_are_rarer = search.along(list(counted[0]))
        by_pair = not tasks_are_rarer
    statement = page(search.shape, by_pair=by_pair, columns=columns)
    return await database.fetch(statement, *search.values())


@cache
def _count(shape: Shape) -> str:
    return shape.count(model="task_model(request)", id_="(id + 0)").replace("?", "$")


@cache
def page(shape: Shape, *, by_pair: bool, columns: str = rows.TASK) -> str:
    """The statement of a page, along the first pair of metadata or along the tasks."""
    along = _along_pair if by_pair else _along_tasks
    return along(shape, columns).replace("?", "$")


def _along_pair(shape: Shape, columns: str) -> str:
    conditions = shape.conditions("tasks", model="task_model(request)", first_pair=1)
    return f"""
SELECT {", ".join(f"found.{column}" for column in columns.split(", "))}
FROM task_metadata m CROSS JOIN LATERAL (
    SELECT {columns} FROM tasks WHERE id = m.task_id {conditions} OFFSET 0
) AS found
WHERE {shape.of_pair(0)} AND m.task_id < ?2 AND m.task_id >= ?3
ORDER BY m.task_id DESC LIMIT {shape.limit}
"""


def _along_tasks(shape: Shape, columns: str) -> str:
    branches = " UNION ALL ".join(f"({_branch(shape, shelf, columns)})" for shelf in shape.shelves)
    return f"SELECT * FROM ({branches}) AS found ORDER BY id DESC LIMIT {shape.limit}"


def _branch(shape: Shape, shelf: Shelf, columns: str) -> str:
    """A page from one shelf, and where models must be merged, a few more."""
    own = f"FROM tasks WHERE account_id = ?1 AND {shelf.holds}"
    bounds = "AND (id + 0) < ?2 AND (id + 0) >= ?3"
    newest = f"ORDER BY (id + 0) DESC LIMIT {shape.limit}"
    if shelf is OPEN:
        conditions = shape.conditions("open", model="task_model(open.request)")
        return f"""
SELECT {columns} FROM (
    SELECT {columns} {own} {bounds} ORDER BY (id + 0) DESC
    LIMIT (SELECT unfinished FROM accounts WHERE id = ?1)
) AS open WHERE true {conditions} ORDER BY id DESC LIMIT {shape.limit}
"""
    conditions = shape.conditions("tasks", model="")
    if shape.by_model:
        return (
            f"SELECT {columns} {own} AND task_model(request) = {shape.model} {bounds} "
            f"{conditions} {newest}"
        )
    return f"""
WITH RECURSIVE models (model) AS (
    (SELECT task_model(request) {own} ORDER BY task_model(request) LIMIT 1)
    UNION ALL
    SELECT (
        SELECT task_model(request) {own} AND task_model(request) > models.model
        ORDER BY task_model(request) LIMIT 1
    ) FROM models WHERE models.model IS NOT NULL
)
SELECT found.* FROM models CROSS JOIN LATERAL (
    SELECT {columns} {own} AND task_model(request) = models.model {bounds} {conditions} {newest}
) AS found
"""
