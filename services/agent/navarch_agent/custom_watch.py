"""Runs operators' own checks once in each health-check period, one after the other, and reports what they find."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import structlog

from navarch_agent.custom_checks import BadOutput, CheckRunner, CustomChecks, Finding
from navarch_agent.host_watch import in_a_thread
from navarch_agent.parts import Parts
from navarch_agent.reporter import Reporter
from navarch_common.model.gpu import Gpu

log = structlog.get_logger("navarch.agent.checks")


class CustomWatch:
    """Watches until cancelled. `period_s` and `gpus` are asked anew for each round."""

    PERIOD_S_MIN = 1.0

    def __init__(
        self,
        parts: Parts,
        runner: CheckRunner,
        reporter: Reporter,
        period_s: Callable[[], float],
        gpus: Callable[[], tuple[Gpu, ...]],
    ) -> None:
        self._parts, self._runner, self._reporter = parts, runner, reporter
        self._period_s, self._gpus = period_s, gpus
        self._checks = CustomChecks()
        self._said: dict[str, str] = {}
        """What was last logged of each check, so that it is said once."""

    async def run(self) -> None:
        """Run all checks, at once and then in the rhythm of health checks."""
        while True:
            await self.round()
            await asyncio.sleep(max(self._period_s(), self.PERIOD_S_MIN))

    def tell_again(self) -> None:
        """What stands is reported with the next round, whoever knew of it."""
        self._checks.tell_again()

    async def round(self) -> None:
        """Run each check once, and report what there is to report. A directory that cannot be read ends nothing."""
        try:
            checks = await in_a_thread(self._runner.find)
        except (BadOutput, OSError) as error:
            self._say("", f"no check is run: {error}")
            return
        self._said.pop("", None)
        for name, path in checks.items():
            try:
                findings = await in_a_thread(partial(self._runner.run, path))
            except (BadOutput, OSError) as error:
                self._say(name, f"the check says nothing that counts: {error}")
                continue
            self._said.pop(name, None)
            self._report(name, findings)
        for name in sorted(self._checks.known - checks.keys()):
            self._said.pop(name, None)
            self._report(name, ())
            self._checks.forget(name)

    def _report(self, name: str, findings: tuple[Finding, ...]) -> None:
        for observation in self._checks.look(name, findings, self._gpus(), self._parts.clock.now()):
            with self._parts.telemetry.span("check", kind=name) as span:
                self._reporter.health(observation, trace=span.traceparent)
            level = observation.metrics.get("level")
            log.info("check", name=name, level=level, gpu=observation.gpu_index, text=observation.message[:300])

    def _say(self, name: str, text: str) -> None:
        if self._said.get(name) != text:
            self._said[name] = text
            log.warning(text, check=name or None)
