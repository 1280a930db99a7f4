"""What `make bench` measures with, over a real server."""

from pathlib import Path

import msgspec

from callers import callers, run_tasks
from mock_upstream import Call
from servers import Engine, script
from whole_tasks import request


async def test_whole_tasks_go_through_the_mock_which_notes_their_calls(tmp_path: Path) -> None:
    async with (
        script("mock_upstream.py") as mock,
        Engine("SQLite", tmp_path).server(mock=mock) as server,
        callers(mock.port, "", 1) as (asker,),
        callers(server.process.port, server.key, 1) as (caller,),
    ):
        accepted = await caller.submit(request("mock:size=64k,delay=20,call=7"))
        await caller.ended(accepted.task_id)
        calls = msgspec.json.decode(await asker.get("/calls"), type=dict[str, Call])
        load = await run_tasks(
            server.process.port,
            server.key,
            request("mock:size=64k,delay=0"),
            connections=4,
            seconds=0.1,
        )
        assert await asker.get("/held") == b"0"
    call = calls["7"]
    assert call.arrived_ns < call.answered_ns < caller.answered_ns
    assert load.finished >= 4
    assert load.p50_ms <= load.p99_ms
