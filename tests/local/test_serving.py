"""A server with channels of local pictures, from the request to the image, on tiny weights."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from acceptance.conftest import Site, eventually
from local.engines import engines_of, has_torch
from local.weights import tiny

CHANNEL = """
[[channels]]
id = {id}
slug = "local-{id}"
name = "Local"
provider = "diffusers"
models = ["{model}"]
options = {{ weights = "{weights}", device = "cpu" }}
"""


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "catalog").mkdir()
    said = [
        CHANNEL.format(id=id_, model=model, weights=tiny(kind, tmp_path))
        for id_, model, kind in ((10, "sd-turbo", "sd"), (11, "sdxl-turbo", "sdxl"))
    ]
    (tmp_path / "calotype.toml").write_text("".join(said))
    async with aiohttp.ClientSession() as http:
        made = Site(tmp_path, http, environment={"OMP_NUM_THREADS": "1"})
        try:
            yield made
        finally:
            for each in made.started:
                each.process.kill()
                each.process.wait()


async def ask(site: Site, path: str, **body: Any) -> Any:
    method = "POST" if body else "GET"
    headers = {"Authorization": f"Bearer {site.key}"}
    async with site.http.request(
        method, site.url + path, json=body or None, headers=headers
    ) as answer:
        return await answer.json()


async def developed(site: Site, task: str) -> Any:
    while (found := await ask(site, f"/v1/tasks/{task}"))["state"] not in {"success", "fail"}:
        await asyncio.sleep(0.05)
    return found


async def test_a_task_is_drawn_also_when_its_engine_is_killed(site: Site) -> None:
    await site.fund()
    server = await site.serve()
    while (await ask(site, "/readyz")).get("status") != "ready":
        await asyncio.sleep(0.05)
    listed = {each["id"] for each in (await ask(site, "/v1/models"))["data"]}
    assert {"sd-turbo", "sdxl-turbo"} <= listed
    assert not {"qwen-image", "z-image-turbo"} & listed
    drawing = engines_of(server.process.pid)
    assert len(drawing) == 2
    assert all(has_torch(each) for each in drawing)
    assert not has_torch(server.process.pid)
    sent = [
        (await ask(site, "/v1/images/generations", model=model, prompt="a fern", steps=4))
        for model in ("sd-turbo", "sdxl-turbo")
    ]
    for each in drawing:
        os.kill(each, signal.SIGKILL)
    for one in sent:
        task = await developed(site, one["task_id"])
        assert task["state"] == "success", task
        (image,) = task["result"]["data"]
        assert (image["width"], image["height"]) == (512, 512)
    assert not drawing & engines_of(server.process.pid)
    settings = site.root / "calotype.toml"
    settings.write_text(
        settings.read_text().replace('device = "cpu"', 'device = "cpu", batch = "2"')
    )
    server.process.send_signal(signal.SIGHUP)
    await eventually(lambda: "channels in force" in server.stderr, "the channels are changed")
    assert (await ask(site, "/readyz"))["status"] == "ready"  # though others load their weights
    await server.terminate()
    await eventually(lambda: not list((site.root / "tmp").glob("calotype-diffusers-*")), "no files")
