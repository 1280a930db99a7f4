"""What each operation costs in work stays within ``budgets.toml``, and the budgets stay tight.

Counted are things that a busy machine does not change, so nothing here hangs on a duration.
"""

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from work.growth import OLD, TIMES, add_old_tasks, looked_at
from work.measuring import ENGINES, measure, site_on

BUDGETS: dict[str, Any] = tomllib.loads(
    Path(__file__).with_name("budgets.toml").read_text(encoding="utf-8")
)
OF_THIS_PYTHON = sys.version_info[:2] == tuple(BUDGETS["python"])
OF_ONE_PYTHON = {"calls", "bytes"}
"""What differs from one version of Python to the next, by a little."""
OF_ONE_SQLITE = {"steps"}
SLACK: dict[str, float] = BUDGETS["slack"]


@pytest.mark.parametrize("engine", ENGINES)
async def test_no_operation_takes_more_work_than_its_budget_nor_much_less(
    engine: str, tmp_path: Path
) -> None:
    budgets: dict[str, Any] = BUDGETS[engine]
    async with site_on(engine, tmp_path / "site") as site:
        costs = await measure(site)
    assert set(costs) == set(budgets)
    wrong = [
        f"{engine}, {operation}: {fault}"
        for operation, spent in costs.items()
        for fault in faults(spent, budgets[operation], exact=engine == "sqlite")
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("engine", ENGINES)
async def test_ten_thousand_old_tasks_add_no_work(engine: str, tmp_path: Path) -> None:
    async with site_on(engine, tmp_path / "site") as site:
        few = await looked_at(site)
        await add_old_tasks(site)
        many = await looked_at(site)
    assert many - few < TIMES * OLD / 4, few  # one scan for each task would add four times that


def faults(spent: dict[str, float], budget: dict[str, float], *, exact: bool) -> Iterator[str]:
    """Where an operation and its budget are apart.

    Too little is a fault only of what is ``exact``: on PostgreSQL, what happens beside each other
    is done together or not, and what memory a process holds is never the same twice.
    """
    assert set(spent) - OF_ONE_SQLITE == set(budget)
    for what, amount in spent.items():
        if what in OF_ONE_SQLITE or (what in OF_ONE_PYTHON and not OF_THIS_PYTHON):
            continue
        most = budget[what]
        if amount > most:
            yield f"{amount:g} {what}, and its budget is {most:g}"
        elif exact and what != "bytes" and amount < most * (1 - SLACK.get(what, 0.1)):
            yield f"only {amount:g} {what} of {most:g}: lower the budget, so that it stays so"
