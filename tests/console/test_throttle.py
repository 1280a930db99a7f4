"""Nobody guesses for long."""

import asyncio
import time
from collections import Counter
from pathlib import Path

import pytest

from calotype.console.throttle import OF_ADDRESS, OF_ALL, REMEMBERED, Throttle
from calotype.domain.secret import Secret
from console.tabs import PASSWORD, Tab, gone_to
from harness import Reply, running_server


async def guess(tab: Tab, csrf: str) -> Reply:
    return await tab.post("/console/sign-in", csrf=csrf, way="password", password="open sesame")


async def test_one_address_may_guess_ten_times_a_minute_and_others_go_on(tmp_path: Path) -> None:
    async with (
        running_server(
            tmp_path, behind_proxy=True, with_worker=False, admin_password=Secret(PASSWORD)
        ) as site,
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
        running_server(
            tmp_path, behind_proxy=True, with_worker=False, admin_password=Secret(PASSWORD)
        ) as site,
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
        ("::ffff:203.0.113.1", "203.0.113.1", True),
        ("::ffff:203.0.113.1%FORGED", "203.0.113.1", True),
        ("2001:db8::1%one", "2001:db8::1%two", True),
    ],
)
async def test_an_address_is_what_the_nearest_proxy_says_and_nobody_can_change(
    tmp_path: Path, first: str, second: str, *, same: bool
) -> None:
    async with (
        running_server(tmp_path, behind_proxy=True, with_worker=False) as site,
        Tab(site, first) as tab,
        Tab(site, second) as other,
    ):
        csrf = await tab.token("/console/sign-in")
        for _ in range(OF_ADDRESS):
            assert (await guess(tab, csrf)).status == 403
        csrf = await other.token("/console/sign-in")
        assert (await guess(other, csrf)).status == (429 if same else 403)


async def test_without_a_proxy_of_which_the_operator_says_nobody_says_where_they_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        running_server(tmp_path, with_worker=False) as site,
        Tab(site, "203.0.113.1") as tab,
        Tab(site, "203.0.113.2") as other,
    ):
        csrf = await tab.token("/console/sign-in")
        for _ in range(OF_ADDRESS):
            assert (await guess(tab, csrf)).status == 403
        csrf = await other.token("/console/sign-in")
        assert (await guess(other, csrf)).status == 429
    assert "password from 127.0.0.1" in caplog.text
    assert "203.0.113" not in caplog.text


async def test_what_a_proxy_adds_to_an_address_is_not_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        running_server(tmp_path, behind_proxy=True, with_worker=False) as site,
        Tab(site, "::ffff:203.0.113.1%FORGED") as tab,
    ):
        assert (await guess(tab, await tab.token("/console/sign-in"))).status == 403
    assert "password from 203.0.113.1" in caplog.text
    assert "FORGED" not in caplog.text


async def test_nobody_locks_out_others_with_forms_keys_or_links(tmp_path: Path) -> None:
    async with (
        running_server(
            tmp_path, behind_proxy=True, with_worker=False, admin_password=Secret(PASSWORD)
        ) as site,
        Tab(site) as tab,
        Tab(site) as other,
    ):
        csrf = await tab.token("/console/sign-in")
        statuses: Counter[int] = Counter()
        for number in range(OF_ALL):
            address = {"X-Forwarded-For": f"2001:db8:0:{number:x}::1"}
            for path, fields in (
                ("sign-in", {}),
                ("enter", {}),
                ("sign-in", {"csrf": csrf, "way": "key", "key": "ck_guess"}),
                ("enter", {"csrf": csrf, "token": "guess"}),
            ):
                reply = await tab.post(f"/console/{path}", address, **fields)
                statuses[reply.status] += 1
        assert statuses == {403: 4 * OF_ALL}
        assert gone_to(await other.be_operator()) == "/console/operator"


async def test_whoever_sends_forms_that_are_not_ours_may_still_sign_in(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path, behind_proxy=True, with_worker=False) as site,
        Tab(site) as tab,
    ):
        for _ in range(OF_ADDRESS + 1):
            assert (await tab.post("/console/sign-in")).status == 403
        assert gone_to(await tab.sign_in()) == "/console/playground"


def test_only_so_many_addresses_are_remembered() -> None:
    throttle = Throttle()
    for number in range(REMEMBERED + OF_ADDRESS):
        assert throttle.wait(str(number)) == 0
    for number in (REMEMBERED, REMEMBERED + 1):
        for _ in range(OF_ADDRESS - 1):
            assert throttle.wait(str(number)) == 0
        assert throttle.wait(str(number)) > 0, "those that tried last are counted on"
    assert counted(throttle) == REMEMBERED


def test_an_address_is_forgotten_after_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    throttle, now = Throttle(), time.monotonic()
    for number in range(OF_ALL):
        throttle.wait(str(number))
    monkeypatch.setattr(time, "monotonic", lambda: now + 61)
    throttle.wait("another")
    assert counted(throttle) == 1


def test_addresses_are_not_remembered_once_everybody_has_to_wait() -> None:
    throttle = Throttle()
    for number in range(OF_ALL + 10):
        assert (throttle.wait(str(number), guessable=True) > 0) == (number >= OF_ALL)
    assert counted(throttle) == OF_ALL + 1, "every address, and all together"


def counted(throttle: Throttle) -> int:
    """The addresses of which ``limits`` keeps something."""
    events: dict[str, object] = throttle._limiter.storage.events  # type: ignore[attr-defined]  # what grew
    return len(events)
