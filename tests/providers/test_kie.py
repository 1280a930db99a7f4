"""What is kie.ai's own: envelopes, uploads to another host, records that show late, credits."""

import json
from typing import Any

import msgspec
import pytest

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
from calotype.domain.task import Request
from calotype.domain.validation import normalise
from providers.bed import (
    CALLBACK_URL,
    PROMPT,
    Bed,
    catalog,
    content,
    developed,
    protocols,
    public_url,
    reference,
    upstream,
)
from providers.fakes.base import KEY, image
from providers.fakes.exchange import Call, Cut, Reply
from providers.fakes.kie import Kie, envelope
from providers.protocol import Example, Protocol
from providers.scripts import Script

ID = "task_job-1"


@pytest.fixture
def protocol() -> Protocol:
    return protocols()["kie"]


def example(model: str, *, references: int) -> Example:
    """The first example of this model with so many references."""
    return next(
        each
        for each in protocols()["kie"].examples
        if (each.model, each.references) == (model, references)
    )


async def told(bed: Bed, **says: object) -> object:
    """What a poll makes of a record in which this is said."""
    fake = Kie()
    fake.says = says
    async with fake.running():
        provider = bed.provider(bed.channel(fake))
        accepted = await provider.submit(bed.job())
        assert isinstance(accepted, Accepted)
        return await provider.poll(bed.job(), accepted.upstream_id)


async def test_a_create_call_is_what_the_documentation_says(bed: Bed) -> None:
    async with bed.fake() as fake:
        outcome = await bed.provider(bed.channel(fake)).submit(bed.job(callback_url=CALLBACK_URL))
    assert outcome == Accepted(f"{ID} {bed.clock.now}", poll_after=2.0)
    (call,) = fake.calls
    assert (call.method, call.path) == ("POST", "/api/v1/jobs/createTask")
    assert call.headers["authorization"] == f"Bearer {KEY}"
    assert call.headers["content-type"] == "application/json"
    assert call.document == {
        "model": "nano-banana-pro",
        "callBackUrl": CALLBACK_URL,
        "input": {
            "prompt": PROMPT,
            "aspect_ratio": "16:9",
            "resolution": "2K",
            "output_format": "png",
        },
    }


async def test_no_callback_is_asked_for_that_could_not_be_proved(bed: Bed) -> None:
    async with bed.fake() as fake:
        channel = msgspec.structs.replace(bed.channel(fake), callback_secret=None)
        await bed.provider(channel).submit(bed.job(callback_url=CALLBACK_URL))
    assert "callBackUrl" not in fake.calls[0].document


async def test_references_without_a_url_are_uploaded_to_the_host_for_uploads(bed: Bed) -> None:
    edit = example("gpt-image-2", references=4)
    async with bed.fake() as fake, Kie().running() as uploads:
        channel = msgspec.structs.replace(
            bed.channel(fake, edit), options={"upload_url": uploads.url}
        )
        outcome = await bed.provider(channel).submit(bed.job(edit))
    assert isinstance(outcome, Accepted)
    assert [call.path for call in uploads.calls] == ["/api/file-stream-upload"] * 4
    assert all(call.headers["authorization"] == f"Bearer {KEY}" for call in uploads.calls)
    (create,) = fake.calls
    assert create.document["input"]["input_urls"] == list(uploads.files)
    assert list(uploads.files.values()) == [reference(index) for index in range(4)]
    names = [url.rpartition("/")[2] for url in uploads.files]
    assert names == [f"{bed.job().reference}-{place}.png" for place in (1, 2, 3, 4)]


async def test_the_key_goes_to_the_usual_upload_host_only_with_the_usual_base_url(bed: Bed) -> None:
    data = upstream("kie")
    async with bed.fake() as fake:
        elsewhere = bed.channel(fake)
        for channel, host in (
            (msgspec.structs.replace(elsewhere, base_url=""), data.protocol["upload_url"]),
            (elsewhere, fake.url),
        ):
            provider: Any = bed.provider(channel)
            assert provider._uploads.base_url == host


