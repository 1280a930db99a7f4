"""Webhooks are sent until they arrive, on the published schedule, however receivers fail."""

import asyncio
import json
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from standardwebhooks.webhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError

from calotype.core import Core, build_core
from calotype.domain.clock import system_clock
from calotype.domain.errors import failure
from calotype.domain.ids import encode
from calotype.domain.task import Event
from calotype.domain.webhooks import GAPS_SECONDS, Signer, Webhook, account_of, receiver_of
from calotype.net.webhooks import WebhookClient
from calotype.services.deliverer import AT_A_TIME, LEASE_MS, Deliverer
from calotype.services.delivery import Delivery
from calotype.services.webhooks import Webhooks
from calotype.settings import Settings
from calotype.worker import Images, images_at
from conformance.tasks import PRICE, funded, image, new_task, read, taken
from net.names import Lookup
from net.tls import serving_tls, trusting
from receiver import OK, Message, Receiver, Script, answer, cut, drip, flood, hang, receiving

BASE = "https://images.example.com"
DAY = 24 * 3600
LOCAL = frozenset({"127.0.0.1"})


@dataclass
class Bench:
    """An outbox, who empties it, and the time."""

    core: Core
    images: Images
    account: int
    signer: Signer = field(default_factory=lambda: Signer(b"the server's own secret"))
    now: int = field(default_factory=system_clock)
    chance: float = 0.0

    @property
    def delivery(self) -> Delivery:
        core = self.core
        return Delivery(
            core.store, core.catalog, core.router, assets=self.images.assets, clock=self.clock
        )

    @property
    def desk(self) -> Webhooks:
        return Webhooks(self.core.store, signer=self.signer, allow_hosts=LOCAL, clock=self.clock)

    def clock(self) -> int:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += int(seconds * 1000)

    def deliverer(
        self, *, timeout: float = 30, allow_hosts: frozenset[str] = LOCAL, **client: Any
    ) -> Deliverer:
        return Deliverer(
            self.core.store,
            delivery=self.delivery,
            client=WebhookClient(allow_hosts, timeout_seconds=timeout, **client),
            signer=self.signer,
            base_url=BASE,
            clock=self.clock,
            chance=lambda: self.chance,
        )

    async def ended(self, url: str | None, *, good: bool = True) -> int:
        """A task that is at its end now."""
        store = self.core.store
        new = new_task(self.account)
        request = msgspec.structs.replace(new.request, callback_url=url)
        await store.submit(msgspec.structs.replace(new, request=request))
        task = await taken(store, new.id)
        if not good:
            await store.fail(task, failure("upstream_failed", "No."), now=self.now)
            return new.id
        number = await store.begin_attempt(task, channel_id=1, event=Event.RUN, now=self.now)
        result = [image(self.account)]
        await store.complete(task, number, images=result, actual=PRICE, cost=None, now=self.now)
        return new.id

    async def send(self, url: str, **options: Any) -> tuple[Webhook, dict[str, Any]]:
        """The delivery of a new task after all that is due was sent, and its only try."""
        task_id = await self.ended(url)
        await self.send_due(**options)
        (made,) = await self.history(task_id)
        return await self.webhook(task_id), made

    async def send_due(self, **options: Any) -> None:
        deliverer = self.deliverer(**options)
        await deliverer.send_due()
        await deliverer.stop(0)

    async def webhook(self, task_id: int) -> Webhook:
        found = await self.core.store.webhooks.of_task(task_id)
        assert found is not None
        return found

    async def history(self, task_id: int) -> list[dict[str, Any]]:
        shown = await self.desk.delivery(await read(self.core.store, task_id))
        history: list[dict[str, Any]] = shown["history"]
        return history

    def secret(self, version: int = 1) -> str:
        return self.signer.secret(self.account, version)

    def gap(self, webhook: Webhook) -> float:
        """Seconds until the next try."""
        assert webhook.next_at is not None
        return (webhook.next_at - self.now) / 1000


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    core = build_core(Settings(data_dir=tmp_path))
    await core.store.migrate()
    images = Images(core)
    yield Bench(core, images, await funded(core.store, credit=1000 * PRICE))
    await images.close()
    await core.store.close()


def verified(message: Message, secret: str) -> dict[str, Any]:
    """The body, by the official library."""
    document: dict[str, Any] = Verifier(secret).verify(message.body, message.headers)
    return document


# What arrives


