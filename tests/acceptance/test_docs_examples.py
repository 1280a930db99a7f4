"""What the documentation shows is run as it stands, against a real server.

Blocks that follow ``<!-- test -->`` are handed to bash literally; only the base URL is another.
``.venv/bin/`` holds stand-ins that start this very Python.
"""

import http.client
import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from PIL import Image

from calotype.store import sqlite
from harness import OUR_CODE

ROOT = Path(__file__).parents[2]
PUBLISHED_URL = "http://127.0.0.1:8080"
ENVIRONMENT = {
    "PATH": os.defpath,
    "LANG": "C.UTF-8",
    "CALOTYPE_SANDBOX_SECONDS": "0",
    **OUR_CODE,
}
BETWEEN = "\x1e"
SECONDS = 100

OPERATE = "docs/guides/operate.md"
BACKUP = "docs/guides/backup.md"
UPGRADE = "docs/guides/upgrade.md"
MODELS = "docs/guides/models.md"
SANDBOX = "docs/guides/sandbox.md"
API = "docs/reference/api.md"
WEBHOOKS = "docs/guides/webhooks.md"
REFERENCES = "docs/guides/references.md"
CANCELLING = "docs/guides/cancelling.md"


class Site(NamedTuple):
    """A running server, the folder it was started in, and a key."""

    url: str
    folder: Path
    key: str

    def ask(self, method: str, path: str, document: Any = None) -> tuple[int, Any]:
        """Status and body of an answer."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=SECONDS)
        try:
            body = None if document is None else json.dumps(document)
            headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
            connection.request(method, path, body, headers)
            with connection.getresponse() as response:
                return response.status, json.loads(response.read())
        finally:
            connection.close()

    def submit(self, document: Any) -> dict[str, Any]:
        """The envelope of a request that is accepted."""
        status, envelope = self.ask("POST", "/v1/images/generations", document)
        assert status == 202, envelope
        return accepted(envelope)

    def finished(self, task_id: str) -> dict[str, Any]:
        """A task once it is final."""
        give_up = time.monotonic() + SECONDS
        while time.monotonic() < give_up:
            status, task = self.ask("GET", f"/v1/tasks/{task_id}")
            assert status == 200, task
            if task["state"] in {"success", "fail"}:
                assert isinstance(task, dict)
                return task
            time.sleep(0.05)
        raise AssertionError(f"{task_id} does not end")


def blocks(page: str, language: str) -> list[str]:
    """The marked blocks of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"<!-- test -->\n```{language}\n(.*?)```", text, re.DOTALL)


def accepted(envelope: Any) -> dict[str, Any]:
    """The contract's envelope, to the letter, and the additions."""
    assert isinstance(envelope, dict)
    rest = dict(envelope)
    task_id, created = rest.pop("task_id"), rest.pop("created_at")
    assert re.fullmatch(r"task_[0-9a-z]{13}", task_id)
    assert type(created) is int
    assert rest.pop("model") in {"gpt-image-2", "nano-banana-pro", "atelier-1"}
    assert rest.pop("request_id")
    assert rest.pop("recommended_poll_interval_ms") >= 1000
    assert rest.pop("eta_hint_seconds") >= 0
    assert rest == {
        "object": "task",
        "type": "image",
        "state": "waiting",
        "poll_url": f"/v1/tasks/{task_id}",
    }
    return envelope


def calotype(folder: Path, *arguments: str) -> str:
    """What a command prints."""
    command = [sys.executable, "-m", "calotype", *arguments]
    done = subprocess.run(
        command,
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def settle(folder: Path) -> None:
    """Make the folder of an installation, with the programs that the documentation starts."""
    folder.mkdir(exist_ok=True)
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, arguments in (("calotype", "-m calotype "), ("python", "")):
        script = programs / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments}"$@"\n')
        script.chmod(0o755)


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[Site]:
    """A server on a free port, with the data folder that the documentation speaks of."""
    settle(folder)
    key = calotype(folder, "keys", "create", "--name", "test", "--credits", "100")
    command = [sys.executable, "-m", "calotype", "serve", "--port", "0", *options]
    with (
        (folder / "server.log").open("w") as log,
        subprocess.Popen(
            command, cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=log, text=True
        ) as server,
    ):
        try:
            assert server.stdout is not None
            ready = re.search(r"listens on (http://\S+)", server.stdout.readline())
            assert ready, (folder / "server.log").read_text()
            yield Site(ready[1], folder, key)
        finally:
            server.terminate()
            server.wait(SECONDS)
    assert server.returncode == 0, (folder / "server.log").read_text()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The server as it comes."""
    with serving(tmp_path_factory.mktemp("docs") / "calotype") as running:
        yield running


@pytest.fixture(scope="module")
def idle_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server that accepts and fetches nothing."""
    with serving(tmp_path_factory.mktemp("docs") / "idle", "--no-worker") as running:
        yield running


