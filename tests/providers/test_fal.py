"""What is fal's own: paths, results that are errors, storage, and callbacks by published keys."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calotype.domain.outcomes import (
    Accepted,
    Done,
    Failed,
    Fault,
    Refused,
    Running,
    TryLater,
    Unknown,
)
from calotype.providers import fal_callbacks
from calotype.providers.fal import Fal as Provider
from calotype.providers.line import Tools
from providers.answers import JSON
from providers.bed import (
    CALLBACK_URL,
    Bed,
    content,
    developed,
    followed,
    protocols,
    reference,
    upstream,
)
from providers.fakes.base import KEY, Fake, Order, Phase, image
from providers.fakes.exchange import Call, Reply
from providers.fakes.fal import FOREIGN_URLS, NO_URLS, RESULT_RETRYABLE, Fal, broken, refused
from providers.protocol import Protocol
from providers.scripts import Script

HOUR_MS = 3_600_000


@pytest.fixture
def protocol() -> Protocol:
    return protocols()["fal"]


class Scripted(Fal):
    """fal, with what a test has it say."""

    status: dict[str, Any] | None = None
    outcome: Reply | None = None
    initiated: Reply | None = None
    stored: Reply | None = None
    keys: Reply | None = None

    def told(self, order: Order, phase: Phase) -> Reply:
        told = super().told(order, phase)
        return told if self.status is None else replace(told, document=self.status)

    def result(self, call: Call) -> Reply:
        return self.outcome or super().result(call)

    def initiate(self, call: Call) -> Reply:
        return self.initiated or super().initiate(call)

    def upload(self, call: Call) -> Reply:
        return self.stored or super().upload(call)

    def jwks(self, call: Call) -> Reply:
        return self.keys or super().jwks(call)


def paths(fake: Fake) -> list[tuple[str, str]]:
    return [(call.method, call.path) for call in fake.calls if call.to_upstream]


# Paths


@pytest.mark.parametrize("script", [Script.ACCEPT, FOREIGN_URLS, NO_URLS])
async def test_a_job_is_asked_about_without_the_models_sub_path(bed: Bed, script: str) -> None:
    edit = bed.protocol.examples[1]
    async with bed.fake(script) as fake:
        provider, job = bed.provider(bed.channel(fake, edit)), bed.job(edit)
        assert isinstance(await developed(provider, job), Done)
        (order,) = fake.bought
        assert not await provider.cancel(job, order.id)
    place = f"/fal-ai/nano-banana-pro/requests/{order.id}"
    assert paths(fake) == [
        ("POST", "/fal-ai/nano-banana-pro/edit"),
        ("GET", f"{place}/status"),
        ("GET", f"{place}/status"),
        ("GET", place),
        ("PUT", f"{place}/cancel"),
    ]
    fake.assert_sound()


@pytest.mark.parametrize(
    "hostile",
    [
        "{url}@evil.example/x",
        "{url}.evil.example/x",
        "{url}/https://evil.example/x",
        "{url}/x y",
        "{url}/x\r\nHost: evil.example",
        "{url}/" + "x" * 5000,
        "//evil.example/x",
        "file:///etc/passwd",
        ["{url}/x"],
        None,
    ],
)
async def test_a_url_that_is_not_the_channels_own_is_not_kept(bed: Bed, hostile: object) -> None:
    async with bed.fake() as fake:
        url = hostile.replace("{url}", fake.url) if isinstance(hostile, str) else hostile
        fake.tamper = saying(status_url=url, response_url=url)
        accepted = await bed.provider(bed.channel(fake)).submit(bed.job())
    assert isinstance(accepted, Accepted)
    name, status, result, _ = accepted.upstream_id.split(" ")
    assert result == f"fal-ai/nano-banana-pro/requests/{name}"
    assert status == f"{result}/status"


async def test_the_webhook_goes_out_in_the_query_and_nothing_else_changes(bed: Bed) -> None:
    async with bed.fake() as fake:
        provider = bed.provider(bed.channel(fake))
        await provider.submit(bed.job(callback_url=CALLBACK_URL))
        await provider.submit(bed.job())
    told, plain = (order.call for order in fake.bought)
    assert told.query == (("fal_webhook", CALLBACK_URL),)
    assert (told.path, told.document, plain.query) == (plain.path, plain.document, ())


# States


@pytest.mark.parametrize(
    ("position", "seconds"),
    [(0, 1), (1, 1.5), (8, 5), (1000, 10), (10**400, 10), (-4, 1), ("7", 1), (None, 1), (2.5, 1)],
)
async def test_a_long_queue_is_asked_less_often(bed: Bed, position: object, seconds: float) -> None:
    async with scripted() as fake:
        fake.status = {"status": "IN_QUEUE", "queue_position": position}
        outcome = await polled_once(bed, fake)
    assert outcome == Running(queued=True, poll_after=seconds)


ERRORS = upstream("fal").protocol["errors"]
ENDS = {
    "policy": ("content_policy_violation", Fault.POLICY),
    "request": ("upstream_rejected", Fault.REQUEST),
    "failed": ("upstream_failed", Fault.UPSTREAM),
    "cancelled": ("cancelled", Fault.UPSTREAM),
}


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("shape", ["model", "request", "header", "status"])
async def test_every_documented_error_has_its_outcome(bed: Bed, kind: str, shape: str) -> None:
    async with scripted() as fake:
        fake.status = {"status": "COMPLETED"}
        match shape:
            case "model":
                fake.outcome = Reply(422, refused(kind, "So it is."))
            case "request":
                fake.outcome = Reply(500, broken(kind, "So it is."))
            case "header":
                fake.outcome = Reply(504, {"detail": 7}, headers={"X-Fal-Error-Type": kind})
            case _:
                fake.status |= {"error": "So it is.", "error_type": kind}
                fake.outcome = Reply(500, {})
        outcome = await polled_once(bed, fake)
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.fault) == ENDS[ERRORS[kind]]


@pytest.mark.parametrize(
    ("kind", "retryable", "told_of", "expected"),
    [
        ("runner_server_error", "true", False, TryLater),
        ("runner_server_error", "false", False, Failed),
        ("runner_server_error", None, False, Failed),
        # The run itself ended badly: reading its result again changes nothing.
        ("runner_server_error", "true", True, Failed),
        ("content_policy_violation", "true", False, Failed),
        ("image_too_large", "true", False, Failed),
        ("client_cancelled", "true", False, Failed),
        # Of no known type: what the header says, else the status.
        ("brand_new_error", "true", False, TryLater),
        ("brand_new_error", "false", False, Failed),
        ("brand_new_error", None, False, TryLater),
        ("brand_new_error", None, True, Failed),
        ("brand_new_error", "false", True, Failed),
        ("brand_new_error", "true", True, TryLater),
    ],
)
async def test_the_result_is_read_again_only_where_that_can_help(
    bed: Bed, kind: str, retryable: str | None, *, told_of: bool, expected: type
) -> None:
    async with scripted() as fake:
        fake.status = {"status": "COMPLETED"} | ({"error": "It broke."} if told_of else {})
        headers = {} if retryable is None else {"X-Fal-Retryable": retryable}
        fake.outcome = Reply(503, broken(kind, "It broke."), headers=headers)
        outcome = await polled_once(bed, fake)
    assert isinstance(outcome, expected), outcome


@pytest.mark.parametrize(
    ("status", "expected"), [(401, TryLater), (403, TryLater), (404, Unknown), (429, TryLater)]
)
async def test_a_question_that_was_refused_itself_says_nothing_of_the_run(
    bed: Bed, status: int, expected: type
) -> None:
    async with scripted() as fake:
        fake.status = {"status": "COMPLETED"}
        fake.outcome = Reply(status, {"detail": "No."}, headers={"X-Fal-Retryable": "false"})
        outcome = await polled_once(bed, fake)
    assert isinstance(outcome, expected), outcome


@pytest.mark.parametrize(
    ("flags", "safe"),
    [([True], 0), ([False], 1), ([], 1), (None, 1), ("true", 1), ([None, True], 1)],
)
async def test_an_image_that_is_flagged_as_unsafe_is_not_handed_out(
    bed: Bed, flags: object, safe: int
) -> None:
    async with scripted() as fake:
        fake.status = {"status": "COMPLETED"}
        images = [{"url": "https://v3.fal.example/1.png"}]
        fake.outcome = Reply(200, {"images": images, "has_nsfw_concepts": flags})
        outcome = await polled_once(bed, fake)
    if safe:
        assert isinstance(outcome, Done)
        assert len(outcome.images) == safe
    else:
        assert isinstance(outcome, Failed)
        assert (outcome.code, outcome.fault) == ("content_policy_violation", Fault.POLICY)


@pytest.mark.parametrize("status", [200, 422])
async def test_a_breach_of_policy_among_other_findings_decides(bed: Bed, status: int) -> None:
    findings = [{"type": kind, "msg": kind} for kind in ("missing", "content_policy_violation")]
    async with scripted() as fake:
        fake.status = {"status": "COMPLETED", "error_type": "value_error"}
        fake.outcome = Reply(status, {"detail": findings})
        polled = await polled_once(bed, fake)
        fake.tamper = lambda reply: replace(reply, status=422, document={"detail": findings})
        sent = await bed.provider(bed.channel(fake)).submit(bed.job())
    assert isinstance(polled, Failed)
    assert isinstance(sent, Refused)
    assert (polled.fault, sent.fault) == (Fault.POLICY, Fault.POLICY)


@pytest.mark.parametrize("status", [201, 202, 204])
async def test_a_result_that_is_not_there_yet_is_read_again(bed: Bed, status: int) -> None:
    async with scripted() as fake:
        fake.status = {"status": "COMPLETED"}
        fake.outcome = Reply(status, {"status": "IN_PROGRESS"})
        assert isinstance(await polled_once(bed, fake), TryLater)


@pytest.mark.parametrize(
    ("status", "expected", "fault"),
    [
        (400, Refused, Fault.REQUEST),
        (401, Refused, Fault.KEY),
        (403, Refused, Fault.ACCOUNT),
        (404, Refused, Fault.MODEL),
        (413, Refused, Fault.REQUEST),
        (422, Refused, Fault.REQUEST),
        (429, TryLater, Fault.BUSY),
        (307, Unknown, Fault.UPSTREAM),
        (408, Unknown, Fault.UPSTREAM),
        (409, Unknown, Fault.UPSTREAM),
        (499, Unknown, Fault.UPSTREAM),
        (500, Unknown, Fault.UPSTREAM),
        (502, Unknown, Fault.UPSTREAM),
        (503, Unknown, Fault.UPSTREAM),
        (504, Unknown, Fault.UPSTREAM),
    ],
)
async def test_every_answer_to_a_send_has_its_outcome(
    bed: Bed, status: int, expected: type, fault: Fault | None
) -> None:
    async with bed.fake() as fake:
        fake.tamper = lambda reply: replace(reply, status=status, document={"detail": "So it is."})
        outcome = await bed.provider(bed.channel(fake)).submit(bed.job())
    assert isinstance(outcome, expected)
    assert getattr(outcome, "fault", None) is fault


async def test_the_older_name_of_the_header_counts_too(bed: Bed) -> None:
    async with scripted() as fake:
        fake.status = {"status": "COMPLETED"}
        headers = {"X-Fal-Needs-Retry": "1", "Retry-After": "4"}
        fake.outcome = Reply(500, {"detail": "Later."}, headers=headers)
        outcome = await polled_once(bed, fake)
    assert isinstance(outcome, TryLater)
    assert outcome.retry_after == 4


async def test_an_image_is_taken_whatever_the_status_says_besides(bed: Bed) -> None:
    async with scripted() as fake:
        fake.status = {"status": "COMPLETED", "error": "Something."}
        outcome = await polled_once(bed, fake)
    assert isinstance(outcome, Done)


@pytest.mark.parametrize("status", [400, 403, 409, 418])
async def test_a_run_that_is_said_to_have_failed_ends_though_the_result_is_strange(
    bed: Bed, status: int
) -> None:
    async with scripted() as fake:
        fake.status = {"status": "COMPLETED", "error": "It broke."}
        fake.outcome = Reply(status, {"detail": "What?"})
        outcome = await polled_once(bed, fake)
    # A key that was changed meanwhile (403) says nothing of the run.
    assert isinstance(outcome, TryLater if status == 403 else Failed)


async def test_no_more_images_are_taken_than_were_asked_for(bed: Bed) -> None:
    async with scripted() as fake:
        fake.status = {"status": "COMPLETED"}
        place = f"{fake.elsewhere}/results/80e732af-660e-45cd-bd63-job-1"
        urls = [{"url": f"{place}/{each}.png"} for each in range(50)]
        fake.outcome = Reply(200, {"images": [None, 7, {"url": 7}, {"url": "ftp://x"}, *urls]})
        outcome = await polled_once(bed, fake)
        assert isinstance(outcome, Done)
        (source,) = outcome.images
        assert await content(source) == image(0)


async def test_a_result_that_may_be_read_again_is_not_bought_again(bed: Bed) -> None:
    async with bed.fake(RESULT_RETRYABLE) as fake:
        provider, job = bed.provider(bed.channel(fake)), bed.job()
        outcome = await developed(provider, job)
        assert isinstance(outcome, Done)
        assert [await content(source) for source in outcome.images] == [image(0)]
    assert (fake.sends, fake.purchases) == (1, 1)


async def test_a_job_that_ended_is_not_cancelled(bed: Bed) -> None:
    async with bed.fake() as fake:
        provider, job = bed.provider(bed.channel(fake)), bed.job()
        accepted = await provider.submit(job)
        assert isinstance(accepted, Accepted)
        assert isinstance(await followed(provider, job, accepted.upstream_id), Done)
        assert not await provider.cancel(job, accepted.upstream_id)


@pytest.mark.parametrize("name", ["", "a b", "../x", "x" * 300, "é", 7, None, ["x"]])
async def test_a_send_without_a_usable_id_may_have_been_bought(bed: Bed, name: object) -> None:
    async with bed.fake() as fake:
        fake.tamper = saying(request_id=name)
        outcome = await bed.provider(bed.channel(fake)).submit(bed.job())
    assert isinstance(outcome, Unknown)


# References


async def test_large_references_are_uploaded_in_order_and_the_key_stays_here(bed: Bed) -> None:
    edit = bed.protocol.examples[1]
    async with bed.fake() as fake:
        outcome = await uploading(bed, fake).submit(bed.job(edit))
    assert isinstance(outcome, Accepted)
    (order,) = fake.bought
    assert all(url.startswith("https://") for url in order.call.document["image_urls"])
    assert fake.understand(order.call).references == tuple(map(reference, range(3)))
    puts = fake.calls_to("PUT", ".png")
    assert [call.body for call in puts] == list(map(reference, range(3)))
    assert all(KEY.encode() not in call.everything for call in puts)
    fake.assert_sound()


@pytest.mark.parametrize(
    "goal",
    [
        "{elsewhere}/uploads/x",
        "http://169.254.169.254/x",
        "http://v3.fal.media/x",
        "https://fal.media.evil.example/x",
        "https://evilfal.media/x",
        "https://user@v3.fal.media/x",
        "https://v3.fal.media:8443/x",
        "https://v3.fal.media:99999/x",
        "https://..fal.media/x",
        "https://evil.example\\.fal.media/x",
        "https://[/x",
    ],
)
async def test_no_clients_image_goes_to_a_host_that_is_not_fals(bed: Bed, goal: str) -> None:
    edit = bed.protocol.examples[1]
    async with scripted() as fake:
        document = {
            "upload_url": goal.replace("{elsewhere}", fake.elsewhere),
            "file_url": "https://v3.fal.media/x",
        }
        fake.initiated = Reply(200, document)
        outcome = await uploading(bed, fake).submit(bed.job(edit))
    assert isinstance(outcome, Accepted)
    (order,) = fake.bought
    assert fake.understand(order.call).references == tuple(map(reference, range(3)))
    fake.assert_sound()


@pytest.mark.parametrize(
    ("step", "status", "expected", "fault"),
    [
        ("initiated", 401, Refused, Fault.KEY),
        ("initiated", 403, Refused, Fault.ACCOUNT),
        ("initiated", 429, TryLater, Fault.BUSY),
        ("initiated", 500, TryLater, Fault.BUSY),
        # A signed URL that is not taken says nothing of our key.
        ("stored", 403, TryLater, Fault.BUSY),
        ("stored", 503, TryLater, Fault.BUSY),
    ],
)
async def test_nothing_is_bought_when_storage_fails(
    bed: Bed, step: str, status: int, expected: type, fault: Fault
) -> None:
    async with scripted() as fake:
        setattr(fake, step, Reply(status, {"detail": "No."}, headers={"Retry-After": "3"}))
        outcome = await uploading(bed, fake).submit(bed.job(bed.protocol.examples[1]))
    assert isinstance(outcome, expected)
    assert isinstance(outcome, Refused | TryLater)
    assert (outcome.fault, fake.purchases) == (fault, 0)


@pytest.mark.parametrize("document", [None, [], {}, {"upload_url": 7, "file_url": None}, "x"])
async def test_storage_that_makes_no_sense_is_asked_again_later(bed: Bed, document: Any) -> None:
    async with scripted() as fake:
        fake.initiated = Reply(200, document)
        outcome = await uploading(bed, fake).submit(bed.job(bed.protocol.examples[1]))
    assert isinstance(outcome, TryLater)
    assert fake.purchases == 0


def test_storage_is_fals_own_only_where_the_queue_is(bed: Bed) -> None:
    data = upstream("fal")
    tools = Tools(client=bed.client, clock=bed.clock)
    usual = msgspec.structs.replace(bed.channel(Fake(url="")), base_url="")

    def rest(**changes: Any) -> str:
        made = Provider(msgspec.structs.replace(usual, **changes), data, tools)
        return made._storage._line.base_url

    assert rest() == "https://rest.fal.ai"
    assert rest(base_url="https://proxy.example/fal") == "https://proxy.example/fal"
    named = {"rest_url": "https://rest.proxy.example"}
    assert rest(base_url="https://proxy.example", options=named) == "https://rest.proxy.example"


# Callbacks


async def test_the_keys_are_fetched_once_and_without_ours(bed: Bed) -> None:
    async with bed.fake() as fake:
        provider = bed.provider(bed.channel(fake))
        await provider.submit(bed.job())
        assert not fake.calls_to("GET", "jwks.json")
        for _ in range(3):
            await provider.submit(bed.job(callback_url=CALLBACK_URL))
        (call,) = fake.calls_to("GET", "jwks.json")
        assert KEY.encode() not in call.everything
        bed.clock.forward(12 * HOUR_MS)
        await provider.submit(bed.job(callback_url=CALLBACK_URL))
        assert len(fake.calls_to("GET", "jwks.json")) == 2
    fake.assert_sound()


async def test_keys_older_than_a_day_prove_nothing(bed: Bed) -> None:
    async with scripted() as fake:
        provider = bed.provider(bed.channel(fake))
        await provider.submit(bed.job(callback_url=CALLBACK_URL))
        (order,) = fake.bought
        fake.keys = Reply(500, {})
        bed.clock.forward(24 * HOUR_MS - 1)
        assert provider.callback(*fake.delivery(order, at=bed.clock.now)) == order.id
        bed.clock.forward(1)
        assert provider.callback(*fake.delivery(order, at=bed.clock.now)) is None


async def test_a_process_that_never_sent_learns_the_keys_from_the_first_callback(
    bed: Bed,
) -> None:
    async with bed.fake() as fake:
        await bed.provider(bed.channel(fake)).submit(bed.job())
        (order,) = fake.bought
        provider = bed.provider(bed.channel(fake))
        assert isinstance(provider, Provider)
        delivery = fake.delivery(order, at=bed.clock.now)
        assert provider.callback(*delivery) is None
        assert provider._keys._fetching is not None
        await provider._keys._fetching
        assert provider.callback(*delivery) == order.id


async def test_forged_callbacks_make_nobody_fetch_keys_in_a_row(bed: Bed) -> None:
    async with scripted() as fake:
        fake.keys = Reply(500, {})
        provider = bed.provider(bed.channel(fake))
        assert isinstance(provider, Provider)
        for _ in range(50):
            assert provider.callback({}, b"{}") is None
            if provider._keys._fetching is not None:
                await provider._keys._fetching
    assert len(fake.calls_to("GET", "jwks.json")) == 1


async def test_a_key_server_that_is_down_stops_no_send_and_the_next_one_asks_again(
    bed: Bed,
) -> None:
    async with scripted() as fake:
        fake.keys = Reply(503, body=b"<h1>", content_type="text/html")
        provider, job = bed.provider(bed.channel(fake)), bed.job(callback_url=CALLBACK_URL)
        assert isinstance(await provider.submit(job), Accepted)
        fake.keys = None
        assert isinstance(await provider.submit(job), Accepted)
        order = fake.bought[0]
        assert provider.callback(*fake.delivery(order, at=bed.clock.now)) == order.id


async def test_sends_at_the_same_time_fetch_the_keys_once(bed: Bed) -> None:
    async with bed.fake() as fake:
        provider, job = bed.provider(bed.channel(fake)), bed.job(callback_url=CALLBACK_URL)
        await asyncio.gather(*(provider.submit(job) for _ in range(20)))
    assert len(fake.calls_to("GET", "jwks.json")) == 1


async def test_closing_stops_the_fetching_of_keys(bed: Bed) -> None:
    async with bed.fake() as fake:
        provider = bed.provider(bed.channel(fake))
        assert isinstance(provider, Provider)
        assert provider.callback({}, b"") is None
        fetching = provider._keys._fetching
        assert isinstance(fetching, asyncio.Task)
        await provider.close()
        assert fetching.done()


KEYS = st.recursive(
    JSON | st.sampled_from(["OKP", "Ed25519", "AAAA", "é", "A" * 43]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.fixed_dictionaries({}, optional=dict.fromkeys(["kty", "crv", "x"], inner))
        | st.fixed_dictionaries({"kty": st.just("OKP"), "crv": st.just("Ed25519"), "x": inner})
    ),
    max_leaves=6,
)


@given(document=JSON | st.fixed_dictionaries({"keys": KEYS | st.lists(KEYS, max_size=30)}))
def test_a_set_of_keys_may_hold_anything(document: Any) -> None:
    assert len(fal_callbacks._read(document)) <= fal_callbacks.MOST_KEYS


# Answers that nobody foresaw


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_random_documents_always_have_an_outcome(bed: Bed, data: st.DataObject) -> None:
    def said(reply: Reply) -> Reply:
        known = reply.document if isinstance(reply.document, dict) else {}
        other = {name: data.draw(JSON) for name in known if data.draw(st.booleans())}
        return replace(reply, document=data.draw(st.just(known | other) | JSON))

    async with scripted() as fake:
        provider, job = bed.provider(bed.channel(fake)), bed.job()
        accepted = await provider.submit(job)
        assert isinstance(accepted, Accepted)
        fake.tamper = said
        assert isinstance(await provider.submit(job), Accepted | Unknown)
        fake.status = {"status": "COMPLETED", "error": None, "error_type": None}
        for upstream_id in (accepted.upstream_id, "job-1"):
            polled = await provider.poll(job, upstream_id)
            assert isinstance(polled, Running | Done | TryLater | Failed | Unknown)


# Helpers


@asynccontextmanager
async def scripted() -> AsyncIterator[Scripted]:
    """fal, whose answers a test sets."""
    fake = Scripted()
    async with fake.running():
        yield fake


def saying(**fields: object) -> Callable[[Reply], Reply]:
    """Changes these fields of every answer."""
    return lambda reply: replace(reply, document={**reply.document, **fields})


def uploading(bed: Bed, fake: Fake) -> Provider:
    """A provider that uploads every reference."""
    data = upstream("fal")
    data = msgspec.structs.replace(data, protocol=data.protocol | {"inline_bytes": 0})
    channel = bed.channel(fake, bed.protocol.examples[1])
    return Provider(channel, data, Tools(client=bed.client, clock=bed.clock))


async def polled_once(bed: Bed, fake: Fake) -> object:
    """What the first question about an accepted job brings."""
    provider, job = bed.provider(bed.channel(fake)), bed.job()
    accepted = await provider.submit(job)
    assert isinstance(accepted, Accepted)
    return await provider.poll(job, accepted.upstream_id)
