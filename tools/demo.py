"""``make demo``: the whole job once, as a client would see it.

Starts a server on a free port with a fresh data folder, makes a key, has two pictures developed
(one from an uploaded reference, one from a reference by URL), downloads them, proves the ledger
and stops the server.
"""

import asyncio
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import aiohttp
from aiohttp import web
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

FOLDER: Final = Path(".demo")
CALOTYPE: Final = [sys.executable, "-m", "calotype"]
POLL_SECONDS: Final = 0.25

console = Console()


async def main() -> int:
    """Run the demo; 0 when everything that it shows is so."""
    began = time.monotonic()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    environment = {
        **os.environ,  # noqa: TID251 -- handed on to the server as it is
        "CALOTYPE_DATA_DIR": str(FOLDER / "data"),
        "CALOTYPE_PORT": "0",
        "CALOTYPE_REFERENCE_ALLOW_HOSTS": "127.0.0.1",
    }
    key = await command(environment, "keys", "create", "--name", "demo", "--credits", "10")
    async with server(environment) as url, aiohttp.ClientSession(url) as http:
        http.headers["Authorization"] = f"Bearer {key}"
        console.print(f"[bold]Calotype[/] listens on {url}; the demo account has 10 USDC.\n")
        first = await develop(
            http,
            title="nano-banana-pro, with an uploaded reference",
            form=form_with_upload(),
        )
        async with served(first) as reference_url:
            second = await develop(
                http,
                title="gpt-image-2, with a reference by URL",
                body={
                    "model": "gpt-image-2",
                    "prompt": "The same harbour in winter, first snow on the roofs",
                    "aspect_ratio": "16:9",
                    "resolution": "2K",
                    "image_input": [reference_url],
                    "response_format": "url",
                },
            )
        async with http.get("/v1/credits/balance") as response:
            balance = (await response.json())["balance_micro_usdc"]
    proof = await command(environment, "doctor")
    console.print(f"\n[dim]{proof}[/]\n")
    console.print(f"Balance after both: {balance / 1_000_000:.2f} USDC. The server has stopped.")
    for path in (first, second):
        console.print(f"  [bold green]{path}[/]")
    console.print(f"\n{NEXT_STEPS}\n[dim]{time.monotonic() - began:.1f} s in all[/]")
    return 0


NEXT_STEPS: Final = """[bold]Next[/]
  make serve                                        [dim]# on port 8080[/]
  .venv/bin/calotype keys create --name me --credits 10
  export CALOTYPE_API_KEY=ck_…                      [dim]# what that printed[/]
  .venv/bin/calotype generate "A lighthouse at dusk" \\
      --model nano-banana-pro -o out.png
  http://127.0.0.1:8080/console                     [dim]# sign in with that key[/]
  http://127.0.0.1:8080/docs                        [dim]# the API, readable[/]"""


def form_with_upload() -> aiohttp.FormData:
    """A multipart request as desktop clients send it."""
    picture = BytesIO()
    Image.linear_gradient("L").resize((640, 480)).save(picture, "PNG")
    form = aiohttp.FormData()
    form.add_field("model", "nano-banana-pro")
    form.add_field(
        "prompt", "A quiet harbour at dusk, small boats, warm windows, mist on the hills"
    )
    form.add_field("aspect_ratio", "3:2")
    form.add_field("response_format", "url")
    form.add_field("image", picture.getvalue(), filename="sketch.png", content_type="image/png")
    return form


async def develop(
    http: aiohttp.ClientSession,
    *,
    title: str,
    form: aiohttp.FormData | None = None,
    body: dict[str, Any] | None = None,
) -> Path:
    """Submit, follow to the end, download; returns the file."""
    began = time.monotonic()
    async with http.post("/v1/images/generations", data=form, json=body) as response:
        answer = await response.json()
        if response.status != 202:  # noqa: PLR2004 -- Accepted
            raise SystemExit(f"The server refused the request: {json.dumps(answer)}")
    console.print(
        f"[bold]{title}[/]\n  202 after {(time.monotonic() - began) * 1000:.0f} ms: "
        f"{answer['task_id']}"
    )
    task = await follow(http, answer["poll_url"])
    if task["state"] != "success":
        raise SystemExit(f"The task failed: {json.dumps(task['error'])}")
    image = task["result"]["data"][0]
    path = FOLDER / f"{task['task_id']}.{image['content_type'].removeprefix('image/')}"
    async with http.get(image["url"]) as response:
        path.write_bytes(await response.read())
    with Image.open(path) as opened:
        width, height = opened.size
    console.print(
        f"  {width}x{height}, {path.stat().st_size:,} bytes, "
        f"{task['billing']['actual_amount_micro_usdc'] / 1_000_000:.2f} USDC → {path}"
    )
    return path


async def follow(http: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    """Poll a task to its end with a progress bar."""
    columns = (TextColumn("  {task.description:<10}"), BarColumn(40), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("waiting", total=100)
        while True:
            async with http.get(url) as response:
                task: dict[str, Any] = await response.json()
            progress.update(bar, completed=task["progress"], description=task["state"])
            if task["state"] in {"success", "fail"}:
                return task
            await asyncio.sleep(POLL_SECONDS)


@asynccontextmanager
async def server(environment: dict[str, str]) -> AsyncIterator[str]:
    """A server process; gives its URL once it listens, and stops it cleanly at the end."""
    process = await asyncio.create_subprocess_exec(
        *CALOTYPE, "serve", env=environment, stdout=asyncio.subprocess.PIPE
    )
    if process.stdout is None:
        raise SystemExit("The server has no output.")
    line = (await process.stdout.readline()).decode()
    if "listens on" not in line:
        await process.wait()
        raise SystemExit("The server did not start; what it says stands above.")
    try:
        yield line.split("listens on ")[1].split()[0]
    finally:
        process.send_signal(signal.SIGTERM)
        status = await process.wait()
    if status != 0:
        raise SystemExit(f"The server ended with status {status}.")


@asynccontextmanager
async def served(path: Path) -> AsyncIterator[str]:
    """A file on a small web server of its own; gives its URL."""

    async def handle(_request: web.Request) -> web.FileResponse:
        return web.FileResponse(path)

    application = web.Application()
    application.router.add_get("/reference", handle)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}/reference"
    finally:
        await runner.cleanup()


async def command(environment: dict[str, str], *arguments: str) -> str:
    """Run a ``calotype`` command and return what it prints."""
    process = await asyncio.create_subprocess_exec(
        *CALOTYPE, *arguments, env=environment, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"calotype {arguments[0]} failed:\n{output.decode()}")
    return output.decode().strip()


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
