"""Holds what the stream of events was told of nodes against their records, slowly, and tells again what was lost.

It repairs: a node of a pool that is held here is in a phase whose event is neither in the stream nor in the outbox (see
`navarch_common.told`, and `untold` for which event that is). A few nodes at a time: each costs one question to the bus.
The copy that speaks for all pools also holds the last event against the record that it came from: an event that is newer
than its record means that the store has lost writes, and is told as an alarm.
"""

import asyncio
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

import structlog

from navarch_common.bus.base import BusError
from navarch_common.events import kinds
from navarch_common.model.health import HEALTH
from navarch_common.model.node import NODE, NodeRecord
from navarch_common.run import Deps
from navarch_common.store.base import Commit, Stored, StoreError
from navarch_common.told import CHECKED_FOR, Look, Told, Word
from navarch_provisioner.news import ACTOR, Why
from navarch_provisioner.pool import PoolWorker
from navarch_provisioner.steps import Step
from navarch_provisioner.untold import holds, told_again

log = structlog.get_logger(__name__)

NODES_MAX = 50
"""Nodes looked at in one pass."""
AT_ONCE = 8
ALARM_QUIET = timedelta(minutes=5)


class Retelling:
    """One process's look at what was told. `step` is a reconciler's step."""

    def __init__(self, deps: Deps, workers: Callable[[], Iterable[PoolWorker]], leads: Callable[[], bool]) -> None:
        self._deps, self._workers, self._leads = deps, workers, leads
        self._told = Told(deps.store, deps.bus, deps.subjects)
        self._checked: dict[str, tuple[datetime, datetime]] = {}
        """By node, since when what was found holds, and when it was found."""
        self._made_at: datetime | None = None
        self._alarmed_at: datetime | None = None

    async def step(self) -> dict[str, int]:
        """Raises `BusError`, `StoreError`: the next pass looks again."""
        workers = list(self._workers())
        records = [
            (worker, stored) for worker in workers for stored in await self._deps.store.records(NODE, worker.pool)
        ]
        look = await self._told.look()
        if look is None:
            return {"checked": 0, "told": 0}
        if look.made_at != self._made_at:
            self._made_at = look.made_at
            self._checked.clear()
        self._forget({stored.record.node for _, stored in records})
        now = self._deps.clock.now()
        due = [(worker, stored) for worker, stored in records if self._is_due(stored.record, look, now)]
        free = asyncio.Semaphore(AT_ONCE)
        try:
            async with asyncio.TaskGroup() as tasks:
                checks = [
                    tasks.create_task(self._check(worker, stored, free), name=f"told {stored.record.node}")
                    for worker, stored in due[:NODES_MAX]
                ]
        except* StoreError as group:
            # One failure is as good as many: the store is away.
            raise group.exceptions[0] from None
        if self._leads():
            await self._compare()
        return {"checked": len(checks), "told": sum(check.result() for check in checks), "left": len(due) - len(checks)}

    def _is_due(self, record: NodeRecord, look: Look, now: datetime) -> bool:
        what = holds(record)
        if what is None or record.node in look.waiting or not look.should_be_there(what.since, now):
            return False
        since, found_at = self._checked.get(record.node, (None, now))
        return since != what.since or now - found_at >= CHECKED_FOR

    async def _check(self, worker: PoolWorker, stored: Stored[NodeRecord], free: asyncio.Semaphore) -> bool:
        """Whether something had to be told again."""
        record = stored.record
        what = holds(record)
        assert what is not None
        async with free:
            try:
                last = await self._told.last(what.kind, record.pool, record.node)
            except BusError as error:
                log.debug("not known what was told", node=record.node, error=str(error))
                return False
            now = self._deps.clock.now()
            if last is not None and last.at >= what.since:
                self._checked[record.node] = what.since, now
                return False
            event = told_again(record, what, self._deps.cluster, now)
            # The record is written as it is, so that no event is newer than its record.
            why = Why("told-again", f"{event.KIND} was lost and is told again")
            step = Step(
                "note", record.node, why, expect={stored.key: stored.revision}, put={stored.key: record}, emit=(event,)
            )
            async with worker.apart:
                told = await worker.commit(step)
        if told:
            log.warning("event told again", node=record.node, pool=record.pool, kind=event.KIND, since=what.since)
            self._deps.metrics.count("navarch_events_told_again_total", service="provisioner")
        return told

    def _forget(self, nodes: set[str]) -> None:
        for gone in [node for node in self._checked if node not in nodes]:
            del self._checked[gone]

    async def _compare(self) -> None:
        """The stream's last word against its record."""
        last = await self._told.last_of_all()
        if last is None or not last.node or await self._known(last) >= last.rev:
            return
        now = self._deps.clock.now()
        if self._alarmed_at is not None and now - self._alarmed_at < ALARM_QUIET:
            return
        self._alarmed_at = now
        text = (
            f"the store has lost writes: it knows nothing as new as {last.type} of {last.node} at revision {last.rev}, "
            f"which was told at {last.at.isoformat()}"
        )
        log.error("store behind stream", node=last.node, rev=last.rev)
        alarm = kinds.Alarm(at=now, cluster=self._deps.cluster, reason=text, code="store-behind-stream", actor=ACTOR)
        await self._deps.committer.commit(Commit(emit=(alarm,)))

    async def _known(self, last: Word) -> int:
        """The newest revision of what an event can have come from. Read after the event, so never older than it."""
        node, health = await self._deps.store.get_many([NODE.key(last.node), HEALTH.key(last.node)])
        return max(stored.revision if stored is not None else 0 for stored in (node, health))
