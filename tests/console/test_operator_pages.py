"""The operator's overview, channels, queue and unknown outcomes, in a browser."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import expect

from console.operating import MINUTE, SPARE, begun, done, failed, operated_server, shut, unknown
from console.screens import EVERY_LOOK, Opens, Theme
from harness import Server

pytestmark = pytest.mark.asyncio(loop_scope="module")
OPERATOR = "/console/operator"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """A server where much has happened."""
    async with operated_server(tmp_path_factory.mktemp("busy")) as running:
        for number in range(12):
            await done(running, took=2_000 + 700 * number)
        for _ in range(5):
            await done(running, model="flux-2-pro", cost=None, ago=0, took=900)
        await failed(running, "429: quota of this minute is used up")
        await failed(running, "x" * 1000)
        for number in range(3):
            await unknown(running, "The connection broke after the request was sent.", ended=number)
        await unknown(running, "y" * 1000)
        for number in range(3):
            await begun(running, at=running.core.clock() - number * 7 * MINUTE)
        await begun(running, at=running.core.clock(), channel=99)
        await shut(running, model="flux-2-pro", fault="busy")
        await shut(running, channel=SPARE.id)
        yield running


@EVERY_LOOK
async def test_the_operators_pages_are_sound(
    signed_in_page: Opens, theme: Theme, width: int
) -> None:
    screen = await signed_in_page("admin", theme, width)
    page = await screen.open(OPERATOR)
    await expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
    await screen.judge("operator-overview")
    for path, name in (
        ("channels", "channels"),
        ("channels/main", "channel"),
        ("channels/spare", "channel-off"),
        ("queue", "queue"),
        ("unknown", "unknown"),
        ("unknown?show=settled", "unknown-settled"),
    ):
        await screen.open(f"{OPERATOR}/{path}")
        await screen.judge(f"operator-{name}")
    await screen.open(f"{OPERATOR}/unknown")
    await page.get_by_role("link", name="Settle", exact=True).last.click()
    await page.get_by_label("What it charged").fill("much")
    await page.get_by_role("button", name="Settle").click()
    screen.expected.append("status of 422")
    await expect(page.get_by_text("is no amount")).to_be_visible()
    await expect(page.get_by_label("What it charged")).to_have_value("much")
    await screen.judge("operator-settle")


async def test_an_outcome_is_settled(signed_in_page: Opens) -> None:
    screen = await signed_in_page("admin")
    page = await screen.open(f"{OPERATOR}/unknown")
    await page.get_by_role("link", name="Settle", exact=True).first.click()
    await page.get_by_role("radio", name="It was billed", exact=True).check()
    await page.get_by_label("What it charged").fill("0.04")
    await page.get_by_label("Note").fill("It stands on the invoice of November.")
    await page.get_by_role("button", name="Settle").click()
    await expect(page.get_by_role("status").first).to_contain_text("It is settled")
    await page.get_by_role("link", name="Settled").click()
    await expect(page.get_by_role("table")).to_contain_text("0.04 USDC")
    await screen.judge("operator-unknown-one-settled")


async def test_a_channel_is_switched_after_it_was_asked_again(
    signed_in_page: Opens,
) -> None:
    screen = await signed_in_page("admin")
    page = await screen.open(f"{OPERATOR}/channels")
    row = page.get_by_role("row", name="The main one")
    await row.get_by_text("Switch off").first.click()
    await screen.judge("operator-channels-asking")
    await row.get_by_role("button", name="Switch off").click()
    await expect(row).to_contain_text("off, by hand")
    await screen.judge("operator-channels-switched")
    await row.get_by_role("button", name="Switch on").click()
    await expect(row).to_contain_text("on, by hand")
    await page.get_by_role("link", name="The main one").click()
    await screen.judge("operator-channel-switched")
    await page.get_by_role("button", name="Leave to the configuration").click()
    await expect(page.get_by_text("The channel goes by its configuration again.")).to_be_visible()


async def test_the_queue_refreshes_itself(site: Server, signed_in_page: Opens) -> None:
    screen = await signed_in_page("admin")
    page = await screen.open(f"{OPERATOR}/queue")
    row = page.get_by_role("row", name="Spare")
    await expect(row).to_have_count(0)
    await begun(site, at=site.core.clock(), channel=SPARE.id)
    await expect(row).to_have_count(1, timeout=20_000)
