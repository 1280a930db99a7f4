"""Metrics: what a server shows after real traffic, and that documents, alerts and dashboard fit."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import msgspec.yaml
import promql_parser
import pytest
import pytest_asyncio
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from calotype.api.metrics import shown
from calotype.domain.errors import Unavailable
from calotype.domain.health import Health
from calotype.domain.webhooks import DeliveryState
from calotype.observing.metrics import COUNTS, DURATIONS, ENDED, HELD, UPSTREAM, WEBHOOKS
from calotype.services import gauges
from calotype.settings import SettingsError
from harness import Server, picture, running_server, until
from receiver import OK, receiving

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "calotype.json"
TARGET = {"job", "instance"}
"""Labels that Prometheus itself gives every series."""
MARKED = "marked-secret-prompt"
DELIVERED = (DeliveryState.DELIVERED,)


@asynccontextmanager
async def watched(server: Server, **settings: Any) -> AsyncIterator[str]:
    """The URL of a server's metrics."""
    chosen = {"metrics_port": 0, **settings}
    core = server.core
    wanted = msgspec.structs.replace(core.settings, **chosen)
    async with shown(wanted, core.store, core.router, clock=core.clock) as url:
        yield url


async def read(server: Server, url: str) -> dict[str, Metric]:
    """The metrics by name."""
    async with server.http.get(url) as response:
        assert response.status == 200
        text = await response.text()
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(families: dict[str, Metric], name: str, **labels: str) -> float:
    """What one series says; 0 without it."""
    found = [
        sample.value
        for family in families.values()
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    return sum(found)


async def traffic(server: Server) -> None:
    """Some of everything."""
    before = WEBHOOKS.values[DELIVERED]
    async with receiving(OK) as receiver:
        task = await server.outcome(f"{MARKED}", callback_url=receiver.url)
        await server.outcome(f"{MARKED} sandbox:refuse")
        await server.outcome(f"{MARKED} sandbox:500-before")
        await server.outcome(f"{MARKED} sandbox:500-after")
        await until(lambda: WEBHOOKS.values[DELIVERED] > before)
    reply = await server.submit_form(("image", picture(), "a.png"))
    assert reply.status == 202, reply.body
    await server.finished(reply.json["task_id"])
    await server.call("GET", task["result"]["data"][0]["url"])
    await server.call("GET", f"/v1/tasks/{task['task_id']}?wait=1")
    await server.call("GET", f"/{MARKED}")
    await server.call("PATCH", "/v1/tasks")
    await server.call(f"BREW-{MARKED}", "/v1/tasks")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Metric]:
    """What a server shows after traffic."""
    data = tmp_path_factory.mktemp("data")
    async with (
        running_server(data, webhook_allow_hosts=("127.0.0.1",)) as server,
        watched(server) as url,
    ):
        await traffic(server)
        return await read(server, url)


def test_traffic_is_counted_by_route_task_upstream_and_bytes(families: dict[str, Metric]) -> None:
    for name, labels in (
        ("http_requests_total", {"route": "/v1/images/generations", "status": "202"}),
        ("http_requests_total", {"route": "/v1/tasks/{task_id}", "status": "200"}),
        ("http_requests_total", {"route": "/v1/assets/{name}", "status": "200"}),
        ("http_requests_total", {"route": "none", "status": "404"}),
        ("http_requests_total", {"method": "other", "status": "405"}),
        ("http_requests_total", {"method": "other", "route": "none", "status": "400"}),
        ("tasks_accepted_total", {"channel": "sandbox", "model": "gpt-image-2"}),
        ("tasks_ended_total", {"outcome": "success"}),
        ("tasks_ended_total", {"outcome": "content_policy_violation"}),
        ("upstream_outcomes_total", {"outcome": "done", "fault": ""}),
        ("upstream_outcomes_total", {"outcome": "refused", "fault": "request"}),
        ("upstream_outcomes_total", {"outcome": "try_later"}),
        ("upstream_outcomes_total", {"outcome": "failed", "fault": "upstream"}),
        ("charged_micro_usdc_total", {"model": "gpt-image-2"}),
        ("image_stored_bytes_total", {"kind": "result"}),
        ("image_stored_bytes_total", {"kind": "reference"}),
        ("image_served_bytes_total", {}),
        ("webhook_tries_total", {"outcome": "delivered"}),
        ("task_queue_seconds_count", {"channel": "sandbox"}),
        ("upstream_seconds_count", {"outcome": "done"}),
        ("image_store_seconds_count", {}),
        ("task_seconds_count", {"outcome": "success"}),
        *(
            ("database_seconds_count", {"operation": operation})
            for operation in ("submit", "take", "begin_attempt", "end")
        ),
        ("ledger_balance_micro_usdc", {}),
        ("database_up", {}),
    ):
        assert value(families, f"calotype_{name}", **labels) > 0, (name, labels)


