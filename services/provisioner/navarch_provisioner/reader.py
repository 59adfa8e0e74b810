"""Reads all that is known of one pool. Keeps records decoded and asks only for what changed since the last time.

What is stale for lack of a reread costs nothing but a conflict: every commit names the revisions it rests on.
"""

import asyncio
import random
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Generic, TypeAlias

from navarch_common import copies
from navarch_common.bus.base import BusError
from navarch_common.guarding import Guards
from navarch_common.guards import newest
from navarch_common.ids import new_node_id
from navarch_common.model.base import AnyKey, Family, R
from navarch_common.model.cluster import COMMAND, INBOX, META, InboxRecord
from navarch_common.model.health import HEALTH, HealthRecord
from navarch_common.model.node import ENDED, NODE, NodeRecord, Phase
from navarch_common.model.pool import GUARD, POOL, SUPPLY, VERDICTS
from navarch_common.model.wish import CHANGE_WISH, NODE_WISHES, POOL_WISH, NodeWishes
from navarch_common.run import Deps
from navarch_common.store.base import ABSENT, Beat, Since, StateStore, Stored
from navarch_provisioner import budget, lifecycle, limits
from navarch_provisioner.heard import IdleWatch, Lateness, work_of
from navarch_provisioner.settings import ProvisionerSettings
from navarch_provisioner.view import NodeView, PoolView, Work
from navarch_provisioner.workload.base import SchedulerUnavailable, WorkloadNotifier

FRESH_IDS = 64
"""Node ids that one pass may use."""
READ_TIMEOUT_S = 10.0
ASK_S = 2.0
"""So long the bus may take to say what waits."""
CHUNK = 500
HEAR_ALL_EVERY = timedelta(seconds=1)
"""Heartbeats of the whole pool are looked at no more often than health writes them."""


@dataclass(frozen=True, slots=True)
class _Mint:
    """New node ids, as many as one pass may use."""

    pool: str
    rng: random.Random

    def __iter__(self) -> Iterator[str]:
        return (new_node_id(self.pool, self.rng) for _ in range(FRESH_IDS))


_Parts: TypeAlias = tuple[
    Stored[NodeRecord],
    Stored[HealthRecord] | None,
    Stored[InboxRecord] | None,
    Stored[NodeWishes] | None,
    Work | None,
]


class _Family(Generic[R]):
    """The records of one family in one pool, decoded."""

    def __init__(self, store: StateStore, family: Family[R], pool: str | None) -> None:
        self._store, self.family, self._pool = store, family, pool
        self.known: dict[str, Stored[R]] = {}
        self._since = 0

    @property
    def since(self) -> Since:
        return Since(self.family, self._since, self._pool)

    async def read_whole(self) -> None:
        stored = await self._store.records(self.family, self._pool)
        self.known = {record.key.name: record for record in stored}
        self._since = max((record.revision for record in stored), default=0)

    def take(self, changed: Sequence[Stored[R]]) -> None:
        for record in changed:
            self.known[record.key.name] = record
            self._since = max(self._since, record.revision)

    def drop(self, name: str) -> None:
        self.known.pop(name, None)


@dataclass
class Memory:
    """What this copy knows beside the records: lost with it, and found again."""

    in_flight: frozenset[str] = frozenset()
    resting: dict[str, datetime] = field(default_factory=dict)
    cooling: dict[str, datetime] = field(default_factory=dict)
    watching_since: datetime | None = None
    idle: IdleWatch = field(default_factory=IdleWatch)


