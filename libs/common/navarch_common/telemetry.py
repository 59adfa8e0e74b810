"""Traces: a facade that always makes ids, and exports spans where a collector is configured.

A trace begins at the kernel's line and goes on through health's verdict to the replacement's launch; what carries it from
one process to the next is a W3C `traceparent` in messages and records. OpenTelemetry is imported only when an endpoint
is configured, so a GPU machine does without it.
"""

import asyncio
import importlib
import random
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

import structlog

log = structlog.get_logger()

Attribute = str | int | float | bool
ENDPOINT_VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"
FLUSH_S = 3.0
_TRACEPARENT = re.compile(r"\A00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}\Z")


@dataclass(frozen=True, slots=True)
class Span:
    """A span under way."""

    traceparent: str
    """What the next process names as its parent."""

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits: what events carry."""
        return self.traceparent[3:35]


class Exporter(Protocol):
    """Spans that leave this process. `navarch_common.telemetry_otlp` has one."""

    def span(self, name: str, parent: str, attributes: Mapping[str, Attribute]) -> AbstractContextManager[Span]: ...
    def named(self, service: str) -> "Exporter": ...
    def close(self, timeout_s: float) -> None:
        """Sends what is left. Blocks."""
        ...


class Telemetry:
    """One service's tracer."""

    def __init__(self, rng: random.Random, exporter: Exporter | None = None) -> None:
        self._rng, self._exporter = rng, exporter

    @classmethod
    def open(cls, service: str, rng: random.Random, endpoint: str | None, environ: Mapping[str, str]) -> "Telemetry":
        """Exports to `endpoint` (OTLP over HTTP, its base URL), or to what OpenTelemetry's own variable says."""
        endpoint = endpoint or environ.get(ENDPOINT_VARIABLE)
        if not endpoint:
            return cls(rng)
        try:
            otlp = importlib.import_module("navarch_common.telemetry_otlp")
        except ModuleNotFoundError as error:
            log.warning("traces are not exported: install the extra `telemetry`", endpoint=endpoint, missing=error.name)
            return cls(rng)
        exporter: Exporter = otlp.OtlpExporter(service, endpoint)
        return cls(rng, exporter)

    def named(self, service: str) -> "Telemetry":
        """The same collector, as another service: `service.name` is `navarch-<service>`."""
        return Telemetry(self._rng, self._exporter.named(service) if self._exporter else None)

    def span(self, name: str, parent: str = "", **attributes: Attribute) -> AbstractContextManager[Span]:
        """A span for as long as the context lasts. A `parent` that is no traceparent begins a new trace."""
        parent = parent if trace_id_of(parent) else ""
        if self._exporter is not None:
            return self._exporter.span(name, parent, attributes)
        return self._ids(parent)

    async def close(self) -> None:
        """Sends what is left, for a few seconds at most. The collector may be away."""
        if self._exporter is not None:
            try:
                async with asyncio.timeout(FLUSH_S + 1.0):
                    await asyncio.to_thread(self._exporter.close, FLUSH_S)
            except TimeoutError:
                log.warning("traces not flushed in time")

    @contextmanager
    def _ids(self, parent: str) -> Iterator[Span]:
        trace_id = trace_id_of(parent) or f"{self._rng.getrandbits(128) or 1:032x}"
        yield Span(f"00-{trace_id}-{self._rng.getrandbits(64) or 1:016x}-01")


def trace_id_of(traceparent: str) -> str:
    """The trace id within a `traceparent`; empty where it is none."""
    match = _TRACEPARENT.match(traceparent)
    return match[1] if match else ""
