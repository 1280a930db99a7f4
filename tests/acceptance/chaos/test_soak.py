"""A few seconds of coming and going; ``make soak`` runs the hour."""

from pathlib import Path

import pytest

from acceptance.chaos.soak import Plan, soak


@pytest.mark.timeout(400)
async def test_while_everything_comes_and_goes_nothing_is_lost_or_left_over(tmp_path: Path) -> None:
    report = await soak(Plan("sqlite", seconds=6.0, seed=3), tmp_path)
    assert report.faults == [], f"\n{report}"
    assert report.rows["tasks"] > 0, f"\n{report}"
    assert report.done["kill -9"] > 0, f"\n{report}"
