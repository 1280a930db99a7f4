"""The tests of pages see what goes wrong in them."""

import pytest

from console.screens import Opens
from harness import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("document.body.insertAdjacentHTML('beforeend', '<p style=\"color: red\">')", "style-src"),
        ("document.head.append(document.createElement('style'))", "style-src"),
        (
            "document.body.append(Object.assign(document.createElement('script'), {text: '1'}))",
            "script-src",
        ),
        ("fetch('https://elsewhere.example/').catch(() => 0)", "connect-src"),
        ("console.error('a fault')", "error: a fault"),
        ("console.warn('a fault')", "warning: a fault"),
        ("void setTimeout(() => { throw new Error('a fault') })", "broke: a fault"),
        ("fetch('/console/nothing')", "status of 404"),
    ],
)
async def test_a_fault_of_a_page_is_noticed(screens: Opens, script: str, told: str) -> None:
    screen = await screens()
    page = await screen.open("/console/sign-in")
    assert screen.unexpected() == []
    await page.evaluate(script)
    await until(lambda: any(told in fault for fault in screen.unexpected()))
    screen.expected.append("")


async def test_a_page_that_is_wider_than_its_screen_is_noticed(screens: Opens) -> None:
    screen = await screens(width=360)
    page = await screen.open("/console/sign-in")
    await page.evaluate("document.querySelector('h1').style.minWidth = '1000px'")
    with pytest.raises(AssertionError, match="px wider than 360 px"):
        await screen.judge("too-wide")


async def test_a_page_that_some_cannot_use_is_noticed(screens: Opens) -> None:
    screen = await screens()
    page = await screen.open("/console/sign-in")
    await page.evaluate("document.querySelector('label[for=key]').remove()")
    with pytest.raises(AssertionError, match="label"):
        await screen.judge("without-a-label")
