"""One account's pile of tasks does not hold up another's."""

import asyncio
from pathlib import Path

from calotype.domain.channel import Channel, Served
from calotype.domain.task import State
from harness import running_server

NARROW = Channel(
    id=10,
    slug="narrow",
    name="Narrow",
    provider="sandbox",
    models={"gpt-image-2": Served(id="gpt-image-2")},
    concurrency=2,
)
PILE = 150


async def test_a_single_task_overtakes_another_accounts_pile(tmp_path: Path) -> None:
    async with running_server(tmp_path / "data", channels=(NARROW,), sandbox_seconds=0.1) as server:
        busy = {"Authorization": f"Bearer {await server.new_key('busy', credit=10**12)}"}
        body = {"model": "gpt-image-2", "prompt": "sandbox:500-after pile"}
        await asyncio.gather(
            *(
                server.call("POST", "/v1/images/generations", json=body, headers=busy)
                for _ in range(PILE)
            )
        )
        quiet = await server.submit(prompt="sandbox:500-after alone")
        await server.finished(quiet.json["task_id"])
        ended = await server.core.store.tasks(state=State.FAIL, limit=PILE)
        assert len(ended) < PILE // 3