async def test_public_references_go_out_by_our_own_urls(bed: Bed) -> None:
    edit = example("nano-banana-2", references=2)
    async with bed.fake() as fake:
        await bed.provider(bed.channel(fake, edit)).submit(bed.job(edit))
    (call,) = fake.calls
    assert call.document["input"]["image_input"] == [public_url(0), public_url(1)]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (envelope(500, "Server exception."), TryLater),
        (envelope(408), TryLater),
        (envelope(200, "no file object"), TryLater),
        (envelope(200, "odd", {"downloadUrl": ["https://x"]}), TryLater),
        (envelope(200, "odd", {"downloadUrl": "file:///etc/passwd"}), TryLater),
        (Reply(502, {}), TryLater),
        (Reply(body=b"<html>"), TryLater),
        (Reply(cut=Cut.BEFORE), TryLater),
        (envelope(429, wait=True), TryLater),
        (envelope(401), Refused),
        (envelope(422, "file type not allowed"), Refused),
    ],
)
async def test_a_fault_of_an_upload_buys_nothing(
    bed: Bed, reply: Reply, expected: type[object]
) -> None:
    class Faulty(Kie):
        def upload(self, call: Call) -> Reply:  # noqa: ARG002 -- a route's form
            return reply

    edit = example("nano-banana-pro", references=3)
    async with Faulty().running() as fake:
        outcome = await bed.provider(bed.channel(fake, edit)).submit(bed.job(edit))
    assert isinstance(outcome, expected), outcome
    assert [call.path for call in fake.calls] == ["/api/file-stream-upload"]


async def test_a_model_whose_field_for_references_is_not_known_is_not_sent(bed: Bed) -> None:
    edit = example("nano-banana-pro", references=3)
    other = msgspec.structs.replace(bed.job(edit).model, id="of-the-operator")
    async with bed.fake() as fake:
        outcome = await bed.provider(bed.channel(fake, edit)).submit(bed.job(edit, model=other))
    assert isinstance(outcome, Refused)
    assert (outcome.fault, fake.calls) == (Fault.MODEL, [])


async def test_a_record_that_does_not_show_is_waited_for_by_any_process_for_half_a_minute(
    bed: Bed,
) -> None:
    async with bed.fake(Script.LOST) as fake:
        accepted = await bed.provider(bed.channel(fake)).submit(bed.job())
        assert isinstance(accepted, Accepted)
        other = bed.provider(bed.channel(fake))
        bed.clock.forward(29_000)
        early = await other.poll(bed.job(), accepted.upstream_id)
        bed.clock.forward(1_000)
        late = await other.poll(bed.job(), accepted.upstream_id)
    assert isinstance(early, Running)
    assert early.queued
    assert isinstance(late, Unknown)


async def test_an_id_without_its_time_can_be_asked_for_all_the_same(bed: Bed) -> None:
    async with bed.fake() as fake:
        provider = bed.provider(bed.channel(fake))
        await provider.submit(bed.job())
        assert isinstance(await provider.poll(bed.job(), ID), Running)


@pytest.mark.parametrize(
    ("status", "code", "kind", "fault"),
    [
        (400, 429, TryLater, Fault.BUSY),
        (400, 402, Refused, Fault.ACCOUNT),
        (404, 401, Refused, Fault.KEY),
        (403, 403, Refused, Fault.KEY),
        (413, 413, Refused, Fault.REQUEST),
        (422, 505, Refused, Fault.MODEL),
        (429, 422, Refused, Fault.REQUEST),
        (400, 500, Unknown, Fault.UPSTREAM),
        (422, 408, Unknown, Fault.UPSTREAM),
        (400, 200, Unknown, Fault.UPSTREAM),
        (400, 777, Unknown, Fault.UPSTREAM),
        # What stands before kie.ai has no such code.
        (429, None, TryLater, Fault.BUSY),
        (403, "forbidden", Refused, Fault.KEY),
        # It may have been taken, whatever the code.
        (500, 422, Unknown, Fault.UPSTREAM),
        (503, 429, Unknown, Fault.UPSTREAM),
    ],
)
async def test_the_code_of_the_envelope_counts_more_than_a_4xx(
    bed: Bed, status: int, code: object, kind: type, fault: Fault
) -> None:
    async with bed.fake() as fake:
        fake.tamper = lambda _: Reply(status, {"code": code, "msg": "No."})
        outcome: Any = await bed.provider(bed.channel(fake)).submit(bed.job())
    assert (type(outcome), outcome.fault) == (kind, fault)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, 422, Unknown),
        (404, 404, Unknown),
        (422, 501, Failed),
        (400, 408, Failed),
        (404, 401, TryLater),
        (404, 500, TryLater),
        (404, None, TryLater),
        (500, 501, TryLater),
    ],
)
async def test_so_it_does_for_a_question(bed: Bed, status: int, code: object, kind: type) -> None:
    async with bed.fake() as fake:
        fake.tamper = lambda _: Reply(status, {"code": code, "msg": "No."})
        provider = bed.provider(bed.channel(fake))
        outcome = await provider.poll(bed.job(), f"{ID} {bed.clock.now - 60_000}")
    assert isinstance(outcome, kind), outcome


