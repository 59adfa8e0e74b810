"""Spans to a collector, OTLP over HTTP, with OpenTelemetry's SDK. Imported only where an endpoint is configured."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from navarch_common.telemetry import Attribute, Span

EXPORT_TIMEOUT_S = 5.0


class OtlpExporter:
    """One service's spans."""

    def __init__(self, service: str, endpoint: str, processor: SpanProcessor | None = None) -> None:
        self._endpoint = endpoint
        self._processor = processor or BatchSpanProcessor(
            OTLPSpanExporter(endpoint=traces_url(endpoint), timeout=EXPORT_TIMEOUT_S), schedule_delay_millis=1000
        )
        resource = Resource.create({"service.name": f"navarch-{service}", "service.namespace": "navarch"})
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(self._processor)
        self._tracer = provider.get_tracer("navarch")

    def named(self, service: str) -> "OtlpExporter":
        return OtlpExporter(service, self._endpoint, self._processor)

    @contextmanager
    def span(self, name: str, parent: str, attributes: Mapping[str, Attribute]) -> Iterator[Span]:
        # The context is given whole, so that spans never become children by accident of the task they run in.
        span = self._tracer.start_span(
            name, context=_context(parent), kind=SpanKind.INTERNAL, attributes=dict(attributes)
        )
        ids = span.get_span_context()
        try:
            yield Span(f"00-{ids.trace_id:032x}-{ids.span_id:016x}-{ids.trace_flags:02x}")
        except Exception as error:
            span.record_exception(error)
            span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))
            raise
        finally:
            span.end()

    def close(self, timeout_s: float) -> None:
        self._processor.force_flush(round(timeout_s * 1000))
        self._processor.shutdown()


def traces_url(endpoint: str) -> str:
    """OTLP's path behind a base URL; a URL that already ends in it stays."""
    base = endpoint.rstrip("/")
    return base if base.endswith("/v1/traces") else f"{base}/v1/traces"


def _context(parent: str) -> Context:
    if not parent:
        return Context()
    _, trace_id, span_id, flags = parent.split("-")
    remote = SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))
    return trace.set_span_in_context(NonRecordingSpan(remote), Context())
