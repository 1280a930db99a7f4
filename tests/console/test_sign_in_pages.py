"""Signing in and out, as a person does it."""

import pytest

from console.screens import EVERY_LOOK, Opens, Theme
from console.tabs import PASSWORD, links
from harness import Server

pytestmark = pytest.mark.asyncio(loop_scope="module")


@EVERY_LOOK
async def test_every_page_before_the_console_is_sound(
    site: Server, screens: Opens, theme: Theme, width: int
) -> None:
    screen = await screens(theme=theme, width=width)
    screen.expected.append("status of 40")
    page = await screen.open("/console/sign-in")
    await screen.judge("sign-in")
    await page.get_by_label("API key").fill("nothing")
    await page.keyboard.press("Enter")
    await page.get_by_role("alert").wait_for()
    await screen.judge("sign-in-wrong-key")
    await page.get_by_text("For the operator").click()
    await page.get_by_label("password").fill("nothing")
    await page.keyboard.press("Enter")
    await page.get_by_text("is not the operator").wait_for()
    await screen.judge("sign-in-wrong-password")
    await screen.open("/console/nothing")
    await screen.judge("not-found")
    await screen.open("/console/enter?token=nothing")
    await screen.judge("enter-no-more")
    await screen.open(f"/console/enter?token={links(site).make()}")
    await screen.judge("enter")


@EVERY_LOOK
async def test_the_first_pages_are_sound(signed_in_page: Opens, theme: Theme, width: int) -> None:
    screen = await signed_in_page("account", theme, width)
    await screen.open("/console/sign-out-everywhere")
    await screen.judge("sign-out-everywhere")
    screen.expected.append("status of 40")
    await screen.open("/console/operator")
    await screen.judge("not-for-you")


async def test_a_key_signs_in_and_the_button_signs_out(site: Server, screens: Opens) -> None:
    screen = await screens()
    page = await screen.open("/console")
    await page.get_by_label("API key").fill(site.key)
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/console/playground")
    await page.locator("button:visible", has_text="Sign out").click()
    await page.wait_for_url("**/console/sign-in")
    await page.goto(f"{site.url}/console/playground")
    assert page.url == f"{site.url}/console/sign-in?next=/console/playground"


async def test_the_operator_signs_in_with_the_password(screens: Opens) -> None:
    screen = await screens()
    page = await screen.open("/console/operator")
    await page.get_by_text("For the operator").click()
    await page.get_by_label("password").fill(PASSWORD)
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/console/operator")


async def test_the_operator_enters_by_a_link_without_scripts(site: Server, screens: Opens) -> None:
    screen = await screens(java_script_enabled=False)
    page = await screen.open(f"/console/enter?token={links(site).make()}")
    await page.get_by_role("button", name="Enter").click()
    await page.wait_for_url("**/console/operator")


async def test_signing_out_everywhere_ends_the_session_of_another_browser(
    site: Server, signed_in_page: Opens
) -> None:
    key = await site.new_key("leaving")
    here, there = await signed_in_page(key=key), await signed_in_page(key=key)
    await there.open("/console/playground")
    page = await here.open("/console/sign-out-everywhere")
    await page.get_by_role("button", name="Sign out everywhere").click()
    await page.wait_for_url("**/console/sign-in")
    await there.page.reload()
    assert there.page.url.startswith(f"{site.url}/console/sign-in")
