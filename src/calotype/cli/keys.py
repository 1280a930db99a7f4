"""``calotype keys``: API keys, made, listed, revoked."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calotype.cli import arguments, completion, session, show
from calotype.cli import credits as credit_commands
from calotype.cli.faults import CommandFault
from calotype.cli.options import takes
from calotype.domain.ids import decode, encode
from calotype.domain.keys import ApiKey, hash_key, is_well_formed
from calotype.domain.limits import MAX_KEY_TASKS, MAX_PER_MINUTE
from calotype.domain.money import format_usd

if TYPE_CHECKING:  # importing it takes longer than the command
    from calotype.core import Core

_CANDIDATES = 10

app = typer.Typer(no_args_is_help=True, help="API keys: make, list, revoke.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Asked:
    """The command line of ``calotype keys create``."""

    context: typer.Context
    name: Annotated[
        str, typer.Option(parser=arguments.label, metavar="NAME", help="What the key is for.")
    ]
    account: Annotated[
        str | None,
        typer.Option(
            parser=arguments.label,
            metavar="NAME",
            help="Whose key it is: all keys of an account share its credits, tasks and images. "
            "Opened when there is none.",
            show_default="the name of the key",
        ),
    ] = None
    credit: Annotated[
        int | None,
        typer.Option(
            "--credits",
            parser=arguments.positive_usd,
            metavar="USD",
            help="Credit to add to the account.",
        ),
    ] = None
    expires_in: Annotated[
        int | None,
        typer.Option(
            parser=arguments.duration,
            metavar="DURATION",
            help="How long it is good for, such as 30d, 12h or 3600s; without it for ever.",
        ),
    ] = None
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="ID",
            help="A model that it may use; again for more. Without it every one.",
            autocompletion=completion.models,
        ),
    ] = None
    channels: Annotated[
        list[str] | None,
        typer.Option(
            "--channel",
            metavar="SLUG",
            help="A channel that may develop its tasks; again for more. Without it every one.",
        ),
    ] = None
    per_day: Annotated[
        int | None,
        typer.Option(
            parser=arguments.positive_usd, metavar="USD", help="What it may spend in a UTC day."
        ),
    ] = None
    per_month: Annotated[
        int | None,
        typer.Option(
            parser=arguments.positive_usd, metavar="USD", help="What it may spend in a UTC month."
        ),
    ] = None
    per_minute: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_PER_MINUTE,
            help="Tasks that it may submit at once, and that many more with every minute.",
        ),
    ] = None
    tasks: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_KEY_TASKS, help="Unfinished tasks that it may have."),
    ] = None


@app.command()
@takes(_Asked)
def create(asked: _Asked) -> None:
    """Make an API key, and its account when there is none.

    The key alone goes to stdout, so that a script can take it up; the rest to stderr. It is
    shown this once: only its hash is kept.
    """

    async def body(core: "Core") -> None:
        from calotype.services.audit import CLI

        owned_by = asked.account or asked.name
        async with core.audit.action(
            CLI, "key.create", f"account {owned_by}", f"key '{asked.name}'"
        ) as noting:
            secret, key = await core.accounts.create_key(
                asked.name,
                account=owned_by,
                expires_in_seconds=asked.expires_in,
                models=asked.models,
                channels=_channel_ids(core, asked.channels),
                day_limit=asked.per_day,
                month_limit=asked.per_month,
                per_minute=asked.per_minute,
                max_tasks=asked.tasks,
            )
            noting.detail += f", {encode('key', key.id)}"
        print(secret, flush=True)
        until = f"good until {show.moment(key.expires_at)}" if key.expires_at else "does not expire"
        show.note(f"{encode('key', key.id)} '{key.name}' of account '{key.account}', {until}.")
        if key.restricted:
            show.note(f"It is limited to {'; '.join(_limits(core, key))}.")
        owner = await core.accounts.find(key.account)
        if owner is not None and asked.credit is not None:
            owner = await credit_commands.book(
                core, owner, asked.credit, note=f"with key '{key.name}'"
            )
        if owner is not None:
            show.note(f"The account has {format_usd(owner.balance.available)} USDC available.")
        show.note("Keep the key: it is not shown again.")

    session.with_core(asked.context, body)


@app.command(name="list")
def list_keys(
    context: typer.Context,
    *,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List every key, newest first, by its id and its first characters."""

    async def body(core: "Core") -> list[tuple[ApiKey, list[str]]]:
        return [(key, _limits(core, key)) for key in await core.store.keys()]

    keys = session.with_core(context, body)
    if json:
        show.json([_document(key) for key, _ in keys])
        return
    if not keys:
        show.note("There are no keys yet; calotype keys create --name me makes one.")
        return
    show.table(
        [
            "ID",
            "PREFIX",
            "NAME",
            "ACCOUNT",
            "CREATED",
            "LAST USED",
            "EXPIRES",
            "REVOKED",
            "LIMITED TO",
        ],
        [
            [
                encode("key", key.id),
                key.prefix,
                key.name,
                key.account,
                show.moment(key.created_at),
                show.moment(key.last_used_at, none="never"),
                show.moment(key.expires_at, none="never"),
                show.moment(key.revoked_at, none="no"),
                "; ".join(limits),
            ]
            for key, limits in keys
        ],
    )


