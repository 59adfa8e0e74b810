"""The autoscaler's shell: wakes on demand, wishes and nodes that come and go; loads, decides, commits.

The condition it repairs: a pool's `desired` is what its strategy, its bounds and its operators say, given what is known
now. It is never told what changed: a woken pool is read whole and sized again, and doing so twice changes nothing.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog
from msgspec import structs

from navarch_autoscaler.metrics.nats import NatsQueueDepths
from navarch_autoscaler.settings import AutoscalerSettings
from navarch_autoscaler.sizing import Sizing, first_record, size
from navarch_autoscaler.strategies.base import Found, PoolInputs, UnknownStrategy, Utilization, strategy
from navarch_autoscaler.utilization import utilization
from navarch_common.bus.base import BusUnavailable
from navarch_common.config.autoscaling import QueueAutoscaling, ReactiveAutoscaling
from navarch_common.config.pools import PoolConfig
from navarch_common.copies import Member, Presence
from navarch_common.events.subjects import Subjects
from navarch_common.guarding import Guards
from navarch_common.guards import hold_key, hold_on, newest
from navarch_common.ids import is_id
from navarch_common.leases import Leases
from navarch_common.model.base import AnyKey
from navarch_common.model.cluster import META, MetaRecord, SafeMode
from navarch_common.model.node import COMING, LEAVING, NODE, NodeRecord, Phase, ProviderState, ended
from navarch_common.model.pool import POOL, Guard, PoolRecord
from navarch_common.model.wish import POOL_WISH, PoolVerb, PoolWish
from navarch_common.reconcile import Reconciler
from navarch_common.rejects import Rejects
from navarch_common.run import Deps
from navarch_common.store.base import ABSENT, Commit, Conflict, Fenced, Stored

log = structlog.get_logger(__name__)

VERBS: tuple[PoolVerb, ...] = ("scale", "pause", "resume")
_TRIES = 3
"""How often a pass over a pool is made again when somebody wrote in between."""


@dataclass(frozen=True, slots=True)
class Read:
    """A pool's records as one pass read them."""

    record: Stored[PoolRecord] | None
    wishes: tuple[Stored[PoolWish] | None, ...]
    guard: Stored[Guard] | None = None
    """The hold on the pool, in force or not."""
    meta: Stored[MetaRecord] | None = None

    @property
    def safe_mode(self) -> SafeMode | None:
        return self.meta.record.safe_mode if self.meta else None