async def test_a_task_that_was_taken_under_a_4xx_was_taken(bed: Bed) -> None:
    async with bed.fake() as fake:
        taken = {"code": 200, "msg": "success", "data": {"taskId": "task_1"}}
        fake.tamper = lambda _: Reply(400, taken)
        outcome = await bed.provider(bed.channel(fake)).submit(bed.job())
    assert isinstance(outcome, Accepted)


@pytest.mark.parametrize("code", [400, 505])
async def test_a_question_that_is_refused_for_good_leaves_the_job_unknown(
    bed: Bed, code: int
) -> None:
    class Refusing(Kie):
        def read(self, call: Call) -> Reply:  # noqa: ARG002 -- a route's form
            return envelope(code, "no")

    async with Refusing().running() as fake:
        provider = bed.provider(bed.channel(fake))
        outcome = await provider.poll(bed.job(), f"{ID} {bed.clock.now - 60_000}")
    assert isinstance(outcome, Unknown)


async def test_pauses_grow_with_the_age_of_a_job(bed: Bed) -> None:
    pauses: list[float] = []
    async with bed.fake(Script.DELAY) as fake:
        provider = bed.provider(bed.channel(fake))
        accepted = await provider.submit(bed.job())
        assert isinstance(accepted, Accepted)
        for _ in range(4):
            running = await provider.poll(bed.job(), accepted.upstream_id)
            assert isinstance(running, Running)
            pauses.append(running.poll_after)
            bed.clock.forward(50_000)
    assert pauses == [2.0, 5.0, 10.0, 10.0]


@pytest.mark.parametrize(
    ("state", "queued"), [("waiting", True), ("queuing", True), ("generating", False)]
)
async def test_states_and_progress_are_passed_on(bed: Bed, state: str, *, queued: bool) -> None:
    outcome = await told(bed, state=state, progress=73)
    assert isinstance(outcome, Running)
    assert (outcome.queued, outcome.progress) == (queued, 73)


@pytest.mark.parametrize("progress", [None, "73", True, -1, 101, [73], {}, 10**400, 1e300])
async def test_odd_progress_is_none(bed: Bed, progress: object) -> None:
    outcome = await told(bed, state="generating", progress=progress)
    assert isinstance(outcome, Running)
    assert outcome.progress is None


@pytest.mark.parametrize(
    ("credits_used", "cost"),
    [
        (18, 90_000),
        (0, 0),
        (0.5, 2_500),
        (0.0001, 1),
        (0.00009, 0),
        (None, None),
        ("18", None),
        (True, None),
        (-1, None),
        (1e300, None),
        (10**400, None),
        ([], None),
    ],
)
async def test_credits_are_the_cost_in_micro_usd_rounded_half_up(
    bed: Bed, credits_used: object, cost: int | None
) -> None:
    result = json.dumps({"resultUrls": ["https://example.com/1.png"]})
    for state, kind in (("success", Done), ("fail", Failed)):
        outcome: Any = await told(bed, state=state, creditsConsumed=credits_used, resultJson=result)
        assert isinstance(outcome, kind)
        assert outcome.cost_micro_usdc == cost


@pytest.mark.parametrize(
    "said",
    [
        "Your content was flagged as SENSITIVE",
        "violates our policies and policy",
        "Safety checks failed",
        "prohibited use",
        "NSFW content detected",
        "blocked by moderation",
    ],
)
async def test_moderation_is_told_by_words(bed: Bed, said: str) -> None:
    outcome = await told(bed, state="fail", failCode="500", failMsg=said)
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.fault) == ("content_policy_violation", Fault.POLICY)


async def test_moderation_may_be_told_by_the_envelope_too(bed: Bed) -> None:
    async with bed.fake() as fake:
        provider = bed.provider(bed.channel(fake))
        fake.tamper = lambda _: envelope(501, "Blocked by moderation.", {"failMsg": None})
        outcome = await provider.poll(bed.job(), ID)
    assert isinstance(outcome, Failed)
    assert outcome.fault is Fault.POLICY


