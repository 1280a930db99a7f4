"""``calotype channels``: the upstreams as configured, and how they are."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from calotype.cli import session, show
from calotype.domain.health import WHOLE

if TYPE_CHECKING:  # importing it takes longer than the command
    from calotype.core import Core
    from calotype.domain.channel import Channel
    from calotype.domain.health import Health
    from calotype.store.operating import Switch
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
    disable: Annotated[
        str | None,
        typer.Option(
            help="Have this channel take no new tasks, until told otherwise.", metavar="SLUG"
        ),
    ] = None,
    enable: Annotated[
        str | None,
        typer.Option(help="Have it take new tasks, also where enabled = false.", metavar="SLUG"),
    ] = None,
    as_configured: Annotated[
        str | None, typer.Option(help="Leave it to the configuration again.", metavar="SLUG")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the channels with their models, limits and health; or switch one."""

    async def body(core: "Core") -> list[dict[str, Any]]:
        from calotype.services.audit import CLI

        if reset is not None:
            await core.operating.reset(CLI, reset)
        for slug, enabled in ((disable, False), (enable, True), (as_configured, None)):
            if slug is not None:
                await core.operating.switch(CLI, slug, enabled=enabled)
        if events:
            happened = await core.store.channel_events(since=0, limit=limit)
            return [_event(core, one) for one in happened]
        health = await core.store.health()
        switches = {one.channel_id: one for one in await core.store.operating.switches()}
        return [
            _channel(core, each, list(health), switches.get(each.id))
            for each in core.router.channels
        ]

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


def _channel(
    core: "Core", channel: "Channel", health: "list[Health]", switch: "Switch | None"
) -> dict[str, Any]:
    now = core.clock()
    states = [_state(one, now) for one in health if one.channel_id == channel.id]
    on = channel.enabled if switch is None else switch.enabled
    if on and not states:
        states = [_WELL]
    if switch is not None or not on:
        by = "" if switch is None else f" (by {switch.by})"
        states.append(f"switched {'on' if on else 'off'}{by}")
    return {
        "id": channel.id,
        "slug": channel.slug,
        "provider": channel.provider,
        "models": len(core.catalog.models) if channel.models is None else len(channel.models),
        "priority": channel.priority,
        "weight": channel.weight,
        "concurrency": channel.concurrency,
        "requests_per_minute": channel.requests_per_minute,
        "state": "; ".join(states),
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
