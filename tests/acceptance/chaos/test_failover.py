"""A short spell of bad weather; ``make chaos`` runs the long one."""

from pathlib import Path

from acceptance.chaos.failover import weathered


async def test_with_one_of_three_upstreams_well_every_task_ends_well_and_is_bought_once(
    tmp_path: Path,
) -> None:
    report = await weathered(240, seed=11, folder=tmp_path)
    assert report.faults == [], f"\n{report}"
    assert report.ends["success"] >= 0.9 * report.tasks, f"\n{report}"
    assert any("refusing" in line and "key" in line for line in report.timeline), f"\n{report}"
    assert report.sends["refusing"] < 40, f"\n{report}"
