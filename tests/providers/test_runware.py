"""What only Runware has: our own UUIDs, errors beside data, costs, flagged images."""

import base64
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calotype.domain.outcomes import (
    Accepted,
    Done,
    Failed,
    Fault,
    PollOutcome,
    Refused,
    Running,
    SourceError,
    TryLater,
    Unknown,
)
from calotype.domain.wire import CREATE, READ
from calotype.providers import runware
from providers.answers import JSON, submitted
from providers.bed import Bed, content, opened_bed, public_url, reference, upstream
from providers.cases.runware import PROTOCOL
from providers.fakes.base import PRIVATE, image
from providers.fakes.exchange import Reply
from providers.fakes.runware import AT_ONCE, COST, NO_ACK, errors
from providers.protocol import Example, Protocol
from providers.scripts import Script

ID: Final = "0b7e4dd6-3f3a-4b0e-9d0c-0f3c7f6f8a11"
OTHER: Final = "11111111-3f3a-4b0e-9d0c-0f3c7f6f8a11"
PAUSES: Final = runware.PAUSES
FACTS: Final = upstream("runware").protocol


@pytest.fixture
def protocol() -> Protocol:
    return PROTOCOL


async def polled(bed: Bed, reply: Reply, *, age: int = 0, **changes: Any) -> PollOutcome:
    """The outcome of a question that is answered so, so many milliseconds after the send."""
    job = bed.job()
    job = msgspec.structs.replace(job, request=msgspec.structs.replace(job.request, **changes))
    async with bed.fake() as fake:
        fake.tamper = lambda _: reply
        return await bed.provider(bed.channel(fake)).poll(job, f"{ID} {bed.clock.now - age}")


def item(**more: Any) -> dict[str, Any]:
    """An entry of our own task."""
    return {"taskType": "imageInference", "taskUUID": ID, **more}


def finished(url: str = "https://im.example/1.png", **more: Any) -> dict[str, Any]:
    return item(status="success", imageURL=url, **more)


# What goes out


async def test_a_send_is_a_list_of_one_task_under_our_own_uuid(bed: Bed) -> None:
    async with bed.fake() as fake:
        provider = bed.provider(bed.channel(fake))
        accepted = await provider.submit(bed.job())
        assert isinstance(accepted, Accepted)
        await provider.poll(bed.job(), accepted.upstream_id)
    send, question = fake.calls
    (task,) = send.document
    assert task["taskUUID"] == ID
    assert accepted.upstream_id == f"{ID} {bed.clock.now}"
    assert question.document == [{"taskType": "getResponse", "taskUUID": ID}]


@pytest.mark.parametrize("public", [True, False])
async def test_references_go_by_url_where_the_world_can_reach_them(bed: Bed, public: bool) -> None:  # noqa: FBT001 -- a parameter of the test
    chosen = Example(
        model="gpt-image-2", references=2, public=public, reads_model="openai:gpt-image@2", reads={}
    )
    async with bed.fake() as fake:
        await bed.provider(bed.channel(fake, chosen)).submit(bed.job(chosen))
    (order,) = fake.bought
    written = [
        public_url(index)
        if public
        else f"data:image/png;base64,{base64.b64encode(reference(index)).decode()}"
        for index in range(2)
    ]
    assert order.call.document[0]["inputs"] == {"referenceImages": written}


async def test_fields_of_a_job_stay_as_they_are(bed: Bed) -> None:
    chosen = PROTOCOL.examples[1]
    job = bed.job(chosen, fields={"inputs": {"seedImage": "x"}})
    async with bed.fake() as fake:
        await bed.provider(bed.channel(fake, chosen)).submit(job)
    assert job.fields == {"inputs": {"seedImage": "x"}}
    (order,) = fake.bought
    assert len(order.call.document[0]["inputs"]["referenceImages"]) == 3


# Our own UUID


async def test_a_uuid_that_was_sent_before_was_accepted(bed: Bed) -> None:
    async with bed.fake(Script.CUT_BEFORE) as fake:
        provider = bed.provider(bed.channel(fake))
        assert isinstance(await provider.submit(bed.job()), Unknown)
        again = await provider.submit(bed.job())
    assert isinstance(again, Accepted)
    assert fake.purchases == 1


def test_a_lost_send_is_looked_for_half_a_minute_long() -> None:
    assert 30 <= sum(PAUSES) < 31


