"""Another account's ids lead nowhere: every route there is, asked by somebody else.

``PLACES`` says of each route what somebody else may see of it; a route that is not placed fails.
"""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
import pytest_asyncio
from starlette.routing import Route

from agents import agent, refusal
from calotype.app import build_app
from calotype.console.routes import ConsoleApp
from calotype.core import build_core
from calotype.domain.ids import encode
from calotype.domain.secret import Secret
from calotype.settings import Settings
from console.tabs import PASSWORD, Tab
from harness import GENERATIONS, Reply, Server, picture, running_server
from receiver import receiving

pytestmark = pytest.mark.asyncio(loop_scope="module")

MARK = "wisteria-7741"
"""Stands in whatever the victim wrote."""
BATCH: Final = "/v1/images/generations/batch"
OPENAI: Final = "/openai/v1/images"

OPERATOR = "the operator alone: 403"
NAMED = "names what belongs to an account: 404 to anybody else"
SIGNED = "by signature alone: 403 without one"
OWN = "shows what is the asker's own"
OPEN = "knows of no account"
STREAM = "tells of the asker's own, without an end"

PLACES: Final = {
    f"POST {GENERATIONS}": OWN,
    f"POST {BATCH}": OWN,
    "GET /v1/tasks": OWN,
    "GET /v1/tasks/{task_id}": NAMED,
    "DELETE /v1/tasks/{task_id}": NAMED,
    "POST /v1/tasks/{task_id}/cancel": NAMED,
    "GET /v1/tasks/{task_id}/events": NAMED,
    "GET /v1/tasks/{task_id}/webhook": NAMED,
    "POST /v1/tasks/{task_id}/webhook/redeliver": NAMED,
    "GET /v1/events": STREAM,
    "GET /v1/webhooks": OWN,
    "PUT /v1/webhooks": OWN,
    "POST /v1/webhooks/rotate": OWN,
    "GET /v1/webhooks/deliveries": OWN,
    "GET /v1/models": OPEN,
    "GET /v1/models/brands/{brand}/image": OPEN,
    "GET /v1/models/{model_id}": OPEN,
    "GET /v1/credits/balance": OWN,
    "GET /v1/files": OWN,
    "POST /v1/files": OWN,
    "GET /v1/files/{file_id}": NAMED,
    "DELETE /v1/files/{file_id}": NAMED,
    "GET /v1/assets/{name}": SIGNED,
    "POST /v1/callbacks/{channel}": OPEN,
    f"POST {OPENAI}/generations": OWN,
    f"POST {OPENAI}/edits": OWN,
    "GET /openai/v1/models": OPEN,
    "GET /openai/v1/models/{model_id}": OPEN,
    "POST /mcp": OWN,
    "GET /healthz": OPEN,
    "GET /readyz": OPEN,
    "GET /openapi.json": OPEN,
    "GET /docs": OPEN,
    "GET /llms.txt": OPEN,
    "GET /console/static/{version}/{path}": OPEN,
    "GET /console/live": STREAM,
    "GET /console/tasks/{task_id}/live": NAMED,
    "GET /console/gallery": OWN,
    "GET /console": OWN,
    "GET /console/": OWN,
    "GET /console/images/{name}/whole": NAMED,
    "GET /console/images/{name}/{width}.webp": NAMED,
    "GET /console/keys": OWN,
    "POST /console/keys": OWN,
    "POST /console/keys/{key}/revoke": NAMED,
    "GET /console/playground": OWN,
    "POST /console/playground": OWN,
    "POST /console/playground/form": OWN,
    "GET /console/sign-in": OPEN,
    "POST /console/sign-in": OPEN,
    "GET /console/enter": OPEN,
    "POST /console/enter": OPEN,
    "POST /console/sign-out": OWN,
    "GET /console/sign-out-everywhere": OWN,
    "POST /console/sign-out-everywhere": OWN,
    "GET /console/tasks/{task_id}": NAMED,
    "POST /console/tasks/{task_id}/cancel": NAMED,
    "POST /console/tasks/{task_id}/delete": NAMED,
    "POST /console/tasks/{task_id}/redeliver": NAMED,
    "GET /console/tasks": OWN,
    "GET /console/usage": OWN,
    "GET /console/usage.csv": OWN,
    "GET /console/ledger": OWN,
    "GET /console/ledger.csv": OWN,
    "GET /console/webhooks": OWN,
    "POST /console/webhooks": OWN,
    "POST /console/webhooks/rotate": OWN,
    "GET /console/webhooks/{task_id}": NAMED,
}
"""Whatever begins with ``/console/operator`` is the operator's."""

