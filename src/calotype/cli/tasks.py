"""``calotype tasks``: every account's tasks as the operator sees them, straight from the store."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calotype.cli import completion, live, save, session, show, unknown
from calotype.cli import credits as credit_commands
from calotype.cli.faults import CommandFault
from calotype.domain.ids import decode, encode
from calotype.domain.money import format_usd
from calotype.domain.task import Asset, Attempt, State, Task
from calotype.domain.webhooks import Webhook

if TYPE_CHECKING:  # importing it takes longer than the command
    from calotype.core import Core

_PROMPT = 48
"""Characters of a prompt in the list."""

app = typer.Typer(
    no_args_is_help=True,
    help="Tasks: of every account, from the database of this machine (list, show, unknown, "
    "resolve); or your own, over the API with a key (watch, save, cancel).",
)
app.command()(live.watch)
app.command()(live.cancel)
app.command()(save.save)
app.command()(unknown.unknown)
app.command()(unknown.resolve)


@app.command(name="list")
def list_tasks(
    context: typer.Context,
    *,
    account: Annotated[str | None, typer.Option(help="Only of this account.")] = None,
    state: Annotated[State | None, typer.Option(help="Only in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 20,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the newest tasks, newest first."""

    async def body(core: "Core") -> tuple[Sequence[Task], Mapping[int, str]]:
        owner = None if account is None else await credit_commands.find(core, account)
        tasks = await core.store.tasks(
            account_id=None if owner is None else owner.id, state=state, limit=limit
        )
        return tasks, await _names(core)

    tasks, names = session.with_core(context, body, make=False)
    if json:
        show.json([document(task, account=names[task.account_id]) for task in tasks])
        return
    if not tasks:
        show.note("There are no such tasks.")
        return
    show.table(
        ["TASK", "STATE", "%", "ACCOUNT", "MODEL", "USDC", "CREATED", "TOOK", "PROMPT"],
        [
            [
                encode("task", task.id),
                task.state if task.error is None else f"{task.state}: {task.error.code}",
                str(task.progress),
                names[task.account_id],
                task.model,
                format_usd(task.reserved if task.completed_at is None else task.actual),
                show.moment(task.created_at),
                _took(task),
                show.plain(task.request.prompt, limit=_PROMPT),
            ]
            for task in tasks
        ],
        right=["%", "USDC", "TOOK"],
    )


