"""Replicate alone: its own SDK as the oracle of the wire, files, webhooks, and texts."""

import io
import warnings
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Final

import msgspec
import pytest

from calotype.domain.channel import Served
from calotype.domain.outcomes import Accepted, Failed, Fault, Refused, TryLater, Unknown
from calotype.domain.secret import Secret
from calotype.providers.replicate import Replicate as Provider
from providers.bed import CALLBACK_URL, Bed, request, upstream
from providers.cases.replicate import PROTOCOL, VERSION
from providers.fakes.base import CALLBACK_SECRET, KEY, Fake, Order, Phase
from providers.fakes.exchange import Call, Reply
from providers.fakes.replicate import BUSY_IN_WORDS, Replicate, problem
from providers.protocol import Example, Protocol
from providers.scripts import Script

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of 2025, it warns of the pydantic that it meets
    from replicate.client import Client
    from replicate.webhook import Webhooks, WebhookSigningSecret

PLAIN, *_, AS_VERSION, AS_DEPLOYMENT = PROTOCOL.examples
WITH_REFERENCE: Final = msgspec.structs.replace(PLAIN, references=1)
INPUT: Final = {**PLAIN.reads, "prompt": request(PLAIN).prompt}


@pytest.fixture
def protocol() -> Protocol:
    return PROTOCOL


@asynccontextmanager
async def sdk(fake: Fake) -> AsyncIterator[Client]:
    client = Client(api_token=KEY, base_url=fake.url)
    try:
        yield client
    finally:
        await client._async_client.aclose()


def wire(calls: Sequence[Call]) -> list[tuple[object, ...]]:
    """What of calls must be the same, whoever makes them."""
    return [
        (each.method, each.path, each.query, each.headers["authorization"], each.document)
        for each in calls
    ]


# The SDK


@pytest.mark.parametrize(
    "example", [PLAIN, AS_VERSION, AS_DEPLOYMENT], ids=["model", "version", "deployment"]
)
@pytest.mark.parametrize("callback_url", [None, CALLBACK_URL])
async def test_a_send_is_the_sdks(bed: Bed, example: Example, callback_url: str | None) -> None:
    job = bed.job(example, callback_url=callback_url)
    more: dict[str, Any] = {}
    if callback_url:
        more = {"webhook": callback_url, "webhook_events_filter": ["completed"]}
    sent = {**example.reads, "prompt": job.request.prompt}
    async with bed.fake() as ours:
        await bed.provider(bed.channel(ours, example)).submit(job)
    async with bed.fake() as theirs, sdk(theirs) as client:
        if example is PLAIN:
            model = ("google", "nano-banana-pro")
            await client.models.predictions.async_create(model=model, input=sent, **more)
        elif example is AS_VERSION:
            await client.predictions.async_create(version=VERSION, input=sent, **more)
        else:
            deployment = ("acme", "bananas")
            await client.deployments.predictions.async_create(deployment, sent, **more)
    assert wire(ours.calls) == wire(theirs.calls)


async def test_questions_and_cancellation_are_the_sdks(bed: Bed) -> None:
    async with bed.fake(Script.DELAY) as ours:
        provider, job = bed.provider(bed.channel(ours)), bed.job()
        accepted = await provider.submit(job)
        assert isinstance(accepted, Accepted)
        await provider.poll(job, accepted.upstream_id)
        await provider.cancel(job, accepted.upstream_id)
    async with bed.fake(Script.DELAY) as theirs, sdk(theirs) as client:
        prediction = await client.models.predictions.async_create(
            model=("google", "nano-banana-pro"), input=INPUT
        )
        await client.predictions.async_get(prediction.id)
        await client.predictions.async_cancel(prediction.id)
    assert wire(ours.calls) == wire(theirs.calls)


