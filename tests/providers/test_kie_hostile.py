"""What may come in kie.ai's name and is not what the documentation says."""

import json
from collections.abc import Callable, Mapping
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
    Refused,
    Running,
    TryLater,
    Unknown,
)
from providers.answers import JSON
from providers.bed import Bed, opened_bed, protocols
from providers.fakes.base import CALLBACK_SECRET, KEY, Fake
from providers.fakes.exchange import Call, Reply
from providers.fakes.kie import Kie, envelope
from providers.protocol import Protocol

ID: Final = "task_job-1"
EDIT: Final = protocols()["kie"].examples[1]


@pytest.fixture
def protocol() -> Protocol:
    return protocols()["kie"]


def signed(bed: Bed, fake: Fake, *, at: int) -> tuple[dict[str, str], bytes]:
    """A callback for a job that was bought, signed at a time."""
    (order,) = fake.bought
    return fake.delivery(order, at=bed.clock.now + at)


@pytest.mark.parametrize("at", [0, 300_000, -300_000])
async def test_a_signed_callback_names_the_job_as_it_is_known(bed: Bed, at: int) -> None:
    async with bed.fake() as fake:
        provider = bed.provider(bed.channel(fake))
        accepted = await provider.submit(bed.job())
    assert isinstance(accepted, Accepted)
    name = provider.callback(*signed(bed, fake, at=at))
    assert name == accepted.upstream_id.partition(" ")[0]


async def test_some_families_write_the_id_in_another_way(bed: Bed) -> None:
    async with bed.fake() as fake:
        provider = bed.provider(bed.channel(fake))
        await provider.submit(bed.job())
    headers, _ = signed(bed, fake, at=0)
    body = json.dumps({"code": 200, "data": {"task_id": ID}}).encode()
    assert provider.callback(headers, body) == ID


FORGERIES: Mapping[str, Callable[[dict[str, str], bytes], tuple[dict[str, str], bytes]]] = {
    "no headers": lambda _, body: ({}, body),
    "no signature": lambda headers, body: (headers | {"x-webhook-signature": ""}, body),
    "not even ASCII": lambda headers, body: (headers | {"x-webhook-signature": "\udcff"}, body),
    "another time": lambda headers, body: (headers | {"x-webhook-timestamp": "1760000001"}, body),
    "no time": lambda headers, body: (headers | {"x-webhook-timestamp": "now"}, body),
    "odd digits": lambda headers, body: (headers | {"x-webhook-timestamp": "١٧٦"}, body),
    "another job": lambda headers, _: (headers, b'{"data": {"taskId": "task_job-2"}}'),
    "no job": lambda headers, _: (headers, b'{"data": {}}'),
    "an odd job": lambda headers, _: (headers, b'{"data": {"taskId": "\\ud800"}}'),
    "a list": lambda headers, _: (headers, b"[]"),
    "no JSON": lambda headers, _: (headers, b"\xff\xfe{"),
    "a deep one": lambda headers, _: (headers, b"[" * 100_000),
    "nothing": lambda headers, _: (headers, b""),
}


@pytest.mark.parametrize("forged", FORGERIES)
async def test_a_forged_callback_is_nothing(bed: Bed, forged: str) -> None:
    async with bed.fake() as fake:
        provider = bed.provider(bed.channel(fake))
        await provider.submit(bed.job())
    assert provider.callback(*FORGERIES[forged](*signed(bed, fake, at=0))) is None


@pytest.mark.parametrize("at", [301_000, -301_000])
async def test_a_stale_callback_is_nothing(bed: Bed, at: int) -> None:
    async with bed.fake() as fake:
        provider = bed.provider(bed.channel(fake))
        await provider.submit(bed.job())
    assert provider.callback(*signed(bed, fake, at=at)) is None


async def test_without_a_secret_no_callback_is_believed(bed: Bed) -> None:
    async with bed.fake() as fake:
        await bed.provider(bed.channel(fake)).submit(bed.job())
        without = msgspec.structs.replace(bed.channel(fake), callback_secret=None)
    assert bed.provider(without).callback(*signed(bed, fake, at=0)) is None


