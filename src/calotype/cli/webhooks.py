"""``calotype webhooks``: an account's webhooks over the API, and a receiver to try them with."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from calotype.cli import account, show
from calotype.cli.faults import CommandFault
from calotype.cli.order import wrong

if TYPE_CHECKING:  # importing it takes longer than starting
    from calotype.client import WebhookSettings

app = typer.Typer(
    no_args_is_help=True,
    help="Webhooks of your account, over the API: it takes a server and a key.",
)

_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command(name="show")
def show_settings(
    *,
    base_url: account.BaseUrl = account.BASE_URL,
    api_key: account.ApiKey = "",
    json: _Json = False,
) -> None:
    """Show where the account's webhooks go, and the secrets that they are signed with."""
    with account.told(), account.client(base_url, api_key) as client:
        _tell(client.webhook_settings(), json=json)


@app.command(name="set")
def set_url(
    url: Annotated[
        str | None,
        typer.Argument(metavar="URL", help="Where every task's end is told.", show_default=False),
    ] = None,
    *,
    off: Annotated[
        bool, typer.Option("--off", help="Tell only those that a request names by callback_url.")
    ] = False,
    base_url: account.BaseUrl = account.BASE_URL,
    api_key: account.ApiKey = "",
    json: _Json = False,
) -> None:
    """Set where webhooks go of tasks that name no callback_url of their own.

    Setting a URL that was disabled, as it had answered 410, enables it again.
    """
    if (url is None) != off:
        raise wrong("Give a URL, or --off.")
    with account.told(), account.client(base_url, api_key) as client:
        _tell(client.set_webhook(url), json=json)


@app.command()
def rotate(
    *,
    overlap_seconds: Annotated[
        int,
        typer.Option(
            min=0, max=604_800, help="For so long the old secret signs beside the new one."
        ),
    ] = 86_400,
    base_url: account.BaseUrl = account.BASE_URL,
    api_key: account.ApiKey = "",
    json: _Json = False,
) -> None:
    """Make a new secret; for a while webhooks are signed with both."""
    with account.told(), account.client(base_url, api_key) as client:
        _tell(client.rotate_webhook_secret(overlap_seconds), json=json)


@app.command()
def deliveries(
    *,
    state: Annotated[
        str | None,
        typer.Option(help="Only those that are pending, delivered, failed or disabled."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many.")] = 20,
    base_url: account.BaseUrl = account.BASE_URL,
    api_key: account.ApiKey = "",
    json: _Json = False,
) -> None:
    """List the newest webhooks, newest first, with how their delivery goes."""
    with account.told(), account.client(base_url, api_key) as client:
        found = client.webhook_deliveries(state=state, limit=limit)
    if json:
        show.json(found)
        return
    if not found:
        show.note("There are no such deliveries.")
        return
    show.table(
        ["TASK", "EVENT", "STATE", "ATTEMPTS", "STATUS", "URL"],
        [
            [
                _cell(one, name)
                for name in ("task_id", "event", "state", "attempts", "last_status", "url")
            ]
            for one in found
        ],
        right=["ATTEMPTS", "STATUS"],
    )


@app.command()
def redeliver(
    task: account.TaskId,
    *,
    base_url: account.BaseUrl = account.BASE_URL,
    api_key: account.ApiKey = "",
    json: _Json = False,
) -> None:
    """Have a task's webhook sent again."""
    with account.told(), account.client(base_url, api_key) as client:
        found = client.redeliver(task)
    if json:
        show.json(found)
    else:
        print(show.plain(f"{task}  {_cell(found, 'state')}"))


@app.command()
def listen(
    *,
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port to listen on; 0 takes a free one.")
    ] = 0,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    secret: Annotated[
        list[str] | None,
        typer.Option(
            metavar="whsec_…",
            help="What webhooks are signed with; repeat it for more.",
            show_default="asked of the server",
        ),
    ] = None,
    forward: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Send good ones on to your own receiver, and answer as it does."
        ),
    ] = None,
    status: Annotated[
        int | None,
        typer.Option(min=200, max=599, help="Answer good ones with this.", show_default="204"),
    ] = None,
    base_url: account.BaseUrl = account.BASE_URL,
    api_key: account.ApiKey = "",
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object for each webhook.")
    ] = False,
) -> None:
    """Receive webhooks on this machine: verify, print and answer each, until Ctrl-C.

    Says on stderr the URL to give as callback_url. What is not signed with the secret, or not
    just now, gets a 401 and is told with why.
    """
    if forward is not None and status is not None:
        raise wrong("--status: with --forward the answer is that of your own receiver.")
    if forward is not None:
        _check_forward(forward)
    secrets = secret or _secrets(base_url, api_key)

    async def asked() -> list[str]:
        async with account.async_client(base_url, api_key, note=show.note) as client:
            return [one.secret for one in (await client.webhook_settings()).secrets]

    from calotype.cli import listen as receiving

    receiving.listen(
        receiving.Reception(
            secrets=secrets,
            ask=None if secret else asked,
            host=host,
            port=port,
            status=status or 204,
            forward=forward,
            as_json=json,
        )
    )


def _check_forward(url: str) -> None:
    try:
        split = urlsplit(url)
        good = split.scheme in {"http", "https"} and split.hostname and split.port != 0
    except ValueError:
        good = False
    if not good:
        raise wrong(f"--forward '{url}': write http:// or https:// and the host.")


def _secrets(base_url: str, api_key: str) -> list[str]:
    if not api_key.strip():
        raise wrong(
            "There is no secret: give --secret whsec_…, or CALOTYPE_API_KEY to ask the server "
            "for that of its account."
        )
    with account.told(), account.client(base_url, api_key) as client:
        found = [one.secret for one in client.webhook_settings().secrets]
    if not found:
        raise CommandFault("The account has no webhook secret; calotype webhooks rotate makes one.")
    return found


def _tell(settings: "WebhookSettings", *, json: bool) -> None:
    if json:
        show.json(settings)
        return
    show.pairs({"url": settings.url or "none; only where a request names a callback_url"})
    for one in settings.secrets:
        until = None if one.expires_at is None else one.expires_at * 1000
        ends = f"until {show.moment(until)}" if until is not None else ""
        print(f"secret  {show.plain(one.secret)}  {ends}".rstrip())
    for url in settings.disabled_urls:
        print(f"disabled  {show.plain(url)}")


def _cell(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name)
    return "" if value is None else str(len(value) if isinstance(value, list) else value)