def test_no_label_holds_what_a_client_wrote_or_whose_it_is(families: dict[str, Metric]) -> None:
    words = {
        word
        for family in families.values()
        for sample in family.samples
        for word in sample.labels.values()
    }
    assert not [word for word in words if MARKED in word or "BREW" in word]
    assert not [word for word in words if re.search(r"task_[0-9a-z]{13}|req_|\bck_", word)]
    assert not {name for family in families.values() for name in labels_of(family)} & {
        "account",
        "account_id",
        "task_id",
        "key",
    }


def labels_of(family: Metric) -> set[str]:
    return {name for sample in family.samples for name in sample.labels} - {"le"}


def shown_labels(families: dict[str, Metric]) -> dict[str, set[str]]:
    """The labels of every series that can be asked for, by its name."""
    found = {
        sample.name: labels_of(family) | ({"le"} if sample.name.endswith("_bucket") else set())
        for family in families.values()
        for sample in family.samples
    }
    return found | {each.name: set(each.labels) for each in COUNTS}


def test_the_reference_names_every_metric_with_its_kind_and_labels(
    families: dict[str, Metric],
) -> None:
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
    documented = {
        name: (kind, set(re.findall(r"`([^`]+)`", labels)))
        for name, kind, labels in re.findall(
            r"^\| `(calotype_\w+)` \| (\w+) \| ([^|]*) \|", page, re.MULTILINE
        )
    }
    declared = {each.name: set(each.labels) for each in (*COUNTS, *DURATIONS)}
    expected = {}
    for family in families.values():
        if family.name.startswith("calotype_"):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            expected[name] = (family.type, declared.get(name, labels_of(family)))
    assert documented == expected


def expressions() -> Iterator[str]:
    for group in msgspec.yaml.decode(ALERTS.read_bytes())["groups"]:
        yield from (rule["expr"] for rule in group["rules"])
    for panel in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]:
        for target in panel.get("targets", []):
            yield target["expr"].replace("$__rate_interval", "5m")


def asked(expression: str) -> tuple[list[Any], set[str]]:
    """The selectors of an expression, and the labels that it groups by."""
    selectors: list[Any] = []
    grouped: set[str] = set()

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            selectors.append(node)
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            grouped.update(node.modifier.labels)

    promql_parser.walk(promql_parser.parse(expression), visit)
    return selectors, grouped


def test_alerts_and_dashboard_ask_for_metrics_and_labels_that_there_are(
    families: dict[str, Metric],
) -> None:
    known = shown_labels(families) | {"up": set[str]()}
    for expression in expressions():
        selectors, grouped = asked(expression)
        available = set[str]()
        for selector in selectors:
            assert selector.name in known, expression
            labels = known[selector.name] | TARGET
            available |= labels
            assert {each.name for each in selector.matchers.matchers} <= labels, expression
        assert grouped <= available, expression


def test_words_that_alerts_compare_with_are_shown(families: dict[str, Metric]) -> None:
    words = {
        (sample.name, name): {
            other.labels.get(name) for other in family.samples if other.name == sample.name
        }
        for family in families.values()
        for sample in family.samples
        for name in sample.labels
    }
    compared = [
        (selector.name, matcher.name, matcher.value)
        for expression in expressions()
        for selector in asked(expression)[0]
        for matcher in selector.matchers.matchers
        if str(matcher.op) == "MatchOp.Equal" and matcher.name not in TARGET
    ]
    assert compared
    assert [each for each in compared if each[2] not in words[each[:2]]] == []


def test_each_alert_has_a_runbook_that_there_is() -> None:
    page = (ROOT / "docs" / "guides" / "operate.md").read_text(encoding="utf-8")
    runbooks = page.split("## When an alert fires")[1]
    headings = re.findall(r"^### (\w+)$", runbooks, re.MULTILINE)
    rules = [
        rule
        for group in msgspec.yaml.decode(ALERTS.read_bytes())["groups"]
        for rule in group["rules"]
    ]
    assert [rule["alert"] for rule in rules] == headings
    for rule in rules:
        where = rule["annotations"]["runbook_url"]
        assert where == f"docs/guides/operate.md#{rule['alert'].lower()}"


