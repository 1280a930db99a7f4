"""Nobody guesses for long."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from calotype.console.throttle import OF_ADDRESS, OF_ALL
from calotype.domain.secret import Secret
from console.tabs import PASSWORD, Tab, gone_to
from harness import Reply, running_server


async def guess(tab: Tab, csrf: str) -> Reply:
    return await tab.post("/console/sign-in", csrf=csrf, way="password", password="open sesame")


async def test_one_address_may_guess_ten_times_a_minute_and_others_go_on(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path, with_worker=False, admin_password=Secret(PASSWORD)) as site,
        Tab(site, "203.0.113.1") as tab,
        Tab(site, "203.0.113.2") as other,
    ):
        csrf = await tab.token("/console/sign-in")
        replies = await asyncio.gather(*(guess(tab, csrf) for _ in range(OF_ADDRESS + 5)))
        assert Counter(reply.status for reply in replies) == {403: OF_ADDRESS, 429: 5}
        last = next(reply for reply in replies if reply.status == 429)
        assert 1 <= int(last.headers["Retry-After"]) <= 60
        assert b"Too many tries" in last.body
        refused = await tab.post("/console/sign-in", csrf=csrf, way="password", password=PASSWORD)
        assert refused.status == 429, "the right one is not let in either"
        assert gone_to(await other.be_operator()) == "/console/operator"


async def test_many_addresses_together_may_guess_a_hundred_times_a_minute(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path, with_worker=False, admin_password=Secret(PASSWORD)) as site,
        Tab(site) as tab,
    ):
        csrf = await tab.token("/console/sign-in")
        statuses: Counter[int] = Counter()
        for number in range(OF_ALL + 3):
            address = {"X-Forwarded-For": f"evil, 2001:db8:0:{number:x}::1"}
            reply = await tab.post("/console/sign-in", address, csrf=csrf, way="password")
            statuses[reply.status] += 1
        assert statuses == {403: OF_ALL, 429: 3}


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("203.0.113.1", "203.0.113.2", False),
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("1.2.3.4, 203.0.113.1", "5.6.7.8, 203.0.113.1", True),
        ("nonsense", "more of it", True),
    ],
)
async def test_an_address_is_what_the_nearest_proxy_says_and_nobody_can_change(
    tmp_path: Path, first: str, second: str, *, same: bool
) -> None:
    async with (
        running_server(tmp_path, with_worker=False) as site,
        Tab(site, first) as tab,
        Tab(site, second) as other,
    ):
        csrf = await tab.token("/console/sign-in")
        for _ in range(OF_ADDRESS):
            assert (await guess(tab, csrf)).status == 403
        csrf = await other.token("/console/sign-in")
        assert (await guess(other, csrf)).status == (429 if same else 403)