async def test_a_lost_send_is_asked_for_to_the_last_before_it_is_sent_again(bed: Bed) -> None:
    async with bed.fake() as fake:
        provider = bed.provider(bed.channel(fake))
        assert isinstance(await provider.recover(bed.job()), TryLater)
        questions = [call.document[0]["taskType"] for call in fake.calls]
        assert questions == ["getResponse"] * (len(runware.PAUSES) + 1)
        assert isinstance(await provider.submit(bed.job()), Accepted)
    assert [order.id for order in fake.bought] == [ID]


async def test_a_send_that_shows_itself_at_the_second_question_is_followed(bed: Bed) -> None:
    replies = [errors(404, "taskNotFound"), Reply(200, {"data": [item(status="processing")]})]
    async with bed.fake() as fake:
        fake.tamper = lambda _: replies.pop(0)
        outcome = await bed.provider(bed.channel(fake)).recover(bed.job())
    assert isinstance(outcome, Accepted)
    assert outcome.poll_after == 0


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, {"data": []}),
        Reply(200, {"data": [item(taskUUID=OTHER)]}),
        errors(401, "invalidApiKey"),
        errors(404, "taskFailedOrNotFound"),
        errors(404, "taskNotFound", taskUUID=OTHER),
        errors(200, "inferenceError", taskType="imageInference"),
        errors(401, "inferenceError", taskType="imageInference", taskUUID=ID),
        errors(200, "rateLimitExceeded", taskType="imageInference", taskUUID=ID),
        errors(429, "rateLimitExceeded"),
        errors(500, "internalServerError", taskType="imageInference", taskUUID=ID),
        Reply(404, {"errors": [{"code": "taskNotFound"}, {"code": "somethingNew"}]}),
        Reply(200, body=b"<html>"),
    ],
)
async def test_only_a_clear_word_says_that_nothing_was_taken(bed: Bed, reply: Reply) -> None:
    async with bed.fake() as fake:
        fake.tamper = lambda _: reply
        outcome = await bed.provider(bed.channel(fake)).recover(bed.job())
    assert isinstance(outcome, Unknown)


async def test_a_lost_send_that_failed_is_followed_to_its_failure(bed: Bed) -> None:
    async with bed.fake() as fake:
        error = errors(200, "inferenceError", taskType="imageInference", taskUUID=ID)
        fake.tamper = lambda _: error
        outcome = await bed.provider(bed.channel(fake)).recover(bed.job())
    assert isinstance(outcome, Accepted)


# Errors


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("invalidApiKey", Fault.KEY),
        ("missingApiKey", Fault.KEY),
        ("tokenExpired", Fault.KEY),
        ("authTimeout", Fault.KEY),
        ("insufficientCredits", Fault.ACCOUNT),
        ("quotaExceeded", Fault.ACCOUNT),
        ("accountSuspended", Fault.ACCOUNT),
        ("modelNotFound", Fault.MODEL),
        ("invalidModel", Fault.MODEL),
        ("unsupportedParameter", Fault.REQUEST),
        ("contentModeration", Fault.POLICY),
        ("contentPolicyViolation", Fault.POLICY),
        ("nsfwContentDetected", Fault.POLICY),
    ],
)
@pytest.mark.parametrize("status", [200, 400])
async def test_a_refusal_is_judged_by_its_code_under_any_status(
    bed: Bed, status: int, code: str, fault: Fault
) -> None:
    outcome = await submitted(bed, errors(status, code, taskUUID=ID))
    assert isinstance(outcome, Refused), outcome
    assert outcome.fault == fault


@pytest.mark.parametrize("code", ["rateLimitExceeded", "providerRateLimitExceeded"])
@pytest.mark.parametrize("status", [200, 400, 429])
async def test_a_rate_limit_is_waited_for(bed: Bed, status: int, code: str) -> None:
    assert isinstance(await submitted(bed, errors(status, code)), TryLater)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (200, "timeoutProvider"),
        (400, "requestTimeout"),
        (400, "internalServerError"),
        (200, "somethingNew"),
        (200, ""),
        (500, "invalidWidth"),
        (503, "serviceUnavailable"),
        (409, "somethingNew"),
    ],
)
async def test_what_may_have_been_taken_is_unknown(bed: Bed, status: int, code: str) -> None:
    assert isinstance(await submitted(bed, errors(status, code)), Unknown)