NOBODYS: Final = {"task_id": "task_0000000000000", "file_id": "asset_0000000000000"}
"""Ids of what there is not."""


@dataclass
class Victim:
    """An account that has one of everything, and what tells it from others."""

    server: Server
    ids: dict[str, str]
    """Its ids by the name of a path's parameter."""
    cursors: dict[str, str]
    marks: list[str]

    async def shown(self) -> list[Any]:
        """All that it sees of itself, for comparison."""
        paths = ("/v1/tasks", "/v1/files", "/v1/webhooks", "/v1/credits/balance")
        return [(await self.server.call("GET", path)).json for path in paths]

    def named(self, path: str) -> str:
        """A route's path with the victim's ids in it."""
        return path.format_map(self.ids)

    def is_hidden_from(self, reply: Reply, sent: str = "") -> None:
        """Nothing of it stands in an answer but what the question said itself."""
        told = str(dict(reply.headers)).encode() + reply.body
        for mark in self.marks:
            assert mark.encode() not in told or mark in sent, (mark, reply.status, reply.body)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    data = tmp_path_factory.mktemp("data")
    async with running_server(
        data, behind_proxy=True, admin_password=Secret(PASSWORD), webhook_allow_hosts=("127.0.0.1",)
    ) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def victim(site: Server) -> AsyncIterator[Victim]:
    server = await site.for_account()
    async with receiving() as receiver:
        hook = f"{receiver.url}/{MARK}"
        settings = (await server.call("PUT", "/v1/webhooks", json={"url": hook})).json
        png = {"Content-Type": "image/png"}
        await server.call("POST", "/v1/files", data=picture(colour="navy"), headers=png)
        file = (await server.call("POST", "/v1/files", data=picture(), headers=png)).json
        wanted = {"prompt": MARK, "metadata": {"book": MARK}, "image_input": [file["reference"]]}
        first = await server.accepted(**wanted)
        key = {"Idempotency-Key": "order-1"}
        body = {"model": "gpt-image-2", "prompt": MARK}
        sent = await server.call("POST", GENERATIONS, json=body, headers=key)
        task = await server.finished(sent.json["task_id"])
        await server.finished(first["task_id"])
        await receiver.received(2)
    async with Tab(server) as tab:
        await tab.sign_in()
        await tab.send("/console/keys", name=MARK)
    owner = await server.core.accounts.find(server.account)
    assert owner is not None
    keys = await server.core.store.keys(account_id=owner.id)
    image = task["result"]["data"][0]["url"].partition("?")[0].rpartition("/")[2]
    pages = {}
    for path in ("/v1/tasks", "/v1/files", "/v1/webhooks/deliveries"):
        pages[path] = (await server.call("GET", f"{path}?limit=1")).json["next_cursor"]
    ids = {
        "task_id": task["task_id"],
        "file_id": file["id"],
        "name": image.partition(".")[0],
        "key": encode("key", keys[0].id),
        "id": str(owner.id),
        "width": "320",
        "channel": "sandbox",
        "model_id": "gpt-image-2",
        "brand": "openai",
        "version": "x",
        "path": "favicon.svg",
    }
    marks = [
        *(MARK, server.account, task["task_id"], first["task_id"], file["id"], ids["name"]),
        *(settings["secrets"][0]["secret"], server.key, keys[0].prefix),
    ]
    yield Victim(server, ids, pages, marks)


@pytest_asyncio.fixture(loop_scope="module")
async def other(site: Server) -> Server:
    """Somebody else, with credit."""
    return await site.for_account()


@pytest_asyncio.fixture(loop_scope="module")
async def tab(other: Server) -> AsyncIterator[Tab]:
    """A browser where somebody else has signed in."""
    async with Tab(other) as opened:
        await opened.sign_in()
        yield opened


def every_route(folder: Path) -> Iterator[str]:
    """Method and path of whatever the server answers."""
    app: Any = build_app(build_core(Settings(data_dir=folder)), with_worker=False)
    mounted = {id(each.app): each.app for each in app._rest.routes}
    consoles: list[Any] = [each for each in mounted.values() if isinstance(each, ConsoleApp)]
    routes = [each for each in app._rest.routes if each.app not in consoles]
    for route in [*routes, *(each for console in consoles for each in console._router.routes)]:
        assert isinstance(route, Route)
        for method in route.methods or {"ANY"}:
            if method != "HEAD":
                yield f"{method} {route.path_format}"


def operators(path: str) -> bool:
    return path.startswith("/console/operator")


