"""Tasks that change while somebody looks."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import aiohttp
import pytest
import pytest_asyncio

from calotype.console import live
from calotype.domain.secret import Secret
from console.tabs import PASSWORD, Tab
from harness import Reply, Server, running_server

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """A server whose sandbox answers at once."""
    data = tmp_path_factory.mktemp("data")
    async with running_server(data, behind_proxy=True, admin_password=Secret(PASSWORD)) as running:
        yield running


class Watcher(Tab):
    """A browser that listens to a page's events."""

    def stream(self, path: str, **headers: str) -> "aiohttp.client._RequestContextManager":
        """What a page hears."""
        return self._http.get(self.site.url + path, headers=headers, allow_redirects=False)


@pytest_asyncio.fixture(loop_scope="module")
async def site(server: Server) -> Server:
    """That server, as an account of the test's own meets it."""
    return await server.for_account()


@pytest_asyncio.fixture(loop_scope="module")
async def watcher(site: Server) -> AsyncIterator[Watcher]:
    """A browser in which the account signed in."""
    async with Watcher(site, f"2001:db8:{hash(site.account) % 2**16:x}::2") as opened:
        await opened.sign_in()
        yield opened


async def events(stream: aiohttp.ClientResponse) -> list[tuple[str, str]]:
    """Names and data of the events, to the end of a stream."""
    told = (await stream.read()).decode()
    blocks = [block for block in told.split("\n\n") if block.startswith("event: ")]
    return [
        (block.split("\n")[0].removeprefix("event: "), "\n".join(re.findall("data: ?(.*)", block)))
        for block in blocks
    ]


async def test_a_task_is_shown_anew_at_each_change_to_its_last(
    site: Server, watcher: Watcher
) -> None:
    task = await site.accepted(prompt="a <b>harbour</b> sandbox:delay=0.4")
    async with watcher.stream(f"/console/tasks/{task['task_id']}/live") as stream:
        assert stream.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert stream.headers["Cache-Control"] == "no-store"
        told = await events(stream)
    *changes, (last, _) = told
    assert (last, {name for name, _ in changes}) == ("end", {"task"})
    assert len(changes) > 1
    assert 'data-state="' in changes[0][1]
    assert "<b>harbour" not in changes[-1][1]
    assert "/v1/assets/" in changes[-1][1]


async def test_a_task_that_is_over_is_shown_once(site: Server, watcher: Watcher) -> None:
    task = await site.outcome("sandbox:refuse")
    async with watcher.stream(f"/console/tasks/{task['task_id']}/live") as stream:
        (name, shown), end = await events(stream)
    assert (name, end) == ("task", ("end", ""))
    assert "content_policy_violation" in shown
    assert "It cost nothing." in shown


async def test_tasks_of_others_are_not_there_but_for_the_operator(
    server: Server, site: Server, watcher: Watcher
) -> None:
    other = await server.for_account()
    word = (await other.outcome())["task_id"]
    for path in (f"/console/tasks/{word}/live", "/console/tasks/task_0/live"):
        assert (await watcher.get(path)).status == 404
    assert (await watcher.get(f"/console/operator/tasks/{word}/live")).status == 403
    async with Watcher(site, "2001:db8:ffff::3") as operator:
        await operator.be_operator()
        async with operator.stream(f"/console/operator/tasks/{word}/live") as stream:
            told = await events(stream)
        assert (await operator.get("/console/operator/tasks/task_0/live")).status == 404
    assert f"/console/operator/tasks/{word}" in told[0][1]
    assert "Use as reference" not in told[0][1]


async def test_an_account_hears_that_something_changed(site: Server, watcher: Watcher) -> None:
    async with watcher.stream("/console/live") as stream:
        assert await stream.content.readuntil(b"\n\n") == b": still here\n\n"
        await site.accepted()
        assert b"event: tasks\n" in await stream.content.readuntil(b"\n\n")


async def test_whoever_was_cut_off_is_told_at_once(watcher: Watcher) -> None:
    async with watcher.stream("/console/live", **{"Last-Event-ID": "1"}) as stream:
        assert b"event: tasks\n" in await stream.content.readuntil(b"\n\n")


@pytest.mark.parametrize("path", ["/console/sign-out", "/console/sign-out-everywhere"])
async def test_streams_end_with_the_session(
    site: Server, watcher: Watcher, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(live, "HEARTBEAT_SECONDS", 0.05)
    task = await site.accepted(prompt="sandbox:delay=600")
    paths = [f"/console/tasks/{task['task_id']}/live", "/console/live"]
    csrf = await watcher.token("/console/sign-out-everywhere")
    async with watcher.stream(paths[0]) as one, watcher.stream(paths[1]) as every:
        assert (await watcher.post(path, csrf=csrf)).status == 303
        assert (await events(one))[-1] == ("end", "")
        assert (await events(every))[-1] == ("end", "")


async def test_nobody_hears_anything_who_did_not_sign_in(site: Server) -> None:
    async with Watcher(site) as stranger:
        replies: list[Reply] = [await stranger.get(path) for path in ("/console/live",)]
    assert [reply.status for reply in replies] == [303]


async def test_a_session_listens_to_so_many_streams_at_once_and_no_more(
    site: Server, watcher: Watcher
) -> None:
    task = await site.accepted(prompt="sandbox:delay=600")
    paths = ["/console/live", f"/console/tasks/{task['task_id']}/live"]
    async with AsyncExitStack() as stack, Watcher(site) as other:
        opened = []
        for number in range(live.MAX_STREAMS):
            stream = await stack.enter_async_context(watcher.stream(paths[number % 2]))
            assert stream.status == 200
            opened.append(stream)
        for path in paths:
            refused = await watcher.get(path)
            assert (refused.status, refused.headers["Retry-After"]) == (429, "15")
            assert b"close some" in refused.body
        await other.sign_in()
        async with other.stream(paths[0]) as stream:
            assert stream.status == 200, "another session"
    async with asyncio.timeout(60):
        while True:  # until the server has noticed that nobody listens
            async with watcher.stream(paths[0]) as stream:
                if stream.status == 200:
                    break