@pytest.mark.parametrize("good", [True, False])
async def test_what_arrives_is_the_task_as_reading_it_gives_it_and_is_signed(
    bench: Bench,
    good: bool,  # noqa: FBT001 -- both ends
) -> None:
    async with receiving(answer(200, body=b"thanks")) as receiver:
        task_id = await bench.ended(f"{receiver.url}?token=t%20x", good=good)
        await bench.send_due()
        (message,) = receiver.got
    assert message.line == "POST /hook?token=t%20x HTTP/1.1"
    assert message.headers["content-type"] == "application/json"
    assert message.headers["user-agent"].startswith("Calotype/")
    word = encode("task", task_id)
    assert message.id == f"msg_{word.removeprefix('task_')}"
    document = verified(message, bench.secret())
    assert document.pop("event") == ("task.success" if good else "task.fail")
    assert document.pop("webhook_delivery") == {
        "state": "pending",
        "attempts": 1,
        "last_status": None,
    }
    shown = await bench.delivery.document(await read(bench.core.store, task_id), base_url=BASE)
    assert shown.pop("webhook_delivery") == {
        "state": "delivered",
        "attempts": 1,
        "last_status": 200,
    }
    assert document == json.loads(msgspec.json.encode(shown))
    (made,) = await bench.history(task_id)
    assert (made["status"], made["error"], made["reply"]) == (200, None, "thanks")
    assert made["at"] == bench.now // 1000


async def test_a_changed_body_or_another_accounts_secret_is_not_verified(bench: Bench) -> None:
    async with receiving() as receiver:
        await bench.send(receiver.url)
    (message,) = receiver.got
    with pytest.raises(WebhookVerificationError):
        verified(message, bench.signer.secret(bench.account + 1, 1))
    with pytest.raises(WebhookVerificationError):
        verified(msgspec.structs.replace(message, body=message.body + b" "), bench.secret())
    with pytest.raises(WebhookVerificationError):
        verified(message, Signer(b"another server").secret(bench.account, 1))


async def test_while_a_secret_is_replaced_both_sign_and_then_only_the_new_one(
    bench: Bench,
) -> None:
    async with receiving() as receiver:
        await bench.send(receiver.url)
        shown = await bench.desk.rotate(bench.account, overlap_seconds=60)
        assert [one["secret"] for one in shown["secrets"]] == [bench.secret(2), bench.secret(1)]
        assert shown["secrets"][1]["expires_at"] == bench.now // 1000 + 60
        await bench.send(receiver.url)
        bench.forward(60)
        await bench.send(receiver.url)
    before, during, after = receiver.got
    assert verified(before, bench.secret(1))
    assert verified(during, bench.secret(1)) == verified(during, bench.secret(2))
    assert verified(after, bench.secret(2))
    with pytest.raises(WebhookVerificationError):
        verified(after, bench.secret(1))
    assert [one["secret"] for one in (await bench.desk.settings(bench.account))["secrets"]] == [
        bench.secret(2)
    ]


# How receivers fail