class PoolReader:
    """One pool's eyes."""

    def __init__(self, deps: Deps, pool: str, guards: Guards) -> None:
        store = deps.store
        self._deps, self._pool, self._store = deps, pool, store
        self._nodes = _Family(store, NODE, pool)
        self._health = _Family(store, HEALTH, pool)
        self._inbox = _Family(store, INBOX, pool)
        self._wishes = _Family(store, NODE_WISHES, pool)
        self._commands = _Family(store, COMMAND, pool)
        self._guards = _Family(store, GUARD, None)
        self._change_wishes = _Family(store, CHANGE_WISH, pool)
        self._families: tuple[_Family[Any], ...] = (
            self._guards, self._change_wishes, self._health, self._inbox, self._wishes, self._commands, self._nodes,
        )  # fmt: skip
        """The nodes last: what they rest on is then at most as old."""
        self._beside = guards
        self._whole_at: datetime | None = None
        self.incarnation = store.incarnation
        """Of the store, when the last read began: what it saw is true in no other."""
        self._work: dict[str, Work] = {}
        self._heard: dict[str, tuple[Beat, int, Work]] = {}
        self._lateness = Lateness()
        """By node, the heartbeat that was read last, of which generation the node was, and what it says."""
        self._views: dict[str, tuple[_Parts, NodeView]] = {}
        """By node, what its view was made of: of a large pool little changes from one pass to the next."""
        self._heard_at: datetime | None = None

    def forget(self) -> None:
        """The next read is a whole one."""
        self._whole_at = None

    def deleted(self, keys: Iterable[AnyKey]) -> None:
        """Records that we deleted ourselves: no reading of changes would tell."""
        for key in keys:
            for family in (self._nodes, self._inbox, self._commands):
                if key.family is family.family:
                    family.drop(key.name)

    async def read(
        self,
        settings: ProvisionerSettings,
        generation: int,
        providers: frozenset[str],
        memory: Memory,
        notifier: WorkloadNotifier,
    ) -> PoolView:
        """Raises `StoreError`, and `TimeoutError` where the store does not answer."""
        async with asyncio.timeout(READ_TIMEOUT_S):
            view = await self._records(settings)
            view = replace(
                view,
                config_generation=generation,
                providers=providers,
                in_flight=memory.in_flight,
                resting=dict(memory.resting),
                cooling=dict(memory.cooling),
                watching_since=memory.watching_since,
                fresh_ids=_Mint(self._pool, self._deps.rng),
            )
            view = await self._with_work(view, memory, notifier)
            late = self._late(view)
            attended = not late or await self._attended()
        return replace(view, unattended=not attended, unread=await self._unread(late))

    def _late(self, view: PoolView) -> frozenset[str]:
        """Nodes that are about to be given up."""
        if view.config is None:
            return frozenset()
        now, timeout = self._deps.clock.now(), view.config.registration_timeout
        return frozenset(
            node.node
            for node in view.nodes.values()
            if lifecycle.overdue(node.record, now, timeout, rebuilt_at=view.rebuilt_at) is not None
        )

    async def _attended(self) -> bool:
        """Whether a copy of health lives that has heard for long enough to have found healthy who is."""
        return any(copy.ready and not copy.deaf for copy in await copies.living(self._store, "health"))

    async def _unread(self, late: Collection[str]) -> frozenset[str]:
        """A copy that stands still may hold what would have been in time; until somebody else gets it, it is in the
        stream. Asked for those alone that are about to be given up."""
        if not late:
            return frozenset()
        unread, subjects = set(late), self._deps.subjects
        # Where the bus does not say in time, those not asked about count as waiting: nobody is given up on a guess.
        with suppress(BusError, TimeoutError):
            async with asyncio.timeout(ASK_S):
                for name in sorted(unread):
                    subject = f"{subjects.prefix}.reports.{name}.*"
                    if await self._deps.bus.last_message(subjects.stream("REPORTS"), subject) is None:
                        unread.discard(name)
        return frozenset(unread)

    async def _records(self, settings: ProvisionerSettings) -> PoolView:
        now = self._deps.clock.now()
        if self._store.incarnation != self.incarnation:
            self.incarnation = self._store.incarnation
            self.forget()
        whole = self._whole_at is None or now - self._whole_at >= settings.timings.full_read_period
        # The pool's own records are read first: what rests on them is then at least as new.
        single = await self._store.get_many(
            [
                POOL.key(self._pool),
                SUPPLY.key(self._pool),
                VERDICTS.key(self._pool),
                META.key(),
                POOL_WISH.key(self._pool, "close-breaker"),
            ]
        )
        desired, supply, verdicts, meta, close_wish = single
        await self._read_families(whole=whole)
        if whole:
            self._whole_at = now
        guards, changes, commands = self._guards.known, self._change_wishes.known, self._commands.known
        beside = await self._beside.beside()
        holders = await self._store.holders(budget.bucket(self._pool))
        lately = await self._store.holders(budget.hourly_bucket(self._pool), budget.HOUR)
        spent = await self._spent(settings)
        return PoolView(
            pool=self._pool,
            cluster=self._deps.cluster,
            installation=self._deps.installation,
            settings=settings,
            config=settings.pools.get(self._pool),
            nodes={name: self._node(name) for name in sorted(self._nodes.known)},
            desired=desired.record if desired else None,
            desired_revision=_revision(desired),
            supply=supply.record if supply else None,
            supply_revision=_revision(supply),
            verdicts_revision=_revision(verdicts),
            close_wish=close_wish.record if close_wish else None,
            close_wish_revision=_revision(close_wish),
            guards=newest((stored.record for stored in guards.values()), beside),
            unguarded=self._beside.doubt,
            guard_revisions={name: stored.revision for name, stored in guards.items()},
            meta=meta.record if meta else None,
            meta_revision=_revision(meta),
            commands={name: stored.record for name, stored in commands.items()},
            command_revisions={name: stored.revision for name, stored in commands.items()},
            change_wishes={name: stored.record for name, stored in changes.items()},
            change_wish_revisions={name: stored.revision for name, stored in changes.items()},
            replacing=frozenset(holders),
            replaced_lately=frozenset(lately),
            spent=spent,
            prices=await self._prices(spent),
            outbox_waiting=await self._store.outbox_length(),
        )

    async def _read_families(self, *, whole: bool) -> None:
        if whole:
            for family in self._families:
                await family.read_whole()
            return
        changed = await self._store.changed([family.since for family in self._families])
        for family, records in zip(self._families, changed, strict=True):
            family.take(records)

    async def _spent(self, settings: ProvisionerSettings) -> dict[str, frozenset[str]]:
        found = limits.buckets(settings, self._pool).items()
        return {bucket: frozenset(await self._store.holders(bucket, window)) for bucket, window in found}

    async def _prices(self, spent: Mapping[str, frozenset[str]]) -> dict[str, float | None]:
        """What the machines cost that hold dollars, whichever pool they are of."""
        holders = sorted({holder for name, held in spent.items() if name.startswith("dollars/") for holder in held})
        prices: dict[str, float | None] = {}
        for start in range(0, len(holders), CHUNK):
            chunk = holders[start : start + CHUNK]
            for holder, stored in zip(chunk, await self._store.get_many([NODE.key(n) for n in chunk]), strict=True):
                instance = stored.record.instance if stored is not None else None
                prices[holder] = None if instance is None else instance.price_per_hour or 0.0
        return prices

    async def _with_work(self, view: PoolView, memory: Memory, notifier: WorkloadNotifier) -> PoolView:
        """Adds what heartbeats, and for draining nodes the scheduler, say of the work.

        What is about to go is asked for in every pass, all others once a second: a large pool is woken often, and their
        heartbeats are written no more often than that.
        """
        now, fresh = self._deps.clock.now(), view.settings.heartbeat_timeout
        living = {name: node for name, node in view.nodes.items() if node.phase not in ENDED}
        everyone = self._heard_at is None or now - self._heard_at >= HEAR_ALL_EVERY
        if everyone:
            self._heard_at = now
            for known in (self._work, self._heard):
                _keep(known, living)
            _keep(self._views, view.nodes)
            memory.idle.keep(set(living))
            self._lateness.keep(living.keys())
        asked = [name for name, node in living.items() if everyone or name not in self._work or _may_go(node)]
        for start in range(0, len(asked), CHUNK):
            chunk = asked[start : start + CHUNK]
            for name, beat in zip(chunk, await self._store.beats(chunk), strict=True):
                node = living[name]
                work = self._said(beat, node.record)
                if node.phase is Phase.DRAINING:
                    work = await _scheduled(notifier, node.record, work)
                idle_since = memory.idle.since(name, work, now, fresh)
                if idle_since != work.idle_since:
                    work = replace(work, idle_since=idle_since)
                if work != self._work.get(name):
                    self._work[name] = work
        return replace(view, nodes={**view.nodes, **{name: self._at_work(node) for name, node in living.items()}})

    def _said(self, beat: Beat | None, record: NodeRecord) -> Work:
        """What a heartbeat says; the same one is read once."""
        if beat is None:
            return work_of(None, record, self._lateness)
        known = self._heard.get(record.node)
        if known is None or known[0] != beat or known[1] != record.generation:
            known = self._heard[record.node] = (
                beat, record.generation, work_of(beat, record, self._lateness)
            )  # fmt: skip
        return known[2]

    def _node(self, name: str) -> NodeView:
        """The node as it is known now; the view that was made before where nothing of it changed."""
        stored = self._nodes.known[name]
        work = self._work.get(name) if stored.record.phase not in ENDED else None
        parts = (stored, self._health.known.get(name), self._inbox.known.get(name), self._wishes.known.get(name), work)
        before = self._views.get(name)
        return before[1] if before is not None and before[0] == parts else self._viewed(name, parts)

    def _viewed(self, name: str, parts: _Parts) -> NodeView:
        view = _view(*parts)
        self._views[name] = (parts, view)
        return view

    def _at_work(self, view: NodeView) -> NodeView:
        """The view with what is known of the work by now."""
        work = self._work[view.node]
        if view.work is work:
            return view
        stored, verdict, reports, wished, _ = self._views[view.node][0]
        return self._viewed(view.node, (stored, verdict, reports, wished, work))


