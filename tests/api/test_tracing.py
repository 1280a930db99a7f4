"""Traces: one leads from the request over the queue to the stored image, where that is wanted."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from calotype.domain.ids import decode
from calotype.domain.task import Task
from calotype.observing import tracing
from harness import Server, running_server

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
MARKED = "marked-secret-prompt"

Spans = Callable[[], list[ReadableSpan]]


@pytest.fixture
async def spans() -> AsyncIterator[Spans]:
    """Traces from now on; what was traced, once that is over."""
    exporter = InMemorySpanExporter()
    tracing.start("", exporter)

    def ended() -> list[ReadableSpan]:
        tracing.stop()
        return list(exporter.get_finished_spans())

    yield ended
    await asyncio.to_thread(tracing.stop)


async def stored(server: Server, task_id: str) -> Task:
    task = await server.core.store.task(decode("task", task_id) or 0)
    assert task is not None
    return task


async def succeeded(server: Server, **headers: str) -> None:
    body = {"model": "gpt-image-2", "prompt": MARKED}
    reply = await server.call("POST", "/v1/images/generations", json=body, headers=headers)
    assert (await server.finished(reply.json["task_id"]))["state"] == "success"


async def test_one_trace_leads_from_the_clients_own_to_the_stored_image(
    tmp_path: Path, spans: Spans
) -> None:
    async with running_server(tmp_path / "data") as server:
        await succeeded(server, traceparent=PARENT)
    found = spans()
    by_name = {span.name: span for span in found}
    parents = {
        name: next(
            (
                each.name
                for each in found
                if span.parent and each.context and each.context.span_id == span.parent.span_id
            ),
            None,
        )
        for name, span in by_name.items()
    }
    assert parents == {
        "submit": None,
        "develop": "submit",
        "queue": "attempt",
        "attempt": "develop",
        "upstream send": "attempt",
        "store image": "attempt",
    }
    assert {f"{span.context.trace_id:032x}" for span in found if span.context} == {TRACE}


async def test_the_trace_goes_on_in_the_process_that_develops_the_task(
    tmp_path: Path, spans: Spans
) -> None:
    data = tmp_path / "data"
    async with running_server(data, with_worker=False) as server:
        body = {"model": "gpt-image-2", "prompt": MARKED}
        reply = await server.call(
            "POST", "/v1/images/generations", json=body, headers={"traceparent": PARENT}
        )
    async with running_server(data) as server:
        await server.finished(reply.json["task_id"])
    developed = [span for span in spans() if span.name == "develop"]
    assert [f"{each.context.trace_id:032x}" for each in developed if each.context] == [TRACE]


@pytest.mark.parametrize("given", ["", "00-nonsense-01", f"00-{'0' * 32}-b7ad6b7169203331-01"])
async def test_what_names_no_trace_begins_a_new_one(
    tmp_path: Path, spans: Spans, given: str
) -> None:
    async with running_server(tmp_path / "data") as server:
        await succeeded(server, traceparent=given)
    traces = {f"{span.context.trace_id:032x}" for span in spans() if span.context}
    assert len(traces) == 1
    assert TRACE not in traces


async def test_no_span_holds_what_a_client_wrote_or_a_key(tmp_path: Path, spans: Spans) -> None:
    async with running_server(tmp_path / "data") as server:
        await succeeded(server)
        await server.outcome(f"{MARKED} sandbox:500-after")
        key = server.key
    told = "".join(span.to_json() for span in spans())
    assert "sandbox" in told
    assert MARKED not in told
    assert key not in told


async def test_without_a_collector_nothing_is_traced_nor_kept(server: Server) -> None:
    body = {"model": "gpt-image-2", "prompt": MARKED}
    reply = await server.call(
        "POST", "/v1/images/generations", json=body, headers={"traceparent": PARENT}
    )
    assert (await stored(server, reply.json["task_id"])).request.traceparent is None
    assert tracing.traceparent() is None
