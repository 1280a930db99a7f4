"""A server with channels that have done well and badly, for the tests of the operator's pages."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from calotype.domain.channel import Channel, Served
from calotype.domain.errors import failure
from calotype.domain.health import WHOLE, Health
from calotype.domain.ids import encode
from calotype.domain.secret import Secret
from calotype.domain.task import AttemptState, Event, Task
from conformance.tasks import PRICE, funded, image, new_task
from console.tabs import PASSWORD
from harness import Server, running_server

MINUTE: Final = 60_000
MAIN: Final = Channel(
    id=31,
    slug="main",
    name="The main one",
    provider="sandbox",
    description="Where most of it goes.",
    concurrency=8,
    requests_per_minute=60,
    api_key=Secret("sk-of-the-upstream"),
    models={"gpt-image-2": Served(cost=20_000), "flux-2-pro": Served(id="flux/two-pro", price=9)},
)
SPARE: Final = Channel(
    id=32,
    slug="spare",
    name="Spare",
    provider="sandbox",
    enabled=False,
    models={"gpt-image-2": Served()},
)
LOST: Final = "The connection broke after the request was sent."


@asynccontextmanager
async def operated_server(data: Path, **settings: Any) -> AsyncIterator[Server]:
    """A server that develops nothing, with an operator's password and two channels."""
    async with running_server(
        data,
        behind_proxy=True,
        with_worker=False,
        admin_password=Secret(PASSWORD),
        channels=(MAIN, SPARE),
        **settings,
    ) as running:
        yield running


async def begun(
    site: Server, *, at: int, channel: int = MAIN.id, model: str = "gpt-image-2"
) -> Task:
    """A task whose first attempt went out then."""
    store = site.core.store
    account = await funded(store, name="ada")
    new = new_task(account, model=model, created_at=at)
    await store.submit(msgspec.structs.replace(new, channel_id=channel))
    taken = await store.take(new.id, now=at)
    assert taken is not None
    await store.begin_attempt(taken.task, channel_id=channel, event=Event.RUN, now=at)
    return taken.task


async def done(
    site: Server, *, ago: int = MINUTE, took: int = 4_000, cost: int | None = 20_000, **of: Any
) -> None:
    """A task that ended well."""
    at = site.core.clock() - ago
    task = await begun(site, at=at, **of)
    pictures = [image(task.account_id)]
    await site.core.store.complete(task, 1, images=pictures, actual=PRICE, cost=cost, now=at + took)


async def failed(site: Server, detail: str = "It said no.", **of: Any) -> str:
    """A task that was refused just now."""
    task = await begun(site, at=site.core.clock(), **of)
    why = failure("upstream_rejected", "No.")
    await site.core.store.fail(
        task, why, attempt=(1, AttemptState.REFUSED), detail=detail, now=site.core.clock()
    )
    return encode("task", task.id)


async def unknown(site: Server, detail: str = LOST, *, ended: int = 0, **of: Any) -> str:
    """A task of which nobody knows whether it was billed."""
    task = await begun(site, at=site.core.clock(), **of)
    await site.core.store.accept_attempt(task, 1, upstream_id=f"up-{secrets.token_hex(9)}")
    why = failure("upstream_outcome_unknown", "Nobody can say.")
    await site.core.store.fail(
        task,
        why,
        attempt=(1, AttemptState.UNKNOWN),
        detail=detail,
        now=site.core.clock() + ended,
    )
    return encode("task", task.id)


async def shut(site: Server, *, channel: int = 31, model: str = WHOLE, fault: str = "key") -> None:
    """A breaker that is open for a minute."""
    now = site.core.clock()
    await site.core.store.note_health(
        Health(
            channel_id=channel,
            model=model,
            fault=fault,
            until=now + MINUTE,
            strikes=1,
            opened_at=now,
            updated_at=now,
            detail="401 from the upstream",
        )
    )