async def test_what_the_queue_holds_and_who_waits_is_shown(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path / "data", with_worker=False) as server,
        watched(server) as url,
    ):
        task = await server.accepted()
        families = await read(server, url)
        waiting = {"channel": "sandbox", "state": "waiting"}
        assert value(families, "calotype_queue_tasks", **waiting) == 1
        assert value(families, "calotype_ledger_reserved_micro_usdc") > 0

        path, before = f"/v1/tasks/{task['task_id']}", HELD.values["stream",]
        async with server.http.get(f"{server.url}{path}/events", headers=server.auth) as events:
            await events.content.readline()
            families = await read(server, url)
            assert value(families, "calotype_http_held_requests", kind="stream") == before + 1


async def test_cancelled_tasks_are_counted_once(idle_server: Server) -> None:
    labels = (idle_server.core.router.channels[0].id, "gpt-image-2", "cancelled")
    before = ENDED.values[labels]
    task = await idle_server.accepted()
    for _ in range(2):
        await idle_server.call("POST", f"/v1/tasks/{task['task_id']}/cancel")
    assert ENDED.values[labels] == before + 1


async def test_an_open_breaker_is_shown_with_its_model(server: Server) -> None:
    router = server.core.router
    channel = router.channels[0]
    now = server.core.clock()
    router.breakers.adopt([_open(channel.id, until=now + 60_000, at=now)], now=now)
    async with watched(server) as url:
        families = await read(server, url)
    assert value(families, "calotype_breaker_state", channel="sandbox", model="gpt-image-2") == 2
    assert value(families, "calotype_breaker_state", channel="sandbox", model="") == 0


def _open(channel_id: int, *, until: int, at: int) -> Any:
    return Health(
        channel_id=channel_id,
        model="gpt-image-2",
        fault="busy",
        until=until,
        strikes=1,
        opened_at=at,
        updated_at=at,
    )


async def test_a_database_that_does_not_answer_is_told_and_the_rest_is_shown(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken() -> None:
        raise Unavailable("The database does not answer.", retry_after=5)

    monkeypatch.setattr(server.core.store.operating, "depth", broken)
    async with watched(server) as url:
        families = await read(server, url)
    assert value(families, "calotype_database_up") == 0
    assert "calotype_queue_tasks" not in families
    assert "calotype_tasks_running" in families


async def test_a_database_that_never_answers_keeps_nobody_from_the_rest(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, depth = asyncio.Event(), server.core.store.operating.depth

    async def slow() -> Any:
        await answers.wait()
        return await depth()

    monkeypatch.setattr(server.core.store.operating, "depth", slow)
    monkeypatch.setattr(gauges, "ASK_SECONDS", 0.01)
    async with watched(server) as url:
        for _ in range(2):
            families = await read(server, url)
            assert value(families, "calotype_database_up") == 0
            assert "calotype_tasks_running" in families
        monkeypatch.setattr(gauges, "ASK_SECONDS", 60.0)
        answers.set()
        assert value(await read(server, url), "calotype_database_up") == 1


async def test_metrics_are_on_their_own_port_alone(server: Server) -> None:
    (await server.call("GET", "/metrics")).assert_refused(404, "unknown_route")
    async with watched(server) as url:
        assert url.startswith("http://127.0.0.1:")
        async with server.http.get(url.replace("/metrics", "/v1/models")) as response:
            assert response.status == 404
        async with server.http.post(url) as response:
            assert response.status == 405


async def test_a_port_that_is_taken_is_told_with_its_settings(server: Server) -> None:
    port = int(server.url.rpartition(":")[2])
    with pytest.raises(SettingsError, match="CALOTYPE_METRICS_PORT"):
        async with watched(server, metrics_port=port):
            pass


async def test_a_job_that_fails_is_counted_once_with_where_the_fault_lay(server: Server) -> None:
    labels = (server.core.router.channels[0].id, "gpt-image-2", "failed", "upstream")
    before = UPSTREAM.values[labels]
    await server.outcome("sandbox:500-after")
    assert UPSTREAM.values[labels] == before + 1
