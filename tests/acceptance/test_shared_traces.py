"""Traces over two processes: what a collector on loopback gets of an API and of a worker."""

from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from acceptance.cluster import MODEL, PAID, Cluster, running_cluster
from receiver import OK, Message, receiving

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"


def spans_in(message: Message) -> list[Span]:
    """What one export holds."""
    export = ExportTraceServiceRequest.FromString(message.body)
    return [
        span
        for resource in export.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


async def developed(cluster: Cluster) -> None:
    """One task of a traced caller, accepted by one process and developed by another."""
    api, worker = await cluster.api(), await cluster.worker()
    body = {"model": MODEL, "channel_id": PAID, "prompt": "sandbox:delay=0"}
    headers = {
        "Authorization": f"Bearer {cluster.key}",
        "traceparent": f"00-{TRACE}-{CALLER}-01",
    }
    url = f"{api.url}/v1/images/generations"
    async with cluster.http.post(url, json=body, headers=headers) as response:
        assert response.status == 202, await response.text()
    await cluster.all_final(1)
    for member in (api, worker):  # at its end, each sends what is left
        assert await member.terminate() == 0, member.log


async def test_a_collector_gets_one_trace_of_the_process_that_accepts_and_the_one_that_develops(
    tmp_path: Path, postgres_url: str
) -> None:
    async with receiving(OK) as collector:
        endpoint = collector.url.removesuffix("/hook")
        async with running_cluster(tmp_path, postgres_url, otlp_endpoint=endpoint) as cluster:
            await developed(cluster)
        exports = collector.got
    assert {each.line for each in exports} == {"POST /v1/traces HTTP/1.1"}
    told = [{span.name for span in spans_in(each)} for each in exports]
    assert not [names for names in told if {"submit", "develop"} <= names]
    spans = [span for each in exports for span in spans_in(each)]
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    names = {span.span_id.hex(): span.name for span in spans} | {CALLER: "caller"}
    assert sorted((span.name, names[span.parent_span_id.hex()]) for span in spans) == [
        ("attempt", "develop"),
        ("develop", "submit"),
        ("queue", "attempt"),
        ("store image", "attempt"),
        ("submit", "caller"),
        ("upstream send", "attempt"),
    ]
