"""Simulated machines, thousands in one process: no thread, no file, no connection of their own.

A machine is a simulated driver, a kernel log in memory and a spool in memory around the very same `Agent`. They share
one bus connection, and a `SimulatedFleet` hears for all of them with three subscriptions.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from functools import partial

from navarch_agent.commands import Periods
from navarch_agent.gpu.fake import FakeGpuDriver
from navarch_agent.hearing import Handler, hear
from navarch_agent.host import SimulatedHost
from navarch_agent.identity import Identity
from navarch_agent.inject import Simulation
from navarch_agent.log.fake import MemoryKernelLog
from navarch_agent.parts import Parts
from navarch_agent.service import Agent
from navarch_agent.spool import Spool
from navarch_common.bus.base import Bus, BusMessage
from navarch_common.clock import Clock
from navarch_common.events.subjects import Subjects
from navarch_common.telemetry import Telemetry


class SimulatedFleet:
    """Makes machines that share a connection, and hears for all of them. `run` it beside them."""

    def __init__(self, bus: Bus, subjects: Subjects, *, clock: Clock, telemetry: Telemetry | None = None) -> None:
        self._bus = bus
        self._subjects = subjects
        self._clock = clock
        self._telemetry = telemetry
        self._agents: dict[str, Agent] = {}

    def machine(
        self,
        identity: Identity,
        rng: random.Random,
        *,
        periods: Periods | None = None,
        gpu_count: int = 8,
        unreachable: Callable[[], bool] = lambda: False,
    ) -> SimulatedMachine:
        """Return a machine that has just booted; it does nothing before its `run`. While it is `unreachable` it lives on,
        says nothing and hears nothing."""
        driver = FakeGpuDriver(identity.node, rng, gpu_count=gpu_count)
        kernel = MemoryKernelLog(self._clock, identity.boot_id)
        parts = Parts(
            identity=identity,
            bus=self._bus,
            subjects=self._subjects,
            driver=driver,
            kernel_log=kernel,
            spool=Spool(identity.boot_id),
            host=SimulatedHost(identity.node, self._clock),
            telemetry=self._telemetry or Telemetry(rng),
            clock=self._clock,
            rng=rng,
            version="simulated",
        )
        simulation = Simulation(driver, kernel.printk, unreachable)
        agent = Agent(parts, periods, simulation=simulation, listen=False)
        return SimulatedMachine(agent, driver, kernel, simulation, self._agents)

    async def run(self) -> None:
        """Hear until cancelled. Raises `BusUnavailable` when the connection is closed for good."""
        async with asyncio.TaskGroup() as tasks:
            for kind in ("commands", "probe", "inject"):
                subject = f"{self._subjects.prefix}.{kind}.*"
                tasks.create_task(hear(self._bus, subject, partial(self._handler, kind)), name=f"fleet:{kind}")

    def _handler(self, kind: str, message: BusMessage) -> Handler | None:
        agent = self._agents.get(message.subject.rpartition(".")[2])
        if agent is None:
            return None
        return {"commands": agent.on_command, "probe": agent.on_probe, "inject": agent.on_inject}[kind]


class SimulatedMachine:
    """One boot of one machine, with its insides at hand."""

    def __init__(
        self,
        agent: Agent,
        driver: FakeGpuDriver,
        kernel: MemoryKernelLog,
        simulation: Simulation,
        plugged_in: dict[str, Agent],
    ) -> None:
        self.agent = agent
        self.driver = driver
        self.kernel = kernel
        self.simulation = simulation
        self._plugged_in = plugged_in

    async def run(self) -> None:
        """Live until cancelled (a shutdown, in good order) or told to stop."""
        self._plugged_in[self.agent.node] = self.agent
        try:
            await self.agent.run()
        finally:
            # A later boot of the same node may have taken the place already.
            if self._plugged_in.get(self.agent.node) is self.agent:
                del self._plugged_in[self.agent.node]

    def pull_the_plug(self) -> None:
        """Let the coming cancellation be a power cut: no goodbye."""
        self.agent.says_goodbye = False
