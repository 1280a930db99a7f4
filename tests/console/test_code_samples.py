"""The request as code, run literally: each way gets a picture from the server."""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from html import unescape
from pathlib import Path

import pytest
import pytest_asyncio
from PIL import Image

from calotype.console.code_samples import Wanted, curl, openai, python, samples
from console.tabs import Tab
from harness import OUR_CODE, Server, picture, running_server

LIVE = pytest.mark.asyncio(loop_scope="module")
HOSTILE = 'it\'s "a" $HOME `id` \\n @x {{ 7 }}\n<second> line ☃'
NAMES = ("curl", "Python", "OpenAI SDK")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """A server whose sandbox answers at once."""
    async with running_server(tmp_path_factory.mktemp("data"), behind_proxy=True) as running:
        yield running


async def shown(site: Server, **fields: str) -> list[str]:
    """The codes that the playground shows for a request."""
    async with Tab(site) as tab:
        await tab.sign_in()
        token = await tab.token("/console/playground")
        page = await tab.post(
            "/console/playground/form", {"HX-Request": "true", "X-CSRF-Token": token}, **fields
        )
    found = re.findall(r'<code id="as-code-text-\d">(.*?)</code>', page.body.decode(), re.DOTALL)
    return [unescape(code) for code in found]


async def run(site: Server, code: str, folder: Path) -> None:
    """A code as its reader runs it, in a folder of their own."""
    program = (
        ["bash", "-euo", "pipefail", "-c"] if code.startswith("curl") else [sys.executable, "-c"]
    )
    environment = {"PATH": os.defpath, "LANG": "C.UTF-8", "CALOTYPE_API_KEY": site.key, **OUR_CODE}
    process = await asyncio.create_subprocess_exec(
        *program,
        code,
        cwd=folder,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await process.communicate()
    assert process.returncode == 0, (code, told.decode())


def pictures(folder: Path) -> list[Path]:
    """What was downloaded into a folder."""
    return list(folder.glob("picture*.png"))


async def last_request(site: Server) -> dict[str, object]:
    """What the newest task was asked for."""
    reply = await site.call("GET", "/v1/tasks?limit=1")
    request: dict[str, object] = reply.json["data"][0]["request"]
    return request


@LIVE
@pytest.mark.parametrize("which", range(3), ids=NAMES)
async def test_a_request_in_every_way_gets_its_picture(
    site: Server, tmp_path: Path, which: int
) -> None:
    fields = {"model": "gpt-image-2", "prompt": HOSTILE, "aspect_ratio": "16:9"}
    codes = await shown(site, **fields, metadata="order = 73 ' 91", deadline_seconds="300")
    await run(site, codes[which], tmp_path)
    (made,) = pictures(tmp_path)
    with Image.open(made) as image:
        assert image.width > image.height
    request = await last_request(site)
    assert (request["prompt"], request["deadline_seconds"]) == (HOSTILE, 300)
    assert site.key not in "".join(codes)


@LIVE
@pytest.mark.parametrize("which", range(3), ids=NAMES)
async def test_several_pictures_from_files_are_got_in_every_way(
    site: Server, tmp_path: Path, which: int
) -> None:
    fields = {"model": "gpt-image-2.5-flare", "prompt": HOSTILE, "n": "2"}
    codes = await shown(site, **fields, **{"ask:uploads": "2", "metadata": "order=7391"})
    for number, colour in ((1, "red"), (2, "blue")):
        (tmp_path / f"reference-{number}.png").write_bytes(picture(colour=colour))
    await run(site, codes[which], tmp_path)
    for made in (found := pictures(tmp_path)):
        with Image.open(made) as image:
            image.verify()
    assert len(found) == 2
    references = (await last_request(site))["image_input"]
    assert isinstance(references, list)
    assert len(references) == 2


def test_references_by_url_stand_in_the_request() -> None:
    wanted = Wanted(
        "https://pictures.test",
        {"model": "m", "prompt": "p", "raw": True, "guidance": 2.5},
        urls=["https://example.com/a.png?b='c'"],
    )
    assert '"image_input": [' in curl(wanted)
    assert """references=["https://example.com/a.png?b='c'"]""" in python(wanted)
    assert '"raw": True, "guidance": 2.5, "image_input": [' in openai(wanted)
    for name, code in samples(wanted):
        if name != "curl":
            compile(code, name, "exec")


def test_files_and_urls_together_are_what_openais_client_cannot_say() -> None:
    wanted = Wanted(
        "https://pictures.test",
        {"model": "m", "prompt": "p"},
        files=["a.png"],
        urls=["https://example.com/b.png"],
    )
    assert "sends references as files" in openai(wanted)
    assert 'references=[Path("a.png"), "https://example.com/b.png"]' in python(wanted)
    assert "-F image=@a.png" in curl(wanted)
