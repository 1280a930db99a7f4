"""Take the screenshots of ``docs/guides/console.md`` anew, from a server that has worked a little.

Run it with ``.venv/bin/python tools/console_shots.py``; it needs Chromium on the PATH and writes
``docs/images/console-*.webp``.
"""

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, Final, Literal

import aiohttp
from PIL import Image
from playwright.async_api import Browser, Page, async_playwright

IMAGES: Final = Path(__file__).parent.parent / "docs" / "images"
CALOTYPE: Final = [sys.executable, "-m", "calotype"]
PASSWORD: Final = "only for these pictures"  # noqa: S105 -- of a server that lives a minute
WIDE, NARROW = (1280, 860), (390, 844)
QUALITY: Final = 72

ORDERS: Final[list[dict[str, Any]]] = [
    {"model": "gpt-image-2", "prompt": "A lighthouse at dusk, calm sea", "aspect_ratio": "16:9"},
    {"model": "nano-banana-pro", "prompt": "Pressed ferns on paper", "aspect_ratio": "3:4"},
    {"model": "gpt-image-2", "prompt": "A harbour in winter, first snow", "aspect_ratio": "4:3"},
    {"model": "nano-banana-pro", "prompt": "Star chart with brass rings", "aspect_ratio": "1:1"},
    {"model": "recraft-v4.1", "prompt": "Three small boats in the mist", "n": 2},
    {"model": "nano-banana-pro", "prompt": "Mountains before a storm", "aspect_ratio": "21:9"},
    {"model": "gpt-image-2", "prompt": "sandbox:refuse A portrait of nobody"},
    {"model": "gpt-image-2", "prompt": "An orchard in spring light", "aspect_ratio": "3:4"},
    {"model": "nano-banana-pro", "prompt": "Paper moon over a quiet town", "aspect_ratio": "16:9"},
    {"model": "gpt-image-2", "prompt": "Reeds at the edge of a lake", "aspect_ratio": "1:1"},
]


async def main() -> None:
    """Everything, from an empty folder to the pictures."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            "PATH": os.environ["PATH"],  # noqa: TID251 -- of this tool
            "CALOTYPE_DATA_DIR": folder,
            "CALOTYPE_PORT": "0",
            "CALOTYPE_SANDBOX_SECONDS": "1",
            "CALOTYPE_ADMIN_PASSWORD": PASSWORD,
        }
        key = await _command(environment, "keys", "create", "--name", "studio", "--credits", "25")
        limited = ["--account", "studio", "--model", "gpt-image-2", "--per-day", "5"]
        await _command(environment, "keys", "create", "--name", "website", *limited)
        async with _server(environment) as url:
            await _work(url, key)
            await _shoot(url, key)


async def _work(url: str, key: str) -> None:
    async with aiohttp.ClientSession(url, headers={"Authorization": f"Bearer {key}"}) as http:
        for order in ORDERS:
            async with http.post("/v1/images/generations", json=order) as response:
                task = (await response.json())["task_id"]
            while True:
                async with http.get(f"/v1/tasks/{task}?wait=60") as response:
                    if "completed_at" in await response.json():
                        break


async def _shoot(url: str, key: str) -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        async with _signed_in(browser, url, key) as page:
            await _play(page)
            await _show(page, "gallery", "/console/gallery")
            await _show(page, "keys", "/console/keys")
            await _show(page, "usage", "/console/usage")
        async with _signed_in(browser, url, key, theme="dark") as page:
            await page.goto("/console/gallery")
            await page.locator("a:has(img)").nth(1).click()
            await _save(page, "task")
        async with _signed_in(browser, url, key, theme="dark", size=NARROW) as page:
            await _show(page, "tasks", "/console/tasks")
        async with _signed_in(browser, url, None) as page:
            await _show(page, "operator", "/console/operator")
            await _show(page, "channels", "/console/operator/channels")
        await browser.close()


async def _play(page: Page) -> None:
    """The playground with a picture of its own."""
    await page.goto("/console/playground?model=nano-banana-pro")
    await page.get_by_label("Prompt").fill("A paper boat on a still pond at first light")
    await page.get_by_role("button", name="Generate").click()
    await page.get_by_text("Download").first.wait_for()
    await page.evaluate("scrollTo(0, 0)")
    await _save(page, "playground")


async def _show(page: Page, name: str, path: str) -> None:
    await page.goto(path)
    await _save(page, name)


@asynccontextmanager
async def _signed_in(
    browser: Browser,
    url: str,
    key: str | None,
    *,
    theme: Literal["light", "dark"] = "light",
    size: tuple[int, int] = WIDE,
) -> AsyncIterator[Page]:
    """A page of a user, or of the operator without a key."""
    context = await browser.new_context(
        base_url=url, color_scheme=theme, viewport={"width": size[0], "height": size[1]}
    )
    page = await context.new_page()
    await page.goto("/console/sign-in")
    if key is None:
        await page.get_by_text("For the operator").click()
    field = page.locator("#password" if key is None else "#key")
    await field.fill(PASSWORD if key is None else key)
    await field.press("Enter")
    await page.wait_for_url(lambda where: "sign-in" not in where)
    yield page
    await context.close()


async def _save(page: Page, name: str) -> None:
    await page.wait_for_load_state("load")
    await page.evaluate("Promise.all([...document.images].map((image) => image.decode()))")
    await page.evaluate("document.fonts.ready")
    shot = Image.open(BytesIO(await page.screenshot()))
    shot.save(IMAGES / f"console-{name}.webp", quality=QUALITY, method=6)


async def _command(environment: dict[str, str], *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *CALOTYPE, *arguments, env=environment, stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await process.communicate()
    return printed.decode().strip()


@asynccontextmanager
async def _server(environment: dict[str, str]) -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        *CALOTYPE, "serve", env=environment, stdout=asyncio.subprocess.PIPE
    )
    try:
        while process.stdout and (line := (await process.stdout.readline()).decode()):
            if "http://" in line:
                yield line[line.index("http://") :].split()[0].rstrip(".,;")
                break
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()


if __name__ == "__main__":
    asyncio.run(main())