async def test_an_acknowledgement_counts_more_than_an_error_beside_it(bed: Bed) -> None:
    document = {"data": [item()], "errors": [{"code": "invalidSeed", "message": "Ignored."}]}
    assert isinstance(await submitted(bed, Reply(200, document)), Accepted)


async def test_an_acknowledgement_that_says_success_is_no_result(bed: Bed) -> None:
    assert isinstance(
        await submitted(bed, Reply(200, {"data": [item(status="success")]})), Accepted
    )


async def test_without_an_acknowledgement_the_send_is_unknown(bed: Bed) -> None:
    async with bed.fake(NO_ACK) as fake:
        provider = bed.provider(bed.channel(fake))
        assert isinstance(await provider.submit(bed.job()), Unknown)
        assert isinstance(await provider.recover(bed.job()), Accepted)


def test_families_have_their_words() -> None:
    families = set(FACTS["families"].values())
    named = {
        key.partition(" ")[2] for key in (*upstream("runware").create, *upstream("runware").read)
    }
    assert named - {""} <= families
    assert set(FACTS["failures"]) <= families
    assert set(FACTS["failures"].values()) <= READ & {"policy", "cancelled", "failed"}
    assert set(upstream("runware").create.values()) <= CREATE


# Questions


@pytest.mark.parametrize(
    ("document", "queued"),
    [
        ({"data": []}, True),
        ({"data": [item()]}, False),
        ({"data": [item(status="processing")]}, False),
        ({"data": [item(status="pondering", imageURL="https://im.example/1.png")]}, False),
        ({"data": [finished(taskUUID=OTHER)]}, True),
        ({"data": [], "errors": [{"code": "inferenceError", "taskUUID": OTHER}]}, True),
    ],
)
async def test_a_task_that_has_not_ended_is_asked_about_again(
    bed: Bed,
    document: Any,
    queued: bool,  # noqa: FBT001 -- a parameter of the test
) -> None:
    outcome = await polled(bed, Reply(200, document))
    assert isinstance(outcome, Running)
    assert (outcome.queued, outcome.poll_after) == (queued, FACTS["poll_seconds"])
    assert outcome.state == ("pondering" if "pondering" in repr(document) else "")


@pytest.mark.parametrize(("spent", "pause"), [(0, 1.0), (50_000, 5.0), (600_000, 10.0)])
async def test_the_longer_a_task_takes_the_less_often_it_is_asked_about(
    bed: Bed, spent: int, pause: float
) -> None:
    async with bed.fake() as fake:
        fake.tamper = lambda _: Reply(200, {"data": [item(status="processing")]})
        provider = bed.provider(bed.channel(fake))
        outcome = await provider.poll(bed.job(), f"{ID} {bed.clock.now - spent}")
    assert isinstance(outcome, Running)
    assert outcome.poll_after == pause


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (errors(401, "invalidApiKey"), TryLater),
        (errors(402, "insufficientCredits"), TryLater),
        (errors(200, "internalServerError"), TryLater),
        (errors(200, "somethingNew", taskType="getResponse"), TryLater),
        (errors(503, "serviceUnavailable", taskType="imageInference"), TryLater),
        (Reply(200, {}), TryLater),
        (Reply(200, []), TryLater),
        (Reply(404, {}), TryLater),
        (errors(404, "taskNotFound"), Unknown),
        (errors(200, "taskExpired"), Unknown),
        (errors(400, "taskFailedOrNotFound"), Unknown),
        (errors(400, "taskFailedOrNotFound", taskType="imageInference", taskUUID=ID), Unknown),
        (Reply(200, {"errors": [item(code="somethingNew", status="error")]}), Failed),
        (errors(400, "somethingNew", taskType="imageInference", taskUUID=ID), Failed),
        (errors(200, "inferenceError", taskType="getResponse", taskUUID=ID), Failed),
        # Whose they are is not told.
        (errors(200, "inferenceError"), TryLater),
        (errors(400, "contentModeration", taskType="imageInference"), TryLater),
        (Reply(200, {"errors": [{"code": "somethingNew", "status": "error"}]}), TryLater),
        # Of the call, the key and the account.
        *(
            (errors(status, "inferenceError", taskType="imageInference", taskUUID=ID), TryLater)
            for status in (401, 402, 403, 429)
        ),
        *(
            (errors(200, code, taskType="imageInference", taskUUID=ID), TryLater)
            for code in ("rateLimitExceeded", "invalidApiKey", "insufficientCredits")
        ),
        (Reply(200, {"data": [item(status="error", code="providerRateLimitExceeded")]}), TryLater),
    ],
)
async def test_an_error_ends_a_task_only_when_it_is_the_tasks_own(
    bed: Bed, reply: Reply, kind: type
) -> None:
    assert isinstance(await polled(bed, reply, age=30_000), kind)


