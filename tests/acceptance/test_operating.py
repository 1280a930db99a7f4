"""What the operator does by hand, with commands beside running servers."""

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from acceptance.cluster import PAID, Cluster, Member, eventually, running_cluster
from acceptance.commands import generate, pay, run, run_json, serving, settle, told
from calotype.domain.ids import decode
from calotype.services.signin import Links
from postgres import PostgresServer, fresh_database


def audit(data: Path) -> list[tuple[str, ...]]:
    """Action, subject, detail and outcome of each entry, oldest first."""
    with closing(sqlite3.connect(data / "calotype.db")) as database:
        return database.execute(
            "SELECT action, subject, detail, outcome FROM audit ORDER BY id"
        ).fetchall()


async def channels(cluster: Cluster, api: Member) -> list[str]:
    async with cluster.http.get(f"{api.url}/v1/models/thumbnail") as response:
        return [channel["slug"] for channel in (await response.json())["available_channels"]]


async def command(cluster: Cluster, *arguments: str) -> None:
    member = cluster.start("command", *arguments)
    assert await member.ended() == 0, member.log


async def switched(cluster: Cluster, apis: list[Member], option: str, left: list[str]) -> None:
    """Switch the channel ``paid``; then every server offers these."""
    await command(cluster, "channels", option, "paid")

    async def held() -> bool:
        return [await channels(cluster, api) for api in apis] == [left] * len(apis)

    await eventually(held, f"{left} are offered: {cluster.told()}")