@app.command(name="show")
def show_task(
    context: typer.Context,
    task: Annotated[
        str,
        typer.Argument(
            metavar="TASK_ID",
            help="Such as task_1k0v3m8a0qz4e.",
            autocompletion=completion.stored_tasks,
        ),
    ],
    *,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show all that is known of a task: request, attempts at upstreams, money, files."""

    async def body(core: "Core") -> None:
        number = decode("task", task)
        found = None if number is None else await core.store.task(number)
        if found is None:
            raise CommandFault(f"There is no task '{task}'; calotype tasks list shows the newest.")
        attempts = await core.store.attempts(found.id)
        ids = [image.asset_id for image in found.result]
        ids += [one.asset_id for one in found.references if one.asset_id is not None]
        assets = {one: asset for one in ids if (asset := await core.store.asset(one)) is not None}
        account = (await _names(core))[found.account_id]
        webhook = await core.store.webhooks.of_task(found.id) if found.has_webhook else None
        if json:
            shown = document(found, account=account, attempts=attempts, assets=assets)
            show.json(shown | ({"webhook": _webhook(webhook)} if webhook else {}))
        else:
            _print_task(core, found, account=account, attempts=attempts, assets=assets)
            _print_webhook(webhook)

    session.with_core(context, body, make=False)


def _channel(core: "Core", channel_id: int) -> str:
    channel = core.router.get(channel_id)
    return channel.slug if channel else str(channel_id)


async def _names(core: "Core") -> dict[int, str]:
    return {account.id: account.name for account in await core.store.accounts()}


def _print_task(
    core: "Core",
    task: Task,
    *,
    account: str,
    attempts: Sequence[Attempt],
    assets: Mapping[int, Asset],
) -> None:
    channel = core.router.get(task.channel_id)
    root = session.assets_place(core.settings)
    lines = {
        "task": encode("task", task.id),
        "state": f"{task.state}, {task.progress} %",
        "account": account,
        "model": task.model,
        "prompt": task.request.prompt,
        "n": str(task.request.n),
        **{name: str(value) for name, value in task.request.parameters.items()},
        "channel": f"{channel.slug if channel else 'no longer configured'} ({task.channel_id})"
        + (", pinned by the client" if task.request.channel_id is not None else ""),
        "billing": f"{task.billing}: reserved {format_usd(task.reserved)}, "
        f"actual {format_usd(task.actual)}, released {format_usd(task.released)} USDC",
        "request id": task.request_id,
        "created": show.moment(task.created_at),
        "updated": show.moment(task.updated_at),
        "completed": show.moment(task.completed_at, none="not yet"),
        "took": _took(task),
        "claims": str(task.claim),
        "deadline": show.moment(task.deadline_at),
        "given up at": show.moment(task.abandon_at),
    }
    if task.error is not None:
        again = "again may help" if task.error.retryable else "again would fail again"
        lines["error"] = f"{task.error.message} ({task.error.code}; {again})"
    show.pairs(lines)
    for place, reference in enumerate(task.references, start=1):
        print(f"reference {place}: {show.plain(reference.url or 'an upload')}", end="")
        asset = assets.get(reference.asset_id or 0)
        print(f" → {root}/{asset.key} ({asset.width}x{asset.height})" if asset else "")
    for place, image in enumerate(task.result, start=1):
        asset = assets.get(image.asset_id)
        where = f"{root}/{asset.key}" if asset else "unknown"
        print(f"image {place}: {where} ({image.width}x{image.height}, {show.size(image.bytes)})")
    _print_attempts(core, attempts)


def _print_attempts(core: "Core", attempts: Sequence[Attempt]) -> None:
    print()
    if not attempts:
        print("Nothing was sent to an upstream.")
        return
    show.table(
        [
            "ATTEMPT",
            "CHANNEL",
            "STATE",
            "UPSTREAM ID",
            "STARTED",
            "FINISHED",
            "COST",
            "REASON",
            "DETAIL",
        ],
        [
            [
                str(attempt.number),
                _channel(core, attempt.channel_id),
                attempt.state,
                attempt.upstream_id or "",
                show.moment(attempt.started_at),
                show.moment(attempt.finished_at),
                ""
                if attempt.cost_micro_usdc is None
                else f"{format_usd(attempt.cost_micro_usdc)} USDC",
                attempt.resolution or attempt.fault or attempt.code or "",
                show.plain(attempt.detail or ""),
            ]
            for attempt in attempts
        ],
    )


def _print_webhook(webhook: Webhook | None) -> None:
    if webhook is None:
        return
    answered = "" if webhook.last_status is None else f", last answer {webhook.last_status}"
    again = "" if webhook.next_at is None else f", next at {show.moment(webhook.next_at)}"
    to = show.plain(webhook.url.partition("?")[0])
    print(f"\nwebhook: {webhook.state} ({webhook.event} to {to}, tries {webhook.attempts}", end="")
    print(f"{answered}{again})")


def _webhook(webhook: Webhook) -> dict[str, Any]:
    """Without the URL's query, which may hold a token."""
    return {
        "event": webhook.event,
        "url": webhook.url.partition("?")[0],
        "state": webhook.state,
        "attempts": webhook.attempts,
        "last_status": webhook.last_status,
        "next_attempt_at": show.seconds(webhook.next_at),
    }


def _took(task: Task) -> str:
    if task.completed_at is None:
        return ""
    return f"{(task.completed_at - task.created_at) / 1000:.1f} s"


def document(
    task: Task,
    *,
    account: str,
    attempts: Sequence[Attempt] | None = None,
    assets: Mapping[int, Asset] | None = None,
) -> dict[str, Any]:
    """A task as JSON: the names of the API, and what only the operator sees."""
    assets = assets or {}
    shown: dict[str, Any] = {
        "task_id": encode("task", task.id),
        "account": account,
        "state": task.state,
        "progress": task.progress,
        "model": task.model,
        "request": {
            "prompt": task.request.prompt,
            "n": task.request.n,
            **task.request.parameters,
            "channel_id": task.request.channel_id,
        },
        "references": [{"url": one.url, **_file(one.asset_id, assets)} for one in task.references],
        "result": [
            {
                "content_type": image.content_type,
                "width": image.width,
                "height": image.height,
                "bytes": image.bytes,
                **_file(image.asset_id, assets),
            }
            for image in task.result
        ],
        "error": task.error,
        "billing": {
            "status": task.billing,
            "reserve_amount_micro_usdc": task.reserved,
            "actual_amount_micro_usdc": task.actual,
            "released_amount_micro_usdc": task.released,
        },
        "request_id": task.request_id,
        "channel_id": task.channel_id,
        "claim": task.claim,
        "events": task.seq,
    }
    for name in ("deadline_at", "abandon_at", "created_at", "updated_at", "completed_at"):
        shown[name] = show.seconds(getattr(task, name))
    if attempts is not None:
        shown["attempts"] = [_attempt(attempt) for attempt in attempts]
    return shown


def _file(asset_id: int | None, assets: Mapping[int, Asset]) -> dict[str, str | None]:
    asset = None if asset_id is None else assets.get(asset_id)
    return {
        "asset_id": None if asset_id is None else encode("asset", asset_id),
        "key": None if asset is None else asset.key,
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "channel_id": attempt.channel_id,
        "state": attempt.state,
        "upstream_id": attempt.upstream_id,
        "started_at": show.seconds(attempt.started_at),
        "finished_at": show.seconds(attempt.finished_at),
        "cost_micro_usdc": attempt.cost_micro_usdc,
        "code": attempt.code,
        "fault": attempt.fault,
        "detail": attempt.detail,
        "resolved_at": show.seconds(attempt.resolved_at),
        "resolution": attempt.resolution,
    }