@pytest.mark.parametrize("code", ["taskNotFound", "taskExpired", "taskFailedOrNotFound"])
async def test_a_task_that_was_just_sent_may_not_be_known_yet(bed: Bed, code: str) -> None:
    reply = errors(404, code, taskType="getResponse")
    outcome = await polled(bed, reply, age=29_999)
    assert isinstance(outcome, Running)
    assert outcome.queued
    assert isinstance(await polled(bed, reply, age=30_000), Unknown)
    async with bed.fake() as fake:
        fake.tamper = lambda _: reply
        provider = bed.provider(bed.channel(fake))
        assert isinstance(await provider.poll(bed.job(), ID), Unknown)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("providerContentPolicyViolation", "content_policy_violation"),
        ("taskCancelled", "cancelled"),
        ("timeoutProvider", "upstream_failed"),
        ("somethingNew", "upstream_failed"),
    ],
)
@pytest.mark.parametrize("inside", [True, False])
async def test_a_failed_task_tells_why_and_what_it_cost(
    bed: Bed,
    code: str,
    told: str,
    inside: bool,  # noqa: FBT001 -- a parameter of the test
) -> None:
    error = {"code": code, "message": "No."}
    entry = item(status="error", cost=0.01, **({"error": error} if inside else error))
    document = {"data": [entry]} if inside else {"errors": [entry]}
    outcome = await polled(bed, Reply(200, document))
    assert isinstance(outcome, Failed), outcome
    assert (outcome.code, outcome.cost_micro_usdc) == (told, 10_000)


@pytest.mark.parametrize(
    ("cost", "micro"),
    [
        (COST, 38_200),
        (0.0000005, 1),
        (0.0000004, 0),
        (1, 1_000_000),
        (0, 0),
        ("0.01", None),
        (True, None),
        (-0.1, None),
        (1e300, None),
        (10**30, None),
        (None, None),
        ([1], None),
    ],
)
async def test_the_cost_is_told_in_dollars(bed: Bed, cost: Any, micro: int | None) -> None:
    outcome = await polled(bed, Reply(200, {"data": [finished(cost=cost)]}))
    assert isinstance(outcome, Done)
    assert outcome.cost_micro_usdc == micro


async def test_a_flagged_image_is_not_handed_out_and_its_cost_is_kept(bed: Bed) -> None:
    outcome = await polled(bed, Reply(200, {"data": [finished(NSFWContent=True, cost=0.02)]}))
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.fault) == ("content_policy_violation", Fault.POLICY)
    assert outcome.cost_micro_usdc == 20_000


async def test_several_images_are_waited_for_and_their_costs_added(bed: Bed) -> None:
    one, two = finished(cost=0.01), finished("https://im.example/2.png", cost=0.02)
    assert isinstance(await polled(bed, Reply(200, {"data": [one]}), n=2), Running)
    waiting = Reply(200, {"data": [one, item(status="processing")]})
    assert isinstance(await polled(bed, waiting, n=2), Running)
    done = await polled(bed, Reply(200, {"data": [one, two]}), n=2)
    assert isinstance(done, Done)
    assert (len(done.images), done.cost_micro_usdc) == (2, 30_000)


async def test_images_beside_a_failed_one_are_kept(bed: Bed) -> None:
    error = item(status="error", code="inferenceError")
    begun = {"data": [item(status="processing")], "errors": [error]}
    assert isinstance(await polled(bed, Reply(200, begun), n=2), Running)
    done = await polled(bed, Reply(200, {"data": [finished()], "errors": [error]}), n=2)
    assert isinstance(done, Done)
    assert len(done.images) == 1


async def test_no_more_images_come_than_were_asked_for(bed: Bed) -> None:
    done = await polled(bed, Reply(200, {"data": [finished(), finished()]}))
    assert isinstance(done, Done)
    assert len(done.images) == 1