FAULTS: dict[str, tuple[Script, int | None, str]] = {
    "hangs": (hang, None, "no answer within 0.3 seconds"),
    "is cut off": (cut, None, "connection to the host of the webhook URL broke"),
    "answers 500": (answer(500, body=b"oh"), 500, "HTTP status 500"),
    "answers 404": (answer(404), 404, "HTTP status 404"),
    "answers no HTTP": (answer(99999), None, "valid HTTP"),
    "redirects": (answer(301, "Location: /elsewhere"), 301, "redirect"),
    "redirects a POST": (answer(307, "Location: /elsewhere"), 307, "not followed"),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_receiver_that_fails_is_tried_again_after_five_seconds(
    bench: Bench, fault: str
) -> None:
    script, status, error = FAULTS[fault]
    async with receiving(script, OK) as receiver:
        webhook, made = await bench.send(receiver.url, timeout=0.3)
        assert len(receiver.got) == 1, "a redirect was followed"
        assert (webhook.state, webhook.attempts, webhook.last_status) == ("pending", 1, status)
        assert (made["status"], bench.gap(webhook)) == (status, 5)
        assert error in made["error"]
        bench.forward(4.9)
        await bench.send_due()
        assert len(receiver.got) == 1
        bench.forward(0.1)
        await bench.send_due()
        first, second = receiver.got
    assert (await bench.webhook(webhook.task_id)).state == "delivered"
    assert first.id == second.id
    assert first.headers["webhook-timestamp"] != second.headers["webhook-timestamp"]
    assert verified(second, bench.secret())["webhook_delivery"]["attempts"] == 2


async def test_a_receiver_that_takes_no_connection_is_tried_again(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    webhook, made = await bench.send(f"http://127.0.0.1:{port}/hook")
    assert (webhook.state, made["status"], bench.gap(webhook)) == ("pending", None, 5)
    assert "cannot be connected to" in made["error"]
    assert str(port) not in made["error"]


async def test_a_certificate_of_nobody_is_not_spoken_to(bench: Bench, tmp_path: Path) -> None:
    async with Receiver().up(tls=serving_tls(tmp_path)) as receiver:
        url = receiver.url.replace("127.0.0.1", "images.example")
        names = Lookup(images_example=[["127.0.0.1"]])
        options: dict[str, Any] = {"allow_hosts": LOCAL, "resolver": names}
        webhook, made = await bench.send(url, **options)
        assert (webhook.state, made["error"]) == (
            "pending",
            "The host of the webhook URL has no valid TLS certificate.",
        )
        assert receiver.got == []
        trusted: ssl.SSLContext = trusting()
        bench.forward(5)
        await bench.send_due(**options, tls=trusted)
        assert len(receiver.got) == 1


@pytest.mark.parametrize("script", [drip, flood], ids=["drips", "never ends"])
async def test_a_good_status_counts_whatever_becomes_of_the_body(
    bench: Bench, script: Script
) -> None:
    async with receiving(script) as receiver:
        webhook, made = await bench.send(receiver.url)
    assert (webhook.state, made["status"], made["error"]) == ("delivered", 200, None)
    assert len(made["reply"]) <= 500
    assert made["reply"].isprintable()


async def test_a_good_answer_that_takes_its_time_counts(bench: Bench) -> None:
    taken_in = asyncio.Event()

    async def late(writer: asyncio.StreamWriter) -> None:
        await taken_in.wait()
        await OK(writer)

    async with receiving(late) as receiver:
        sending = asyncio.create_task(bench.send(receiver.url))
        await receiver.received(1)
        taken_in.set()
        webhook, _ = await sending
    assert webhook.state == "delivered"


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(("asked", "waited"), [("120", 120), ("1", 5), ("999999999", DAY)])
async def test_a_receiver_that_asks_for_time_gets_it(
    bench: Bench, status: int, asked: str, waited: int
) -> None:
    async with receiving(answer(status, f"Retry-After: {asked}")) as receiver:
        webhook, _ = await bench.send(receiver.url)
    assert (webhook.state, bench.gap(webhook)) == ("pending", waited)


async def test_what_other_statuses_ask_for_is_not_heard(bench: Bench) -> None:
    async with receiving(answer(500, "Retry-After: 120")) as receiver:
        webhook, _ = await bench.send(receiver.url)
    assert bench.gap(webhook) == 5


async def test_the_published_schedule_is_kept_to_its_end_three_days_later(bench: Bench) -> None:
    async with receiving(answer(500)) as receiver:
        task_id = await bench.ended(receiver.url)
        gaps, begun = [], bench.now
        while (webhook := await bench.webhook(task_id)).state == "pending":
            gaps.append(bench.gap(webhook))
            bench.forward(gaps[-1])
            await bench.send_due()
    assert gaps == list(GAPS_SECONDS)
    assert 3 * DAY < (bench.now - begun) / 1000 < 3.5 * DAY
    assert (webhook.state, webhook.attempts, webhook.last_status) == ("failed", 10, 500)
    assert len({message.id for message in receiver.got}) == 1
    assert len(await bench.history(task_id)) == 10
    bench.forward(30 * DAY)
    await bench.send_due()
    assert len(receiver.got) == 10


async def test_gaps_are_up_to_a_fifth_longer(bench: Bench) -> None:
    bench.chance = 1.0
    async with receiving(answer(500)) as receiver:
        webhook, _ = await bench.send(receiver.url)
    assert bench.gap(webhook) == 6


async def test_gone_switches_the_url_off_until_the_owner_sets_it_again(bench: Bench) -> None:
    async with receiving(answer(410), OK) as receiver:
        webhook, made = await bench.send(receiver.url)
        assert (webhook.state, webhook.next_at) == ("disabled", None)
        assert "410" in made["error"]
        shown = await bench.desk.settings(bench.account)
        assert shown["disabled_urls"] == [receiver.url]
        later = await bench.ended(receiver.url)
        await bench.send_due()
        assert (await bench.webhook(later)).state == "disabled"
        assert len(receiver.got) == 1
        await bench.desk.set_url(bench.account, receiver.url)
        await bench.ended(receiver.url)
        await bench.send_due()
        assert len(receiver.got) == 2


async def test_a_redelivery_that_is_taken_switches_the_url_on(bench: Bench) -> None:
    async with receiving(answer(410), OK) as receiver:
        webhook, _ = await bench.send(receiver.url)
        bench.forward(1)
        shown = await bench.desk.redeliver(await read(bench.core.store, webhook.task_id))
        assert (shown["state"], shown["attempts"], len(shown["history"])) == ("pending", 1, 1)
        await bench.send_due()
        assert (await bench.webhook(webhook.task_id)).state == "delivered"
        assert (await bench.desk.settings(bench.account))["disabled_urls"] == []
        assert receiver.got[0].id == receiver.got[1].id


async def test_a_redelivery_goes_to_where_the_account_is_told_by_now(bench: Bench) -> None:
    async with receiving(answer(500)) as wrong, receiving() as right:
        await bench.desk.set_url(bench.account, wrong.url)
        task_id = await bench.ended(None)
        await bench.send_due()
        await bench.desk.set_url(bench.account, right.url)
        bench.forward(5)
        await bench.send_due()
        assert (len(wrong.got), len(right.got)) == (2, 0), "a round keeps to its URL"
        await bench.desk.redeliver(await read(bench.core.store, task_id))
        await bench.send_due()
        assert (len(wrong.got), len(right.got)) == (2, 1)
        await bench.desk.set_url(bench.account, None)
        await bench.desk.redeliver(await read(bench.core.store, task_id))
        await bench.send_due()
        assert len(right.got) == 2


# Where nothing is sent to


@pytest.mark.parametrize(
    ("host", "addresses", "error"),
    [
        ("hooks.example.com", ["10.0.0.7"], "does not resolve to a public address"),
        ("hooks.example.com", ["93.184.216.34", "127.0.0.1"], "does not resolve to a public"),
        ("127.0.0.1", [], "must lead to a public address"),
        ("[::1]", [], "must lead to a public address"),
    ],
)
async def test_private_addresses_are_not_sent_to(
    bench: Bench, host: str, addresses: list[str], error: str
) -> None:
    async with receiving() as receiver:
        url = receiver.url.replace("127.0.0.1", host)
        names = Lookup(hooks_example_com=[addresses])
        webhook, made = await bench.send(url, allow_hosts=frozenset(), resolver=names)
        assert (webhook.state, made["status"]) == ("pending", None)
        assert error in made["error"]
        assert "10.0.0.7" not in made["error"]
        assert receiver.got == []


# Many at once


async def test_a_receiver_that_hangs_holds_nobody_else_up(bench: Bench) -> None:
    async with receiving(hang) as dead, receiving() as quick:
        for _ in range(80):
            await bench.ended(dead.url)
        ids = {await bench.ended(quick.url) for _ in range(20)}
        deliverer = bench.deliverer()
        await deliverer.start()
        got = await quick.received(20)
        await deliverer.stop(0)
        assert {message.id for message in got} == {
            f"msg_{encode('task', task_id).removeprefix('task_')}" for task_id in ids
        }
        assert len(dead.got) <= 16


async def test_an_account_that_names_a_slow_host_holds_up_no_other_account_there(
    bench: Bench,
) -> None:
    async with receiving(hang) as shared:
        for _ in range(20):
            await bench.ended(f"{shared.url}/of-alice")
        deliverer = bench.deliverer()
        await deliverer.start()
        await shared.received(8)
        shared.then(OK)
        bench.account = await funded(bench.core.store, name="bob", credit=10 * PRICE)
        await bench.ended(f"{shared.url}/of-bob")
        got = await shared.received(9)
        await deliverer.stop(0)
    assert "of-bob" in got[8].line


async def test_an_account_that_names_many_hosts_that_hang_holds_up_no_other_account(
    bench: Bench,
) -> None:
    names = Lookup(**{f"h{place}_example_com": [["127.0.0.1"]] for place in range(200)})
    async with receiving(hang) as dead, receiving() as quick:
        for place in range(200):
            await bench.ended(dead.url.replace("127.0.0.1", f"h{place}.example.com"))
        deliverer = bench.deliverer(resolver=names)
        await deliverer.start()
        await dead.received(AT_A_TIME // 2)
        bench.account = await funded(bench.core.store, name="bob", credit=10 * PRICE)
        await bench.ended(quick.url)
        await quick.received(1)
        await deliverer.stop(0)
        assert len(dead.got) == AT_A_TIME // 2


class SlowNames(Lookup):
    """DNS whose answer for one host comes when it is told to, whoever gave up waiting for it."""

    def __init__(self, slow: str) -> None:
        super().__init__()
        self.slow = slow
        self.free = asyncio.Event()

    async def resolve(self, host: str, *args: Any) -> Any:
        if host != self.slow:
            return await super().resolve(host, *args)
        self.asked.append(host)
        await self.free.wait()
        raise OSError


async def test_a_place_is_held_until_its_name_lookup_has_ended(bench: Bench) -> None:
    names = SlowNames("slow.example.com")
    task_id = await bench.ended("http://slow.example.com/")
    deliverer = bench.deliverer(resolver=names, timeout=0.01)
    sending = asyncio.create_task(deliverer.send_due())
    while not await bench.history(task_id):
        await asyncio.sleep(0.01)
    assert bench.gap(await bench.webhook(task_id)) == 5
    bench.forward(5)
    assert not sending.done()
    assert names.asked == ["slow.example.com"]
    names.free.set()
    await sending
    await deliverer.stop(0)
    assert names.asked == ["slow.example.com"] * 2


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("https://EXAMPLE.com./x", "example.com:443"),
        ("https://example.com:0443/x", "example.com:443"),
        ("http://example.com?x", "example.com:80"),
        ("http://[2606:4700::1111]/x", "[2606:4700::1111]:80"),
        ("nothing", ""),
    ],
)
def test_spellings_of_a_host_and_port_share_a_turn(url: str, endpoint: str) -> None:
    assert receiver_of(7, url) == f"7/{endpoint}"
    assert account_of(receiver_of(7, url)) == 7


async def test_restarts_do_not_use_up_the_schedule(bench: Bench) -> None:
    async with receiving(hang) as receiver:
        task_id = await bench.ended(receiver.url)
        for number in range(1, 11):
            deliverer = bench.deliverer()
            await deliverer.start()
            await receiver.received(number)
            assert (await bench.webhook(task_id)).next_at is None, "it is under way"
            await deliverer.stop(0)
        receiver.then(answer(503))
        deliverer = bench.deliverer()
        await deliverer.start()
        await receiver.received(11)
        await deliverer.stop(5)
    webhook = await bench.webhook(task_id)
    assert (webhook.state, webhook.attempts, bench.gap(webhook)) == ("pending", 11, 5)


async def test_what_ends_while_it_runs_is_sent_at_once(bench: Bench) -> None:
    deliverer = bench.deliverer()
    await deliverer.start()
    async with receiving() as receiver:
        for number in range(1, 4):
            await bench.ended(receiver.url)
            assert len(await receiver.received(number)) == number
    await deliverer.stop(5)


async def test_what_was_being_sent_when_it_stopped_is_sent_by_the_next_one_at_its_start(
    bench: Bench,
) -> None:
    async with receiving(hang) as receiver:
        await bench.ended(receiver.url)
        first = bench.deliverer()
        await first.start()
        await receiver.received(1)
        await first.stop(0)
        receiver.then(OK)
        second = bench.deliverer()
        await second.start()
        one, two = await receiver.received(2)
        await second.stop(5)
        assert one.id == two.id
        bench.forward(LEASE_MS)
        await bench.send_due()
        assert len(receiver.got) == 2


@pytest.mark.parametrize(
    ("settings", "own_url", "named", "warned"),
    [
        ({}, "http://127.0.0.1:81", "http://127.0.0.1:81", False),
        ({}, "http://0.0.0.0:81", "http://127.0.0.1:81", True),
        ({}, "http://[::]:81", "http://[::1]:81", True),
        ({}, "", "http://127.0.0.1:8080", True),
        ({"public_url": "https://a.example/"}, "http://[::]:81", "https://a.example", False),
        ({"public_url": "https://a.example/"}, "", "https://a.example", False),
    ],
)
async def test_images_are_named_by_an_address_that_can_be_reached_or_the_log_says_so(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    *,
    settings: dict[str, Any],
    own_url: str,
    named: str,
    warned: bool,
) -> None:
    assert images_at(Settings(data_dir=tmp_path, **settings), own_url) == named
    assert ("public_url is not set" in caplog.text) is warned


async def test_nothing_that_a_url_may_hold_is_logged(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with receiving(answer(500)) as receiver:
        await bench.send(f"{receiver.url}/path-token?query-token=1")
    told = [record.getMessage() for record in caplog.records if record.name != "asyncio"]
    assert any("HTTP status 500" in line for line in told)
    assert not any("path-token" in line or "query-token" in line for line in told)
    assert not any(bench.secret() in line for line in told)
