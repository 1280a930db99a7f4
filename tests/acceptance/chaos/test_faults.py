"""A short spell of bad networks; ``python -m acceptance.chaos.faults`` runs the long one."""

from pathlib import Path

import pytest

from acceptance.chaos.faults import Plan, weather


@pytest.mark.timeout(400)
async def test_through_bad_networks_every_task_ends_rightly_and_is_bought_once(
    tmp_path: Path,
) -> None:
    plan = Plan("sqlite", in_flight=60, seconds=12.0, work_seconds=1.0, seed=5)
    report = await weather(plan, tmp_path)
    assert report.faults == [], f"\n{report}"
    assert report.ends["success"] > plan.in_flight, f"\n{report}"
    assert len(report.happened) == 6, f"\n{report}"
