"""``calotype channels``: the upstreams as configured, and how they are."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from calotype.cli import session, show
from calotype.cli.faults import CommandFault
from calotype.domain.health import WHOLE

if TYPE_CHECKING:  # importing it takes longer than the command
    from calotype.core import Core
    from calotype.domain.channel import Channel
    from calotype.domain.health import Health
    from calotype.store.port import ChannelEvent

_WELL = "well"


def channels(
    context: typer.Context,
    *,
    events: Annotated[
        bool, typer.Option("--events", help="Show when breakers opened and closed, newest first.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many events.")] = 50,
    reset: Annotated[
        str | None,
        typer.Option(help="Open the breakers' way of this channel again.", metavar="SLUG"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the channels with their models, limits and health."""

    async def body(core: "Core") -> list[dict[str, Any]]:
        if reset is not None:
            await _reset(core, reset)
        if events:
            happened = await core.store.channel_events(since=0, limit=limit)
            return [_event(core, one) for one in happened]
        health = await core.store.health()
        return [_channel(core, each, list(health)) for each in core.router.channels]

    found = session.with_core(context, body, make=False)
    if json:
        show.json(found)
    elif not found:
        show.note("Nothing has happened to any channel.")
    else:
        columns = list(found[0])
        show.table(
            [column.upper() for column in columns],
            [[_told(row[column]) for column in columns] for row in found],
        )


async def _reset(core: "Core", slug: str) -> None:
    known = {channel.slug: channel.id for channel in core.router.channels}
    if slug not in known:
        raise CommandFault(f"There is no channel '{slug}'; there are {', '.join(known)}.")
    for health in await core.store.health():
        if health.channel_id == known[slug]:
            await core.store.clear_health(health.channel_id, health.model, now=core.clock())


def _channel(core: "Core", channel: "Channel", health: "list[Health]") -> dict[str, Any]:
    now = core.clock()
    states = [_state(one, now) for one in health if one.channel_id == channel.id]
    return {
        "id": channel.id,
        "slug": channel.slug,
        "provider": channel.provider,
        "models": len(core.catalog.models) if channel.models is None else len(channel.models),
        "priority": channel.priority,
        "weight": channel.weight,
        "concurrency": channel.concurrency,
        "requests_per_minute": channel.requests_per_minute,
        "state": "; ".join(states) or (_WELL if channel.enabled else "switched off"),
    }


def _state(health: "Health", now: int) -> str:
    what = "" if health.model == WHOLE else f"{health.model}: "
    if now >= health.until:
        return f"{what}being tried ({health.fault})"
    return f"{what}shut for {(health.until - now) / 1000:.0f} s ({health.fault})"


def _event(core: "Core", event: "ChannelEvent") -> dict[str, Any]:
    channel = core.router.get(event.channel_id)
    return {
        "at": show.moment(event.at),
        "channel": channel.slug if channel else event.channel_id,
        "model": event.model or "all",
        "event": event.event,
        "fault": event.fault,
        "detail": event.detail,
    }


def _told(value: Any) -> str:
    return show.plain(str(value)) if value or value == 0 else ""
