"""The playground without a browser: its form, its price, and what comes of it."""

import re
from collections.abc import AsyncIterator
from html import unescape
from pathlib import Path
from typing import Self

import aiohttp
import pytest
import pytest_asyncio

from calotype.domain.ids import decode, encode
from console.tabs import Tab, gone_to
from harness import Reply, Server, picture, running_server

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH = "/console/playground"
PLAIN = {"model": "gpt-image-2", "prompt": "a lighthouse"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """A server whose sandbox answers at once."""
    async with running_server(tmp_path_factory.mktemp("data"), behind_proxy=True) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def site(server: Server) -> Server:
    """That server, as an account of the test's own meets it."""
    return await server.for_account()


@pytest_asyncio.fixture(loop_scope="module")
async def tab(site: Server) -> AsyncIterator[Tab]:
    """A browser in which that account signed in."""
    async with signed_in(site) as opened:
        yield opened


def signed_in(site: Server) -> "Signed":
    """A browser in which the account signs in from an address of its own."""
    return Signed(site)


class Signed(Tab):
    """A browser that has signed in."""

    def __init__(self, site: Server) -> None:
        number = hash(site.account) % 2**16
        super().__init__(site, f"2001:db8:{number:x}::1")
        self.headers: dict[str, str] = {}
        """That go with forms."""

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        assert gone_to(await self.sign_in()) == PATH
        return self

    async def generate(self, *files: bytes, **fields: str) -> Reply:
        """What comes of the form with these fields and files, once their price was shown."""
        page = text(await self.get(PATH))
        token = re.findall(r'name="ask:token" value="([^"]+)"', page)[0]
        csrf = re.findall(r'name="csrf" value="(\w+)"', page)[0]
        shown = price_in(await self.changed(**{**fields, "ask:uploads": str(len(files))}))
        sent = {"csrf": csrf, "ask:token": token, "ask:price": shown, **fields}
        return await self.form(sent, *files)

    async def form(self, fields: dict[str, str], *files: bytes) -> Reply:
        """What comes of exactly these fields and files."""
        data = aiohttp.FormData(default_to_multipart=True)
        for name, value in fields.items():
            data.add_field(name, value)
        for number, content in enumerate(files):
            data.add_field("image", content, filename=f"{number}.png", content_type="image/png")
        return await self._ask("POST", PATH, headers=self.headers, data=data)

    async def changed(self, **fields: str) -> str:
        """The form after a change, as htmx asks for it."""
        token = await self.token(PATH)
        reply = await self.post(
            f"{PATH}/form", {"HX-Request": "true", "X-CSRF-Token": token}, **fields
        )
        assert reply.status == 200, reply.body
        return text(reply)


def price_in(page: str) -> str:
    """The price that a form shows, in micro-USDC; empty where it shows none."""
    found = re.search(r'name="ask:price" value="(\d*)"', page)
    assert found is not None, page
    return found[1]


def text(reply: Reply) -> str:
    """A page as it is read."""
    return unescape(reply.body.decode())


def task_of(reply: Reply) -> str:
    """The task that a form was answered with."""
    found = re.fullmatch(rf"{PATH}\?task=(task_\w+)#outcome", gone_to(reply))
    assert found is not None, reply.headers
    return found[1]


# The form


async def test_the_form_is_made_from_the_catalog_entry_alone(site: Server, tab: Signed) -> None:
    for model in site.core.catalog.models.values():
        page = text(await tab.get(f"{PATH}?model={model.id}"))
        for parameter in model.parameters:
            assert f'name="{parameter.name}"' in page, (model.id, parameter.name)
            assert parameter.description in page
            for value in parameter.enum:
                assert f'value="{value}"' in page
        assert (model.references.max_items > 0) == ('type="file"' in page)
        assert (model.n.maximum > 1) == ('name="n"' in page)
        assert f"At most {model.prompt.max_length:,} characters" in page


async def test_auto_leaves_only_1k_and_another_ratio_more(tab: Signed) -> None:
    def off(page: str) -> list[str]:
        return re.findall(r'name="resolution" value="(\w+)" disabled', page)

    assert off(await tab.changed(model="gpt-image-2", aspect_ratio="auto")) == ["2K", "4K"]
    assert off(await tab.changed(model="gpt-image-2", aspect_ratio="1:1")) == ["4K"]
    assert off(await tab.changed(model="gpt-image-2", aspect_ratio="16:9")) == []


async def test_what_does_not_go_together_goes_back_and_that_is_said(tab: Signed) -> None:
    page = await tab.changed(model="gpt-image-2", aspect_ratio="auto", resolution="4K")
    assert "Resolution went back." in page
    assert "with it, resolution must be 1K." in page
    assert re.search(r'name="resolution" value="1K" checked', page)


async def test_another_model_keeps_what_fits_and_says_what_does_not(tab: Signed) -> None:
    page = await tab.changed(
        **{"model": "ideogram-v4", "ask:was": "flux-2-flex", "aspect_ratio": "16:9", "seed": "7"}
    )
    assert '<option value="16:9" selected>' in page
    assert "Ideogram 4 has no seed; it was left out." in page
    assert "no resolution" not in page


async def test_what_was_typed_wrong_stays_with_what_would_be_right(tab: Signed) -> None:
    page = await tab.changed(**{"model": "flux-2-flex", "ask:was": "flux-2-flex", "steps": "99"})
    assert 'value="99"' in page
    assert "Steps must be an integer from 1 to 50 for flux-2-flex, not '99'." in page
    assert "No price yet" in page


async def test_the_price_is_what_is_reserved(site: Server, tab: Signed) -> None:
    wanted = {**PLAIN, "model": "gpt-image-2.5-flare", "aspect_ratio": "16:9", "resolution": "4K"}
    page = await tab.changed(**wanted, n="3")
    task = await site.task(task_of(await tab.generate(**wanted, n="3")))
    reserved = task["billing"]["reserve_amount_micro_usdc"]
    assert f"<b>{reserved / 1e6:g} USDC</b>" in page
    assert f"{reserved / 3e6:g} USDC · " in page


async def test_too_little_money_is_told_before_and_refused_after(server: Server) -> None:
    poor = await server.for_account(credit=1)
    async with signed_in(poor) as tab:
        assert "Your account has 0.000001 USDC left" in await tab.changed(**PLAIN)
        refused = await tab.generate(**PLAIN)
    assert refused.status == 402
    assert "This was not sent" in text(refused)
    assert "a lighthouse</textarea>" in text(refused)


async def test_the_limit_of_a_key_is_told_before(server: Server) -> None:
    site = await server.for_account()
    site.key, _ = await site.core.accounts.create_key("k", account=site.account, day_limit=5)
    async with signed_in(site) as tab:
        assert "This key may spend 0.000005 USDC more" in await tab.changed(**PLAIN)


async def test_a_key_of_some_models_and_channels_sees_only_those(server: Server) -> None:
    site = await server.for_account()
    site.key, _ = await site.core.accounts.create_key(
        "k", account=site.account, models=["seedream-4.5"]
    )
    async with signed_in(site) as tab:
        page = text(await tab.get(PATH))
        assert re.findall(r'name="model" value="([^"]+)"', page) == ["seedream-4.5"]
        other = text(await tab.get(f"{PATH}?model=gpt-image-2"))
        assert "This API key may not use gpt-image-2; it may use seedream-4.5." in other
        refused = await tab.generate(**PLAIN)
    assert refused.status == 422
    assert "This API key may not use gpt-image-2" in text(refused)


async def test_another_model_is_shown_with_its_price_before_it_is_bought(
    site: Server, tab: Signed
) -> None:
    before = await site.newest()
    page = await tab.generate(**{**PLAIN, "ask:was": "flux-2-flex", "output_format": "png"})
    assert (page.status, "GPT Image 2 has no output format" in text(page)) == (200, True)
    assert await site.newest() == before


# What comes of it


async def test_a_form_makes_a_task_and_shows_what_comes_of_it(site: Server, tab: Signed) -> None:
    word = task_of(await tab.generate(**PLAIN, aspect_ratio="16:9", metadata="order = 7391\nby=me"))
    task = await site.finished(word)
    assert task["state"] == "success"
    assert task["request"]["aspect_ratio"] == "16:9"
    assert task["metadata"] == {"order": "7391", "by": "me"}
    page = text(await tab.get(f"{PATH}?task={word}"))
    assert "/v1/assets/" in page
    assert "a lighthouse</textarea>" in page
    assert '<option value="16:9" selected>' in page or 'value="16:9" checked' in page


async def test_a_form_that_is_sent_twice_buys_once(site: Server, tab: Signed) -> None:
    page = text(await tab.get(PATH))
    csrf = re.findall(r'name="csrf" value="(\w+)"', page)[0]
    token = re.findall(r'name="ask:token" value="([^"]+)"', page)[0]
    fields = {"csrf": csrf, "ask:token": token, "ask:price": "200000", **PLAIN}
    first, again = await tab.form(fields, picture()), await tab.form(fields, picture())
    assert task_of(first) == task_of(again)
    other = await tab.form({**fields, "prompt": "a harbour"}, picture())
    assert task_of(other) != task_of(first)
    anew = await tab.generate(picture(), **PLAIN)
    assert task_of(anew) != task_of(first)
    stored = [path for path in site.stored_files() if "references" in path.parts]
    assert len(stored) == 3


async def test_htmx_is_sent_on_and_gets_the_whole_form_after_a_refusal(tab: Signed) -> None:
    tab.headers = {"HX-Request": "true", "X-CSRF-Token": await tab.token(PATH)}
    sent = await tab.generate(**PLAIN)
    assert (sent.status, "task=task_" in sent.headers["HX-Redirect"]) == (200, True)
    refused = await tab.generate(model="gpt-image-2")
    assert (refused.status, refused.headers["HX-Retarget"]) == (422, "#ask")
    assert "Prompt is required: say what the image shows." in text(refused)
    assert "<html" not in text(refused)


async def test_references_come_in_order_from_pictures_files_and_urls(
    site: Server, tab: Signed
) -> None:
    made = await site.finished(task_of(await tab.generate(**PLAIN)))
    word = re.findall(r"asset_\w+", made["result"]["data"][0]["url"])[0]
    page = text(await tab.get(f"{PATH}?reference={word}&model=gpt-image-2"))
    assert f'name="picked:{word}"' in page
    reply = await tab.generate(
        picture(colour="red"),
        picture(colour="blue"),
        **{**PLAIN, f"picked:{word}": "1", "ask:urls": "https://example.com/a.png\r\n"},
    )
    task = await site.core.store.task(number_of(task_of(reply)))
    assert task is not None
    assert [each.url for each in task.references] == [None, None, None, "https://example.com/a.png"]
    shown = text(await tab.get(f"{PATH}?from={encode('task', task.id)}"))
    assert re.findall(r'name="picked:(asset_\w+)"', shown) == [
        encode("asset", each.asset_id or 0) for each in task.references[:3]
    ]
    assert "https://example.com/a.png</textarea>" in shown


async def test_a_file_stands_where_a_url_stands_and_is_asked_for_again(
    site: Server, tab: Signed
) -> None:
    png = {"Content-Type": "image/png"}
    file = (await site.call("POST", "/v1/files", data=picture(), headers=png)).json
    fields = {**PLAIN, "ask:urls": file["reference"]}
    assert price_in(await tab.changed(**fields))
    word = task_of(await tab.generate(**fields))
    task = await site.finished(word)
    assert task["state"] == "success", task["error"]
    assert f"{file['reference']}</textarea>" in text(await tab.get(f"{PATH}?from={word}"))
    shown = text(await tab.get(f"/console/tasks/{word}")).partition('<ul class="references">')[2]
    assert f"/console/images/{file['id']}/" in shown
    assert 'href="asset:' not in shown

    await site.call("DELETE", f"/v1/files/{file['id']}")
    assert "is no image of this account" in text(await tab.get(f"{PATH}?from={word}"))
    assert (await tab.generate(**fields)).status == 422


def number_of(word: str) -> int:
    """The id behind a task's word."""
    number = decode("task", word)
    assert number is not None
    return number


async def test_a_picture_of_another_account_is_no_reference(server: Server, tab: Signed) -> None:
    other = await server.for_account()
    made = await other.outcome()
    word = re.findall(r"asset_\w+", made["result"]["data"][0]["url"])[0]
    assert (await tab.get(f"{PATH}?reference={word}")).status == 404
    reply = await tab.generate(**{**PLAIN, f"picked:{word}": "1"})
    assert (reply.status, "or not this account's. Choose another" in text(reply)) == (422, True)
    for name in ("from", "task"):
        assert (await tab.get(f"{PATH}?{name}={made['task_id']}")).status == 404


# What is refused


async def test_nothing_is_bought_for_more_than_was_shown(site: Server, tab: Signed) -> None:
    before = await site.newest()
    dear = {**PLAIN, "aspect_ratio": "16:9", "resolution": "4K"}
    page, cheap = "", price_in(await tab.changed(**PLAIN))
    for shown, told in ((cheap, "was shown"), ("", "no price was shown"), ("9" * 5000, "no price")):
        refused = await tab.generate(**dear, **{"ask:price": shown})
        page = text(refused)
        assert (refused.status, told in page) == (422, True)
        assert "Nothing was bought: generate again" in page
    assert await site.newest() == before
    task = await site.task(task_of(await tab.generate(**dear, **{"ask:price": price_in(page)})))
    assert task["billing"]["reserve_amount_micro_usdc"] == int(price_in(page)) > int(cheap)


def references(site: Server) -> list[Path]:
    """Those that are stored; results of other tests' tasks still come in."""
    return [path for path in site.stored_files() if "references" in path.parts]


async def test_nothing_is_bought_without_the_references_that_were_chosen(
    site: Server, tab: Signed
) -> None:
    made = await site.finished(task_of(await tab.generate(**PLAIN)))
    there = re.findall(r"asset_\w+", made["result"]["data"][0]["url"])[0]
    stored = references(site)
    for gone in ("asset_0000000000000", "nonsense"):
        picked = {f"picked:{there}": "1", f"picked:{gone}": "1"}
        assert "A reference that was chosen cannot be had" in await tab.changed(**PLAIN, **picked)
        refused = await tab.generate(picture(), **PLAIN, **picked)
        page = text(refused)
        assert refused.status == 422
        assert re.search(r'id="image-wrong">.*A reference that was chosen cannot be had', page)
        assert re.findall(r'name="picked:(\w+)"', page) == [there]
    assert references(site) == stored, "the upload of a refused request is gone again"


async def test_references_that_are_gone_are_told_when_a_task_is_asked_for_again(
    site: Server, tab: Signed
) -> None:
    word = task_of(await tab.generate(picture(), picture(), **PLAIN))
    await site.finished(word)
    assert "cannot be had any more" not in text(await tab.get(f"{PATH}?from={word}"))

    assert (
        await tab.post(f"/console/tasks/{word}/delete", csrf=await tab.token(PATH))
    ).status == 303
    page = text(await tab.get(f"{PATH}?from={word}"))
    assert "2 references that were chosen cannot be had any more" in page


async def test_whoever_may_not_submit_so_often_is_told_for_how_long(server: Server) -> None:
    site = await server.for_account()
    site.key, _ = await site.core.accounts.create_key("k", account=site.account, per_minute=1)
    async with signed_in(site) as tab:
        task_of(await tab.generate(**PLAIN))
        refused = await tab.generate(**PLAIN)
    seconds = int(refused.headers["Retry-After"])
    assert (refused.status, seconds > 0) == (429, True)
    assert f"none are left now, so try again in {seconds} s." in text(refused)
    assert "a lighthouse</textarea>" in text(refused)


@pytest.mark.parametrize("name", ["n", "channel_id", "deadline_seconds", "ask:uploads", "seed"])
@pytest.mark.parametrize("number", ["1" * 5000, "\N{SUPERSCRIPT TWO}", "-1", "1e5"])
async def test_numbers_that_are_none_break_nothing(tab: Signed, name: str, number: str) -> None:
    assert "The same request" in await tab.changed(**PLAIN, **{name: number})


async def test_a_form_holds_no_more_than_a_request_can(tab: Signed) -> None:
    token = await tab.token(PATH)
    reply = await tab.post(f"{PATH}/form", csrf=token, model="gpt-image-2", prompt="x" * 400_000)
    assert reply.status == 413
    longest = "\N{GLOWING STAR}" * 20_000
    assert "0.06 USDC</b>" in await tab.changed(model="gpt-image-2", prompt=longest)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("prompt", "'\"" * 60_000, "Prompt may have at most 20000 characters"),
        ("metadata", "\n".join(f"{at} = '" for at in range(17_000)), ""),
        ("ask:urls", "http://x/ " * 20_000, "takes at most 16 reference images"),
    ],
)
async def test_what_is_too_much_is_not_made_into_code(
    tab: Signed, name: str, value: str, told: str
) -> None:
    page = await tab.changed(**{**PLAIN, name: value})
    assert told in page
    code = page[page.index('id="code"') :]
    assert len(code) < 300_000