@app.command()
def revoke(
    context: typer.Context,
    key: Annotated[
        str,
        typer.Argument(
            metavar="KEY", help="Its id (key_…), its first characters (ck_…), or all of it."
        ),
    ],
) -> None:
    """Revoke a key for good, from the next request on.

    First characters that more than one key has are refused.
    """

    async def body(core: "Core") -> None:
        found = _the_one(key, await _matching(core, key))
        described = f"{encode('key', found.id)} '{found.name}' of account '{found.account}'"
        from calotype.services.audit import CLI

        async with core.audit.action(
            CLI, "key.revoke", encode("key", found.id), described
        ) as noting:
            revoked = await core.accounts.revoke(found)
            noting.detail += "" if revoked else ", which was revoked already"
        if revoked:
            print(f"Revoked {show.plain(described)}.")
        else:
            print(f"{show.plain(described)} was revoked already.")

    session.with_core(context, body)


def _channel_ids(core: "Core", slugs: Sequence[str] | None) -> list[int] | None:
    """The ids of channels; None where none were named."""
    if not slugs:
        return None
    known = {channel.slug: channel.id for channel in core.router.channels}
    for slug in slugs:
        if slug not in known:
            raise CommandFault(f"There is no channel '{slug}'; there are {', '.join(known)}.")
    return [known[slug] for slug in slugs]


def _limits(core: "Core", key: ApiKey) -> list[str]:
    """What a key may do, as far as that is less than everything."""
    limits: list[str] = []
    if key.models is not None:
        limits.append(", ".join(key.models))
    if key.channels is not None:
        found = [(number, core.router.get(number)) for number in key.channels]
        named = ", ".join(channel.slug if channel else str(number) for number, channel in found)
        limits.append(f"channel {named}")
    if key.day_limit is not None:
        limits.append(f"{format_usd(key.day_limit)} USDC a day")
    if key.month_limit is not None:
        limits.append(f"{format_usd(key.month_limit)} USDC a month")
    if key.per_minute is not None:
        limits.append(f"{key.per_minute} tasks at once, then {key.per_minute} a minute")
    if key.max_tasks is not None:
        limits.append(f"{key.max_tasks} unfinished tasks")
    return limits


async def _matching(core: "Core", given: str) -> list[ApiKey]:
    """The keys that an id, a beginning, or a whole key can mean."""
    if is_well_formed(given):
        found = await core.store.find_key(hash_key(given))
        return [found] if found else []
    keys = await core.store.keys()
    number = decode("key", given)
    if number is not None:
        return [key for key in keys if key.id == number]
    if not given.startswith("ck_"):
        return []
    return [key for key in keys if key.prefix.startswith(given)]


def _the_one(given: str, matching: Sequence[ApiKey]) -> ApiKey:
    """The one key that can be meant; among several, those already revoked do not count."""
    if not matching:
        raise CommandFault(f"There is no key '{given}'; calotype keys list shows them.")
    able = [key for key in matching if key.revoked_at is None] or list(matching)
    if len(able) > 1:
        candidates = ", ".join(
            f"{encode('key', key.id)} ({key.prefix}… '{key.name}')" for key in able[:_CANDIDATES]
        )
        more = f" and {len(able) - _CANDIDATES} more" if len(able) > _CANDIDATES else ""
        raise CommandFault(
            f"'{given}' can be any of {len(able)} keys: {candidates}{more}; name one by its id."
        )
    return able[0]


def _document(key: ApiKey) -> dict[str, Any]:
    return {
        "id": encode("key", key.id),
        "prefix": key.prefix,
        "name": key.name,
        "account": key.account,
        "created_at": show.seconds(key.created_at),
        "expires_at": show.seconds(key.expires_at),
        "revoked_at": show.seconds(key.revoked_at),
        "last_used_at": show.seconds(key.last_used_at),
        "models": key.models,
        "channel_ids": key.channels,
        "day_limit_micro_usdc": key.day_limit,
        "month_limit_micro_usdc": key.month_limit,
        "per_minute": key.per_minute,
        "max_tasks": key.max_tasks,
    }
