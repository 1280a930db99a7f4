"""``calotype serve`` with its images in S3: downloads, refusals at start, kills in mid-upload."""

import asyncio
from io import BytesIO

import aiohttp
import obstore
import pytest

from acceptance.conftest import Site
from calotype.assets.cloud import PART
from faulty import FaultyWay, faulty_way
from harness import FORM, form, noise
from s3 import S3Server

LARGE = noise(2400)
"""A PNG of several parts."""
ORDER = {"Idempotency-Key": "only-once"}


def held(s3: S3Server, prefix: str) -> dict[str, int]:
    """Key → bytes of every image under a prefix."""
    every = [each for page in obstore.list(s3.client(prefix)) for each in page]
    return {each["path"]: each["size"] for each in every if "/" in each["path"]}


def use(site: Site, s3: S3Server, prefix: str, *, endpoint: str = "") -> None:
    site.environment |= {
        **s3.variables,
        "CALOTYPE_ASSETS_URL": s3.url(prefix=prefix, endpoint=endpoint),
        "CALOTYPE_SANDBOX_SECONDS": "0",
    }


async def edit(site: Site) -> str:
    """The id of a task with ``LARGE`` as its reference."""
    parts = ("image", LARGE, "a.png"), ("model", "gpt-image-2"), ("prompt", "a lighthouse")
    headers = {**FORM, **ORDER, "Authorization": f"Bearer {site.key}"}
    url = f"{site.url}/v1/images/generations"
    async with site.http.post(url, data=BytesIO(form(*parts)), headers=headers) as answer:
        assert answer.status == 202, await answer.text()
        task_id: str = (await answer.json())["task_id"]
        return task_id


async def stalled(way: FaultyWay, after: int) -> None:
    way.stall_after = after
    async with asyncio.timeout(100):
        await way.stalled.wait()


@pytest.mark.parametrize("delivery", ["redirect", "proxy"])
async def test_an_image_is_made_kept_in_s3_and_downloaded(
    site: Site, s3: S3Server, delivery: str
) -> None:
    prefix = f"made-{delivery}"
    use(site, s3, prefix)
    site.environment["CALOTYPE_ASSET_DELIVERY"] = delivery
    await site.fund()
    server = await site.serve()
    task = await site.finished(await site.submit("a lighthouse"))
    (image,) = task["result"]["data"]
    async with site.http.get(image["url"], allow_redirects=False) as answer:
        assert answer.status == (302 if delivery == "redirect" else 200)
    assert len(await site.download(image["url"])) == image["bytes"]
    assert list(held(s3, prefix).values()) == [image["bytes"]]
    assert await server.terminate() == 0


async def test_a_kill_in_the_middle_of_an_upload_leaves_no_task_and_no_image(
    site: Site, s3: S3Server
) -> None:
    async with faulty_way(s3.port) as way:
        use(site, s3, "killed-upload", endpoint=way.endpoint)
        await site.fund()
        server = await site.serve()
        sending = asyncio.create_task(edit(site))
        await stalled(way, PART // 2)
        await server.kill()
        with pytest.raises(aiohttp.ClientError):
            await sending
        assert site.count("1") == 0
        assert [key for key in held(s3, "killed-upload") if key.startswith("references/")] == []
    use(site, s3, "killed-upload")
    await site.serve()
    task = await site.finished(await edit(site))
    assert task["state"] == "success"
    kept = held(s3, "killed-upload")
    assert len([key for key in kept if key.startswith("references/")]) == 1
    assert len([key for key in kept if key.startswith("results/")]) == 1
    staged = site.data / "staging"
    assert [path for path in staged.rglob("*") if path.is_file() and path.name != "lock"] == []
    assert await site.proved() == []


async def test_a_kill_while_a_result_is_sent_loses_nothing_and_keeps_nothing_twice(
    site: Site, s3: S3Server
) -> None:
    async with faulty_way(s3.port) as way:
        use(site, s3, "killed-result", endpoint=way.endpoint)
        await site.fund()
        server = await site.serve()
        way.stall_after = 3000  # a picture is larger, and what else is sent is smaller
        task_id = await site.submit("a lighthouse")
        await stalled(way, 3000)
        await server.kill()
        assert held(s3, "killed-result") == {}
    use(site, s3, "killed-result")
    await site.serve()
    task = await site.finished(task_id)
    assert task["state"] == "success"
    assert list(held(s3, "killed-result").values()) == [task["result"]["data"][0]["bytes"]]
    assert site.count("1", "assets") == 1
    assert await site.proved() == []


async def test_a_wrong_secret_is_refused_at_start(site: Site, s3: S3Server) -> None:
    use(site, s3, "refused")
    site.environment["AWS_SECRET_ACCESS_KEY"] = "another one"
    assert "CALOTYPE_ASSETS_URL: s3://images/refused: the secret key is wrong" in (
        await site.refused("serve", "--port", "0")
    )


async def test_a_store_that_is_away_lets_the_server_start_and_be_not_ready(
    site: Site, s3: S3Server
) -> None:
    async with faulty_way(s3.port) as way:
        way.down = True
        use(site, s3, "away", endpoint=way.endpoint)
        await site.fund()
        await site.serve()
        async with site.http.get(f"{site.url}/readyz") as answer:
            assert answer.status == 503
        way.down = False
        await ready(site)


async def ready(site: Site) -> None:
    async with asyncio.timeout(100):
        while True:
            async with site.http.get(f"{site.url}/readyz") as answer:
                if answer.status == 200:
                    return
            await asyncio.sleep(0.1)