class AutoscalerService:
    """One copy of the autoscaler. It works on the pools whose lease it holds."""

    def __init__(self, deps: Deps, settings: AutoscalerSettings) -> None:
        self._deps, self._settings = deps, settings
        self._dirty: set[str] = set()
        self._all_due_s = 0.0
        self._reconciler = Reconciler("autoscaler", self._pass, settings.interval, deps.clock, deps.metrics)
        self._leases = Leases(deps.store, "autoscaler", deps.instance, on_change=self._wake)
        self._guards = Guards(deps)
        member = Member(lambda: self.ready, lambda: [("autoscaler", self._reconciler.last)])
        self._presence = Presence(deps, "autoscaler", member)
        self._rejects = Rejects(deps, service="autoscaler")
        self._demand = NatsQueueDepths(
            deps.bus, deps.subjects, deps.clock, self._rejects, knows=self._knows, wake=self._wake
        )

    @property
    def ready(self) -> bool:
        return self._reconciler.last is not None

    def status(self) -> dict[str, object]:
        pools = self._deps.config.current.config.pools
        return {
            "reconcile": self._reconciler.last,
            "pools_held": sorted(pool for pool in pools if self._leases.held(pool) is not None),
        }

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._presence.run(), name="autoscaler-presence")
            tasks.create_task(self._leases.run(), name="autoscaler-leases")
            tasks.create_task(self._demand.run(), name="autoscaler-demand")
            tasks.create_task(self._demand.keep_up(), name="autoscaler-demand-keep-up")
            tasks.create_task(self._follow_events(), name="autoscaler-events")
            tasks.create_task(self._follow_config(), name="autoscaler-config")
            tasks.create_task(self._reconciler.run(), name="autoscaler-reconcile")

    def _knows(self, pool: str) -> bool:
        return pool in self._deps.config.current.config.pools

    def _wake(self, pool: str) -> None:
        self._dirty.add(pool)
        self._reconciler.wake()

    async def _follow_events(self) -> None:
        """Nodes that come and go, and wishes, are reasons to size a pool again; our own events are not."""
        async with self._deps.bus.subscribe(self._deps.subjects.events) as events:
            async for event in events:
                pool = pool_of(event.subject, self._deps.subjects)
                if pool is not None and self._knows(pool):
                    self._wake(pool)
        raise BusUnavailable("the connection was closed under the subscription to events")

    async def _follow_config(self) -> None:
        while True:
            in_force = self._deps.config.current
            self._settings = AutoscalerSettings.of(in_force.config)
            self._reconciler.period = self._settings.interval
            self._leases.want(set(in_force.config.pools))
            self._all_due_s = 0.0
            self._reconciler.wake()
            await self._deps.config.wait_change(in_force.generation)

    async def _pass(self) -> dict[str, int]:
        """Sizes the pools that were woken, and all of them once a period: a pool that is woken all the time must not keep
        the others from being looked at."""
        pools = self._deps.config.current.config.pools
        woken, self._dirty = self._dirty, set()
        now_s = asyncio.get_running_loop().time()
        if now_s >= self._all_due_s:
            woken, self._all_due_s = set(pools), now_s + self._settings.interval.total_seconds()
        names = sorted(woken & set(pools))
        changed = 0
        for pool in names:
            changed += await self._size(pool, pools[pool])
        return {"pools": len(names), "changed": changed}

    async def _size(self, pool: str, config: PoolConfig) -> bool:
        for _ in range(_TRIES):
            lease = await self._leases.acquire(pool)
            if lease is None:
                return False
            try:
                return await self._size_once(pool, config)
            except Conflict as conflict:
                log.debug("pool changed while it was sized", pool=pool, conflict=str(conflict))
            except Fenced:
                self._leases.lost(pool)
                return False
        self._dirty.add(pool)
        return False

    async def _size_once(self, pool: str, config: PoolConfig) -> bool:
        now = self._deps.clock.now()
        generation = self._deps.config.current.generation
        read = await self._read(pool)
        before = read.record.record if read.record else first_record(pool, config, generation, now)
        try:
            chosen = strategy(config.autoscaling) if config.autoscaling is not None else None
        except UnknownStrategy as error:
            log.error("pool not sized", pool=pool, reason=str(error))
            return False
        beside = await self._guards.beside()
        if self._guards.doubt:
            log.info("pool not sized", pool=pool, reason=f"somebody may hold it: {self._guards.doubt}")
            return False
        sizing = size(
            before,
            config,
            chosen,
            await self._inputs(pool, config, before.desired, read.safe_mode, now),
            tuple(wish.record.wish for wish in read.wishes if wish is not None),
            cluster=self._deps.cluster,
            generation=generation,
            hold=hold_on(newest([read.guard.record] if read.guard else [], beside), pool, None, now),
        )
        if read.record is not None and not sizing.changed:
            return False
        await self._commit(pool, read, sizing)
        return True

    async def _read(self, pool: str) -> Read:
        wishes = (POOL_WISH.key(pool, verb) for verb in VERBS)
        keys: list[AnyKey] = [POOL.key(pool), META.key(), hold_key(pool=pool), *wishes]
        record, meta, guard, *wished = await self._deps.store.get_many(keys)
        return Read(record, tuple(wished), guard, meta)

    async def _inputs(
        self, pool: str, config: PoolConfig, desired: int, safe_mode: SafeMode | None, now: datetime
    ) -> PoolInputs:
        sized_by_load = config.autoscaling is not None
        nodes = [stored.record for stored in await self._deps.store.records(NODE, pool)] if sized_by_load else []
        usable = [node for node in nodes if node.phase is Phase.ACTIVE and not node.cordons]
        return PoolInputs(
            pool=pool,
            now=now,
            min_nodes=config.min_nodes,
            max_nodes=config.max_nodes,
            desired=desired,
            usable=len(usable),
            coming=sum(node.phase in COMING for node in nodes),
            found=await self._found(pool, safe_mode),
            demand=None if isinstance(config.autoscaling, ReactiveAutoscaling) else self._demand.demand(pool, now),
            utilization=await self._utilization(config, usable, now),
        )

    async def _found(self, pool: str, safe: SafeMode | None) -> Found | None:
        """In safe mode after a loss of records, the nodes that have been found so far."""
        if safe is None or safe.code == "mirror-lost":
            return None
        nodes = [stored.record for stored in await self._deps.store.records(NODE, pool)]
        return Found(sum(_is_there(node) for node in nodes), safe.since)

    async def _utilization(self, config: PoolConfig, usable: Sequence[NodeRecord], now: datetime) -> Utilization | None:
        if not usable or config.autoscaling is None or isinstance(config.autoscaling, QueueAutoscaling):
            return None
        beats = await self._deps.store.beats([node.node for node in usable])
        return utilization(beats, now, self._settings.fresh_for)

    async def _commit(self, pool: str, read: Read, sizing: Sizing) -> None:
        expect: dict[AnyKey, int] = {POOL.key(pool): read.record.revision if read.record else ABSENT}
        expect[hold_key(pool=pool)] = read.guard.revision if read.guard else ABSENT
        if read.safe_mode:
            # Once it is left, what is there is no longer what was found again.
            expect[META.key()] = read.meta.revision if read.meta else ABSENT
        for verb, wish in zip(VERBS, read.wishes, strict=True):
            expect[POOL_WISH.key(pool, verb)] = wish.revision if wish else ABSENT
        with self._deps.telemetry.span("size", pool=pool, desired=sizing.record.desired) as span:
            record = structs.replace(sizing.record, trace=span.traceparent)
            events = tuple(structs.replace(event, trace_id=span.trace_id) for event in sizing.events)
            await self._deps.committer.commit(
                Commit(
                    expect=expect,
                    put={POOL.key(pool): record},
                    emit=events,
                    lease=self._leases.held(pool),
                    trace=span.traceparent,
                )
            )
        for event in events:
            log.info(event.KIND, pool=pool, desired=record.desired, code=event.code, reason=event.reason)


def _is_there(node: NodeRecord) -> bool:
    """It has a machine, as far as is known."""
    there = node.instance is not None and node.instance.state is not ProviderState.GONE
    return there and not ended(node) and node.phase not in LEAVING


def pool_of(subject: str, subjects: Subjects) -> str | None:
    """The pool of an event, from its subject, where it is one that may change a pool's size."""
    kind, _, rest = subject.removeprefix(subjects.events.removesuffix(">")).partition(".")
    tokens = rest.split(".")
    if kind not in ("node", "operator", "pool") or len(tokens) < 2 or not is_id(tokens[1]):
        return None
    if kind == "pool" and tokens[0] == "resized":
        return None
    return tokens[1]
