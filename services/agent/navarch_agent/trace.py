"""Where a trace begins: at the kernel's line. The tracer is passed in; the agent itself knows no telemetry library."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Span(Protocol):
    """A span under way."""

    @property
    def traceparent(self) -> str:
        """Its W3C `traceparent`: what the next service names as its parent."""
        ...


class Tracer(Protocol):
    """Opens spans. `navarch_common.telemetry` has one that exports them."""

    def span(
        self, name: str, parent: str = "", **attributes: str | int | float | bool
    ) -> AbstractContextManager[Span]: ...


class _Ids:
    """A span that is nothing but its ids."""

    __slots__ = ("traceparent",)

    def __init__(self, traceparent: str) -> None:
        self.traceparent = traceparent


class IdTracer:
    """Makes trace ids and exports nothing, so that events have a `trace_id` where no collector is configured."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    @contextmanager
    def span(self, name: str, parent: str = "", **attributes: str | int | float | bool) -> Iterator[Span]:  # noqa: ARG002
        trace = parent.split("-")[1] if parent.count("-") == 3 else f"{self._rng.getrandbits(128) or 1:032x}"
        yield _Ids(f"00-{trace}-{self._rng.getrandbits(64) or 1:016x}-01")
