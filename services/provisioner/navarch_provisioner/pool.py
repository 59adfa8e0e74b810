"""One pool's shell: reads, decides, commits, calls; and what the calls say is read back in.

It repairs one condition: that what is there differs from what `plan` wants, for whatever reason. Steps are committed one
after the other under the pool's lease; a commit that conflicts is decided anew on fresh records. Cloud calls run beside
it, and their outcomes are settled at the next pass, by the same hand that plans: so nothing in a pool happens twice at
once. The process may die between any two lines: what was begun is on record, and is looked up before anything else.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog
from msgspec import structs

from navarch_common.bus.base import BusError
from navarch_common.events.audit import Audit
from navarch_common.model.base import AnyKey, Record
from navarch_common.model.cluster import CommandRecord
from navarch_common.model.node import ENDED, NodeRecord, Phase
from navarch_common.reconcile import Reconciler
from navarch_common.run import Deps
from navarch_common.store.base import (
    BadRecord,
    BudgetExhausted,
    Commit,
    Conflict,
    Fenced,
    Lease,
    NewerSchema,
)
from navarch_provisioner import audits, commands, outcomes, placement, sizing
from navarch_provisioner.calls import CloudCalls
from navarch_provisioner.cloud.registry import Providers
from navarch_provisioner.news import trace_id_of
from navarch_provisioner.outcomes import Outcome
from navarch_provisioner.plan import plan
from navarch_provisioner.reader import Memory, PoolReader
from navarch_provisioner.settings import ProvisionerSettings
from navarch_provisioner.steps import Call, Plan, Step
from navarch_provisioner.view import NodeView, PoolView, rest_of
from navarch_provisioner.workload.base import SchedulerUnavailable, WorkloadNotifier

log = structlog.get_logger(__name__)

DRAIN_LOOK = timedelta(seconds=2)
"""While a node drains, its heartbeats are looked at this often: they wake nobody, and idle machines cost money."""
ROUNDS_MAX = 30
"""Reads and decisions in one pass: a story of a few steps is told at once, an endless one waits for its turn."""
TOLD_TIMEOUT_S = 10.0
REST_MAX = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Hold:
    """This copy's hold on a pool."""

    lease: Callable[[], Lease | None]
    """The lease while it is surely ours."""
    fenced: Callable[[], None]
    """Is told that it is not."""
    leaving: Callable[[], bool]
    """Whether the pool is about to be handed over: what is under way is settled, and nothing is begun."""


