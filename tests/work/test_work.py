"""What each operation costs in work stays within ``budgets.toml``, and the budgets stay tight.

Counted are things that a busy machine does not change, so nothing here hangs on a duration.
"""

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from work.growth import add_old_tasks, scans
from work.measuring import ENGINES, measure, requests, site_on

BUDGETS: dict[str, Any] = tomllib.loads(
    Path(__file__).with_name("budgets.toml").read_text(encoding="utf-8")
)
OF_THIS_PYTHON = sys.version_info[:2] == tuple(BUDGETS["python"])
OF_ONE_PYTHON = {"calls", "bytes"}
"""What differs from one version of Python to the next, by a little."""
OF_ONE_SQLITE = {"steps"}


@pytest.mark.parametrize("engine", ENGINES)
async def test_no_operation_takes_more_work_than_its_budget_however_many_tasks_there_are(
    engine: str, tmp_path: Path
) -> None:
    budgets: dict[str, dict[str, float]] = BUDGETS[engine]
    async with site_on(engine, tmp_path / "site") as site:
        found = await measure(site)
        assert set(found.costs) == set(budgets)
        wrong = [
            f"{engine}, {operation}: {fault}"
            for operation, spent in found.costs.items()
            for fault in faults(spent, budgets[operation])
        ]
        assert not wrong, "\n".join(wrong)

        await add_old_tasks(site)
        for operation, spent in (await requests(site)).items():
            assert spent == pytest.approx(found.costs[operation], rel=0.1, abs=0.3), operation
        assert await scans(site, found.statements) == []


def faults(spent: dict[str, float], budget: dict[str, float]) -> Iterator[str]:
    """Where an operation and its budget are apart."""
    assert set(spent) - OF_ONE_SQLITE == set(budget) - {"slack"}
    for what, amount in spent.items():
        if what in OF_ONE_SQLITE or (what in OF_ONE_PYTHON and not OF_THIS_PYTHON):
            continue
        most, slack = budget[what], budget.get("slack", BUDGETS["slack"].get(what, 0.1))
        if amount > most:
            yield f"{amount:g} {what}, and its budget is {most:g}"
        elif amount < most * (1 - slack):
            yield f"only {amount:g} {what} of {most:g}: lower the budget, so that it stays so"
