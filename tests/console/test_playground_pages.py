"""The playground in a browser, as a person uses it."""

from pathlib import Path

import pytest
from playwright.async_api import Page, Route, expect

from console.screens import EVERY_LOOK, NARROW, WIDE, Opens, Theme
from harness import Server, picture

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH = "/console/playground"
ABORTED = ("htmx:afterRequest", "htmx:sendAbort")
"""What htmx says of asking for a price that no longer matters."""
LONG = "Glashaus" * 700


async def choose(page: Page, model: str) -> None:
    """Open the picker and choose a model."""
    await page.locator(".picker summary").click()
    await page.locator(f'[id="model-{model}"]').check()
    await expect(page.locator('[name="ask:was"]')).to_have_value(model)


@EVERY_LOOK
async def test_the_playground_is_sound(signed_in_page: Opens, theme: Theme, width: int) -> None:
    screen = await signed_in_page(theme=theme, width=width)
    page = await screen.open(f"{PATH}?model=gpt-image-2.5-flare")
    await screen.judge("playground")
    await page.locator(".picker summary").click()
    await page.get_by_label("Search models").fill("flux max")
    await expect(page.locator(".picker label:visible")).to_have_count(1)
    await screen.judge("playground-picker")


@EVERY_LOOK
async def test_a_picture_develops_and_shows(
    signed_in_page: Opens, theme: Theme, width: int
) -> None:
    screen = await signed_in_page(theme=theme, width=width)
    page = await screen.open(PATH)
    await choose(page, "gpt-image-2")
    await page.get_by_label("Prompt").fill("A lighthouse at dusk sandbox:delay=1")
    await page.get_by_label("Prompt").press("Control+Enter")
    await page.wait_for_url("**/playground?task=task_*")
    await expect(page.locator(".developing")).to_be_visible()
    await screen.judge("playground-developing")
    await expect(page.locator(".results img")).to_be_visible(timeout=20_000)
    await screen.judge("playground-result")


@EVERY_LOOK
async def test_what_is_refused_is_told(signed_in_page: Opens, theme: Theme, width: int) -> None:
    screen = await signed_in_page(theme=theme, width=width)
    screen.expected.append("status of 422")
    page = await screen.open(f"{PATH}?model=flux-2-flex")
    await page.get_by_label("Steps").fill("99")
    await page.get_by_label("Steps").blur()
    await expect(page.locator("#cost")).to_contain_text("No price yet")
    await page.get_by_label("Steps").fill("20")
    await page.get_by_label("Prompt").fill(LONG)
    await page.get_by_role("button", name="Generate").click()
    await expect(page.locator("#told")).to_contain_text("This was not sent")
    await screen.judge("playground-refused")


async def test_choices_change_the_form_and_the_price(signed_in_page: Opens) -> None:
    screen = await signed_in_page()
    page = await screen.open(f"{PATH}?model=gpt-image-2")
    await page.get_by_label("Prompt").fill("kept")
    await expect(page.get_by_label("4K")).to_be_disabled()
    await page.get_by_label("16:9").check()
    await expect(page.get_by_label("4K")).to_be_enabled()
    price = await page.locator("#cost b").text_content()
    await page.get_by_label("4K").check()
    await expect(page.locator("#cost b")).not_to_have_text(price or "")
    await expect(page.get_by_label("4K")).to_be_focused()
    await expect(page.locator("#code")).to_contain_text('"4K"')
    await page.get_by_label("auto", exact=True).check()
    await expect(page.locator("#choices")).to_contain_text("Resolution went back.")
    await choose(page, "ideogram-v4")
    await expect(page.get_by_label("Prompt")).to_have_value("kept")
    await expect(page.locator("#choices")).to_contain_text("Rendering speed")
    await expect(page.locator("#code")).to_contain_text('"ideogram-v4"')


async def test_enter_in_a_field_asks_for_the_price_and_does_not_buy(
    site: Server, signed_in_page: Opens
) -> None:
    before = await site.newest()
    screen = await signed_in_page()
    page = await screen.open(f"{PATH}?model=gpt-image-2.5-flare")
    await page.get_by_label("Prompt").fill("a harbour")
    await page.get_by_role("spinbutton", name="Pictures").fill("3")
    await page.get_by_role("spinbutton", name="Pictures").press("Enter")
    await expect(page.locator("#cost")).to_contain_text("0.06 USDC · ")
    assert page.url.endswith("model=gpt-image-2.5-flare")
    assert await site.newest() == before


async def test_references_are_dropped_in_and_a_result_becomes_one(
    signed_in_page: Opens, tmp_path: Path
) -> None:
    first, second = tmp_path / "one.png", tmp_path / "two.png"
    first.write_bytes(picture(colour="red"))
    second.write_bytes(picture(colour="blue"))
    screen = await signed_in_page()
    page = await screen.open(f"{PATH}?model=gpt-image-2")
    await page.get_by_label("Prompt").fill("a harbour")
    await page.locator("input[type=file]").set_input_files([first, second])
    await expect(page.locator("#code")).to_contain_text("reference-2.png")
    await page.get_by_label("16:9").check()
    await expect(page.get_by_label("4K")).to_be_enabled()
    await expect(page.locator(".thumbs li")).to_have_count(2)
    await screen.judge("playground-references")
    await page.get_by_role("button", name="Generate").click()
    await expect(page.locator(".results img")).to_be_visible()
    await expect(page.locator(".references li")).to_have_count(2)
    await page.get_by_role("link", name="Use as reference").click()
    await expect(page.locator(".references li")).to_have_count(3)
    await expect(page.get_by_label("Prompt")).to_have_value("a harbour")
    for thumb in await page.locator(".references img").all():
        await expect(thumb).to_have_js_property("complete", value=True)
    await screen.judge("playground-picked")
    await page.get_by_role("link", name="Again with changes").click()
    await page.wait_for_url("**/playground?from=task_*")
    await expect(page.get_by_label("Prompt")).to_have_value("a harbour")