async def test_an_upload_is_the_sdks(bed: Bed) -> None:
    async with bed.fake() as ours:
        await bed.provider(bed.channel(ours)).submit(bed.job(WITH_REFERENCE))
    (reference,) = ours.understand(ours.bought[0].call).references
    async with bed.fake() as theirs, sdk(theirs) as client:
        file = io.BytesIO(reference)
        file.name = "reference-1.png"
        await client.files.async_create(file)
    (upload,), (oracle,) = ours.calls_to("POST", "/v1/files"), theirs.calls
    assert (upload.method, upload.path) == (oracle.method, oracle.path)
    (our_part,), (their_part,) = upload.parts, oracle.parts
    assert (our_part.name, our_part.filename) == (their_part.name, their_part.filename)
    assert our_part.data == their_part.data


# Files


class NoStorage(Replicate):
    """Does not take uploads."""

    answer: ClassVar[Reply] = problem(500, "Something broke.")

    def upload(self, call: Call) -> Reply:
        super().upload(call)
        return self.answer


class KeyWithoutStorage(NoStorage):
    answer: ClassVar[Reply] = problem(401, "You did not pass a valid authentication token")


class NamelessStorage(NoStorage):
    answer: ClassVar[Reply] = Reply(201, {"id": "file-1", "urls": None})


@pytest.mark.parametrize(
    ("fake", "expected"),
    [
        (NoStorage, TryLater),
        (NamelessStorage, TryLater),
        (KeyWithoutStorage, Refused),
    ],
)
async def test_without_its_references_nothing_is_sent(
    fake: type[Replicate], expected: type, bed: Bed
) -> None:
    bed.protocol = msgspec.structs.replace(PROTOCOL, fake=fake)
    async with bed.fake() as upstream:
        outcome = await bed.provider(bed.channel(upstream)).submit(bed.job(WITH_REFERENCE))
    assert isinstance(outcome, expected)
    assert upstream.sends == 0


# Answers


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        (400, Fault.REQUEST),
        (401, Fault.KEY),
        (402, Fault.ACCOUNT),
        (403, Fault.KEY),
        (404, Fault.MODEL),
        (413, Fault.REQUEST),
        (422, Fault.REQUEST),
    ],
)
async def test_a_refusal_is_judged_by_its_status(bed: Bed, status: int, fault: Fault) -> None:
    async with bed.fake() as fake:
        fake.tamper = lambda _: problem(status, "No.")
        outcome = await bed.provider(bed.channel(fake)).submit(bed.job())
    assert isinstance(outcome, Refused)
    assert outcome.fault is fault


@pytest.mark.parametrize("status", [302, 405, 406, 408, 409, 410, 418, 425, 499, 500, 504])
async def test_a_status_that_nobody_documented_leaves_the_send_unknown(
    bed: Bed, status: int
) -> None:
    async with bed.fake() as fake:
        fake.tamper = lambda _: problem(status, "Hm.")
        outcome = await bed.provider(bed.channel(fake)).submit(bed.job())
    assert isinstance(outcome, Unknown)


@pytest.mark.parametrize(
    ("detail", "seconds"),
    [
        ("Request was throttled. Your rate limit resets in ~30s.", 30.0),
        ("Request was throttled. Expected available in 1 second.", 1.0),
        ("Request was throttled.", None),
    ],
)
async def test_a_busy_upstream_says_in_words_how_long(
    detail: str, seconds: float | None, bed: Bed
) -> None:
    async with bed.fake(BUSY_IN_WORDS) as fake:
        fake.tamper = lambda _: problem(429, detail)
        outcome = await bed.provider(bed.channel(fake)).submit(bed.job())
    assert isinstance(outcome, TryLater)
    assert (outcome.code, outcome.retry_after) == ("upstream_rate_limited", seconds)


