"""The guide to local pictures is run as it stands, with tiny weights in the place of real ones.

The hub is one on loopback that has them under the real name.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import aiohttp
import pytest
from PIL import Image

from acceptance import test_docs_examples as docs
from acceptance.conftest import Site
from calotype.core import build_core
from calotype.settings import Settings
from local.hub import Hub, running_hub
from local.weights import tiny

PAGE: Final = "docs/guides/local.md"
FILES: Final[list[tuple[str, str]]] = re.findall(
    r"<!-- file: (\S+) -->\n```toml\n(.*?)```",
    (docs.ROOT / PAGE).read_text(encoding="utf-8"),
    re.DOTALL,
)
CONFIGURATIONS: Final = [text for name, text in FILES if name == "calotype.toml"]
ATELIER: Final = next(each for each in CONFIGURATIONS if "local-atelier" in each)


def lay(folder: Path, configuration: str) -> Path:
    """One of the guide's configurations, with all of its other files."""
    for name, text in (*FILES, ("calotype.toml", configuration)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder / "calotype.toml"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """The folder of the guide, in which nothing is set but where things lie."""
    docs.settle(tmp_path)
    (tmp_path / "tmp").mkdir()
    places = {
        "CALOTYPE_CATALOG_DIR": str(tmp_path / "models"),
        "HF_HOME": str(tmp_path / "hf"),
        "OMP_NUM_THREADS": "1",
    }
    async with aiohttp.ClientSession() as http:
        made = Site(tmp_path, http, environment=places)
        try:
            yield made
        finally:
            made.end_all()


async def run(site: Site, scripts: list[str], **variables: str) -> list[str]:
    """Run blocks of the guide one after another in one shell; what each of them prints."""
    told = {
        **site.environment,
        "CALOTYPE_DATA_DIR": str(site.data),
        "CALOTYPE_BASE_URL": site.url,
        **variables,
    }
    place = docs.Site(site.url, site.root, key="")
    return await asyncio.to_thread(docs.run, place, scripts, **told)


async def ready(site: Site) -> None:
    """Wait until the weights are loaded, without any limit but the test's own."""
    while True:
        async with site.http.get(f"{site.url}/readyz") as answer:
            if answer.status == 200:
                return
        await asyncio.sleep(0.1)


def size(picture: Path) -> tuple[int, int]:
    with Image.open(picture) as image:
        return image.size


@pytest.mark.parametrize("number", range(len(CONFIGURATIONS)))
def test_each_configuration_of_the_guide_is_in_order(number: int, tmp_path: Path) -> None:
    file = lay(tmp_path, CONFIGURATIONS[number])
    places = {
        "CALOTYPE_CATALOG_DIR": str(tmp_path / "models"),
        "CALOTYPE_DATA_DIR": str(tmp_path),
    }
    channels = build_core(Settings.load(places, file)).router.channels
    assert {channel.provider for channel in channels} == {"diffusers", "sandbox"}


@pytest.mark.timeout(400)  # two engines and nine commands, each of which imports anew
async def test_the_guide_works_as_written(site: Site, weights_folder: Path) -> None:
    weights = tiny("sd", weights_folder)
    files = {
        str(file.relative_to(weights)): file.read_bytes()
        for file in weights.rglob("*")
        if file.is_file()
    }
    lay(site.root, CONFIGURATIONS[0])
    pull, check, *rest = docs.blocks(PAGE, "sh")
    async with running_hub(Hub(files, name="stabilityai/sd-turbo")) as hub:
        await run(site, [pull], HF_ENDPOINT=hub.url, HF_HUB_DISABLE_TELEMETRY="1")
    await run(site, [check])
    assert size(site.root / "local-check.png") == (512, 512)
    await site.serve()
    await ready(site)
    said, _, generated, edited, several = await run(site, rest)
    assert '"channels":"ok"' in said
    assert size(site.root / "heron.png") == (512, 512)
    assert generated.startswith("ink.png  704x384\n")
    assert edited.startswith("night.png  512x512\n")
    assert re.findall(r"^\S+\.png", several, re.MULTILINE) == [
        "four.png",
        "four-2.png",
        "four-3.png",
        "four-4.png",
    ]
    assert len({(site.root / name).read_bytes() for name in ("four.png", "four-2.png")}) == 2


async def test_weights_of_ones_own_are_drawn_with_as_the_guide_says(site: Site) -> None:
    (site.root / "weights").mkdir()
    tiny("sd", site.root / "weights").rename(site.root / "weights" / "atelier")
    lay(site.root, ATELIER)
    await site.fund()
    await site.serve()
    task = await site.submit("a heron", model="atelier-sd", aspect_ratio="3:2", seed=7)
    ended = await site.finished(task)
    assert ended["state"] == "success", ended
    assert ended["billing"]["actual_amount_micro_usdc"] == 0
    (image,) = ended["result"]["data"]
    assert (image["width"], image["height"]) == (768, 512)
