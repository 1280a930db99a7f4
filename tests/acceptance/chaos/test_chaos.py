"""A short storm on each database; ``make chaos`` runs the long one."""

from pathlib import Path

import pytest

from acceptance.chaos.chaos import MODES, Plan, storm


@pytest.mark.parametrize("mode", MODES)
async def test_whatever_is_killed_nothing_is_lost_or_bought_twice(
    mode: str, tmp_path: Path
) -> None:
    report = await storm(Plan(mode, tasks=120, kills=8, seed=1841, lease_seconds=4), tmp_path)
    assert report.faults == [], f"\n{report}"
    assert report.kills.total() == 8
    assert report.ends["success"] > 0