async def test_an_image_is_fetched_without_the_key(bed: Bed) -> None:
    async with bed.fake() as fake:
        provider = bed.provider(bed.channel(fake))
        accepted = await provider.submit(bed.job())
        assert isinstance(accepted, Accepted)
        outcome: Any = Running()
        while isinstance(outcome, Running):
            outcome = await provider.poll(bed.job(), accepted.upstream_id)
        assert [await content(source) for source in outcome.images] == [image(0)]
    fake.assert_sound()
    assert outcome.cost_micro_usdc == 38_200


@pytest.mark.parametrize(
    "url",
    [7, "", "ftp://x/1.png", "/1.png", None, ["https://x/1.png"], "https://x.example/\ud800.png"],
)
async def test_a_url_that_is_none_is_no_image(bed: Bed, url: Any) -> None:
    outcome = await polled(bed, Reply(200, {"data": [item(status="success", imageURL=url)]}))
    assert isinstance(outcome, Failed)
    assert outcome.code == "upstream_malformed_response"


async def test_images_that_come_at_once_are_in_the_id(bed: Bed) -> None:
    async with bed.fake(AT_ONCE) as fake:
        channel, job = bed.channel(fake), bed.job()
        accepted = await bed.provider(channel).submit(job)
        assert isinstance(accepted, Accepted)
        assert accepted.upstream_id.startswith(f"{ID} {bed.clock.now} {{")
        assert accepted.poll_after == 0
        done = await bed.provider(channel).poll(job, accepted.upstream_id)
        assert isinstance(done, Done)
        assert done.cost_micro_usdc == 38_200
        assert [await content(source) for source in done.images] == [image(0)]
    assert len(fake.calls_to("POST", "/v1")) == 1
    fake.assert_sound()


async def test_a_url_that_no_id_can_hold_is_asked_for_no_second_time(bed: Bed) -> None:
    done = await submitted(bed, Reply(200, {"data": [finished("https://x/" + "y" * 5000)]}))
    assert isinstance(done, Done)


async def test_an_image_that_is_flagged_at_once_is_asked_for_again(bed: Bed) -> None:
    outcome = await submitted(bed, Reply(200, {"data": [finished(NSFWContent=True)]}))
    assert outcome == Accepted(f"{ID} {bed.clock.now}", poll_after=FACTS["poll_seconds"])


# Answers that nobody foresaw


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[" * 100_000,
        b'{"data": ' * 50_000,
        b'{"data": [{"taskUUID": 1e999}], "errors": 7}',
        b'{"errors": [{"code": ' + b"9" * 5000 + b"}]}",
        b"\xff\xfe",
        b'"' + b"A" * 40_000 + b'"',
    ],
)
async def test_monstrous_answers_are_outcomes(bed: Bed, body: bytes) -> None:
    assert isinstance(await submitted(bed, Reply(body=body)), Unknown)
    assert isinstance(await polled(bed, Reply(body=body)), TryLater | Running)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    document=JSON,
    value=JSON,
    status=st.sampled_from([200, 400, 404, 500]),
    state=JSON | st.sampled_from(["success", "error", "processing"]),
)
async def test_whatever_is_answered_is_an_outcome(
    tmp_path: Path, document: object, value: object, status: int, state: object
) -> None:
    keys = ("imageURL", "imageBase64Data", "imageDataURI", "cost", "NSFWContent", "error", "code")
    entry = {**dict.fromkeys(keys, value), "taskUUID": ID, "status": state}
    answers = (
        document,
        {"data": document, "errors": value},
        {"data": [entry, value], "errors": [document]},
        {"data": [], "errors": [entry, document]},
        {"data": value, "error": entry},
    )
    async with opened_bed(PROTOCOL, tmp_path) as bed, bed.fake() as fake:
        provider = bed.provider(bed.channel(fake))
        for answer in answers:
            fake.tamper = partial(replace, document=answer, status=status)
            sent = await provider.submit(bed.job())
            assert isinstance(sent, Accepted | Done | Refused | TryLater | Failed | Unknown)
            outcome = await provider.poll(bed.job(), ID)
            assert isinstance(outcome, Running | Done | TryLater | Failed | Unknown)
            msgspec.json.encode([getattr(outcome, "message", ""), getattr(outcome, "code", "")])


@pytest.mark.parametrize("url", [PRIVATE, "https://["])
async def test_a_result_that_cannot_be_fetched_is_none(bed: Bed, url: str) -> None:
    outcome = await polled(bed, Reply(200, {"data": [finished(url)]}))
    assert isinstance(outcome, Done)
    with pytest.raises(SourceError) as caught:
        await content(outcome.images[0])
    assert not caught.value.retryable