@pytest.fixture(scope="module")
def configured_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server with the channel of the sandbox guide and the model of the models guide."""
    folder = tmp_path_factory.mktemp("docs") / "configured"
    (folder / "models").mkdir(parents=True)
    (model,) = blocks(MODELS, "toml")
    (folder / "models" / "atelier-1.toml").write_text(model, encoding="utf-8")
    (channel,) = blocks(SANDBOX, "toml")
    (folder / "calotype.toml").write_text(f'catalog_dir = "models"\n{channel}', encoding="utf-8")
    with serving(folder) as running:
        yield running


def run(site: Site, scripts: list[str], **variables: str) -> list[str]:
    """Run blocks one after another in one shell; what each of them prints."""
    script = f"\nprintf '{BETWEEN}'\n".join(scripts).replace(PUBLISHED_URL, site.url)
    done = subprocess.run(
        ["/usr/bin/env", "bash", "-euo", "pipefail", "-c", script],
        cwd=site.folder,
        env={**ENVIRONMENT, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split(BETWEEN)


def run_python(site: Site, scripts: list[str]) -> list[str]:
    """Run blocks one after another in one interpreter; what each of them prints."""
    between = f"\nprint({BETWEEN!r}, end='', flush=True)\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", between.join(scripts)],
        cwd=site.folder,
        env={**os.environ, "CALOTYPE_API_KEY": site.key, "CALOTYPE_BASE_URL": site.url},  # noqa: TID251 -- where the package is
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split(BETWEEN)


def seen_by_the_operator(site: Site, task_id: str) -> dict[str, Any]:
    """A task of another account, once it is final."""
    give_up = time.monotonic() + SECONDS
    while time.monotonic() < give_up:
        task: dict[str, Any] = json.loads(calotype(site.folder, "tasks", "show", task_id, "--json"))
        if task["state"] in {"success", "fail"}:
            return task
    raise AssertionError(f"{task_id} does not end")


def test_the_lines_of_the_readme_run_one_after_another(site: Site) -> None:
    key, submitted, followed, downloaded, again, balance = run(site, blocks("README.md", "sh"))
    assert (key, followed, downloaded) == ("", "", "")
    first = accepted(json.loads(submitted))
    task = json.loads((site.folder / "task.json").read_text())
    assert (task["task_id"], task["state"], task["progress"]) == (first["task_id"], "success", 100)
    with Image.open(site.folder / "lighthouse.png") as image:
        assert (image.format, image.size) == ("PNG", (1024, 1024))
    second = accepted(json.loads(again))
    amounts = json.loads(balance)
    assert amounts["available_micro_usdc"] == 10_000_000 - 60_000 - 150_000
    assert amounts["balance_micro_usdc"] - amounts["reserved_micro_usdc"] == 9_790_000
    scripts = [f".venv/bin/python - <<'END'\n{each}END" for each in blocks("README.md", "python")]
    known = {"CALOTYPE_API_KEY": site.key, "CALOTYPE_BASE_URL": site.url}
    saved, shown = run(site, scripts, OPENAI_API_KEY=site.key, **known)
    assert saved == "[PosixPath('dawn.png')]\n"
    assert shown.startswith(f"{site.url}/v1/assets/")
    winter = seen_by_the_operator(site, second["task_id"])
    assert (winter["model"], winter["state"]) == ("nano-banana-pro", "success")
    assert [(image["width"], image["height"]) for image in winter["result"]] == [(2048, 2048)]
    assert len(winter["references"]) == 1


def test_the_steps_of_the_quickstart_run_one_after_another(site: Site) -> None:
    printed = run(site, blocks("docs/guides/quickstart.md", "sh"))
    key, balance, submitted, named, followed, downloaded, winter, generated = printed
    assert (key, named, downloaded) == ("", "", "")
    assert json.loads(balance)["balance_micro_usdc"] == 10_000_000
    first = accepted(json.loads(submitted))
    task = json.loads(followed)
    assert (task["task_id"], task["state"]) == (first["task_id"], "success")
    assert task["request"]["resolution"] == "2K"
    with Image.open(site.folder / "harbour.png") as image:
        assert (image.format, image.size) == ("PNG", (2048, 1152))
    assert accepted(json.loads(winter))["model"] == "nano-banana-pro"
    assert generated.startswith("lighthouse.png  1024x1024\n")
    with Image.open(site.folder / "lighthouse.png") as image:
        assert (image.format, image.size) == ("PNG", (1024, 1024))


def test_the_ways_to_follow_a_task_run_one_after_another(site: Site) -> None:
    printed = run(site, [f"KEY={site.key}", *blocks("docs/guides/follow-tasks.md", "sh")])
    waited = json.loads(printed[1].strip().splitlines()[-1])
    assert waited["last_event"] >= 1
    streamed = printed[2]
    assert "event: task.waiting" in streamed
    assert "event: task.success" in streamed
    several = json.loads(printed[3])
    assert several["request"]["n"] == 3
    assert len(site.finished(several["task_id"])["result"]["data"]) == 3


def test_a_task_is_cancelled_as_the_guide_says(site: Site) -> None:
    key, asked, waited = run(site, [f"KEY={site.key}", *blocks(CANCELLING, "sh")])
    task = json.loads(asked)
    assert "cancel_requested_at" in task or task["error"]["code"] == "cancelled"
    assert (key, json.loads(waited)["task_id"]) == ("", task["task_id"])
    ended = site.finished(task["task_id"])
    assert (ended["state"], ended["error"]["code"]) == ("fail", "cancelled")
    assert ended["billing"]["status"] == "released"
    status, model = site.ask("GET", "/v1/models/gpt-image-2")
    (shown,) = re.findall(r"```json\n(.*?)```", (ROOT / CANCELLING).read_text(), re.DOTALL)
    rule = json.loads(f"{{{shown}}}")["cancellation"]
    assert status == 200
    assert model["capabilities"]["cancellation"].keys() == rule.keys()
    tiers = model["capabilities"]["cancellation"]["generating"].pop("tiers")
    assert rule["generating"].pop("tiers")[0] == tiers[0]
    assert model["capabilities"]["cancellation"] == rule


def test_the_command_lines_of_the_guide_run_one_after_another(site: Site) -> None:
    printed = run(site, blocks("docs/guides/command-line.md", "sh"))
    _, one, saved, many, again, script, watched = printed
    assert re.match(r"again\.png  \d+x\d+", saved)
    assert one.splitlines()[0] == "lighthouse.png  1536x864"
    assert many.splitlines()[-1] == "3 images of 3 prompts; 0.27 USDC"
    assert again.splitlines()[-1].startswith("1 images of 3 prompts, 2 were there already; ")
    assert script == "['piers/0001.png']\n"
    assert "  success  100 %  http://" in watched.splitlines()[-1]


def test_a_file_is_uploaded_once_and_used_twice_as_the_guide_says(site: Site) -> None:
    Image.new("RGB", (1536, 864), "teal").save(site.folder / "lighthouse.png")
    known = {"CALOTYPE_API_KEY": site.key, "CALOTYPE_BASE_URL": site.url}
    guide = blocks(REFERENCES, "sh")
    _, uploaded, made = run(site, [f"KEY={site.key}", *guide], **known)
    file = json.loads(uploaded)
    (shown,) = re.findall(r"```json\n(.*?)```", (ROOT / REFERENCES).read_text(), re.DOTALL)
    assert file.keys() == json.loads(shown).keys()
    assert re.findall(r"^\w+\.png", made, re.MULTILINE) == ["winter.png", "night.png"]
    assert site.ask("GET", "/v1/files")[1]["data"][0]["reference"] == file["reference"]


def test_the_examples_of_the_python_client_run_one_after_another(site: Site) -> None:
    call = """
