"""The provisioner's shell: which pools this copy works on, what wakes them, and who asks.

Each pool is worked on under a lease, by one copy at a time. Reports are taken in by all copies. See `pool` for the work,
`plan` for its decisions.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import structlog

from navarch_common.bus.base import Bus, BusError, BusMessage, NoResponder
from navarch_common.config.notifier import NotifierConfig
from navarch_common.copies import Member, Presence
from navarch_common.events import encode
from navarch_common.events.base import POOL_NONE
from navarch_common.events.messages import Command, Probe
from navarch_common.ids import is_id
from navarch_common.leases import Leases
from navarch_common.model.cluster import CommandRecord
from navarch_common.model.pool import POOL, SUPPLY
from navarch_common.reconcile import Reconciler, ReconcileResult
from navarch_common.run import Deps
from navarch_common.store.base import StoreError
from navarch_provisioner.calls import CloudCalls
from navarch_provisioner.cloud.base import ProviderContext
from navarch_provisioner.cloud.registry import Providers
from navarch_provisioner.intake import Intake
from navarch_provisioner.plan import plan
from navarch_provisioner.pool import Hold, PoolWorker
from navarch_provisioner.preview import preview
from navarch_provisioner.retelling import Retelling
from navarch_provisioner.settings import ProvisionerSettings
from navarch_provisioner.sweep import Sweeper
from navarch_provisioner.view import NodeView
from navarch_provisioner.workload.base import WorkloadNotifier
from navarch_provisioner.workload.registry import open_notifier

log = structlog.get_logger(__name__)

FLEET = "_fleet"
"""The lease of whoever speaks for all pools: never a valid pool."""
POOLS_PERIOD = timedelta(seconds=10)
SEND_AT_ONCE = 64
ANSWER_TIMEOUT_S = 8.0


class ProvisionerService:
    """One copy of the provisioner."""

    def __init__(
        self,
        deps: Deps,
        settings: ProvisionerSettings,
        *,
        data_dir: Path | None = None,
        providers: Providers | None = None,
    ) -> None:
        """`data_dir` is what local machines live in. `providers`, where given, are shared: whoever made them closes them."""
        self._deps, self._settings = deps, settings
        self._shares_providers = providers is not None
        context = ProviderContext(data_dir=data_dir or Path("navarch-data"), clock=deps.clock, rng=deps.rng)
        self._providers = providers or Providers(context)
        self._providers.configure(settings.providers)
        self._notifiers: dict[str, tuple[NotifierConfig, WorkloadNotifier]] = {}
        self._workers: dict[str, tuple[PoolWorker, asyncio.Task[None]]] = {}
        self._extra_pools: set[str] = set()
        self._known: set[str] = set()
        self._ready = False
        self._changed = asyncio.Event()
        self._leases = Leases(
            deps.store,
            "provisioner",
            deps.instance,
            ttl=settings.timings.lease_ttl,
            on_change=self._lease_changed,
            finished=self._finished,
        )
        member = Member(lambda: self.ready, self._results, lambda: {"reports_taken": self._intake.taken})
        self._presence = Presence(deps, "provisioner", member)
        self._calls = CloudCalls(deps, self._providers, settings.timings)
        self._intake = Intake(deps, self._wake, settings.timings.report_patience.total_seconds())
        self._sweeper = Sweeper(
            deps, self._providers, settings=self._in_force, workers=self._held_workers,
            calls=self._calls, fleet_lease=lambda: self._leases.held(FLEET), seen_pools=self._see_pools, wake_everyone=self._wake_everyone,
        )  # fmt: skip
        self._sweeps = Reconciler(
            "provisioner/sweep", self._sweep, settings.timings.sweep_period, deps.clock, deps.metrics
        )
        self._blind_sweeps = 0
        """Sweeps in a row that did not see everything."""
        retelling = Retelling(deps, self._held_workers, lambda: self._leases.held(FLEET) is not None)
        self._retelling = Reconciler(
            "provisioner/retelling", retelling.step, settings.timings.retell_period, deps.clock, deps.metrics
        )
        self._pools = Reconciler("provisioner/pools", self._look_for_pools, POOLS_PERIOD, deps.clock, deps.metrics)

    @property
    def ready(self) -> bool:
        """Whether it has read which pools there are, and works on those that are free."""
        return self._ready

    @property
    def settings(self) -> ProvisionerSettings:
        """What is in force."""
        return self._settings

    def status(self) -> dict[str, object]:
        return {
            "pools": {pool: worker.status() for pool, (worker, _) in sorted(self._workers.items())},
            "sweep": self._sweeps.last,
            "reports_taken": self._intake.taken,
            "providers": sorted(self._providers.names),
            "leads": self._leases.held(FLEET) is not None if self._ready else False,
        }

    def _results(self) -> Iterable[tuple[str, ReconcileResult | None]]:
        yield "provisioner/pools", self._pools.last
        yield "provisioner/sweep", self._sweeps.last
        yield "provisioner/retelling", self._retelling.last
        for pool, (worker, _) in sorted(self._workers.items()):
            yield f"provisioner/{pool}", worker.reconciler.last

    async def run(self) -> None:
        """Until cancelled."""
        self._take_config()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._presence.run(), name="presence")
                tasks.create_task(self._pools.run(), name="pools")
                tasks.create_task(self._leases.run(), name="leases")
                tasks.create_task(self._staff(tasks), name="staff")
                tasks.create_task(self._intake.run(), name="intake")
                tasks.create_task(self._listen(self._deps.subjects.events, _pool_of_event), name="events")
                tasks.create_task(self._listen(self._deps.subjects.wakes("provisioner"), _pool_of_wake), name="wakes")
                tasks.create_task(self._sweeps.run(), name="sweep")
                tasks.create_task(self._retelling.run(), name="retelling")
                tasks.create_task(self._send_commands(), name="commands")
                tasks.create_task(self._answer(), name="plan")
                tasks.create_task(self._follow_config(), name="config")
        finally:
            self._workers.clear()
            for _, notifier in self._notifiers.values():
                await notifier.close()
            if not self._shares_providers:
                await self._providers.close()

    # --- pools and leases ---

    def _lease_changed(self, pool: str) -> None:
        self._changed.set()
        if pool == FLEET:
            self._sweeps.wake()  # only whoever speaks for the fleet can end safe mode

    async def _look_for_pools(self) -> dict[str, int]:
        """Which pools there are: in the configuration, in the records, on machines' tags."""
        async with asyncio.timeout(10.0):
            supplies = await self._deps.store.records(SUPPLY)
            sizes = await self._deps.store.records(POOL)
        recorded = {supply.record.pool for supply in supplies} | {size.record.pool for size in sizes}
        pools = set(self._settings.pools) | recorded | self._extra_pools
        self._known = pools
        self._leases.want(pools | {FLEET})
        await self._leases.look()
        self._ready = True
        self._changed.set()
        return {"pools": len(pools), "held": len(self._workers)}

    async def _staff(self, tasks: asyncio.TaskGroup) -> None:
        """A worker for each pool that is ours, and none for those that are not."""
        while True:
            self._changed.clear()
            for pool, (_, task) in list(self._workers.items()):
                if self._leases.held(pool) is None and not task.done():
                    log.warning("pool given up", pool=pool)
                    task.cancel()
                if task.done() or self._leases.held(pool) is None:
                    del self._workers[pool]
            for pool in sorted(self._known):
                if pool not in self._workers and self._leases.held(pool) is not None:
                    self._hire(pool, tasks)
            try:
                async with asyncio.timeout(1.0):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _hire(self, pool: str, tasks: asyncio.TaskGroup) -> None:
        hold = Hold(
            lease=lambda: self._leases.held(pool),
            fenced=lambda: self._leases.lost(pool),
            leaving=lambda: self._leases.leaving(pool),
        )
        worker = PoolWorker(
            self._deps, pool, settings=self._in_force, providers=self._providers, calls=self._calls,
            notifier=self._notifier, hold=hold,
        )  # fmt: skip
        task = tasks.create_task(worker.run(), name=f"pool/{pool}")
        self._workers[pool] = (worker, task)
        self._sweeps.wake()

    def _finished(self, pool: str) -> bool:
        """Whether a pool that is another copy's now can be handed over: no cloud call is under way, and what the last
        ones said is in the records. A call that is cut off would have to be looked up by the next holder, which takes
        its time."""
        worker, task = self._workers.get(pool, (None, None))
        return worker is None or task is None or task.done() or not worker.busy

    def _held_workers(self) -> Iterable[PoolWorker]:
        return [worker for worker, task in self._workers.values() if not task.done()]

    async def _sweep(self) -> dict[str, int]:
        """One sweep; another one soon where this one did not see everything."""
        counts = await self._sweeper.sweep()
        # In safe mode it looks again soon, too: machines cost money, and whoever waits for them waits for this.
        self._blind_sweeps = self._blind_sweeps + 1 if counts["failed"] or counts["unsure"] else 0
        if self._blind_sweeps:
            soon_s = self._settings.timings.look_again.total_seconds() * 2 ** min(self._blind_sweeps - 1, 10)
            asyncio.get_running_loop().call_later(soon_s, self._sweeps.wake)
        return counts

    def _see_pools(self, pools: set[str]) -> None:
        """Pools that machines' tags name. Those that nobody knew of are taken up at once."""
        if not pools <= self._known | self._extra_pools:
            self._pools.wake()
        self._extra_pools |= pools

    async def _wake_everyone(self) -> None:
        """What held every pool up does so no more: each is looked at again, in whatever copy."""
        self._wake(POOL_NONE)
        try:
            for pool in sorted(self._known):
                await self._deps.bus.publish(self._deps.subjects.wake("provisioner", pool), b"")
        except BusError as error:
            log.info("other copies not woken; they look by themselves", error=str(error))

    def _wake(self, pool: str) -> None:
        """Wakes one pool's worker, or all where `pool` is none."""
        for name, (worker, _) in self._workers.items():
            if pool in (name, POOL_NONE):
                worker.wake()

    # --- configuration ---

    def _in_force(self) -> tuple[int, ProvisionerSettings]:
        return self._deps.config.current.generation, self._settings

    def _take_config(self) -> None:
        before = self._settings
        fresh = ProvisionerSettings.of(
            self._deps.config.current.config, nats_url=before.nats_url, timings=before.timings
        )
        self._settings = fresh
        self._providers.configure(fresh.providers)

    async def _follow_config(self) -> None:
        while True:
            await self._deps.config.wait_change(self._deps.config.current.generation)
            self._take_config()
            self._pools.wake()
            self._wake(POOL_NONE)

    def _notifier(self, pool: str) -> WorkloadNotifier:
        config = self._settings.notifiers.get(pool, NotifierConfig())
        known = self._notifiers.get(pool)
        if known is None or known[0] != config:
            known = self._notifiers[pool] = (config, open_notifier(config))
        return known[1]

    # --- the bus ---

    async def _listen(self, subject: str, pool_of: Callable[[str, str], str]) -> None:
        """Wakes pools by what is heard. What is missed costs at most a period."""
        while True:
            try:
                async with self._deps.bus.subscribe(subject) as messages:
                    async for message in messages:
                        if _asks_for_a_list(message.subject, self._deps.subjects.prefix):
                            self._sweeps.wake()
                        self._wake(pool_of(message.subject, self._deps.subjects.prefix))
            except BusError as error:
                log.info("not listening", subject=subject, error=str(error))
            await asyncio.sleep(1.0)

    async def _send_commands(self) -> None:
        """Sends each open command again and again, until its result is in; and asks who has not registered."""
        while True:
            now = self._deps.clock.now()
            workers = list(self._held_workers())
            due = [(command.node, self._command(command)) for worker in workers for command in worker.to_send(now)]
            due += [(node.node, self._probe(node, now)) for worker in workers for node in worker.to_ask_again(now)]
            for start in range(0, len(due), SEND_AT_ONCE):
                async with asyncio.TaskGroup() as tasks:
                    for node, (subject, message) in due[start : start + SEND_AT_ONCE]:
                        tasks.create_task(self._send(node, subject, message), name=f"command/{node}")
            await asyncio.sleep(self._settings.timings.command_repeat.total_seconds())

    def _command(self, command: CommandRecord) -> tuple[str, bytes]:
        message = Command(
            id=command.id, node=command.node, generation=command.generation, kind=command.kind, args=command.args,
            expires_at=command.expires_at, trace=command.trace,
        )  # fmt: skip
        return self._deps.subjects.command(command.node), encode(message)

    def _probe(self, node: NodeView, now: datetime) -> tuple[str, bytes]:
        return self._deps.subjects.probe(node.node), encode(Probe(node=node.node, at=now, register=True))

    async def _send(self, node: str, subject: str, message: bytes) -> None:
        try:
            await self._deps.bus.request(subject, message, timeout_s=2.0)
        except (NoResponder, BusError) as error:
            log.debug("agent not reached", node=node, subject=subject, error=str(error))

    async def _answer(self) -> None:
        """Says what the next pass of a pool would do, to whoever asks on `navarch.plan.<pool>`."""
        while True:
            try:
                async with self._deps.bus.subscribe(self._deps.subjects.plans, queue="provisioner") as requests:
                    async for request in requests:
                        await self._answer_one(self._deps.bus, request)
            except BusError as error:
                log.info("not answering", error=str(error))
            await asyncio.sleep(1.0)

    async def _answer_one(self, bus: Bus, request: BusMessage) -> None:
        pool = request.subject.rpartition(".")[2]
        if not is_id(pool) or not request.reply:
            return
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                answer = await self._preview(pool)
                await bus.reply(request, msgspec.json.encode(answer))
        except (BusError, StoreError, TimeoutError) as error:
            log.warning("plan not answered", pool=pool, error=str(error))

    async def _preview(self, pool: str) -> dict[str, object]:
        """What the pool's own worker sees, where it is here; otherwise what anyone can read."""
        held = self._workers.get(pool)
        worker = held[0] if held is not None else self._onlooker(pool)
        async with worker.apart:
            view = await worker.read()
        if held is None and view.config is None and not view.nodes:
            return {"pool": pool, "error": f"there is no pool {pool}"}
        # What is under way or rests for a moment would be done next all the same.
        return preview(view, plan(replace(view, resting={}), self._deps.clock.now()))

    def _onlooker(self, pool: str) -> PoolWorker:
        return PoolWorker(
            self._deps, pool, settings=self._in_force, providers=self._providers, calls=self._calls,
            notifier=self._notifier, hold=Hold(lambda: None, lambda: None, lambda: False),
        )  # fmt: skip


def _pool_of_event(subject: str, prefix: str) -> str:
    """`navarch.events.node.failed.training.training-k7x2mpd` is about `training`."""
    tokens = subject.removeprefix(f"{prefix}.").split(".")
    return tokens[3] if len(tokens) > 3 else POOL_NONE


def _asks_for_a_list(subject: str, prefix: str) -> bool:
    """Whether the next list of what providers have must not be half a minute away: machines are to be found again, or an
    operator wants something done about leaked ones."""
    kinds = ("cluster.safe-mode-entered.", "operator.adopt.", "operator.gc.")
    return subject.removeprefix(f"{prefix}.events.").startswith(kinds)


def _pool_of_wake(subject: str, _: str) -> str:
    return subject.rpartition(".")[2]
