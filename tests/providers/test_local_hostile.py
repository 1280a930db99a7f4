"""Servers of one's own that answer anything at all: always an outcome, never an exception."""

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calotype.domain.outcomes import Accepted, Done, SourceError
from providers.bed import Bed, content, opened_bed, protocols
from providers.fakes.exchange import Reply
from providers.protocol import Protocol

NAMES: Final = ("a1111", "comfyui", "sdcpp")
WORDS: Final = (
    *("id", "status", "state", "error", "message", "detail", "images", "b64_json", "result"),
    *("prompt_id", "outputs", "9", "filename", "subfolder", "type", "node_errors", "errors"),
    *("queue_running", "queue_pending", "messages", "status_str", "execution_error", "cancelled"),
    *("model", "name", "limits", "max_width", "output_formats", "progress", "current_task", "info"),
)
"""Names that the protocols know, so that what is drawn gets far."""
VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9)
    | st.sampled_from(["completed", "success", "failed", "output", "\ud800", "\x00", "AAAA", "a b"])
)
DOCUMENTS = st.recursive(
    VALUES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4)
    ),
    max_leaves=12,
)
STATUSES = st.sampled_from(
    [200, 200, 200, 201, 202, 204, 302, 400, 401, 404, 405, 409, 410, 429, 500, 503]
)
DEEP: Final = [
    b"[" * 100_000,
    b'{"id": ' * 50_000 + b"1" + b"}" * 50_000,
    b'{"id": ' + b"9" * 10_000 + b"}",
    b'{"images": "' + b"A" * 100_000 + b'"}',
    b"\xff\xfe{}",
    b"",
    b"null",
]


@pytest.fixture(params=NAMES)
def protocol(request: pytest.FixtureRequest) -> Protocol:
    return protocols()[request.param]


async def survived(bed: Bed, answer: Callable[[Reply], Reply]) -> None:
    """Every verb comes back with something, whatever it is told."""
    async with bed.fake() as fake:
        fake.tamper = answer
        provider, job = bed.provider(bed.channel(fake)), bed.job()
        submitted = await provider.submit(job)
        upstream_id = submitted.upstream_id if isinstance(submitted, Accepted) else "job 9"
        recovered = await provider.recover(job)
        polled = await provider.poll(job, upstream_id)
        await provider.cancel(job, upstream_id)
        for outcome in (submitted, recovered, polled):
            for source in outcome.images if isinstance(outcome, Done) else ():
                with suppress(SourceError):
                    await content(source)
    fake.assert_discreet()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_whatever_document_comes_there_is_an_outcome(
    protocol: Protocol, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    def drawn(reply: Reply) -> Reply:
        if data.draw(st.integers(0, 3)) == 0:
            return reply
        body = json.dumps(data.draw(DOCUMENTS)).encode()
        return Reply(data.draw(STATUSES), body=body)

    async with opened_bed(protocol, tmp_path_factory.mktemp("spool")) as bed:
        await survived(bed, drawn)


@pytest.mark.parametrize("body", DEEP, ids=lambda body: f"{body[:8]!r} {len(body)}")
@pytest.mark.parametrize("lets_begin", [True, False])
async def test_however_deep_or_large_a_document_is_there_is_an_outcome(
    bed: Bed, body: bytes, *, lets_begin: bool
) -> None:
    calls = 0

    def answer(reply: Reply) -> Reply:
        nonlocal calls
        calls += 1
        return reply if lets_begin and calls == 1 else Reply(body=body)

    await survived(bed, answer)