import base64, datetime, json, standardwebhooks
secret = "whsec_" + base64.b64encode(b"only the test knows this").decode()
body = json.dumps({**task.refresh().raw, "event": "task.success"})
now = datetime.datetime.now(datetime.UTC)
signature = standardwebhooks.Webhook(secret).sign("msg_1", now, body)
headers = {"webhook-id": "msg_1", "webhook-signature": signature}
receive(body.encode(), {**headers, "webhook-timestamp": str(int(now.timestamp()))}, secret)
client.close()
"""
    examples = blocks("docs/guides/python-client.md", "python")
    saved, winter, events, waited, failed, boats, cancelled, defined, received = run_python(
        site, [*examples, call]
    )
    assert len(cancelled.split()) == 2
    assert (saved, waited, boats, defined) == ("", "", "", "")
    assert winter.startswith("2048 2048 http://127.0.0.1:")
    assert (events.split()[:2], events.split()[-3:]) == (["waiting", "0"], ["success", "100", "%"])
    assert failed == "content_policy_violation False\n"
    assert received == "msg_1 [PosixPath('received.png')]\n"
    for name, size in (("lighthouse", (1536, 864)), ("blue", (1024, 1024)), ("received", None)):
        with Image.open(site.folder / f"{name}.png") as image:
            assert image.size == (size or image.size)
    assert not (site.folder / "refused.png").exists()


def test_a_task_is_found_by_its_own_words_as_the_guide_says(site: Site) -> None:
    scripts = blocks("docs/guides/find-tasks.md", "sh")
    submitted, listed = run(site, scripts[:2], KEY=site.key)
    task_id = accepted(json.loads(submitted))["task_id"]
    newest = json.loads(listed)["data"][0]
    assert (newest["task_id"], newest["metadata"]["page"]) == (task_id, "cover")
    assert site.finished(task_id)["state"] == "success"
    (found,) = run(site, scripts[2:], KEY=site.key)
    assert [task["task_id"] for task in json.loads(found)["data"]] == [task_id]


def test_the_batch_of_the_guide_is_judged_one_by_one(site: Site) -> None:
    answered, listed = run(site, blocks("docs/guides/batch.md", "sh"), KEY=site.key)
    first, second, refused = json.loads(answered)["data"]
    assert refused["error"]["param"] == "aspect_ratio"
    tasks = [accepted(second)["task_id"], accepted(first)["task_id"]]
    assert [task["task_id"] for task in json.loads(listed)["data"]] == tasks


def test_the_receiver_of_the_webhook_guide_is_told_of_a_task(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("docs") / "webhooks"
    folder.mkdir()
    (settings,) = blocks(WEBHOOKS, "toml")
    (folder / "calotype.toml").write_text(settings, encoding="utf-8")
    (source,) = blocks(WEBHOOKS, "python")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    (folder / "receiver.py").write_text(source.replace("9000", port), encoding="utf-8")
    look, order = (block.replace("9000", port) for block in blocks(WEBHOOKS, "sh"))
    with serving(folder) as site:
        (secret,) = run(site, [look], KEY=site.key)
        receiver = subprocess.Popen(
            [sys.executable, "receiver.py"],
            cwd=folder,
            env={"WEBHOOK_SECRET": secret.strip()},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        with receiver:
            try:
                (printed,) = run(site, [order], KEY=site.key)
                task_id = json.loads(printed[printed.index('{"task_id') :])["task_id"]
                assert receiver.stdout is not None
                event, told, image = receiver.stdout.readline().split()
            finally:
                receiver.terminate()
    assert (event, told) == ("task.success", task_id)
    assert image.startswith(f"{site.url}/v1/assets/")


def test_openais_library_does_what_its_guide_shows(site: Site) -> None:
    programs = blocks("docs/guides/openai-sdk.md", "python")
    scripts = [f".venv/bin/python - <<'END'\n{program}END" for program in programs]
    edited, streamed, repeated = run(site, scripts, OPENAI_API_KEY=site.key)
    with Image.open(site.folder / "lighthouse.png") as image:
        assert (image.format, image.size) == ("PNG", (1536, 864))
    assert edited.startswith(f"{site.url}/v1/assets/")
    assert streamed == "image_generation.completed 1024x1024\n"
    first, again = [line.split()[0] for line in repeated.splitlines()]
    assert first == again
    assert site.finished(first)["request"]["prompt"] == "A cover for chapter one"


def test_the_ways_of_an_agent_run_one_after_another(site: Site) -> None:
    listed, made = run(site, blocks("docs/guides/mcp.md", "sh"), KEY=site.key)
    tools = [tool["name"] for tool in json.loads(listed)["result"]["tools"]]
    guide = (ROOT / "docs/guides/mcp.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", guide, re.MULTILINE) == tools
    assert made.splitlines()[0].endswith("has 1 image by gpt-image-2, 0.06 USDC.")
    assert made.splitlines()[-1] == "image/jpeg"


def test_what_the_server_keeps_is_what_the_operating_guide_lists(site: Site) -> None:
    guide = (ROOT / OPERATE).read_text(encoding="utf-8")
    assert site.finished(site.submit({"model": "gpt-image-2", "prompt": "x"})["task_id"])
    kept = {path.name + "/" * path.is_dir() for path in (site.folder / "calotype-data").iterdir()}
    kept |= {f"{path.name}/" for path in (site.folder / "calotype-data" / "assets").iterdir()}
    assert {"calotype.db", "secret", "assets/", "results/"} <= kept
    assert not {name for name in kept if f"`{name}`" not in guide}


def test_a_backup_made_while_it_runs_is_restored_as_the_guide_says(tmp_path: Path) -> None:
    backup, restore = blocks(BACKUP, "sh")
    with serving(tmp_path / "calotype") as site:
        task = site.submit({"model": "gpt-image-2", "prompt": "x"})
        assert site.finished(task["task_id"])["state"] == "success"
        assert "All is well." in run(site, [backup])[0]
        later = site.submit({"model": "gpt-image-2", "prompt": "forgotten"})
    assert "All is well." in run(site, [restore])[0]
    listed = calotype(site.folder, "tasks", "list", "--json")
    assert task["task_id"] in listed
    assert later["task_id"] not in listed


def test_the_steps_of_an_upgrade_run_and_a_rehearsal_leaves_the_database_alone(site: Site) -> None:
    steps, rehearsal = run(site, blocks(UPGRADE, "sh"))
    assert "All is well." in steps
    assert "All is well." in rehearsal
    assert (site.folder / "rehearsal" / "calotype.db").is_file()


def test_an_old_database_is_upgraded_by_these_steps_and_a_newer_one_is_refused_unchanged(
    tmp_path: Path,
) -> None:
    scripts = sorted(Path(sqlite.__file__).parent.glob("migrations/*.sql"))
    site = Site("", tmp_path / "old", "")
    settle(site.folder)
    file = site.folder / "calotype-data" / "calotype.db"
    file.parent.mkdir()
    with closing(sqlite3.connect(file)) as database:
        for number, script in enumerate(scripts[:2], start=1):  # as the first versions made it
            database.executescript(script.read_text(encoding="utf-8"))
            database.execute(f"PRAGMA user_version = {number}")
    steps, _ = blocks(UPGRADE, "sh")
    (printed,) = run(site, [steps])
    assert f"schema version {len(scripts)}" in printed
    assert "All is well." in printed
    with closing(sqlite3.connect(file)) as database:
        database.execute(f"PRAGMA user_version = {len(scripts) + 1}")
    before = file.read_bytes()
    (printed,) = run(site, [".venv/bin/calotype serve 2>&1 && exit 1; true"])
    assert "restore a backup" in printed
    assert file.read_bytes() == before


# The requests of the contract, as they are published

REQUESTS = [json.loads(block) for block in blocks(API, "json")]


def test_the_reference_shows_the_three_requests_of_the_contract() -> None:
    assert [request.get("image_input") for request in REQUESTS] == [
        None,
        None,
        ["https://example.com/reference.png"],
    ]
    assert [request["model"] for request in REQUESTS] == [
        "gpt-image-2",
        "nano-banana-pro",
        "gpt-image-2",
    ]


@pytest.mark.parametrize("request_", REQUESTS, ids=["plain", "shaped", "with a reference"])
def test_a_published_request_is_accepted_as_it_is(
    request_: dict[str, Any], idle_site: Site
) -> None:
    envelope = idle_site.submit(request_)
    status, task = idle_site.ask("GET", envelope["poll_url"])
    assert (status, task["state"], task["result"], task["error"]) == (200, "waiting", {}, {})
    shown = {name: value for name, value in request_.items() if name != "async"}
    assert shown.items() <= task["request"].items()


@pytest.mark.parametrize("request_", REQUESTS[:2], ids=["plain", "shaped"])
def test_a_published_request_becomes_a_picture(request_: dict[str, Any], site: Site) -> None:
    task = site.finished(site.submit(request_)["task_id"])
    assert task["state"] == "success", task["error"]
    (image,) = task["result"]["data"]
    assert (image["width"], image["height"]) in {(1024, 1024), (2752, 1536)}


def test_the_published_form_becomes_a_picture(site: Site) -> None:
    Image.new("RGB", (64, 48), "teal").save(site.folder / "reference.png")
    (printed,) = run(site, blocks(API, "sh"), BASE=site.url, KEY=site.key)
    task = site.finished(accepted(json.loads(printed))["task_id"])
    assert task["state"] == "success", task["error"]
    (reference,) = task["request"]["image_input"]
    assert reference.startswith(f"{site.url}/v1/assets/")


# The guides to the sandbox and to models

ROWS = [
    [cell.strip(" `") for cell in line.strip("|").split("|")]
    for line in (ROOT / SANDBOX).read_text(encoding="utf-8").splitlines()
    if line.startswith("| `sandbox:")
]
QUICK = [row for row in ROWS if row[0] not in {"sandbox:never", "sandbox:unknown"}]


@pytest.mark.parametrize("row", QUICK, ids=lambda row: row[0])
def test_a_steering_word_does_what_the_guide_says(row: list[str], site: Site) -> None:
    word, _, state, code, billing = row
    prompt = word.replace("NUMBER", "0.1" if "delay" in word else "1")
    task = site.finished(site.submit({"model": "gpt-image-2", "prompt": prompt})["task_id"])
    assert task["state"] == state.partition("`")[0]
    assert task["error"].get("code", "none") == ("none" if task["state"] == "success" else code)
    assert task["billing"]["status"] == billing.partition(",")[0]


def test_an_unknown_outcome_is_sent_once_on_the_channel_that_is_not_free(
    configured_site: Site,
) -> None:
    asked = {"model": "gpt-image-2", "prompt": "sandbox:unknown", "channel_id": 10}
    task = configured_site.finished(configured_site.submit(asked)["task_id"])
    (row,) = [row for row in ROWS if row[0] == "sandbox:unknown"]
    assert (task["state"], task["error"]["code"], task["billing"]["status"]) == tuple(row[2:])
    shown = calotype(configured_site.folder, "tasks", "show", task["task_id"], "--json")
    assert [attempt["state"] for attempt in json.loads(shown)["attempts"]] == ["unknown"]


def test_the_configured_channel_takes_the_sandboxs_place_for_its_model_alone(
    configured_site: Site,
) -> None:
    for model, slug in (("gpt-image-2", "rehearsal"), ("nano-banana-pro", "sandbox")):
        _, entry = configured_site.ask("GET", f"/v1/models/{model}")
        assert [channel["slug"] for channel in entry["available_channels"]] == [slug]


def test_the_model_of_the_guide_is_offered_drawn_and_charged(configured_site: Site) -> None:
    asked = {"model": "atelier-1", "prompt": "x", "careful": True, "output_format": "jpg"}
    task = configured_site.finished(configured_site.submit(asked)["task_id"])
    assert task["state"] == "success", task["error"]
    assert task["billing"]["actual_amount_micro_usdc"] == 50_000
    (image,) = task["result"]["data"]
    assert (image["content_type"], image["width"], image["height"]) == ("image/jpeg", 1248, 832)
