"""What may come in a Xenodia server's name and is not what the documentation says."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calotype.domain.outcomes import (
    Accepted,
    Done,
    Failed,
    Refused,
    Running,
    TryLater,
    Unknown,
)
from providers.answers import JSON
from providers.bed import Bed, opened_bed, protocols
from providers.fakes.exchange import Call, Reply
from providers.fakes.xenodia import Xenodia
from providers.protocol import Protocol


@pytest.fixture
def protocol() -> Protocol:
    return protocols()["xenodia"]


async def test_an_id_cannot_lead_a_question_elsewhere(bed: Bed) -> None:
    async with bed.fake() as fake:
        await bed.provider(bed.channel(fake)).poll(bed.job(), "../../v1/keys?x#y")
    assert fake.calls[-1].path == "/v1/tasks/../../v1/keys?x#y"  # decoded: one step of a path
    assert fake.calls[-1].query == ()


@pytest.mark.parametrize(
    "body", [b"", b"[" * 100_000, b'{"data":' * 50_000, b'{"task_id": 1e999}', b"\xff\xfe"]
)
async def test_monstrous_answers_are_outcomes(bed: Bed, body: bytes) -> None:
    class Monstrous(Xenodia):
        def create(self, call: Call) -> Reply:  # noqa: ARG002 -- a route's form
            return Reply(body=body)

        read = create

    async with Monstrous().running() as fake:
        provider = bed.provider(bed.channel(fake))
        assert isinstance(await provider.submit(bed.job()), Unknown)
        assert isinstance(await provider.poll(bed.job(), "job-1"), TryLater)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    document=JSON,
    value=JSON,
    status=st.sampled_from([200, 202, 204, 302, 400, 401, 402, 404, 409, 429, 500, 503]),
)
async def test_whatever_is_answered_is_an_outcome(
    tmp_path: Path, document: object, value: object, status: int
) -> None:
    names = ("task_id", "state", "progress", "result", "error", "billing", "data", "code")
    every = dict.fromkeys(names, value)
    answers = (
        document,
        every,
        {**every, "state": "success", "result": {"data": [{"url": value}, document]}},
        {**every, "state": "fail", "error": {"code": value, "message": document}},
        {"data": [{"url": value}], "recommended_poll_interval_ms": document},
    )
    async with opened_bed(protocols()["xenodia"], tmp_path) as bed, bed.fake() as fake:
        provider = bed.provider(bed.channel(fake))
        for answer in answers:
            fake.tamper = partial(replace, status=status, document=answer)
            sent = await provider.submit(bed.job())
            assert isinstance(sent, Accepted | Done | Refused | TryLater | Unknown)
            outcome = await provider.poll(bed.job(), "job-1")
            assert isinstance(outcome, Running | Done | TryLater | Failed | Unknown)
            msgspec.json.encode([getattr(each, "message", "") for each in (sent, outcome)])
            json.dumps(getattr(outcome, "cost_micro_usdc", 0))
