"""The agent as a whole: its tasks, what it hears, how it leaves.

    kernel log ─ KernelWatch ┐     (beside it the driver's tracepoints: SecondWitness)
    driver ───── Pulse ──────┼─ Reporter ─ Spool ─ Outbox ─ JetStream
    host ─────── HostWatch ──┤     (and CustomWatch: the operator's own checks)
    commands ─── here ───────┘     heartbeats and answers to probes: core NATS

An `Agent` may exist thousands of times in one process (a simulated fleet): it holds no thread, no file and no
connection of its own but what its `Parts` bring.
"""

from __future__ import annotations

import asyncio
from typing import TypeVar

import structlog

from navarch_agent import checks
from navarch_agent.commands import Ignore, Periods, Refuse, Repeat, configured, decide
from navarch_agent.custom_watch import CustomWatch
from navarch_agent.driver_watch import DriverWatch
from navarch_agent.hearing import Handler, hear
from navarch_agent.host_watch import HostWatch
from navarch_agent.inject import Injection, InjectionRefused, InjectionReply, Simulation
from navarch_agent.kernel import KernelWatch
from navarch_agent.outbox import Outbox
from navarch_agent.parts import Parts
from navarch_agent.pulse import Pulse
from navarch_agent.reporter import Reporter
from navarch_agent.second_witness import SecondWitness
from navarch_agent.spool import DoneCommand
from navarch_common.bus.base import BusError, BusMessage
from navarch_common.events import BadMessage, decode, encode
from navarch_common.events.messages import Command, CommandReceipt, Probe, ProbeReply

log = structlog.get_logger("navarch.agent")

_Message = TypeVar("_Message", Command, Probe)


class _Stopped(Exception):
    """A command told the agent to stop. The message is the reason."""