@pytest.mark.parametrize(
    "task_id", [None, "", 17, ["task_1"], {"id": 1}, "task 1", "task\n1", "task_ü", "x" * 300]
)
async def test_an_odd_id_leaves_the_send_unknown(bed: Bed, task_id: object) -> None:
    async with bed.fake() as fake:
        fake.tamper = lambda _: envelope(200, "success", {"taskId": task_id})
        outcome = await bed.provider(bed.channel(fake)).submit(bed.job())
    assert isinstance(outcome, Unknown)


async def test_an_id_cannot_lead_a_question_elsewhere(bed: Bed) -> None:
    async with bed.fake() as fake:
        fake.tamper = lambda _: envelope(200, "success", {"taskId": "x&taskId=y#/../../?"})
        provider = bed.provider(bed.channel(fake))
        accepted = await provider.submit(bed.job())
        assert isinstance(accepted, Accepted)
        await provider.poll(bed.job(), accepted.upstream_id)
    assert fake.calls[-1].path == "/api/v1/jobs/recordInfo"
    assert fake.calls[-1].query == (("taskId", "x&taskId=y#/../../?"),)


@pytest.mark.parametrize("secret", [KEY, CALLBACK_SECRET])
async def test_no_secret_comes_back_in_a_message(bed: Bed, secret: str) -> None:
    async with bed.fake() as fake:
        fake.tamper = lambda _: envelope(422, f"{secret} may not do this")
        outcome: Any = await bed.provider(bed.channel(fake)).submit(bed.job())
    assert "may not do this" in outcome.message
    assert secret not in repr(outcome)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[" * 100_000,
        b'{"code": 200, "data": ' + b'{"data": ' * 50_000,
        b'{"code": 1e999, "data": {"taskId": "x"}}',
        b'{"code": ' + b"9" * 5000 + b"}",
        b'{"code": 200, "code": 402, "data": null}',
        b'{"code": NaN}',
        b"\xff\xfe",
        b'"' + b"A" * 40_000 + b'"',
    ],
)
async def test_monstrous_answers_are_outcomes(bed: Bed, body: bytes) -> None:
    class Monstrous(Kie):
        def create(self, call: Call) -> Reply:  # noqa: ARG002 -- a route's form
            return Reply(body=body)

        read = upload = create

    async with Monstrous().running() as fake:
        provider = bed.provider(bed.channel(fake, EDIT))
        sent = await provider.submit(bed.job())
        assert isinstance(sent, Unknown | Refused)
        assert isinstance(await provider.submit(bed.job(EDIT)), TryLater | Refused)
        assert isinstance(await provider.poll(bed.job(), ID), TryLater | Unknown | Running)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=JSON, code=st.sampled_from([200, "200", 501]) | JSON, data=JSON)
async def test_whatever_is_answered_is_an_outcome(
    tmp_path: Path, document: object, code: object, data: object
) -> None:
    keys = ("taskId", "state", "resultJson", "failCode", "failMsg", "progress", "creditsConsumed")
    answers = (
        document,
        {"code": code, "msg": document, "data": data},
        {"code": code, "message": data, "data": dict.fromkeys(keys, document)},
        {"code": 200, "data": dict.fromkeys(keys, data) | {"state": "success"}},
        {"code": 200, "data": dict.fromkeys(keys, data) | {"state": "fail"}},
    )
    async with opened_bed(protocols()["kie"], tmp_path) as bed, bed.fake() as fake:
        provider = bed.provider(bed.channel(fake, EDIT))
        for answer in answers:
            fake.tamper = partial(replace, document=answer)
            for job in (bed.job(), bed.job(EDIT)):
                sent = await provider.submit(job)
                assert isinstance(sent, Accepted | Refused | TryLater | Unknown)
            outcome = await provider.poll(bed.job(), ID)
            assert isinstance(outcome, Running | Done | TryLater | Failed | Unknown)
            json.dumps([getattr(outcome, "message", ""), getattr(outcome, "cost_micro_usdc", 0)])
