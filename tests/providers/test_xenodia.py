"""What is the Xenodia API's own: forms and JSON, two kinds of answer, our reference as its key."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import pytest

from calotype.domain.errors import FAILURES
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
from providers.answers import submitted
from providers.bed import (
    CALLBACK_URL,
    PROMPT,
    Bed,
    content,
    protocols,
    public_url,
    reference,
    references,
    upstream,
)
from providers.fakes.base import KEY, image
from providers.fakes.exchange import Reply
from providers.fakes.xenodia import AT_ONCE, COST, RELATIVE, problem
from providers.protocol import Protocol

PUBLIC, EDIT = protocols()["xenodia"].examples[1:3]
FLEX: Final = protocols()["xenodia"].examples[4]


@pytest.fixture
def protocol() -> Protocol:
    return protocols()["xenodia"]


async def told(bed: Bed, **says: object) -> object:
    """What a poll makes of a task of which this is said."""
    async with bed.fake() as fake:
        provider = bed.provider(bed.channel(fake))
        accepted = await provider.submit(bed.job())
        assert isinstance(accepted, Accepted)
        fake.tamper = lambda reply: replace(reply, document={**reply.document, **says})
        return await provider.poll(bed.job(), accepted.upstream_id)


async def test_a_send_is_what_the_documentation_says(bed: Bed) -> None:
    async with bed.fake() as fake:
        outcome = await bed.provider(bed.channel(fake)).submit(bed.job(callback_url=CALLBACK_URL))
    assert outcome == Accepted("job-1", poll_after=1.5)
    (call,) = fake.calls
    assert (call.method, call.path) == ("POST", "/v1/images/generations")
    assert call.headers["authorization"] == f"Bearer {KEY}"
    assert call.headers["idempotency-key"] == bed.job().reference
    assert call.document == {
        "model": "nano-banana-pro",
        "prompt": PROMPT,
        "aspect_ratio": "16:9",
        "resolution": "2K",
        "output_format": "png",
        "n": 1,
        "response_format": "url",
        "async": True,
    }


async def test_public_references_go_out_by_our_own_urls(bed: Bed) -> None:
    async with bed.fake() as fake:
        await bed.provider(bed.channel(fake, PUBLIC)).submit(bed.job(PUBLIC))
    (call,) = fake.calls
    assert call.document["image_input"] == [public_url(0), public_url(1), public_url(2)]


async def test_a_form_keeps_mixed_references_in_their_order(bed: Bed) -> None:
    mixed = references(1) + references(2, public=True)[1:] + references(3)[2:]
    async with bed.fake() as fake:
        await bed.provider(bed.channel(fake, EDIT)).submit(bed.job(EDIT, references=mixed))
    (call,) = fake.calls
    assert call.headers["idempotency-key"] == bed.job().reference
    texts = {part.name: part.text for part in call.parts if part.filename is None}
    assert texts == {
        "model": "gpt-image-2",
        "prompt": PROMPT,
        "aspect_ratio": "9:16",
        "resolution": "4K",
        "n": "1",
        "response_format": "url",
        "async": "true",
        "image_input": public_url(1),
    }
    sent = [(part.name, part.data) for part in call.parts][-3:]
    assert sent == [
        ("image", reference(0)),
        ("image_input", public_url(1).encode()),
        ("image", reference(2)),
    ]
    assert [part.content_type for part in call.parts if part.filename] == ["image/png"] * 2


async def test_numbers_in_a_form_are_text(bed: Bed) -> None:
    async with bed.fake() as fake:
        job = bed.job(FLEX, references=references(1))
        await bed.provider(bed.channel(fake, FLEX)).submit(job)
    texts = {part.name: part.text for part in fake.calls[0].parts if part.filename is None}
    assert (texts["seed"], texts["steps"], texts["guidance"]) == ("7", "20", "3.5")


async def test_without_a_reference_of_ours_no_key_is_sent(bed: Bed) -> None:
    async with bed.fake() as fake:
        await bed.provider(bed.channel(fake)).submit(bed.job(reference=""))
    assert "idempotency-key" not in fake.calls[0].headers


async def test_an_old_server_gives_the_image_at_once(bed: Bed) -> None:
    async with bed.fake(AT_ONCE) as fake:
        channel = bed.channel(fake)
        accepted = await bed.provider(channel).submit(bed.job())
        assert isinstance(accepted, Accepted)
        assert accepted.poll_after == 0
        # Another process has the image by the id alone.
        other = bed.provider(channel)
        outcome = await other.poll(bed.job(), accepted.upstream_id)
        assert isinstance(outcome, Done)
        (source,) = outcome.images
        assert await content(source) == image(0)
        assert not await other.cancel(bed.job(), accepted.upstream_id)
    fake.assert_sound()
    assert [call.method for call in fake.calls if call.to_upstream] == ["POST"]


async def test_a_relative_url_that_came_at_once_is_kept_whole(bed: Bed) -> None:
    async with bed.fake() as fake:
        fake.tamper = lambda _: Reply(200, {"data": [{"url": "/v1/assets/1.png"}]})
        accepted = await bed.provider(bed.channel(fake)).submit(bed.job())
    assert isinstance(accepted, Accepted)
    assert f'"{fake.url}/v1/assets/1.png"' in accepted.upstream_id


async def test_a_url_that_no_id_can_hold_is_fetched_at_once(bed: Bed) -> None:
    long = {"data": [{"url": "https://example.com/" + "x" * 5000}]}
    assert isinstance(await submitted(bed, Reply(200, long)), Done)


async def test_no_more_images_are_taken_than_were_asked_for(bed: Bed) -> None:
    many = {"created": 1, "data": [{"url": "https://example.com/1.png"}] * 1000}
    outcome = await submitted(bed, Reply(200, many))
    assert isinstance(outcome, Accepted)
    assert outcome.upstream_id.count("https://") == 1


async def test_a_relative_url_is_on_the_upstream_and_needs_no_key(bed: Bed) -> None:
    async with bed.fake(RELATIVE) as fake:
        provider = bed.provider(bed.channel(fake))
        await provider.submit(bed.job())
        await provider.poll(bed.job(), "job-1")
        outcome = await provider.poll(bed.job(), "job-1")
        assert isinstance(outcome, Done)
        assert outcome.cost_micro_usdc == COST
        assert await content(outcome.images[0]) == image(0)
    fake.assert_sound()
    assert "authorization" not in fake.calls[-1].headers


@pytest.mark.parametrize(
    ("status", "code", "fault"),
    [
        (400, "invalid_parameter", Fault.REQUEST),
        (400, "too_many_references", Fault.REQUEST),
        (400, "unknown_model", Fault.MODEL),
        (400, "content_policy_violation", Fault.POLICY),
        (401, "invalid_api_key", Fault.KEY),
        (402, "insufficient_balance", Fault.ACCOUNT),
        (403, "permission_denied", Fault.KEY),
        (404, "unknown_route", Fault.MODEL),
        (405, "method_not_allowed", Fault.MODEL),
        (413, "body_too_large", Fault.REQUEST),
        (415, "unsupported_media_type", Fault.REQUEST),
    ],
)
async def test_refusals_say_whose_fault_it_is(
    bed: Bed, status: int, code: str, fault: Fault
) -> None:
    outcome = await submitted(bed, problem(status, code, "No."))
    assert isinstance(outcome, Refused)
    assert outcome.fault is fault


@pytest.mark.parametrize("status", [409, 500, 502, 503, 504, 302])
async def test_what_may_have_been_taken_is_unknown(bed: Bed, status: int) -> None:
    assert isinstance(await submitted(bed, problem(status, "odd", "Hm.")), Unknown)


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        "task_1",
        {"task_id": None},
        {"task_id": 17},
        {"task_id": ""},
        {"task_id": "task 1"},
        {"task_id": "task\n1"},
        {"task_id": "aufgabe_ü"},
        {"task_id": "x" * 300},
        {"data": None},
        {"data": [None, 1, "https://example.com/1.png"]},
        {"data": [{"url": 1}]},
        {"data": [{"url": "javascript:alert(1)"}]},
        {"data": [{"url": "https://[::1/1.png"}]},
        {"data": {"url": "https://example.com/1.png"}},
    ],
)
async def test_a_success_that_cannot_be_understood_is_unknown(bed: Bed, document: object) -> None:
    for status in (200, 202):
        assert isinstance(await submitted(bed, Reply(status, document)), Unknown)


@pytest.mark.parametrize(
    ("recommended", "seconds"),
    [
        (1500, 1.5),
        (1, 0.2),
        (0, 0.2),
        (60_000, 30.0),
        (None, 2.0),
        ("1500", 2.0),
        (True, 2.0),
        (-5, 2.0),
        (10**400, 2.0),
        (1e9, 2.0),
    ],
)
async def test_the_recommended_interval_is_kept_within_reason(
    bed: Bed, recommended: object, seconds: float
) -> None:
    outcome = await told(bed, recommended_poll_interval_ms=recommended)
    assert isinstance(outcome, Running)
    assert outcome.poll_after == seconds


async def test_a_time_to_wait_goes_before_the_recommended_interval(bed: Bed) -> None:
    document = {"task_id": "task_1", "recommended_poll_interval_ms": 1500}
    outcome = await submitted(bed, Reply(202, document, headers={"Retry-After": "9"}))
    assert outcome == Accepted("task_1", poll_after=9.0)
    outcome = await submitted(bed, Reply(202, document, headers={"Retry-After": "86400"}))
    assert outcome == Accepted("task_1", poll_after=30.0)


@pytest.mark.parametrize(
    ("state", "queued"), [("waiting", True), ("Queuing", True), ("GENERATING", False)]
)
async def test_states_are_read_in_any_case(bed: Bed, state: str, *, queued: bool) -> None:
    outcome = await told(bed, state=state, progress=73)
    assert isinstance(outcome, Running)
    assert (outcome.queued, outcome.progress) == (queued, 73)


@pytest.mark.parametrize("progress", [None, "73", True, -1, 101, 7.5, [73], 10**400])
async def test_odd_progress_is_none(bed: Bed, progress: object) -> None:
    outcome = await told(bed, progress=progress)
    assert isinstance(outcome, Running)
    assert outcome.progress is None


@pytest.mark.parametrize("state", [None, 3, ["success"], {}])
async def test_an_odd_state_is_asked_for_again(bed: Bed, state: object) -> None:
    outcome = await told(bed, state=state)
    assert isinstance(outcome, TryLater)
    assert outcome.code == "upstream_malformed_response"


@pytest.mark.parametrize(
    ("billing", "cost"),
    [
        ({"actual_amount_micro_usdc": 60_000}, 60_000),
        ({"actual_amount_micro_usdc": 0}, 0),
        ({"actual_amount_micro_usdc": -1}, None),
        ({"actual_amount_micro_usdc": "60000"}, None),
        ({"actual_amount_micro_usdc": True}, None),
        ({"actual_amount_micro_usdc": 10**13}, None),
        ({"actual_amount_micro_usdc": 1e999}, None),
        ({}, None),
        ([], None),
        (None, None),
    ],
)
async def test_what_was_billed_there_is_the_cost(
    bed: Bed, billing: object, cost: int | None
) -> None:
    result = {"data": [{"url": "https://example.com/1.png"}]}
    for state, kind in (("success", Done), ("fail", Failed)):
        outcome: Any = await told(bed, state=state, result=result, billing=billing)
        assert isinstance(outcome, kind)
        assert outcome.cost_micro_usdc == cost


@pytest.mark.parametrize(
    "result", [None, [], {}, {"data": []}, {"data": [{"url": ""}]}, {"data": [{"url": "//["}]}]
)
async def test_a_success_without_an_image_fails_and_keeps_its_cost(
    bed: Bed, result: object
) -> None:
    billing = {"actual_amount_micro_usdc": COST}
    outcome = await told(bed, state="success", result=result, billing=billing)
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.cost_micro_usdc) == ("upstream_malformed_response", COST)


@pytest.mark.parametrize("code", [*FAILURES, "something_new", None, 17, ["cancelled"], "x" * 1000])
async def test_a_failed_task_has_a_code_of_ours_whatever_its_own(bed: Bed, code: object) -> None:
    known: Mapping[object, str] = upstream("xenodia").protocol["failures"]
    outcome = await told(bed, state="fail", error={"code": code, "message": "It\ndid not work."})
    assert isinstance(outcome, Failed)
    expected = known.get(code, "upstream_failed") if isinstance(code, str) else "upstream_failed"
    assert outcome.code == expected
    assert outcome.code in FAILURES
    assert (outcome.fault is Fault.POLICY) == (code == "content_policy_violation")
    if outcome.code.startswith("upstream"):
        assert "It did not work." in outcome.message


@pytest.mark.parametrize("error", [None, [], "it broke", {"message": ["it broke"]}])
async def test_an_odd_error_is_a_failure_all_the_same(bed: Bed, error: object) -> None:
    outcome = await told(bed, state="fail", error=error)
    assert isinstance(outcome, Failed)
    assert outcome.code == "upstream_failed"


@pytest.mark.parametrize(
    ("status", "stopped"), [(200, True), (202, True), (404, False), (405, False), (409, False)]
)
async def test_a_server_without_a_cancel_says_no(bed: Bed, status: int, *, stopped: bool) -> None:
    async with bed.fake() as fake:
        provider = bed.provider(bed.channel(fake))
        await provider.submit(bed.job())
        fake.tamper = lambda _: problem(status, "unknown_route", "No.")
        assert await provider.cancel(bed.job(), "job-1") is stopped
    assert (fake.calls[-1].method, fake.calls[-1].path) == ("POST", "/v1/tasks/job-1/cancel")


async def test_no_callback_and_no_way_to_find_a_lost_send(bed: Bed) -> None:
    async with bed.fake() as fake:
        provider = bed.provider(bed.channel(fake))
        assert provider.callback({}, b"{}") is None
        assert isinstance(await provider.recover(bed.job()), Unknown)
    assert fake.calls == []
