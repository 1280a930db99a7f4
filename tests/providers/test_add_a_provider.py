"""The guide's own provider, copied from its page and taken the whole way."""

import re
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

import calotype.providers
from calotype.settings import Settings
from harness import picture, running_server, serving

PAGE = Path(__file__).parents[2] / "docs/guides/add-a-provider.md"


def block(kind: str) -> str:
    (found,) = re.findall(
        rf"<!-- provider: {kind} -->\n```\w+\n(.*?)```", PAGE.read_text(), re.DOTALL
    )
    return str(found)


class Darkroom:
    """The upstream as the page describes it."""

    def __init__(self) -> None:
        self.jobs: list[dict[str, Any]] = []
        self.states = iter(["wet", "exposing", "dry"])

    async def create(self, request: web.Request) -> web.Response:
        if request.headers["Authorization"] != "Bearer a-key":
            return web.json_response({}, status=401)
        job = await request.json()
        if "forbidden" in job["prompt"]:
            return web.json_response({}, status=451)
        self.jobs.append(job)
        return web.json_response({"id": "job-7"}, status=201)

    async def read(self, request: web.Request) -> web.Response:
        state = next(self.states)
        document = {"state": state, "percent": 50}
        if state == "dry":
            document["print"] = f"{request.url.origin()}/print.png"
        return web.json_response(document)

    async def result(self, request: web.Request) -> web.Response:
        assert "Authorization" not in request.headers
        return web.Response(body=picture(), content_type="image/png")

    def running(self) -> AbstractAsyncContextManager[str]:
        app = web.Application()
        app.router.add_post("/jobs", self.create)
        app.router.add_get("/jobs/job-7", self.read)
        app.router.add_get("/print.png", self.result)
        return serving(app)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The page's files, where Python and the catalog find them."""
    package, catalog = tmp_path / "providers", tmp_path / "models"
    package.mkdir()
    (catalog / "upstreams").mkdir(parents=True)
    (package / "darkroom.py").write_text(block("python"))
    (catalog / "upstreams" / "darkroom.toml").write_text(block("toml"))
    monkeypatch.setattr(
        calotype.providers, "__path__", [*calotype.providers.__path__, str(package)]
    )
    yield tmp_path
    monkeypatch.delitem(__import__("sys").modules, "calotype.providers.darkroom", raising=False)


async def test_the_guides_provider_takes_a_task_the_whole_way(files: Path) -> None:
    upstream = Darkroom()
    async with upstream.running() as url:
        config = files / "calotype.toml"
        config.write_text(block("channel") + f'base_url = "{url}"\n')
        settings = Settings.load({"DARKROOM_KEY": "a-key"}, config)
        async with running_server(
            files / "data", channels=settings.channels, catalog_dir=files / "models"
        ) as server:
            asked = {"model": "flux-2-pro", "aspect_ratio": "16:9", "output_format": "png"}
            accepted = await server.accepted(prompt="a lighthouse", **asked)
            task = await server.finished(accepted["task_id"])
            assert task["state"] == "success", task
            assert task["channel"]["slug"] == "darkroom-main"
            assert upstream.jobs == [
                {
                    "model": "darkroom/flux",
                    "prompt": "a lighthouse",
                    "width": 1360,
                    "height": 768,
                    "format": "png",
                }
            ]
            refused = await server.accepted(prompt="something forbidden", **asked)
            error = (await server.finished(refused["task_id"]))["error"]
            assert error["code"] == "content_policy_violation"
            seeded = await server.submit(prompt="a lighthouse", seed=7, **asked)
            seeded.assert_refused(400, "invalid_parameter")


def test_the_guides_provider_is_short() -> None:
    assert len(block("python").splitlines()) <= 60
