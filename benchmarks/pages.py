"""``make bench ARGS=--console``: how long the server takes for each page of the console.

It follows the links and the pieces that htmx asks for, one page of each kind, over a database with
a million tasks; one request at a time, so that a figure is the page's own.
"""

import html
import re
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Final
from urllib.parse import parse_qsl, urlsplit

import aiohttp

import old_tasks
from servers import CALOTYPE, Process, environment, run, started
from table import Rows

GOAL_MS: Final = 100
TIMES: Final = 15
TASKS: Final = 1_000_000
ACCOUNTS: Final = ("studio", "press", "museum")
SEARCHES: Final = (
    "?text=observatory",
    "?text=nobody+asked+for+this",
    "?model=recraft-v4.1",
    "?from=2026-03-01&to=2026-03-02",
    "?metadata=order%3D700003",
    "?metadata=shop%3Dnorth&model=gpt-image-2",
    "?metadata=shop%3Dnorth&text=nobody+asked+for+this",
)
STARTS: Final = {
    "account": (
        "/console/playground",
        *(f"/console/{page}{search}" for page in ("gallery", "tasks") for search in SEARCHES),
        "/console/tasks?state=fail&text=nobody+asked+for+this",
        "/console/tasks?state=generating",
        "/console/usage?range=90d",
        "/console/usage?since=2025-12-01&until=2026-11-01",
    ),
    "admin": (
        "/console/operator",
        "/console/operator/usage?range=90d",
        *(
            f"/console/operator/tasks?{asked}"
            for asked in ("state=fail", "model=recraft-v4.1", "account=studio&state=fail")
        ),
    ),
}
_LINK: Final = re.compile(r'(href|hx-get)="(/console[^"#]*)')
_ID: Final = re.compile(
    r"(task|asset|key|page)_[0-9a-z]{13}|(?<=/)\d+|((?<=/catalog/)|(?<=/channels/))[^/?]+"
)
_NO_PAGES: Final = re.compile(r"/console/(static|images|sign-|enter|live)|/live\b|\.csv|console$")


async def embedded(folder: Path, rows: Rows) -> None:
    """Every page on SQLite."""
    settings = environment(CALOTYPE_DATA_DIR=str(folder))
    keys = [await _key(settings, account) for account in ACCOUNTS]
    await old_tasks.fill_sqlite(folder / "calotype.db", TASKS)
    await measure(settings, keys[0], rows, where="")


async def shared(folder: Path, rows: Rows) -> None:
    """Every page on PostgreSQL."""
    from postgres import running_postgres

    with (
        tempfile.TemporaryDirectory(prefix="calotype-pg-") as data,
        running_postgres(Path(data), "shared_buffers=512MB") as postgres,
    ):
        url = postgres.url()
        settings = environment(CALOTYPE_DATA_DIR=str(folder), CALOTYPE_DATABASE_URL=url)
        await run(settings, "migrate")
        keys = [await _key(settings, account) for account in ACCOUNTS]
        await old_tasks.fill_postgres(url, TASKS)
        await measure(settings, keys[0], rows, where="PostgreSQL: ")


async def measure(settings: dict[str, str], key: str, rows: Rows, *, where: str) -> None:
    """Every page of a database that is filled."""
    password = secrets.token_hex(16)
    ours = {**settings, "CALOTYPE_PORT": "0", "CALOTYPE_ADMIN_PASSWORD": password}
    async with started(*CALOTYPE, "serve", "--no-worker", environment=ours) as server:
        for role, said in (
            ("account", {"way": "key", "key": key}),
            ("admin", {"way": "password", "password": password}),
        ):
            async with _signed_in(server, said) as http:
                await _walk(http, server, STARTS[role], rows, where=where)


async def _walk(
    http: aiohttp.ClientSession, server: Process, starts: Sequence[str], rows: Rows, *, where: str
) -> None:
    """Every kind of page that links lead to."""
    waiting = [(path, False) for path in starts]
    seen = set[str]()
    while waiting:
        path, is_piece = waiting.pop(0)
        status, body, times = 0, "", list[float]()
        headers = {"HX-Request": "true"} if is_piece else {}
        cpu = server.cpu_seconds()
        for _ in range(TIMES + 1):
            began = time.perf_counter()
            async with http.get(path, headers=headers, allow_redirects=False) as answer:
                status, body = answer.status, await answer.text()
                times.append((time.perf_counter() - began) * 1000)
        cpu = (server.cpu_seconds() - cpu) / len(times) * 1000
        name = where + _shown(path) + (" (piece)" if is_piece else "")
        if status != 200:
            rows.add(name, f"answered with {status}", goal="")
            continue
        _tell(rows, name, times, f"CPU {cpu:.0f} ms, {len(body) / 1024:.0f} KiB")
        seen.add(path)
        for name, found in _LINK.findall(body):
            link = (html.unescape(found), name == "hx-get")
            kind = _kind(*link)
            if kind not in seen and link[0] not in seen and not _NO_PAGES.search(link[0]):
                seen.add(kind)
                waiting.append(link)


def _tell(rows: Rows, path: str, times: Sequence[float], note: str) -> None:
    first, *rest = times
    slow = "over; " if median(rest) > GOAL_MS else ""
    rows.add(
        path,
        f"p50 {median(rest):.0f} / max {max(rest):.0f} ms",
        goal=f"≤ {GOAL_MS} ms",
        note=f"{slow}first {first:.0f} ms, {note}",
    )


def _kind(link: str, is_piece: bool) -> str:  # noqa: FBT001 -- one of a link's two parts
    """What pages of one kind share: the path without ids, and the names of what is asked for."""
    parts = urlsplit(link)
    names = sorted({name for name, _ in parse_qsl(parts.query)})
    return f"{is_piece} {_shown(parts.path)} {names}"


def _shown(path: str) -> str:
    return _ID.sub("…", path)


@asynccontextmanager
async def _signed_in(server: Process, said: dict[str, str]) -> AsyncIterator[aiohttp.ClientSession]:
    """A browser's session."""
    url = f"http://127.0.0.1:{server.port}"
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(url, cookie_jar=jar) as http:
        async with http.get("/console/sign-in") as page:
            token = re.search(r'name="csrf" value="(\w+)"', await page.text())
        form = {"csrf": token[1] if token else "", **said}
        async with http.post("/console/sign-in", data=form, allow_redirects=False) as answer:
            if answer.status != 303:
                raise SystemExit(f"not signed in: {await answer.text()}")
        yield http


async def _key(settings: dict[str, str], account: str) -> str:
    options = ("--name", account, "--credits", "1000000")
    return (await run(settings, "keys", "create", *options)).strip()