async def test_a_channel_is_switched_off_beside_a_server_and_on_again(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        api = await cluster.api()
        under_way = await cluster.submit(api, "sandbox:delay=3", channel_id=PAID)
        await switched(cluster, [api], "--disable", ["free", "narrow"])
        elsewhere = await cluster.submit(api, "sandbox:delay=0", channel_id=None)
        await cluster.all_final(2)
        assert await cluster.states([under_way, elsewhere]) == {"success": 2}
        assert (await cluster.task(api, under_way))["channel"]["slug"] == "paid"
        assert (await cluster.task(api, elsewhere))["channel"]["slug"] != "paid"
        await switched(cluster, [api], "--as-configured", ["paid", "free", "narrow"])


async def test_a_channel_that_is_configured_off_can_be_switched_on_and_stays_so(
    tmp_path: Path,
) -> None:
    async with running_cluster(tmp_path) as cluster:
        path = tmp_path / "calotype.toml"
        path.write_text(path.read_text().replace('"paid"', '"paid"\nenabled = false'))
        await command(cluster, "channels", "--enable", "paid")
        api = await cluster.api()
        assert await channels(cluster, api) == ["paid", "free", "narrow"]
        task = await cluster.submit(api, "sandbox:delay=0", channel_id=PAID)
        await cluster.all_final(1)
        assert await cluster.states([task]) == {"success": 1}
        await switched(cluster, [api], "--as-configured", ["free", "narrow"])


async def test_every_process_of_a_shared_database_goes_by_a_switch(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    async with fresh_database(postgres) as url, running_cluster(tmp_path, url) as cluster:
        apis = [await cluster.api(), await cluster.api()]
        await switched(cluster, apis, "--disable", ["free", "narrow"])
        waiting = await cluster.submit_many(apis, 4, "sandbox:delay=0", channel_id=None)
        await cluster.worker()
        await cluster.all_final(4)
        assert await cluster.states(waiting) == {"success": 4}
        assert PAID not in {row[0] for row in await cluster.rows("SELECT channel_id FROM attempts")}
        await switched(cluster, apis, "--enable", ["paid", "free", "narrow"])


def test_the_list_of_channels_says_who_switched_what(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(tmp_path / "data", monkeypatch)
    run("migrate")
    (sandbox,) = run_json("channels")
    assert sandbox["state"] == "well"
    (off,) = run_json("channels", "--disable", "sandbox")
    (on,) = run_json("channels", "--enable", "sandbox")
    (well,) = run_json("channels", "--as-configured", "sandbox")
    run("channels", "--reset", "sandbox")
    told_of = told("channels", "--disable", "none", code=1)

    assert [one["state"] for one in (off, on, well)] == [
        "switched off (by cli)",
        "well; switched on (by cli)",
        "well",
    ]
    assert told_of == "There is no channel 'none'; there are sandbox."
    assert audit(tmp_path / "data") == [
        (f"channel.{action}", "channel sandbox", "", "done")
        for action in ("disable", "enable", "as_configured", "reset")
    ]


def test_keys_and_credits_are_audited_without_a_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = settle(tmp_path / "data", monkeypatch)
    secret = run("keys", "create", "--name", "laptop", "--account", "acme").stdout.strip()
    run("credits", "add", "acme", "5", "--note", "invoice 7")
    told("credits", "add", "acme", "-6", code=1)
    (key,) = run_json("keys", "list")
    run("keys", "revoke", secret)
    run("keys", "revoke", key["id"])

    named = f"{key['id']} 'laptop' of account 'acme'"
    created, added, refused, *revoked = audit(data)
    assert created == ("key.create", "account acme", f"key 'laptop', {key['id']}", "done")
    assert added == ("credit.add", "account acme", "5.00 USDC: invoice 7", "done")
    assert refused[:3] == ("credit.add", "account acme", "-6.00 USDC")
    assert refused[3].startswith("refused: ")
    assert revoked == [
        ("key.revoke", key["id"], named, "done"),
        ("key.revoke", key["id"], f"{named}, which was revoked already", "done"),
    ]
    assert secret not in repr(audit(data))


def test_an_attempt_of_unknown_outcome_is_resolved_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = settle(tmp_path / "data", monkeypatch)
    pay("laptop", monkeypatch)
    with serving(tmp_path / "server.log") as url:
        generate("--base-url", url, "-o", tmp_path / "a.png")
    (task,) = [one["task_id"] for one in run_json("tasks", "list")]
    with closing(sqlite3.connect(data / "calotype.db")) as database, database:
        database.execute(
            "UPDATE attempts SET state = 'unknown' WHERE task_id = ?", (decode("task", task),)
        )
    ((listed,),) = (run_json("tasks", "unknown"),)
    resolve = ("tasks", "resolve", task, listed["attempt"])

    assert listed["task"] == task
    assert "Say --billed" in told(*resolve, code=2)
    assert "Say --billed" in told(*resolve, "--billed", "--free", code=2)
    assert "Say --billed" in told(*resolve, "--free", "--cost", "1", code=2)
    done = run(*resolve, "--billed", "--cost", "0.04").stdout
    assert done == f"Attempt 1 of {task} was billed for 0.04 USDC.\n"
    assert "none of unknown outcome" in told(*resolve, "--free", code=1)
    assert "There is no task" in told("tasks", "resolve", "task_0", "1", "--free", code=1)

    assert run_json("tasks", "unknown") == []
    (resolved,) = run_json("tasks", "unknown", "--resolved")
    assert resolved["resolution"] == "billed, 0.04 USDC"
    (attempt,) = run_json("tasks", "show", task)["attempts"]
    assert (attempt["resolution"], attempt["cost_micro_usdc"]) == ("billed", 40_000)
    assert next(entry for entry in audit(data) if entry[0] == "attempt.resolve") == (
        "attempt.resolve",
        f"{task}, attempt 1",
        "billed, 0.04 USDC",
        "done",
    )


def test_a_link_for_the_operator_is_signed_by_the_server_and_audited_without_its_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = settle(tmp_path / "data", monkeypatch)
    plain = run("admin", "link").stdout.strip()
    monkeypatch.setenv("CALOTYPE_PUBLIC_URL", "https://images.example.com/")
    made = run("admin", "link", "--minutes", "3")
    public = made.stdout.strip()

    found = re.fullmatch(r"http://127\.0\.0\.1:8080/console/enter\?token=(\S+)", plain)
    assert found
    assert public.startswith("https://images.example.com/console/enter?token=")
    assert "Good for 3 min" in made.stderr
    secret = (data / "secret").read_text().strip().encode()
    link = Links(secret, lambda: 0).check(found[1])
    assert link is not None
    assert [entry[:3] for entry in audit(data)] == [
        ("admin.link", "operator", "for 10 min"),
        ("admin.link", "operator", "for 3 min"),
    ]
    assert found[1] not in repr(audit(data))
