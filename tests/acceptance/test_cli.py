"""The commands as a person or a script runs them: real processes, a real server."""

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from PIL import Image

from acceptance.commands import (
    COMMAND,
    GENERATE,
    Shared,
    generate,
    pay,
    run,
    run_json,
    serving,
    settle,
    told,
)
from postgres import PostgresServer

pytestmark = pytest.mark.usefixtures("data")


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of a server that made one image and was stopped."""
    folder = tmp_path_factory.mktemp("history")
    with pytest.MonkeyPatch.context() as patch:
        data = settle(folder / "data", patch)
        pay("laptop", patch)
        with serving(folder / "server.log") as url:
            generate("--base-url", url, "-o", folder / "a.png")
        assert {name for name, check in checks(code=0).items() if not check["holds"]} == {"worker"}
    return data


@pytest.fixture
def used(history: Path, data: Path) -> Path:
    """A copy of the history, to be damaged."""
    shutil.copytree(history, data)
    return data


# Keys and credits


def test_a_key_can_be_made_in_a_fresh_folder_and_stands_alone_on_stdout(data: Path) -> None:
    made = run("keys", "create", "--name", "laptop", "--credits", "12.50", "--expires-in", "30d")
    assert re.fullmatch(r"ck_[A-Za-z0-9_-]{43}\n", made.stdout)
    assert "12.50 USDC available" in made.stderr
    assert (data / "calotype.db").exists()
    (key,) = run_json("keys", "list")
    assert made.stdout.startswith(key["prefix"])
    assert (key["name"], key["account"], key["revoked_at"]) == ("laptop", "laptop", None)
    assert key["expires_at"] - key["created_at"] == 30 * 86_400


def test_keys_of_one_account_share_its_credits() -> None:
    for name in ("first", "second"):
        run("keys", "create", "--name", name, "--account", "acme", "--credits", "1.5")
    (account,) = run_json("credits", "show")
    assert (account["account"], account["available_micro_usdc"]) == ("acme", 3_000_000)
    lines = run("keys", "list").stdout.splitlines()
    assert [line.split()[2:4] for line in lines] == [
        ["NAME", "ACCOUNT"],
        ["second", "acme"],
        ["first", "acme"],
    ]


def test_a_key_is_revoked_by_its_id_by_its_beginning_or_by_itself() -> None:
    made = [run("keys", "create", "--name", name).stdout.strip() for name in ("a", "b", "c")]
    by_name = {key["name"]: key for key in run_json("keys", "list")}
    ambiguous = told("keys", "revoke", "ck_", code=1)
    assert all(key["id"] in ambiguous for key in by_name.values())
    run("keys", "revoke", by_name["a"]["id"])
    run("keys", "revoke", by_name["b"]["prefix"])
    run("keys", "revoke", made[2])
    assert all(key["revoked_at"] for key in run_json("keys", "list"))
    assert "already" in run("keys", "revoke", by_name["a"]["id"]).stdout
    assert "There is no key" in told("keys", "revoke", "key_0000000000000", code=1)
    assert "There is no key" in told("keys", "revoke", "nonsense", code=1)


def test_a_key_with_a_scope_and_limits_is_shown_with_them() -> None:
    limits = ["--model", "flux-2-pro", "--model", "recraft-v4.1", "--channel", "sandbox"]
    limits += ["--per-day", "5", "--per-month", "50.5", "--per-minute", "60"]
    limits += ["--tasks", "20"]
    made = run("keys", "create", "--name", "shop", *limits)
    said = "flux-2-pro, recraft-v4.1; channel sandbox; 5.00 USDC a day; 50.50 USDC a month; "
    assert said + "60 tasks at once, then 60 a minute; 20 unfinished tasks" in " ".join(
        made.stderr.split()
    )
    (key,) = run_json("keys", "list")
    assert (key["models"], key["channel_ids"]) == (["flux-2-pro", "recraft-v4.1"], [1])
    assert (key["day_limit_micro_usdc"], key["month_limit_micro_usdc"]) == (5_000_000, 50_500_000)
    assert (key["per_minute"], key["max_tasks"], key["last_used_at"]) == (60, 20, None)
    assert said + "60 tasks at once, then 60 a minute" in run("keys", "list").stdout
    for wrong, why in [
        (["--model", "flux-9"], "no model flux-9"),
        (["--channel", "nowhere"], "there are sandbox"),
        (["--per-day", "5", "--per-month", "4"], "at most month_limit"),
    ]:
        assert why in " ".join(told("keys", "create", "--name", "x", *wrong, code=1).split())
    assert len(run_json("keys", "list")) == 1


def test_an_account_says_how_long_its_images_are_kept() -> None:
    run("keys", "create", "--name", "laptop", "--account", "acme")
    assert "as the models and the settings say" in run("accounts", "retention", "acme").stdout
    said = run_json("accounts", "retention", "acme", "--results", "90")
    assert said == {"account": "acme", "result_days": 90, "reference_days": None}
    said = run_json("accounts", "retention", "acme", "--references", "0")
    assert said == {"account": "acme", "result_days": 90, "reference_days": 0}
    assert run_json("accounts", "retention", "acme") == said
    shown = run("accounts", "retention", "acme").stdout
    assert "90 days" in shown
    assert "until they are deleted" in shown
    said = run_json("accounts", "retention", "acme", "--default")
    assert said == {"account": "acme", "result_days": None, "reference_days": None}
    refused = told("accounts", "retention", "acme", "--default", "--results", "1", code=2)
    assert "--default stands alone" in refused
    assert "did you mean 'acme'?" in told("accounts", "retention", "amce", code=1)


def test_an_account_says_how_much_it_may_submit() -> None:
    run("keys", "create", "--name", "laptop", "--account", "acme")
    assert "as the settings say: 100000" in run("accounts", "limits", "acme").stdout
    said = run_json("accounts", "limits", "acme", "--tasks", "50")
    assert said == {"account": "acme", "max_tasks": 50, "per_minute": None}
    said = run_json("accounts", "limits", "acme", "--per-minute", "0")
    assert said == {"account": "acme", "max_tasks": 50, "per_minute": 0}
    assert "no limit" in run("accounts", "limits", "acme").stdout
    said = run_json("accounts", "limits", "acme", "--default")
    assert said == {"account": "acme", "max_tasks": None, "per_minute": None}
    refused = told("accounts", "limits", "acme", "--default", "--tasks", "1", code=2)
    assert "--default stands alone" in refused


def test_credit_can_be_added_and_taken_away_again_but_not_below_nothing() -> None:
    run("keys", "create", "--name", "acme")
    run("credits", "add", "acme", "5", "--note", "invoice 7")
    run("credits", "add", "acme", "-1.5")
    assert "4" in told("credits", "add", "acme", "-4", code=1)
    shown = run_json("credits", "show", "acme")
    assert shown["balance_micro_usdc"] == 3_500_000
    assert [(entry["kind"], entry["amount_micro_usdc"]) for entry in shown["entries"]] == [
        ("adjust", -1_500_000),
        ("credit", 5_000_000),
    ]
    assert "invoice 7" in run("credits", "show", "acme").stdout
    assert "did you mean 'acme'?" in told("credits", "add", "acmee", "5", code=1)


def test_a_key_that_is_revoked_beside_a_running_server_is_good_for_nothing_at_once(
    account: str,
) -> None:
    generate("-o", "a.png")
    (key,) = (one for one in run_json("keys", "list") if one["account"] == account)
    run("keys", "revoke", key["id"])
    assert "(invalid_api_key" in told(*GENERATE, "-o", "b.png", code=1)
    assert not Path("b.png").exists()


# Images


def test_an_image_is_made_written_and_paid(account: str) -> None:
    ended = generate("--aspect-ratio", "16:9", "--resolution", "1K", "-o", "out.png")
    with Image.open("out.png") as image:
        width, height = image.size
    assert width > height
    assert ended.stdout.splitlines() == [f"out.png  {width}x{height}", "0.15 USDC"]
    assert ended.stderr.splitlines()[-1].endswith(" success 100 %")
    assert run_json("credits", "show", account)["balance_micro_usdc"] == 9_850_000


@pytest.mark.usefixtures("account")
def test_an_image_is_named_by_its_task_and_its_type() -> None:
    path = Path(generate("-p", "output_format=jpg").stdout.split()[0])
    assert re.fullmatch(r"task_[0-9a-z]{13}\.jpg", path.name)
    with Image.open(path) as image:
        assert image.format == "JPEG"


@pytest.mark.usefixtures("account")
def test_references_are_uploaded_in_their_order(shared: Shared) -> None:
    for name, colour in (("a.png", "teal"), ("b.png", "gold")):
        Image.new("RGB", (64, 48), colour).save(name)
    ended = generate("--image", "a.png", "--image", "b.png", "-o", "out.png", "--json")
    done = json.loads(ended.stdout)
    assert done["files"] == ["out.png"]
    shown = run_json("tasks", "show", done["task_id"])
    stored = [shared.data / "assets" / one["key"] for one in shown["references"]]
    assert [path.read_bytes() for path in stored] == [
        Path("a.png").read_bytes(),
        Path("b.png").read_bytes(),
    ]


def test_an_image_that_could_not_be_written_is_not_bought(account: str) -> None:
    assert "is a folder" in told(*GENERATE, "-o", ".", code=2)
    assert "does not exist" in told(*GENERATE, "-o", "none/out.png", code=2)
    assert "is no file" in told(*GENERATE, "--image", "none.png", code=2)
    assert run_json("tasks", "list", "--account", account) == []


@pytest.mark.usefixtures("account")
def test_a_task_that_fails_is_told_with_its_code() -> None:
    ended = run("generate", "sandbox:refuse", "--model", "gpt-image-2", code=1)
    assert ended.stdout == ""
    assert ended.stderr.splitlines()[-1].endswith("(content_policy_violation)")
    assert list(Path().iterdir()) == []


@pytest.mark.usefixtures("account")
def test_a_refused_request_is_told_as_the_server_tells_it() -> None:
    assert "its parameters are" in told(*GENERATE, "-p", "sed=7", code=1)


def test_without_a_key_it_is_told_how_to_make_one() -> None:
    assert "calotype keys create" in told(*GENERATE, code=2)


def test_without_a_server_it_is_told_how_to_start_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    ended = generate("--base-url", f"http://127.0.0.1:{port}", "--api-key", "ck_x", code=1)
    assert "calotype serve" in ended.stderr.splitlines()[-1]


def test_an_interrupted_command_goes_on_with_its_task_and_buys_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account, log = pay("laptop", monkeypatch), tmp_path / "server.log"
    with serving(log, "--no-worker") as url:
        with subprocess.Popen(
            [*COMMAND, *GENERATE, "--base-url", url], stderr=subprocess.PIPE, text=True
        ) as waiting:
            assert waiting.stderr is not None
            assert "is accepted" in waiting.stderr.readline()
            assert "waiting" in waiting.stderr.readline()
            waiting.send_signal(signal.SIGINT)
            hint = re.search(r"--idempotency-key (\S+)", waiting.stderr.read())
        assert waiting.returncode == 130
        assert hint
        again = ("--idempotency-key", hint[1])
        late = generate("--base-url", url, *again, "--timeout", "1", code=1)
        assert hint[0] in late.stderr.splitlines()[-1]
    with serving(log) as url:
        assert generate("--base-url", url, *again, "-o", "out.png").stdout.startswith("out.png")
    assert len(run_json("tasks", "list")) == 1
    assert run_json("credits", "show", account)["balance_micro_usdc"] == 9_850_000


@pytest.fixture
def hears_hang_ups() -> Iterator[None]:
    """Processes that are started now hear SIGHUP, also where these tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hears_hang_ups")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_is_told_to_stop_or_hung_up_leaves_the_way_to_its_image(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pay("laptop", monkeypatch)
    log = tmp_path / "server.log"
    with serving(log, "--no-worker") as url:
        with subprocess.Popen(
            [*COMMAND, *GENERATE, "--base-url", url], stderr=subprocess.PIPE, text=True
        ) as waiting:
            assert waiting.stderr is not None
            accepted = re.search("calotype tasks save (task_\\w+)", waiting.stderr.readline())
            assert "waiting" in waiting.stderr.readline()
            waiting.send_signal(number)
            assert "--idempotency-key " in waiting.stderr.read()
        assert waiting.returncode == 128 + number
    assert accepted
    with serving(log) as url:
        save = ("tasks", "save", accepted[1], "--base-url", url)
        assert re.match(r"out\.png  \d+x\d+$", run(*save, "-o", "out.png").stdout)
        done = run_json(*save)
        assert done["files"] == [f"{accepted[1]}.png"]
        assert Path(done["files"][0]).read_bytes() == Path("out.png").read_bytes()
    assert len(run_json("tasks", "list")) == 1


