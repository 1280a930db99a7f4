"""The Python client and a server process that is killed under it."""

import asyncio
from typing import TYPE_CHECKING

import pytest

from client.speaking import KINDS, Kind, do, opened

if TYPE_CHECKING:
    from acceptance.conftest import Site


@pytest.mark.parametrize("kind", KINDS)
async def test_waiting_and_listening_outlast_a_server_that_is_killed_and_started_again(
    site: "Site", kind: Kind
) -> None:
    notes = list[str]()
    await site.fund()
    server = await site.serve("--no-worker")
    options = {"patience": 100, "on_retry": notes.append}  # machines are shared
    async with opened(kind, site.key, site.url, **options) as client:
        task = await do(client.generate, "x", model="tiny")
        following = asyncio.gather(do(task.wait), do(task.events))
        await server.kill()
        await site.eventually(lambda: len(notes) == 2, "both notice that the server is gone")
        await site.serve("--port", server.url.rpartition(":")[2])
        done, events = await following
        (path,) = await do(done.save, site.root / "out.jpg")
    assert path.stat().st_size == done.result[0].bytes
    assert [event.id for event in events] == [str(place + 1) for place in range(len(events))]
    assert events[-1].task.result[0].bytes == done.result[0].bytes
    assert site.count("1 = 1") == 1