def placed(*places: str, console: bool) -> list[tuple[str, str]]:
    """Method and path of the routes that stand at these places."""
    routes = (tuple(route.split(" ")) for route, place in PLACES.items() if place in places)
    return [(method, path) for method, path in routes if path.startswith("/console") is console]


async def test_every_route_is_placed_and_no_other(tmp_path: Path) -> None:
    found = {route for route in every_route(tmp_path) if not operators(route.split(" ")[1])}
    assert sorted(found) == sorted(PLACES)


async def test_the_owner_finds_what_the_ids_name(victim: Victim) -> None:
    """Else the rest would show nothing."""
    for method, path in placed(NAMED, console=False):
        if method == "GET":
            assert (await victim.server.call("GET", victim.named(path))).status == 200, path
    async with Tab(victim.server) as tab:
        await tab.sign_in()
        for method, path in placed(NAMED, console=True):
            if method == "GET":
                assert (await tab.get(victim.named(path))).status == 200, path


async def test_what_names_anothers_is_not_found(victim: Victim, other: Server) -> None:
    before = await victim.shown()
    for method, path in placed(NAMED, console=False):
        asked = victim.named(path)
        for query in ("", "?wait=1", "?last_event_id=0"):
            reply = await other.call(method, asked + query)
            if query and reply.status == 400:
                continue
            assert reply.status == 404, (method, path, reply.body)
            victim.is_hidden_from(reply, asked)
            nothing = await other.call(method, path.format_map(NOBODYS) + query)
            assert nothing.status == 404, "it is told apart from what does not exist by nothing"
            assert nothing.json["code"] == reply.json["code"]
    assert await victim.shown() == before


async def test_an_image_is_had_by_its_signature_alone(victim: Victim, other: Server) -> None:
    for ending in (".png", ".jpg", ".webp", "", "-320.webp"):
        path = f"/v1/assets/{victim.ids['name']}{ending}"
        reply = await other.call("GET", path)
        reply.assert_refused(403, "invalid_signature")
        victim.is_hidden_from(reply, path)


async def test_pages_that_name_anothers_are_not_found(victim: Victim, tab: Tab) -> None:
    before = await victim.shown()
    csrf = await tab.token("/console/webhooks")
    for method, path in placed(NAMED, console=True):
        asked = victim.named(path)
        reply = await (tab.get(asked) if method == "GET" else tab.post(asked, csrf=csrf))
        assert reply.status == 404, (method, path, reply.body)
        victim.is_hidden_from(reply, asked)
    assert await victim.shown() == before


async def test_the_operators_pages_are_nobody_elses(
    tmp_path: Path, victim: Victim, tab: Tab
) -> None:
    before = await victim.shown()
    ids = {**victim.ids, "model": "gpt-image-2", "slug": "sandbox", "number": "1"}
    csrf = await tab.token("/console/webhooks")
    for route in every_route(tmp_path):
        method, path = route.split(" ")
        if operators(path):
            asked = path.format_map(ids)
            reply = await (tab.get(asked) if method == "GET" else tab.post(asked, csrf=csrf))
            assert reply.status == 403, route
            victim.is_hidden_from(reply, asked)
    assert await victim.shown() == before


async def test_lists_and_settings_show_the_askers_own(victim: Victim, other: Server) -> None:
    before = await victim.shown()
    cursors = victim.cursors
    asked = [
        *(path for _, path in placed(OPEN, OWN, console=False) if "{channel}" not in path),
        *(f"{path}?cursor={cursor}" for path, cursor in cursors.items()),
        f"/v1/tasks?metadata.book={MARK}",
        f"/v1/tasks?state=success&metadata.book={MARK}",
    ]
    for path in (victim.named(each) for each in asked):
        reply = await other.call("GET", path)
        assert reply.status in {200, 405}, (path, reply.body)
        victim.is_hidden_from(reply, path)
    for method, path, body in [
        ("PUT", "/v1/webhooks", {"url": None}),
        ("POST", "/v1/webhooks/rotate", {}),
        ("POST", "/v1/callbacks/sandbox", {"task_id": victim.ids["task_id"]}),
        ("POST", BATCH, {"requests": [{"model": "gpt-image-2", "prompt": "mine"}]}),
        ("POST", f"{OPENAI}/generations", {"model": "gpt-image-2", "prompt": "mine"}),
    ]:
        reply = await other.call(method, path, json=body)
        assert reply.status < 500, (path, reply.body)
        victim.is_hidden_from(reply)
    assert await victim.shown() == before