class PoolWorker:
    """Works on one pool while this copy holds its lease."""

    def __init__(
        self,
        deps: Deps,
        pool: str,
        *,
        settings: Callable[[], tuple[int, ProvisionerSettings]],
        providers: Providers,
        calls: CloudCalls,
        notifier: Callable[[str], WorkloadNotifier],
        hold: Hold,
    ) -> None:
        """`settings` gives the generation in force with what it says."""
        self.pool = pool
        self.reader = PoolReader(deps, pool, calls.guards)
        self.memory = Memory()
        self.view: PoolView | None = None
        """What the last read saw."""
        self.last_plan = Plan()
        self._deps, self._settings, self._providers = deps, settings, providers
        self._cloud, self._notifier, self._lease, self._fenced = calls, notifier, hold.lease, hold.fenced
        self._leaving = hold.leaving
        self._outcomes: deque[Outcome] = deque()
        self._under_way: set[str] = set()
        self._tries: dict[str, int] = {}
        """By node and call, how often in a row it settled nothing."""
        self._told: dict[str, tuple[bool, bool]] = {}
        self._bus = deps.bus.status
        """As it was at the last look."""
        self._tasks: asyncio.TaskGroup | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._one_at_a_time = asyncio.Lock()
        period = settings()[1].timings.reconcile_period
        self.reconciler = Reconciler(f"provisioner/{pool}", self._pass, period, deps.clock, deps.metrics)

    async def run(self) -> None:
        """Until cancelled, which the loss of the lease does."""
        self.memory.watching_since = self._deps.clock.now()
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                reconciling = tasks.create_task(self.reconciler.run(), name=f"reconcile/{self.pool}")
                try:
                    await asyncio.wait([reconciling])
                finally:
                    self._tasks = None  # a group that ends takes no more tasks
        finally:
            if self._timer is not None:
                self._timer.cancel()

    def wake(self) -> None:
        self.reconciler.wake()

    @property
    def busy(self) -> bool:
        """Whether a pass or a call is under way, or what a call said is not in the records yet."""
        return bool(self._under_way or self._outcomes) or self._one_at_a_time.locked()

    # --- one pass ---

    async def _pass(self) -> dict[str, int]:
        """Looks and acts until nothing is left to do for now."""
        steps = conflicts = 0
        async with self._one_at_a_time:
            for _ in range(ROUNDS_MAX):
                if self._lease() is None:
                    break
                view = await self.read()
                settled = await self._settle(view)
                if settled:
                    continue
                if self._leaving():
                    break
                self.last_plan = plan(view, self._deps.clock.now())
                done, refused = await self._take_all(view, self.last_plan)
                steps, conflicts = steps + done, conflicts + refused
                if not done and not refused:
                    break
            if self.view is not None:
                await self._tell_scheduler(self.view)
                self._set_timer(self.view)
        return {"steps": steps, "conflicts": conflicts, "calls": len(self._under_way)}

    async def read(self) -> PoolView:
        self._watch()
        generation, settings = self._settings()
        self.memory.in_flight = frozenset(self._under_way | {outcome.node for outcome in self._outcomes})
        self.view = await self.reader.read(
            settings, generation, self._providers.names, self.memory, self._notifier(self.pool)
        )
        return self.view

    def _watch(self) -> None:
        """While the bus is away no report can arrive: that a machine was not heard then proves nothing of it. Between two
        looks it may have been away for all but a moment."""
        before, self._bus = self._bus, self._deps.bus.status
        if not (before.connected and self._bus.connected) or self._bus.disconnects != before.disconnects:
            self.memory.watching_since = self._deps.clock.now()

    async def _take_all(self, view: PoolView, planned: Plan) -> tuple[int, int]:
        """Takes the steps in order. Returns how many wrote something, and how many must be decided anew."""
        done = refused = 0
        for step in planned.steps:
            if not step.writes:
                self._begin_call(view, step)
                continue
            if await self._commit(step, audits.of_step(step, view, self._deps.clock.now())):
                done += 1
                self._after(view, step)
            else:
                refused += 1
        return done, refused

    def _after(self, view: PoolView, step: Step) -> None:
        """A step is durable: it is told and counted, and its call is made."""
        self._deps.metrics.count("navarch_decisions_total", pool=self.pool, code=step.why.code)
        if step.act not in ("note", "fold"):
            log.info("step", pool=self.pool, node=step.node, act=step.act, code=step.why.code, reason=step.why.text)
        record = view.nodes[step.node].record if step.node in view.nodes else None
        if step.act == "activate" and record is not None and record.launch is not None:
            boot = (self._deps.clock.now() - record.launch.intended_at).total_seconds()
            self._deps.metrics.observe("navarch_boot_seconds", boot, provider=record.launch.request.provider)
        self._begin_call(view, step)

    async def _commit(self, step: Step, entry: Audit | None = None) -> bool:
        """Makes a step durable, and its entry in the audit with it. False: something it rested on has changed, and it must be decided anew."""
        lease = self._lease()
        if lease is None:
            return False
        name = "replace" if step.act in ("replace", "retire") else "plan"
        with self._deps.telemetry.span(name, parent=step.trace, pool=self.pool, node=step.node, act=step.act) as span:
            put = {key: _traced(record, step, span.traceparent) for key, record in step.put.items()}
            told = step.emit if entry is None else (*step.emit, entry)
            commit = Commit(
                expect=step.expect,
                put=put,
                delete=step.delete,
                emit=tuple(structs.replace(event, trace_id=trace_id_of(span.traceparent)) for event in told),
                spend=step.spend,
                refund=step.refund,
                lease=lease,
                trace=span.traceparent,
                incarnation=self.reader.incarnation,
            )
            try:
                await self._deps.committer.commit(commit)
            except (Conflict, BudgetExhausted) as error:
                log.info("decided anew", pool=self.pool, node=step.node, act=step.act, because=str(error))
                self.reader.forget()
                return False
            except Fenced:
                log.warning("fenced", pool=self.pool, node=step.node, act=step.act)
                self._fenced()
                return False
            except (NewerSchema, BadRecord) as error:
                # One record that cannot be written stops its own node alone.
                log.error("step cannot be written", pool=self.pool, node=step.node, act=step.act, error=str(error))
                self.memory.resting[step.node] = self._deps.clock.now() + REST_MAX
                return False
        self.reader.deleted(step.delete)
        return True

    # --- cloud calls ---

    def _begin_call(self, view: PoolView, step: Step) -> None:
        if step.call is None or self._tasks is None or step.node in self._under_way:
            return
        key: AnyKey = view.nodes[step.node].key
        record = step.put.get(key, view.nodes[step.node].record)
        assert isinstance(record, NodeRecord)
        self.call(step.call, record)

    def call(self, call: Call, record: NodeRecord) -> None:
        """Begins a cloud call about a node that none is under way about. Once the pool is another's nothing is begun: a
        worker that is being let go takes no more tasks, and whoever swept for it must not fail over that."""
        if self._tasks is None or self._lease() is None or record.node in self._under_way:
            return
        self._under_way.add(record.node)
        if call == "launch":
            self._observe_launch(record)
        self._tasks.create_task(self._run_call(call, record), name=f"cloud/{call}/{record.node}")

    async def _run_call(self, call: Call, record: NodeRecord) -> None:
        try:
            outcome = await self._cloud.make(call, record, lambda: self._lease() is not None)
            self._outcomes.append(outcome)
        finally:
            self._under_way.discard(record.node)
            self.reconciler.wake()

    def _observe_launch(self, record: NodeRecord) -> None:
        failed = self.view.nodes.get(record.replaces or "") if self.view else None
        if failed is not None and failed.verdict is not None and failed.verdict.failed_at is not None:
            took = (self._deps.clock.now() - failed.verdict.failed_at).total_seconds()
            self._deps.metrics.observe("navarch_failure_to_launch_seconds", max(took, 0.0))

    def settle_later(self, outcome: Outcome) -> None:
        """Something that was learned otherwise than by a call: settled at the next pass."""
        self._outcomes.append(outcome)
        self.reconciler.wake()

    async def _settle(self, view: PoolView) -> bool:
        """Makes one outcome durable. True where something was written or dropped, and the pool must be read again."""
        if not self._outcomes:
            return False
        outcome = self._outcomes[0]
        node = view.nodes.get(outcome.node)
        if node is None:
            self._outcomes.popleft()
            return True
        now = self._deps.clock.now()
        if outcome.call == "launch" and outcome.error is not None and node.record.launch is not None:
            name, until = placement.cooled_until(outcome.error, outcomes.offer_of(node), now)
            self.memory.cooling[name] = max(self.memory.cooling.get(name, now), until)
            cooling = dict(self.memory.cooling)
            view = replace(view, cooling=cooling)
        step = outcomes.settle(view, node, outcome, now)
        entry = audits.of_outcome(outcome, step, view, now) if step is not None else None
        if step is not None and not await self._commit(step, entry):
            return self._lease() is not None
        self._outcomes.popleft()
        self._rest(outcome, step, now)
        if step is not None:
            self._deps.metrics.count("navarch_decisions_total", pool=self.pool, code=step.why.code)
            log.info("outcome", pool=self.pool, node=outcome.node, call=outcome.call, reason=step.why.text)
            if outcome.call == "ask":
                await self.wake_health()
        return True

    def _rest(self, outcome: Outcome, step: Step | None, now: datetime) -> None:
        """A call that settled nothing is made again later, and later still. Another call about the node waits for nothing:
        a machine that was only asked about is ended at once where that is decided."""
        answered = outcome.error is None and not outcome.unknown and outcome.withheld is None
        settled = step is not None and (outcome.machine is not None or outcome.certain) and outcome.call != "ask"
        done = settled or (outcome.call == "power-on" and answered)
        name = rest_of(outcome.node, outcome.call)
        if done or (outcome.call == "launch" and outcome.withheld is None):
            self._tries.pop(name, None)
            self.memory.resting.pop(name, None)
            return
        tries = self._tries[name] = self._tries.get(name, 0) + 1
        first = self._settings()[1].timings.look_again
        self.memory.resting[name] = now + min(first * (1 << min(tries - 1, 8)), REST_MAX)

    async def wake_health(self) -> None:
        """What a provider said is in the record: health may judge by it."""
        try:
            await self._deps.bus.publish(self._deps.subjects.wake("health", self.pool), b"")
        except BusError as error:
            log.info("health not woken; it looks by itself", pool=self.pool, error=str(error))

    # --- the scheduler, and the next look ---

    async def _tell_scheduler(self, view: PoolView) -> None:
        """Tells the scheduler how each node stands, where that differs from what it was told last."""
        notifier = self._notifier(self.pool)
        for node in view.living:
            stands = (bool(node.record.cordons), node.phase in (Phase.DRAINING, Phase.TERMINATING))
            if self._told.get(node.node, (False, False)) == stands:
                continue
            try:
                async with asyncio.timeout(TOLD_TIMEOUT_S):
                    await _tell(notifier, node.record, stands)
            except (SchedulerUnavailable, TimeoutError) as error:
                log.warning("scheduler not told", pool=self.pool, node=node.node, error=str(error))
                continue
            self._told[node.node] = stands
        ended = {node.node for node in view.nodes.values() if node.phase in ENDED}
        for name in ended & set(self._told):
            del self._told[name]

    def _set_timer(self, view: PoolView) -> None:
        """Looks again when the next known time is due, if that is before the period."""
        now = self._deps.clock.now()
        self._forget_past(now)
        times = [*self.memory.resting.values(), *self.memory.cooling.values()]
        if view.supply is not None and view.supply.retry_at is not None:
            times.append(view.supply.retry_at)
        if view.supply is not None and view.supply.breaker is not None:
            times.append(view.supply.breaker.retry_at)
        drains = [node.record.drain for node in view.living if node.record.drain is not None]
        times += [drain.deadline for drain in drains]
        if any(drain.drained_at is None for drain in drains):
            times.append(now + DRAIN_LOOK)
        times += [node.record.launch.deadline for node in view.coming if node.record.launch is not None]
        idle_look = sizing.idle_look(view, now)
        if idle_look is not None:
            times.append(idle_look)
        due = min((time for time in times if time > now), default=None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due is not None and due - now < self.reconciler.period:
            delay = (due - now).total_seconds() + 0.01
            self._timer = asyncio.get_running_loop().call_later(delay, self.reconciler.wake)

    def _forget_past(self, now: datetime) -> None:
        for times in (self.memory.resting, self.memory.cooling):
            for name in [name for name, until in times.items() if until <= now]:
                del times[name]

    # --- what others ask of it ---

    @property
    def apart(self) -> asyncio.Lock:
        """Held while something else than a pass writes to the pool's records."""
        return self._one_at_a_time

    def holds(self) -> bool:
        """Whether the pool is still ours."""
        return self._lease() is not None

    async def commit(self, step: Step) -> bool:
        """A step that was decided outside of `plan`. Only while holding `apart`."""
        return await self._commit(step)

    def to_send(self, now: datetime) -> list[CommandRecord]:
        return commands.to_send(self.view, now) if self.view is not None else []

    def to_ask_again(self, now: datetime) -> list[NodeView]:
        return commands.to_ask_again(self.view, now) if self.view is not None else []

    def status(self) -> dict[str, object]:
        last = self.reconciler.last
        return {
            "last": last,
            "held": self._lease() is not None,
            "calls": sorted(self._under_way),
            "blocked": {block.node or "pool": block.why.text for block in self.last_plan.blocked[:20]},
        }


async def _tell(notifier: WorkloadNotifier, record: NodeRecord, stands: tuple[bool, bool]) -> None:
    cordoned, leaving = stands
    reason = next((cordon.reason for cordon in record.cordons.values()), "")
    if cordoned:
        await notifier.cordon(record, reason)
    if leaving:
        await notifier.drain(record, reason)
    if not cordoned and not leaving:
        await notifier.uncordon(record)


def _traced(record: Record, step: Step, traceparent: str) -> Record:
    """A node that a step brings into the world, or takes out of it, belongs to that step's trace from then on."""
    if isinstance(record, NodeRecord) and step.act in ("plan", "replace", "retire") and step.trace == record.trace:
        return structs.replace(record, trace=traceparent)
    return record
