"""Looks at the host once in each health-check period, and reports what is wrong with it.

A look runs in a thread, since a file system that is away makes whoever asks for it wait for ever. There is never more
than one: while it hangs no other begins, and that it hangs is itself a report. On simulated machines nobody looks.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import structlog

from navarch_agent.host_checks import HostChecks
from navarch_agent.host_reading import HostReader, HostReading
from navarch_agent.parts import Parts
from navarch_agent.reporter import Reporter

log = structlog.get_logger("navarch.agent.host")

_Found = TypeVar("_Found")


class HostWatch:
    """Watches until cancelled. `period_s` is asked anew after each look."""

    GRACE_S = 5.0
    """So long a look is waited for; what it says later counts with the next turn."""
    PERIOD_S_MIN = 1.0

    def __init__(self, parts: Parts, reader: HostReader, reporter: Reporter, period_s: Callable[[], float]) -> None:
        self._parts = parts
        self._reader = reader
        self._reporter = reporter
        self._period_s = period_s
        self._checks = HostChecks()
        self._looking: asyncio.Future[HostReading] | None = None
        self._since_s = 0.0
        self._failure = ""

    async def run(self) -> None:
        """Look, at once and then in the rhythm of health checks."""
        while True:
            await self.turn(asyncio.get_running_loop().time())
            await asyncio.sleep(max(self._period_s(), self.PERIOD_S_MIN))

    def tell_again(self) -> None:
        """What stands is reported with the next look, whoever knew of it."""
        self._checks.tell_again()

    async def turn(self, now_s: float) -> None:
        """Begin a look, or go on waiting for the one that hangs, and report what there is to report."""
        if self._looking is None:
            self._looking, self._since_s = in_a_thread(self._reader.look), now_s
        await asyncio.wait((self._looking,), timeout=self.GRACE_S)
        at = self._parts.clock.now()
        if not self._looking.done():
            observations = self._checks.hangs(self._reader.doing, self._since_s, now_s, at)
        else:
            looking, self._looking = self._looking, None
            reading = self._come_back(looking)
            observations = [] if reading is None else self._checks.look(reading, now_s, at)
        for observation in observations:
            kind = str(observation.metrics["kind"])
            with self._parts.telemetry.span("host-reading", kind=kind) as span:
                self._reporter.health(observation, trace=span.traceparent)
            log.info("host", kind=kind, ended=observation.metrics.get("ended"), text=observation.message[:300])

    def _come_back(self, looking: asyncio.Future[HostReading]) -> HostReading | None:
        """What watches the host must not take down what watches the GPUs, whatever a strange host makes of it."""
        error = looking.exception()
        if error is None:
            return looking.result()
        if repr(error) != self._failure:
            self._failure = repr(error)
            log.error("the look at the host failed: nothing is known of it", why=self._failure[:1000])
        return None


def in_a_thread(look: Callable[[], _Found]) -> asyncio.Future[_Found]:
    """Run `look` beside the event loop, in a thread that nobody waits for when the process ends.

    `asyncio.to_thread` would be waited for: a look that hangs would keep the agent from ever ending.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_Found] = loop.create_future()

    def give(take: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(lambda: None if future.done() else take())

    def run() -> None:
        try:
            found = look()
        except Exception as error:  # noqa: BLE001 - it is handed to whoever waits
            give(partial(future.set_exception, error))
        else:
            give(partial(future.set_result, found))

    threading.Thread(target=run, name="host-look", daemon=True).start()
    return future