class Failing(Replicate):
    """Fails with the text that the test sets."""

    text: ClassVar[Any] = ""

    def told(self, order: Order, phase: Phase) -> Reply:
        del phase
        told = super().told(order, Phase.FAILED)
        told.document["error"] = self.text
        return told


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("The input or output was flagged as sensitive. Please try again. (E005)", "policy"),
        ("NSFW content detected.", "policy"),
        ("Prompt rejected by the safety system", "policy"),
        ("E1001: out of memory", "failed"),
        ("E6716: start timeout", "failed"),
        ("", "failed"),
        (None, "failed"),
        ({"message": "flagged"}, "failed"),
    ],
)
async def test_the_text_of_a_failed_run_tells_whether_it_was_moderated(
    text: object, code: str, bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Failing, "text", text)
    bed.protocol = msgspec.structs.replace(PROTOCOL, fake=Failing)
    async with bed.fake() as fake:
        provider, job = bed.provider(bed.channel(fake)), bed.job()
        accepted = await provider.submit(job)
        assert isinstance(accepted, Accepted)
        outcome = await provider.poll(job, accepted.upstream_id)
    assert isinstance(outcome, Failed)
    expected = {
        "policy": ("content_policy_violation", Fault.POLICY),
        "failed": ("upstream_failed", Fault.UPSTREAM),
    }[code]
    assert (outcome.code, outcome.fault) == expected
    assert code == "policy" or not isinstance(text, str) or text in outcome.message


@pytest.mark.parametrize("name", ["../../account", "a/cancel", "a?b", "", "x" * 65, 7, None, ["a"]])
async def test_an_id_that_is_none_is_not_asked_for(name: object, bed: Bed) -> None:
    async with bed.fake() as fake:
        fake.tamper = lambda reply: Reply(201, {**reply.document, "id": name})
        outcome = await bed.provider(bed.channel(fake)).submit(bed.job())
    assert isinstance(outcome, Unknown)


# Webhooks


async def test_the_sdk_believes_the_callbacks_that_we_believe(bed: Bed) -> None:
    async with bed.fake() as fake:
        await bed.provider(bed.channel(fake)).submit(bed.job())
        headers, body = fake.delivery(fake.bought[0], at=bed.clock.now)
    Webhooks.validate(
        headers=headers, body=body.decode(), secret=WebhookSigningSecret(key=CALLBACK_SECRET)
    )


def test_the_example_of_the_standard_is_signed(bed: Bed) -> None:
    channel = msgspec.structs.replace(
        bed.channel(bed.protocol.fake()),
        callback_secret=Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    )
    bed.clock.now = 1_614_265_330_000
    provider = bed.provider(channel)
    assert isinstance(provider, Provider)
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    assert provider._is_signed(secret, headers, b'{"test": 2432232314}')
    assert not provider._is_signed(secret, headers, b'{"test": 2432232315}')


async def test_no_webhook_is_asked_for_that_could_not_be_believed(bed: Bed) -> None:
    async with bed.fake() as fake:
        channel = msgspec.structs.replace(bed.channel(fake), callback_secret=None)
        await bed.provider(channel).submit(bed.job(callback_url=CALLBACK_URL))
    assert "webhook" not in fake.bought[0].call.document


# What cannot be asked of it


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("gpt-image-2", {"aspect_ratio": "4:3"}),
        ("gpt-image-2", {"aspect_ratio": "16:9", "resolution": "2K"}),
        ("flux-2-pro", {"resolution": "2K"}),
    ],
)
def test_it_is_no_candidate_for_what_it_cannot_say(model: str, parameters: dict[str, Any]) -> None:
    served = upstream("replicate").wire(model)
    assert served is not None
    asked = request(Example(model=model, parameters=parameters, reads_model="", reads={}))
    assert served.unable(asked, references=0) is not None


def test_the_operators_own_id_is_used() -> None:
    served = upstream("replicate").wire("flux-2-pro")
    assert served is not None
    own = Served(id="deployments/acme/flux")
    assert served.model_id(own.id, own.edit, references=2) == "deployments/acme/flux"
