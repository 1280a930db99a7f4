"""Signing in and out, as a person does it."""

import pytest

from console.screens import EVERY_LOOK, Opens, Theme
from harness import Server

pytestmark = pytest.mark.asyncio(loop_scope="module")


@EVERY_LOOK
async def test_the_sign_in_page_is_sound(screens: Opens, theme: Theme, width: int) -> None:
    screen = await screens(theme=theme, width=width)
    await screen.open("/console/sign-in")
    await screen.judge("sign-in")


async def test_a_key_signs_in_and_the_button_signs_out(site: Server, screens: Opens) -> None:
    screen = await screens()
    page = await screen.open("/console")
    await page.get_by_label("API key").fill(site.key)
    await page.get_by_label("API key").press("Enter")
    await page.wait_for_url("**/console/playground")
    await page.get_by_role("button", name="Sign out").first.click()
    await page.wait_for_url("**/console/sign-in")
    await page.goto(f"{site.url}/console/playground")
    assert page.url == f"{site.url}/console/sign-in?next=/console/playground"
