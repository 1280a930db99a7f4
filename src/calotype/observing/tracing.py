"""Traces: what became of a request, from its acceptance over the queue to the stored image.

Nothing of OpenTelemetry is imported before ``start``, and a span costs one comparison until then.
Spans name tasks, channels and models; never prompts, keys, accounts or addresses.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Final, Literal

import calotype

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Tracer

Kind = Literal["SERVER", "CLIENT", "PRODUCER", "CONSUMER", "INTERNAL"]

_NOTHING: Final = nullcontext()
_HEADER: Final = "traceparent"


class _State:
    """What ``start`` sets up, once for the process."""

    provider: "TracerProvider | None" = None
    tracer: "Tracer | None" = None


def start(endpoint: str, exporter: "SpanExporter | None" = None) -> None:
    """Trace from now on.

    Args:
        endpoint: base URL of a collector that speaks OTLP over HTTP.
        exporter: another way for spans to go.

    Raises:
        ImportError: OpenTelemetry is not installed.

    """
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    exporter = exporter or OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
    named = Resource.create({"service.name": "calotype", "service.version": calotype.__version__})
    _State.provider = TracerProvider(resource=named, shutdown_on_exit=False)
    _State.provider.add_span_processor(BatchSpanProcessor(exporter))
    _State.tracer = _State.provider.get_tracer("calotype", calotype.__version__)


def stop() -> None:
    """Send what is left, and trace no more. It may wait for the collector."""
    provider, _State.provider, _State.tracer = _State.provider, None, None
    if provider is not None:
        provider.shutdown()


def is_on() -> bool:
    """Whether anything is traced."""
    return _State.tracer is not None


def span(
    name: str, *, kind: Kind = "INTERNAL", **attributes: str | int
) -> AbstractContextManager[None]:
    """A part of what is going on; of attributes, ``_`` stands for ``.``."""
    if _State.tracer is None:
        return _NOTHING
    return _span(_State.tracer, name, kind, attributes)


@contextmanager
def _span(
    tracer: "Tracer", name: str, kind: Kind, attributes: dict[str, str | int]
) -> Iterator[None]:
    from opentelemetry.trace import SpanKind, Status, StatusCode

    named = {f"calotype.{key}": value for key, value in attributes.items()}
    with tracer.start_as_current_span(
        name,
        kind=SpanKind[kind],
        attributes=named,
        record_exception=False,  # its message may hold what a client wrote
        set_status_on_exception=False,
    ) as current:
        try:
            yield
        except BaseException as error:
            current.set_attribute("error.type", type(error).__name__)
            current.set_status(Status(StatusCode.ERROR))
            raise


def joined(traceparent: str | None) -> AbstractContextManager[None]:
    """While entered, spans go on with the trace that is named so, or begin one of their own."""
    if _State.tracer is None:
        return _NOTHING
    return _joined(traceparent)


@contextmanager
def _joined(traceparent: str | None) -> Iterator[None]:
    from opentelemetry import context

    token = context.attach(_context_of(traceparent))
    try:
        yield
    finally:
        context.detach(token)


def accept(traceparent: bytes | None) -> None:
    """Have the rest of a request, which has a context of its own, go on with its client's trace."""
    from opentelemetry import context

    context.attach(_context_of(None if traceparent is None else traceparent.decode("latin-1")))


def _context_of(traceparent: str | None) -> "Context":
    """The context in which the trace goes on; without any, or a malformed one, an empty one."""
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = {} if traceparent is None else {_HEADER: traceparent}
    return TraceContextTextMapPropagator().extract(carrier, Context())


def traceparent() -> str | None:
    """What names the current span, so that another process can go on; None while nothing is."""
    if _State.tracer is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get(_HEADER)


def past(name: str, *, begun: int, ended: int, **attributes: str | int) -> None:
    """A span of which nothing was known while it lasted; times in milliseconds since 1970."""
    if _State.tracer is None:
        return
    named = {f"calotype.{key}": value for key, value in attributes.items()}
    made = _State.tracer.start_span(name, attributes=named, start_time=begun * 1_000_000)
    made.end(ended * 1_000_000)
