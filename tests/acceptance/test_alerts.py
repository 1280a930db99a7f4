"""The alerts, judged by Prometheus' own tool on series that are written by hand."""

import subprocess
from pathlib import Path

import msgspec.yaml
import pytest

from programs import unpacked

RULES = Path(__file__).parents[2] / "deploy" / "prometheus"


@pytest.fixture(scope="module")
def promtool() -> str:
    """The program."""
    return unpacked("promtool", "prometheus")


@pytest.mark.parametrize("words", [("check", "alerts.yml"), ("test", "alerts_test.yml")])
def test_each_alert_is_sound_and_fires_when_it_should(
    promtool: str, words: tuple[str, str]
) -> None:
    verb, file = words
    ran = subprocess.run(
        [promtool, verb, "rules", file], cwd=RULES, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "SUCCESS" in ran.stdout


def test_each_alert_has_series_that_it_fires_on_and_others_that_it_does_not() -> None:
    alerts = {
        rule["alert"]
        for group in msgspec.yaml.decode((RULES / "alerts.yml").read_bytes())["groups"]
        for rule in group["rules"]
    }
    checks = [
        check
        for group in msgspec.yaml.decode((RULES / "alerts_test.yml").read_bytes())["tests"]
        for check in group["alert_rule_test"]
    ]
    assert {each["alertname"] for each in checks if each["exp_alerts"]} == alerts
    assert {each["alertname"] for each in checks if not each["exp_alerts"]} == alerts
