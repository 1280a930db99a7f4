"""The gallery, and the small copies that it is made of."""

import html
import re
from collections.abc import AsyncIterator
from io import BytesIO

import msgspec
import pytest
import pytest_asyncio
from PIL import Image

from calotype.console.pages.gallery import LIMIT
from calotype.domain.ids import decode
from calotype.domain.task import Event
from calotype.store.sqlite import SqliteStore
from calotype.store.walking import Gallery
from conformance.tasks import NOW, PRICE, image, new_task, taken
from console.screens import EVERY_LOOK, Opens, Theme
from console.tabs import Tab
from harness import Server, running_server

pytestmark = pytest.mark.asyncio(loop_scope="module")
GALLERY = "/console/gallery"
MANY = "recraft-v4.1"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def idle(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """A server that develops nothing."""
    data = tmp_path_factory.mktemp("idle")
    async with running_server(data, behind_proxy=True, with_worker=False) as running:
        yield running


async def made(site: Server, prompt: str = "a lighthouse", **fields: object) -> dict[str, object]:
    """A task that succeeded."""
    task = await site.outcome(prompt, **fields)
    assert task["state"] == "success", task
    return task


def images(body: bytes) -> list[str]:
    """The pictures of a page, as URLs without their width."""
    return re.findall(r'<img src="(/console/images/\w+)/640\.webp"', body.decode())


async def test_a_small_copy_is_made_once_and_kept_by_the_browser(site: Server) -> None:
    owner = await site.for_account()
    async with Tab(owner) as tab:
        await tab.sign_in()
        await made(owner)
        (image,) = images((await tab.get(GALLERY)).body)
        first = await tab.get(f"{image}/160.webp")
        assert (first.status, first.headers["content-type"]) == (200, "image/webp")
        assert Image.open(BytesIO(first.body)).width == 160
        assert first.headers["cache-control"] == "private, max-age=86400, immutable"
        again = await tab.get(f"{image}/160.webp", {"If-None-Match": first.headers["etag"]})
        assert (again.status, again.body) == (304, b"")
        assert (await tab.get(f"{image}/161.webp")).status == 404
        whole = await tab.get(f"{image}/whole")
        assert whole.headers["cache-control"] == "private, max-age=86400, immutable"
        assert (await tab.get(f"{image}/large.webp")).status == 404
        assert (await tab.get("/console/images/asset_none/160.webp")).status == 404


async def test_no_browser_keeps_a_picture_beyond_the_time_of_its_image(site: Server) -> None:
    owner = await site.for_account()
    async with Tab(owner) as tab:
        await tab.sign_in()
        await made(owner)
        (image,) = images((await tab.get(GALLERY)).body)
        asset_id, until = decode("asset", image.rpartition("/")[2]), site.core.clock() + 60_000
        store = site.core.store
        assert isinstance(store, SqliteStore)
        values = (until, asset_id)
        statement = "UPDATE assets SET expires_at = ? WHERE id = ?"
        await store._write(lambda db: db.execute(statement, values).rowcount)
        for form in ("160.webp", "whole"):
            kept = (await tab.get(f"{image}/{form}")).headers["cache-control"]
            assert 0 <= int(kept.partition("max-age=")[2].partition(",")[0]) <= 60


async def test_a_small_copy_is_for_its_account_and_the_operator_alone(site: Server) -> None:
    owner = await site.for_account()
    async with Tab(owner) as tab:
        await tab.sign_in()
        await made(owner)
        (image,) = images((await tab.get(GALLERY)).body)
    async with Tab(site) as other:
        assert (await other.get(f"{image}/160.webp")).status == 303
        await other.sign_in()
        assert (await other.get(f"{image}/160.webp")).status == 404
    async with Tab(site) as operator:
        await operator.be_operator()
        assert (await operator.get(f"{image}/160.webp")).status == 200


async def test_where_an_image_is_gone_a_picture_says_so(site: Server) -> None:
    owner = await site.for_account()
    async with Tab(owner) as tab:
        await tab.sign_in()
        before = set(owner.stored_files())
        await made(owner)
        (image,) = images((await tab.get(GALLERY)).body)
        for path in set(owner.stored_files()) - before:
            path.write_bytes(b"no image")
        reply = await tab.get(f"{image}/320.webp")
        assert (reply.status, reply.headers["content-type"]) == (404, "image/svg+xml")
        assert reply.headers["cache-control"] == "no-store"


async def test_the_gallery_shows_an_accounts_own_pictures_newest_first(site: Server) -> None:
    owner = await site.for_account()
    async with Tab(owner) as tab, Tab(site) as other:
        await tab.sign_in()
        await other.sign_in()
        assert b"No pictures yet" in (await tab.get(GALLERY)).body
        tasks = [await made(owner, f"picture {nr}") for nr in range(3)]
        body = (await tab.get(GALLERY)).body.decode()
        shown = re.findall(r'href="/console/tasks/(task_\w+)"', body)
        assert shown == [task["task_id"] for task in reversed(tasks)]
        assert not {*shown}.intersection((await other.get(GALLERY)).body.decode().split('"'))


async def test_each_picture_of_a_task_stands_for_itself(site: Server) -> None:
    owner = await site.for_account()
    async with Tab(owner) as tab:
        await tab.sign_in()
        await made(owner, "three boats", model=MANY, n=3)
        page = (await tab.get(GALLERY)).body
        assert len(set(images(page))) == 3
        assert b'alt="2 of 3: three boats"' in page


async def test_filters_narrow_the_gallery_and_stay_in_their_fields(site: Server) -> None:
    owner = await site.for_account()
    async with Tab(owner) as tab:
        await tab.sign_in()
        await made(owner, "Ein MÄRCHEN", metadata={"order": "7391"})
        await made(owner, "a lighthouse")
        for query, found in (
            ("text=märchen", 1),
            ("text=nothing", 0),
            ("metadata=order%3D7391", 1),
            ("metadata=order%3D7392", 0),
            ("model=gpt-image-2&text=", 2),
            ("model=nano-banana", 0),
            ("from=2020-01-01&to=2020-12-31", 0),
            ("from=2020-01-01", 2),
        ):
            reply = await tab.get(f"{GALLERY}?{query}")
            assert (reply.status, len(images(reply.body))) == (200, found), query
        reply = await tab.get(f"{GALLERY}?text=nothing&metadata=order%3D7392")
        assert b"No picture is like that" in reply.body
        assert b'value="nothing"' in reply.body
        assert b'value="order=7392"' in reply.body


async def test_what_cannot_be_looked_for_is_told_beside_its_field(site: Server) -> None:
    async with Tab(site) as tab:
        await tab.sign_in()
        for query, words in (
            ("metadata=order", "Write key=value"),
            ("from=yesterday", "must be a date such as"),
            ("state=success", "knows no 'state'"),
            ("before=5", "begin with the newest"),
            ("text=%3Cscript%3Ealert(1)%3C/script%3E&to=x", "must be a date such as"),
        ):
            reply = await tab.get(f"{GALLERY}?{query}")
            assert reply.status == 422, query
            assert words in html.unescape(reply.body.decode()), query
            assert b"<script>alert" not in reply.body


async def test_a_hostile_prompt_is_only_text(site: Server) -> None:
    owner = await site.for_account()
    async with Tab(owner) as tab:
        await tab.sign_in()
        await made(owner, '"><script>alert(1)</script><img src=x onerror=alert(2)>')
        body = (await tab.get(GALLERY)).body
        assert b"<script>alert" not in body
        assert b"<img src=x" not in body
        assert b"&lt;script&gt;alert(1)" in body


async def test_the_gallery_needs_a_session_of_an_account(site: Server) -> None:
    async with Tab(site) as tab:
        reply = await tab.get(f"{GALLERY}?text=a")
        assert reply.headers["location"] == "/console/sign-in?next=/console/gallery%3Ftext%3Da"
        await tab.be_operator()
        assert (await tab.get(GALLERY)).status == 403


async def kept(site: Server, number: int, *, prompt: str) -> None:
    """So many tasks that succeeded, without the files of their images."""
    store = site.core.store
    owner = await site.core.accounts.find(site.account)
    assert owner is not None
    for _ in range(number):
        new = new_task(owner.id, task_id=site.core.ids.next(), created_at=site.core.clock())
        request = msgspec.structs.replace(new.request, prompt=prompt)
        await store.submit(msgspec.structs.replace(new, request=request))
        task = await taken(store, new.id)
        attempt = await store.begin_attempt(task, channel_id=7, event=Event.RUN, now=NOW)
        result = [image(owner.id)]
        await store.complete(task, attempt, images=result, actual=PRICE, cost=None, now=NOW)


async def test_more_pictures_come_by_a_link_or_as_a_piece(idle: Server) -> None:
    owner = await idle.for_account()
    async with Tab(owner) as tab:
        await tab.sign_in()
        await kept(owner, LIMIT + 2, prompt="a lighthouse")
        page = (await tab.get(GALLERY)).body
        older = re.search(r'<a class="button" href="([^"]+)"', page.decode())
        assert older is not None
        assert b'hx-trigger="revealed"' in page
        piece = await tab.get(older[1], {"HX-Request": "true"})
        assert b"<html" not in piece.body
        assert b"That was all." in piece.body
        whole = await tab.get(older[1])
        assert images(whole.body) == images(piece.body)
        assert (len(set(images(page))), len(set(images(piece.body)) - set(images(page)))) == (
            LIMIT,
            2,
        )


async def test_a_search_that_broke_off_says_how_far_it_came(idle: Server) -> None:
    owner, store = await idle.for_account(), idle.core.store
    assert isinstance(store, SqliteStore)
    store.gallery = Gallery(store.gallery._engine, looks=3)
    async with Tab(owner) as tab:
        await tab.sign_in()
        await kept(owner, 1, prompt="the one")
        await kept(owner, 4, prompt="another")
        path, found, pages = f"{GALLERY}?text=one", 0, 0
        while path:
            page = (await tab.get(path)).body.decode()
            found, pages = found + len(images(page.encode())), pages + 1
            older = re.search(r'<a class="button" href="([^"]+)"[^>]*>([^<]+)<', page)
            path = html.unescape(older[1]) if older else ""
            assert not older or older[2] == "Search further back"
            assert ("Searched back to" in page) == bool(older)
            assert "hx-trigger" not in page.partition('id="gallery"')[2]
        assert (found, pages) == (1, 2)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def full(site: Server) -> Server:
    """The server as an account with pictures of every shape meets it."""
    owner = await site.for_account()
    shapes = ["1:1", "16:9", "3:4", "9:16", "4:3", "1:1", "16:9"]
    for number, shape in enumerate(shapes):
        await made(owner, f"A lighthouse in the fog, number {number}", aspect_ratio=shape)
    await made(owner, "w" * 1000, model=MANY, n=3)
    return owner


@EVERY_LOOK
async def test_the_gallery_looks_right(
    full: Server, signed_in_page: Opens, theme: Theme, width: int
) -> None:
    screen = await signed_in_page("account", theme, width, key=full.key)
    page = await screen.open(GALLERY)
    await page.wait_for_load_state("networkidle")
    await page.locator(".gallery a").nth(1).focus()
    await screen.judge("gallery")
    await page.fill("#text", "number 3")
    await page.fill("#metadata-more", "order")
    screen.expected.append("status of 422")
    await page.click("button:has-text('Filter')")
    await page.get_by_text("Write key=value").wait_for()
    await screen.judge("gallery-wrong")
    await page.fill("#metadata-1", "")
    await page.click("button:has-text('Filter')")
    await page.wait_for_load_state("networkidle")
    assert await page.locator(".gallery img").count() == 1
    await screen.judge("gallery-found")


@EVERY_LOOK
async def test_an_empty_gallery_looks_right(
    site: Server, signed_in_page: Opens, theme: Theme, width: int
) -> None:
    owner = await site.for_account()
    screen = await signed_in_page("account", theme, width, key=owner.key)
    await screen.open(GALLERY)
    await screen.judge("gallery-empty")


async def test_the_gallery_goes_on_by_itself_as_one_scrolls(
    site: Server, signed_in_page: Opens
) -> None:
    screen = await signed_in_page("account", key=site.key)
    await kept(site, LIMIT + 2, prompt="a lighthouse")
    screen.expected.append("status of 404")  # of images without files
    page = await screen.open(GALLERY)
    await page.locator(".gallery-more").scroll_into_view_if_needed()
    await page.get_by_text("That was all.").wait_for()
    assert await page.locator(".gallery img").count() == LIMIT + 2