@pytest.mark.usefixtures("account")
def test_of_a_task_that_failed_there_is_nothing_to_save() -> None:
    ended = run("generate", "sandbox:refuse", "--model", "gpt-image-2", code=1)
    task = ended.stderr.split()[0]
    ended = run("tasks", "save", task, code=1)
    assert ended.stderr.splitlines()[-1].endswith("(content_policy_violation)")
    assert "is a folder" in told("tasks", "save", task, "-o", ".", code=2)
    assert list(Path().iterdir()) == []


@pytest.mark.usefixtures("account")
def test_the_key_of_a_task_that_failed_tells_of_that_failure_and_says_so() -> None:
    command = ("generate", "sandbox:refuse", "--model", "gpt-image-2", "--idempotency-key", "k")
    first, again = (run(*command, code=1).stderr.splitlines()[-1] for _ in range(2))
    assert first == again
    assert "without it the prompt is sent anew" in first


def test_a_command_waits_for_its_image_through_a_restart_of_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pay("laptop", monkeypatch)
    log = tmp_path / "server.log"
    with serving(log, "--no-worker") as url:
        waiting = subprocess.Popen(
            [*COMMAND, *GENERATE, "--base-url", url, "-o", "out.png"],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert waiting.stderr is not None
        assert "is accepted" in waiting.stderr.readline()
        assert "waiting" in waiting.stderr.readline()
    with waiting, serving(log, "--port", url.rpartition(":")[2]):
        assert waiting.wait() == 0
    assert Path("out.png").is_file()


# What there is


def test_models_are_printed_as_the_server_shows_them(shared: Shared) -> None:
    with urllib.request.urlopen(f"{shared.url}/v1/models") as response:  # noqa: S310 -- our own
        every = json.load(response)
    assert run_json("models") == every
    (one,) = (model for model in every["data"] if model["id"] == "gpt-image-2")
    assert run_json("models", "gpt-image-2") == one


def test_models_are_listed_and_shown_for_people() -> None:
    assert "nano-banana-pro" in run("models").stdout
    assert "aspect_ratio=auto: resolution is one of 1K" in run("models", "gpt-image-2").stdout
    assert "There is no model" in told("models", "none", code=1)


def test_the_operator_sees_the_tasks_of_every_account(account: str) -> None:
    generate("-o", "a.png")
    run("generate", "sandbox:refuse", "--model", "gpt-image-2", code=1)
    failed, made = run_json("tasks", "list", "--account", account)
    assert (failed["state"], made["state"]) == ("fail", "success")
    chosen = ("tasks", "list", "--account", account)
    assert run_json(*chosen, "--state", "fail") == [failed]
    assert run_json(*chosen, "--limit", "1") == [failed]
    listed = run("tasks", "list").stdout
    assert re.search(rf"fail: content_policy_violation +0 +{account} +gpt-image-2 ", listed)


def test_a_task_is_shown_with_its_attempts_its_money_and_its_files(used: Path) -> None:
    (listed,) = run_json("tasks", "list")
    shown = run_json("tasks", "show", listed["task_id"])
    assert [(one["number"], one["state"]) for one in shown["attempts"]] == [(1, "done")]
    assert (used / "assets" / shown["result"][0]["key"]).is_file()
    assert shown["billing"]["actual_amount_micro_usdc"] == 150_000
    text = run("tasks", "show", listed["task_id"]).stdout
    assert shown["result"][0]["key"] in text
    assert "committed: reserved 0.15" in text


def test_a_task_that_is_not_there_is_not_shown() -> None:
    assert "run calotype serve or calotype migrate" in told("tasks", "list", code=1)
    run("migrate")
    assert "There is no task" in told("tasks", "show", "task_0000000000000", code=1)


# Starting, and what is wrong with the configuration


def test_the_database_is_migrated_again_and_again_to_the_same_version(data: Path) -> None:
    first, second = run("migrate").stdout, run("migrate").stdout
    assert first == second
    assert re.search(rf"{re.escape(str(data))}/calotype\.db: schema version \d+", first)


def test_a_wrong_configuration_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "none.toml" in told("--config", "none.toml", "migrate", code=2)
    Path("calotype.toml").write_text("prot = 8080\n")
    assert "did you mean port?" in told("keys", "list", code=2)
    Path("calotype.toml").write_text("")
    monkeypatch.setenv("CALOTYPE_CATALOG_DIR", "none")
    assert "none: no such folder" in told("models", code=2)


def test_a_database_that_is_none_is_told_in_one_line(data: Path) -> None:
    data.mkdir()
    (data / "calotype.db").write_text("this is no database, and long enough to be read as one")
    assert "calotype.db" in told("migrate", code=2)
    assert "calotype.db" in told("keys", "list", code=2)
    assert "database" in told("tasks", "list", code=1)


def test_a_shared_database_that_does_not_answer_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CALOTYPE_DATABASE_URL", "postgresql://me:secret@127.0.0.1:1/calotype")
    for command in (["keys", "list"], ["tasks", "list"], ["migrate"]):
        line = told(*command, code=2)
        assert "CALOTYPE_DATABASE_URL: cannot connect" in line
        assert "secret" not in line


@pytest.fixture
async def bare_database(postgres: PostgresServer) -> AsyncIterator[str]:
    """A shared database that is not ours yet."""
    connection = await asyncpg.connect(postgres.url())
    await connection.execute("CREATE DATABASE calotype_commands")
    yield postgres.url("calotype_commands")
    await connection.execute("DROP DATABASE calotype_commands WITH (FORCE)")
    await connection.close()


def test_a_shared_database_is_made_by_migrate_alone_and_then_works_as_any(
    bare_database: str, monkeypatch: pytest.MonkeyPatch, data: Path
) -> None:
    monkeypatch.setenv("CALOTYPE_DATABASE_URL", bare_database)
    assert "run calotype migrate" in told("keys", "list", code=2)
    assert re.fullmatch(r"the shared database: schema version \d+\n", run("migrate").stdout)
    run("keys", "create", "--name", "laptop", "--credits", "1")
    assert run_json("credits", "show", "laptop")["balance_micro_usdc"] == 1_000_000
    assert run_json("tasks", "list") == []
    data.mkdir()
    assert checks(code=0)["database"]["message"].startswith("shared;")


def test_flags_of_serve_take_the_place_of_settings(
    monkeypatch: pytest.MonkeyPatch, data: Path, tmp_path: Path
) -> None:
    monkeypatch.setenv("CALOTYPE_PORT", "1")
    monkeypatch.setenv("CALOTYPE_HOST", "192.0.2.1")
    with serving(tmp_path / "server.log", "--host", "127.0.0.1", "--no-worker") as url:
        assert url.startswith("http://127.0.0.1:")
        assert not (data / "worker.lock").exists()
    assert run("serve", "--port", "70000", code=2).stdout == ""


def test_the_server_logs_one_line_for_each_record(
    monkeypatch: pytest.MonkeyPatch, data: Path, tmp_path: Path
) -> None:
    assert not data.exists()
    monkeypatch.setenv("CALOTYPE_ACCESS_LOG", "true")
    log = tmp_path / "server.log"
    with serving(log, "--no-worker") as url:
        for path in ("/healthz", "/v1/models"):
            urllib.request.urlopen(f"{url}{path}").close()  # noqa: S310 -- our own server
    told = [json.loads(line) for line in log.read_text().splitlines()]
    events = [each["event"] for each in told if each["logger"] == "calotype.access"]
    assert "GET /healthz 200" in events
    assert "GET /v1/models 200" in events


def test_a_second_server_on_the_same_folder_is_refused_in_one_line(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALOTYPE_DATA_DIR", str(shared.data))
    assert "another server" in told("serve", "--port", "0", code=2)


# Doctor


def checks(*, code: int) -> dict[str, dict[str, Any]]:
    """The checks by their names."""
    report = run_json("doctor", code=code)
    assert report["ok"] is (code == 0)
    return {check["name"]: check for check in report["checks"]}


def fails(name: str) -> str:
    """The message of the one check that does not hold; each says what to do."""
    wrong = [check for check in checks(code=1).values() if check["holds"] is False]
    assert [check["name"] for check in wrong] == [name]
    assert wrong[0]["cure"]
    message: str = wrong[0]["message"]
    return message


def damage(data: Path, statement: str) -> None:
    with sqlite3.connect(data / "calotype.db") as database:
        database.execute(statement)
    database.close()


@pytest.mark.usefixtures("account")
def test_doctor_proves_an_installation_beside_its_server() -> None:
    generate("-o", "a.png")
    found = checks(code=0)
    assert {name for name, check in found.items() if not check["holds"]} == {"worker"}
    assert found["worker"]["message"].startswith("running; unfinished tasks: 0;")


@pytest.mark.usefixtures("used")
def test_doctor_tells_people_that_all_is_well() -> None:
    text = run("doctor").stdout
    assert "✓ books" in text
    assert "· worker" in text
    assert "not running" in text
    assert text.splitlines()[-1] == "All is well."


def test_doctor_makes_nothing_where_nothing_is(data: Path) -> None:
    found = checks(code=1)
    assert "calotype serve or calotype migrate" in found["database"]["cure"]
    assert "✗ database" in run("doctor", code=1).stdout
    assert not data.exists()
    data.mkdir()
    checks(code=1)
    assert list(data.iterdir()) == []


def test_doctor_finds_nothing_wrong_before_the_first_start() -> None:
    run("keys", "create", "--name", "laptop", "--credits", "1")
    assert checks(code=0)["worker"]["message"].startswith("not running")


def test_doctor_finds_a_balance_that_is_not_the_sum_of_its_ledger(used: Path) -> None:
    damage(used, "UPDATE accounts SET balance = balance + 1")
    assert "do not add up" in fails("books")
    assert "laptop" in run("doctor", code=1).stdout


def test_doctor_finds_images_that_are_cut_short_or_gone(used: Path) -> None:
    (image,) = (used / "assets" / "results").rglob("*.png")
    image.write_bytes(image.read_bytes()[:-1])
    assert "cut short" in fails("images")
    image.unlink()
    assert "1 of the newest 1 images" in fails("images")


def test_doctor_compares_every_file_with_the_database_and_removes_orphans(used: Path) -> None:
    assert run_json("doctor", "--assets")["ok"]
    (image,) = (used / "assets" / "results").rglob("*.png")
    last = "2" if image.stem.endswith("1") else "1"
    orphan = image.with_stem(image.stem[:-1] + last)
    shutil.copy(image, orphan)
    os.utime(orphan, (0, 0))
    elsewhere = image.rename(used / "elsewhere.png")
    report = run_json("doctor", "--assets", code=1)
    found = {check["name"]: check for check in report["checks"] if check["holds"] is False}
    assert found["asset files"]["details"] == [str(orphan.relative_to(used / "assets"))]
    assert found["all images"]["message"] == "1 of 1 have no file"
    assert "--yes" in told("doctor", "--remove-orphans", "--json", code=2)
    said = run("doctor", "--remove-orphans", "--yes", code=1)
    assert "see whether this is the database of these files" in said.stdout
    assert orphan.exists(), "as the wrong database would have it"
    elsewhere.rename(image)
    said = run("doctor", "--remove-orphans", "--yes")
    assert "Removed 1 files" in said.stderr
    assert not orphan.exists()
    with sqlite3.connect(used / "calotype.db") as database:
        told_of = "SELECT outcome FROM audit WHERE action = 'assets.remove_orphans'"
        ((outcome,),) = database.execute(told_of).fetchall()
    database.close()
    assert outcome == "done"


def test_doctor_finds_a_database_of_another_version(used: Path) -> None:
    damage(used, "PRAGMA user_version = 9999")
    assert "newer" in fails("database")
    damage(used, "PRAGMA user_version = 0")
    assert "schema version 0" in fails("database")


def test_doctor_finds_a_secret_that_is_open_to_others_or_empty(used: Path) -> None:
    (used / "secret").chmod(0o644)
    assert "others" in fails("secret")
    (used / "secret").write_text("")
    assert "empty" in fails("secret")


def test_doctor_finds_a_clock_that_is_behind_its_own_tasks(used: Path) -> None:
    damage(used, "UPDATE tasks SET created_at = created_at + 86400000")
    assert "the newest task" in fails("task times")


def test_doctor_finds_a_database_that_is_none(used: Path) -> None:
    for file in used.glob("calotype.db*"):
        file.write_text("this is no database, and long enough to be read as one")
    assert "not a database" in fails("database")


def test_doctor_finds_a_wrong_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALOTYPE_PORT", "eighty")
    assert "CALOTYPE_PORT" in fails("configuration")


@pytest.mark.parametrize("command", [("pull", "a/b"), ("check", "--model", "sd-turbo")])
def test_commands_of_local_pictures_say_what_to_install(command: tuple[str, ...]) -> None:
    without = "import sys; sys.modules |= dict.fromkeys(('torch', 'huggingface_hub')); "
    ended = subprocess.run(
        [
            sys.executable,
            "-c",
            f"{without}from calotype.cli import main; main()",
            "local",
            *command,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert "run pip install 'calotype[local]'" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