@pytest.mark.parametrize(
    ("wrong", "told", "field"),
    [
        ({"prompt": " "}, "Prompt is required", "prompt"),
        ({"prompt": "x" * 20_001}, "Prompt may have at most 20000 characters", "prompt"),
        ({"model": "nothing"}, "There is no model 'nothing'", "model"),
        ({"metadata": "nothing"}, "Line 1 of the metadata is no key = value", "metadata"),
        ({"deadline_seconds": "0"}, "Deadline must be an integer", "deadline_seconds"),
        ({"channel_id": "99"}, "does not serve gpt-image-2", "channel_id"),
        ({"resolution": "8K"}, "Resolution must be 1K, 2K or 4K", "resolution"),
        ({"ask:urls": "ftp://x"}, "A URL must begin with http:// or https://.", "references"),
        (
            {"ask:urls": "http://127.0.0.1/a.png"},
            "A URL must lead to a public address",
            "references",
        ),
        ({"nonsense": "1"}, "has no parameter 'nonsense'", ""),
    ],
)
async def test_bad_input_is_told_beside_its_field_and_what_was_typed_stays(
    site: Server, tab: Signed, wrong: dict[str, str], told: str, field: str
) -> None:
    before = await site.newest()
    reply = await tab.generate(**{**PLAIN, **wrong})
    page = text(reply)
    assert (reply.status, told in page) == (422, True), page
    assert 'class="wrong"' in page or not field
    kept = {**PLAIN, **wrong}["prompt"]
    assert f"{kept}</textarea>" in page or not kept.strip()
    assert await site.newest() == before