async def test_pages_show_the_askers_own(victim: Victim, tab: Tab) -> None:
    before = await victim.shown()
    page = victim.cursors["/v1/tasks"]
    asked = [path for method, path in placed(OPEN, OWN, console=True) if method == "GET"]
    for path in [
        *map(victim.named, asked),
        f"/console/tasks?before={page}",
        f"/console/tasks?text={MARK}",
        f"/console/tasks?metadata=book%3D{MARK}",
        f"/console/gallery?text={MARK}",
        f"/console/gallery?before={page}",
        f"/console/webhooks?before={page}",
        f"/console/playground?task={victim.ids['task_id']}",
        f"/console/playground?again={victim.ids['task_id']}",
        f"/console/playground?image={victim.ids['name']}",
    ]:
        reply = await tab.get(path)
        assert reply.status < 500, (path, reply.body)
        victim.is_hidden_from(reply, path)
    csrf = await tab.token("/console/webhooks")
    forms = [path for method, path in placed(OWN, OPEN, console=True) if method == "POST"]
    for path in sorted(forms, key=lambda path: "sign-out" in path):
        said = {"csrf": csrf, "task": victim.ids["task_id"], "account": victim.server.account}
        reply = await tab.post(path, **said)
        assert reply.status < 500, (path, reply.body)
        victim.is_hidden_from(reply, str(said))
    assert await victim.shown() == before


async def test_streams_tell_of_the_askers_own(victim: Victim, other: Server, tab: Tab) -> None:
    begin = {**other.auth, "Last-Event-ID": "0"}
    mine = (await other.outcome())["task_id"]
    async with other.http.get(f"{other.url}/v1/events", headers=begin) as stream:
        told = await read_until(stream, b'"state":"success"')
    assert mine.encode() in told
    victim.is_hidden_from(Reply(200, stream.headers, told))
    async with tab._http.get(
        f"{other.url}/console/live", headers={**tab._headers, "Last-Event-ID": "1"}
    ) as stream:
        told = await read_until(stream, b"event: tasks")
    victim.is_hidden_from(Reply(200, stream.headers, told))


async def test_what_is_anothers_is_no_reference(victim: Victim, other: Server) -> None:
    for word in (victim.ids["file_id"], victim.ids["name"]):
        url = f"asset://{word}"
        as_json = await other.submit(image_input=[url])
        as_form = await other.submit_form(("image_input", url))
        batch = await other.call(
            "POST",
            BATCH,
            json={"requests": [{"model": "gpt-image-2", "prompt": "x", "image_input": [url]}]},
        )
        assert {as_json.status, as_form.status} <= {400, 404}, as_json.body
        assert "error" in batch.json["data"][0], batch.body
        for reply in (as_json, as_form, batch):
            victim.is_hidden_from(reply, url)
    assert await other.newest() is None


async def test_keys_of_idempotency_are_each_accounts_own(victim: Victim, other: Server) -> None:
    body = {"model": "gpt-image-2", "prompt": MARK}
    sent = await other.call("POST", GENERATIONS, json=body, headers={"Idempotency-Key": "order-1"})
    assert sent.status == 202
    assert sent.json["task_id"] != victim.ids["task_id"]
    again = {**body, "n": 1}
    first = await victim.server.call("POST", f"{OPENAI}/generations", json=again)
    second = await other.call("POST", f"{OPENAI}/generations", json=again)
    assert first.status == second.status == 200
    words = {each.headers["X-Calotype-Task-Id"] for each in (first, second)}
    assert len(words) == 2


async def test_an_agent_reaches_nothing_of_another(victim: Victim, other: Server) -> None:
    task, before = victim.ids["task_id"], await victim.shown()
    edit = {"prompt": "x", "model": "gpt-image-2", "wait_seconds": 0}
    async with agent(other.url, other.key) as client:
        calls: list[tuple[str, dict[str, Any]]] = [
            ("get_task", {"task_id": task, "wait_seconds": 0}),
            ("cancel_task", {"task_id": task}),
            ("edit_image", {**edit, "references": [task]}),
            ("edit_image", {**edit, "references": [f"asset://{victim.ids['file_id']}"]}),
        ]
        for name, asked in calls:
            said = refusal(await client.call_tool(name, asked))
            victim.is_hidden_from(Reply(200, {}, said.encode()), str(asked))
    assert await victim.shown() == before


async def read_until(stream: aiohttp.ClientResponse, end: bytes) -> bytes:
    """What a stream tells, as far as that."""
    told = b""
    while end not in told:
        told += await stream.content.readany()
        assert not stream.content.at_eof(), told
    return told