class Agent:
    """Watches one machine, reports, carries out commands.

    `simulation` makes it a simulated machine that faults can be injected into. With `listen` False it subscribes to
    nothing: whoever runs many in one process hears for them all and calls `on_probe`, `on_command`, `on_inject`.
    """

    REJECTED_EVERY_S = 60.0
    LEAVE_TIMEOUT_S = 3.0
    FLUSH_TIMEOUT_S = 5.0

    def __init__(
        self,
        parts: Parts,
        periods: Periods | None = None,
        *,
        simulation: Simulation | None = None,
        listen: bool = True,
    ) -> None:
        self._parts = parts
        self._simulation = simulation
        self._listen = listen
        self._outbox = Outbox(parts, self._silent)
        self._reporter = Reporter(parts, self._outbox)
        self._watch = DriverWatch(parts.driver, grace_s=0.5 if simulation is None else None)
        self._kernel = KernelWatch(parts, self._reporter, self._watch)
        self._pulse = Pulse(parts, self._watch, self._kernel, self._reporter, periods or Periods(), self._silent)
        self._host: HostWatch | None = None
        if parts.host_reader is not None:
            self._host = HostWatch(parts, parts.host_reader, self._reporter, lambda: self.periods.health_check_s)
        self._custom: CustomWatch | None = None
        if parts.checks is not None:
            self._custom = CustomWatch(
                parts, parts.checks, self._reporter, lambda: self.periods.health_check_s, lambda: self._watch.gpus
            )
        self._stop: asyncio.Future[str] | None = None
        self.says_goodbye = True
        """False where the machine's power is cut instead of switched off."""
        self.rejected = 0
        """Messages that could not be used."""
        self._untold: dict[str, tuple[int, float]] = {}
        """By subject: messages rejected and not told of, and when the next telling is due."""

    @property
    def node(self) -> str:
        return self._parts.identity.node

    @property
    def periods(self) -> Periods:
        return self._pulse.periods

    async def run(self) -> None:
        """Run until cancelled or told to stop, then say goodbye. Closes the driver and the spool."""
        reason = "the agent was stopped"
        try:
            try:
                await self._run_tasks()
            except* _Stopped as stopped:
                reason = str(stopped.exceptions[0])
        finally:
            await self._leave(reason)

    async def on_probe(self, message: BusMessage) -> None:
        """Answer: here I am; and register anew where that is asked for."""
        probe = self._decoded(message, Probe)
        if probe is None or probe.node != self.node or self._silent():
            return
        identity = self._parts.identity
        reply = ProbeReply(
            node=identity.node,
            pool=identity.pool,
            generation=identity.generation,
            boot_id=identity.boot_id,
            sequence=self._pulse.next_sequence(),
            at=self._parts.clock.now(),
        )
        await self._reply(message, encode(reply))
        if probe.register:
            self._pulse.register_soon()
            if self._host is not None:
                self._host.tell_again()
            if self._custom is not None:
                self._custom.tell_again()

    async def on_command(self, message: BusMessage) -> None:
        """Take a command, do it once, report what came of it."""
        command = self._decoded(message, Command)
        if command is None or self._silent():
            return
        decision = decide(command, self._parts.identity, self._parts.spool.done(command.id), self._parts.clock.now())
        if isinstance(decision, Ignore):
            log.info("command ignored", id=command.id, why=decision.text)
            return
        await self._reply(message, encode(CommandReceipt(id=command.id, node=self.node)))
        if isinstance(decision, Repeat):
            done = decision.done
        elif isinstance(decision, Refuse):
            done = DoneCommand(id=command.id, outcome=decision.outcome, text=decision.text)
        else:
            done = self._carry_out(command)
        log.info("command", id=command.id, kind=command.kind, outcome=done.outcome, text=done.text)
        self._reporter.command_result(done, trace=command.trace)

    async def on_inject(self, message: BusMessage) -> None:
        """Let a fault happen on a simulated machine, and say what was done."""
        if self._simulation is None:
            return
        now_s = asyncio.get_running_loop().time()
        try:
            injection = decode(message.data, Injection, size_max=4096)
            answer = InjectionReply(ok=True, text=self._simulation.inject(injection, now_s))
        except BadMessage as error:
            self._reject(message.subject, error)
            answer = InjectionReply(ok=False, text=str(error)[:1000])
        except InjectionRefused as error:
            answer = InjectionReply(ok=False, text=str(error)[:1000])
        log.info("injection", ok=answer.ok, text=answer.text)
        await self._reply(message, encode(answer))

    async def _run_tasks(self) -> None:
        subjects = self._parts.subjects
        self._stop = asyncio.get_running_loop().create_future()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._outbox.run(), name=f"{self.node}:outbox")
            if self._parts.spool.durable:
                tasks.create_task(self._outbox.sync(), name=f"{self.node}:spool-sync")
            if self._listen:
                self._start_hearing(tasks, subjects.command(self.node), self.on_command)
                self._start_hearing(tasks, subjects.probe(self.node), self.on_probe)
                if self._simulation is not None:
                    self._start_hearing(tasks, subjects.inject(self.node), self.on_inject)
            tasks.create_task(self._pulse.run(), name=f"{self.node}:pulse")
            tasks.create_task(self._kernel.run(), name=f"{self.node}:kernel-log")
            if self._parts.tracepoints is not None:
                second = SecondWitness(self._parts.tracepoints, self._kernel)
                tasks.create_task(second.run(), name=f"{self.node}:tracepoints")
            if self._host is not None:
                tasks.create_task(self._host.run(), name=f"{self.node}:host")
            if self._custom is not None:
                tasks.create_task(self._custom.run(), name=f"{self.node}:checks")
            reason = await self._stop
            await self._outbox.flush(self.FLUSH_TIMEOUT_S)
            raise _Stopped(reason)

    def _start_hearing(self, tasks: asyncio.TaskGroup, subject: str, handler: Handler) -> None:
        tasks.create_task(hear(self._parts.bus, subject, lambda _: handler), name=f"{self.node}:{subject}")

    def _carry_out(self, command: Command) -> DoneCommand:
        if command.kind == "stop":
            if self._stop is not None and not self._stop.done():
                self._stop.set_result(f"told to stop by command {command.id}")
            return DoneCommand(id=command.id, outcome="done", text="stopping")
        periods = configured(self._pulse.periods, command.args)
        if isinstance(periods, str):
            return DoneCommand(id=command.id, outcome="refused", text=periods[:1000])
        self._pulse.periods = periods
        return DoneCommand(id=command.id, outcome="done")

    def _silent(self) -> bool:
        return self._simulation is not None and self._simulation.silent(asyncio.get_running_loop().time())

    def _decoded(self, message: BusMessage, kind: type[_Message]) -> _Message | None:
        try:
            return decode(message.data, kind)
        except BadMessage as error:
            self._reject(message.subject, error)
            return None

    def _reject(self, subject: str, error: BadMessage) -> None:
        """Counts a message that was dropped, and reports that at most once a minute: an event tells of it then."""
        self.rejected += 1
        now_s = asyncio.get_running_loop().time()
        count, due_s = self._untold.get(subject, (0, 0.0))
        if now_s < due_s or self._silent():
            self._untold[subject] = count + 1, due_s
            return
        count, self._untold[subject] = count + 1, (0, now_s + self.REJECTED_EVERY_S)
        log.warning("message not understood, dropped", subject=subject, error=str(error), rejected=self.rejected)
        self._reporter.health(checks.rejected(subject, str(error), count, self._parts.clock.now()))

    async def _reply(self, message: BusMessage, data: bytes) -> None:
        try:
            await self._parts.bus.reply(message, data)
        except BusError as error:
            log.info("reply not sent", subject=message.subject, why=str(error))

    async def _leave(self, reason: str) -> None:
        try:
            if self.says_goodbye and not self._silent():
                async with asyncio.timeout(self.LEAVE_TIMEOUT_S):
                    await self._reporter.leaving(reason)
        except (BusError, TimeoutError) as error:
            log.info("left without a goodbye", why=str(error) or "the bus took too long")
        finally:
            await self._parts.driver.close()
            self._parts.spool.close()
