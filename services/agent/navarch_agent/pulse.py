"""The agent's pulse: heartbeats, registration, and reports on what stays wrong for longer.

A driver that hangs stops no heartbeat: reading goes on beside it, and the heartbeat says that nothing is known.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import structlog

from navarch_agent import checks
from navarch_agent.commands import Periods
from navarch_agent.driver_watch import DriverWatch
from navarch_agent.gpu.base import DriverState, Sample
from navarch_agent.gpu_checks import GpuChecks
from navarch_agent.kernel import KernelWatch
from navarch_agent.parts import Parts
from navarch_agent.reporter import Reporter
from navarch_common.bus.base import BusError
from navarch_common.events import encode
from navarch_common.events.messages import Heartbeat, Observation
from navarch_common.model.node import Registration

log = structlog.get_logger("navarch.agent.pulse")


class Pulse:
    """Beats until cancelled. `periods` may be set at any time; the next beat follows it."""

    JITTER = 0.1
    SEND_TIMEOUT_S = 2.0
    RECONNECT_SPREAD_S = 60.0
    """After a lost connection the agents of a fleet register anew, spread over this time."""

    ASKED_SPREAD_S = 2.0

    def __init__(
        self,
        parts: Parts,
        watch: DriverWatch,
        kernel: KernelWatch,
        reporter: Reporter,
        periods: Periods,
        silent: Callable[[], bool],
    ) -> None:
        self._parts = parts
        self._watch = watch
        self._kernel = kernel
        self._reporter = reporter
        self.periods = periods
        self._silent = silent
        self._sequence = 0
        self._hot: frozenset[int] = frozenset()
        self._check_at_s = 0.0
        self._gpus = GpuChecks()
        self._looked_at_s = float("-inf")
        self._register_at_s = float("inf")
        self._disconnects = parts.bus.status.disconnects
        self._registering: asyncio.Task[None] | None = None
        self._registered: DriverState | None = None
        self._unheard = False
        self._repeats = False
        """Faults are reported again with the next registration."""

    async def run(self) -> None:
        """Register and beat, at once and then in the rhythm of `periods`."""
        async with asyncio.TaskGroup() as tasks:
            self._registering = tasks.create_task(self._register(), name="register")
            while True:
                sample = await self._watch.sample(tasks)
                await self._send(self._heartbeat(sample))
                self._check(sample)
                await self._look_closely(sample, tasks)
                self._maybe_register(sample, tasks)
                await asyncio.sleep(
                    self.periods.heartbeat_s * self._parts.rng.uniform(1 - self.JITTER, 1 + self.JITTER)
                )

    def register_soon(self) -> None:
        """Registers anew, and reports faults again, with one of the next heartbeats: all agents of a fleet may be asked at
        once."""
        self._repeats = True
        due_s = asyncio.get_running_loop().time() + self._parts.rng.uniform(0, self.ASKED_SPREAD_S)
        self._register_at_s = min(self._register_at_s, due_s)

    def next_sequence(self) -> int:
        """Number a heartbeat or a probe's answer. By uptime, so that it rises across restarts within a boot."""
        self._sequence = max(self._sequence + 1, int(self._parts.host.uptime_s() * 1000))
        return self._sequence

    def _heartbeat(self, sample: Sample) -> Heartbeat:
        parts, load = self._parts, self._parts.host.load()
        return Heartbeat(
            node=parts.identity.node,
            pool=parts.identity.pool,
            generation=parts.identity.generation,
            boot_id=parts.identity.boot_id,
            sequence=self.next_sequence(),
            at=parts.clock.now(),
            interval_s=self.periods.heartbeat_s,
            driver_state=sample.state,
            gpus=sample.gpus,
            cpu_ratio=load.cpu_ratio,
            memory_ratio=load.memory_ratio,
            lost_kernel_records=min(self._kernel.lost, 1_000_000_000),
        )

    async def _send(self, heartbeat: Heartbeat) -> None:
        """Send it now or never: an old heartbeat would be a lie."""
        if self._silent():
            return
        try:
            async with asyncio.timeout(self.SEND_TIMEOUT_S):
                await self._parts.bus.publish(self._parts.subjects.heartbeat(heartbeat.node), encode(heartbeat))
        except (BusError, TimeoutError) as error:
            if not self._unheard:
                log.warning("heartbeats are not heard", why=str(error) or "the bus does not take them in time")
            self._unheard = True
        else:
            if self._unheard:
                log.info("heartbeats are heard again")
            self._unheard = False

    def _check(self, sample: Sample) -> None:
        """Report GPUs that became hot or cool at once, and those that stay hot with each health check."""
        now_s = asyncio.get_running_loop().time()
        observations, hot = checks.heat(sample, self._hot, self._watch.gpus, self._parts.clock.now())
        if hot != self._hot or (observations and now_s >= self._check_at_s):
            self._hot = hot
            self._check_at_s = now_s + self.periods.health_check_s
            self._report(observations)

    async def _look_closely(self, sample: Sample, tasks: asyncio.TaskGroup) -> None:
        """Report what the readings tell of GPUs, those that are read once in a health-check period included."""
        now_s, at = asyncio.get_running_loop().time(), self._parts.clock.now()
        found = self._gpus.on_sample(sample, self._watch.gpus, at)
        if now_s - self._looked_at_s >= self.periods.health_check_s and self._watch.gpus:
            details = await self._watch.details(tasks)
            if details is not None:
                self._looked_at_s = now_s
                found += self._gpus.on_details(details, sample, self._watch.gpus, at)
        self._report(found)

    def _report(self, observations: Iterable[Observation]) -> None:
        for observation in observations:
            with self._parts.telemetry.span("gpu-reading", kind=observation.event_type) as span:
                self._reporter.health(observation, trace=span.traceparent)

    def _maybe_register(self, sample: Sample, tasks: asyncio.TaskGroup) -> None:
        """Register anew when the driver changed its mind, after a lost connection, and once in a while."""
        now_s = asyncio.get_running_loop().time()
        disconnects = self._parts.bus.status.disconnects
        if disconnects != self._disconnects:
            self._disconnects = disconnects
            self._register_at_s = min(self._register_at_s, now_s + self._parts.rng.uniform(0, self.RECONNECT_SPREAD_S))
        changed = sample.state is not self._watch.inventory.state
        idle = self._registering is None or self._registering.done()
        if idle and (changed or now_s >= self._register_at_s):
            self._registering = tasks.create_task(self._register(again=not changed), name="register")

    async def _register(self, *, again: bool = True) -> None:
        """Ask who the GPUs are, and register: always when `again`, else where the driver has news."""
        news = await self._watch.identify()
        spread = self._parts.rng.uniform(1 - self.JITTER, 1 + self.JITTER)
        self._register_at_s = asyncio.get_running_loop().time() + self.periods.registration_s * spread
        healed = self._watch.inventory.state is DriverState.OK and self._registered is not DriverState.OK
        if news or again or healed:
            self._registered = self._watch.inventory.state
            self._reporter.registered(self._registration())
            if self._repeats:
                self._repeats = False
                self._reporter.repeat_faults()
                self._gpus.tell_again()

    def _registration(self) -> Registration:
        parts, facts, watch = self._parts, self._parts.host.facts(), self._watch
        return Registration(
            at=parts.clock.now(),
            boot_id=parts.identity.boot_id,
            generation=parts.identity.generation,
            hostname=facts.hostname,
            addresses=facts.addresses,
            kernel=facts.kernel,
            agent_version=parts.version,
            driver=watch.version,
            driver_state=watch.inventory.state,
            gpus=watch.gpus,
        )
