"""OpenTelemetry traces, where `chainzrule[otel]` is installed and they are asked for.

A span for each request comes from FastAPI, which also takes up the caller's trace context (W3C Trace Context). Here the
stages of a prediction are put below it, with their times as they were measured. Where spans go is set by
OpenTelemetry's own variables, OTEL_EXPORTER_OTLP_ENDPOINT above all.
"""

import time

from model.outputs import Plan
from service.errors import StartError
from service.timing import Timing
from service.version import VERSION

NANOSECONDS = 1e9


class Tracing:
    """Sends traces; one for a process."""

    def __init__(self) -> None:
        """Set up the exporter; raises StartError where OpenTelemetry's SDK is not installed."""
        try:
            from opentelemetry import trace
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise StartError(f"traces: expected chainzrule[otel] to be installed: {error}") from error
        resource = Resource.create({SERVICE_NAME: "chainzrule", SERVICE_VERSION: VERSION})
        self.provider = TracerProvider(resource=resource)
        self.provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self.provider.get_tracer("chainzrule", VERSION)
        self._current_span = trace.get_current_span

    def record(self, route: str, labels: tuple[str, str], plan: Plan, rows: int, timing: Timing) -> None:
        """Describe the current request's span, and put the stages of its prediction below it."""
        span = self._current_span()
        span.update_name(f"POST {route}")
        span.set_attributes(
            {
                "http.route": route,  # which FastAPI does not know of what it has not routed
                "chainzrule.model": labels[0],
                "chainzrule.version": labels[1],
                "chainzrule.plan": plan.value,
                "chainzrule.rows": rows,
            }
        )
        end = time.time_ns()
        for stage, seconds in reversed(timing.stages().items()):
            start = end - int(seconds * NANOSECONDS)
            self._tracer.start_span(stage, start_time=start).end(end)
            end = start

    def close(self) -> None:
        """Send what has not been sent yet."""
        self.provider.shutdown()
