"""Finding an account's tasks; see ``store.searching``.

``INDEXED BY``: SQLite keeps no statistics here, so the choice is made once, in the text.
"""

import sqlite3
from functools import cache

from calotype.domain.task import Task
from calotype.store import rows
from calotype.store.searching import OPEN, Search, Shape, Shelf


def find(connection: sqlite3.Connection, search: Search) -> list[Task]:
    """A page of tasks."""
    return [rows.task(row) for row in look(connection, search, columns=rows.TASK)]


def look(connection: sqlite3.Connection, search: Search, *, columns: str) -> list[rows.Row]:
    """These columns of a page of tasks."""
    if not search.is_askable:
        return []
    by_pair = bool(search.pairs)
    if search.must_count:
        counted = connection.execute(
            search.shape.count(model="model", id_="id"), search.count_values()
        )
        search, tasks_are_rarer = search.along(counted.fetchone())
        by_pair = not tasks_are_rarer
    statement = page(search.shape, by_pair=by_pair, columns=columns)
    return connection.execute(statement, search.values()).fetchall()


@cache
def page(shape: Shape, *, by_pair: bool, columns: str = rows.TASK) -> str:
    """The statement of a page, along the first pair of metadata or along the tasks."""
    if by_pair:
        own = ", ".join(f"tasks.{column}" for column in columns.split(", "))
        return (
            f"SELECT {own} FROM task_metadata AS m CROSS JOIN tasks ON tasks.id = m.task_id "
            f"WHERE {shape.of_pair(0)} AND m.task_id < ?2 AND m.task_id >= ?3 "
            f"{shape.conditions('tasks', model='tasks.model', first_pair=1)} "
            f"ORDER BY m.task_id DESC LIMIT {shape.limit}"
        )
    branches = " UNION ALL ".join(_branch(shape, shelf) for shelf in shape.shelves)
    return (
        f"SELECT {columns} FROM tasks WHERE id IN ({branches}) ORDER BY id DESC LIMIT {shape.limit}"
    )


def _branch(shape: Shape, shelf: Shelf) -> str:
    """The ids of a page from one shelf, and where models must be merged, of a few more."""
    own = f"FROM tasks AS t INDEXED BY {shelf.index} WHERE account_id = ?1 AND {shelf.holds}"

    def ids(of_model: str, *, model: str = "") -> str:
        return (
            f"SELECT t.id {own} {of_model} AND t.id < ?2 AND t.id >= ?3 "
            f"{shape.conditions('t', model=model)} ORDER BY t.id DESC LIMIT {shape.limit}"
        )

    if shelf is OPEN:
        return f"SELECT id FROM ({ids('', model='t.model')})"
    if shape.by_model:
        return f"SELECT id FROM ({ids(f'AND t.model = {shape.model}')})"
    return f"""
SELECT found.id FROM (
    WITH RECURSIVE models (model) AS (
        SELECT MIN(t.model) {own}
        UNION ALL
        SELECT (SELECT MIN(t.model) {own} AND t.model > models.model)
        FROM models WHERE models.model IS NOT NULL
    )
    SELECT model FROM models
) AS shelf CROSS JOIN tasks AS found ON found.id IN ({ids("AND t.model = shelf.model")})
"""
