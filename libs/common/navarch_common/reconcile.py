"""A loop that looks at the whole truth and does the next right thing, on a signal or on its period.

It is never told what changed. One step runs at a time; a signal during a step causes one more step, however many signals
there were. A step that fails is logged, counted, and tried again after a pause that grows up to the period. What the
last step did is data that one can show.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Literal

import structlog
from msgspec import Struct

from navarch_common.clock import Clock
from navarch_common.errors import NavarchError
from navarch_common.metrics import Metrics

log = structlog.get_logger()

Step = Callable[[], Awaitable[Mapping[str, int] | None]]
"""One pass. What it counted on the way is shown with its result."""

RETRY_FIRST_S = 0.5


class ReconcileResult(Struct, frozen=True, kw_only=True):
    """What the last step did."""

    at: datetime
    """When it began."""
    took_s: float
    outcome: Literal["done", "failed"]
    error: str = ""
    failures: int = 0
    """Steps that failed in a row, this one included."""
    counts: dict[str, int] = {}


class Reconciler:
    """Runs one step again and again. `run` it as a task; `wake` it from anywhere in the loop."""

    def __init__(
        self, name: str, step: Step, period: timedelta, clock: Clock, metrics: Metrics, *, step_limit_s: float = 120.0
    ) -> None:
        """`step_limit_s` bounds one step: what takes longer is cancelled and counts as failed."""
        self.name = name
        self.period = period
        """Longest time between the end of a step and the next one. May be changed while it runs."""
        self.last: ReconcileResult | None = None
        self._step, self._clock, self._metrics, self._step_limit_s = step, clock, metrics, step_limit_s
        self._signal = asyncio.Event()

    def wake(self) -> None:
        """Soon. Harmless at any time and as often as one likes."""
        self._signal.set()

    async def run(self) -> None:
        """Until cancelled. The first step begins at once."""
        while True:
            self._signal.clear()
            self.last = await self._once()
            await self._pause(self.last.failures)

    async def _once(self) -> ReconcileResult:
        at, started = self._clock.now(), asyncio.get_running_loop().time()
        counts: Mapping[str, int] | None = None
        error = ""
        try:
            async with asyncio.timeout(self._step_limit_s):
                counts = await self._step()
        except TimeoutError:
            error = f"not done after {self._step_limit_s:g} s"
            log.error("reconcile failed", reconciler=self.name, error=error)
        except NavarchError as failure:
            error = str(failure) or type(failure).__name__
            log.warning("reconcile failed", reconciler=self.name, error=error, kind=type(failure).__name__)
        except Exception as failure:
            error = f"{type(failure).__name__}: {failure}"
            log.exception("reconcile failed", reconciler=self.name, error=error)
        took_s = asyncio.get_running_loop().time() - started
        self._metrics.observe("navarch_reconcile_seconds", took_s, service=self.name)
        if error:
            self._metrics.count("navarch_reconcile_failures_total", service=self.name)
        return ReconcileResult(
            at=at,
            took_s=round(took_s, 6),
            outcome="failed" if error else "done",
            error=error,
            failures=(self.last.failures if self.last else 0) + 1 if error else 0,
            counts=dict(counts or {}),
        )

    async def _pause(self, failures: int) -> None:
        """After a failure signals wait too, so that a broken step does not spin."""
        period_s = self.period.total_seconds()
        if failures:
            await asyncio.sleep(min(RETRY_FIRST_S * 2 ** min(failures - 1, 10), period_s))
            return
        try:
            async with asyncio.timeout(period_s):
                await self._signal.wait()
        except TimeoutError:
            return