def _keep(known: dict[str, Any], names: Collection[str]) -> None:
    for name in known.keys() - names:
        del known[name]


def _may_go(node: NodeView) -> bool:
    """Whether a decision on the node may rest on what works there right now."""
    return node.phase is Phase.DRAINING or bool(node.open_wishes)


async def _scheduled(notifier: WorkloadNotifier, record: NodeRecord, heard: Work) -> Work:
    try:
        return replace(heard, idle=await notifier.is_drained(record, heard))
    except SchedulerUnavailable as error:
        return replace(heard, idle=None, text=f"its scheduler cannot be asked: {error}"[:200])


def _view(
    stored: Stored[NodeRecord],
    verdict: Stored[HealthRecord] | None,
    reports: Stored[InboxRecord] | None,
    wished: Stored[NodeWishes] | None,
    work: Work | None,
) -> NodeView:
    return NodeView(
        record=stored.record,
        revision=stored.revision,
        health=verdict.record if verdict else None,
        health_revision=_revision(verdict),
        inbox=reports.record if reports else None,
        inbox_revision=_revision(reports),
        wish_record=wished.record if wished else None,
        wish_revision=_revision(wished),
        work=work or Work(),
    )


def _revision(stored: Stored | None) -> int:  # type: ignore[type-arg]
    return stored.revision if stored is not None else ABSENT
