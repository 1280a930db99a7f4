"""What console.js adds to pages: the theme, copying, folded choices, references by drop."""

import io
import re

import jinja2
import pytest
from PIL import Image
from playwright.async_api import FilePayload, Page, expect

from calotype.console.filters import filters
from console.screens import Opens

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1 << 20


async def put(page: Page, macros: str) -> None:
    """Put pieces of ui.html into the page, as htmx would."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("calotype.console"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(filters(lambda: 0))
    pieces = environment.from_string('{% import "ui.html" as ui with context %}' + macros)
    icons = await page.evaluate("document.querySelector('.icon use').getAttribute('href')")
    text = pieces.render(static=lambda _: icons.partition("#")[0], csrf="token")
    await page.evaluate(
        """text => {
            const main = document.querySelector("main .page");
            main.innerHTML = text;
            main.firstElementChild.dispatchEvent(new CustomEvent("htmx:load", {bubbles: true}));
        }""",
        text,
    )


def picture(name: str, kind: str = "PNG") -> FilePayload:
    """A small picture to choose."""
    written = io.BytesIO()
    Image.new("RGB", (64, 48), "teal").save(written, kind)
    return {"name": name, "mimeType": f"image/{kind.lower()}", "buffer": written.getvalue()}


async def names(page: Page) -> list[str]:
    """The files that the form would send, in their order."""
    found: list[str] = await page.eval_on_selector("#image", "e => [...e.files].map(f => f.name)")
    return found


async def test_the_theme_goes_round_and_stays(screens: Opens) -> None:
    """System, light, dark; kept by the browser and there before the page is drawn."""
    page = await (await screens(theme="dark")).open("/console/sign-in")
    button = page.get_by_role("button", name=re.compile("^Theme"))
    paper = "getComputedStyle(document.body).backgroundColor"
    await expect(button).to_have_accessible_name("Theme: system. Change to light")
    dark = await page.evaluate(paper)
    await button.click()
    await expect(button).to_have_accessible_name("Theme: light. Change to dark")
    light = await page.evaluate(paper)
    assert light != dark
    await page.reload()
    assert await page.evaluate(paper) == light
    await button.click()
    await expect(button).to_have_accessible_name("Theme: dark. Change to system")
    assert await page.evaluate(paper) == dark


async def test_copying_says_that_it_was_done(screens: Opens) -> None:
    """The text is in the clipboard and the page says so."""
    screen = await screens(permissions=["clipboard-read", "clipboard-write"])
    page = await screen.open("/console/sign-in")
    await put(page, '{{ ui.copyable("task_1") }}{{ ui.secret("ck_shown_once") }}')
    await page.get_by_role("button", name="Copy task_1").click()
    await expect(page.get_by_role("status")).to_have_text("Copied")
    assert await page.evaluate("navigator.clipboard.readText()") == "task_1"
    await page.get_by_role("button", name="Copy", exact=True).click()
    await page.wait_for_function(
        "navigator.clipboard.readText().then(text => text === 'ck_shown_once')"
    )


async def test_a_folded_choice_shows_what_was_chosen(screens: Opens) -> None:
    """A click closes it, the arrow keys do not, Escape does."""
    page = await (await screens()).open("/console/sign-in")
    await put(
        page,
        """{{ ui.choices("model", "Model", [{"value": "a", "title": "First"},
        {"value": "b", "title": "Second"}, {"value": "c", "title": "Third"}], "a", true) }}""",
    )
    head = page.locator(".picker summary")
    picker = page.locator(".picker")
    await expect(head).to_have_text("First")
    await head.click()
    await page.get_by_role("radio", name="Second").click()
    await expect(head).to_have_text("Second")
    await expect(picker).not_to_have_attribute("open", "")
    await head.click()
    await page.get_by_role("radio", name="Second").focus()
    await page.keyboard.press("ArrowDown")
    await expect(head).to_have_text("Third")
    await expect(picker).to_have_attribute("open", "")
    await page.keyboard.press("Escape")
    await expect(picker).not_to_have_attribute("open", "")
    await expect(head).to_be_focused()


async def test_references_are_added_ordered_and_taken_out(screens: Opens) -> None:
    """The file field holds what the thumbnails show, through every change."""
    screen = await screens()
    page = await screen.open("/console/sign-in")
    await put(
        page,
        '{{ ui.page_head("Playground") }}'
        f'{{{{ ui.file_drop("image", "References", 3, {MIB}, "image/png") }}}}',
    )
    await page.set_input_files("#image", [picture("a"), picture("b")])
    await page.set_input_files("#image", [picture("c")])
    assert await names(page) == ["a", "b", "c"]
    await expect(page.locator(".thumbs img")).to_have_count(3)
    await page.get_by_role("button", name="Move picture 3, c forward").click()
    assert await names(page) == ["a", "c", "b"]
    await page.get_by_role("button", name="Remove picture 1, a").click()
    assert await names(page) == ["c", "b"]
    await screen.judge("references")


async def test_references_beyond_the_limits_are_left_out_and_said(screens: Opens) -> None:
    """Too many, of another kind, too large: each with its reason."""
    page = await (await screens()).open("/console/sign-in")
    await put(page, f'{{{{ ui.file_drop("image", "References", 1, {MIB}, "image/png") }}}}')
    told = page.get_by_role("status")
    await page.set_input_files("#image", [picture("a"), picture("b")])
    await expect(told).to_have_text("At most 1 picture here: the first ones stay.")
    assert await names(page) == ["a"]
    await page.set_input_files("#image", [picture("c", "GIF")])
    await expect(told).to_have_text("Some files are not pictures of a kind that is taken here.")
    large = picture("d")
    large["buffer"] += bytes(MIB)
    await page.set_input_files("#image", [large])
    await expect(told).to_have_text("Some pictures have more than 1 MiB.")
    assert await names(page) == ["a"]


async def test_references_stay_when_htmx_draws_the_form_anew(screens: Opens) -> None:
    """Another model may take fewer; the first ones stay."""
    page = await (await screens()).open("/console/sign-in")
    await put(page, f'{{{{ ui.file_drop("image", "References", 3, {MIB}, "image/png") }}}}')
    await page.set_input_files("#image", [picture("a"), picture("b")])
    await put(page, f'{{{{ ui.file_drop("image", "References", 1, {MIB}, "image/png") }}}}')
    assert await names(page) == ["a"]


async def test_what_asks_again_closes_by_escape_and_by_a_click_elsewhere(screens: Opens) -> None:
    """So that it never stands in the way."""
    page = await (await screens()).open("/console/sign-in")
    await put(page, '{{ ui.confirm("/x", "Delete", "It is gone for good.", "Yes") }}<p>Else</p>')
    box = page.locator(".confirm")
    await page.get_by_text("Delete").click()
    await expect(page.get_by_role("button", name="Yes")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(box).not_to_have_attribute("open", "")
    await page.get_by_text("Delete").click()
    await page.get_by_text("Else").click()
    await expect(box).not_to_have_attribute("open", "")


async def test_news_is_read_out_once(screens: Opens) -> None:
    """Progress alone is not worth a word."""
    page = await (await screens()).open("/console/sign-in")
    await put(page, '<p data-say="In the queue">0 %</p>')
    await expect(page.locator("#said")).to_have_text("In the queue")
    await put(page, '<p data-say="Developing">10 %</p>')
    await expect(page.locator("#said")).to_have_text("Developing")