async def test_a_file_that_is_no_picture_is_told_and_the_rest_is_kept(
    site: Server, tab: Signed
) -> None:
    reply = await tab.generate(b"no picture" * 9, picture(), **PLAIN, aspect_ratio="16:9")
    page = text(reply)
    assert (reply.status, "send JPEG, PNG, WEBP, GIF, AVIF, HEIC." in page) == (422, True)
    assert "a lighthouse</textarea>" in page
    assert [path for path in site.stored_files() if "staged" in path.parts] == []


async def test_hostile_words_stay_words(site: Server, tab: Signed) -> None:
    words = "</textarea><script>alert(1)</script>' \" $(reboot) \\ {{ 7*7 }}"
    reply = await tab.generate(model="gpt-image-2", prompt=words)
    page = await tab.get(gone_to(reply))
    assert b"<script>alert" not in page.body
    assert words in text(page)
    task = await site.finished(task_of(reply))
    assert task["request"]["prompt"] == words


async def test_a_form_without_our_token_is_refused(site: Server, tab: Signed) -> None:
    before = site.stored_files()
    reply = await tab.form({**PLAIN, "ask:token": "x" * 22}, picture())
    assert reply.status == 403
    assert (await tab.form({**PLAIN, "csrf": "0" * 64})).status == 403
    assert (await tab.post(f"{PATH}/form", **PLAIN)).status == 403
    tab.headers = {"Sec-Fetch-Site": "cross-site"}
    assert (await tab.generate(**PLAIN)).status == 403
    assert site.stored_files() == before


async def test_queries_that_make_no_sense_are_told(tab: Signed) -> None:
    reply = await tab.get(f"{PATH}?modell=gpt-image-2")
    assert (reply.status, "knows model, from, task, reference" in text(reply)) == (400, True)
    assert "There is no model 'x'" in text(await tab.get(f"{PATH}?model=x"))
    assert (await tab.get(f"{PATH}?from=task_0")).status == 404


async def test_nobody_gets_in_who_did_not_sign_in(site: Server) -> None:
    async with Tab(site) as tab:
        assert gone_to(await tab.get(PATH)) == f"/console/sign-in?next={PATH}"
        assert gone_to(await tab.post(PATH)) == "/console/sign-in"