@pytest.mark.parametrize(
    ("fail_code", "code"),
    [
        ("400", "upstream_rejected"),
        ("422", "upstream_rejected"),
        (422, "upstream_rejected"),
        ("500", "upstream_failed"),
        ("501", "upstream_failed"),
        ("", "upstream_failed"),
        (None, "upstream_failed"),
        (["422"], "upstream_failed"),
    ],
)
async def test_a_failure_has_the_code_that_its_fail_code_means(
    bed: Bed, fail_code: object, code: str
) -> None:
    outcome = await told(bed, state="fail", failCode=fail_code, failMsg="It did\nnot work.")
    assert isinstance(outcome, Failed)
    assert outcome.code == code
    assert "It did not work." in outcome.message


@pytest.mark.parametrize(
    "result",
    [
        None,
        "",
        "{",
        "[]",
        "null",
        '"https://example.com/1.png"',
        '{"resultUrls": "https://example.com/1.png"}',
        '{"resultUrls": [null, 1, {}, "ftp://example.com/1.png", "/1.png"]}',
        '{"resultUrls":' + "[" * 100_000,
        17,
        ["https://example.com/1.png"],
    ],
)
async def test_a_success_without_a_url_fails_and_keeps_its_cost(bed: Bed, result: object) -> None:
    outcome = await told(bed, state="success", creditsConsumed=2, resultJson=result)
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.cost_micro_usdc) == ("upstream_malformed_response", 10_000)


async def test_the_image_is_what_lies_behind_the_url(bed: Bed) -> None:
    async with bed.fake() as fake:
        outcome = await developed(bed.provider(bed.channel(fake)), bed.job())
        assert isinstance(outcome, Done)
        assert outcome.cost_micro_usdc == 90_000
        (source,) = outcome.images
        assert await content(source) == image(0)
    fake.assert_sound()


async def test_no_more_images_are_taken_than_were_asked_for(bed: Bed) -> None:
    result = json.dumps({"resultUrls": ["https://example.com/1.png"] * 1000})
    outcome = await told(bed, state="success", resultJson=result)
    assert isinstance(outcome, Done)
    assert len(outcome.images) == 1


async def test_there_is_no_way_to_cancel_or_to_find_a_lost_send(bed: Bed) -> None:
    async with bed.fake() as fake:
        provider = bed.provider(bed.channel(fake))
        assert await provider.cancel(bed.job(), ID) is False
        assert isinstance(await provider.recover(bed.job()), Unknown)
    assert fake.calls == []


def asked(model: str, **parameters: Any) -> Request:
    """A normalised request."""
    got = normalise(catalog(), {"model": model, "prompt": PROMPT, **parameters}, text=False)
    return Request(got.model, got.prompt, got.n, got.parameters)


def test_gpt_image_2_is_never_asked_for_what_kie_refuses() -> None:
    model, wire = catalog().get("gpt-image-2"), upstream("kie").wire("gpt-image-2")
    assert wire is not None
    combinations = [
        (ratio, resolution) for ratio, sizes in model.sizes.items() for resolution in sizes
    ]
    for ratio, resolution in [*combinations, ("auto", "1K")]:
        request = asked("gpt-image-2", aspect_ratio=ratio, resolution=resolution)
        assert wire.unable(request, references=0) is None
        fields = wire.fields(model, request, reference_sizes=[])
        assert fields == {"aspect_ratio": ratio, "resolution": resolution}
        assert ratio not in {"5:4", "4:5", "3:1", "1:3", "9:21"}
        assert (ratio, resolution) not in {("auto", "2K"), ("auto", "4K"), ("1:1", "4K")}


@pytest.mark.parametrize(
    ("model", "parameters", "references"),
    [
        ("flux-2-pro", {"seed": 7}, 0),
        ("flux-2-flex", {"steps": 20}, 0),
        ("flux-2-flex", {"guidance": 3.0}, 0),
        ("qwen-image-3.0", {}, 1),
        ("nano-banana-pro", {}, 9),
    ],
)
def test_what_kie_cannot_be_asked_for_is_not_sent_there(
    model: str, parameters: dict[str, object], references: int
) -> None:
    wire = upstream("kie").wire(model)
    assert wire is not None
    assert wire.unable(asked(model, **parameters), references=references)
