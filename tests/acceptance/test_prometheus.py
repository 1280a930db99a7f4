"""Alerts and dashboard, judged by Prometheus itself."""

import json
import math
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec.yaml
import pytest

from acceptance.cluster import Cluster, eventually, running_cluster
from programs import unpacked

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus"
ALERTS = [
    rule["alert"]
    for group in msgspec.yaml.decode((RULES / "alerts.yml").read_bytes())["groups"]
    for rule in group["rules"]
]
RARE = {"Faults", "Errors"}
"""Panels that show what did not happen here."""


@pytest.mark.parametrize("words", [("check", "alerts.yml"), ("test", "alerts_test.yml")])
def test_each_alert_is_sound_and_fires_when_it_should(words: tuple[str, str]) -> None:
    verb, file = words
    command = [unpacked("promtool", "prometheus"), verb, "rules", file]
    ran = subprocess.run(command, cwd=RULES, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "SUCCESS" in ran.stdout


def test_each_alert_has_series_that_it_fires_on_and_others_that_it_does_not() -> None:
    checks = [
        check
        for group in msgspec.yaml.decode((RULES / "alerts_test.yml").read_bytes())["tests"]
        for check in group["alert_rule_test"]
    ]
    assert {each["alertname"] for each in checks if each["exp_alerts"]} == set(ALERTS)
    assert {each["alertname"] for each in checks if not each["exp_alerts"]} == set(ALERTS)


@dataclass
class Prometheus:
    """A Prometheus that scrapes each second, and a client of it."""

    url: str
    http: aiohttp.ClientSession

    async def get(self, path: str, **parameters: str) -> Any:
        """What a path of its API answers."""
        url = f"{self.url}/api/v1/{path}"
        async with self.http.get(url, params=parameters) as response:
            answer = await response.json()
        assert answer["status"] == "success", (parameters, answer)
        return answer["data"]

    async def values(self, expression: str) -> list[float]:
        """The numbers that an expression comes to."""
        found = (await self.get("query", query=expression))["result"]
        values = (float(each["value"][1]) for each in found)
        return [value for value in values if not math.isnan(value)]

    async def holds(self, expression: str) -> None:
        """Wait until an expression is true of anything."""

        async def true() -> bool:
            return bool(await self.values(expression))

        await eventually(true, expression)


@contextmanager
def running(folder: Path, target: str) -> Iterator[Path]:
    """Prometheus, until left; gives its log."""
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "scrape_configs": [{"job_name": "calotype", "static_configs": [{"targets": [target]}]}],
        "rule_files": [str(RULES / "alerts.yml")],
    }
    (folder / "prometheus.yml").write_bytes(msgspec.yaml.encode(config))
    words = (
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/tsdb",
        "--web.listen-address=127.0.0.1:0",
    )
    log = folder / "prometheus.log"
    with log.open("wb") as told:
        process = subprocess.Popen([unpacked("prometheus", "prometheus"), *words], stderr=told)
    try:
        yield log
    finally:
        process.kill()
        process.wait()


async def said(log: Path, pattern: str) -> str:
    """What a log says, once it does."""
    found: list[str] = []

    def there() -> bool:
        found[:] = re.findall(pattern, log.read_text(encoding="utf-8"))
        return bool(found)

    await eventually(there, pattern)
    return found[0]


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with running_cluster(tmp_path, metrics_port="0") as made:
        yield made


def panels() -> Iterator[tuple[str, str]]:
    """The title and an expression of what the dashboard shows."""
    for panel in json.loads((DEPLOY / "grafana" / "calotype.json").read_bytes())["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"].replace("$__rate_interval", "5m")


async def test_a_real_prometheus_evaluates_every_alert_and_every_panel(
    cluster: Cluster, tmp_path: Path
) -> None:
    api = await cluster.api()
    target = await said(api.err, r"metrics are shown at http://([^/]+)/metrics")
    with running(tmp_path, target) as log:
        address = await said(log, r'"Listening on" address=(\S+)')
        await said(log, "(ready to receive web requests)")
        prometheus = Prometheus(f"http://{address}", cluster.http)
        # A rate takes two samples, and the second has to be higher.
        for number in (3, 6):
            await cluster.submit_many([api], 3)
            await cluster.all_final(number)
            await prometheus.holds(f"sum(calotype_tasks_ended_total) >= {number}")
        await prometheus.holds("sum(rate(calotype_task_seconds_count[5m])) > 0")

        await prometheus.holds('up{job="calotype"} == 1')

        async def drawn() -> bool:
            asked = [each for each in panels() if each[0] not in RARE]
            return all([await prometheus.values(expression) for _, expression in asked])

        await eventually(drawn, "every panel has data")

        async def evaluated() -> bool:
            (group,) = (await prometheus.get("rules"))["groups"]
            healths = {rule["name"]: rule["health"] for rule in group["rules"]}
            assert list(healths) == ALERTS
            assert set(healths.values()) <= {"ok", "unknown"}, healths
            return set(healths.values()) == {"ok"}

        await eventually(evaluated, "every alert was evaluated")