async def test_a_failure_is_told_where_the_picture_would_be(signed_in_page: Opens) -> None:
    screen = await signed_in_page()
    page = await screen.open(f"{PATH}?model=gpt-image-2")
    await page.get_by_label("Prompt").fill("sandbox:refuse")
    await page.get_by_role("button", name="Generate").click()
    await expect(page.locator("#outcome")).to_contain_text("It cost nothing.")
    await screen.judge("playground-failed")


async def test_the_form_works_without_scripts(signed_in_page: Opens) -> None:
    screen = await signed_in_page(java_script_enabled=False)
    page = await screen.open(PATH)
    await page.locator(".picker summary").click()
    await page.locator("#model-flux-2-flex").check()
    await page.get_by_label("Prompt").fill("a harbour")
    await page.get_by_role("button", name="Show its settings and the price").click()
    await expect(page.get_by_label("Steps")).to_be_visible()
    await page.get_by_label("Steps").fill("20")
    await page.get_by_role("button", name="Generate").click()
    await page.wait_for_url("**/playground?task=task_*")
    await expect(page.get_by_label("Steps")).to_have_value("20")


async def test_a_choice_just_made_is_not_bought_for_another_price(
    site: Server, signed_in_page: Opens
) -> None:
    screen = await signed_in_page()
    screen.expected += ["status of 422", *ABORTED]
    before = await site.newest()
    page = await screen.open(f"{PATH}?model=nano-banana-pro")
    await page.get_by_label("Prompt").fill("a harbour")
    await expect(page.locator("#cost b")).to_have_text("0.15 USDC")
    await page.evaluate("""() => {
        document.querySelector("[name=resolution][value='4K']").click();
        document.getElementById("develop").click();
    }""")
    await expect(page.locator("#told")).to_contain_text("This costs 0.30 USDC, and 0.15 USDC was")
    assert await site.newest() == before
    await page.get_by_role("button", name="Generate").click()
    await page.wait_for_url("**/playground?task=task_*")


async def test_what_is_typed_while_the_form_is_drawn_anew_stays(signed_in_page: Opens) -> None:
    screen = await signed_in_page()
    page = await screen.open(f"{PATH}?model=gpt-image-2")
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    await page.route("**/playground/form", hold, times=1)
    await page.locator("#more summary").click()
    async with page.expect_request("**/playground/form"):
        await page.get_by_label("16:9").check()
    await page.get_by_label("Metadata").fill("order = 7391")
    await held[0].continue_()
    await expect(page.get_by_label("4K")).to_be_enabled()
    await expect(page.get_by_label("Metadata")).to_have_value("order = 7391")


async def test_after_a_refusal_what_is_wrong_has_the_focus(signed_in_page: Opens) -> None:
    screen = await signed_in_page()
    screen.expected += ["status of 422", *ABORTED]
    page = await screen.open(f"{PATH}?model=gpt-image-2")
    await page.get_by_role("button", name="Generate").press("Enter")
    await expect(page.locator("#told")).to_contain_text("Prompt is required")
    await expect(page.get_by_label("Prompt")).to_be_focused()
    await page.get_by_label("Prompt").fill("a harbour")
    await page.locator("#more summary").click()
    await expect(page.locator("#code")).to_contain_text("a harbour")
    await page.get_by_label("Metadata").fill("nothing")
    await page.get_by_role("button", name="Generate").press("Enter")
    await expect(page.locator("#metadata-wrong")).to_be_visible()
    await expect(page.get_by_label("Metadata")).to_be_focused()


async def test_a_refusal_that_no_field_can_mend_is_drawn_and_has_the_focus(
    site: Server, signed_in_page: Opens
) -> None:
    poor = await site.for_account(credit=1)
    screen = await signed_in_page(key=poor.key)
    screen.expected += ["status of 402", *ABORTED]
    page = await screen.open(f"{PATH}?model=gpt-image-2")
    await page.get_by_label("Prompt").fill("a harbour")
    await page.get_by_role("button", name="Generate").press("Enter")
    await expect(page.locator("#told")).to_contain_text("This was not sent")
    await expect(page.locator("#told")).to_be_focused()
    await expect(page.get_by_label("Prompt")).to_have_value("a harbour")


@pytest.mark.parametrize("width", [NARROW, WIDE])
async def test_the_price_never_hides_what_has_the_focus(signed_in_page: Opens, width: int) -> None:
    screen = await signed_in_page(width=width)
    page = await screen.open(f"{PATH}?model=flux-2-flex")
    await page.set_viewport_size({"width": width, "height": 500})
    await page.get_by_label("Prompt").focus()
    for _ in range(30):
        await page.keyboard.press("Tab")
        name, below = await page.evaluate("""() => {
            const price = document.getElementById("cost"), now = document.activeElement;
            const below = now.getBoundingClientRect().bottom - price.getBoundingClientRect().top;
            return [now.id || now.textContent, below];
        }""")
        if name == "develop":
            break
        assert below <= 0, name
    else:
        pytest.fail("the button was not reached")
